"""What a worker does, without a transport and without a clock.

A child process, an MPI rank, a Redis worker and a task loop over it: they bring it orders, let it take a
step, and carry its answers home.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mpiabc import machine
from mpiabc.records import Lease, Records
from mpiabc.schedulers.base import Job, Lost
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.messages import Answer, Cancel, Missing, Order
from mpiabc.schedulers.shared.transfer import Parcel

machine.refuse_free_threads()

Evaluator = Callable[[int, int], Records]
Load = Callable[[Job], Callable[[int, int], Records | Lost]]

UNWANTED = "it was not wanted"


@dataclass
class _Open:
    """A job that is open."""

    names: tuple[str, ...]  # of its parts
    evaluator: Callable[[int, int], Records | Lost]
    cut: float = float("inf")


class Worker:
    """Holds jobs and leases; begins these in turn, and says what came of each.

    Several jobs may be open at once. A lease of one that is not here waits, and the job is asked for; a
    lease that is not wanted any more goes back.
    """

    def __init__(self, load: Load, where: str = "") -> None:
        """load: makes a job's evaluator; what it raises, `obey` does. where: the worker is."""
        self._load, self._where = load, where
        self._jobs: dict[int, _Open] = {}
        self._asked: set[int] = set()  # jobs that are not here yet
        self._leases: deque[Lease] = deque()
        self._answers: list[Answer] = []
        self._parts = transfer.Receiver()
        self._takes_leases = True

    @property
    def jobs(self) -> tuple[int, ...]:
        """Numbers of those that are open here, and beside which another one is loaded."""
        return tuple(self._jobs)

    @property
    def held(self) -> tuple[Lease, ...]:
        """Leases that have not begun, oldest first."""
        return tuple(self._leases)

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._answers and all(lease.job in self._asked for lease in self._leases)

    def has(self, parcel: Parcel) -> bool:
        """Whether the parcel's job is open."""
        job = self._jobs.get(parcel.number)
        return job is not None and job.names == parcel.names

    def lacks(self, parcel: Parcel) -> list[str]:
        """What is needed for the parcel's job, and is neither in it nor here."""
        return self._parts.lacking(parcel)

    def obey(self, order: Order) -> None:
        """Do what the leader wants; what is to be said about it comes with the next step."""
        match order:
            case Parcel():
                self._open(order)
            case Lease():
                self._take(order)
            case Cancel() if order.job in self._jobs:
                self._jobs[order.job].cut = order.cut
        self._give_back()

    def leave(self) -> None:
        """Begin nothing any more: what is held, and what still comes, goes back."""
        self._takes_leases = False
        self._give_back()

    def next(self) -> Lease | None:
        """The lease to begin now, which is not held any more; None if there is none."""
        lease = next((lease for lease in self._leases if lease.job not in self._asked), None)
        if lease is not None:
            self._leases.remove(lease)
        return lease

    def answers(self) -> list[Answer]:
        """What has not been said yet."""
        answers, self._answers = self._answers, []
        return answers

    def step(self) -> list[Answer]:
        """Say what has not been said yet; if that is nothing, evaluate the next lease."""
        if answers := self.answers():
            return answers
        lease = self.next()
        return [] if lease is None else [self._jobs[lease.job].evaluator(lease.start, lease.stop)]

    def _open(self, parcel: Parcel) -> None:
        self._parts.take(parcel)
        open_now = {parcel.number, *parcel.beside}
        self._jobs = {number: job for number, job in self._jobs.items() if number in open_now}
        self._asked &= open_now
        if self.has(parcel):
            self._jobs[parcel.number].cut = float("inf")
        else:
            self._jobs.pop(parcel.number, None)
            self._jobs[parcel.number] = _Open(parcel.names, self._load(self._parts.job(parcel.number)))
            self._asked.discard(parcel.number)

    def _take(self, lease: Lease) -> None:
        if lease.job not in self._jobs and lease.job not in self._asked:
            self._asked.add(lease.job)
            self._answers.append(Missing(lease.job))
        self._leases.append(lease)

    def _give_back(self) -> None:
        """Bring back what is not wanted, oldest first."""
        unwanted = [lease for lease in self._leases if not self._is_wanted(lease)]
        for lease in unwanted:
            self._leases.remove(lease)
            self._answers.append(Lost(lease, self._where, UNWANTED, is_returned=True))

    def _is_wanted(self, lease: Lease) -> bool:
        job = self._jobs.get(lease.job)
        is_current = lease.job in self._asked if job is None else lease.start < job.cut
        return is_current and self._takes_leases
