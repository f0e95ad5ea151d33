"""Three ways in which a rank evaluates: by itself, which may lead a team, by a child, or as one of a team."""

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

from mpiabc import team
from mpiabc.records import Lease, Records
from mpiabc.schedulers import teams
from mpiabc.schedulers.alone import ALONE
from mpiabc.schedulers.base import Job, Shared
from mpiabc.schedulers.mpi.ending import GRACE
from mpiabc.schedulers.mpi.speech import Speech
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.schedulers.sentry import Sentry
from mpiabc.schedulers.shared.worker import Evaluator, Worker
from mpiabc.signals import Signals

_log = logging.getLogger(__name__)

_NONE = Lease(-1, 0, 0)


@dataclass
class Here:
    """What a rank has, whichever way it evaluates."""

    where: str
    who: team.Worker
    signals: Signals
    speech: Speech
    sentry: Sentry
    worker: Worker
    lease: Lease = _NONE  # in work, or the last one that was

    @contextmanager
    def evaluating(self, side: team.Team) -> Iterator[None]:
        """Evaluate, with this team, as one who can still be asked to stop, or to leave."""
        with team.being(self.who, side), self.sentry.evaluating(), self.signals.interrupting():
            yield

    def tell_failure(self) -> None:
        """An exception that no simulator has raised."""
        self.speech.broken(f"{self.where} failed in evaluation {self.lease}:\n{traceback.format_exc()}")


class Side(ABC):
    """How a rank evaluates."""

    is_team = False
    takes_notes = False  # of what is evaluated in this process

    @property
    def is_awaiting(self) -> bool:
        """Whether somebody else is at work for this rank."""
        return False

    @property
    def is_disbanded(self) -> bool:
        """Whether it can begin nothing any more."""
        return False

    @property
    def is_free(self) -> bool:
        """Whether it may leave after a good end."""
        return True

    @abstractmethod
    def loaded(self, job: Job, evaluator: Evaluator) -> Evaluator:
        """What evaluates leases of this job, of which `evaluator` evaluates them in this process."""

    @abstractmethod
    def step(self) -> bool:
        """Do what is to be done next; whether there was anything."""

    @abstractmethod
    def greet(self, run: int) -> None:
        """Rank 0 has greeted: this is the number of its run."""

    @abstractmethod
    def look(self) -> None:
        """See to others beside an evaluation."""

    @abstractmethod
    def close(self, status: int) -> None:
        """The run is over."""


class Own(Side):
    """Evaluates leases in this process; the first rank of a team does so with the others."""

    takes_notes = True

    def __init__(self, here: Here, lead: teams.Lead | None = None) -> None:
        self._here, self._lead = here, lead
        self.is_team = lead is not None

    @property
    def is_disbanded(self) -> bool:
        """Whether the team has lost a rank."""
        return self._lead is not None and self._lead.is_disbanded

    def loaded(self, job: Job, evaluator: Evaluator) -> Evaluator:
        """Evaluate, and keep which lease that is."""
        here = self._here

        def evaluate(start: int, stop: int) -> Records:
            here.lease = lease = Lease(job.number, start, stop)
            if self._lead:
                self._lead.take(lease)
            with here.evaluating(self._lead or ALONE):
                return evaluator(start, stop)

        return evaluate

    def step(self) -> bool:
        """Evaluate a lease, if there is one, and send what it brought.

        After a failure that may end the run, rank 0's answer is waited for.
        """
        here = self._here
        if here.speech.failure or here.speech.is_refused or here.worker.is_idle:
            return False
        try:
            for answer in here.worker.step():
                here.speech.tell(answer)
        except KeyboardInterrupt:  # a signal, and the grace is over
            here.speech.give_back(here.lease)
        except Exception:
            here.tell_failure()
        return True

    def greet(self, run: int) -> None:
        """The team's messages are of this run."""
        if self._lead:
            self._lead.wire.run = run

    def look(self) -> None:
        """See whether the team can still come to an end."""
        if self._lead:
            self._lead.look()

    def close(self, status: int) -> None:
        """Let the others of the team go after a good end; else they may sit in calls of the simulator."""
        if self._lead and status == 0:
            self._lead.end()
            self._lead.wire.flush(GRACE)


class ByChild(Side):
    """Passes leases to a child process, which can be killed when a simulation takes too long."""

    def __init__(self, here: Here, child: ProcessesEngine) -> None:
        self._here, self._child = here, child

    @property
    def is_awaiting(self) -> bool:
        """Whether the child works."""
        return self._child.busy() > 0

    def loaded(self, job: Job, evaluator: Evaluator) -> Evaluator:
        """Let the child have the job, too."""
        self._child.begin(job, self._here.worker.jobs)
        return evaluator

    def step(self) -> bool:
        """Give the child a lease, send what it brings."""
        worker, speech = self._here.worker, self._here.speech
        if speech.is_refused:
            return False
        answers = worker.answers()
        lease = worker.next() if self._child.capacity(False) else None
        if lease is not None:
            self._child.submit(lease)
        answers += self._child.poll(0)
        for answer in answers:
            speech.tell(answer)
        return lease is not None or bool(answers)

    def greet(self, run: int) -> None:
        """The child needs no greeting."""

    def look(self) -> None:
        """Nothing is evaluated in this process."""

    def close(self, status: int) -> None:
        """End the child."""
        self._child.close(status)


class InTeam(Side):
    """Takes part in what the team's first rank begins; idles in no team."""

    is_team = True

    def __init__(self, here: Here, follower: teams.Follower) -> None:
        self._here, self._follower = here, follower

    @property
    def is_awaiting(self) -> bool:
        """Always: for the first rank."""
        return True

    @property
    def is_free(self) -> bool:
        """Whether the first rank has done what it was at."""
        return self._follower.is_free

    def loaded(self, job: Job, evaluator: Evaluator) -> Evaluator:
        """Keep it for when the first rank begins."""
        self._follower.keep(job.number, evaluator)
        return evaluator

    def step(self) -> bool:
        """Take part in what the first rank has begun."""
        begun = self._follower.next()
        if begun is None:
            return False
        here = self._here
        here.lease = begun.lease
        try:
            with here.evaluating(self._follower):
                self._follower.take_part(begun)
        except KeyboardInterrupt:  # a signal, or a rank of the team is dead
            _log.debug("%s has left evaluation %s", here.where, begun.lease)
        except Exception:
            here.tell_failure()
        return True

    def greet(self, run: int) -> None:
        """The team's messages are of this run."""
        if self._follower.wire:
            self._follower.wire.run = run

    def look(self) -> None:
        """See whether a rank that it waits for is dead."""
        self._follower.look()

    def close(self, status: int) -> None:
        """The first rank knows."""


def made(here: Here, problem: Shared, cores: int, group: teams.Group | None, library: ModuleType) -> Side:
    """The way to evaluate this problem on a rank that has so many cores, in a group if there are teams."""
    if group is not None:
        here.who = replace(here.who, team=group.number)
        if not group.leads:
            return InTeam(here, teams.Follower(group, library))
        return Own(here, teams.Lead(group, library, here.where, problem.timeout, here.speech.give_up))
    if problem.timeout is None:
        return Own(here)
    child = ProcessesEngine(problem, 1, start="spawn", where=here.where, cores=cores, who=here.who)
    return ByChild(here, child)
