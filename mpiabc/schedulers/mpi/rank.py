"""The other ranks: each works for the leading one."""

import contextlib
import logging
import math
import os
import pickle
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mpiabc import guard, team, voice
from mpiabc.errors import Error, ProblemError, SchedulerError
from mpiabc.records import Failure, Lease, Records
from mpiabc.schedulers import teams
from mpiabc.schedulers.alone import ALONE
from mpiabc.schedulers.base import Job, Lost, Report, Said
from mpiabc.schedulers.mpi.communicators import where_is
from mpiabc.schedulers.mpi.ending import GRACE, abort, leave, torn
from mpiabc.schedulers.mpi.greeting import hello
from mpiabc.schedulers.mpi.launch import load_mpi
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.schedulers.sentry import Sentry
from mpiabc.schedulers.shared.messages import Answer, Kind, order_of
from mpiabc.schedulers.shared.worker import UNWANTED, Evaluator, Worker
from mpiabc.schedulers.together import Backoff
from mpiabc.schedulers.wire import SECONDS_BODY, Wire
from mpiabc.signals import Signals
from mpiabc.whereabouts import Note

_log = logging.getLogger(__name__)


_SILENCE = 10.0  # seconds after which a rank that failed takes rank 0 for stuck, and ends the job


_ATTENTIVE, _AT_REST = 0.01, 0.1  # of what a rank has waited: how late it may be for work, and for orders


_RELEASED = -1  # in place of a status
_ABOUT_LEASES = (Kind.JOB, Kind.LEASE, Kind.CANCEL)


class Rank:
    """A rank that works for rank 0: takes orders in turn, evaluates leases, answers each."""

    def __init__(
        self,
        comm: Any,
        problem: Any,
        cores: int,
        signals: Signals,
        who: team.Worker,
        group: teams.Group | None = None,
    ) -> None:
        """problem: None where it is to come with rank 0's greeting."""
        self._wire = Wire(comm, load_mpi())
        self._signals, self._who, self._cores = signals, who, cores
        self._where = where_is(comm)
        self._problem: Any = None
        self._child: ProcessesEngine | None = None
        self._lead: teams.Lead | None = None
        self._follower: teams.Follower | None = None
        self._backoff = Backoff()
        if problem is not None:
            self._take(problem, group)
        side = self._lead or self._follower
        look = None if side is None else side.look
        self._sentry = Sentry(lambda: self._wire.is_there(0, Kind.LEAVE), self._leave, look)
        self._worker = Worker(self._load, self._where)
        self._note: Note | None = None
        self._status: int | None = None
        self._is_signalled = False
        self._failure = ""  # not answered yet
        self._refusal: tuple[int, bytes] | None = (
            None  # why no lease is taken here, until rank 0 has heard it
        )
        self._is_refused = False
        self._give_up_at = math.inf

    def run(self) -> int:
        """Work until rank 0 says that the run is over; returns its status."""
        with guard.last_words_to(self._last_words), voice.heard_by(self._say):
            while not self._is_over():
                if self._turn():
                    self._backoff.reset()
                else:
                    self._backoff.wait(share=_ATTENTIVE if self._is_awaiting() else _AT_REST)
                if self._failure and time.monotonic() > self._give_up_at:
                    abort(self._wire.comm, 1, self._failure)
                if 0 in self._wire.failed:
                    abort(self._wire.comm, 1, f"{self._where}: rank 0 died; run the same command again")
                self._pass_signal_on()
                self._pass_refusal_on()
            assert self._status is not None
            if self._child:
                self._child.close(self._status)
            if self._lead and self._status == 0:
                self._lead.end()
                self._lead.wire.flush(GRACE)
            if self._status:
                self._tear()
            if self._note:
                self._note.close()
            self._wire.send(0, Kind.BYE)
            self._wire.flush(GRACE)
        return self._status

    def _is_awaiting(self) -> bool:
        """Whether somebody else is at work for this rank: the child, or the others of its team."""
        return self._follower is not None or (self._child is not None and self._child.busy() > 0)

    def _take(self, problem: Any, group: teams.Group | None = None) -> None:
        """Work on this problem, in a team if there are any."""
        self._problem = problem
        if group is not None:
            self._join(group)
        elif problem.timeout is not None:
            self._child = ProcessesEngine(
                problem, 1, start="spawn", where=self._where, cores=self._cores, who=self._who
            )
        self._backoff.reset()

    def _has_taken(self, travelled: memoryview) -> bool:
        """Take the problem that has come with a greeting; rank 0 is told if it cannot be loaded."""
        try:
            self._take(pickle.loads(travelled).arrived())
        except Error:
            raise
        except Exception:
            told = f"{self._where} cannot load what it is to work on:\n{traceback.format_exc()}"
            self._wire.send(0, Kind.BROKEN, told.encode())
            return False
        return True

    def _join(self, group: teams.Group) -> None:
        """Be the first rank of a team, another one, or in none."""
        library = load_mpi()
        if group.leads:
            self._lead = teams.Lead(group, library, self._where, self._problem.timeout, self._give_up)
        else:
            self._follower = teams.Follower(group, library)
        self._who = replace(self._who, team=group.number)

    def _tear(self) -> None:
        """The run ends in an error: ranks of teams may sit in calls from which they never come back."""
        if self._lead or self._follower:
            torn.add(self._wire.comm.rank)

    def _is_over(self) -> bool:
        """Whether the run is, here: a team goes on until its first rank has done what it was at."""
        if self._status is None:
            return False
        return self._status > 0 or self._follower is None or self._follower.is_free

    def _turn(self) -> bool:
        """Take orders, and do what is next; whether there was anything."""
        with self._refusal_noted():
            is_any = self._take_orders()
            return (not self._is_over() and self._step()) or is_any
        return True

    def _step(self) -> bool:
        """Do what is to be done next; whether there was anything."""
        if self._signals.seen or (self._lead and self._lead.is_disbanded):
            self._worker.leave()
        if self._follower:
            return self._follow(self._follower)
        return self._pass_on() if self._child else self._work()

    def _follow(self, follower: teams.Follower) -> bool:
        """Take part in what the team's first rank has begun."""
        begun = follower.next()
        if begun is None:
            return False
        self._lease = begun.lease
        try:
            with self._evaluating(follower):
                follower.take_part(begun)
        except KeyboardInterrupt:  # a signal, or a rank of the team is dead
            _log.debug("%s has left evaluation %s", self._where, begun.lease)
        except Exception:
            told = f"{self._where} failed in evaluation {begun.lease}:\n{traceback.format_exc()}"
            self._wire.send(0, Kind.BROKEN, told.encode())
        return True

    @contextlib.contextmanager
    def _evaluating(self, side: team.Team) -> Iterator[None]:
        """Evaluate, with this team, as one who can still be asked to stop, or to leave."""
        with team.being(self._who, side), self._sentry.evaluating(), self._signals.interrupting():
            yield

    def _give_up(self, lost: Lost) -> None:
        """The team will not come back from this evaluation: rank 0 is to end the job."""
        self._wire.tell(0, lost)
        if self._problem.on_error != "raise":
            self._wire.send(0, Kind.BROKEN, teams.last_words(lost).encode())

    def _pass_signal_on(self) -> None:
        """Tell rank 0, once, of a signal, and how long ago it came: what was sent since then is doubtful."""
        if self._signals.seen and self._wire.run and not self._is_signalled:
            self._is_signalled = True
            self._wire.send(0, Kind.SIGNALLED, SECONDS_BODY.pack(time.monotonic() - self._signals.at))

    @contextlib.contextmanager
    def _refusal_noted(self) -> Iterator[None]:
        """Note that the problem, or its job, cannot be had here or in the child: it ends the run."""
        try:
            yield
        except (ProblemError, SchedulerError) as error:
            kind = Kind.REFUSED if isinstance(error, ProblemError) else Kind.BROKEN
            self._is_refused = True
            self._refusal = kind, f"{self._where} cannot work: {error}".encode()

    def _pass_refusal_on(self) -> None:
        """Tell rank 0, once it has greeted."""
        if self._refusal and self._wire.run:
            self._wire.send(0, *self._refusal)
            self._refusal = None

    def _say(self, piece: voice.Piece) -> None:
        self._wire.tell(0, Said(self._where, piece))

    def _last_words(self, failure: Failure) -> None:
        """The evaluation in work has called C's exit: tell rank 0, and wait for what it says."""
        lease = self._lease
        self._sentry.dismiss()
        lost = Lost(lease, self._where, failure.error, culprit=failure.index, kind="exit")
        self._wire.tell(0, lost)
        end, backoff = time.monotonic() + _SILENCE, Backoff()
        if self._problem.on_error != "raise":
            self._wire.send(
                0, Kind.BROKEN, f"{failure}\nrun the same command again to go on without it".encode()
            )
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
        self._tear()
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
                    self._failure = ""
                self._worker.obey(order_of(kind, content))
            else:
                self._hear(kind, content)
        return is_any

    def _hear(self, kind: int, content: memoryview) -> None:
        """Do what rank 0 wants of this rank itself."""
        match kind:
            case Kind.WELCOME:
                self._greet(content)
            case Kind.NOTE if not self._child and not self._follower:
                self._note = Note(os.fsdecode(bytes(content)), self._where)
            case Kind.RELEASE:
                self._status = content[0] or _RELEASED
            case Kind.STOP | Kind.LEAVE:
                self._failure = ""
                self._status = content[0]

    def _greet(self, travelled: memoryview) -> None:
        """Say who this is, with the problem that rank 0 has sent, if it has."""
        if travelled and not self._has_taken(travelled):
            return
        self._wire.send(0, Kind.HELLO, hello(self._where, self._problem))
        for side in (self._lead, self._follower):
            if side and side.wire:
                side.wire.run = self._wire.run

    def _load(self, job: Job) -> Evaluator:
        """What evaluates a job here; the child, and others of a team, have it too."""
        watch = self._note.watch(job.number) if self._note else None
        evaluator = job.evaluator(self._problem, self._where, watch)
        if self._follower:
            self._follower.keep(job.number, evaluator)
        if self._child:
            self._child.begin(job, self._worker.jobs)

        def evaluate(start: int, stop: int) -> Records:
            self._lease = lease = Lease(job.number, start, stop)
            if self._lead:
                self._lead.take(lease)
            with self._evaluating(self._lead or ALONE):
                return evaluator(start, stop)

        return evaluate

    def _pass_on(self) -> bool:
        """Give the child a lease, send what it brings; whether anything happened."""
        assert self._child is not None
        if self._is_refused:
            return False
        answers = self._worker.answers()
        lease = self._worker.next() if self._child.capacity(False) else None
        if lease is not None:
            self._child.submit(lease)
        answers += self._child.poll(0)
        for answer in answers:
            self._tell(answer)
        return lease is not None or bool(answers)

    def _work(self) -> bool:
        """Evaluate a lease, if there is one, and send what it brought; whether there was one.

        After a failure that may end the run, rank 0's answer is waited for.
        """
        if self._failure or self._is_refused or self._worker.is_idle:
            return False
        try:
            for answer in self._worker.step():
                self._tell(answer)
        except KeyboardInterrupt:  # a signal, and the grace is over
            self._give_back()
        except Exception:
            told = f"{self._where} failed in evaluation {self._lease}:\n{traceback.format_exc()}"
            self._wire.send(0, Kind.BROKEN, told.encode())
        return True

    def _give_back(self) -> None:
        """What came of the lease in work is no outcome."""
        self._wire.tell(0, Lost(self._lease, self._where, UNWANTED, is_returned=True))

    def _tell(self, answer: Answer | Report) -> None:
        """Say it to rank 0; of records, whether a signal came meanwhile is told first."""
        if not isinstance(answer, Records):
            self._wire.tell(0, answer)
            return
        self._pass_signal_on()
        if self._signals.seen:
            self._wire.tell(0, Lost(answer.lease, self._where, UNWANTED, is_returned=True))
            return
        self._wire.tell(0, answer)
        if answer.failures and self._ends_run(answer.failures[0]):
            self._failure = str(answer.failures[0])
            self._give_up_at = time.monotonic() + _SILENCE

    def _ends_run(self, failure: Failure) -> bool:
        return self._problem.on_error == "raise" or failure.ends_every_run
