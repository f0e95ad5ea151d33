"""A map over the jobs of a batch system: SLURM, SGE or PBS, and a folder that all nodes see.

    from mpiabc import cluster
    results = cluster.map(simulate, parameters, scheduler="sge", memory="2G", walltime="1h")

Each call is one array job. Its tasks read what they are to do from the folder and write there, each into a
file of its own that is complete when it appears; nothing else travels, no port is opened. The master looks
for those files, and asks the batch system about the tasks that have written none: one that has gone without
a result is submitted again, and in the end named together with what it printed.
"""

import getpass
import json
import math
import os
import platform
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from xml.etree import ElementTree

import cloudpickle

from mpiabc import batch, guard, stopping
from mpiabc.arguments import whole
from mpiabc.batch import CommandError
from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.signals import DOUBT
from mpiabc.voice import put

_MOST_TASKS = 1000  # of an array: SLURM's usual limit
_LOOK = 0.5  # seconds between two looks at the folder
_ASK = 5.0  # seconds between two questions to the batch system
_SILENCE = 1800.0  # seconds without an answer of the batch system after which it is given up
_LAG = 15.0  # seconds after a task has gone, in which its file may still come into sight on another node
_MOST_STARTS = 3  # of a task that goes without a result
FOLDER = "mpiabc-jobs"
_pause = time.sleep


def map(f: Callable[[Any], Any], items: Iterable[Any], **options: Any) -> list[Any]:
    """`[f(item) for item in items]`, computed by jobs; the options are those of `Cluster`.

    Raises the exception of the first item that has one, and SchedulerError if jobs cannot be had.
    """
    with Cluster(**options) as cluster:
        return cluster.map(f, items)


@dataclass(frozen=True)
class Cluster:
    """A batch system, and what each of its jobs gets; for as many calls of `map` as wanted.

    scheduler: "slurm", "sge", "pbs", or None for the one that is here. memory: of one task, such as "2G".
    walltime: of one task, seconds or text such as "2h". queue: queue or partition. chunk: items in a task,
    by default as few as make at most a thousand tasks. folder: on a disk that all nodes see. options: further
    words for sbatch or qsub. python: the interpreter on the nodes. return_exceptions: give them in place of
    results. At its end a `with` cancels what is left, and removes the folders of calls that went well.
    """

    scheduler: str | None = None
    memory: str | None = None
    walltime: float | str = "1h"
    queue: str | None = None
    chunk: int | None = None
    folder: str | os.PathLike[str] = FOLDER
    name: str = "map"
    options: Sequence[str] = ()
    python: str = sys.executable
    return_exceptions: bool = False
    _open: "list[Call]" = field(default_factory=list, init=False, repr=False, compare=False)

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
            outcomes = call.wait()
        except BaseException:
            call.cancel()
            raise
        finally:
            self._open.remove(call)
        first = next((outcome for outcome in outcomes if isinstance(outcome, _Error)), None)
        if first is not None and not self.return_exceptions:
            raise first.exception()
        call.remove()
        return [outcome.exception() if isinstance(outcome, _Error) else outcome for outcome in outcomes]

    def _call(self, f: Callable[[Any], Any], items: list[Any]) -> "Call":
        """Write down what there is to do, and submit it."""
        seconds = self._checked()
        scheduler = self.scheduler or _found()
        words = [*_SYSTEMS[scheduler].limits(self.memory, seconds, self.queue), *self.options]
        chunk = whole(self.chunk) or math.ceil(len(items) / _MOST_TASKS)
        chunks = [items[i : i + chunk] for i in range(0, len(items), chunk)]
        function, parts = _dumped(f, "the function"), [_dumped(part, "an item") for part in chunks]
        base = Path(self.folder).absolute()
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=f"{self.name}-{time.strftime('%m%d-%H%M%S')}-", dir=base))
        _write(folder / "function", function)
        for number, part in enumerate(parts, 1):
            _write(folder / f"{number}.in", part)
        (folder / "task.py").write_text(
            f"import sys\nsys.path[:] = {sys.path!r}\nfrom mpiabc.cluster import work\n"
            f"work({str(folder)!r}, sys.argv[1])\n"
        )
        call = Call(folder, scheduler, self.name, len(chunks), words, self.python)
        try:
            call.submit(list(range(1, len(chunks) + 1)))
        except BaseException:
            call.remove()
            raise
        return call

    def _checked(self) -> int:
        """The seconds of a task, after a look at all that is given; before anything is written."""
        if self.scheduler is not None and self.scheduler not in _SYSTEMS:
            raise ProblemError(f"scheduler={self.scheduler!r}: give {', '.join(_SYSTEMS)}")
        if self.chunk is not None and (whole(self.chunk) or 0) < 1:
            raise ProblemError(f"chunk={self.chunk!r}: give a whole number of at least 1")
        if not re.fullmatch(r"[A-Za-z][\w.-]*", self.name):
            raise ProblemError(f"name={self.name!r}: give a letter, then letters, digits, and any of . _ -")
        if isinstance(self.options, str):
            raise ProblemError(f"options={self.options!r}: give a list of words")
        return math.ceil(stopping.seconds(self.walltime) or 3600.0)


@dataclass(frozen=True)
class _Error:
    """An item's exception as it travels: pickled, where that goes, and its traceback."""

    pickled: bytes | None
    text: str
    address: str

    def exception(self) -> BaseException:
        """The exception, with the remote traceback as its cause."""
        try:
            error = cloudpickle.loads(self.pickled or b"")
        except Exception:
            error = SchedulerError(f"{self.text.splitlines()[-1]} (an exception that cannot travel)")
        error.__cause__ = _RemoteError(self.text)
        error.add_note(self.address)
        return error


class _RemoteError(Exception):
    """A traceback from a node."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Call:
    """One call of `map` as its folder tells it: its tasks 1 ... n, and the jobs submitted for them."""

    def __init__(
        self, folder: Path, scheduler: str, name: str, n: int, words: list[str], python: str
    ) -> None:
        self.folder, self.scheduler, self.name, self.n = folder, scheduler, name, n
        self._words, self._python = words, python
        self._system = _SYSTEMS[scheduler]
        self.jobs: dict[str, list[int]] = {}  # what each submitted job's tasks 1, 2, ... work on

    @classmethod
    def read(cls, folder: Path) -> "Call":
        """The call of a folder, also of another process. Raises SchedulerError if it is none."""
        try:
            told = json.loads((folder / "call.json").read_text())
            call = cls(folder, told["scheduler"], told["name"], int(told["n"]), told["words"], told["python"])
            call.jobs = {str(job): list(tasks) for job, tasks in told["jobs"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SchedulerError(
                f"{folder} is no folder of mpiabc.cluster, or its call.json is damaged: "
                f"{type(error).__name__}: {error}"
            ) from None
        return call

    def submit(self, tasks: list[int]) -> None:
        """Submit a job for these tasks."""
        round = len(self.jobs) + 1
        (self.folder / f"round-{round}.json").write_text(json.dumps(tasks))
        script = self.folder / f"round-{round}.sh"
        script.write_text(
            f"#!/bin/bash\ncd {shlex.quote(os.getcwd())} || exit 1\n"
            f'task="{self._system.task}"\n'
            f'exec >>{shlex.quote(str(self.folder))}/"{round}-$task.log" 2>&1\n'
            f'exec {shlex.quote(self._python)} {shlex.quote(str(self.folder / "task.py"))} "{round}-$task"\n'
        )
        words = self._system.submission(self.name, len(tasks), str(self.folder / "batch.log"))
        # Not tried again: the first attempt may have succeeded although it seemed to fail.
        said = batch.command(*words, *self._words, str(script), pauses=(), without=("SLURM_", "SBATCH_"))
        job = re.search(r"\d+", said)
        if job is None:
            raise SchedulerError(f"`{words[0]}` names no job: it says {said.strip()!r}")
        self.jobs[job[0]] = tasks
        told = {name: getattr(self, name) for name in ("scheduler", "name", "n", "jobs")}
        told |= {"words": self._words, "python": self._python}
        _write(self.folder / "call.json", json.dumps(told).encode())

    def done(self) -> set[int]:
        """The tasks that have their results."""
        return {int(path.stem) for path in self.folder.glob("*.out")}

    def states(self, listed: list[tuple[str, int, str]] | None = None) -> dict[int, str]:
        """What the batch system says of the tasks it knows: "waits", "runs", or "error".

        listed: what `listed` has given, for several calls; it is asked if that is not given.
        """
        return {
            tasks[index - 1]: state
            for job, index, state in (self._system.states() if listed is None else listed)
            for tasks in [self.jobs.get(job, [])]
            if index <= len(tasks)
        }

    def wait(self) -> list[Any]:
        """All outcomes, in order. Raises SchedulerError for tasks that come to nothing."""
        missing_since: dict[int, float] = {}
        starts = dict.fromkeys(range(1, self.n + 1), 1)
        asked = answered = time.monotonic()
        while len(done := self.done()) < self.n:
            _pause(_LOOK)
            if (now := time.monotonic()) - asked < _ASK:
                continue
            asked = now
            try:
                states = self.states()
            except CommandError:  # its server is busy, or starts anew: results may come in all the same
                if now - answered > _SILENCE:
                    raise
                continue
            answered = now
            self._refuse_errors(states)
            if broken := next(self.folder.glob("*.broken"), None):
                raise SchedulerError(f"task {broken.stem} cannot begin:\n{broken.read_text()}")
            gone = set(starts) - done - set(states)
            missing_since = {task: missing_since.get(task, now) for task in gone}
            lost = sorted(
                t for t, since in missing_since.items() if now - since > _LAG and t not in self.done()
            )
            for task in lost:
                starts[task] += 1
                del missing_since[task]
            if hopeless := [task for task in lost if starts[task] > _MOST_STARTS]:
                raise SchedulerError(self._told(hopeless[0]))
            if lost:
                self.submit(lost)
        return [outcome for task in range(1, self.n + 1) for outcome in self._outcomes(task)]

    def cancel(self) -> None:
        """Take what is left of it out of the queue."""
        for job in self.jobs:
            try:
                batch.command(self._system.cancel, job)
            except CommandError:
                continue  # it has ended

    def remove(self) -> None:
        """Remove the folder, and the one around it if it is empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.parent.rmdir()
        except OSError:
            return  # other calls are in it

    def failures(self) -> list[str]:
        """The tracebacks of items that have raised, by item."""
        paths = self.folder.glob("*.failed")
        return [path.read_text() for path in sorted(paths, key=lambda path: int(path.stem))]

    def _outcomes(self, task: int) -> list[Any]:
        content = cloudpickle.loads((self.folder / f"{task}.out").read_bytes())
        return [cloudpickle.loads(result) if error is None else error for result, error in content]

    def _refuse_errors(self, states: dict[int, str]) -> None:
        """Raise for a task that the batch system holds in an error state: it would wait for ever."""
        for task, state in states.items():
            if state == "error":
                raise SchedulerError(f"the batch system cannot run it: {self._told(task)}")

    def _told(self, task: int) -> str:
        """What is known of a task that has no result."""
        logs = [
            self.folder / f"{round}-{tasks.index(task) + 1}.log"
            for round, tasks in enumerate(self.jobs.values(), 1)
            if task in tasks
        ]
        said = [
            line
            for log in [*logs, self.folder / "batch.log"]
            if log.exists()
            for line in log.read_text(errors="replace").splitlines()
        ][-10:]
        return (
            f"task {task} of {self.n} has ended without a result (job {', '.join(self.jobs)}, "
            f"{' '.join(self._words)}); the last that it printed:\n"
            + "\n".join(said or ["nothing"])
            + f"\nall is in {self.folder}"
        )


# A batch system: its commands and words.


@dataclass(frozen=True)
class _System:
    """How one batch system takes, lists and cancels array jobs."""

    submission: Callable[[str, int, str], list[str]]  # of a name, a number of tasks, a file for output
    limits: Callable[[str | None, int, str | None], list[str]]  # of memory, seconds, queue
    states: Callable[[], list[tuple[str, int, str]]]  # (job, index, state) of the user's tasks
    task: str  # the index of a task, in the shell
    cancel: str


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _slurm_submission(name: str, n: int, log: str) -> list[str]:
    return [
        "sbatch",
        "--parsable",
        f"--job-name={name}",
        f"--array=1-{n}",
        "--ntasks=1",
        f"--output={log}",
        "--open-mode=append",
        "--export=ALL",
    ]


def _slurm_limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    words = {"mem": memory, "partition": queue, "time": _clock(seconds)}
    return [f"--{name}={value}" for name, value in words.items() if value]


def _slurm_states() -> list[tuple[str, int, str]]:
    told = batch.command(
        "squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%F %K %T"
    )
    rows = [line.split() for line in told.splitlines()]
    return [
        (job, int(index), "waits" if state in ("PENDING", "REQUEUED", "CONFIGURING") else "runs")
        for job, index, state in rows
        if index.isdigit()
    ]


def _sge_submission(name: str, n: int, log: str) -> list[str]:
    return [
        "qsub",
        "-terse",
        "-N",
        name,
        "-t",
        f"1-{n}",
        "-cwd",
        "-V",
        "-S",
        "/bin/bash",
        "-j",
        "y",
        "-o",
        log,
    ]


def _sge_limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    words = ["-l", f"h_rt={seconds}" + (f",h_vmem={memory}" if memory else "")]
    return [*words, "-q", queue] if queue else words


def _sge_states() -> list[tuple[str, int, str]]:
    told = batch.command("qstat", "-u", getpass.getuser(), "-g", "d", "-xml")
    try:
        rows = list(ElementTree.fromstring(told).iter("job_list"))
    except ElementTree.ParseError as error:
        raise CommandError(f"`qstat -xml` prints no XML ({error}): {told[:200]!r}") from None
    return [
        (
            row.findtext("JB_job_number", ""),
            int(row.findtext("tasks") or 1),
            _sge_state(row.findtext("state", "")),
        )
        for row in rows
    ]


def _sge_state(letters: str) -> str:
    return "error" if "E" in letters else "waits" if "q" in letters or "h" in letters else "runs"


def _pbs_submission(name: str, n: int, log: str) -> list[str]:
    array = [] if n == 1 else ["-J" if _is_open_pbs() else "-t", f"1-{n}"]
    return ["qsub", "-N", name, *array, "-V", "-S", "/bin/bash", "-j", "oe", "-o", log]


def _pbs_limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    size = batch.pbs_size(memory) if memory else None
    node = "select=1:ncpus=1" + (f":mem={size}" if size else "")
    if not _is_open_pbs():
        node = "nodes=1:ppn=1" + (f",mem={size}" if size else "")
    words = ["-l", node, "-l", f"walltime={_clock(seconds)}"]
    return [*words, "-q", queue] if queue else words


def _pbs_states() -> list[tuple[str, int, str]]:
    told = batch.command("qstat", "-t")
    rows = re.findall(r"^(\d+)(?:\[(\d+)\])?[.\s]\S*\s.*\s([A-Z])\s+\S+\s*$", told, re.MULTILINE)
    states = {"Q": "waits", "H": "waits", "W": "waits", "T": "waits"}
    return [
        (job, int(index or 1), states.get(state, "runs")) for job, index, state in rows if state not in "CFXM"
    ]


def _is_open_pbs() -> bool:
    """OpenPBS or PBS Professional, not Torque."""
    try:
        return "pbs_version" in batch.command("qsub", "--version", pauses=())
    except CommandError as error:
        if shutil.which("qconf"):
            raise SchedulerError(
                "scheduler='pbs': the qsub that is here is Grid Engine's, give scheduler='sge'"
            ) from error
        raise


_SYSTEMS = {
    "slurm": _System(_slurm_submission, _slurm_limits, _slurm_states, "$SLURM_ARRAY_TASK_ID", "scancel"),
    "sge": _System(_sge_submission, _sge_limits, _sge_states, "$SGE_TASK_ID", "qdel"),
    "pbs": _System(
        _pbs_submission, _pbs_limits, _pbs_states, "${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-1}}", "qdel"
    ),
}


def listed(scheduler: str) -> list[tuple[str, int, str]]:
    """All tasks of this user that a batch system knows: job, index and state. Raises CommandError."""
    return _SYSTEMS[scheduler].states()


def slurm_available() -> bool:
    """Whether SLURM's commands are here and its controller answers."""
    return _answers("sinfo", "--noheader")


def sge_available() -> bool:
    """Whether Grid Engine's commands are here and its master answers."""
    return _answers("qconf", "-sss") and _answers("qstat")


def pbs_available() -> bool:
    """Whether the commands of PBS, OpenPBS or Torque, are here and its server answers."""
    return _answers("qstat", "-B") and not shutil.which("qconf")


def _answers(*words: str) -> bool:
    try:
        batch.command(*words, pauses=())
    except CommandError:
        return False
    return True


def _found() -> str:
    available = {"slurm": slurm_available, "sge": sge_available, "pbs": pbs_available}
    for name, is_here in available.items():
        if is_here():
            return name
    raise SchedulerError("no batch system answers here: neither SLURM's commands, nor those of SGE or PBS")


# The task's side.


def work(folder: str, label: str) -> None:
    """Compute one task; `label` is its round and its index in the round's job."""
    here = Path(folder)
    round, index = label.split("-")
    task = json.loads((here / f"round-{round}.json").read_text())[int(index) - 1]
    put(f"task {task} on {platform.node()}, process {os.getpid()}\n", sys.stdout)
    try:
        f = cloudpickle.loads((here / "function").read_bytes())
        items = cloudpickle.loads((here / f"{task}.in").read_bytes())
    except Exception:
        _write(here / f"{task}.broken", traceback.format_exc().encode())
        raise
    programs = guard.Programs()
    outcomes = [_outcome(f, item, f"item {i} of task {task}") for i, item in enumerate(items, 1)]
    if programs.were_run():  # a signal to the whole job may have ended one; then it ends us within a second
        time.sleep(DOUBT)
    if failures := [f"{error.address}\n{error.text}\n" for _, error in outcomes if error]:
        _write(here / f"{task}.failed", "\n".join(failures).encode())
    _write(here / f"{task}.out", cloudpickle.dumps(outcomes))


def _outcome(f: Callable[[Any], Any], item: Any, name: str) -> "tuple[bytes, _Error | None]":
    """The pickled result of an item, or its error."""
    try:
        return cloudpickle.dumps(f(item)), None
    except (Exception, SystemExit) as error:
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        text = "".join(traceback.format_exception(type(error), error, inner)).rstrip()
        return b"", _Error(_pickled(error), text, f"{name}, on {platform.node()}")


def _pickled(error: BaseException) -> bytes | None:
    try:
        content = cloudpickle.dumps(error)
        cloudpickle.loads(content)
    except Exception:
        return None
    return content


def _dumped(value: Any, what: str) -> bytes:
    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        raise ProblemError(
            f"{what} cannot be sent to another node: {type(error).__name__}: {error}"
        ) from error


def _write(path: Path, content: bytes) -> None:
    """Write a file that is complete when it appears."""
    part = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
