"""A call of `map` as its folder has it: what there is to do, in which jobs, and what has come of it.

`call.json` is all that another process needs to collect the results, or to go on where this one died.
"""

import fcntl
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

import cloudpickle

from mpiabc.batch import arrays
from mpiabc.batch.ending import Ending, Listed
from mpiabc.cluster.sent import Work
from mpiabc.cluster.task import Failed, write
from mpiabc.errors import SchedulerError

_LAST_LINES = 10  # of what a task has printed, to tell


@dataclass(frozen=True)
class Trace:
    """What a task has written down of where it is."""

    host: str
    began: float  # seconds since the epoch, by the clock of its host
    item: int | None  # the last that it has begun


@dataclass
class Call:
    """A call of `map`: its folder, and the jobs that work in it."""

    folder: Path
    system: str
    name: str
    items: int
    chunk: int
    identity: str
    words: list[str]  # of the submission: memory, time, queue, and the user's own
    python: str
    jobs: dict[str, list[int]] = field(default_factory=dict)  # what each job's tasks 1, 2, ... work on
    _leader: IO[str] | None = None

    @classmethod
    def new(cls, base: Path, work: Work, path: list[str], **settings: Any) -> "Call":
        """Write down what there is to do, in a folder of its own."""
        base.mkdir(parents=True, exist_ok=True)
        prefix = f"{settings['name']}-{time.strftime('%m%d-%H%M%S')}-"
        folder = Path(mkdtemp(prefix=prefix, dir=base))
        call = cls(folder, items=work.items, chunk=work.chunk, identity=work.identity, **settings)
        write(folder / "function", work.function)
        for task, part in enumerate(work.parts, 1):
            write(folder / f"{task}.in", part)
        call._write_program(path)
        call._note()
        call.take()
        return call

    @classmethod
    def read(cls, folder: Path) -> "Call":
        """The call of a folder, also of another process. Raises SchedulerError if it is none."""
        try:
            kept = json.loads((folder / "call.json").read_text())
            kept["system"] = kept.pop("scheduler", None) or kept["system"]  # of older folders
            kept["jobs"] = {str(job): list(tasks) for job, tasks in kept["jobs"].items()}
            call = cls(folder=folder, **kept)
            arrays.of(call.system)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SchedulerError(
                f"{folder} is no folder of mpiabc.cluster, or its call.json is damaged: "
                f"{type(error).__name__}: {error}"
            ) from None
        return call

    @property
    def n(self) -> int:
        """How many tasks there are."""
        return -(-self.items // self.chunk)

    # Its leader.

    def take(self) -> bool:
        """Become its leader, if no other process is that. Nobody is where files cannot be locked."""
        try:
            leader = open(self.folder / "leader", "a")  # noqa: SIM115 (open as long as this process leads)
        except FileNotFoundError:
            return False  # its leader has just removed the folder
        with suppress(OSError):
            try:
                fcntl.flock(leader, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                leader.close()
                return False
        self._leader = leader
        return True

    def leave(self) -> None:
        """Let another process become its leader."""
        if self._leader is not None:
            self._leader.close()
            self._leader = None

    def remove(self) -> None:
        """Remove the folder, and the one around it if it is empty."""
        self.leave()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # other calls are in it
            self.folder.parent.rmdir()

    # Its jobs.

    def submit(self, tasks: list[int]) -> None:
        """Submit a job for these tasks."""
        system = arrays.of(self.system)
        round = len(self.jobs) + 1
        (self.folder / f"round-{round}.json").write_text(json.dumps(tasks))
        script = self.folder / f"round-{round}.sh"
        script.write_text(
            f"#!/bin/bash\n{system.prelude}cd {shlex.quote(os.getcwd())} || exit 1\n"
            f'task="{system.index}"\n'
            f'exec >>{shlex.quote(str(self.folder))}/"{round}-$task.log" 2>&1\n'
            f'exec {shlex.quote(self.python)} {shlex.quote(str(self.folder / "task.py"))} "{round}-$task"\n'
        )
        words = system.submission(self.name, len(tasks), str(self.folder / "batch.log"))
        job = arrays.submit(self.system, [*words, *self.words], str(script))
        self.jobs[job] = tasks
        self._note()

    def go_on(self, words: list[str], python: str, places: list[str]) -> int:
        """Submit again what has failed, and what is neither there nor in work; how many tasks that is."""
        self.words, self.python = words, python
        self._write_program(places)
        at_work = {task for task, state in self.states().items() if state not in ("ends", "deleted")}
        failed = {self.task_of(item) for item in self.failed()} - at_work
        for task in failed:
            for path in self.outputs(task):
                path.unlink(missing_ok=True)
        for broken in self.folder.glob("*.broken"):
            broken.unlink()
        missing = sorted(set(range(1, self.n + 1)) - self.done() - at_work)
        if missing:
            self.submit(missing)
        return len(missing)

    def states(self, listed: list[Listed] | None = None) -> dict[int, str]:
        """What the batch system says of the tasks it knows: "waits", "runs", "deleted", or "error".

        listed: what `listed` has given, for several calls; it is asked if that is not given.
        """
        rows = arrays.listed(self.system) if listed is None else listed
        return {
            tasks[index - 1]: state
            for mine, tasks in self.jobs.items()  # the newest says what a task does
            for job, index, state in rows
            if job == mine and index <= len(tasks)
        }

    def endings(self, tasks: Iterable[int]) -> dict[int, Ending]:
        """Why these tasks have ended, of those of which that is known. Raises CommandError."""
        found = {}
        newest = {task: job for job, its in self.jobs.items() for task in its}
        for job in {newest[task] for task in tasks if task in newest}:
            its = self.jobs[job]
            for index, ending in arrays.of(self.system).endings(job, len(its)).items():
                if index <= len(its) and newest[its[index - 1]] == job:
                    found[its[index - 1]] = ending
        return found

    def cancel(self) -> None:
        """Take what is left of it out of the queue."""
        arrays.cancel(self.system, {job: len(tasks) for job, tasks in self.jobs.items()})

    # What has come of it.

    def done(self) -> set[int]:
        """The tasks that have their results. Raises SchedulerError if the folder has gone."""
        return {int(stem) for stem in self._stems(".out")}

    def failed(self) -> set[int]:
        """The items that are known to have failed."""
        return {int(stem) for stem in self._stems(".failed")}

    def failure(self, item: int) -> Failed:
        """What an item has raised."""
        return Failed.from_json((self.folder / f"{item}.failed").read_text())

    def result(self, task: int) -> Path:
        """The file of what a task's items have come to, which is there when it is done."""
        return self.folder / f"{task}.out"

    def outputs(self, task: int) -> list[Path]:
        """The files that a task may have written of what its items have come to."""
        return [self.result(task), *(self.folder / f"{item}.failed" for item in self.items_of(task))]

    def outcomes(self, task: int) -> list[Any]:
        """The results of a task's items; a Failed in place of one."""
        content = cloudpickle.loads(self.result(task).read_bytes())
        return [
            self._result(result, index) if failed is None else failed
            for index, (result, failed) in zip(self.items_of(task), content, strict=True)
        ]

    def trace(self, task: int) -> Trace | None:
        """Where a task is, or was when it ended; None if it has never begun."""
        for log in self.logs(task)[-1:]:
            path = log.with_suffix(".at")
            with suppress(OSError, ValueError):
                head, *begun = path.read_text().splitlines()
                kept = json.loads(head)
                return Trace(kept["host"], kept["began"], int(begun[-1]) if begun else None)
        return None

    def has_begun(self, task: int) -> bool:
        """Whether a node has seen a task, as it was submitted last."""
        return any(log.exists() for log in self.logs(task)[-1:])

    def logs(self, task: int) -> list[Path]:
        """The files of what a task prints, one for each time that it was submitted."""
        return [
            self.folder / f"{round}-{tasks.index(task) + 1}.log"
            for round, tasks in enumerate(self.jobs.values(), 1)
            if task in tasks
        ]

    # Names.

    def items_of(self, task: int) -> range:
        """The places in the user's list of what a task computes."""
        return range((task - 1) * self.chunk, min(task * self.chunk, self.items))

    def task_of(self, item: int) -> int:
        """The task that computes the item of that place."""
        return item // self.chunk + 1

    def job_of(self, task: int) -> str:
        """What the batch system calls a task that was submitted, as its commands take it."""
        for job, tasks in reversed(self.jobs.items()):
            if task in tasks:
                return arrays.of(self.system).task.format(job, tasks.index(task) + 1)
        return "-"

    def described(self, task: int) -> str:
        """A task in words: "task 2 of 5 (items[4] to items[7], job 17_2 on node3)"."""
        items = self.items_of(task)
        names = [f"items[{index}]" for index in sorted({items[0], items[-1]})]
        trace = self.trace(task)
        where = f" on {trace.host}" if trace else ""
        return f"task {task} of {self.n} ({' to '.join(names)}, job {self.job_of(task)}{where})"

    def last_words(self, task: int) -> str:
        """What a task without a result was at, and the last that it has printed."""
        trace = self.trace(task)
        at = "It has never begun" if trace is None else "It had begun no item"
        if trace is not None and trace.item is not None:
            at = f"It was at items[{trace.item}]"
        logs = [log for log in [*self.logs(task), self.folder / "batch.log"] if log.exists()]
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        said = "\n".join(lines[-_LAST_LINES:] or ["nothing"])
        return f"{at}; the last that it printed:\n{said}\nall is in {self.folder}"

    def _write_program(self, path: list[str]) -> None:
        (self.folder / "task.py").write_text(
            f"import sys\nsys.path[:] = {path!r}\nfrom mpiabc.cluster.task import work\n"
            f"work({str(self.folder)!r}, sys.argv[1])\n"
        )

    def _result(self, content: bytes, index: int) -> Any:
        try:
            return cloudpickle.loads(content)
        except Exception as error:
            raise SchedulerError(
                f"the result of items[{index}] cannot be read here: {type(error).__name__}: {error}; it is "
                f"in {self.folder}"
            ) from error

    def _stems(self, suffix: str) -> Iterator[str]:
        """The names of the folder's files that end so, without that end."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            raise SchedulerError(
                f"{self.folder} has gone: its map has collected the results, or somebody has removed it"
            ) from None
        return (name.removesuffix(suffix) for name in names if name.endswith(suffix))

    def _note(self) -> None:
        """Write down what another process has to know."""
        kept = {name: value for name, value in vars(self).items() if name not in ("folder", "_leader")}
        write(self.folder / "call.json", json.dumps(kept).encode())


def unfinished(base: Path, system: str, identity: str) -> Call | None:
    """The same call, of a process that has ended without taking its results; now ours."""
    for path in sorted(base.glob("*/call.json"), reverse=True):
        with suppress(SchedulerError):
            call = Call.read(path.parent)
            if (call.system, call.identity) == (system, identity) and call.take():
                call.jobs = Call.read(path.parent).jobs  # its last leader may just have submitted one
                return call
    return None
