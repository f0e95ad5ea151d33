"""A map as a job that workers know: its function and items as bytes, and what computes them there.

It stands apart from `pool`, so that a worker of a map need not import what leads one.
"""

import math
import os
import platform
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cloudpickle
import numpy as np

from mpiabc import guard, mapped
from mpiabc.errors import ProblemError
from mpiabc.fingerprint import Fingerprint
from mpiabc.raised import Raised
from mpiabc.records import Failure, Records, brought
from mpiabc.signals import is_asked_to_stop


def sent(value: Any, what: str) -> np.ndarray:
    """A value as bytes, in an array: what is equal to that of the last map need not travel again."""
    try:
        return np.frombuffer(mapped.dumps(value), np.uint8)
    except Exception as error:
        raise ProblemError(
            f"the {what} of the map cannot be sent to another process: {type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class Anything:
    """What a scheduler is opened for, in place of a problem: the function comes with each map, or call."""

    timeout: float | None = None
    step: int = 1
    on_error: str | int = "raise"
    modules: tuple[str, ...] = ()  # which workers import before they take leases: it may take seconds

    fingerprint = Fingerprint({}, {})

    def arrived(self) -> "Anything":
        """This, which has come from another process."""
        for name in self.modules:
            import_module(name)
        return self

    def parts(self) -> dict[str, str]:
        """Nothing that could differ between processes."""
        return {}


@dataclass(frozen=True, eq=False)
class Batch:
    """The order to compute one map, in place of a generation."""

    level: int
    function: np.ndarray  # pickled, uint8
    items: np.ndarray  # all of them, pickled, uint8
    size: int
    epsilon: float = math.nan
    is_static: bool = True

    @property
    def number(self) -> int:
        """What leases and records know the order by."""
        return self.level

    def __str__(self) -> str:
        return f"a map of {self.size} items"

    def evaluator(self, shared: Any = None, where: str | None = None, watch: Any = None) -> "_Mapper":
        """What computes items, in a worker."""
        return _Mapper(self)


_last: tuple[bytes, Any] = b"", None  # the function of the last map in this process


class _Mapper:
    """Computes the items of leases; a function that has come before is not unpickled again."""

    def __init__(self, batch: Batch) -> None:
        self.order = batch
        self._at = -1  # the item in work
        self._refusal: ProblemError | None = None
        try:
            self._items = cloudpickle.loads(batch.items.data)
            self._function = _unpickled(batch.function.tobytes())
        except ProblemError as error:  # files that they map are not here: who called map is to hear of it
            self._refusal = error

    def __call__(self, start: int, stop: int) -> Records:
        """The results of the items [start, stop), as the payload of records without rows."""
        began = time.perf_counter()
        with guard.at_work(self):
            outcomes = [self._outcome(i) for i in range(start, stop)]
        return brought(self.order.number, start, stop, cloudpickle.dumps(outcomes), began)

    def last_words(self, how: str) -> Failure | None:
        """The failure of the item in work."""
        where = f"process {os.getpid()} on {platform.node()}"
        return Failure(self.order.level, self._at, {}, how, "", where, "exit")

    def _outcome(self, i: int) -> Any:
        """The result of an item, or what it raised; either can travel."""
        self._at = i
        try:
            if self._refusal:
                raise self._refusal
            result = self._function(*self._items[i])
            cloudpickle.dumps(result)
        except BaseException as error:
            if is_asked_to_stop(error):
                raise
            return Raised.by(error)
        return result


def _unpickled(function: bytes) -> Any:
    global _last
    if _last[0] != function:
        _last = function, cloudpickle.loads(function)
    return _last[1]
