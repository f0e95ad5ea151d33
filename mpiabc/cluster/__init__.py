"""A map over the jobs of a batch system: SLURM, SGE or PBS, and a folder that all nodes see.

    from mpiabc import cluster
    results = cluster.map(simulate, parameters, system="sge", memory="2G", walltime="1h")

Each call is one array job. Its tasks read what they are to do from the folder and write there, each into a
file of its own that is complete when it appears; nothing else travels, no port is opened. The leader looks
for those files, and asks the batch system about the tasks that have written none: one that was lost is
submitted again, and in the end named together with what it printed; one that was cancelled, or has reached
its limit, is named at once. If the leader dies, `collect`, or the same call again, has the results.
"""

import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

from mpiabc import stopping
from mpiabc.arguments import whole, whole_of
from mpiabc.batch import arrays
from mpiabc.batch.arrays import found, listed, pbs_available, sge_available, slurm_available
from mpiabc.cluster.call import Call, unfinished
from mpiabc.cluster.sent import Work
from mpiabc.cluster.task import Failed
from mpiabc.cluster.waiting import Wait
from mpiabc.errors import ProblemError, SchedulerError

__all__ = [
    "FOLDER",
    "Call",
    "Cluster",
    "collect",
    "listed",
    "map",
    "pbs_available",
    "sge_available",
    "slurm_available",
]

_log = logging.getLogger(__name__)

_MOST_TASKS = 1000  # of an array: SLURM's usual limit
FOLDER = "mpiabc-jobs"


def map(f: Callable[[Any], Any], items: Iterable[Any], **options: Any) -> list[Any]:
    """`[f(item) for item in items]`, computed by jobs; the options are those of `Cluster`.

    Raises the exception of an item as soon as it is known, and SchedulerError if jobs cannot be had or come
    to nothing. What is finished then stays: the same call again computes the rest.
    """
    with Cluster(**options) as cluster:
        return cluster.map(f, items)


def collect(folder: str | os.PathLike[str] = FOLDER, *, return_exceptions: bool = False) -> list[Any]:
    """The results of a `map` whose process has ended, in the order of its items, from the map's folder.

    Waits for jobs that are still there, submits none, and leaves the folder as it is. Raises what an item
    has raised, and SchedulerError for items whose jobs are gone without a result; return_exceptions: gives
    both in place of results.
    """
    call = _call_of(Path(folder))
    if call.n > len(call.done()):
        call.states()  # raises at once where the batch system does not answer
    return _values(call, Wait(call, returns=return_exceptions, submits=False)(), return_exceptions)


@dataclass(frozen=True)
class Cluster:
    """A batch system, and what each of its jobs gets; for as many calls of `map` as wanted.

    system: "slurm", "sge", "pbs", or None for the one that is here. memory: of one task, such as "2G".
    walltime: of one task, seconds or text such as "2h". queue: queue or partition. chunk: items in a task,
    by default as few as make at most a thousand tasks. folder: on a disk that all nodes see. options: further
    words for sbatch or qsub. python: the interpreter on the nodes. return_exceptions: give them in place of
    results. At its end a `with` cancels what is left, and removes the folders of calls that went well.
    """

    system: str | None = None
    memory: str | None = None
    walltime: float | str = "1h"
    queue: str | None = None
    chunk: int | None = None
    folder: str | os.PathLike[str] = FOLDER
    name: str = "map"
    options: Sequence[str] = ()
    python: str = sys.executable
    return_exceptions: bool = False
    scheduler: InitVar[str | None] = None  # its former name
    _open: list[Call] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self, scheduler: str | None) -> None:
        if scheduler is not None:
            message = f"scheduler={scheduler!r} is called system= now; the old name goes with mpiabc 0.3"
            warnings.warn(message, DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "system", scheduler)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        for call in self._open:
            call.cancel()

    def map(self, f: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """The results in the order of the items; see `mpiabc.cluster.map`."""
        items = list(items)
        if not items:
            return []
        call = self._call(f, items)
        self._open.append(call)
        try:
            hopeless = Wait(call, returns=self.return_exceptions, submits=True)()
            values = _values(call, hopeless, self.return_exceptions)
        except BaseException:
            call.cancel()
            call.leave()
            raise
        finally:
            self._open.remove(call)
        if hopeless:
            call.leave()  # with what the tasks have printed
        else:
            call.remove()
        return values

    def _call(self, f: Callable[[Any], Any], items: list[Any]) -> Call:
        """The call at work: one that a process before has left, or a new one."""
        seconds = self._checked()
        system = self.system or found()
        words = [*arrays.of(system).limits(self.memory, seconds, self.queue), *self.options]
        work = Work.of(f, items, whole(self.chunk) or math.ceil(len(items) / _MOST_TASKS))
        base = Path(self.folder).absolute()
        if call := unfinished(base, system, work.identity):
            try:
                n = call.go_on(words, self.python, sys.path)
            except BaseException:
                call.leave()
                raise
            _log.warning(
                "going on with %s, which the same call has left: %d of %d tasks are submitted anew, the "
                "others have their results there or are at work; to compute all anew, remove the folder",
                call.folder,
                n,
                call.n,
            )
            return call
        settings = {"system": system, "name": self.name, "words": words, "python": self.python}
        call = Call.new(base, work, sys.path, **settings)
        try:
            call.submit(list(range(1, call.n + 1)))
        except BaseException:
            call.remove()
            raise
        return call

    def _checked(self) -> int:
        """The seconds of a task, after a look at all that is given; before anything is written."""
        if self.system is not None and self.system not in arrays.with_arrays():
            raise ProblemError(f"system={self.system!r}: give {', '.join(arrays.with_arrays())}")
        if self.chunk is not None:
            whole_of("chunk", self.chunk, 1)
        if not re.fullmatch(r"[A-Za-z][\w.-]*", self.name):
            raise ProblemError(f"name={self.name!r}: give a letter, then letters, digits, and any of . _ -")
        if isinstance(self.options, str):
            raise ProblemError(f"options={self.options!r}: give a list of words")
        return math.ceil(stopping.seconds(self.walltime) or 3600.0)


def _values(call: Call, hopeless: dict[int, SchedulerError], return_exceptions: bool) -> list[Any]:
    """What the items have come to, in their order. Raises what the first has that raised, unless wanted."""
    values: list[Any] = []
    for task in range(1, call.n + 1):
        if task in hopeless:
            values += [hopeless[task]] * len(call.items_of(task))
            continue
        for outcome in call.outcomes(task):
            error = outcome.exception() if isinstance(outcome, Failed) else None
            if error is not None and not return_exceptions:
                raise error
            values.append(outcome if error is None else error)
    return values


def _call_of(folder: Path) -> Call:
    """The call of a map's folder, or of the folder around that of a single one. Raises SchedulerError."""
    if (folder / "call.json").exists():
        return Call.read(folder)
    calls = sorted(path.parent for path in folder.glob("*/call.json"))
    if len(calls) == 1:
        return Call.read(calls[0])
    if calls:
        raise SchedulerError(
            f"{folder} has several maps: give one of {', '.join(str(call) for call in calls)}"
        )
    raise SchedulerError(f"{folder} has no map: give the folder that `mpiabc jobs` shows")
