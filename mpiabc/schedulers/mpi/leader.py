"""The other ranks, as the leading one sees them."""

import contextlib
import logging
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Collection
from itertools import islice

from mpiabc.errors import Interrupted, ProblemError, SchedulerError
from mpiabc.records import Lease, Records
from mpiabc.schedulers import teams
from mpiabc.schedulers.base import Job, Lost, Report, Said, Shared
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.mpi.attendance import Attendance
from mpiabc.schedulers.mpi.ending import GRACE, abort, left, torn
from mpiabc.schedulers.mpi.greeting import Expected
from mpiabc.schedulers.mpi.held import Hold
from mpiabc.schedulers.mpi.launch import load_mpi
from mpiabc.schedulers.mpi.outgoing import TURN, Outgoing
from mpiabc.schedulers.mpi.sending import Sending
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, answer_of
from mpiabc.schedulers.shared.starting import travelling
from mpiabc.schedulers.shared.worker import UNWANTED
from mpiabc.schedulers.shared.workers import Staffed
from mpiabc.schedulers.silence import Awaited
from mpiabc.schedulers.together import Backoff
from mpiabc.schedulers.wire import SECONDS_BODY, Wire
from mpiabc.signals import relay

_log = logging.getLogger(__name__)

_LEAVING = 4.0  # seconds that ranks have to leave before the job is aborted

#: What a rank says of itself, which it may before it has greeted.
_OF_ITSELF = (Kind.HELLO, Kind.BROKEN, Kind.REFUSED, Kind.SIGNALLED, Kind.BYE)
_NOT_HERE = "a rank that has not come to this run has not called run again, or is held up before it"
_COLLECTIVE = (
    "a simulator that calls a collective of COMM_WORLD waits for ranks that do not: let it use COMM_SELF, or "
    "give the run a communicator of its own, MPI(comm=...)"
)


def _cost(records: Records) -> float:
    """Seconds for one simulation."""
    simulations = len(records) if records.tries is None else int(records.tries[:, 1].sum())
    return records.seconds / max(1, simulations)


class Ranks(Staffed[int]):
    """The other ranks, as rank 0 sees them."""

    def __init__(
        self, comm: Comm, problem: Shared, plan: teams.Plan | None = None, hold: Hold | None = None
    ) -> None:
        greeting = b""
        self._hold = hold
        if hold:
            greeting = travelling(problem)  # these ranks have not come to where it was made
            hold.make_room()
            hold.opened = self
        self._wire = Wire(comm, load_mpi())
        self._wire.run = self.number = secrets.randbits(64)
        plan = teams.planned(range(comm.size), 1) if plan is None else plan
        self._attendance = Attendance(plan, comm.size)
        self._workers = self._attendance.holders
        self._expected = Expected.of(problem)
        self._outgoing = Outgoing(self._wire)
        self._sending = Sending(self.number, self._workers, self._outgoing)
        self._costs: deque[float] = deque(maxlen=2)  # seconds for one simulation, of the last reports
        self._broken = ""  # what a rank said that cannot go on
        self._outgoing.hurry(self._attendance.living, Kind.WELCOME, greeting)

    @property
    def cost(self) -> float | None:
        """Seconds for one simulation: the less of the last two, as the very first one starts cold."""
        return min(self._costs) if len(self._costs) == 2 else None

    @property
    def workers(self) -> int:
        """The others that have leases, and the ranks of their teams, as far as these live."""
        return self._attendance.workers

    def note_beside(self, store: str) -> None:
        """Let the ranks note, beside this file, what they evaluate: one that dies ends the job."""
        self._outgoing.spread(self._attendance.living, Kind.NOTE, os.fsencode(os.path.abspath(store)))

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Send the job to all: one that is busy reads it when it is free; a large one they ask for."""
        may_ask = not self._attendance.has_larger_teams  # ranks that have no leases, of teams, would not
        self._sending.begin(job, beside, self._attendance.living, may_ask=may_ask)

    def capacity(self, prefetch: bool) -> int:
        """Leases that the ranks would take before they are polled again."""
        return min(super().capacity(prefetch), self._outgoing.room)

    def submit(self, lease: Lease) -> None:
        """Give the lease to the rank with the fewest."""
        self._outgoing.give(self._workers.assign(lease), lease)

    def poll(self, timeout: float) -> list[Report]:
        """What has arrived, as far as there is time for it."""
        if self._broken:
            raise SchedulerError(self._broken)
        self._sending.turn()
        attendance = self._attendance
        reports: list[Report] = []
        for rank, kind, content in islice(iter(self._wire.receive, None), TURN):
            if rank not in attendance.living or (rank not in attendance.names and kind not in _OF_ITSELF):
                continue  # of a rank that is dead, or of an earlier run
            if kind in _OF_ITSELF:
                self._hear_of(rank, kind, bytes(content))
            else:
                reports += self._answered(rank, answer_of(kind, content))
            if self._broken:
                break  # what came before it counts
        return reports + self._bury()

    def _hear_of(self, rank: int, kind: int, content: bytes) -> None:
        """What a rank says of itself. Raises ProblemError, if it cannot have the problem."""
        match kind:
            case Kind.HELLO:
                self._attendance.greet(rank, self._expected.checked(content, rank))
            case Kind.BYE:
                self._attendance.leave(rank)
            case Kind.BROKEN:
                self._broken = content.decode()
            case Kind.REFUSED:
                raise ProblemError(content.decode())
            case Kind.SIGNALLED:
                relay(f"a signal to rank {rank}", *SECONDS_BODY.unpack(content))

    def _answered(self, rank: int, answer: Answer) -> list[Report]:
        """What a rank says of its leases; one whose team has lost another rank has none any more."""
        match answer:
            case Records():
                if rank not in self._workers:
                    return []
                self._workers.answered(rank, answer.job, answer.start)
                self._costs.append(_cost(answer))
                if answer.failures:
                    self._sending.unanswered.add(rank)
            case Lost():
                if not self._workers.complete(rank, answer.lease) and answer.why == UNWANTED:
                    return []
            case Said():
                return [Said(self._attendance.names[rank], answer.piece)]
            case Missing():
                self._sending.reply(rank, answer.job)
                return []
        return [answer]

    def _bury(self) -> list[Lost]:
        """The leases of ranks that died."""
        lost = []
        for rank in self._wire.failed & self._attendance.living:
            where, leases = self._attendance.bury(rank)
            _log.warning("%s died; its evaluations go out again", where)
            lost += [Lost(lease, where, "the rank died") for lease in leases]
        if self._attendance.are_teams_lost:
            raise SchedulerError("ranks of every team have died: run the same command again")
        return lost

    def waits_for(self) -> list[Awaited]:
        """Ranks with leases, and those that have not come to this run."""
        missing = [Awaited(rank, why=_NOT_HERE) for rank in self._attendance.missing()]
        return [*missing, *self._workers.awaited(self._attendance.names.__getitem__, _COLLECTIVE)]

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Ranks skip leases above the cut that they have not begun."""
        self._sending.cancel(cut, job)

    def close(self, status: int) -> None:
        """Tell all ranks that the run is over; after an error, abort those that do not answer."""
        if self._hold:
            self._hold.opened = None
        self._attendance.await_end()
        self._sending.close()
        self._broken = ""
        self._outgoing.hurry(self._attendance.living, Kind.LEAVE if status else Kind.STOP, bytes([status]))
        if status == 0:
            self._wire.flush(GRACE)
            return
        left.add(self._wire.comm.size)
        if self._attendance.has_larger_teams:
            torn.add(0)
        if not self._have_left_within(_LEAVING):
            error = sys.exception()
            is_reported = error is None or isinstance(error, Interrupted)
            abort(self._wire.comm, status, "" if is_reported else f"{type(error).__name__}: {error}")

    def _have_left_within(self, seconds: float) -> bool:
        """Whether all ranks have left after so long at most."""
        end, backoff = time.monotonic() + seconds, Backoff()
        while not self._attendance.have_left and time.monotonic() < end:
            with contextlib.suppress(ProblemError, SchedulerError):
                self.poll(0)
            backoff.wait()
        return self._attendance.have_left
