"""Evaluation in this process, one lease at a time."""

import platform
import time
from collections import deque
from collections.abc import Callable, Collection

from mpiabc import team
from mpiabc.records import Lease, Records
from mpiabc.schedulers.alone import ALONE
from mpiabc.schedulers.base import Job, Lost, OneLeads, Report, Shared
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.whereabouts import Note

_SLICE = 0.05  # seconds of work between two looks at signals


class Serial(OneLeads):
    """This process alone; a simulator that takes `comm` has COMM_SELF."""

    team = 1

    def __repr__(self) -> str:
        return "Serial()"

    def open(self, problem: Shared) -> "SerialEngine | ProcessesEngine":
        """An engine that evaluates while it is polled; with a timeout, in a child that can be ended."""
        if problem.timeout is None:
            return SerialEngine(problem)
        return ProcessesEngine(problem, 1, who=team.Worker(platform.node()))


class SerialEngine:
    """Evaluates the lease it was given when it is polled, a slice at a time.

    Between slices the driver sees signals and, on rank 0, what the other ranks have sent.
    """

    workers = 1

    def __init__(
        self,
        problem: Shared,
        where: str | None = None,
        slice: float = _SLICE,
        who: team.Worker | None = None,
    ) -> None:
        """slice: seconds of work in a poll; who: as which worker, alone."""
        self._problem, self._where, self._slice, self._who = problem, where, slice, who
        self._leases: deque[Lease] = deque()
        self._evaluators: dict[int, Callable[[int, int], Records]] = {}  # of the jobs that are open
        self._newest = -1
        self._step = problem.step
        self._cost = slice  # seconds for one step of ids
        self._dropped: list[Lost] = []
        self._note: Note | None = None

    def note_beside(self, store: str) -> None:
        """Note, beside this file, what is evaluated from now on."""
        self._note = Note(store, self._where)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start on a job; what was not done for one that is over is brought back."""
        who = self._where or "this process"
        over = [lease for lease in self._leases if lease.job not in beside]
        self._dropped += [Lost(lease, who, "it was not wanted", is_returned=True) for lease in over]
        self._leases = deque(lease for lease in self._leases if lease.job in beside)
        self._evaluators = {number: made for number, made in self._evaluators.items() if number in beside}
        watch = self._note.watch(job.number) if self._note else None
        self._evaluators[job.number] = job.evaluator(self._problem, self._where, watch)
        self._newest = job.number

    def capacity(self, prefetch: bool) -> int:
        """One lease at a time: there is nobody to keep waiting."""
        return 1 - len(self._leases)

    def submit(self, lease: Lease) -> None:
        """Keep the lease for the next poll."""
        self._leases.append(lease)

    def poll(self, timeout: float) -> list[Report]:
        """Evaluate what there is; without anything, wait as others do."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            return list(dropped)
        if not self._leases:
            time.sleep(timeout)
            return []
        job, start, stop = self._leases.popleft()
        middle = min(stop, start + self._step * max(1, int(self._slice / self._cost)))
        if middle < stop:
            self._leases.appendleft(Lease(job, middle, stop))
        with team.being(self._who, ALONE):
            records = self._evaluators[job](start, middle)
        self._cost = max(1e-9, self._step * records.seconds / len(records))
        return [records]

    def waiting(self) -> list[Lease]:
        """None that another worker could take over."""
        return []

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Forget what lies above the cut."""
        number = self._newest if job is None else job
        kept = (lease for lease in self._leases if lease.job != number or lease.start < cut)
        self._leases = deque(
            lease._replace(stop=int(min(lease.stop, cut))) if lease.job == number else lease for lease in kept
        )

    def busy(self) -> int:
        """1 while there is a lease to work on."""
        return len(self._leases)

    def close(self, status: int) -> None:
        """Nothing to end."""
        if self._note:
            self._note.close()
