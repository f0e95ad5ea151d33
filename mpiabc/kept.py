"""What is kept of simulated data, and what a distance of the user's own gets of them.

Where observed data are numbers, simulated ones, as `summarize` leaves them, have their structure: they are
what a distance gets, and what is kept. Only a callable distance may compare anything else (graphs, ragged
lists, frames with text): it gets what `simulate` returned, and what `summarize` makes of that, if there is
one, is kept. So it is where observed data are no numbers, and where `summarize` gives them other names.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mpiabc.errors import ProblemError, text_of
from mpiabc.structure import Data, NoNumbersError, Row, Structure, description_of

_SUMMARY_OF_THEM = "any other compares them with what summarize returns: give observed=summarize(data)"


class Nothing:
    """The structure of data of which no number is kept."""

    size = 0

    def __init__(self, text: str) -> None:
        self._told = text

    def __str__(self) -> str:
        return self._told

    def flatten(self, data: Data) -> Row:
        """No floats."""
        return []

    def row(self, data: Data) -> np.ndarray:
        """No floats, (0,)."""
        return np.empty(0)

    def labels(self) -> list[str]:
        """No names."""
        return []


class Kept(NamedTuple):
    """What is kept of data: what has the structure of `example`, nothing if that is None."""

    is_raw: bool  # a distance gets what `simulate` returned; `summarize` only says what is kept
    example: Data


def kept_of(observed: Data, summarize: Callable[..., Data] | None, is_callable: bool) -> Kept:
    """What is kept of data like these; `is_callable`: their distance is a function of the user's own.

    Raises ProblemError for observed data that cannot be compared, and for a summary that is no numbers.
    """
    try:
        Structure(observed)
    except NoNumbersError as error:
        if not is_callable:
            how = f"; {_SUMMARY_OF_THEM}" if summarize is not None else ""
            raise ProblemError(f"{error}; a callable distance gets them as they are{how}") from None
        return Kept(True, None if summarize is None else _summary(summarize, observed))
    if summarize is None or not is_callable:
        return Kept(False, observed)
    return _renamed(summarize, observed) or Kept(False, observed)


def _renamed(summarize: Callable[..., Data], observed: Data) -> Kept | None:
    """Whether `summarize` gives observed data other names: then they are no summary themselves.

    One that gives other names again to what it has returned makes them of whatever names it gets.
    """
    try:
        found = summarize(observed)
        Structure(found)
    except Exception:
        return None  # it is for what `simulate` returns, and these are not that
    if _names(found) == _names(observed):
        return None
    try:
        again = summarize(found)
    except Exception:
        return Kept(True, found)
    return Kept(True, found) if _names(again) == _names(found) else None


def holds_numbers(observed: Data) -> bool:
    """Whether observed data can be compared number by number."""
    try:
        Structure(observed)
    except ProblemError:
        return False
    return True


def is_narrow(data: Data) -> bool:
    """Whether all of it is of single precision."""
    parts = data.values() if isinstance(data, Mapping) else [data]
    return all(getattr(part, "dtype", None) == np.float32 for part in parts)


def _names(data: Data) -> set[str] | None:
    return set(data) if isinstance(data, Mapping) else None


def _summary(summarize: Callable[..., Data], observed: Data) -> Data:
    """The summary of observed data that are no numbers themselves."""
    try:
        found = summarize(observed)
    except Exception as error:
        raise ProblemError(
            f"summarize fails for the observed data, {type(error).__name__}: {text_of(error)}; what it makes "
            "of data is what is kept of them, as the observed data are no numbers"
        ) from error
    try:
        Structure(found)
    except ProblemError:
        raise ProblemError(
            f"summarize makes {description_of(found)} of the observed data, expected numbers: what it "
            "returns is kept, and the distance gets what simulate returned, as the observed data are no "
            "numbers"
        ) from None
    return found
