"""Array jobs: submitted, listed, cancelled, and why their tasks have ended, by the table's commands."""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress

from mpiabc.batch.commands import CommandError, answers, command
from mpiabc.batch.ending import Listed
from mpiabc.batch.systems import SYSTEMS, Arrays
from mpiabc.errors import SchedulerError


def with_arrays() -> dict[str, Arrays]:
    """The systems whose array jobs are known, by their short names."""
    return {name: system.arrays for name, system in SYSTEMS.items() if system.arrays is not None}


def of(name: str) -> Arrays:
    """How a system of this short name deals with array jobs. Raises KeyError."""
    return with_arrays()[name]


def is_here(name: str) -> bool:
    """Whether this system's commands are here and its server answers."""
    arrays = of(name)
    is_of_another = bool(arrays.rival) and shutil.which(arrays.rival) is not None
    return not is_of_another and all(answers(*words) for words in arrays.here)


def found() -> str:
    """The batch system that is here. Raises SchedulerError if none is."""
    for name in with_arrays():
        if is_here(name):
            return name
    first, *others = (SYSTEMS[name].name for name in with_arrays())
    raise SchedulerError(
        f"no batch system answers here: neither {first}'s commands, nor those of {' or '.join(others)}"
    )


def submit(name: str, submission: Sequence[str], script: str) -> str:
    """Submit a script with these words; the job. Raises SchedulerError if none is named.

    It is not tried again: the first attempt may have succeeded although it seemed to fail.
    """
    program = SYSTEMS[name].submit
    own = tuple(start for system in SYSTEMS.values() for start in system.of_jobs)
    shared = tuple(variable for system in SYSTEMS.values() for variable in system.of_site)
    said = command(program, *submission, script, pauses=(), without=own, keeping=shared)
    job = re.search(of(name).job, said)
    if job is None:
        raise SchedulerError(f"`{program}` names no job: it says {said.strip()!r}")
    return job[0]


def cancel(name: str, jobs: Mapping[str, int]) -> None:
    """Take what is left of these jobs, of so many tasks each, out of the queue."""
    arrays = of(name)
    try:
        left = {job for job, *_ in arrays.states()} & jobs.keys()
    except CommandError:
        left = set(jobs)
    for job in left:
        with suppress(CommandError):  # it has ended
            command(arrays.cancel, arrays.whole(job, jobs[job]))


def listed(system: str) -> list[Listed]:
    """All tasks of this user that a batch system knows: job, index and state. Raises CommandError."""
    return of(system).states()


def slurm_available() -> bool:
    """Whether SLURM's commands are here and its controller answers."""
    return is_here("slurm")


def sge_available() -> bool:
    """Whether Grid Engine's commands are here and its master answers."""
    return is_here("sge")


def pbs_available() -> bool:
    """Whether the commands of PBS, OpenPBS or Torque, are here and its server answers."""
    return is_here("pbs")
