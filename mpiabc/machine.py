"""The cores that this process may use: what the system lets it have, and the batch system has promised."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mpiabc.batch import variables
from mpiabc.errors import SchedulerError

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores(processes: int = 1) -> int:
    """Cores for each of so many processes that share what this one may use; at least one.

    The least of its affinity, the quotas of its control groups (rounded up), as containers and batch systems
    set them, and what a batch system promises each process, as in SLURM_CPUS_PER_TASK.
    """
    share = min([_affinity(), *map(math.ceil, _quotas())]) // processes
    promised = variables.promised_cores()
    return max(1, share if promised is None else min(share, promised[1]))


def refuse_free_threads() -> None:
    """Raise SchedulerError in a Python without its global lock. What runs asks when it is imported.

    What is the process's alone, as what it writes, its folder and its floating-point environment, is guarded
    for one thread at a time.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise SchedulerError(
            f"this Python ({sys.executable}) runs without its global lock, for which mpiabc was not made: "
            "set PYTHON_GIL=1, or take an ordinary build of Python"
        )


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Cores' worth of time of the control groups that this process is in, of version 1 and 2."""
    for line in _read(_OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(_CGROUPS, path)
        elif "cpu" in controllers.split(","):
            mount = next((name for name in (controllers, "cpu") if (_CGROUPS / name).is_dir()), controllers)
            yield from _limits(_CGROUPS / mount, path)


def _limits(mount: Path, path: str) -> Iterator[float]:
    """Those of a group and of the groups around it; in a container, its own may be the mount itself."""
    group = mount / path.lstrip("/")
    for place in [group, *group.parents]:
        older = [_read(place / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        quota, period = [*_read(place / "cpu.max").split(), *older][:2]
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 < int(period):
            yield int(quota) / int(period)
        if place == mount:
            return


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
