"""The processes of a worker, and what they have of the run: the problem, jobs, leases."""

import logging
from collections.abc import Callable
from typing import NoReturn

import cloudpickle

from mpiabc.records import Lease
from mpiabc.schedulers.base import Job, Report
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.schedulers.shared.messages import Cancel, Missing, Order
from mpiabc.schedulers.shared.transfer import Parcel
from mpiabc.schedulers.shared.worker import Evaluator, Worker

_log = logging.getLogger(__name__)

_POLL = 0.25  # seconds to wait for processes, or for orders


class Processing:
    """Leases wait here while no process has room for them."""

    def __init__(self, processes: int, renew: int | None, fetch: Callable[[str, str], bytes | None]) -> None:
        """fetch: what the leader has put on the server, by its name and digest."""
        self.processes = processes
        self._renew, self._fetch = renew, fetch
        self._engine: ProcessesEngine | None = None
        self._leases = Worker(self._load)  # what it holds is not given to the engine yet
        self._fd: int | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the problem is loaded."""
        return self._engine is not None

    @property
    def held(self) -> list[Lease]:
        """All leases that are here."""
        return [*(self._engine.held() if self._engine else ()), *self._leases.held]

    @property
    def is_at_work(self) -> bool:
        """Whether a process has leases."""
        return self._engine is not None and bool(self._engine.held())

    def start(self, problem: bytes) -> None:
        """Load the problem, and start the processes."""
        arrived = cloudpickle.loads(problem).arrived()
        self._engine = ProcessesEngine(arrived, self.processes, renew=self._renew)

    def obey(self, order: Order) -> bool:
        """Do what the leader wants; whether it is to hear soon what is held now."""
        match order:
            case Parcel():
                self._begin(order)
            case Cancel():
                return self._cancel(order)
            case _:
                self._leases.obey(order)
        return False

    def leave(self) -> None:
        """Give the processes nothing more."""
        self._leases.leave()

    def feed(self) -> list[Missing]:
        """Give leases to processes that have room; which jobs are missing for them."""
        assert self._engine is not None
        while self._engine.capacity(True) and (lease := self._leases.next()):
            self._engine.submit(lease)
        return [answer for answer in self._leases.answers() if isinstance(answer, Missing)]

    def poll(self) -> list[Report]:
        """What processes have done."""
        assert self._engine is not None
        return self._engine.poll(_POLL)

    def wake_on(self, fd: int | None) -> None:
        """Let this end the wait for processes, and what did before not any more."""
        if self._engine and fd != self._fd:
            self._engine.wake_on(self._fd, fd)
            self._fd = fd

    def close(self) -> None:
        """End the processes."""
        if self._engine:
            self._engine.close(0)

    def _begin(self, parcel: Parcel) -> None:
        """Have a job; parts that others had are here already."""
        if self._engine is None or self._leases.has(parcel):
            return
        new = {}
        for name in self._leases.lacks(parcel):
            content = self._fetch(f"part:{name}", name)
            if content is None:
                return
            new[name] = content
        self._leases.obey(parcel._replace(new=new))
        self._leases.answers()  # what is not held any more is reported by the next heartbeat

    def _cancel(self, order: Cancel) -> bool:
        if order.job not in self._leases.jobs:
            return False
        self._leases.obey(order)
        self._leases.answers()
        if self._engine:
            self._engine.cancel(order.cut, order.job)
        return True

    def _load(self, job: Job) -> Evaluator:
        """Let the processes have a job; leases go to them, and none is evaluated here."""
        assert self._engine is not None
        self._engine.begin(job, self._leases.jobs)
        _log.info("%s", job)
        return _of_processes


def _of_processes(start: int, stop: int) -> NoReturn:
    """In place of an evaluator: this process never evaluates."""
    raise AssertionError(f"the lease of {start} to {stop - 1} is for the processes")
