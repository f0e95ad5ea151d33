"""What batch systems say in the environment to the processes of their jobs, by names that the table has."""

import os

from mpiabc.batch.systems import SYSTEMS


def sizes() -> tuple[str, ...]:
    """Variables in which launchers of batch systems say how many ranks they have started."""
    return tuple(system.ranks for system in SYSTEMS.values() if system.ranks)


def of_ranks() -> tuple[str, ...]:
    """Beginnings of the variables that make a rank of a process."""
    return tuple(start for system in SYSTEMS.values() for start in system.of_ranks)


def launchers() -> tuple[str, ...]:
    """Programs of batch systems that start ranks."""
    return tuple(system.launcher for system in SYSTEMS.values() if system.launcher)


def promised_cores() -> tuple[str, int] | None:
    """The cores that this job is promised for each process, the fewest, and the variable that says so."""
    said = {system.cores: os.environ.get(system.cores, "") for system in SYSTEMS.values() if system.cores}
    return min(((name, int(n)) for name, n in said.items() if n.isdecimal()), key=_number, default=None)


def _number(promise: tuple[str, int]) -> int:
    return promise[1]
