"""Rank 0's part in its team: in a thread beside the driver, which must never wait for a simulation."""

import contextlib
import queue
import threading
import traceback
from collections.abc import Callable, Collection
from functools import partial

from mpiabc import guard, team, voice
from mpiabc.errors import SchedulerError
from mpiabc.records import Failure, Lease, Records
from mpiabc.schedulers.base import Job, Lost, Report, Said, Shared
from mpiabc.schedulers.shared.worker import Evaluator
from mpiabc.schedulers.shared.workers import Workers
from mpiabc.schedulers.silence import Awaited
from mpiabc.schedulers.teams import GO_ON, Lead, last_words
from mpiabc.whereabouts import Note

_SLICE = 0.05  # seconds of work between two looks at what is still wanted
_LOOK = 0.05  # seconds between two looks at signals, while the last simulation comes to its end


class Beside:
    """An engine of one worker: the team that rank 0 leads.

    A simulator that holds the interpreter's lock in C, or in long calls, keeps the other teams waiting.
    Large, as it is an engine and the thread beside it, which share what they hold.
    """

    def __init__(
        self,
        problem: Shared,
        where: str,
        who: team.Worker,
        make_lead: Callable[[Callable[[Lost], None]], Lead],
        fail: Callable[[str], None],
    ) -> None:
        """make_lead: gets what hears of evaluations that are given up; fail: ends the job, saying why."""
        self._problem, self._where, self._who, self._fail = problem, where, who, fail
        self._lead = make_lead(self._give_up)
        self._step = problem.step
        self._workers: Workers[int] = Workers()
        self._workers.join(0, 1)
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Report | Lease | SchedulerError] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mpiabc: rank 0 simulates", daemon=True)
        self._newest = -1
        self._cuts: dict[int, float] = {}  # of the jobs that are open
        self._evaluators: dict[int, Evaluator] = {}
        self._cost = _SLICE  # seconds for one step of ids
        self._is_over = False  # nothing more is wanted
        self._may_go_on = True
        self._note: Note | None = None
        self._broken: SchedulerError | None = None  # after which the team cannot go on

    @property
    def workers(self) -> int:
        """The team, as long as its ranks live."""
        return int(not self._lead.is_disbanded)

    def note_beside(self, store: str) -> None:
        """Note, beside this file, what is evaluated from now on."""
        self._note = Note(store, self._where)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start on a job."""
        self._newest = job.number
        kept = {number: cut for number, cut in self._cuts.items() if number in beside}
        self._cuts = kept | {job.number: float("inf")}
        self._workers.begin(job.number, beside)
        self._orders.put(partial(self._take, job))
        if not self._thread.ident:
            self._thread.start()

    def capacity(self, prefetch: bool) -> int:
        """A lease, and one ahead."""
        return self._workers.capacity(prefetch) if self.workers else 0

    def submit(self, lease: Lease) -> None:
        """Give the thread a lease."""
        self._workers.assign(lease)
        self._orders.put(partial(self._evaluate, lease))

    def poll(self, timeout: float) -> list[Report]:
        """What the thread has done since the last look; waits for nothing."""
        if self._broken:
            raise self._broken
        self._lead.look()
        reports: list[Report] = []
        for _ in range(self._reports.qsize()):
            report = self._reports.get()
            if isinstance(report, SchedulerError):
                self._broken = report
                break  # what came before it counts
            if isinstance(report, Lease):
                self._workers.complete(0, report)
            else:
                reports.append(report)
        return reports

    def waiting(self) -> list[Lease]:
        """The second lease."""
        return self._workers.queued()

    def waits_for(self) -> list[Awaited]:
        """The team, if it has a lease."""
        return self._workers.awaited(lambda _: self._where)

    def cancel(self, cut: float, job: int | None = None) -> None:
        """What lies above it and has not begun need not begin."""
        number = self._newest if job is None else job
        if number in self._cuts:
            self._cuts[number] = cut

    def busy(self) -> int:
        """Whether the team has a lease."""
        return self._workers.busy()

    def close(self, status: int) -> None:
        """Let the team end what it is at; after an error it is left at it, perhaps for ever."""
        self._is_over = True
        if not self._thread.ident:
            self._lead.end()
        elif status == 0:
            self._orders.put(self._end)
            while self._thread.is_alive():
                self._thread.join(_LOOK)
        else:
            self._may_go_on = False
            self._orders.put(lambda: None)

    # The thread.

    def _work(self) -> None:
        try:
            with guard.last_words_to(self._last_words), voice.heard_by(self._say):
                while self._may_go_on:
                    self._orders.get()()
            if self._note:
                self._note.close()
        except Exception:
            text = f"{self._where} broke down beside the run:\n{traceback.format_exc()}"
            self._reports.put(SchedulerError(text))

    def _end(self) -> None:
        self._lead.end()
        self._may_go_on = False

    def _say(self, piece: voice.Piece) -> None:
        self._reports.put(Said(self._where, piece))

    def _give_up(self, lost: Lost) -> None:
        """The team will not come back from this evaluation."""
        self._reports.put(lost)
        if self._problem.on_error != "raise":
            self._reports.put(SchedulerError(last_words(lost)))

    def _last_words(self, failure: Failure) -> None:
        """The simulator has called C's exit: nothing here can go on."""
        self._fail(f"{failure}\n{GO_ON}")

    def _take(self, job: Job) -> None:
        watch = self._note.watch(job.number) if self._note else None
        self._evaluators = {number: made for number, made in self._evaluators.items() if number in self._cuts}
        self._evaluators[job.number] = job.evaluator(self._problem, self._where, watch)

    def _evaluate(self, lease: Lease) -> None:
        """Evaluate the lease piece by piece, as far as it is wanted, and tell that it is done."""
        self._lead.take(lease)
        rest = lease
        while rest.start < rest.stop and self._is_wanted(rest):
            middle = min(rest.stop, rest.start + self._step * max(1, int(_SLICE / self._cost)))
            records = self._records(rest._replace(stop=middle))
            if records is None:
                break
            self._cost = max(1e-9, self._step * records.seconds / len(records))
            self._reports.put(records)
            rest = rest._replace(start=middle)
        self._reports.put(lease)
        if rest.start < rest.stop:
            self._reports.put(Lost(rest, self._where, "it was not wanted", is_returned=True))

    def _is_wanted(self, lease: Lease) -> bool:
        is_current = lease.start < self._cuts.get(lease.job, -1)
        return is_current and not self._is_over and not self._lead.is_disbanded

    def _records(self, lease: Lease) -> Records | None:
        """What came of a piece; None where the team has lost a rank."""
        with contextlib.suppress(KeyboardInterrupt), team.being(self._who, self._lead):
            return self._evaluators[lease.job](lease.start, lease.stop)
        return None
