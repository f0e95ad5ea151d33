"""Evaluation by any `map`: rounds of slots, a call for each round."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

from mpiabc import machine
from mpiabc.errors import SchedulerError
from mpiabc.records import Lease
from mpiabc.schedulers.base import Lost, OneLeads, Shared, count
from mpiabc.schedulers.tasks import Answered, Done, Task, TasksEngine, work

_TASKS = 4  # for each worker in a round, so that quick ones can take more of them


class Map(OneLeads):
    """A function like the builtin `map`: a pool's, a cluster's, or the builtin itself.

    Scheduling is static, as in `mpi-static`: slots go out in rounds, and a round ends with its slowest.
    The walltime is looked at between rounds only, so leave time for a round before the job's end; a
    signal ends a round after a grace of two seconds, and what that round had done is done again.
    workers: how many calls run at once, if the map's pool does not tell: 1 for the builtin, else as many
    as this machine has cores.
    """

    is_static = True

    def __init__(self, map: Callable[..., Iterable[Answered]], *, workers: int | None = None) -> None:
        self.map = map
        self.workers = workers

    def __repr__(self) -> str:
        return f"Map({getattr(self.map, '__qualname__', repr(self.map))})"

    def works_in_threads(self) -> bool:
        """Whether it belongs to a pool of threads."""
        return isinstance(getattr(self.map, "__self__", None), ThreadPool | ThreadPoolExecutor)

    def open(self, problem: Shared) -> TasksEngine:
        """Take the map into service. Raises SchedulerError if it cannot be called."""
        if not callable(self.map):
            raise SchedulerError(f"Map({self.map!r}): give a function like the builtin map")
        n = _size(self.map) if self.workers is None else count(self.workers, f"Map(workers={self.workers!r})")
        return TasksEngine(problem, _Rounds(self.map, n))


def _size(function: object) -> int:
    """How many calls a map makes at once: what its pool says, 1 for the builtin, else the cores."""
    said = getattr(getattr(function, "__self__", None), "_processes", None)
    return 1 if function is map else said if isinstance(said, int) else machine.cores()


class _Rounds:
    """A map as a place for tasks: it gets all that have come together when the engine is polled."""

    target = 0.2

    def __init__(self, function: Callable[..., Iterable[Answered]], workers: int) -> None:
        self._map = function
        self._n = 1 if workers == 1 else _TASKS * workers
        self._tasks: list[tuple[Task, Done]] = []

    def workers(self) -> int:
        """Tasks in a round."""
        return self._n

    def ahead(self, seconds: float) -> int:
        """None: a round is a round."""
        return 0

    def submit(self, task: Task, done: Done) -> Callable[[], bool]:
        """Keep the task for the next round."""
        self._tasks.append((task, done))
        return lambda: True

    def attend(self, waiting: int) -> None:
        """Make a round. Raises SchedulerError if it fails, or brings not as many answers as tasks."""
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        try:
            answers: list[Answered] = list(self._map(work, [task for task, _ in tasks]))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise SchedulerError(
                f"the map failed ({reason}); what was finished is kept: run the same command again"
            ) from error
        if len(answers) != len(tasks):
            raise SchedulerError(f"the map gave {len(answers)} results for {len(tasks)} items")
        for (_, done), answer in zip(tasks, answers, strict=True):
            done(answer)

    def vanished(self) -> set[str]:
        """Nobody that could be missed alone."""
        return set()

    def last_words(self) -> list[Lost]:
        """Nothing is heard of them."""
        return []

    def loss(self, lease: Lease, error: BaseException) -> Lost:
        """Never asked: a round that fails ends the run."""
        raise SchedulerError(str(error))

    def close(self) -> None:
        """The pool behind the map is the user's."""
