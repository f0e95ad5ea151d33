"""A scheduler's workers between the calls of somebody else's loop: opened when needed, kept, shared."""

import atexit
import math
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

from mpiabc import stopping as stops
from mpiabc.actions import Advancing
from mpiabc.driver import Driver, Limits, Observer
from mpiabc.errors import Interrupted, SchedulerError, SimulatorError
from mpiabc.mapping import Anything
from mpiabc.schedulers import MPI, Engine, Scheduler, are_gone
from mpiabc.signals import Signals, stopped_by


class Workers:
    """Those of one scheduler. `numbers` tell apart what they have been given, by whomever."""

    @classmethod
    def of(cls, place: Scheduler, timeout: float | None, *modules: str) -> "Workers":
        """New ones, which import these modules, or those of a communicator's ranks, which all share."""
        if not isinstance(place, MPI):
            return cls(place, timeout, *modules)
        of_these = _of_ranks.setdefault(id(place.held()), {})
        return of_these.setdefault((repr(place), timeout, modules), cls(place, timeout, *modules))

    def __init__(self, place: Scheduler, timeout: float | None, *modules: str) -> None:
        self.numbers = count()
        self._place, self._problem = place, Anything(timeout, on_error="reject", modules=modules)
        self._driver: Driver | None = None
        self._engine: Engine | None = None
        self._limits = Limits()
        self._owners: weakref.WeakSet[object] = weakref.WeakSet()

    def join(self, owner: object) -> None:
        """Another one has them, too; when nobody is left, they end."""
        self._owners.add(owner)
        weakref.finalize(owner, self._end_if_alone).atexit = False

    def leave(self, owner: object, status: int) -> bool:
        """It has them no more; false if it had left before."""
        had = owner in self._owners
        self._owners.discard(owner)
        if not self._owners:
            self.close(status)
        return had

    def _end_if_alone(self) -> None:
        if not self._owners:
            self.close()

    def run(self, job: Advancing, limits: Limits, observers: list[Observer]) -> None:
        """Drive a job to its end.

        After a failure they can be used again; whatever else is raised has ended them, with the status that
        belongs to it.
        """
        status = 1
        try:
            with stopped_by(limits.signals):
                for _ in self._driven(limits, observers).run(job):
                    pass
            status = 0
        except SimulatorError:
            if self._engine is not None:
                self._engine.cancel(0)
            status = 0
            raise
        except Interrupted as stopped:
            status = stopped.code
            raise
        finally:
            if status:
                self.close(status)

    def close(self, status: int = 0) -> None:
        """End the engine, if there is one; the next job opens another."""
        atexit.unregister(self.close)
        engine, self._engine, self._driver = self._engine, None, None
        if engine is not None:
            engine.close(status)

    def _driven(self, limits: Limits, observers: list[Observer]) -> Driver:
        """The driver, with what ends this job and who hears of it."""
        if self._driver is None:
            if are_gone(self._place):
                raise SchedulerError("the ranks of this sampler do not serve it any more: it was shut down")
            self._engine = self._place.open(self._problem)
            atexit.register(self.close)
            getattr(self._place, "lend", lambda close: None)(self.close)
            self._observers: list[Observer] = []
            self._driver = Driver(self._engine, limits=self._limits, observers=self._observers)
        kept, self._observers[:] = self._limits, observers
        kept.deadline, kept.end, kept.signals = limits.deadline, limits.end, limits.signals
        return self._driver


_of_ranks: dict[int, dict[object, Workers]] = {}  # by who holds them, and by what they are opened for


class Watch:
    """Signals and walltime of a loop that is not ours, which computes between its calls.

    From `begin` to `end` a signal is noted; the next call is interrupted by it, and nothing in between: the
    loop may be writing its database.
    """

    def __init__(self, walltime: float | str | timedelta | None) -> None:
        given, now = stops.chosen(walltime), time.monotonic()
        seconds = stops.seconds(given)
        end = math.inf if seconds is None else now + seconds
        is_of_job = isinstance(given, str) and given == "auto"
        self._times = (math.inf, end) if is_of_job else (end, math.inf)
        self._signals: Signals | None = None

    def begin(self) -> None:
        """A loop begins."""
        if self._signals is None:
            self._signals = Signals().__enter__()
            self._signals.settle()

    def end(self) -> None:
        """It has ended: signals do what they did before."""
        signals, self._signals = self._signals, None
        if signals is not None:
            signals.__exit__(None, None, None)

    @property
    def seen(self) -> str | None:
        """The signal that has come."""
        return self._signals.seen if self._signals else None

    @contextmanager
    def limits(self) -> Iterator[Limits]:
        """What ends a call; one outside of any loop is a loop of its own."""
        is_alone = self._signals is None
        self.begin()
        assert self._signals is not None
        try:
            with self._signals.interrupting():
                yield Limits(*self._times, self._signals)
        finally:
            if is_alone:
                self.end()
