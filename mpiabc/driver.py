"""When what is sent, taken in, and cancelled: one loop for every engine.

The driver decides about time alone. Whatever it does, sooner or later, in larger or smaller leases,
once or twice, the ledger comes to the same population.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpiabc.errors import Interrupted, ProblemError, SimulatorError
from mpiabc.generation import Generation
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.progress import Progress
from mpiabc.records import Failure, Lease, Records, Status
from mpiabc.schedulers.base import Engine, Lost, target
from mpiabc.signals import GRACE

_AnyLedger = Ledger | SlotLedger

_LEAST = 0.05  # of the engine's target: less work costs more to send than to do
_PREFETCH = 5.0  # times the engine's target: with more work, waiting for the next lease costs nothing
_POLL = 0.05  # seconds between two looks at the clock and the signals
_MOST_DEATHS = 10  # of workers on the same single evaluation, before it counts as failed
_HURRY = 3.0  # seconds that a failure waits for the evaluations below it
_ALL_MALFORMED = 8  # evaluations, all of the wrong structure, after which the problem is wrong
_RESERVE = 5.0  # seconds before the end of a job in which journal, ranks and scripts come to theirs
_ALL_FAIL = 1000  # evaluations, all failed, after which going on is hopeless


class Pace:
    """Lease sizes from the measured cost of an evaluation, a mean with a short memory."""

    def __init__(self, target: float = 0.05) -> None:
        """target: seconds of work in a lease."""
        self._target = target
        self._seconds = 0.0
        self._count = 0.0
        self.longest = 0.0  # seconds of a lease, of late: an outlier is forgotten within hundreds of leases

    @property
    def cost(self) -> float:
        """Seconds for one evaluation (one slot, if static); 0 before the first measurement."""
        return self._seconds / self._count if self._count else 0.0

    def learn(self, records: Records) -> None:
        """Take in the time that a lease needed."""
        memory = 0.9 if self._seconds < 1.0 else 1.0 / (1.0 + records.seconds)
        self._seconds = memory * self._seconds + records.seconds
        self._count = memory * self._count + len(records)
        self.longest = max(records.seconds, 0.99 * self.longest)

    def size(self, expected: float, workers: int) -> int:
        """Evaluations for the next lease, when about `expected` more are needed."""
        if not self.cost:
            return 1
        fair = max(expected / (2 * workers), _LEAST * self._target / self.cost)
        return max(1, int(min(self._target / self.cost, fair)))

    def is_quick(self, n: int) -> bool:
        """Whether workers should hold the next lease before they need it."""
        return 0 < n * self.cost < _PREFETCH * self._target


@dataclass
class Limits:
    """What ends a run from outside: the clock, a signal, too many failures."""

    deadline: float = math.inf  # of the driver's clock: no new work from here on
    end: float = math.inf  # of the driver's clock: the batch system ends the job
    signal: Callable[[], str | None] = lambda: None
    on_error: str | int = "raise"
    failures_before: int = 0  # in earlier generations
    grace: float = GRACE
    settle: Callable[[], None] = lambda: None  # called when the grace is over, before Interrupted is raised

    def stop(self, now: float, longest: float) -> "Stop | None":
        """Whether to stop now; the work in flight may still need `longest` seconds.

        Before the end of the job there is time to collect that, and to keep it.
        """
        if seen := self.signal():
            return Stop(f"stopped by {seen}", now + self.grace)
        if now >= self.deadline:
            return Stop("walltime reached", now + self.grace)
        if now >= self.end - _RESERVE - max(longest, self.grace):
            return Stop("the end of the job is near", self.end - _RESERVE)
        return None


class Stop(NamedTuple):
    """Why a run is stopped, and until when what is in flight may come home."""

    why: str
    until: float


class Driver:
    """Brings ledgers to completion on one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits | None = None,
        progress: Progress | None = None,
        theta_of: Callable[[Generation, int], dict[str, float]] = lambda generation, id: {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pace = Pace(target(engine))
        self._engine = engine
        self.limits = Limits() if limits is None else limits
        self._progress = Progress(is_live=False) if progress is None else progress
        self._theta_of = theta_of
        self._clock = clock
        #: Engines that others can look at from outside show them how far the run is.
        self._publish: Callable[[str], None] = getattr(engine, "publish", lambda line: None)

    def run(
        self,
        ledger: _AnyLedger,
        generation: Generation,
        journal: Callable[[Records], None] = lambda records: None,
        tick: Callable[[], None] = lambda: None,
    ) -> str | None:
        """Drive until the ledger is complete (None) or exhausted (the name of the bound).

        What the ledger learns goes to the `journal` too; `tick` is called many times a second.
        Raises SimulatorError for failures that end the run, Interrupted for signals and walltime.
        """
        self._ledger, self._generation, self._journal = ledger, generation, journal
        self._copied: set[Lease] = set()
        self._deaths: dict[int, int] = {}
        self._failure: Failure | None = None  # the lowest one, if any ends the run
        self._raise_at = math.inf
        self._cut = math.inf
        self._progress.begin(generation.index, generation.epsilon)
        self._engine.begin(generation)
        while not ledger.complete:
            if reason := ledger.exhausted:
                return reason
            if stop := self.limits.stop(self._clock(), self.pace.longest):
                self._wind_up(stop)
            if self._failure is None:
                self._feed()
            self._take(self._engine.poll(_POLL))
            self._raise_failure()
            self._count_failures()
            tick()
            if line := self._progress.tick(ledger, self._engine):
                self._publish(line)
        self._engine.cancel(0)
        return None

    def _feed(self) -> None:
        """Give out leases while there is room and need."""
        size = self.pace.size(self._ledger.expected, self._engine.workers)
        prefetch = self.pace.is_quick(size)
        for _ in range(self._engine.capacity(prefetch)):
            lease = self._ledger.lease(size)
            if lease is None:
                if prefetch and self._engine.capacity(False):
                    self._feed_again()
                return
            self._engine.submit(lease)
            size = self.pace.size(self._ledger.expected, self._engine.workers)

    def _feed_again(self) -> None:
        """Idle workers take copies of leases that wait behind others: whoever is first counts."""
        idle = self._engine.capacity(False)
        for lease in [lease for lease in self._engine.waiting() if lease not in self._copied][:idle]:
            if lease.generation == self._generation.index and lease.start < self._ledger.cut:
                self._copied.add(lease)
                self._ledger.dispatched += lease.stop - lease.start
                self._engine.submit(lease)

    def _take(self, reports: list[Records | Lost]) -> None:
        for report in reports:
            if isinstance(report, Lost):
                self._lose(report)
            elif report.generation == self._generation.index:
                self._progress.count(report.seconds)
                self.pace.learn(report)
                self._tell(report)

    def _tell(self, records: Records) -> None:
        if self._ledger.tell(records):
            self._journal(records)
        for failure in records.failures:
            self._judge(failure)
        if self._ledger.cut < self._cut:
            self._cut = self._ledger.cut
            self._engine.cancel(self._cut)

    def _lose(self, lost: Lost) -> None:
        """A worker died: its evaluations go out again, in halves, as one of them may be the cause."""
        lease, step = lost.lease, self._ledger.step
        if lease.generation != self._generation.index:
            return
        if lost.culprit is not None:
            self._condemn(lost, lost.culprit // step * step)
            return
        if lost.is_returned:
            self._ledger.give_back(lease.start, lease.stop)
            return
        if lease.stop - lease.start > step:
            middle = lease.start + max(step, (lease.stop - lease.start) // 2 // step * step)
            self._ledger.give_back(lease.start, middle)
            self._ledger.give_back(middle, lease.stop)
            return
        self._deaths[lease.start] = self._deaths.get(lease.start, 0) + 1
        if self._deaths[lease.start] < _MOST_DEATHS:
            self._ledger.give_back(lease.start, lease.stop)
        else:
            self._condemn(lost, lease.start)

    def _condemn(self, lost: Lost, id: int) -> None:
        """An evaluation counts as failed without a record; the rest of its lease goes out again."""
        is_late = lost.culprit is not None
        why = lost.why if is_late else f"its worker died {_MOST_DEATHS} times: {lost.why}"
        kind = "timeout" if is_late else "death"
        theta = self._theta_of(self._generation, id)
        failure = Failure(self._generation.index, id, theta, why, "", lost.worker, kind)
        if self._generation.is_static and self.limits.on_error != "raise":
            told = f"a slot cannot go on after this, use dynamic scheduling\n{failure}"
            raise SimulatorError(told, failure)
        stop = id + self._ledger.step
        if not self._generation.is_static:
            self._ledger.give_back(lost.lease.start, id)
            self._ledger.give_back(stop, lost.lease.stop)
        self._tell(_failed(failure, stop))

    def _judge(self, failure: Failure) -> None:
        """Note a failure that may end the run: it does if it lies below the cut."""
        if self.limits.on_error == "raise" and (self._failure is None or failure.index < self._failure.index):
            self._failure = failure
            if not self._generation.is_static:  # what lies above it can wait
                self._engine.cancel(failure.index // self._ledger.step * self._ledger.step)
            self._raise_at = min(self._raise_at, self._clock() + _HURRY)

    def _raise_failure(self) -> None:
        """Raise for the lowest failure once all below it is known, or soon if that takes long.

        So the same failure is raised, or none, on every schedule, unless simulations take seconds.
        """
        failure = self._failure
        if failure is None:
            return
        if isinstance(self._ledger, Ledger) and failure.index >= self._ledger.cut:
            self._failure, self._raise_at = None, math.inf
            self._engine.cancel(self._ledger.cut)
        elif (
            self._ledger.frontier >= failure.index
            or self._generation.is_static
            or self._clock() >= self._raise_at
            or not self._engine.busy()
        ):
            is_first = failure.kind == "structure" and self._generation.index == failure.index == 0
            raise ProblemError(failure.error) if is_first else SimulatorError(str(failure), failure)

    def _count_failures(self) -> None:
        """Raise if there are too many failures; only those below the frontier count for sure."""
        known, on_error = self._ledger.failed, self.limits.on_error
        if isinstance(on_error, int) and self.limits.failures_before + known >= on_error:
            failures = self._ledger.failures_below_cut()
            spare = on_error - self.limits.failures_before
            if len(failures) >= spare:
                last = failures[spare - 1]
                raise SimulatorError(
                    f"{on_error} evaluations failed, as many as on_error allows; last\n{last}", last
                )
        if known >= self._ledger.known > 0 and self._failure is None:
            self._all_failed(known)

    def _all_failed(self, known: int) -> None:
        """Raise if nothing will ever come of this."""
        failures = self._ledger.failures_below_cut()
        if len(failures) >= _ALL_MALFORMED and all(f.kind == "structure" for f in failures):
            raise ProblemError(failures[0].error)
        if len(failures) >= _ALL_FAIL:
            last = failures[-1]
            raise SimulatorError(f"all of the first {known} evaluations failed; last\n{last}", last)

    def _wind_up(self, stop: Stop) -> None:
        """Collect what is in flight while there is time, then raise Interrupted."""
        self._engine.cancel(0)
        while self._engine.busy() and (now := self._clock()) < stop.until:
            self._take(self._engine.poll(_POLL))
            if self.limits.signal() and stop.until > now + self.limits.grace:
                stop = stop._replace(until=now + self.limits.grace)
        self.limits.settle()
        ledger = self._ledger
        generation = f"generation {ledger.generation}, {ledger.accepted} of {ledger.size} accepted"
        raise Interrupted(f"{stop.why} in {generation}")


def _failed(failure: Failure, stop: int) -> Records:
    """The record of evaluations that brought none."""
    none = np.empty(0)
    return Records(
        failure.generation,
        failure.index,
        stop,
        np.full(stop - failure.index, Status.FAILED, np.uint8),
        none.astype(np.int64),
        none.reshape(0, 0),
        none,
        none,
        none.reshape(0, 0),
        failures=(failure,),
    )
