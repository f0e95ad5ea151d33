"""This Python and this machine: what computes, on how many cores, with which limits."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mpiabc import batch, machine, threads
from mpiabc.batch import variables
from mpiabc.cli.doctor.asking import ask
from mpiabc.cli.doctor.check import Place, Remark, Seen, note, problem, warning
from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.version import __version__, versions

_MEGABYTE = 2**20
_LITTLE_SHARED = 64 * _MEGABYTE  # what containers have by default
_SOON = 600.0  # seconds
_OF_A_CHILD, _OWN = 8, 64  # open files, more than a worker process needs, and the leader
_WORKS = 30.0  # seconds that two worker processes have

# With what is imported whenever this Python starts: that may have threads, and none is forked then.
_ASK_CHILDREN = """
import mpiabc
from mpiabc.schedulers.shared.starting import fork_is_safe
how = "forked" if fork_is_safe() else "new interpreters"
with mpiabc.Pool(mpiabc.schedulers.Processes(2)) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
print(how)
"""


@dataclass(frozen=True)
class Python:
    """The interpreter, and that which `python` would start."""

    version: str
    path: str
    on_path: str | None
    lack: str = ""  # why runs refuse it


def look_at_python(place: Place) -> Python:
    """This one."""
    lack = ""
    try:
        machine.refuse_free_threads()
    except SchedulerError as error:
        lack = str(error)
    return Python(platform.python_version(), sys.executable, shutil.which("python"), lack)


def judge_python(found: Python) -> Seen:
    """Ranks are often started by `python`, which may be another one."""
    words = f"{found.version} ({found.path})"
    if found.lack:
        return Seen(words, (problem(found.lack),))
    if found.on_path is None or Path(found.on_path).parent != Path(found.path).parent:
        is_other = f"`python` on the PATH is {found.on_path}, not this one"
        lack = is_other if found.on_path else "`python` is not on the PATH"
        text = f"{lack}: activate the environment, or start ranks by {found.path}"
        return Seen(words, (note(text),))
    return Seen(words)


@dataclass(frozen=True)
class Package:
    """mpiabc as it was imported, and as it is installed, if it is."""

    version: str
    folder: str
    installed: str | None


def look_at_package(place: Place) -> Package:
    """What this process has."""
    installed = None
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.version("mpiabc")
    return Package(__version__, str(Path(machine.__file__).parent), installed)


def judge_package(found: Package) -> Seen:
    """Ranks that start elsewhere would have the installed one."""
    words = f"{found.version} ({found.folder})"
    if found.installed in (None, found.version):
        return Seen(words)
    text = (
        f"mpiabc {found.version} is imported from {found.folder}, and {found.installed} is installed: "
        "install it again, or see what PYTHONPATH says"
    )
    return Seen(words, (warning(text),))


@dataclass(frozen=True)
class Arithmetic:
    """Libraries, their threads, and what the user has said of these."""

    numpy: str
    scipy: str
    blas: str
    threads: int
    is_set: bool


def look_at_arithmetic(place: Place) -> Arithmetic:
    """The BLAS that NumPy has loaded."""
    from threadpoolctl import threadpool_info

    known = versions()
    loaded: list[dict[str, Any]] = threadpool_info()
    blas = next((each for each in loaded if each["user_api"] == "blas"), {})
    name = f"{blas.get('internal_api', 'BLAS')} {blas.get('version') or ''}".strip()
    most = blas.get("num_threads", 1)
    return Arithmetic(known["NumPy"], known["SciPy"], name, most, threads.are_set_by_user())


def judge_arithmetic(found: Arithmetic) -> Seen:
    """mpiabc limits the threads of workers, unless the user has set them."""
    words = f"NumPy {found.numpy}, SciPy {found.scipy}, {found.blas}"
    if not found.is_set:
        return Seen(f"{words}, threads as mpiabc sets them")
    if found.threads == 1:
        return Seen(f"{words}, one thread by the environment")
    words = f"{words}, {found.threads} threads by the environment"
    text = (
        f"the environment sets {found.threads} threads of BLAS (OMP_NUM_THREADS and its like), for each "
        "worker: unset it, and mpiabc gives workers as many as they have cores"
    )
    return Seen(words, (warning(text),))


@dataclass(frozen=True)
class Cores:
    """Those of the machine, and those that this process may use."""

    all: int
    usable: int
    promised: tuple[str, int] | None = None  # the batch system's variable, and what it says


def look_at_cores(place: Place) -> Cores:
    """Affinity, quotas of containers, what a batch system has promised."""
    return Cores(os.cpu_count() or 1, machine.cores(), variables.promised_cores())


def judge_cores(found: Cores) -> Seen:
    """Fewer than there are is no fault, and often a surprise."""
    words = f"{found.usable} of {found.all}"
    if found.usable == found.all:
        return Seen(words)
    why = "the affinity of this process, or the quota of its container or job"
    if found.promised is not None and found.promised[1] == found.usable:
        why = "=".join(map(str, found.promised))
    text = f"runs in processes use {found.usable} of {found.all} cores: {why} leaves no more"
    return Seen(words, (note(text),))


@dataclass(frozen=True)
class Workers:
    """What has become of two worker processes: how they were started, or what was said instead."""

    how: str
    lack: str = ""
    could_fork: bool = sys.platform == "linux"


def look_at_children(place: Place) -> Workers:
    """Two are started, by a Python of its own."""
    answer = ask([sys.executable, "-c", _ASK_CHILDREN], _WORKS)
    if answer.status == 0:
        return Workers(answer.said.strip().splitlines()[-1])
    last = (answer.complaint.strip().splitlines() or [f"status {answer.status}"])[-1]
    return Workers("", f"no answer for {_WORKS:.0f} s" if answer.status is None else last)


def judge_children(found: Workers) -> Seen:
    """Forks are quicker; both work."""
    if found.lack:
        return Seen("do not work", (problem(f"two worker processes do not work: {found.lack}"),))
    words = f"work, {found.how}"
    if found.how == "forked" or not found.could_fork:
        return Seen(words)
    text = "this Python has threads, MPI or JAX as soon as it starts, so worker processes are not forked"
    return Seen(words, (note(f"{text}: they take a second more each to start"),))


@dataclass(frozen=True)
class Room:
    """Bytes of a file system of memory; None where there is none."""

    all: int | None
    free: int = 0


def look_at_memory(place: Place) -> Room:
    """That in which the ranks of a node exchange messages."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return Room(None)
    return Room(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail)


def judge_memory(found: Room) -> Seen:
    """Containers have 64 MB by default."""
    if found.all is None:
        return Seen("no /dev/shm: ranks use other ways")
    words = f"/dev/shm has {size(found.free)} of {size(found.all)} free"
    if found.free > _LITTLE_SHARED:
        return Seen(words)
    text = (
        f"{words}: with many ranks MPI ends there by a bus error; give a container more "
        "(docker run --shm-size=1g), or remove what killed jobs have left in it"
    )
    return Seen(words, (warning(text),))


@dataclass(frozen=True)
class Limits:
    """Of this process: open files, None for no limit."""

    files: int | None
    hard: int | None
    cores: int


def look_at_limits(place: Place) -> Limits:
    """What `ulimit -n` says."""
    soft, hard = (
        None if value == resource.RLIM_INFINITY else value
        for value in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return Limits(soft, hard, machine.cores())


def judge_limits(found: Limits) -> Seen:
    """Each worker process needs some."""
    if found.files is None:
        return Seen("no limit")
    least = _OWN + _OF_A_CHILD * found.cores
    if found.files >= least:
        return Seen(f"{found.files}")
    text = f"{found.files} open files are few for {found.cores} worker processes: `ulimit -n {least}`"
    if found.hard is not None and found.hard < least:
        text += f", for which an administrator has to raise the hard limit of {found.hard}"
    return Seen(f"{found.files}", (warning(text),))


@dataclass(frozen=True)
class Job:
    """The batch job that this is of, if it is of any, and what is known of its end."""

    name: str
    left: float | None = None
    lack: str = ""


def look_at_batch(place: Place) -> Job:
    """The environment says which, the batch system how long."""
    name = batch.job()
    if not name:
        return Job("")
    try:
        return Job(name, batch.seconds_left())
    except (ProblemError, SchedulerError) as error:
        return Job(name, lack=str(error))


def judge_batch(found: Job) -> Seen:
    """A job without a limit that can be seen is one that `walltime="auto"` does not know."""
    if not found.name:
        return Seen("none")
    if found.left is None:
        return Seen(f"{found.name}, time left unknown", (warning(found.lack),))
    words = f"{found.name}, {found.left / 60:.0f} minutes left"
    return Seen(words, tuple(_of_time(found)))


def _of_time(found: Job) -> Iterator[Remark]:
    if found.left is not None and found.left < _SOON:
        yield note(f"{found.name} ends in {found.left:.0f} s: a run that begins now is soon interrupted")


def size(number: float) -> str:
    """Bytes, as people say them."""
    for unit in ("bytes", "KB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.3g} GB" if number < 1000 else f"{number / 1000:.3g} TB"
