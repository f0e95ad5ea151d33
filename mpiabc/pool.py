"""A pool for others: `map` on any scheduler, for emcee, dynesty and whoever takes a pool.

A map of n items is a job of n slots, each of which is accepted at its first try: what is known about
leases, lost workers and batches of measured cost holds for it as for a generation of a run.
"""

import atexit
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from itertools import islice
from typing import Any
from weakref import WeakSet

import cloudpickle

from mpiabc import machine
from mpiabc.actions import Action, Commit, Done, Hand, Open
from mpiabc.driver import Driver, Pace
from mpiabc.errors import SchedulerError
from mpiabc.ledger import SlotLedger
from mpiabc.mapping import Anything, Batch, sent
from mpiabc.progress import logged, repeated
from mpiabc.raised import Raised
from mpiabc.records import Records
from mpiabc.schedulers import MPI, Engine, resolve
from mpiabc.schedulers.base import count, target

Function = Callable[..., Any]

# How many items of a generator are read at once: at least so many for each worker, or as many as take it so
# many seconds; so many at most, which is also how long a list may be that goes out at once.
_LEAST_READ, _READ, _AT_ONCE = 4, 1.0, 10_000

machine.refuse_free_threads()


class Pool:
    """The workers of a scheduler, for `pool.map(function, items)`, and what else pools are asked for.

    To be used in a `with`. Where the scheduler has several processes running the same script, as under
    MPI, the `with` gives None to all but the one that leads; these serve it, then leave the `with`. Without
    a `with` it is opened by the first call, these ask `is_master` and `wait`, and `close` ends it.

    Methods are those of `multiprocessing.Pool` and of schwimmbad's pools, but for `*_async`: no thread is
    behind it, and what works does so while results are waited for. Functions and items must be picklable,
    lambdas are. Items go to workers in batches of measured cost, whatever `chunksize` says. `callback` is
    called here, with each result as it comes. Large, as it is asked for all that other pools have.
    """

    def __init__(self, scheduler: Any = "auto") -> None:
        self.scheduler = scheduler
        self._place: Any = None
        self._engine: Engine | None = None
        self._is_closed = False
        self._is_calling = False  # a callback, in the middle of a map
        self._unfinished: WeakSet[Results] = WeakSet()
        self._maps = 0
        self._function = b""

    def __enter__(self) -> "Pool | None":
        self._is_closed = False
        if not self.is_master():
            self.wait()
            return None
        self._running()
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        self._end(0 if kind is None else 1)

    def is_master(self) -> bool:
        """Whether this process leads; all others `wait`."""
        if self._place is None:
            self._place = resolve(self.scheduler)
            if isinstance(self._place, MPI) and self._place.team is not None:
                raise SchedulerError(
                    f"{self._place} for a Pool: a map has no simulations for teams, leave team out"
                )
        return self._place.leads()

    def is_worker(self) -> bool:
        """Whether this process is one of those that `wait`."""
        return not self.is_master()

    def wait(self, callback: Callable[[], Any] | None = None) -> None:
        """Serve the process that leads until its pool is closed, then call this; in that one do nothing."""
        if not self.is_master():
            self._place.serve(Anything())
            if callback is not None:
                callback()

    @property
    def size(self) -> int:
        """How many items are worked on at once, as far as known."""
        return self._running().workers

    # Results in order.

    def map(
        self,
        function: Function,
        *iterables: Any,
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
    ) -> list[Any]:
        """The results of the function for all items, in order, like the builtin `map`.

        If it raises for any of them, what it raised for the first of these is raised here, caused by the
        worker's traceback. A number behind the items is `chunksize`, and a function `callback`, as in other
        pools.
        """
        if len(iterables) > 1 and isinstance(iterables[-1], int):
            *iterables, chunksize = iterables  # type: ignore[assignment]
        if len(iterables) > 1 and callable(iterables[-1]) and not isinstance(iterables[-1], Iterable):
            *iterables, callback = iterables  # type: ignore[assignment]
        return self._mapped(function, zip(*iterables, strict=False), chunksize, callback)

    def starmap(
        self,
        function: Function,
        items: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
    ) -> list[Any]:
        """As `map`, for items each of which holds the arguments of a call."""
        return self._mapped(function, map(tuple, items), chunksize, callback)

    def apply(
        self, function: Function, args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None
    ) -> Any:
        """The result of one call."""
        return self.map(_called, [partial(function, *args, **(kwds or {}))])[0]

    # Results as they come.

    def imap(self, function: Function, items: Iterable[Any], chunksize: int = 1) -> "Results":
        """The results in order, each as soon as it is there; what an item has raised is raised in its turn.

        The items of a list go out at once; those of a generator are read as far as workers need them.
        """
        return self._streamed(function, items, chunksize, is_ordered=True)

    def imap_unordered(self, function: Function, items: Iterable[Any], chunksize: int = 1) -> "Results":
        """As `imap`, in the order in which results come."""
        return self._streamed(function, items, chunksize, is_ordered=False)

    # The end.

    def close(self) -> None:
        """Take no more work; the workers are let go once what was begun by `imap` is done."""
        self._is_closed = True
        if not self._unfinished:
            self._end(0)

    def join(self) -> None:
        """Do what is left to do, and let the workers go."""
        if not self._is_closed:
            raise SchedulerError("join waits for the end of a pool that is closed: call close first")
        for results in list(self._unfinished):
            results.finish()
        self._end(0)

    def terminate(self) -> None:
        """Let the workers go at once."""
        self._end(0)

    def _end(self, status: int | None = None) -> None:
        """End the engine; status None: what the script ends with."""
        self._is_closed = True
        atexit.unregister(self._end)
        engine, self._engine = self._engine, None
        left = list(self._unfinished)
        for results in left:
            results.stop(_closed())
        if engine is not None:
            if left:
                engine.cancel(0)
            engine.close(int(hasattr(sys, "last_value")) if status is None else status)

    # Behind all of these.

    def _running(self) -> Engine:
        """The engine, which the first call opens. Raises SchedulerError if there can be none."""
        if self._is_closed:
            raise _closed()
        if self._is_calling:
            raise SchedulerError("the callback of a map asks its pool for more: let the map come to its end")
        if self._engine is None:
            if not self.is_master():
                raise SchedulerError(
                    "this process serves the one that leads, and can ask for nothing: let it call "
                    "pool.wait() and leave, if not pool.is_master()"
                )
            self._engine = self._place.open(Anything())
            atexit.register(self._end)
            self._target = target(self._engine)
            self._driver = Driver(self._engine, observers=[repeated, logged("the pool")])
        return self._engine

    def _mapped(
        self,
        function: Function,
        items: Iterable[tuple[Any, ...]],
        chunksize: int | None,
        callback: Callable[[Any], Any] | None,
    ) -> list[Any]:
        self._running()
        _check(chunksize)
        items = list(items)
        outcomes: dict[int, Any] = {}
        for i, outcome in self._outcomes(function, items) if items else ():
            if callback is not None and i not in outcomes and not isinstance(outcome, Raised):
                self._is_calling = True
                try:
                    callback(outcome)
                finally:
                    self._is_calling = False
            outcomes[i] = outcome
        results = [outcomes[i] for i in range(len(items))]
        for result in results:
            if isinstance(result, Raised):
                result.again()
        return results

    def _streamed(
        self, function: Function, items: Iterable[Any], chunksize: int, is_ordered: bool
    ) -> "Results":
        self._running()
        _check(chunksize)
        is_short = isinstance(items, Sized) and len(items) <= _AT_ONCE
        batches = iter([[(item,) for item in items]]) if is_short else self._read(items, chunksize)
        results = Results(partial(self._outcomes, function), batches, is_ordered, self._let_go)
        self._unfinished.add(results)
        return results

    def _read(self, items: Iterable[Any], chunksize: int) -> Iterator[list[tuple[Any, ...]]]:
        """Items in batches; what reading them raises comes after those that were read before."""
        source = iter(items)
        while True:
            batch: list[tuple[Any, ...]] = []
            try:
                batch.extend((item,) for item in islice(source, self._ahead(chunksize)))
            except Exception as error:
                yield batch
                raise error
            if not batch:
                return
            yield batch

    def _ahead(self, chunksize: int) -> int:
        """How many items to read at once: some for each worker, or what takes them some time."""
        assert self._engine is not None
        cost = self._driver.pace.cost
        quick = min(_AT_ONCE, int(_READ / cost)) if cost else 0
        return max(_LEAST_READ, chunksize, quick) * max(1, self._engine.workers)

    def _let_go(self, results: "Results") -> None:
        """There is nothing more to come of it."""
        self._unfinished.discard(results)
        if self._is_closed and not self._unfinished:
            self._end(0)

    def _outcomes(self, function: Function, items: list[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """What becomes of items, by their index, as it comes; what comes again replaces what came before."""
        for others in list(self._unfinished):
            others.settle()
        batch = Batch(self._maps, sent(function, "function"), sent(items, "items"), len(items))
        self._maps += 1
        if self._function != batch.function.tobytes():
            self._function = batch.function.tobytes()
            self._driver.pace = Pace(self._target)
        events = self._driver.run(_Map(batch))
        return (found for event in events if isinstance(event, Hand) for found in event.what)


class Results:
    """What `imap` gives: an iterator that goes on behind an exception of an item."""

    def __init__(
        self,
        compute: Callable[[list[tuple[Any, ...]]], Iterator[tuple[int, Any]]],
        batches: Iterator[list[tuple[Any, ...]]],
        is_ordered: bool,
        let_go: Callable[["Results"], None],
    ) -> None:
        self._compute, self._batches, self._is_ordered, self._let_go = compute, batches, is_ordered, let_go
        self._driven: Iterator[tuple[int, Any]] | None = None  # the batch in work
        self._first, self._behind = 0, 0  # items before it, and before the next one
        self._next = 0  # the item that is due, if they are ordered
        self._waiting: dict[int, Any] = {}
        self._given: set[int] = set()  # of the batch in work

    def __iter__(self) -> "Results":
        return self

    def __next__(self) -> Any:
        while (due := self._due()) is None:
            if not self._advance():
                raise StopIteration
        outcome = self._waiting.pop(due)
        self._given.add(due)
        self._next += 1
        if isinstance(outcome, Raised):
            outcome.again()
        return outcome

    def settle(self) -> None:
        """Bring the batch in work to its end: another job wants the workers."""
        while self._driven is not None:
            self._step(self._driven)

    def finish(self) -> None:
        """Compute all that is left; results wait here."""
        while self._advance():
            pass

    def _due(self) -> int | None:
        """The item whose result is to be given now."""
        if self._is_ordered:
            return self._next if self._next in self._waiting else None
        return next(iter(self._waiting), None)

    def _advance(self) -> bool:
        """Wait for something to come; false if all has."""
        if self._driven is None:
            items = self._following()
            if items is None:
                return False
            self._first, self._behind = self._behind, self._behind + len(items)
            self._given.clear()
            self._driven = self._compute(items) if items else None
        else:
            self._step(self._driven)
        return True

    def _following(self) -> list[tuple[Any, ...]] | None:
        """The next batch of items; None if there is none."""
        items = None
        try:
            items = next(self._batches, None)
        finally:
            if items is None:
                self._let_go(self)
        return items

    def _step(self, driven: Iterator[tuple[int, Any]]) -> None:
        """Take in the next outcome of the batch in work, unless it was given already."""
        try:
            i, outcome = next(driven)
        except StopIteration:
            self._driven = None
        except BaseException:
            self.stop()
            self._let_go(self)
            raise
        else:
            if self._first + i not in self._given:
                self._waiting[self._first + i] = outcome

    def stop(self, error: Exception | None = None) -> None:
        """Nothing more is computed: what was not given ends in this error."""
        self._driven, self._batches = None, _raising(error)


def _raising(error: Exception | None) -> Iterator[Any]:
    if error is not None:
        raise error
    yield from ()


def _closed() -> SchedulerError:
    return SchedulerError(
        "the pool is not open any more: use it inside `with mpiabc.Pool(...) as pool:`, or before its close()"
    )


def _check(chunksize: int | None) -> None:
    if chunksize is not None:
        count(chunksize, f"chunksize={chunksize!r}")


def _called(function: Function) -> Any:
    return function()


class _Map:
    """A map as its driver sees it. Leases may come in pieces, and overlap: whoever is first counts."""

    on_error = "raise"

    def __init__(self, batch: Batch) -> None:
        self._batch, self._ledger = batch, SlotLedger(batch.level, batch.size)
        self._is_open = False

    def advance(self, records: Iterable[Records] = ()) -> list[Action]:
        """Take outcomes in. Raises SchedulerError for an item that has none."""
        actions: list[Action] = [Hand(_outcomes(part)) for part in records if self._ledger.tell(part)]
        if self._ledger.complete:
            return [*actions, Done("all items")]
        was_open, self._is_open = self._is_open, True
        return actions if was_open else [*actions, Open(self._batch, self._ledger)]

    def reopen(self, commit: Commit) -> list[Action]:
        """A map commits nothing."""
        return []

    def theta_of(self, order: Any, address: int) -> dict[str, Any]:
        """An item has no parameters."""
        return {}


def _outcomes(records: Records) -> Iterator[tuple[int, Any]]:
    """Results by item; Raised where there is none. Raises SchedulerError for an item without either."""
    for failure in records.failures:
        raise SchedulerError(f"item {failure.index} of the map cannot be computed: {failure.error}")
    return enumerate(cloudpickle.loads(records.payload), records.start)
