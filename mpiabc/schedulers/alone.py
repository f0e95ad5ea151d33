"""The communicator of a simulator that takes one and runs on one rank, or where there are no ranks."""

from mpiabc.schedulers.foreign import Comm
from mpiabc.team import Alone


def communicator() -> Comm:
    """COMM_SELF; MPI begins with it. Raises SchedulerError if there is no MPI."""
    from mpiabc.schedulers.mpi import load_mpi  # which imports the engines that are alone

    return load_mpi().COMM_SELF


ALONE = Alone(communicator)
