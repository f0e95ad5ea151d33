"""Several schedulers at once: one ledger, and workers of every kind."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from mpiabc.errors import SchedulerError
from mpiabc.schedulers.base import Scheduler
from mpiabc.schedulers.together import Together


class Several:
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
        return f"Several({self._schedulers})"

    def leads(self) -> bool:
        """Whether this process leads in all of them."""
        return all(scheduler.leads() for scheduler in self._schedulers)

    def open(self, problem: Any) -> Together:
        """Open all; if one cannot be, close the others."""
        with ExitStack() as opened:
            engines = []
            for scheduler in self._schedulers:
                engine = scheduler.open(problem)
                opened.callback(engine.close, 1)
                engines.append(engine)
            opened.pop_all()
            return Together(engines)

    def serve(self, problem: Any) -> None:
        """Work for the process that leads, where this one does not."""
        for scheduler in self._schedulers:
            if not scheduler.leads():
                scheduler.serve(problem)
