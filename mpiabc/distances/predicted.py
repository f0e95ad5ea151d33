"""Predictions of parameters as statistics.

Fearnhead and Prangle 2012, doi:10.1111/j.1467-9868.2011.01010.x.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from mpiabc import calls
from mpiabc.arguments import refuse_class
from mpiabc.distances.norm import PNorm
from mpiabc.distances.rows import is_adaptive, measures_rows, of_data
from mpiabc.errors import ProblemError
from mpiabc.particles import Particles


class Predictor(Protocol):
    """Learns parameters from statistics, or whatever else a distance should be of.

    A copy is fitted after each generation, by the process that leads, and travels to workers with the order.
    It is not kept in the run's file: where a run goes on it is fitted again, to the same simulations, so it
    must give the same every time; one that draws random numbers has a seed. Without `is_rowwise = True`, the
    promise that a row's prediction does not depend, in any bit, on the rows beside it, it is asked row by
    row.
    """

    def fit(self, theta: np.ndarray, summaries: np.ndarray) -> Any:
        """Learn theta (n, d) from summaries (n, k); what is returned predicts, if that is not None."""
        ...

    def predict(self, summaries: np.ndarray) -> np.ndarray:
        """Predictions for summaries (n, k): (n,) or (n, any number)."""
        ...


@dataclass(frozen=True)
class Predicted:
    """The distance of what a predictor says of simulated data from what it says of the observed ones.

    The predictor is fitted after each generation to its first simulations, accepted or not. `distance`
    compares predictions, arrays (d,); its scales may be fitted too. Generation 0, which accepts all,
    compares the data themselves.
    """

    is_adaptive = True

    predictor: Any
    distance: Any = field(default_factory=PNorm)

    def __post_init__(self) -> None:
        refuse_class("predictor", self.predictor, "fit", "predict")
        refuse_class("distance", self.distance, "rows")
        for name in ("fit", "predict"):
            if not callable(getattr(self.predictor, name, None)):
                raise ProblemError(
                    f"Predicted has the predictor {self.predictor!r}, expected an object with fit(theta, "
                    "summaries) and predict(summaries)"
                )
        calls.check("predictor", self.predictor, "fit", "theta, summaries")
        calls.check("predictor", self.predictor, "predict", "summaries")
        if not measures_rows(self.distance):
            raise ProblemError(
                f"Predicted has the distance {self.distance!r}, expected one that measures rows, such as "
                "mpiabc.PNorm()"
            )

    @property
    def is_rowwise(self) -> bool:
        """Before the first fit."""
        return True

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of the data themselves, simulated (n, k) from observed (k,), (n,)."""
        return PNorm().rows(simulated, observed)

    def fit(self, sample: Particles, observed: np.ndarray) -> "Predictions":
        """The distance of predictions, learnt from this sample."""
        summaries = np.asarray(sample.summaries, np.float64)
        mine = copy.deepcopy(self.predictor)
        fitted = mine.fit(sample.theta.copy(), summaries.copy())
        fitted = mine if fitted is None else fitted
        seen = predictions(fitted, observed[None])[0]
        inner = of_data(self.distance, seen)
        if is_adaptive(self.distance):
            inner = inner.fit(replace(sample, summaries=predictions(fitted, summaries)), seen)
        return Predictions(fitted, inner, seen)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The distance of predictions from what was predicted for the observed data, `seen`."""

    predictor: Any
    distance: Any
    seen: np.ndarray

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's distance depends on it alone."""
        return all(getattr(part, "is_rowwise", False) for part in (self.predictor, self.distance))

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k), (n,)."""
        return self.distance.rows(predictions(self.predictor, simulated), self.seen)


def predictions(predictor: Any, summaries: np.ndarray) -> np.ndarray:
    """What is predicted for summaries (n, k), (n, d). Raises ProblemError for what is no prediction."""
    found = np.asarray(predictor.predict(summaries.copy()))
    n = len(summaries)
    if found.dtype.kind not in "biuf" or found.ndim not in (1, 2) or len(found) != n:
        raise ProblemError(
            f"predict of the predictor gave {found.dtype} of shape {found.shape} for {n} rows, expected "
            f"numbers of shape ({n},) or ({n}, d)"
        )
    return np.array(found.reshape(n, -1), np.float64, order="C")
