"""Priors: what is believed before the data. A prior is also the proposal of generation 0.

Anything with `names`, `sample(n, rng) -> (n, d)` and `logpdf(theta (n, d)) -> (n,)` is a prior; `Prior`
builds one from independent marginals. scipy's frozen distributions are accepted; the four
distributions below are ours because they are light (no scipy.stats in a worker) and quick.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mpiabc.errors import ProblemError
from mpiabc.guard import quiet


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


class Prior:
    """Independent marginals: `Prior(mu=scipy.stats.norm(0, 2), k=mpiabc.LogUniform(0.1, 10))`.

    Raises ProblemError for no marginals, for what is no distribution, and for discrete ones.
    """

    is_normalised = True

    def __init__(self, **marginals: Any) -> None:
        if not marginals:
            raise ProblemError("the prior is empty: name at least one parameter, Prior(mu=...)")
        self.names: tuple[str, ...] = tuple(marginals)
        self.marginals = tuple(_checked(name, marginal) for name, marginal in marginals.items())
        is_uniform = [isinstance(marginal, Uniform) for marginal in self.marginals]
        # A box needs one comparison for all its sides; the other marginals are asked one by one.
        self._box = np.flatnonzero(is_uniform)
        self._others = np.flatnonzero(~np.array(is_uniform)).tolist()
        self._low = np.array([self.marginals[i].low for i in self._box])
        self._high = np.array([self.marginals[i].high for i in self._box])
        self._log_box = -sum(math.log(side) for side in self._high - self._low)

    @quiet
    def bounds(self) -> list[tuple[float, float] | None]:
        """The ends of each parameter's support; None where its marginal has no `support()`."""
        return [_support(marginal) for marginal in self.marginals]

    def __repr__(self) -> str:
        parts = zip(self.names, self.marginals, strict=True)
        return f"Prior({', '.join(f'{name}={_told(marginal)}' for name, marginal in parts)})"

    @quiet
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d)."""
        columns = [m.rvs(size=n, random_state=rng) for m in self.marginals]
        return np.stack(columns, axis=1) if len(columns) > 1 else np.reshape(columns[0], (n, 1))

    @quiet
    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (n, d), (n,); -inf outside the support."""
        if len(self._box):
            in_box = theta[:, self._box] if self._others else theta
            is_between = (in_box >= self._low) & (in_box <= self._high)
            is_inside = np.ascontiguousarray(is_between.T).all(axis=0)  # quicker than over short rows
            total = np.where(is_inside, self._log_box, -np.inf)
        else:
            total = np.zeros(len(theta))
        for i in self._others:
            total += self.marginals[i].logpdf(theta[:, i])
        return total


def _support(marginal: Any) -> tuple[float, float] | None:
    support = getattr(marginal, "support", None)
    if support is None:
        return None
    low, high = support()
    return float(low), float(high)


def _checked(name: str, marginal: Any) -> Any:
    """The marginal, or its quick twin; ProblemError if it is none."""
    is_frozen = hasattr(getattr(marginal, "dist", None), "name")
    if is_frozen and hasattr(marginal, "pmf"):
        raise ProblemError(
            f"parameter {name!r} has the discrete distribution {_told(marginal)}: discrete parameters "
            "are not supported yet, give a continuous distribution"
        )
    if not (callable(getattr(marginal, "rvs", None)) and callable(getattr(marginal, "logpdf", None))):
        raise ProblemError(
            f"parameter {name!r} has {marginal!r} as its prior, expected a distribution, such as "
            "scipy.stats.norm(0, 1) or mpiabc.Uniform(0, 1)"
        )
    if isinstance(marginal, type) or hasattr(marginal, "freeze"):
        raise ProblemError(
            f"parameter {name!r} has a distribution without parameters: freeze it by a call, as in "
            "scipy.stats.norm(0, 1)"
        )
    return _quick_twin(marginal) if is_frozen else marginal


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


def _told(marginal: Any) -> str:
    """A marginal as text that is the same in every process."""
    if hasattr(getattr(marginal, "dist", None), "name"):
        arguments = [repr(a) for a in marginal.args] + [f"{k}={v!r}" for k, v in marginal.kwds.items()]
        return f"{marginal.dist.name}({', '.join(arguments)})"
    return repr(marginal)
