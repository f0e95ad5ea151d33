"""The job that this process is of, and the seconds that its batch system still gives."""

import os

from mpiabc.batch.commands import CommandError
from mpiabc.batch.systems import SYSTEMS, System
from mpiabc.errors import ProblemError


def job() -> str:
    """The job that this process is of, such as "SLURM job 17"; empty outside of any."""
    system = _system()
    return "" if system is None else f"{system.name} job {os.environ[system.variable]}"


def seconds_left() -> float:
    """Seconds until the batch system ends this job.

    Raises ProblemError outside of any job, and where the job has no limit or none can be found.
    """
    system = _system()
    if system is None:
        names = ", ".join(f"{system.name} ({system.variable})" for system in SYSTEMS.values())
        raise ProblemError(
            f'walltime="auto" needs a job of a batch system, and the environment shows none of {names}: give '
            'seconds, or text such as "2h", there or in MPIABC_WALLTIME'
        )
    try:
        left = system.left(os.environ[system.variable])
    except CommandError as error:
        left, why = None, f": {error}"
    else:
        why = ": the job has none, as far as can be seen"
    if left is None:
        raise ProblemError(
            f'walltime="auto" finds no time limit of this {system.name} job{why}; submit it with a limit, or '
            'give seconds, or text such as "2h", there or in MPIABC_WALLTIME'
        )
    return left


def _system() -> System | None:
    """The system whose job this is: its variable is set, and `also` where that name is a common one."""
    return next((system for system in SYSTEMS.values() if _is_ours(system)), None)


def _is_ours(system: System) -> bool:
    return bool(os.environ.get(system.variable)) and (not system.also or system.also in os.environ)
