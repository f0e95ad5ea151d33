"""Several schedulers at once: one ledger, and workers of every kind."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mpiabc.errors import SchedulerError
from mpiabc.schedulers.base import Scheduler, Shared, are_gone, hold, works_in_threads
from mpiabc.schedulers.together import Together


class Combined:
    """The workers of all of these: MPI ranks, and Redis workers that join from elsewhere."""

    def __init__(self, schedulers: Sequence[Scheduler]) -> None:
        self._schedulers = list(schedulers)
        if not self._schedulers:
            raise SchedulerError("scheduler=[]: give at least one")
        kinds = {scheduler.is_static for scheduler in self._schedulers}
        if len(kinds) > 1:
            raise SchedulerError(f"{self._schedulers} mix static and dynamic scheduling: choose one of them")
        self.is_static = kinds.pop()
        if any(getattr(scheduler, "team", None) not in (None, 1) for scheduler in self._schedulers):
            raise SchedulerError(f"{self._schedulers}: teams work without other workers, take MPI alone")

    def __repr__(self) -> str:
        return f"Combined({self._schedulers})"

    def leads(self) -> bool:
        """Whether this process leads in all of them."""
        return all(scheduler.leads() for scheduler in self._schedulers)

    def open(self, problem: Shared) -> Together:
        """Open all; if one cannot be, close the others."""
        with ExitStack() as opened:
            engines = []
            for scheduler in self._schedulers:
                engine = scheduler.open(problem)
                opened.callback(engine.close, 1)
                engines.append(engine)
            opened.pop_all()
            return Together(engines)

    def serve(self, problem: Shared) -> None:
        """Work for the process that leads, where this one does not."""
        for scheduler in self._schedulers:
            if not scheduler.leads():
                scheduler.serve(problem)

    def works_in_threads(self) -> bool:
        """Whether any of them does."""
        return any(works_in_threads(scheduler) for scheduler in self._schedulers)

    # Ranks that are held (see `MPI`), if there are any among them.

    def hold(self) -> bool:
        """Hold all others, or serve those that lead: whether this process leads."""
        return all(hold(scheduler) for scheduler in self._schedulers)

    def are_gone(self) -> bool:
        """Whether any have been released."""
        return any(are_gone(scheduler) for scheduler in self._schedulers)

    def lend(self, give_back: Callable[[], None]) -> None:
        """Tell each what closes the engine."""
        for scheduler in self._schedulers:
            getattr(scheduler, "lend", lambda give_back: None)(give_back)

    def release(self, status: int = 0) -> None:
        """Let them go."""
        for scheduler in self._schedulers:
            getattr(scheduler, "release", lambda status: None)(status)
