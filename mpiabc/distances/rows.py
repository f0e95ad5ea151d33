"""What a distance is that measures rows of numbers, and what one is that is fitted to simulations."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpiabc.particles import Particles


class RowDistance(Protocol):
    """A distance that measures rows of numbers.

    Without `is_rowwise = True`, the promise that a row's distance does not depend, in any bit, on the rows
    beside it, it is asked row by row: which rows come together depends on how ids were leased. A method
    `check(observed)`, if there is one, raises ProblemError for data that it is not for; `of(observed)`, if
    there is one, gives the distance that is used for data like these.
    """

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,); both are read-only. nan is a failure."""
        ...


class Adaptive(RowDistance, Protocol):
    """A distance that is fitted to simulations after each generation, and then used for the next one.

    Its own `rows` measure generation 0, in which all are accepted. What `fit` gives goes to workers with the
    order; if it is not of this package it is fitted again, to the same sample, when a run is continued: `fit`
    must give the same every time.
    """

    def fit(self, sample: Particles, observed: np.ndarray) -> RowDistance:
        """The distance of the next generation; `sample.summaries` (n, k) are simulated, accepted or not."""
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


def is_adaptive(distance: Any) -> bool:
    """Whether it is fitted to simulations."""
    says = getattr(distance, "is_adaptive", None)
    says_nothing = says is None or callable(says)  # a method is somebody else's
    return callable(getattr(distance, "fit", None)) if says_nothing else bool(says)


def ignores_holes(distance: Any) -> bool:
    """Whether it leaves out what is nan in the observed data."""
    return getattr(distance, "missing", None) == "ignore"


def of_data(distance: Any, observed: Any) -> Any:
    """The distance as it is used for these observed data."""
    of = getattr(distance, "of", None)
    return of(observed) if callable(of) else distance
