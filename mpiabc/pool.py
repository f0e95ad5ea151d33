"""A pool for others: `map` on any scheduler, for emcee, dynesty and whoever takes a pool.

A map of n items is a job of n slots, each of which is accepted at its first try: what is known about
leases, lost workers and batches of measured cost holds for it as for a generation of a run.
"""

import math
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cloudpickle
import numpy as np

from mpiabc import guard, machine, mapped
from mpiabc.actions import Action, Commit, Done, Open
from mpiabc.driver import Driver, Pace
from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.fingerprint import Fingerprint
from mpiabc.ledger import SlotLedger
from mpiabc.progress import logged, repeated
from mpiabc.raised import Raised
from mpiabc.records import Failure, Records, brought
from mpiabc.schedulers import MPI, Engine, resolve
from mpiabc.schedulers.base import target
from mpiabc.signals import is_asked_to_stop

machine.refuse_free_threads()


class Pool:
    """The workers of a scheduler, for `pool.map(function, items)`.

    To be used in a `with`. Where the scheduler has several processes running the same script, as under
    MPI, the `with` gives None to all but the one that leads; these serve it, then leave the `with`.
    """

    def __init__(self, scheduler: Any = "auto") -> None:
        self.scheduler = scheduler
        self._engine: Engine | None = None
        self._maps = 0
        self._function = b""

    def __enter__(self) -> "Pool | None":
        place = resolve(self.scheduler)
        if isinstance(place, MPI) and place.team is not None:
            raise SchedulerError(f"{place} for a Pool: a map has no simulations for teams, leave team out")
        if not place.leads():
            place.serve(Anything())
            return None
        self._engine = place.open(Anything())
        self._driver = Driver(self._engine, observers=[repeated, logged("the pool")])
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close(0 if kind is None else 1)

    @property
    def size(self) -> int:
        """How many items are worked on at once, as far as known."""
        return self._running().workers

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> list[Any]:
        """The results of the function for all items, in order, like the builtin `map`.

        If it raises for any of them, what it raised for the first of these is raised here, caused by the
        worker's traceback. Function and items must be picklable, lambdas are. Items go to workers in
        batches of measured cost, the function to each worker once.
        """
        engine = self._running()
        items = list(zip(*iterables, strict=False))
        if not items:
            return []
        batch = Batch(self._maps, _sent(function, "function"), _sent(items, "items"), len(items))
        self._maps += 1
        if self._function != batch.function.tobytes():
            self._function = batch.function.tobytes()
            self._driver.pace = Pace(target(engine))
        job = _Map(batch)
        for _ in self._driver.run(job):
            pass
        results = [job.outcomes[i] for i in range(len(items))]
        for result in results:
            if isinstance(result, Raised):
                result.again()
        return results

    def _running(self) -> Engine:
        if self._engine is None:
            raise SchedulerError("the pool is not open: use it inside `with mpiabc.Pool(...) as pool:`")
        return self._engine


class _Map:
    """A map as its driver sees it. Leases may come in pieces, and overlap: whoever is first counts."""

    on_error = "raise"

    def __init__(self, batch: "Batch") -> None:
        self.outcomes: dict[int, Any] = {}  # by item; Raised where there is no result
        self._batch, self._ledger = batch, SlotLedger(batch.level, batch.size)
        self._is_open = False

    def advance(self, records: Iterable[Records] = ()) -> list[Action]:
        """Take outcomes in. Raises SchedulerError for an item that has none."""
        for part in records:
            if self._ledger.tell(part):
                self._take(part)
        if self._ledger.complete:
            return [Done("all items")]
        was_open, self._is_open = self._is_open, True
        return [] if was_open else [Open(self._batch, self._ledger)]

    def reopen(self, commit: Commit) -> list[Action]:
        """A map commits nothing."""
        return []

    def theta_of(self, order: Any, address: int) -> dict[str, Any]:
        """An item has no parameters."""
        return {}

    def _take(self, records: Records) -> None:
        for failure in records.failures:
            raise SchedulerError(f"item {failure.index} of the map cannot be computed: {failure.error}")
        for i, outcome in enumerate(cloudpickle.loads(records.payload), records.start):
            self.outcomes[i] = outcome


def _sent(value: Any, what: str) -> np.ndarray:
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


# The workers' side.


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
