"""Distances between simulated and observed data.

A distance is any callable `(simulated, observed) -> float`, which gets what the simulator returned, or
anything with `rows`, which gets the numbers of many simulations at once. One that is fitted to simulations
has `fit(sample, observed)` too, and gives the distance of the next generation.
"""

from mpiabc.distance.aggregate import Aggregate, Terms
from mpiabc.distance.mahalanobis import Mahalanobis, Whitened
from mpiabc.distance.norm import Norm, PNorm
from mpiabc.distance.predicted import Predicted, Predictor
from mpiabc.distance.rows import (
    Adaptive,
    Returned,
    RowDistance,
    ignores_holes,
    is_adaptive,
    measures_rows,
    of_data,
)
from mpiabc.distance.transport import Matched, Sliced, SlicedWasserstein, Sorted, Wasserstein

FITTED = (  # what our own distances are fitted to, as orders keep it
    PNorm,
    Norm,
    Terms,
    Whitened,
    Sorted,
    Matched,
    Sliced,
)

__all__ = [
    "FITTED",
    "Adaptive",
    "Aggregate",
    "Mahalanobis",
    "Norm",
    "PNorm",
    "Predicted",
    "Predictor",
    "Returned",
    "RowDistance",
    "SlicedWasserstein",
    "Wasserstein",
    "ignores_holes",
    "is_adaptive",
    "measures_rows",
    "of_data",
]
