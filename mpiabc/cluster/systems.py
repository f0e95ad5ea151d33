"""The batch systems that run maps: how each takes, lists and cancels array jobs, and says why one ended."""

import getpass
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from xml.etree import ElementTree

from mpiabc import batch
from mpiabc.batch import CommandError
from mpiabc.errors import SchedulerError

Listed = tuple[str, int, str]  # job, index, and "waits", "runs", "ends", "deleted" or "error"


class Why(Enum):
    """Why a task has ended that has left no result."""

    CANCELLED = "was cancelled"
    TIME = "was ended at its time limit"
    MEMORY = "was ended at its memory limit"
    LOST = "has ended without a result"


@dataclass(frozen=True)
class Ending:
    """Why a task has ended, and how the batch system puts it."""

    why: Why
    told: str


@dataclass(frozen=True)
class System:
    """How one batch system deals with array jobs, by their commands and words."""

    submission: Callable[[str, int, str], list[str]]  # of a name, a number of tasks, a file for output
    limits: Callable[[str | None, int, str | None], list[str]]  # of memory, seconds, queue
    states: Callable[[], list[Listed]]  # of the user's tasks that it has not yet finished
    endings: Callable[[str, int], dict[int, Ending]]  # by index; of a job and its number of tasks
    index: str  # of a task, in the shell
    task: str  # how it names one
    cancel: str
    whole: Callable[[str, int], str] = lambda job, n: job  # what `cancel` knows a job by
    prelude: str = ""  # of the shell, before a task begins


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


# SLURM.


def _slurm_submission(name: str, n: int, log: str) -> list[str]:
    words = ["sbatch", "--parsable", f"--job-name={name}", f"--array=1-{n}", "--ntasks=1"]
    return [*words, f"--output={log}", "--open-mode=append", "--export=ALL"]


def _slurm_limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    words = {"mem": memory, "partition": queue, "time": _clock(seconds)}
    return [f"--{name}={value}" for name, value in words.items() if value]


def _slurm_states() -> list[Listed]:
    told = batch.command(
        "squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%F %K %T"
    )
    states = {"PENDING": "waits", "REQUEUED": "waits", "CONFIGURING": "waits", "COMPLETING": "ends"}
    return [
        (job, int(index), states.get(state, "runs"))
        for job, index, state in (line.split() for line in told.splitlines())
        if index.isdigit()
    ]


_SLURM_ENDINGS = {
    "CANCELLED": Why.CANCELLED,
    "TIMEOUT": Why.TIME,
    "DEADLINE": Why.TIME,
    "OUT_OF_MEMORY": Why.MEMORY,
}
_SLURM_GOES_ON = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "COMPLETING", "CONFIGURING", "RESIZING")


def _slurm_endings(job: str, n: int) -> dict[int, Ending]:
    """From the accounting, and the controller's memory of a few minutes, which is there without it."""
    accounting = ["sacct", "--noheader", "--parsable2", "--allocations", "--array", "--jobs", job]
    memory = ["squeue", "--noheader", "--array", "--states=all", "--jobs", job]
    questions = (
        [*accounting, "--format", "JobID,State,Elapsed,Timelimit,NodeList"],
        [*memory, "--format", "%F_%K|%T|%M|%l|%B"],
    )
    found: dict[int, Ending] = {}
    failed = []
    for words in questions:
        try:
            told = batch.command(*words, pauses=())
        except CommandError as error:
            failed.append(error)
            continue
        for line in told.splitlines():
            name, state, elapsed, limit, *node = line.split("|")
            found |= dict.fromkeys(_indices(name), _slurm_ending(state, elapsed, limit, *node))
    if len(failed) == len(questions):
        raise failed[-1]
    return {index: ending for index, ending in found.items() if ending.told}


def _slurm_ending(state: str, elapsed: str, limit: str, node: str = "") -> Ending:
    """Of a task that goes on, one that tells nothing."""
    if state.startswith(_SLURM_GOES_ON):
        return Ending(Why.LOST, "")
    why = _SLURM_ENDINGS.get(state.split()[0], Why.LOST)
    where = f" on {node}" if node not in ("", "n/a", "None assigned") else ""
    return Ending(why, f"{state} after {elapsed} of {limit}{where}")


def _indices(name: str) -> Iterator[int]:
    """The tasks of "17_3" and of "17_[2-4,7%1]", as those are named that have never begun."""
    for part in re.sub(r"%\d+|[\[\]]", "", name.partition("_")[2]).split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


# SGE.


def _sge_submission(name: str, n: int, log: str) -> list[str]:
    """With a warning before the end: SIGUSR2 tells a `qdel` from what else kills a task."""
    words = ["qsub", "-terse", "-N", name, "-t", f"1-{n}", "-notify"]
    return [*words, "-cwd", "-V", "-S", "/bin/bash", "-j", "y", "-o", log]


def _sge_limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    words = ["-l", f"h_rt={seconds}" + (f",h_vmem={memory}" if memory else "")]
    return [*words, "-q", queue] if queue else words


def _sge_states() -> list[Listed]:
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
    if "E" in letters:
        return "error"
    if "d" in letters:
        return "deleted"
    return "waits" if "q" in letters or "h" in letters else "runs"


_SGE_LIMIT = 37  # the `failed` of tasks that were ended at a limit
_SGE_WARNED = 128 + signal.SIGUSR2  # the exit status of those that were warned: of a `qdel`, if of no limit


def _sge_endings(job: str, n: int) -> dict[int, Ending]:
    """From the accounting, which has no record of tasks that have never begun."""
    try:
        told = batch.command("qacct", "-j", job, pauses=())
    except CommandError as error:
        if "not found" in str(error):
            return {}
        raise
    records = (
        dict(re.findall(r"^(\w+)[ \t]+(.*?)[ \t]*$", record, re.MULTILINE))
        for record in re.split("^=+$", told, flags=re.MULTILINE)
    )
    return {
        int(record["taskid"]): _sge_ending(record) for record in records if record.get("taskid", "").isdigit()
    }


def _sge_ending(record: dict[str, str]) -> Ending:
    failed, status = (record.get(name, "0").split() for name in ("failed", "exit_status"))
    ran = float(record.get("ru_wallclock", "0").rstrip("s"))
    limit = re.search(r"h_rt=(\d+)", record.get("category", ""))
    told = f"failed {' '.join(failed)}, exit status {status[0]}, after {_clock(int(ran))}"
    told += f" of {_clock(int(limit[1]))}" if limit else ""
    told += f" on {record.get('hostname', '?')}"
    if int(failed[0]) == _SGE_LIMIT:
        return Ending(Why.TIME if limit is None or ran >= int(limit[1]) else Why.MEMORY, told)
    is_deleted = int(status[0]) == _SGE_WARNED or record.get("deleted_by", "NONE") != "NONE"
    return Ending(Why.CANCELLED if is_deleted else Why.LOST, told)


# PBS: OpenPBS, PBS Professional, Torque.


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


def _pbs_states() -> list[Listed]:
    told = batch.command("qstat", "-t")
    rows = re.findall(r"^(\d+)(?:\[(\d+)\])?[.\s]\S*\s.*\s([A-Z])\s+\S+\s*$", told, re.MULTILINE)
    states = {"Q": "waits", "H": "waits", "W": "waits", "T": "waits", "E": "ends"}
    return [
        (job, int(index or 1), states.get(state, "runs")) for job, index, state in rows if state not in "CFXM"
    ]


_PBS_ENDINGS = {
    271: Why.CANCELLED,  # 256 + SIGTERM
    -29: Why.TIME,  # of OpenPBS
    -27: Why.MEMORY,
    -26: Why.MEMORY,
    -11: Why.TIME,  # of Torque
    -10: Why.MEMORY,
}


def _pbs_endings(job: str, n: int) -> dict[int, Ending]:
    """From the server's history, for as long as it keeps one."""
    history = ["-x"] if _is_open_pbs() else []
    told = batch.command("qstat", *history, "-f", "-t", _pbs_whole(job, n), pauses=())
    found = {}
    for record in re.split(r"^Job Id:", told, flags=re.MULTILINE):
        name = re.match(r"\s*\d+(?:\[(\d+)\])?\.", record)
        values = dict(re.findall(r"^\s*([\w.]+) = (.*)$", record, re.MULTILINE))
        if name and (status := values.get("Exit_status", values.get("exit_status", ""))):
            found[int(name[1] or 1)] = _pbs_ending(int(status), values)
    return found


def _pbs_ending(status: int, values: dict[str, str]) -> Ending:
    """An older PBS gives a task the same status by `qdel` and at its time limit."""
    ran, limit = values.get("resources_used.walltime", "?"), values.get("Resource_List.walltime", "?")
    why = _PBS_ENDINGS.get(status, Why.LOST)
    if why is Why.CANCELLED and ran != "?" and limit != "?" and ran >= limit:
        why = Why.TIME
    return Ending(why, f"exit status {status} after {ran} of {limit}")


def _pbs_whole(job: str, n: int) -> str:
    return job if n == 1 else f"{job}[]"


def _is_open_pbs() -> bool:
    """OpenPBS or PBS Professional, not Torque."""
    try:
        return "pbs_version" in batch.command("qsub", "--version", pauses=())
    except CommandError as error:
        if shutil.which("qconf"):
            raise SchedulerError(
                "system='pbs': the qsub that is here is Grid Engine's, give system='sge'"
            ) from error
        raise


SYSTEMS = {
    "slurm": System(
        _slurm_submission,
        _slurm_limits,
        _slurm_states,
        _slurm_endings,
        index="$SLURM_ARRAY_TASK_ID",
        task="{}_{}",
        cancel="scancel",
    ),
    "sge": System(
        _sge_submission,
        _sge_limits,
        _sge_states,
        _sge_endings,
        index="$SGE_TASK_ID",
        task="{}.{}",
        cancel="qdel",
        prelude="trap '' USR1\n",  # the warning of a suspension, which ends nothing
    ),
    "pbs": System(
        _pbs_submission,
        _pbs_limits,
        _pbs_states,
        _pbs_endings,
        index="${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-1}}",
        task="{}[{}]",
        cancel="qdel",
        whole=_pbs_whole,
    ),
}


def listed(system: str) -> list[Listed]:
    """All tasks of this user that a batch system knows: job, index and state. Raises CommandError."""
    return SYSTEMS[system].states()


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


def found() -> str:
    """The batch system that is here. Raises SchedulerError if none is."""
    available = {"slurm": slurm_available, "sge": sge_available, "pbs": pbs_available}
    for name, is_here in available.items():
        if is_here():
            return name
    raise SchedulerError("no batch system answers here: neither SLURM's commands, nor those of SGE or PBS")
