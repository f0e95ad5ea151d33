"""Population: N weighted particles, as immutable arrays, rows in id order."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc.guard import quiet
from mpiabc.particles import Particles


class Named(np.ndarray):
    """A float array whose last axis has names: `mean["mu"]` as well as `mean[0]`."""

    names: tuple[str, ...]

    def __new__(cls, values: Any, names: tuple[str, ...]) -> "Named":
        """View `values` (..., d) with the `d` names."""
        out = np.asarray(values, dtype=np.float64).view(cls)
        out.names = names
        return out

    def __reduce__(self) -> Any:
        return Named, (np.asarray(self), self.names)

    def __array_finalize__(self, source: Any) -> None:
        self.names = getattr(source, "names", ())

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.names:
                raise KeyError(f"no parameter {key!r}; the parameters are {', '.join(self.names)}")
            return self.view(np.ndarray)[..., self.names.index(key)]
        return self.view(np.ndarray)[key]

    def __repr__(self) -> str:
        if self.shape == (len(self.names),):
            told = (f"{name}={value:.6g}" for name, value in zip(self.names, self.tolist(), strict=True))
            return f"({', '.join(told)})"
        return repr(self.view(np.ndarray))

    __str__ = __repr__


@quiet
def effective_sample_size(weights: np.ndarray) -> float:
    """Kish effective sample size, (sum w)^2 / sum w^2."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


@quiet
def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: Any) -> np.ndarray:
    """The smallest value at which the weighted distribution function reaches `q`."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    at = np.searchsorted(cumulative, np.asarray(q) * cumulative[-1], side="left")
    return values[order[np.minimum(at, len(values) - 1)]]


def unlike(names: Collection[str], name: str) -> str:
    """A name that none of these is: with underscores behind it, if need be."""
    while name in names:
        name += "_"
    return name


@dataclass(frozen=True, eq=False, kw_only=True)
class Population(Particles):
    """The accepted evaluations of one generation.

    theta (N, d), weights (N,) summing to 1, distances (N,), summaries (N, k), ids (N,) int64. log_weights
    (N,): log prior - log of the density that the particle was drawn from; weights are made of these where
    nothing is recycled. level (N,) int64: the generation whose proposal brought the particle, an earlier one
    if it was recycled. The counts are of ids from `first` up to the cut: `evaluations` all, `simulations`
    those inside the prior's support. `dispatched` depends on timing and is for information only.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    log_weights: np.ndarray = None  # type: ignore[assignment]
    first: int = 0
    generation: int
    epsilon: float
    evaluations: int
    simulations: int
    failures: int
    log_evidence: float
    dispatched: int
    seconds: float

    def __post_init__(self) -> None:
        if self.log_weights is None:
            with np.errstate(all="ignore"):
                object.__setattr__(self, "log_weights", np.log(self.weights))
        if self.level is None:
            object.__setattr__(self, "level", np.full(len(self), self.generation))
        super().__post_init__()
        for array in (self.weights, *self.columns().values()):
            array.flags.writeable = False

    def __repr__(self) -> str:
        return (
            f"<Population {self.generation}: {len(self)} particles, epsilon {self.epsilon:.6g}, "
            f"ess {self.ess:.0f}, acceptance rate {self.acceptance_rate:.3g}>"
        )

    @cached_property
    def ess(self) -> float:
        """Effective sample size of the weights."""
        return effective_sample_size(self.weights)

    @property
    def acceptance_rate(self) -> float:
        """New particles for each evaluation; a proposal outside the support counts as a rejection.

        1 where all particles were recycled.
        """
        return self.accepted / self.evaluations if self.evaluations else 1.0

    @property
    def accepted(self) -> int:
        """New particles: all, if none was recycled."""
        return int(np.count_nonzero(self.ids >= self.first))

    def __getitem__(self, name: str) -> np.ndarray:
        """The column (N,) of one parameter."""
        return Named(self.theta, self.names)[name]

    @quiet
    def mean(self) -> Named:
        """Weighted mean, (d,)."""
        return Named(self.weights @ self.theta, self.names)

    @quiet
    def std(self) -> Named:
        """Weighted standard deviation, (d,)."""
        return Named(np.sqrt(self.weights @ np.square(self.theta - self.mean())), self.names)

    def quantile(self, q: Any) -> Named:
        """Weighted quantiles of each parameter: (d,) for a number q, (m, d) for m of them."""
        if not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
            raise ValueError(f"quantile of {q}, expected numbers from 0 to 1")
        columns = [weighted_quantile(column, self.weights, q) for column in self.theta.T]
        return Named(np.stack(columns, axis=-1), self.names)

    @quiet
    def resample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` equally weighted draws from the particles, (n, d)."""
        return self.theta[rng.choice(len(self), size=n, p=self.weights)]

    def digest(self) -> str:
        """Hex SHA-256 over ids, theta, weights, distances, epsilon: equal digests, equal populations."""
        sha = hashlib.sha256()
        for array in (self.ids, self.theta, self.weights, self.distances, np.float64(self.epsilon)):
            sha.update(array.tobytes())
        return sha.hexdigest()

    def to_dataframe(self) -> Any:
        """A pandas data frame: a column a parameter, then weight, distance, id.

        Parameters keep their names: where one is called so itself, ours is `weight_`, `distance_`, or `id_`.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_dataframe needs pandas: install `mpiabc[pandas]`") from None
        columns = dict(zip(self.names, self.theta.T, strict=True))
        ours = {"weight": self.weights, "distance": self.distances, "id": self.ids}
        return pandas.DataFrame(columns | {unlike(self.names, name): column for name, column in ours.items()})


@dataclass(frozen=True)
class Past:
    """The committed generations of a run, as far as what comes next depends on them."""

    last: Population | None = None
    simulations: int = 0
    failures: int = 0
    tried: tuple[int, ...] = ()  # ids, at each level, below the last population's cut
    firsts: tuple[int, ...] = ()  # the lowest id, at each level
    epsilons: tuple[float, ...] = ()
    proposals: tuple[Any, ...] = ()  # of the levels from 1 on, if evaluations are recycled
    sample: Particles | None = None  # of the last one, or of a calibration, if its order wanted one
    calibrated: int = 0  # simulations of a calibration, before the first generation
    acceptor: Any = None  # of the last one's order, where the next one goes on from it

    def after(
        self,
        population: Population,
        proposals: tuple[Any, ...] = (),
        sample: Particles | None = None,
        acceptor: Any = None,
    ) -> "Past":
        """The past with one more generation; `proposals`: with that of this one."""
        return Past(
            population,
            self.simulations + population.simulations,
            self.failures + population.failures,
            self.tried_at(population.first, population.evaluations, population.ids),
            (*self.firsts, population.first),
            (*self.epsilons, population.epsilon),
            proposals,
            sample,
            acceptor=acceptor,
        )

    def tried_at(self, first: int, evaluations: int, ids: np.ndarray) -> tuple[int, ...]:
        """Ids below the cut of a population with these ids, at each level.

        One that has shrunk to the first of the recycled particles ends with the last of these: no id above it
        was needed.
        """
        tried = (*self.tried, evaluations)
        if evaluations or not self.tried:
            return tried
        cut, firsts = int(ids.max()) + 1, (*self.firsts, first)
        return tuple(min(n, max(0, cut - low)) for n, low in zip(tried, firsts, strict=True))

    @property
    def level(self) -> int:
        """The generation that comes next."""
        return 0 if self.last is None else self.last.generation + 1
