"""Distances between simulated and observed data.

A distance is any callable `(simulated, observed) -> float`, which gets what the simulator returned, or
anything with `rows`, which gets the numbers of many simulations at once. One that is fitted to simulations
has `fit(sample, observed)` too, and gives the distance of the next generation.
"""

from mpiabc.distances.aggregate import Aggregate, Terms
from mpiabc.distances.mahalanobis import Mahalanobis, Whitened
from mpiabc.distances.norm import Norm, PNorm
from mpiabc.distances.predicted import Predicted, Predictor
from mpiabc.distances.rows import (
    Adaptive,
    Returned,
    RowDistance,
    ignores_holes,
    is_adaptive,
    measures_rows,
    of_data,
)
from mpiabc.distances.transport import Matched, Sliced, SlicedWasserstein, Sorted, Wasserstein

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
