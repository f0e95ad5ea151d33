"""mpi4py's MPI, the launchers that are there, and what becomes of two ranks: asked, not judged."""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mpiabc.batch import variables
from mpiabc.cli.doctor.asking import Answer, ask
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.mpi import launched_rank, launched_size
from mpiabc.schedulers.mpi.launch import load_mpi

_ANSWERS = 15.0  # seconds
STARTS = 60.0  # seconds that two ranks have
_LAUNCHERS = ("mpirun", "mpiexec")  # and those of batch systems
_FAMILIES = {  # words of launchers and libraries
    "Open MPI": r"Open MPI|OpenRTE|PRRTE|prterun",
    "Intel MPI": r"Intel\(R\) MPI",
    "MPICH": r"HYDRA|MPICH|MVAPICH",
    "Slurm": r"slurm",
}

# MPI is not begun by it: where a launcher is of another kind, that would be an abort.
_ASK_LIBRARY = """
import json, mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
try:
    mapped = [line.split()[-1] for line in open("/proc/self/maps") if "/libmpi" in line]
except OSError:
    mapped = []
print(json.dumps([mpi4py.__version__, MPI.Get_library_version(), MPI.get_vendor()[0], (mapped or [""])[0]]))
"""
_ASK_RANK = """
import sys
from mpi4py import MPI
sys.stdout.write(f"rank {MPI.COMM_WORLD.rank} of {MPI.COMM_WORLD.size}\\n")
sys.stdout.flush()
"""


@dataclass(frozen=True)
class Library:
    """What mpi4py is and loads; where it cannot, `lack` has Python's words."""

    mpi4py: str = ""
    family: str = ""
    version: str = ""
    built: str = ""  # the family that it was built with
    path: str = ""
    lack: str = ""

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{self.family} {self.version}".strip()


@dataclass(frozen=True)
class Launcher:
    """A program that starts ranks."""

    name: str
    path: str
    family: str
    version: str
    is_on_path: bool = True

    def __str__(self) -> str:
        kind = f"{self.family} {self.version}".strip() or "of an unknown kind"
        return f"{self.path} ({kind})"


@dataclass(frozen=True)
class Launched:
    """What ranks have found: which they are, of how many; or why it cannot be said."""

    worlds: tuple[tuple[int, int], ...]
    status: int | None = 0
    said: str = ""
    is_own: bool = False  # the command itself is one of these ranks


def library() -> Library:
    """Ask a new interpreter."""
    return library_of(ask([sys.executable, "-c", _ASK_LIBRARY], _ANSWERS))


def library_of(answer: Answer) -> Library:
    """What that has said."""
    if answer.status != 0:
        lines = answer.complaint.strip().splitlines() or [f"status {answer.status}"]
        why = f"no answer for {_ANSWERS:.0f} s" if answer.status is None else lines[-1].strip()
        return Library(lack=why)
    mpi4py, said, built, path = json.loads(answer.said.strip().splitlines()[-1])
    return Library(mpi4py, *kind(said), kind(built)[0] or built, path)


def kind(said: str) -> tuple[str, str]:
    """Family and version, in what a launcher or a library says of itself; empty where it is unknown."""
    family = next((name for name, words in _FAMILIES.items() if re.search(words, said)), "")
    version = re.search(r"\d+\.\d+(?:\.\d+)*", said)
    return family, version[0] if version else ""


def launchers() -> tuple[Launcher, ...]:
    """Those first on the PATH; of this environment where the PATH has none."""
    return tuple(
        found for name in (*_LAUNCHERS, *variables.launchers()) if (found := _launcher(name)) is not None
    )


def _launcher(name: str) -> Launcher | None:
    path, beside = shutil.which(name), shutil.which(name, path=str(Path(sys.executable).parent))
    if not (path or beside):
        return None
    return asked(name, path or str(beside), is_on_path=path is not None)


def asked(name: str, path: str, *, is_on_path: bool = True) -> Launcher | None:
    """A launcher by its own words; None for one of a batch system that is not set up."""
    answer = ask([path, "--version"], _ANSWERS)
    if name in variables.launchers() and answer.status != 0:
        return None
    return Launcher(name, path, *kind(answer.said + answer.complaint), is_on_path)


def started(launcher: Launcher) -> Launched:
    """Start two ranks that say which they are."""
    answer = ask([launcher.path, "-n", "2", sys.executable, "-c", _ASK_RANK], STARTS)
    found = re.findall(r"^rank (\d+) of (\d+)$", answer.said, re.MULTILINE)
    worlds = tuple(sorted((int(rank), int(size)) for rank, size in found))
    return Launched(worlds, answer.status, answer.complaint + answer.said)


def own_rank() -> Launched | None:
    """Where this process is one of several ranks, what MPI says of it; all of them must come here."""
    if launched_size() == 1:
        return None
    try:
        world = load_mpi().COMM_WORLD
    except SchedulerError as error:
        return Launched(((launched_rank(), 1),), 1, str(error), is_own=True)
    return Launched(((world.rank, world.size),), is_own=True)
