"""One loop: hand out leases, take in what comes home, ask the job what to do about it, and do that.

The driver decides about time alone. Whatever it does, sooner or later, in larger or smaller leases,
once or twice, the job comes to the same end.

What comes home while a job is torn down is no outcome (see `signals`): it is dropped after a signal, and
what programs had a part in waits, before it ends anything, until a signal would have been seen.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from mpiabc.actions import Action, Advancing, Commit, Done, Hand, Keep, Open, Tell, Void
from mpiabc.driver.events import AtWork, Committed, Event, Noted, Observer, Waited
from mpiabc.driver.failures import Failures
from mpiabc.driver.limits import Limits
from mpiabc.driver.opened import Opened
from mpiabc.driver.pace import Pace
from mpiabc.errors import Interrupted, ProblemError, SimulatorError
from mpiabc.records import CALIBRATION, Failure, Lease, Records
from mpiabc.schedulers.base import (
    Doubted,
    Engine,
    Lost,
    Report,
    Said,
    at_work,
    awaited,
    begin,
    cancel,
    has_several_open,
    notices_within,
    target,
)
from mpiabc.schedulers.silence import Silence
from mpiabc.signals import DOUBT
from mpiabc.voice import Piece

_POLL = 0.05  # seconds between two looks at the clock and the signals
_TELL = 0.2  # seconds between two events that tell how far the run is
_LOOK = 1.0  # seconds between two events that tell who is at work
_MANY = 500  # workers, of whom it takes a millisecond to tell that: of more it is reported less often
_LAST_FAILURES = 5  # that are reported with it
_MOST_PIECES = 100_000  # of what workers say, remembered so that each is reported once
_IN_DOUBT = 10.0  # seconds in which a commit may turn out to rest on leases that are in doubt


class Keeper:
    """What a driver has written where a job is to outlive its process; this one keeps nothing."""

    def open(self, opened: Open) -> None:
        """Write what was decided, and the commit that waits: no worker has begun on it."""

    def add(self, records: Records, level: int | None = None) -> None:
        """Keep records until they are part of a population, for this level or their own."""

    def forget(self, lease: Lease) -> None:
        """Drop what came of the lease."""

    def commit(self, commit: Commit) -> None:
        """Write a population; it may wait for what is decided next."""

    def void(self, level: int) -> None:
        """Drop this generation, and all after it."""

    def tell(self, topic: str, note: str, *, is_anew: bool = False) -> bool:
        """Keep what the user is to know once a run; False if it was reported before."""
        return True

    def tick(self) -> None:
        """Time has passed: called many times a second."""

    def write(self, reason: str | None = None) -> None:
        """Write what waits, and what ends the run, if that is sure."""

    def stop(self, before: float, doubtful: int | None) -> None:
        """Write what came home before this time of the monotonic clock; from `doubtful` on nothing counts."""


class Driver:
    """Brings jobs to their end on one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pace = Pace(target(engine))
        self._engine = engine
        self._limits = Limits() if limits is None else limits
        self._observers = observers
        self._clock = clock
        self._open: dict[int, Opened] = {}  # by the numbers of their orders
        self._commits: deque[tuple[float, Commit]] = deque()  # of the last seconds
        self._beside: tuple[int, ...] = ()  # numbers of earlier orders that the engine still works on
        self._done: Done | None = None
        self._exposed_at = -math.inf  # when records last came home that programs had a part in
        self._reported_at = -math.inf  # when it was last reported how far the run is
        self._looked_at = -math.inf  # when it was last reported who is at work
        self._failed: deque[Failure] = deque(maxlen=_LAST_FAILURES)
        self._silence = Silence(clock())
        self._heard: set[Piece] = set()  # what users' functions have written

    def run(self, job: Advancing, keeper: Keeper | None = None) -> Iterator[Commit | Hand | Done]:
        """Drive a job until it is done; yields each Commit when it is written, each Hand, then Done.

        Raises SimulatorError for failures that end the run, Interrupted for signals and walltime, and what
        the job raises; what is finished is kept then.
        """
        self._job, self._keeper, self._done = job, keeper or Keeper(), None
        self._silence.end(self._clock())
        self._open.clear()
        self._beside = ()
        self._commits.clear()
        try:
            yield from self._perform(job.advance())
            while not (self._done and not self.is_exposed()):
                self._heed()
                for opened in [] if self._done else self._open.values():
                    opened.feed(self._engine, self.pace)
                self._tell_progress()
                reports = self._engine.poll(_POLL)
                if self._limits.signals.seen:
                    continue  # what came with it is dropped
                for report in reports:
                    yield from self._perform(self._take(report))
                if not reports:
                    self._recover_dropped()
                self._raise_failures()
                if self._done is None:
                    self._keeper.tick()
                self._tell_silence()
            if self._limits.signals.seen:
                self._heed()
        except BaseException as error:
            before = self._trusted_until(error)
            doubtful = [commit.population.generation for at, commit in self._commits if at >= before]
            self._keeper.stop(before, min(doubtful, default=None))
            if doubtful and isinstance(error, Interrupted):
                error.why = self._described_doubt(min(doubtful), max(doubtful))
            raise
        yield self._done

    def is_exposed(self) -> bool:
        """Whether a signal that is not seen yet may have been behind what came home."""
        return self._clock() < self._exposed_at + notices_within(self._engine)

    def _recover_dropped(self) -> None:
        """Hand out again what an engine has dropped with an earlier order, once nobody works any more."""
        for opened in self._open.values():
            if opened.ledger.goes_on and not self._engine.busy():
                opened.ledger.recover()

    # What the job asks for.

    def _perform(self, actions: Iterable[Action]) -> Iterator[Commit | Hand]:
        """Do it, and what follows from it at once."""
        waiting, committed = deque(actions), []
        handed: list[Hand] = []
        while waiting:
            action = waiting.popleft()
            match action:
                case Keep():
                    self._keeper.add(action.records, action.level)
                case Commit():
                    committed.append(self._commit(action))
                    if not self._limits.signals.seen:  # else what follows may need no evaluation, for long
                        waiting.extend(self._job.advance())
                case Open():
                    self._begin(action)
                case Void():
                    self._keeper.void(action.level)
                case Tell():
                    self._note(action)
                case Hand():
                    handed.append(action)
                case Done():
                    self._done = action
                    self._keeper.write(None if self.is_exposed() else action.reason)
                    self._cancel()
                    for opened in self._open.values():
                        opened.cut = 0  # as the engine knows it
        if handed:
            yield from handed
            self._silence.end(self._clock())  # which was not the workers'
        for commit in committed:
            began = self._clock()
            yield commit
            for opened in self._open.values():  # which nobody has worked on meanwhile
                opened.began += self._clock() - began

    def _begin(self, action: Open) -> None:
        self._keeper.open(action)
        order, ledger = action.order, action.ledger
        failures = Failures(action, self._job.on_error, self._job.theta_of)
        models = "" if action.base is None else action.base.named_models
        self._beside = ledger.beside if has_several_open(self._engine) else ()
        opened = Opened(order, ledger, failures, self._clock(), models=models, beside=self._beside)
        self._open = {order.number: opened}
        self._done = None
        begin(self._engine, order, self._beside)

    def _commit(self, commit: Commit) -> Commit:
        """Have a population written, with the time that it took."""
        now = self._clock()
        opened = self._open.pop(commit.opened.order.number)
        if not opened.ledger.goes_on:  # else what is out may count at the next level
            self._engine.cancel(0)
        population = commit.population.with_values(seconds=now - opened.began)
        share = min(1.0, opened.worked / max(1e-9, population.seconds * self._engine.workers))
        commit = replace(commit, population=population, share=share)
        while self._commits and self._commits[0][0] < now - _IN_DOUBT:
            self._commits.popleft()
        self._commits.append((now, commit))
        self._keeper.commit(commit)
        self._tell(Committed(population, share))
        return commit

    def _cancel(self) -> None:
        """What has not begun need not begin, of any order."""
        for number in self._beside:
            cancel(self._engine, 0, number)
        self._engine.cancel(0)

    # Time.

    def _heed(self) -> None:
        """Raise Interrupted if it is time to stop, after what is in flight has come home."""
        signals, limits = self._limits.signals, self._limits
        if self._done is not None and not signals.seen:
            return
        stop = limits.stop(self._clock(), self.pace.longest)
        if stop is None:
            return
        self._cancel()
        while (now := self._clock()) < stop.until and self._engine.busy():
            reports = self._engine.poll(_POLL)
            if signals.seen:
                stop = stop._replace(until=min(stop.until, now + limits.grace))
                continue
            for report in reports:
                self._wind_up(report)
        while self.is_exposed() and not signals.seen:
            self._engine.poll(_POLL)
        signals.settle()
        raise Interrupted(" ".join([stop.why, *map(str, self._open.values())]))

    def _wind_up(self, report: Report) -> None:
        """Keep what comes home, although nothing is made of it in this call."""
        if isinstance(report, Said):
            self._hear(report)
            return
        if isinstance(report, Doubted):
            for action in self._doubt(report):
                if isinstance(action, Void):
                    self._keeper.void(action.level)
            return
        records = self._known(report)
        if records is None or records.payload or records.job & CALIBRATION:  # which are kept nowhere
            return
        opened = self._open_to(records.lease)
        if opened is not None and opened.ledger.tell(records):
            self._keeper.add(records, opened.ledger.kept_for)

    def _trusted_until(self, error: BaseException) -> float:
        """The time from which on what came home may be the doing of what ends the run."""
        if self._limits.signals.seen:
            return self._limits.signals.at - DOUBT
        is_ours = isinstance(error, SimulatorError | ProblemError | Interrupted | GeneratorExit)
        if self.is_exposed() and not is_ours:
            return time.monotonic() - notices_within(self._engine)
        return math.inf

    def _described_doubt(self, first: int, last: int) -> str:
        """Where a run was stopped whose last generations were taken back for that."""
        which = "it" if first == last else f"generations {first} to {last}"
        again = "is" if first == last else "are"
        return (
            f"stopped by {self._limits.signals.seen} in generation {first}: {which} ended less than "
            f"{DOUBT:g} s before that, and {again} completed again"
        )

    # What comes home.

    def _take(self, report: Report) -> list[Action]:
        """What the job makes of it."""
        if isinstance(report, Said):
            self._hear(report)
            return []
        self._silence.end(self._clock())
        if isinstance(report, Doubted):
            return self._doubt(report)
        records = self._known(report)
        if records is None:
            return []
        opened = self._open_to(records.lease)
        assert opened is not None
        actions = self._job.advance([records])
        opened.take_back(records)
        opened.pass_cut_on(self._engine)
        return actions

    def _known(self, report: Records | Lost) -> Records | None:
        """The records of an open order, after a look at what they tell of time and failures."""
        opened = self._open_to(report.lease)
        if opened is None:
            return None
        if isinstance(report, Lost):
            records = opened.failures.lose(report)
            if records is None:
                return None
        else:
            records = report
            self.pace.learn(records)
        now = self._clock()
        if records.is_exposed:
            self._exposed_at = now
        opened.worked += records.seconds
        for failure in opened.ledger.failures_of(records):
            opened.failures.note(failure, now)
            self._failed.append(failure)
        for note in records.notes:
            self._note(Tell(note, note))
        return records

    def _open_to(self, lease: Lease) -> Opened | None:
        """The open order that a lease belongs to; one that looks ahead has those of earlier levels, too."""
        opened = self._open.get(lease.job)
        if opened is not None:
            return opened
        lines = (o for o in self._open.values() if o.ledger.goes_on and o.ledger.has(lease))
        return next(lines, None)

    def _doubt(self, doubted: Doubted) -> list[Action]:
        """Know nothing of these leases any more, and go back to before others were built on them."""
        for lease in doubted.leases:
            for opened in self._open.values():
                if opened.ledger.has(lease):
                    opened.ledger.forget(lease.start, lease.stop)
                    opened.failures.forget(lease.start, lease.stop)
                    self._keeper.forget(lease)
                    opened.pass_cut_on(self._engine)
        commits = [commit for _, commit in self._commits]
        earlier = [c for c in commits if any(c.opened.ledger.has(lease) for lease in doubted.leases)]
        if earlier:
            return self._take_back(earlier[0], doubted)
        self._done = None
        return self._job.advance()

    def _take_back(self, commit: Commit, doubted: Doubted) -> list[Action]:
        """Open an order again that was committed, without these leases."""
        self._open.clear()
        while self._commits and self._commits[-1][1].population.generation >= commit.population.generation:
            self._commits.pop()
        for lease in doubted.leases:
            if commit.opened.ledger.has(lease):
                commit.opened.ledger.forget(lease.start, lease.stop)
                self._keeper.forget(lease)
        return self._job.reopen(commit)

    def _raise_failures(self) -> None:
        """Raise what ends the run, if it is sure."""
        now, notices = self._clock(), notices_within(self._engine)
        for opened in self._open.values():
            error = opened.failures.error(now, is_exposed=self.is_exposed(), notices=notices)
            opened.pass_cut_on(self._engine)
            if error is not None:
                raise error

    # Observers.

    def _note(self, tell: Tell) -> None:
        if self._keeper.tell(tell.topic, tell.note, is_anew=tell.is_anew) or tell.is_always:
            self._tell(Noted(tell.note))

    def _tell(self, event: Event) -> None:
        for observe in self._observers:
            observe(event)

    def _tell_progress(self) -> None:
        now = self._clock()
        if now >= self._reported_at + _TELL:
            self._reported_at = now
            for opened in self._open.values():
                self._tell(opened.progress(now, self._engine))
            self._tell_who_works(now)

    def _tell_who_works(self, now: float) -> None:
        if self._observers and now >= self._looked_at + _LOOK * max(1.0, self._engine.workers / _MANY):
            self._looked_at = now
            self._tell(AtWork(tuple(at_work(self._engine)), tuple(self._failed)))

    def _tell_silence(self) -> None:
        """Say what is waited for, if nothing has come home for long."""
        if self._silence.is_due(self._clock(), self.pace.longest):
            where = " ".join(map(str, self._open.values()))
            self._tell(Waited(self._silence.seconds, where, tuple(awaited(self._engine))))

    def _hear(self, said: Said) -> None:
        """Tell what a worker's functions have written, if none has written it before."""
        if said.piece not in self._heard:
            if len(self._heard) < _MOST_PIECES:
                self._heard.add(said.piece)
            self._tell(said)
