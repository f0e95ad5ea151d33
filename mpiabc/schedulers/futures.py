"""Evaluation in any executor of the `concurrent.futures` kind."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

from mpiabc import machine
from mpiabc.errors import SchedulerError
from mpiabc.records import Lease
from mpiabc.schedulers.base import Lost, OneLeads, Shared, count
from mpiabc.schedulers.tasks import Answered, Done, Task, TasksEngine, work
from mpiabc.signals import heard

_LATER = 0.5  # seconds after a worker at most, in which a signal to all processes comes here too


class Executor(Protocol):
    """What is needed of an executor."""

    def submit(self, function: Callable[[Task], Answered], task: Task, /) -> "Future[Answered]":
        """Have this called, and give what it comes to."""
        ...


class Futures(OneLeads):
    """The workers of an executor: ProcessPoolExecutor, ThreadPoolExecutor, loky's, mpi4py's.

    The executor stays open. workers: how many tasks it runs at once, if it does not tell.
    """

    def __init__(self, executor: Executor, *, workers: int | None = None) -> None:
        self.executor = executor
        self.workers = workers

    def __repr__(self) -> str:
        return f"Futures({type(self.executor).__name__})"

    def works_in_threads(self) -> bool:
        """Whether the executor is a pool of threads."""
        return isinstance(self.executor, ThreadPoolExecutor)

    def open(self, problem: Shared) -> TasksEngine:
        """Take the executor into service. Raises SchedulerError if it is none."""
        if not callable(getattr(self.executor, "submit", None)):
            raise SchedulerError(f"Futures({self.executor!r}): give an executor, which has submit(f, ...)")
        n = (
            size(self.executor)
            if self.workers is None
            else count(self.workers, f"Futures(workers={self.workers!r})")
        )
        return TasksEngine(problem, _Executor(self.executor, n))


def size(executor: object) -> int:
    """How many tasks an executor runs at once: what it says, else the cores of this machine."""
    found = (getattr(executor, name, None) for name in ("num_workers", "_max_workers"))
    return next((n for n in found if isinstance(n, int) and n > 0), machine.cores())


class _Executor:
    """An executor as a place for tasks."""

    target = 0.1

    def __init__(self, executor: Executor, workers: int) -> None:
        self._executor = executor
        self._workers = workers

    def workers(self) -> int:
        """As many as at the start."""
        return self._workers

    def ahead(self, seconds: float) -> int:
        """A few."""
        return max(1, self._workers // 4)

    def submit(self, task: Task, done: Done) -> Callable[[], bool]:
        """Submit the task; an executor that takes none has lost it."""
        try:
            future = self._executor.submit(work, task)
        except RuntimeError as error:  # BrokenExecutor is one
            done(error)
            return lambda: True
        future.add_done_callback(partial(_pass_on, done))
        return future.cancel

    def attend(self, waiting: int) -> None:
        """Executors tell by their futures that they are gone."""

    def vanished(self) -> set[str]:
        """Nobody that could be missed alone."""
        return set()

    def last_words(self) -> list[Lost]:
        """Nothing is heard of them."""
        return []

    def loss(self, lease: Lease, error: BaseException) -> Lost:
        """A task raises nothing, so an error is the executor's.

        It ends the run, but not where a signal does so: what comes to all processes breaks executors.
        """
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        end = time.monotonic() + _LATER
        while heard() is None and time.monotonic() < end:
            time.sleep(0.01)
        if heard() is not None:
            return Lost(lease, "a worker", text, is_returned=True)
        raise SchedulerError(
            f"the {type(self._executor).__name__} takes no more work ({text}); what was finished is kept: "
            "run the same command again"
        ) from error

    def close(self) -> None:
        """The executor is the user's."""


def _pass_on(done: Done, future: Future[Answered]) -> None:
    if not future.cancelled():
        done(future.exception() or future.result())
