"""Programs that simulators start: whether any were run, and their end with what has started them.

Who started a program may be gone, and the program still hold a pipe that somebody waits for, a core, or an
allocation. So a process that leaves, or gives an evaluation up, ends all below it that has begun since.
"""

import contextlib
import os
import resource
import signal
import time
from typing import NamedTuple

from mpiabc.batch import variables

#: Set by launchers of MPI, besides those in the table of batch systems; a process that inherited them would
#: take itself for a rank.
_OF_RANKS = ("PMI_", "PMIX_", "OMPI_", "PRTE_", "HYDRA_", "HYDI_", "MPIR_", "MPI_LOCAL")
_OF_USERS = "OMPI_ALLOW_RUN_AS_ROOT"  # and what begins so

ours: set[int] = set()  # children that we have started: they have no part in an evaluation here


class Programs:
    """Those of this process from now on."""

    def __init__(self) -> None:
        self._before = self._waited_for()
        self._since = _now()

    def were_run(self) -> bool:
        """Whether this process has children that simulations may rest on, or has waited for one since.

        What ends a program, such as a signal to the whole job, is not seen here.
        """
        global _ended
        children = [child for child in _children() if not _is_tracker(child) and child not in map(str, ours)]
        before, _ended = _ended, {child for child in children if _has_ended(child)}
        return self._waited_for() != self._before or not before.issuperset(children)

    def end(self) -> None:
        """Kill what has begun below this process, as far as the system shows it.

        What has lost its parent is found in the group that this process leads, as ranks of a job do; other
        ranks, and what they have started, are not touched.
        """
        for number in _below(_table(), os.getpid(), self._since):
            if not _is_tracker(str(number)):
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)

    @staticmethod
    def _waited_for() -> tuple[float, ...]:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime, usage.ru_stime, usage.ru_minflt


def environment() -> dict[str, str]:
    """The variables for a program, without those that make a rank of a process."""
    of_ranks = _OF_RANKS + variables.of_ranks()
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OF_USERS) or not name.startswith(of_ranks)
    }


def end(program: int) -> None:
    """Kill a program that was started here, and all below it, as far as the system shows it."""
    table = _table()
    for number in {program, *(number for number in table if _is_below(table, number, program))}:
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)


def _is_below(table: "dict[int, _Entry]", number: int, above: int) -> bool:
    while number in table and number != above:
        number = table[number].parent
    return number == above


def _now() -> float:
    """Seconds since the machine has started, as the system tells them of processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


_INIT = 1  # whose children orphans become


class _Entry(NamedTuple):
    parent: int
    group: int
    began: float


def _table() -> dict[int, _Entry]:
    """All processes that the system shows."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in _listed("/proc"):
        words = _read(f"/proc/{name}/stat").rpartition(b")")[2].split() if name.isdecimal() else []
        if words:
            found[int(name)] = _Entry(int(words[1]), int(words[2]), int(words[19]) / ticks)
    return found


def _below(table: dict[int, _Entry], mine: int, moment: float) -> list[int]:
    """The processes below `mine`, and orphans of the group that it leads, that began since."""

    def is_ours(number: int) -> bool:
        is_of_group = table[number].group == mine
        while number in table and number != mine:
            if table[number].parent == table[mine].parent != _INIT:
                return False
            number = table[number].parent
        return number == mine or is_of_group

    since = moment - 1 / os.sysconf("SC_CLK_TCK")  # they are counted in whole ticks
    return [number for number in table if number != mine and table[number].began >= since and is_ours(number)]


def _children() -> list[str]:
    """The numbers of this process's children; one that is none where only the system knows them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # the usual case, and a quick one
        return []
    lists = [_read(f"/proc/self/task/{thread}/children") for thread in _listed("/proc/self/task")]
    return b" ".join(lists).decode().split() or ["unknown"]


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


_ended: set[str] = set()  # children that nobody had waited for when they were last looked at
_trackers: set[str] = set()


def _has_ended(child: str) -> bool:
    return _read(f"/proc/{child}/stat").rpartition(b")")[2].split()[:1] == [b"Z"]


def _is_tracker(child: str) -> bool:
    """Whether it is one of the processes by which Python's multiprocessing, or loky, keeps order."""
    if child not in _trackers and b"resource_tracker import main" in _read(f"/proc/{child}/cmdline"):
        _trackers.add(child)
    return child in _trackers


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
