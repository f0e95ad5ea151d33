"""Distances between data that are samples themselves: of how far one must be moved to be the other.

Bernton et al. 2019, doi:10.1093/imaiai/iaz003; sliced: Nadjahi et al. 2020, arXiv:1910.12815.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.arguments import real, whole
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.structure import Data, Structure


@dataclass(frozen=True)
class Wasserstein:
    """The p-Wasserstein distance of two equally large samples, each (n,), or n points (n, d).

    In one dimension values are sorted; points are matched by SciPy, in a time that grows as n^3.
    """

    is_rowwise = True

    p: float = 1

    def __post_init__(self) -> None:
        _check_p(self)

    @quiet
    def __call__(self, simulated: Data, observed: Data) -> float:
        """The distance of two data of the same structure."""
        return _of_two(self, simulated, observed)

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,), each a sample of k values."""
        return Sorted(self.p).rows(simulated, observed)

    def of(self, observed: Data) -> Any:
        """What measures rows of data like these."""
        shape = _shape(self, observed)
        return Sorted(self.p) if len(shape) < 2 or shape[1] == 1 else Matched(self.p, shape[1])

    def check(self, observed: Data) -> None:
        """Raise ProblemError for data that are not one sample."""
        _shape(self, observed)


@dataclass(frozen=True)
class SlicedWasserstein:
    """The p-Wasserstein distance of points (n, d), projected on lines: the mean over `projections` of them.

    Their directions are drawn from `seed`, and the same in all of a run.
    """

    is_rowwise = True

    p: float = 2
    projections: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        _check_p(self)
        for name, least in {"projections": 1, "seed": 0}.items():
            value = whole(getattr(self, name))
            if value is None or value < least:
                raise ProblemError(f"{self}: give a whole number >= {least} of {name}")

    @quiet
    def __call__(self, simulated: Data, observed: Data) -> float:
        """The distance of two data of the same structure."""
        return _of_two(self, simulated, observed)

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,), each a sample of k values."""
        return Sorted(self.p).rows(simulated, observed)

    def of(self, observed: Data) -> Any:
        """What measures rows of data like these."""
        shape = _shape(self, observed)
        if len(shape) < 2:
            return Sorted(self.p)
        drawn = np.random.default_rng(self.seed).standard_normal((self.projections, shape[1]))
        return Sliced(self.p, drawn / np.sqrt(np.square(drawn).sum(axis=1, keepdims=True)))

    def check(self, observed: Data) -> None:
        """Raise ProblemError for data that are not one sample."""
        _shape(self, observed)


@dataclass(frozen=True, eq=False)
class Sorted:
    """Of values: (mean |x_(i) - y_(i)|^p)^(1/p) over their ranks."""

    is_rowwise = True

    p: float

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        apart = np.abs(np.sort(simulated, axis=1) - np.sort(observed))
        if self.p == 1:
            return apart.mean(axis=1)
        return (apart**self.p).mean(axis=1) ** (1 / self.p)


@dataclass(frozen=True, eq=False)
class Matched:
    """Of points in d dimensions: (mean |x_i - y_m(i)|^p)^(1/p) for the matching m that makes it least."""

    is_rowwise = True

    p: float
    d: int

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,), one after another."""
        return np.array([self._distance(row.reshape(-1, self.d), observed) for row in simulated], np.float64)

    def _distance(self, points: np.ndarray, observed: np.ndarray) -> float:
        from scipy.optimize import linear_sum_assignment
        from scipy.spatial.distance import cdist

        costs = cdist(points, observed.reshape(-1, self.d)) ** self.p
        if not np.isfinite(costs).all():
            return float("nan") if np.isnan(costs).any() else float("inf")
        return float(costs[linear_sum_assignment(costs)].mean() ** (1 / self.p))


@dataclass(frozen=True, eq=False)
class Sliced:
    """Of points in d dimensions: the p-mean, over directions (l, d), of the distance along each."""

    is_rowwise = True

    p: float
    directions: np.ndarray

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,), one after another."""
        seen = self._projected(observed)
        apart = (np.abs(self._projected(row) - seen) ** self.p for row in simulated)
        return np.array([each.mean() ** (1 / self.p) for each in apart], np.float64)

    def _projected(self, row: np.ndarray) -> np.ndarray:
        """Sorted values (n, l) along each direction; a BLAS would add in an order of its own."""
        points = row.reshape(-1, self.directions.shape[1])
        along = sum(points[:, j, None] * self.directions[:, j] for j in range(points.shape[1]))
        return np.sort(along, axis=0)


def _of_two(distance: Any, simulated: Data, observed: Data) -> float:
    structure = Structure(observed)
    used = distance.of(observed)
    return float(used.rows(structure.row(simulated)[None], structure.row(observed))[0])


def _check_p(distance: Any) -> None:
    p = real(distance.p)
    if p is None or not 1 <= p < float("inf"):
        raise ProblemError(f"{distance}: give a finite p >= 1")


def _shape(distance: Any, observed: Data) -> tuple[int, ...]:
    """Of the one sample that observed data are. Raises ProblemError."""
    structure = Structure(observed)
    shapes = list(structure.shapes.values())
    if len(shapes) != 1 or len(shapes[0]) > 2:
        raise ProblemError(
            f"{type(distance).__name__} compares samples, arrays (n,) or (n, d), and the observed data are "
            f"{structure}: give mpiabc.Aggregate({{key: mpiabc.{distance}, ...}}) for data of several keys"
        )
    return shapes[0]
