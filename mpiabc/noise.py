"""Noise models: the density p(observed | simulated) takes the place of a distance (Wilkinson 2013).

A model is any callable `(simulated, observed) -> float`, or `(simulated, observed, theta) -> float`, that
gives the log density of the observed data, if the simulated ones are the truth; or one of those below, for
numbers that are independent of each other. A parameter of these is a number, data in the structure of the
observed ones, the name of a parameter of the prior, or a function of theta that gives a number or such data.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol

import numpy as np

from mpiabc.arguments import real, whole
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.structure import Structure, number

Columns = Mapping[str, np.ndarray]  # theta of m rows, by name
Bounds = Mapping[str, tuple[float, float] | None]  # of the prior's support, by name
Value = Any  # a parameter of a model


class RowModel(Protocol):
    """A model for many simulations at once.

    `takes_theta` says whether theta is needed; `check(observed)` raises ProblemError for data it is not for.
    """

    takes_theta: bool

    def log_densities(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns) -> np.ndarray:
        """log p of observed (k,) given each row of simulated (m, k), (m,); -inf where it cannot be."""
        ...

    def log_maximum(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """The largest that `log_densities` can be, or a bound on it; None if that is not known."""
        ...


@dataclass(frozen=True)
class Normal:
    """Normal noise with standard deviation `sd`."""

    sd: Value

    def __post_init__(self) -> None:
        _check_positive("Normal(sd=", self.sd)

    @property
    def takes_theta(self) -> bool:
        """Whether `sd` depends on theta."""
        return _depends(self.sd)

    def check(self, observed: Any) -> None:
        """Raise ProblemError for an `sd` of other data."""
        _check_structure("Normal(sd=", self.sd, observed)

    def log_densities(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns) -> np.ndarray:
        """sum -((y - s) / sd)^2 / 2 - log(sd sqrt(2 pi))."""
        sd = _rows(self.sd, theta, simulated)
        return (-0.5 * np.square((observed - simulated) / sd) - _log(sd * math.sqrt(2 * math.pi))).sum(axis=1)

    def log_maximum(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """Where the data are simulated as they are observed, with the smallest sd."""
        sd = _least(self.sd, bounds, len(observed))
        return None if sd is None else float(-np.log(sd * math.sqrt(2 * math.pi)).sum())


@dataclass(frozen=True)
class Laplace:
    """Noise of density exp(-|y - s| / scale) / (2 scale), with heavier tails than the normal one."""

    scale: Value

    def __post_init__(self) -> None:
        _check_positive("Laplace(scale=", self.scale)

    @property
    def takes_theta(self) -> bool:
        """Whether `scale` depends on theta."""
        return _depends(self.scale)

    def check(self, observed: Any) -> None:
        """Raise ProblemError for a `scale` of other data."""
        _check_structure("Laplace(scale=", self.scale, observed)

    def log_densities(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns) -> np.ndarray:
        """sum -|y - s| / scale - log(2 scale)."""
        scale = _rows(self.scale, theta, simulated)
        return (-np.abs(observed - simulated) / scale - _log(2 * scale)).sum(axis=1)

    def log_maximum(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """Where the data are simulated as they are observed, with the smallest scale."""
        scale = _least(self.scale, bounds, len(observed))
        return None if scale is None else float(-np.log(2 * scale).sum())


@dataclass(frozen=True)
class Poisson:
    """Observed counts are Poisson with the simulated numbers as their means, which may not be negative."""

    takes_theta = False

    def check(self, observed: Any) -> None:
        """Raise ProblemError for data that are no counts."""
        _check_counts("Poisson", observed)

    def log_densities(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns) -> np.ndarray:
        """sum y log s - s - log y!."""
        return (_times_log(observed, simulated) - simulated - _log_gamma(observed + 1.0)).sum(axis=1)

    def log_maximum(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """At s = y."""
        return float(self.log_densities(observed[None], observed, {})[0])


@dataclass(frozen=True)
class NegativeBinomial:
    """Observed counts of mean s, the simulated number, and variance s + s^2 / dispersion."""

    dispersion: Value

    def __post_init__(self) -> None:
        _check_positive("NegativeBinomial(dispersion=", self.dispersion)

    @property
    def takes_theta(self) -> bool:
        """Whether `dispersion` depends on theta."""
        return _depends(self.dispersion)

    def check(self, observed: Any) -> None:
        """Raise ProblemError for data that are no counts."""
        _check_counts("NegativeBinomial", observed)
        _check_structure("NegativeBinomial(dispersion=", self.dispersion, observed)

    def log_densities(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns) -> np.ndarray:
        """sum log [Gamma(y + k) / (Gamma(k) y!)] + k log [k / (k + s)] + y log [s / (k + s)]."""
        k = _rows(self.dispersion, theta, simulated)
        constant = _log_gamma(observed + k) - _log_gamma(k) - _log_gamma(observed + 1.0)
        of_s = _times_log(observed, simulated) - (k + observed) * np.log(k + simulated) + k * _log(k)
        return (constant + of_s).sum(axis=1)

    def log_maximum(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """At s = y; with a dispersion that may be anything, Poisson's, which it approaches from below."""
        if self.takes_theta:
            return Poisson().log_maximum(observed, bounds)
        return float(self.log_densities(observed[None], observed, {})[0])


@dataclass(frozen=True)
class Binomial:
    """Each of the simulated things, a whole number of them, is observed with probability `p`."""

    p: Value

    def __post_init__(self) -> None:
        _check_positive("Binomial(p=", self.p, most=1.0)

    @property
    def takes_theta(self) -> bool:
        """Whether `p` depends on theta."""
        return _depends(self.p)

    def check(self, observed: Any) -> None:
        """Raise ProblemError for data that are no counts."""
        _check_counts("Binomial", observed)
        _check_structure("Binomial(p=", self.p, observed)

    def log_densities(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns) -> np.ndarray:
        """sum log C(s, y) + y log p + (s - y) log(1 - p)."""
        p = _rows(self.p, theta, simulated)
        missed = simulated - observed
        is_there = (missed >= 0) & (simulated == np.floor(simulated))
        missed = np.where(is_there, missed, 0.0)
        ways = _log_gamma(missed + observed + 1.0) - _log_gamma(observed + 1.0) - _log_gamma(missed + 1.0)
        found = ways + _times_log(observed, p) + _times_log(missed, 1.0 - p)
        found = np.where(is_there, found, -np.inf)
        return np.where(simulated == np.floor(simulated), found, np.nan).sum(axis=1)

    def log_maximum(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """At s = floor(y / p), where the next s is less likely; not known for a p that depends on theta."""
        if self.takes_theta:
            return None
        p = np.broadcast_to(_row(self.p), observed.shape)
        return float(Binomial(p).log_densities(np.floor(observed / p)[None], observed, {})[0])


@dataclass(frozen=True)
class Noise:
    """Accept by the density of the observed data under noise: inference that is exact at temperature 1.

    model: see `mpiabc.noise`. An evaluation is accepted with probability min(1, (p / c)^(1 / T)): the
    temperature T is `population.epsilon`, and `population.distances` are -log p. Generation 0 accepts all: T
    is inf. From then on T_t = T_0^(1 - t / steps), T_0 such that `rate` of the prior's sample would be
    accepted; it falls sooner where more than `rate` are accepted anyway, and is exactly 1 from t = steps on,
    or before: end the run by epsilon=1. c is the largest p that can be, where the model knows it, or
    exp(log_maximum) where you do; else the largest that was seen before, and evaluations with a larger one
    have more weight for that. At temperature 1, `population.log_evidence` is that of the data.
    """

    model: Any
    steps: int = 8
    rate: float = 0.3
    log_maximum: float | None = None

    def __post_init__(self) -> None:
        steps, rate = whole(self.steps), real(self.rate)
        if not (callable(self.model) or _is_row_model(self.model)) or isinstance(self.model, type):
            raise ProblemError(
                f"Noise({self.model!r}): give a model such as mpiabc.noise.Normal(sd=1), or a function "
                "(simulated, observed) -> log density"
            )
        if steps is None or steps < 1:
            raise ProblemError(f"Noise(steps={self.steps!r}): give a whole number of at least 1")
        if rate is None or not 0 < rate < 1:
            raise ProblemError(f"Noise(rate={self.rate!r}): give an acceptance rate between 0 and 1")
        if self.log_maximum is not None and not math.isfinite(_or_nan(real(self.log_maximum))):
            raise ProblemError(f"Noise(log_maximum={self.log_maximum!r}): give the log of a density, or None")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "rate", rate)

    def check(self, names: tuple[str, ...]) -> None:
        """Raise ProblemError for a parameter of the model that names none of these."""
        for value in vars(self.model).values() if is_dataclass(self.model) else ():
            if isinstance(value, str) and value not in names:
                raise ProblemError(
                    f"{self.model} names {value!r}, and the parameters are {', '.join(names)}: give one of "
                    "them, a number, or a function of theta"
                )

    def distance(self) -> "Density | DensityOfData":
        """What takes the place of a problem's distance: -log p."""
        return Density(self.model) if _is_row_model(self.model) else DensityOfData(self.model)

    @quiet
    def log_c(self, observed: np.ndarray, bounds: Bounds) -> float | None:
        """The log of the largest density that can be, if that is known."""
        if self.log_maximum is not None:
            return float(self.log_maximum)
        return self.model.log_maximum(observed, bounds) if _is_row_model(self.model) else None


@dataclass(frozen=True)
class Density:
    """-log p by a model for rows, as the distance of a problem."""

    is_rowwise = True
    is_log_density = True

    model: RowModel

    @property
    def takes_theta(self) -> bool:
        """Whether `rows` is to be given theta, too."""
        return self.model.takes_theta

    def check(self, observed: Any) -> None:
        """Raise ProblemError for data that the model is not for."""
        check = getattr(self.model, "check", None)
        if check is not None:
            check(observed)

    @quiet
    def rows(self, simulated: np.ndarray, observed: np.ndarray, theta: Columns | None = None) -> np.ndarray:
        """-log p of simulated (n, k), (n,); nan where p is no number."""
        found = -np.asarray(self.model.log_densities(simulated, observed, theta or {}))
        return np.where(found == -np.inf, np.nan, found)


@dataclass(frozen=True)
class DensityOfData:
    """-log p by a function of data, as the distance of a problem."""

    is_log_density = True

    model: Callable[..., float]

    @property
    def takes_theta(self) -> bool:
        """Whether it is to be called with theta, too."""
        return _takes_three(self.model)

    def __call__(self, simulated: Any, observed: Any, *theta: Any) -> float:
        """-log p; nan where that is no number."""
        found = -number(self.model(simulated, observed, *theta))
        return math.nan if found == -math.inf else found


def _or_nan(x: float | None) -> float:
    return math.nan if x is None else x


def _is_row_model(model: Any) -> bool:
    return callable(getattr(model, "log_densities", None))


def _takes_three(function: Callable[..., Any]) -> bool:
    """Whether it has a third parameter that it must be given, or that is called theta."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    third = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][2:3]
    return any(p.default is p.empty or p.name == "theta" for p in third)


# Parameters of models.


def _depends(value: Value) -> bool:
    return isinstance(value, str) or callable(value)


def _row(value: Any) -> np.ndarray:
    """A number (1,), or data as a row (k,)."""
    return np.atleast_1d(np.asarray(Structure(value).row(value), np.float64))


def _rows(value: Value, theta: Columns, simulated: np.ndarray) -> np.ndarray:
    """A parameter for each simulated number (m, k)."""
    if isinstance(value, str):
        found = theta[value][:, None]
    elif callable(value):
        columns = {name: np.asarray(column).tolist() for name, column in theta.items()}
        rows = [_row(value({name: c[i] for name, c in columns.items()})) for i in range(len(simulated))]
        found = np.stack(rows) if rows else np.empty((0, 1))
    else:
        found = _row(value)[None]
    return np.broadcast_to(found, simulated.shape)


def _least(value: Value, bounds: Bounds, k: int) -> np.ndarray | None:
    """The smallest that a parameter can be, (k,); None if it is not known, or may be as small as it likes."""
    if isinstance(value, str):
        low = (bounds.get(value) or (0.0, 0.0))[0]
        return np.full(k, low) if low > 0 else None
    return None if callable(value) else np.broadcast_to(_row(value), (k,))


def _check_positive(text: str, value: Value, most: float = math.inf) -> None:
    if _depends(value):
        return
    row = _row(value)
    if not (np.all(row > 0) and np.all(row <= most) and np.all(np.isfinite(row))):
        ends = "numbers > 0" if most == math.inf else f"numbers > 0, and at most {most:g}"
        raise ProblemError(f"noise.{text}{value!r}): give {ends}, a parameter's name, or a function of theta")


def _check_structure(text: str, value: Value, observed: Any) -> None:
    if _depends(value) or _row(value).size == 1:
        return
    structure, mine = Structure(observed), Structure(value)
    if mine.size != structure.size or not structure.agrees(mine):
        raise ProblemError(
            f"noise.{text}...) has {mine} where the observed data are {structure}: give one number, or one "
            "for each in the structure of the observed data"
        )


def _check_counts(text: str, observed: Any) -> None:
    row = Structure(observed).row(observed)
    is_bad = ~((row >= 0) & (row == np.floor(row)))
    if is_bad.any():
        raise ProblemError(
            f"noise.{text} is for counts, and {row[is_bad][0]!r} is among the observed data: give whole "
            "numbers >= 0"
        )


def _log(x: np.ndarray) -> np.ndarray:
    """Logarithm; nan for what is not positive."""
    return np.log(np.where(x > 0, x, np.nan))


def _times_log(n: np.ndarray, x: np.ndarray) -> np.ndarray:
    """n log x, 0 where n = 0; nan for x < 0."""
    return np.where((n == 0) & (x >= 0), 0.0, n * np.log(x))


def _log_gamma(x: np.ndarray) -> np.ndarray:
    """Of each number, from the C library: nan where it is not positive."""
    flat = np.ravel(x).tolist()
    return np.reshape([math.lgamma(v) if v > 0 else math.nan for v in flat], np.shape(x))
