"""Priors: what is believed before the data. A prior is also the proposal of generation 0.

Anything with `names`, `sample(n, rng) -> (n, d)` and `logpdf(theta (n, d)) -> (n,)` is a prior; `Prior`
builds one from independent marginals. scipy's frozen distributions are accepted; the four
distributions below are ours because they are light (no scipy.stats in a worker) and quick.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mpiabc import calls
from mpiabc.arguments import refuse_class, whole
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.layout import Layout, Options
from mpiabc.priors.marginals import (
    Choice,
    Learnt,
    Several,
    Shares,
    Smoothed,
    Tabled,
    check_support,
    is_learnt,
    of_one,
    of_several,
)


@runtime_checkable
class JointPrior(Protocol):
    """What the sampler needs of a prior; satisfied by shape."""

    names: tuple[str, ...]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d)."""
        ...

    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (n, d), (n,); -inf outside the support."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform on [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ProblemError(f"{self} has no width: give finite low < high")

    def support(self) -> tuple[float, float]:
        """Its ends."""
        return self.low, self.high

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return random_state.uniform(self.low, self.high, size)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density, -inf outside."""
        return np.where((x >= self.low) & (x <= self.high), -math.log(self.high - self.low), -np.inf)


@dataclass(frozen=True)
class Normal:
    """Normal with mean `mean` and standard deviation `sd`."""

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sd) and self.sd > 0):
            raise ProblemError(f"{self}: give a finite mean and sd > 0")

    def support(self) -> tuple[float, float]:
        """All numbers."""
        return -math.inf, math.inf

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return random_state.normal(self.mean, self.sd, size)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density."""
        return -0.5 * np.square((x - self.mean) / self.sd) - math.log(self.sd * math.sqrt(2 * math.pi))


class _OfLogarithm:
    """A distribution of log x; the density of x gains the Jacobian 1 / x."""

    @property
    def _log(self) -> "Uniform | Normal":
        raise NotImplementedError

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return np.exp(self._log.rvs(size, random_state))

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density, -inf for x <= 0."""
        positive = x > 0
        log_x = np.log(np.where(positive, x, 1.0))
        return np.where(positive, self._log.logpdf(log_x) - log_x, -np.inf)


@dataclass(frozen=True)
class LogUniform(_OfLogarithm):
    """log x uniform on [log low, log high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ProblemError(f"{self}: give 0 < low < high")

    def support(self) -> tuple[float, float]:
        """Its ends."""
        return self.low, self.high

    @property
    def _log(self) -> Uniform:
        return Uniform(math.log(self.low), math.log(self.high))


@dataclass(frozen=True)
class LogNormal(_OfLogarithm):
    """log x normal with mean `mean` and standard deviation `sd`."""

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        Normal(self.mean, self.sd)

    def support(self) -> tuple[float, float]:
        """All positive numbers."""
        return 0.0, math.inf

    @property
    def _log(self) -> Normal:
        return Normal(self.mean, self.sd)


_OURS = (Uniform, Normal, LogUniform, LogNormal)


class Prior:
    """Marginals by name: `Prior(mu=scipy.stats.norm(0, 2), k=mpiabc.LogUniform(0.1, 10))`, or a dict of them.

    A dict may have any text and integers as names: `theta[...]` is asked with what it has, results have it as
    text. A marginal is one of SciPy's distributions, frozen or new, a `gaussian_kde`, or one of ours; of an
    integer, a discrete one of SciPy's or `mpiabc.Integer`; `mpiabc.Choice` for values that have no order. A
    tuple of names has a distribution of them together: `{("a", "b"): stats.multivariate_normal(...)}`, or
    `stats.dirichlet`, with a name for each share. A posterior is the prior of the next study as it is:
    `Prior(history.posterior())`. `where`, such as `lambda theta: theta["a"] < theta["b"]`, narrows the
    support: what does not satisfy it is never simulated. It is asked with arrays, and if it gives no array of
    truth values for them, row by row. The density stays that of the marginals, whatever `where`
    leaves of it; the evidence is divided by what it leaves.

    Raises ProblemError for no marginals, for what is no distribution, and for arguments outside its domain.
    """

    is_normalised = True
    where: Callable[[dict[str, Any]], Any] | None = None

    def __init__(
        self,
        mapping: Mapping[Any, Any] | None = None,
        /,
        *,
        where: Callable[[dict[str, Any]], Any] | None = None,
        **marginals: Any,
    ) -> None:
        given = _joined(mapping, marginals)
        if where is not None:
            self.where = _callable(where)
        keys = [key if isinstance(key, tuple) else (key,) for key in given]
        self.names: tuple[str, ...] = _names(tuple(name for key in keys for name in key))
        self.marginals = tuple(
            of_several(tuple(map(str, key)), marginal)
            if isinstance(key, tuple)
            else _checked(str(key), marginal)
            for key, marginal in given.items()
        )
        self._arrange(keys)

    def _arrange(self, keys: Sequence[tuple[str, ...]]) -> None:
        """What is made of names and marginals, which stand in the columns that their names have."""
        self._labels = tuple(", ".join(map(str, key)) for key in keys)
        ends = np.cumsum([len(key) for key in keys]).tolist()
        self._slices = [slice(end - len(key), end) for key, end in zip(keys, ends, strict=True)]
        self._layout = _layout(tuple(name for key in keys for name in key), self._slices, self.marginals)
        is_uniform = [isinstance(marginal, Uniform) for marginal in self.marginals]
        # A box needs one comparison for all its sides; the other marginals are asked one by one.
        self._others = np.flatnonzero(~np.array(is_uniform)).tolist()
        sides = [marginal for marginal in self.marginals if isinstance(marginal, Uniform)]
        uniform = zip(self._slices, is_uniform, strict=True)
        self._box = np.array([at.start for at, is_side in uniform if is_side], np.intp)
        self._low = np.array([side.low for side in sides])
        self._high = np.array([side.high for side in sides])
        self._log_box = -sum(math.log(side) for side in self._high - self._low)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_layout" not in state:  # of an older file
            self._arrange([(name,) for name in self.names])

    @property
    def parts(self) -> dict[str, Any]:
        """The marginals by name; of several parameters, by all their names."""
        return dict(zip(self._labels, self.marginals, strict=True))

    @property
    def layout(self) -> Layout:
        """What the columns of theta are."""
        return self._layout

    @quiet
    def bounds(self) -> list[tuple[float, float] | None]:
        """The ends of each parameter's support; None where its marginal has no `support()`."""
        found: list[tuple[float, float] | None] = []
        for marginal, at in zip(self.marginals, self._slices, strict=True):
            width = at.stop - at.start
            is_joint = isinstance(marginal, Several)
            found += marginal.bounds(width) if is_joint else [_support(marginal)]
        return found

    def plain_support(self) -> dict[str, Any] | None:
        """The support as plain data: bounds, integers, and shares; None where these do not say all of it."""
        layout, bounds = self.layout, self.bounds()
        has_holes = any(isinstance(marginal, Tabled | Learnt) for marginal in self.marginals)
        if self.where is not None or layout.choices or has_holes or None in bounds:
            return None
        rests = [[column, list(others)] for column, others in layout.rests]
        return {"bounds": bounds, "integers": list(layout.integers), "rests": rests}

    def __repr__(self) -> str:
        parts = [f"{name}={_described(marginal)}" for name, marginal in self.parts.items()]
        return f"Prior({', '.join(parts if self.where is None else [*parts, 'where=...'])})"

    @quiet
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d), whatever `where` says of them."""
        columns = [m.rvs(size=n, random_state=rng) for m in self.marginals]
        theta = np.column_stack(columns) if len(columns) > 1 else np.reshape(columns[0], (n, len(self.names)))
        return theta.astype(np.float64) if theta.dtype.kind in "iu" else theta

    @quiet
    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (n, d), (n,); -inf outside the support.

        Raises ProblemError for a `where` that gives no truth values.
        """
        total = self._log_density(theta)
        if self.where is not None:
            self._narrow(self.where, theta, total)
        return total

    @property
    def is_elementwise(self) -> bool:
        """Whether a row's density surely does not depend on the rows beside it: it is all of our own."""
        return self.where is None and all(type(self.marginals[i]) in _OURS for i in self._others)

    def _log_density(self, theta: np.ndarray) -> np.ndarray:
        """That of the marginals."""
        if len(self._box):
            in_box = theta[:, self._box] if self._others else theta
            is_between = (in_box >= self._low) & (in_box <= self._high)
            is_inside = np.ascontiguousarray(is_between.T).all(axis=0)  # quicker than over short rows
            total = np.where(is_inside, self._log_box, -np.inf)
        else:
            total = np.zeros(len(theta))
        for i in self._others:
            marginal, at = self.marginals[i], self._slices[i]
            density = getattr(marginal, "logpmf", None) or marginal.logpdf
            total += density(theta[:, at] if isinstance(marginal, Several) else theta[:, at.start])
        return total

    def _narrow(self, where: Callable[[dict[str, Any]], Any], theta: np.ndarray, total: np.ndarray) -> None:
        """Leave in the support what satisfies `where`, which is asked of nothing else."""
        rows = np.flatnonzero(total > -np.inf)
        if rows.size:
            total[rows[~satisfies(where, self._layout, theta[rows])]] = -np.inf


def satisfies(where: Callable[[dict[str, Any]], Any], layout: Layout, theta: np.ndarray) -> np.ndarray:
    """Which rows of theta (n, d) satisfy a constraint, (n,). Raises ProblemError."""
    try:
        found = np.asarray(where(layout.columns(theta)))
    except Exception:  # it is not written for arrays: `and`, `if`, math.log
        found = np.empty(0)
    if found.shape == (len(theta),) and found.dtype == bool:
        return found
    return np.array([_satisfies(where, layout.row(row)) for row in theta.tolist()], bool)


def _satisfies(where: Callable[[dict[str, Any]], Any], row: dict[str, Any]) -> bool:
    """Whether one row does."""
    text = ", ".join(f"{name}={value!r}" for name, value in row.items())
    try:
        found = where(row)
    except Exception as error:
        raise ProblemError(
            f"where of the prior raised {type(error).__name__}: {error}, for {text}"
        ) from error
    if not isinstance(found, bool | np.bool_) and not (
        np.shape(found) == () and np.asarray(found).dtype == bool
    ):
        raise ProblemError(f"where of the prior gave {found!r}, expected True or False, for {text}")
    return bool(found)


def _joined(mapping: Mapping[Any, Any] | None, marginals: dict[str, Any]) -> dict[Any, Any]:
    """The marginals of a dict, those of a posterior, and those that are named."""
    if is_learnt(mapping):
        mapping = {tuple(mapping.names): mapping}  # type: ignore[union-attr]
    if mapping is not None and not isinstance(mapping, Mapping):
        raise ProblemError(
            f"Prior({mapping!r}): give distributions by name, Prior(mu=...), or a dict of them"
        )
    given = dict(mapping or {}) | marginals
    if not given:
        raise ProblemError("the prior is empty: name at least one parameter, Prior(mu=...)")
    return given


def _names(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Names of parameters as text. Raises ProblemError for others than text and integers, and for twins."""
    for key in keys:
        if not isinstance(key, str) and whole(key) is None:
            raise ProblemError(
                f"the name {key!r} of a parameter is {type(key).__name__}: give text or integers"
            )
    names = tuple(map(str, keys))
    for name in names:
        if names.count(name) > 1:
            raise ProblemError(f"the parameter {name!r} is there twice: give each a name of its own")
    return names


def _callable(where: Any) -> Callable[[dict[str, Any]], Any]:
    if callable(where):
        return where
    raise ProblemError(
        f"where={where!r} is no callable theta -> bool; a parameter of the name goes into a dict, "
        'Prior({"where": ...})'
    )


def _layout(keys: tuple[str, ...], slices: Sequence[slice], marginals: Sequence[Any]) -> Layout:
    """What the columns are that these marginals have."""
    integers: list[int] = []
    choices: list[Options] = []
    rests: list[tuple[int, tuple[int, ...]]] = []
    for marginal, at in zip(marginals, slices, strict=True):
        if isinstance(marginal, Choice):
            choices.append(Options(at.start, marginal.values, np.array(marginal.probabilities)))
        elif hasattr(marginal, "logpmf"):
            integers.append(at.start)
        elif isinstance(marginal, Shares):
            rests.append((at.stop - 1, tuple(range(at.start, at.stop - 1))))
        elif isinstance(marginal, Learnt):
            own = marginal.layout
            integers += [at.start + i for i in own.integers]
            choices += [replace(choice, column=at.start + choice.column) for choice in own.choices]
            rests += [(at.start + i, tuple(at.start + j for j in others)) for i, others in own.rests]
    return Layout(keys, tuple(integers), tuple(choices), tuple(rests))


def _support(marginal: Any) -> tuple[float, float] | None:
    support = getattr(marginal, "support", None)
    if support is None:
        return None
    low, high = support()
    return float(low), float(high)


def _checked(name: str, given: Any) -> Any:
    """The marginal, or its twin in our manner; ProblemError if it is none."""
    refuse_class(str(name), given)
    marginal, who = of_one(given), f"parameter {name!r}"
    is_there = any(callable(getattr(marginal, density, None)) for density in ("logpdf", "logpmf"))
    if not (is_there and callable(getattr(marginal, "rvs", None))):
        raise ProblemError(
            f"{who} has {marginal!r} as its prior, expected a distribution, such as "
            "scipy.stats.norm(0, 1) or mpiabc.Uniform(0, 1), or an object with rvs(size, random_state) and "
            "logpdf(x)"
        )
    if hasattr(marginal, "freeze"):
        raise ProblemError(
            f"{who} has a distribution without parameters: freeze it by a call, as in scipy.stats.norm(0, 1)"
        )
    if type(marginal).__module__.startswith("scipy.stats._multivariate"):
        raise ProblemError(
            f"{who} has {_described(marginal)}: give a name for each of its numbers, {{('a', 'b'): ...}}"
        )
    if isinstance(marginal, Smoothed) and len(marginal.parts[0]) != 1:
        raise ProblemError(f"{who} has a density of {len(marginal.parts[0])} numbers: give a name for each")
    if not (calls.is_ours(marginal) or type(marginal).__module__.startswith("scipy.")):
        _check_calls(f"distribution of {name!r},", marginal)
    check_support(who, _described(marginal), marginal)
    is_frozen = hasattr(getattr(marginal, "dist", None), "name")
    return _quick_twin(marginal) if is_frozen else marginal


def _check_calls(what: str, marginal: Any) -> None:
    """Raise ProblemError for a distribution of one's own that cannot be called as it will be."""
    density = "logpdf" if callable(getattr(marginal, "logpdf", None)) else "logpmf"
    calls.check(what, marginal, "rvs", "size=, random_state=")
    calls.check(what, marginal, density, "x")


def _quick_twin(frozen: Any) -> Any:
    """Our own uniform or normal for scipy's, whose argument checks cost 80 us a block and parameter."""
    if frozen.dist.name not in ("uniform", "norm"):
        return frozen
    _, loc, scale = frozen.dist._parse_args(*frozen.args, **frozen.kwds)
    if np.ndim(loc) or np.ndim(scale):
        return frozen
    if frozen.dist.name == "uniform":
        return Uniform(float(loc), float(loc) + float(scale))
    return Normal(float(loc), float(scale))


def _described(marginal: Any) -> str:
    """A marginal as text that is the same in every process."""
    if hasattr(getattr(marginal, "dist", None), "name"):
        arguments = [repr(a) for a in marginal.args] + [f"{k}={v!r}" for k, v in marginal.kwds.items()]
        return f"{marginal.dist.name}({', '.join(arguments)})"
    return repr(marginal)
