"""Marginals: the parts of a prior that are no plain continuous distribution of one parameter.

A marginal has `rvs(size, random_state)`, which gives (n,), or (n, width) of several parameters together, and
`logpdf`, or `logpmf` of what is discrete. Integers and choices are ours, the others SciPy's in our manner.
"""

import io
import math
import pickle
import re
from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np

from mpiabc.arguments import real, whole
from mpiabc.errors import ProblemError

_LARGEST = 1 << 53  # beyond which not every integer is a float
_ON_SURFACES = ("uniform_direction", "vonmises_fisher", "ortho_group", "special_ortho_group")
_DRAWS = 8  # that show what a distribution gives
_ROUNDING = 1e-9


class Integer:
    """An integer from `low` to `high`, both included, each as probable as the others."""

    def __init__(self, low: int, high: int) -> None:
        ends = whole(low), whole(high)
        if None in ends or not -_LARGEST <= ends[0] <= ends[1] <= _LARGEST:  # type: ignore[operator]
            raise ProblemError(f"Integer({low!r}, {high!r}): give whole numbers low <= high, up to 2**53")
        self.low, self.high = (int(end) for end in ends if end is not None)

    def __repr__(self) -> str:
        return f"Integer({self.low}, {self.high})"

    def support(self) -> tuple[int, int]:
        """Its ends."""
        return self.low, self.high

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return random_state.integers(self.low, self.high, size, endpoint=True)

    def logpmf(self, x: np.ndarray) -> np.ndarray:
        """Log mass, -inf outside and between integers."""
        is_inside = (x >= self.low) & (x <= self.high) & (x == np.floor(x))
        return np.where(is_inside, -math.log(self.high - self.low + 1), -np.inf)


class Choice:
    """One of these values, of any kind, which have no order.

    `probabilities`, of each value, are equal if not given. theta holds the index, simulators get the value.
    """

    def __init__(self, values: Sequence[Any], probabilities: Sequence[float] | None = None) -> None:
        if isinstance(values, str) or not hasattr(values, "__len__") or not len(values):
            raise ProblemError(f"Choice({values!r}): give a list of at least one value")
        self.values = tuple(values.tolist() if isinstance(values, np.ndarray) else values)
        n = len(self.values)
        given = [1 / n] * n if probabilities is None else [real(p) for p in probabilities]
        is_right = len(given) == n and all(p is not None and 0 < p <= 1 for p in given)
        if not is_right or abs(sum(p for p in given if p is not None) - 1) > _ROUNDING:
            raise ProblemError(
                f"Choice({list(self.values)!r}, {probabilities!r}): give a probability > 0 for each value, "
                "which add up to 1"
            )
        self.probabilities = tuple(float(p) for p in given if p is not None)

    def __repr__(self) -> str:
        p, n = self.probabilities, len(self.values)
        return f"Choice({list(self.values)!r}{'' if p == (1 / n,) * n else f', {list(p)}'})"

    def support(self) -> tuple[int, int]:
        """Of the index."""
        return 0, len(self.values) - 1

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws of the index."""
        ends = np.cumsum(self.probabilities)[:-1]
        return np.searchsorted(ends, random_state.random(size), side="right")

    def logpmf(self, x: np.ndarray) -> np.ndarray:
        """Log mass of the index, -inf for what is none."""
        is_one = (x >= 0) & (x < len(self.values)) & (x == np.floor(x))
        at = np.where(is_one, x, 0).astype(np.intp)
        return np.where(is_one, np.log(self.probabilities)[at], -np.inf)


class Adapted:
    """A distribution of SciPy's as a marginal; `parts` tell it from another: arrays, numbers and text."""

    parts: tuple[Any, ...]

    def __init__(self, distribution: Any) -> None:
        self._distribution = distribution
        self.parts = self._parts()

    @property
    def kind(self) -> str:
        """The distribution's name."""
        return type(self._distribution).__name__.removesuffix("_frozen")

    def _parts(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{self.kind}(...)"


class Modern(Adapted):
    """One of SciPy's new distributions of one number, such as `stats.Normal(mu=0, sigma=1)`."""

    def __reduce__(self) -> tuple[Any, ...]:
        body = io.BytesIO()
        _Pickler(body).dump(self._distribution)
        return _arrived, (type(self), body.getvalue())

    def _parts(self) -> tuple[Any, ...]:
        """As it prints itself, on one line."""
        text = re.sub(r"\s+", " ", repr(self._distribution))
        return (re.sub(r"np\.\w+\(([^()]*)\)", r"\1", re.sub(r" at 0x[0-9a-fA-F]+", "", text)),)

    def __repr__(self) -> str:
        return str(self.parts[0])

    def support(self) -> tuple[float, float]:
        """Its ends."""
        return self._distribution.support()

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return self._distribution.sample(size, rng=random_state)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density."""
        return self._distribution.logpdf(x)


class _Pickler(cloudpickle.Pickler):
    """Pickles SciPy's new distributions as they are: by itself, each Normal arrives as a standard one."""

    def reducer_override(self, value: Any) -> Any:
        """As ever, but made without a call of the class."""
        if is_modern(value):
            return _made, (type(value),), *value.__reduce_ex__(4)[2:]
        return super().reducer_override(value)


def _made(cls: type) -> Any:
    return object.__new__(cls)


def _arrived(cls: type, body: bytes) -> "Modern":
    return cls(pickle.loads(body))


class ModernDiscrete(Modern):
    """One of SciPy's new distributions of an integer, such as `stats.Binomial(n=10, p=0.5)`."""

    logpdf = None  # type: ignore[assignment]

    def logpmf(self, x: np.ndarray) -> np.ndarray:
        """Log mass."""
        return self._distribution.logpmf(x)


class Tabled(Adapted):
    """A histogram, `stats.rv_histogram(...)`, which has its bins in itself."""

    def _parts(self) -> tuple[Any, ...]:
        return self._distribution._hbins, self._distribution._hpdf

    def support(self) -> tuple[float, float]:
        """Its ends."""
        return self._distribution.support()

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return self._distribution.rvs(size=size, random_state=random_state)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density."""
        with np.errstate(divide="ignore"):
            return self._distribution.logpdf(x)


class TabledDiscrete(Tabled):
    """What `stats.rv_discrete(values=...)` gives, with its values in itself, frozen or not."""

    logpdf = None  # type: ignore[assignment]

    def _parts(self) -> tuple[Any, ...]:
        given = self._distribution
        table = getattr(given, "dist", given)
        return table.xk, table.pk, getattr(given, "args", ()), getattr(given, "kwds", {})

    def logpmf(self, x: np.ndarray) -> np.ndarray:
        """Log mass."""
        with np.errstate(divide="ignore"):
            return self._distribution.logpmf(x)


class Several(Adapted):
    """A distribution of several numbers, such as SciPy's multivariate normal."""

    def _parts(self) -> tuple[Any, ...]:
        names = ("mean", "cov", "loc", "shape", "df")
        found = (getattr(self._distribution, name, None) for name in names)
        return tuple(value for value in found if value is not None and not callable(value))

    def bounds(self, width: int) -> list[tuple[float, float] | None]:
        """The ends of each parameter's support."""
        is_known = self.kind in ("multivariate_normal", "multivariate_t")
        return [(-math.inf, math.inf) if is_known else None] * width

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws, (size, width)."""
        found = np.asarray(self._distribution.rvs(size=size, random_state=random_state))
        return found.reshape(size, -1)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density of x (n, width), (n,)."""
        return np.reshape(self._distribution.logpdf(x), len(x))


class Shares(Several):
    """A Dirichlet distribution: shares that add up to 1; its density knows all but the last."""

    @property
    def _alpha(self) -> np.ndarray:
        return np.asarray(self._distribution.alpha, np.float64)

    def _parts(self) -> tuple[Any, ...]:
        return (self._alpha,)

    def bounds(self, width: int) -> list[tuple[float, float] | None]:
        """From none to all."""
        return [(0.0, 1.0)] * width

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density of the shares (n, width) but the last, (n,); -inf for what does not add up to 1."""
        alpha = self._alpha
        log_norm = math.lgamma(math.fsum(alpha)) - math.fsum(map(math.lgamma, alpha))
        is_inside = (x > 0).all(axis=1) & (np.abs(x.sum(axis=1) - 1) <= _ROUNDING)
        log_x = np.log(np.where(is_inside[:, None], x, 1.0))
        return np.where(is_inside, log_norm + (log_x * (alpha - 1)).sum(axis=1), -np.inf)


class Smoothed(Several):
    """A kernel density estimate, `stats.gaussian_kde(data)`, of one number or more."""

    def _parts(self) -> tuple[Any, ...]:
        return self._distribution.dataset, self._distribution.weights, self._distribution.covariance

    def bounds(self, width: int) -> list[tuple[float, float] | None]:
        """All numbers."""
        return [(-math.inf, math.inf)] * width

    def support(self) -> tuple[float, float]:
        """All numbers."""
        return -math.inf, math.inf

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws."""
        return self._distribution.resample(size, seed=random_state).T

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density of x (n,) or (n, width), (n,)."""
        return self._distribution.logpdf(x.T)


class Learnt(Several):
    """What an earlier study has learnt: its posterior, of all its parameters together."""

    def _parts(self) -> tuple[Any, ...]:
        return (self._distribution.digest(),)

    @property
    def layout(self) -> Any:
        """What its columns are."""
        return self._distribution.layout

    def bounds(self, width: int) -> list[tuple[float, float] | None]:
        """Those of the prior that it was made with."""
        return list(self._distribution.bounds())

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """`size` draws, (size, width)."""
        return self._distribution.sample(size, random_state)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density of x (n, width), (n,)."""
        return self._distribution.logpdf(x)


def is_learnt(value: Any) -> bool:
    """Whether it is the posterior of an earlier study; known by its shape, as it lives further up."""
    needed = ("sample", "logpdf", "bounds", "digest")
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in needed)


def is_modern(value: Any) -> bool:
    """Whether it is one of SciPy's new distributions, which have no `rvs`."""
    return _is_of(value, "_ProbabilityDistribution")


def is_smoothed(value: Any) -> bool:
    """Whether it is a kernel density estimate of SciPy's."""
    return _is_of(value, "gaussian_kde")


def _is_of(value: Any, name: str) -> bool:
    """Whether a class of SciPy's of that name is among the value's: SciPy itself is not imported."""
    classes = type(value).__mro__
    return any(cls.__name__ == name and cls.__module__.startswith("scipy.stats") for cls in classes)


def of_one(value: Any) -> Any:
    """What is used in place of a marginal of one parameter that a user gives."""
    if is_modern(value):
        return ModernDiscrete(value) if _is_of(value, "DiscreteDistribution") else Modern(value)
    if is_smoothed(value):
        return Smoothed(value)
    if _is_of(value, "rv_histogram"):
        return Tabled(value)
    return TabledDiscrete(value) if _is_of(getattr(value, "dist", value), "rv_sample") else value


def of_several(names: tuple[str, ...], value: Any) -> Several:
    """A marginal of several parameters; raises ProblemError for what is none."""
    who, d = f"parameters {', '.join(map(repr, names))}", len(names)
    if is_learnt(value):
        return _sized(Learnt(value), who, d)
    if is_smoothed(value):
        return _sized(Smoothed(value), who, d)
    kind = type(value).__name__.removesuffix("_frozen")
    if not (callable(getattr(value, "rvs", None)) and callable(getattr(value, "logpdf", None))):
        raise ProblemError(
            f"{who} have {value!r} as their prior, expected a continuous distribution of {d} numbers, such "
            "as scipy.stats.multivariate_normal(mean, cov), dirichlet(alpha) or gaussian_kde(data)"
        )
    if isinstance(value, type) or kind.endswith("_gen"):
        raise ProblemError(f"{who} have a distribution without parameters: freeze it by a call")
    if kind in _ON_SURFACES:
        raise ProblemError(f"{who} have {kind}: it lies on a surface, on which no kernel of ours moves")
    covariance = getattr(value, "cov_object", None)
    if covariance is not None and covariance.rank < len(covariance.covariance):
        raise ProblemError(f"{who} have a singular covariance, and so no density: leave some of them out")
    return _sized(Shares(value) if kind == "dirichlet" else Several(value), who, d)


def _sized(marginal: Several, who: str, d: int) -> Several:
    """The marginal, after a look at what it draws."""
    draws = np.asarray(marginal.rvs(_DRAWS, np.random.default_rng(0)))
    if draws.shape != (_DRAWS, d):
        width = math.prod(draws.shape[1:])
        raise ProblemError(f"{who} are {d}, and {marginal.kind} gives {width} numbers a draw")
    try:
        marginal.logpdf(draws)
    except Exception as error:
        raise ProblemError(
            f"{who} have {marginal.kind}, whose logpdf takes no rows of {d} numbers ({error}): give a "
            "distribution of vectors, such as scipy.stats.multivariate_normal(mean, cov)"
        ) from None
    return marginal


def check_support(who: str, text: str, marginal: Any) -> None:
    """Raise ProblemError for arguments outside of a distribution's domain, and for arrays of them."""
    support = getattr(marginal, "support", None)
    if support is None:
        return
    low, high = support()
    if np.ndim(low) or np.ndim(high):
        raise ProblemError(f"{who} has {text}: that is {np.size(low)} distributions, expected one")
    if math.isnan(low) or math.isnan(high):
        raise ProblemError(f"{who} has {text}: its arguments are outside of what the distribution allows")
    if hasattr(marginal, "logpmf") and any(
        math.isfinite(end) and end != math.floor(end) for end in (low, high)
    ):
        raise ProblemError(
            f"{who} has {text}: it is discrete, and takes other values than integers; give Choice"
        )
