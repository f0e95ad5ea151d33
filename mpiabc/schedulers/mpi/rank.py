"""The other ranks: each works for the leading one."""

import os
import pickle
import time
import traceback

from mpiabc import guard, team, voice
from mpiabc.errors import Error
from mpiabc.records import Failure
from mpiabc.schedulers import teams
from mpiabc.schedulers.base import Job, Shared
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.mpi import sides
from mpiabc.schedulers.mpi.communicators import where_is
from mpiabc.schedulers.mpi.ending import GRACE, abort, leave, tear
from mpiabc.schedulers.mpi.greeting import hello
from mpiabc.schedulers.mpi.launch import load_mpi
from mpiabc.schedulers.mpi.nearby import Nearby
from mpiabc.schedulers.mpi.speech import Speech
from mpiabc.schedulers.sentry import Sentry
from mpiabc.schedulers.shared.messages import Kind, Missing, order_of
from mpiabc.schedulers.shared.transfer import Parcel
from mpiabc.schedulers.shared.worker import Evaluator, Worker
from mpiabc.schedulers.together import Backoff
from mpiabc.schedulers.wire import Wire
from mpiabc.signals import Signals
from mpiabc.whereabouts import Note

_SILENCE = 10.0  # seconds for which a rank that must end hears what rank 0 has to say
_ATTENTIVE, _AT_REST = 0.01, 0.1  # of what a rank has waited: how late it may be for work, and for orders
_RELEASED = -1  # in place of a status
_ABOUT_LEASES = (Kind.JOB, Kind.LEASE, Kind.CANCEL)


class Rank:
    """A rank that works for rank 0: takes orders in turn, evaluates leases, answers each."""

    def __init__(
        self,
        comm: Comm,
        problem: Shared | None,
        cores: int,
        signals: Signals,
        who: team.Worker,
        group: teams.Group | None = None,
    ) -> None:
        """problem: None where it is to come with rank 0's greeting."""
        self._wire = Wire(comm, load_mpi())
        where = where_is(comm)
        self._cores = cores
        sentry = Sentry(lambda: self._wire.is_there(0, Kind.LEAVE), self._leave, lambda: self._side.look())
        self._nearby = Nearby()
        self._speech = Speech(self._wire, where, signals, self._nearby)
        self._worker = Worker(self._load, where)
        self._here = sides.Here(where, who, signals, self._speech, sentry, self._worker)
        self._side: sides.Side = sides.Own(self._here)
        self._problem: Shared | None = None
        self._backoff = Backoff()
        self._note: Note | None = None
        self._status: int | None = None
        if problem is not None:
            self._take(problem, group)

    def run(self) -> int:
        """Work until rank 0 says that the run is over; returns its status."""
        with guard.last_words_to(self._last_words), voice.heard_by(self._speech.say):
            while not self._is_over():
                if self._turn():
                    self._backoff.reset()
                else:
                    self._backoff.wait(share=_ATTENTIVE if self._side.is_awaiting else _AT_REST)
                if self._speech.is_overdue:
                    abort(self._wire.comm, 1, self._speech.failure)
                if 0 in self._wire.failed:
                    abort(self._wire.comm, 1, f"{self._here.where}: rank 0 died; run the same command again")
                self._speech.pass_on()
            assert self._status is not None
            self._side.close(self._status)
            self._nearby.close()
            if self._status:
                tear(self._wire.comm.rank, self._side.is_team)
            if self._note:
                self._note.close()
            self._wire.send(0, Kind.BYE)
            self._wire.flush(GRACE)
        return self._status

    def _take(self, problem: Shared, group: teams.Group | None = None) -> None:
        """Work on this problem, in a team if there are any."""
        self._problem = problem
        self._speech.on_error = problem.on_error
        self._side = sides.made(self._here, problem, self._cores, group, load_mpi())
        self._backoff = Backoff(gives_way=not self._side.is_team)  # whose ranks wait for each other

    def _has_taken(self, travelled: memoryview) -> bool:
        """Take the problem that has come with a greeting; rank 0 learns if it cannot be loaded."""
        try:
            self._take(pickle.loads(travelled).arrived())
        except Error:
            raise
        except Exception:
            text = f"{self._here.where} cannot load what it is to work on:\n{traceback.format_exc()}"
            self._speech.broken(text)
            return False
        return True

    def _is_over(self) -> bool:
        """Whether the run is, here: a team goes on until its first rank has done what it was at."""
        return self._status is not None and (self._status > 0 or self._side.is_free)

    def _turn(self) -> bool:
        """Take orders, and do what is next; whether there was anything."""
        with self._speech.refusal_noted():
            is_any = self._take_orders() | self._look_nearby()
            return (not self._is_over() and self._step()) or is_any
        return True

    def _step(self) -> bool:
        """Do what is to be done next; whether there was anything."""
        if self._here.signals.seen or self._side.is_disbanded:
            self._worker.leave()
        return self._side.step()

    def _last_words(self, failure: Failure) -> None:
        """The evaluation in work has called C's exit: tell rank 0, and wait for what it says."""
        lease = self._here.lease
        self._here.sentry.dismiss()
        self._speech.exits(lease, failure)
        end, backoff = time.monotonic() + _SILENCE, Backoff()
        while self._status is None and time.monotonic() < end:
            self._take_orders()
            backoff.wait()
        if self._status is not None:  # a launcher that saw this process die would not let rank 0 speak
            self._leave()

    def _leave(self) -> None:
        """Leave from beside an evaluation, with the run's status. Never returns."""
        while self._status is None:
            self._take_orders()
        self._wire.send(0, Kind.BYE)
        self._wire.flush(GRACE)
        self._nearby.close()
        tear(self._wire.comm.rank, self._side.is_team)
        leave(load_mpi(), self._status)

    def _take_orders(self) -> bool:
        """Read all that has arrived; whether there was anything.

        Nothing is read behind the end of the run: the next one's greeting may be there already.
        """
        is_any = False
        while self._status is None and (message := self._wire.receive()):
            is_any = True
            _, kind, content = message
            if kind in _ABOUT_LEASES:
                if kind != Kind.LEASE:
                    self._speech.failure = ""
                self._obey(kind, content)
            else:
                self._hear(kind, content)
        return is_any

    def _obey(self, kind: int, content: bytes | memoryview) -> None:
        """Take a job, a lease or a cut; others of this node may wait for the job."""
        order = order_of(kind, content)
        if isinstance(order, Parcel):
            self._nearby.came(order.number, content)
        self._worker.obey(order)
        if isinstance(order, Parcel):
            self._nearby.keep(self._worker.jobs)

    def _look_nearby(self) -> bool:
        """Take the jobs that others of this node were sent; ask for those that do not come."""
        if not self._nearby.is_awaiting:
            return False
        found = self._nearby.found()
        for content in found:
            self._obey(Kind.JOB, content)
        for job in self._nearby.late():
            self._wire.tell(0, Missing(job))
        return bool(found)

    def _hear(self, kind: int, content: memoryview) -> None:
        """Do what rank 0 wants of this rank itself."""
        match kind:
            case Kind.WELCOME:
                self._greet(content)
            case Kind.NOTE if self._side.takes_notes:
                self._note = Note(os.fsdecode(bytes(content)), self._here.where)
            case Kind.RELEASE:
                self._status = content[0] or _RELEASED
            case Kind.STOP | Kind.LEAVE:
                self._speech.failure = ""
                self._status = content[0]

    def _greet(self, travelled: memoryview) -> None:
        """Say who this is, with the problem that rank 0 has sent, if it has."""
        if travelled and not self._has_taken(travelled):
            return
        assert self._problem is not None
        self._wire.send(0, Kind.HELLO, hello(self._here.where, self._problem))
        self._side.greet(self._wire.run)

    def _load(self, job: Job) -> Evaluator:
        """What evaluates a job here; the child, and others of a team, have it too."""
        assert self._problem is not None
        watch = self._note.watch(job.number) if self._note else None
        evaluator = job.evaluator(self._problem, self._here.where, watch)
        return self._side.loaded(job, evaluator)
