"""Distances between simulated and observed data.

A distance is any callable `(simulated, observed) -> float`, which gets what the simulator returned, or
anything with `rows`, which gets the numbers of many simulations at once. One that is fitted to simulations
has `fit(sample, observed)` too, and gives the distance of the next generation.
"""

from mpiabc.distance.norm import Norm, PNorm
from mpiabc.distance.rows import (
    Adaptive,
    Returned,
    RowDistance,
    ignores_holes,
    is_adaptive,
    measures_rows,
    of_data,
)

FITTED = (Norm,)  # what our own distances are fitted to, as orders keep it

__all__ = [
    "FITTED",
    "Adaptive",
    "Norm",
    "PNorm",
    "Returned",
    "RowDistance",
    "ignores_holes",
    "is_adaptive",
    "measures_rows",
    "of_data",
]
