"""How far the values of each statistic lie apart (Prangle 2017; Schälte et al. 2021).

A scale is a function of simulated (n, k) and observed (k,) that gives one number >= 0 for each column.
doi:10.1214/16-BA1002, doi:10.1101/2021.07.29.454327
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpiabc.errors import ProblemError

Scale = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mad(simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Median absolute deviation from the median, (k,)."""
    return np.median(np.abs(simulated - np.median(simulated, axis=0)), axis=0)


def std(simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Standard deviation, (k,)."""
    return np.std(simulated, axis=0)


def pcmad(simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Median absolute deviation from the median, and that from the observation added, (k,)."""
    return mad(simulated, observed) + np.median(np.abs(simulated - observed), axis=0)


NAMED: dict[str, Scale] = {"mad": mad, "std": std, "pcmad": pcmad}


def check_scale(what: str, scale: Any) -> None:
    """Raise ProblemError for a scale that cannot be fitted."""
    if not (callable(scale) or (isinstance(scale, str) and scale in NAMED)):
        raise ProblemError(
            f"{what}(scale={scale!r}): give one of {', '.join(map(repr, NAMED))}, or a function"
        )


def scales(scale: Any, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """The scale (k,) of each column by its finite values; 0 where there are none.

    Raises ProblemError for what a function of the user's gives, if that is no scale.
    """
    function = NAMED[scale] if isinstance(scale, str) else scale
    if np.isfinite(simulated).all():
        return _checked(function(simulated, observed), len(observed))
    columns = [
        _of_column(function, column, value) for column, value in zip(simulated.T, observed, strict=True)
    ]
    return np.array(columns, np.float64)


def _of_column(function: Scale, column: np.ndarray, observed: float) -> float:
    finite = column[np.isfinite(column)]
    if not finite.size:
        return 0.0
    return float(_checked(function(finite[:, None], np.array([observed])), 1)[0])


def _checked(found: Any, k: int) -> np.ndarray:
    array = np.asarray(found)
    if array.shape != (k,) or array.dtype.kind not in "biuf" or not (array >= 0).all():
        raise ProblemError(
            f"scale of the distance gave {array.dtype} of shape {array.shape} for {k} statistics, expected "
            "one number >= 0 for each: scale(simulated (n, k), observed (k,)) -> (k,)"
        )
    return np.where(np.isfinite(array), array, 0.0)
