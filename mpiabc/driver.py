"""When what is sent, taken in, and cancelled: one loop for every engine.

The driver decides about time alone. Whatever it does, sooner or later, in larger or smaller leases,
once or twice, the ledger comes to the same population.

What comes home while a job is torn down is no outcome (see `signals`): it is dropped after a signal, and
what programs had a part in waits, before it ends anything, until a signal would have been seen.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mpiabc.errors import Interrupted, ProblemError, SimulatorError
from mpiabc.evaluate import Level
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.progress import Progress
from mpiabc.records import Failure, Lease, Records, Status
from mpiabc.schedulers.base import Doubted, Engine, Lost, Report, notices_within, target
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


class TakenBackError(Exception):
    """Leases of an earlier order are in doubt, so that all that was built on it is."""

    def __init__(self, leases: list[Lease]) -> None:
        super().__init__(f"in doubt: {leases}")
        self.leases = leases


class Keeper(Protocol):
    """Keeps records until they are part of a population."""

    def add(self, records: Records) -> None:
        """Take records in."""
        ...

    def forget(self, lease: Lease) -> None:
        """Drop what came of the lease."""
        ...

    def tick(self) -> None:
        """Time has passed: called many times a second."""
        ...


class NoKeeper:
    """Keeps nothing."""

    def add(self, records: Records) -> None:
        """Let go."""

    def forget(self, lease: Lease) -> None:
        """It is forgotten."""

    def tick(self) -> None:
        """Nothing to do."""


class Driver:
    """Brings ledgers to completion on one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits | None = None,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda note: None,
        is_committed: Callable[[int], bool] = lambda number: False,
        theta_of: Callable[[Level, int], dict[str, float]] = lambda order, id: {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pace = Pace(target(engine))
        self._engine = engine
        self.limits = Limits() if limits is None else limits
        self._progress = Progress(is_live=False) if progress is None else progress
        self._theta_of = theta_of
        self._tell_user = tell
        self._is_committed = is_committed  # whether an order is, and may be taken back
        self._clock = clock
        self._deaths: dict[tuple[int, int], int] = {}  # of workers, by generation and id
        self._ledger: Any = None
        self._exposed_at = -math.inf  # when records last came home that programs had a part in
        #: Engines that others can look at from outside show them how far the run is.
        self._publish: Callable[[str], None] = getattr(engine, "publish", lambda line: None)

    def run(self, ledger: _AnyLedger, order: Level, keeper: Keeper | None = None) -> str | None:
        """Drive until the ledger is complete (None) or exhausted (the name of the bound).

        What the ledger learns goes to the `keeper` too. Raises SimulatorError for failures that end the
        run, Interrupted for signals and walltime, TakenBackError where an earlier order is in doubt.
        """
        self._ledger, self._order, self._keeper = ledger, order, keeper or NoKeeper()
        self._copied: set[Lease] = set()
        self._failure: Failure | None = None  # the lowest one, if any ends the run
        self._raise_at = math.inf
        self._since: dict[str, float] = {}  # when what may end the run became so
        self._is_open = True
        self._cut = math.inf
        self._progress.begin(order.level, order.epsilon)
        self._engine.begin(order)
        while not ledger.complete:
            if reason := ledger.exhausted:
                return reason
            self._heed()
            if self._failure is None:
                self._feed()
            reports = self._engine.poll(_POLL)
            if self.limits.signal():
                continue  # what came with it is dropped
            self._take(reports)
            self._raise_failure()
            self._count_failures()
            self._keeper.tick()
            if line := self._progress.tick(ledger, self._engine):
                self._publish(line)
        if self.limits.signal():
            self._heed()
        self._engine.cancel(0)
        return None

    def settle(self) -> None:
        """Return when no signal can have been behind what is committed; raises as `run` does."""
        if self._ledger is None:
            return
        self._is_open = False
        until = self._exposed_at + notices_within(self._engine)
        while (left := until - self._clock()) > 0 and not self.limits.signal():
            self._take(self._engine.poll(min(_POLL, left)))
        if self.limits.signal():
            self._heed()

    def is_exposed(self) -> bool:
        """Whether a signal that is not seen yet may have been behind what came home."""
        return self._clock() < self._exposed_at + notices_within(self._engine)

    def _heed(self) -> None:
        if stop := self.limits.stop(self._clock(), self.pace.longest):
            self._wind_up(stop)

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
            if lease.job == self._order.number and lease.start < self._ledger.cut:
                self._copied.add(lease)
                self._ledger.dispatched += lease.stop - lease.start
                self._engine.submit(lease)

    def _take(self, reports: list[Report]) -> None:
        for report in reports:
            if isinstance(report, Doubted):
                self._doubt(report)
            elif isinstance(report, Lost):
                self._lose(report)
            elif report.job == self._order.number:
                self._progress.count(report.seconds)
                self.pace.learn(report)
                self._tell(report)

    def _tell(self, records: Records) -> None:
        if records.is_exposed:
            self._exposed_at = self._clock()
        for note in records.notes:
            self._tell_user(note)
        if self._ledger.tell(records):
            self._keeper.add(records)
        for failure in records.failures:
            self._judge(failure)
        self._pass_cut_on()

    def _pass_cut_on(self) -> None:
        if self._ledger.cut != self._cut:
            self._cut = self._ledger.cut
            self._engine.cancel(self._cut)

    def _doubt(self, doubted: Doubted) -> None:
        """Know nothing of these leases any more. Raises TakenBackError if others were built on them."""
        open_order = self._order.number if self._is_open else None
        earlier = [lease for lease in doubted.leases if self._is_committed(lease.job)]
        for lease in doubted.leases:
            if lease.job == open_order:
                self._ledger.forget(lease.start, lease.stop)
                self._keeper.forget(lease)
                if self._failure and lease.start <= self._failure.index < lease.stop:
                    self._forgive()
                    self._ledger.recover()  # what lies above it was given up
                    self._cut = -math.inf
        self._pass_cut_on()
        if earlier:
            raise TakenBackError(earlier)

    def _lose(self, lost: Lost) -> None:
        """A worker died: its evaluations go out again, in halves, as one of them may be the cause."""
        lease, step = lost.lease, self._ledger.step
        if lease.job != self._order.number:
            return
        if lost.culprit is not None:
            self._condemn(lost, lost.culprit // step * step)
            return
        if lost.is_returned:
            self._ledger.give_back(lease.start, lease.stop)
            return
        if lost.suspect is not None and not self._order.is_static:
            start = lost.suspect // step * step
            self._ledger.give_back(lease.start, start)
            self._ledger.give_back(start + step, lease.stop)
            lease = lease._replace(start=start, stop=start + step)
        if lease.stop - lease.start > step:
            middle = lease.start + max(step, (lease.stop - lease.start) // 2 // step * step)
            self._ledger.give_back(lease.start, middle)
            self._ledger.give_back(middle, lease.stop)
            return
        address = self._order.level, lease.start
        self._deaths[address] = self._deaths.get(address, 0) + 1
        if self._deaths[address] < _MOST_DEATHS:
            self._ledger.give_back(lease.start, lease.stop)
        else:
            self._condemn(lost, lease.start)

    def _condemn(self, lost: Lost, id: int) -> None:
        """An evaluation counts as failed without a record; the rest of its lease goes out again."""
        why = lost.why if lost.culprit is not None else f"its worker died {_MOST_DEATHS} times: {lost.why}"
        theta = self._theta_of(self._order, id)
        failure = Failure(self._order.level, id, theta, why, "", lost.worker, lost.kind)
        if self._order.is_static and self.limits.on_error != "raise":
            told = f"a slot cannot go on after this, use dynamic scheduling\n{failure}"
            raise SimulatorError(told, failure)
        stop = id + self._ledger.step
        if not self._order.is_static:
            self._ledger.give_back(lost.lease.start, id)
            self._ledger.give_back(stop, lost.lease.stop)
        self._tell(failed(failure, stop, self._order.number))

    def _judge(self, failure: Failure) -> None:
        """Note a failure that may end the run: it does if it lies below the cut."""
        ends_run = self.limits.on_error == "raise" or failure.ends_every_run
        if ends_run and (self._failure is None or failure.index < self._failure.index):
            self._failure = failure
            if not self._order.is_static:  # what lies above it can wait
                self._engine.cancel(failure.index // self._ledger.step * self._ledger.step)
            self._raise_at = min(self._raise_at, self._clock() + _HURRY)

    def _raise_failure(self) -> None:
        """Raise for the lowest failure once all below it is known, or soon if that takes long.

        So the same failure is raised, or none, on every schedule, unless simulations take seconds.
        """
        failure = self._failure
        if failure is None or not self._is_sure("failure"):
            return
        if isinstance(self._ledger, Ledger) and failure.index >= self._ledger.cut:
            self._forgive()
            self._engine.cancel(self._ledger.cut)
        elif (
            self._ledger.frontier >= failure.index
            or self._order.is_static
            or self._clock() >= self._raise_at
            or not self._engine.busy()
        ):
            if failure.kind == "structure" and self._order.level == failure.index == 0:
                raise ProblemError(failure.error)
            if failure.ends_every_run and not failure.traceback:  # it was not raised, but found
                raise ProblemError(f"{failure.error} (evaluation {failure.address}, theta: {failure.values})")
            raise SimulatorError(str(failure), failure)

    def _forgive(self) -> None:
        self._failure, self._raise_at = None, math.inf
        self._since.pop("failure", None)

    def _count_failures(self) -> None:
        """Raise if there are too many failures; only those below the frontier count for sure."""
        known, on_error = self._ledger.failed, self.limits.on_error
        are_all = known >= self._ledger.known > 0 and self._failure is None
        are_many = isinstance(on_error, int) and self.limits.failures_before + known >= on_error
        if not (are_all or are_many):
            self._since.pop("failures", None)
        elif not self._is_sure("failures"):
            return
        if isinstance(on_error, int) and are_many:
            failures = self._ledger.failures_below_cut()
            spare = on_error - self.limits.failures_before
            if len(failures) >= spare:
                last = failures[spare - 1]
                raise SimulatorError(
                    f"{on_error} evaluations failed, as many as on_error allows; last\n{last}", last
                )
        if are_all:
            self._all_failed(known)

    def _is_sure(self, what: str) -> bool:
        """Whether it has been so for long enough that a signal which is behind it would have been seen."""
        if what not in self._since:
            self._since[what] = self._clock() if self.is_exposed() else -math.inf
        return self._clock() >= self._since[what] + notices_within(self._engine)

    def _all_failed(self, known: int) -> None:
        """Raise if nothing will ever come of this."""
        failures = self._ledger.failures_below_cut()
        if len(failures) >= _ALL_MALFORMED and all(f.kind == "structure" for f in failures):
            raise ProblemError(failures[0].error)
        if len(failures) >= _ALL_FAIL:
            last = failures[-1]
            raise SimulatorError(f"all of the first {known} evaluations failed; last\n{last}", last)

    def _wind_up(self, stop: Stop) -> None:
        """Collect what is in flight while there is time, unless a signal was seen; then raise Interrupted."""
        self._engine.cancel(0)
        while (now := self._clock()) < stop.until and self._engine.busy():
            reports = self._engine.poll(_POLL)
            if self.limits.signal():
                stop = stop._replace(until=min(stop.until, now + self.limits.grace))
            else:
                self._take(reports)
        while self.is_exposed() and not self.limits.signal():
            self._engine.poll(_POLL)
        self.limits.settle()
        ledger = self._ledger
        t = self._order.level
        raise Interrupted(f"{stop.why} in generation {t}, {ledger.accepted} of {ledger.size} accepted")


def failed(failure: Failure, stop: int, number: int) -> Records:
    """The record of evaluations that brought none, from the failed one up to `stop`."""
    status = np.full(stop - failure.index, Status.FAILED, np.uint8)
    return Records(number, failure.index, stop, status, failures=(failure,))
