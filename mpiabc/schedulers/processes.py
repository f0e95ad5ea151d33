"""Evaluation in processes of this machine: `shared.starting` says how they are started."""

import math
import time
from collections.abc import Collection

from mpiabc import guard, machine, team
from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.records import Lease, Records
from mpiabc.schedulers.base import Doubted, Job, Lost, OneLeads, Report, Shared, count
from mpiabc.schedulers.shared.children import Child, Children
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, answer_of
from mpiabc.schedulers.shared.pipes import received
from mpiabc.schedulers.shared.starting import kill_group
from mpiabc.schedulers.shared.workers import Staffed, Workers
from mpiabc.schedulers.silence import Awaited

_SEEN = 0.5  # seconds between two polls that count as a simulation's time: in longer gaps we were suspended


class Processes(OneLeads):
    """`n` processes of this machine; all its cores by default."""

    def __init__(self, n: int | None = None, *, start: str | None = None, renew: int | None = None) -> None:
        """start: "fork", "spawn", or None for fork where that is safe.

        renew: simulations after which a process makes room for a new one, for simulators that lose memory.
        """
        self.n = n
        self.start = start
        self.renew = renew

    def __repr__(self) -> str:
        return f"Processes({'' if self.n is None else self.n})"

    def open(self, problem: Shared) -> "ProcessesEngine":
        """Start the processes. Raises SchedulerError if that cannot be."""
        n = machine.cores() if self.n is None else count(self.n, f"Processes({self.n!r})")
        if self.start not in (None, "fork", "spawn"):
            raise SchedulerError(f'Processes(start={self.start!r}): give "fork", "spawn", or None')
        return ProcessesEngine(problem, n, start=self.start, renew=self.renew)


class ProcessesEngine(Staffed[Child]):
    """Children, each on its own pipe; a child that dies is replaced, its lease reported as lost.

    A simulation that takes longer than the problem's timeout is ended with its child, whatever it does
    to the interpreter lock: each child notes in shared memory what it evaluates since when, which costs
    less than a microsecond a simulation. `cores` are for all children together. A child that has done `renew`
    simulations is replaced when it holds no lease: it gets none any more.
    """

    def __init__(
        self,
        problem: Shared,
        n: int,
        *,
        start: str | None = None,
        where: str | None = None,
        cores: int | None = None,
        renew: int | None = None,
        who: team.Worker | None = None,
    ) -> None:
        """who: as which worker the children evaluate; by default each has its number as local rank."""
        self._renew = math.inf if renew is None else count(renew, f"renew={renew!r}")
        self.workers = n
        self._timeout = problem.timeout
        self._children = Children(problem, n, start=start, where=where, cores=cores, who=who)
        self._jobs = Jobs()
        self._workers: Workers[Child] = Workers()  # those that have come up
        self._polled = time.monotonic()
        self._children.start_all()
        for child in self._children:
            self._join(child, child.is_forked)

    def _join(self, child: Child, is_up: bool) -> None:
        """Let a child have leases, if it has come up."""
        if is_up and child not in self._workers:
            self._workers.join(child, 1)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start on a job; each child hears of it with its first lease."""
        self._jobs.begin(job, beside)
        self._workers.begin(job.number, beside)

    def is_ready(self) -> bool:
        """Whether any child has come up."""
        return len(self._workers) > 0

    def submit(self, lease: Lease) -> None:
        """Give the lease to the child with the fewest, and its job, if that is new there; closed ones go."""
        child = self._workers.assign(lease)
        if lease.job not in child.jobs:
            child.send(self._jobs.sent_by(child.sender, lease.job))
            child.jobs = {job for job in child.jobs if job in self._jobs} | {lease.job}
        child.send(lease)

    def poll(self, timeout: float) -> list[Report]:
        """Records and lost leases; returns early when there are any."""
        reports: list[Report] = []
        died, talking = self._children.events(timeout)
        for child in died:
            kill_group(child.process.pid)  # its programs may hold the pipe open
            if not child.connection.poll():
                reports += self._bury(child)
        for child in talking:
            if not self._children.is_there(child):
                continue
            try:
                kind, content = received(child.connection)
            except (EOFError, OSError):
                reports += self._bury(child)
                continue
            reports += self._heard(child, kind, content)
            if child.simulations >= self._renew and not self._held_by(child):
                self._bury(child)
        return reports + self._overdue()

    def _heard(self, child: Child, kind: int, content: memoryview) -> list[Report]:
        """What a child has said. Raises ProblemError, SchedulerError where it cannot work."""
        if kind in (Kind.BROKEN, Kind.REFUSED):
            error = ProblemError if kind == Kind.REFUSED else SchedulerError
            raise error(f"process {child.process.pid} cannot work: {bytes(content).decode()}")
        if kind == Kind.HELLO:
            child.has_mpi = bool(content[0])
            self._children.is_up()
            self._join(child, True)
            return []
        answer: Answer = answer_of(kind, content, self._children.name(child))
        match answer:
            case Records():
                self._note_home(child, answer)
            case Lost():
                self._workers.complete(child, answer.lease)
            case Doubted():
                return [child.recent.doubted()]
            case Missing():
                child.send(self._jobs.whole(answer.job))
                return []
        return [answer]

    def _note_home(self, child: Child, records: Records) -> None:
        lease = self._workers.answered(child, records.job, records.start)
        if lease is not None:
            child.recent.add(lease)
        child.simulations += records.simulations
        if child.simulations >= self._renew:
            self._workers.retire(child)

    def _overdue(self) -> list[Lost]:
        """The leases of children whose simulation has taken too long."""
        now, before = time.monotonic(), self._polled
        self._polled = now
        if self._timeout is None:
            return []
        lost: list[Lost] = []
        for child in self._children:
            index = child.work.spend(min(now - before, _SEEN))
            if index is not None and self._held_by(child) and child.work.spent > self._timeout:
                first, *others = self._bury(child)
                why = f"the simulation took longer than timeout={self._timeout} s"
                lost += [Lost(first.lease, first.worker, why, culprit=index, kind="timeout"), *others]
        return lost

    def wake_on(self, before: int | None, fd: int | None) -> None:
        """Let something to read on `fd` end the wait of `poll` from now on, instead of `before`."""
        self._children.wake_on(before, fd)

    def _held_by(self, child: Child) -> list[Lease]:
        """What a child has not answered, if it has come up; the oldest is in work."""
        return self._workers.leases(child) if child in self._workers else []

    def waits_for(self) -> list[Awaited]:
        """Children at work, each with its evaluation, and those that have not come up."""
        return [
            child.work.awaited(self._children.name(child), held)
            for child in self._children
            if (held := self._held_by(child)) or child not in self._workers
        ]

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Children skip leases above the cut that they have not begun."""
        order, is_for_all = self._jobs.cancel(cut, job)
        for child in self._workers if is_for_all else self._workers.above(cut, order.job):
            child.send(order)

    def close(self, status: int) -> None:
        """End the children: nothing of theirs is wanted any more."""
        self._children.close([one for one in self._children if one.has_mpi or not self._held_by(one)])

    def _bury(self, child: Child) -> list[Lost]:
        """End a child that is of no use any more; the leases that it held."""
        held = self._workers.leave(child) if child in self._workers else []
        where = self._children.name(child)
        ended = self._children.replace(child, is_idle=not held)
        self._join(ended.successor, ended.successor.is_forked)
        lost = [Lost(lease, where, ended.why, is_returned=True) for lease in held]
        if ended.culprit is not None and lost:
            lost[0] = Lost(lost[0].lease, where, guard.EXITED, culprit=ended.culprit, kind="exit")
        elif lost:  # those behind it had not begun
            suspect = ended.suspect if ended.suspect >= 0 else None
            lost[0] = Lost(lost[0].lease, where, ended.why, suspect=suspect)
        return lost
