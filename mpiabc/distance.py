"""Distances between simulated and observed data.

A distance is any callable `(simulated, observed) -> float`, which gets what the simulator returned, or
anything with `rows`, which gets the numbers of many simulations at once.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpiabc.arguments import real
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.structure import Structure


class RowDistance(Protocol):
    """A distance that measures rows of numbers.

    Without `is_rowwise = True`, the promise that a row's distance does not depend, in any bit, on the rows
    beside it, it is asked row by row: which rows come together depends on how ids were leased. A method
    `check(observed)`, if there is one, raises ProblemError for data that it is not for.
    """

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,); both are read-only. nan is a failure."""
        ...


@dataclass(frozen=True)
class Returned:
    """What the simulator returns, where there are no observed data."""

    is_rowwise = True

    def __call__(self, simulated: Any, observed: Any) -> Any:
        """What was returned."""
        return simulated

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """What was returned in each of the rows (n, 1), (n,)."""
        return simulated[:, 0]


def measures_rows(distance: Any) -> bool:
    """Whether it is a RowDistance."""
    return callable(getattr(distance, "rows", None))


@dataclass(frozen=True)
class PNorm:
    """(sum_i |w_i (x_i - y_i)|^p)^(1/p); p = inf is the largest of the terms.

    `weights` has the structure of the observed data, with names and labels in the same order. Each row
    is summed on its own, in a fixed order, so that a distance does not depend on how many others are
    computed with it.
    """

    is_rowwise = True  # a row's distance does not depend on the rows beside it

    p: float = 2
    weights: Any = None

    def __post_init__(self) -> None:
        p = real(self.p)
        if p is None or not p >= 1:
            raise ProblemError(f"PNorm(p={self.p!r}) is no norm: give p >= 1, or math.inf")

    @quiet
    def __call__(self, simulated: Any, observed: Any) -> float:
        """The distance of two data of the same structure."""
        self.check(observed)
        structure = Structure(observed)
        return float(self.rows(structure.row(simulated)[None], structure.row(observed))[0])

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        difference = np.abs(simulated - observed)
        if self.weights is not None:
            difference *= self._weight_row(len(observed))
        if difference.shape[1] == 1:
            return difference[:, 0]
        if self.p == math.inf:
            return difference.max(axis=1)
        if self.p == 1:
            return difference.sum(axis=1)
        if self.p == 2:
            return np.sqrt(np.square(difference).sum(axis=1))
        return (difference**self.p).sum(axis=1) ** (1 / self.p)

    def check(self, observed: Any) -> None:
        """Raise ProblemError for weights of other data: `rows` sees their number alone."""
        if self.weights is None:
            return
        structure, weights = Structure(observed), Structure(self.weights)
        self._weight_row(structure.size)
        if not structure.agrees(weights):
            pairs = zip(weights.labels(), structure.labels(), strict=False)
            found, expected = next(((a, b) for a, b in pairs if a != b), (str(weights), str(structure)))
            raise ProblemError(
                f"PNorm has the weight of {found!r} where the observed data have {expected!r}: give weights "
                "with the same names and labels, in the same order, or a plain array"
            )

    def _weight_row(self, size: int) -> np.ndarray:
        row = np.abs(Structure(self.weights).row(self.weights))
        if row.size != size:
            raise ProblemError(
                f"PNorm has {row.size} weights for data of {size} numbers: give one for each, in the "
                "structure of the observed data"
            )
        return row
