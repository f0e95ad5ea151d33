"""Communicators: which a run can have, a duplicate of its own, and what its ranks know of themselves."""

import os
import platform
from functools import cache
from types import ModuleType

from mpiabc import machine, team, threads
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.mpi.ending import programs
from mpiabc.schedulers.mpi.launch import MissingRanks, load_mpi
from mpiabc.schedulers.together import Backoff


def checked(library: ModuleType, comm: object) -> Comm:
    """The communicator. Raises SchedulerError for one that no run can have."""
    if not isinstance(comm, library.Comm):
        raise SchedulerError(f"MPI(comm={comm!r}): give a communicator of mpi4py")
    if comm == library.COMM_NULL:
        raise SchedulerError(
            "MPI(comm=COMM_NULL): this rank is in no communicator, as those that gave Split UNDEFINED: let "
            "only the others call run, behind `if comm != MPI.COMM_NULL`"
        )
    if comm.Is_inter():
        raise SchedulerError(
            "MPI(comm=...): an intercommunicator has two groups, and a run one: give comm.Merge(), or a "
            "communicator of one of them"
        )
    return comm


@cache
def keyval() -> int:
    """Under which a communicator keeps what is made of it once."""
    return load_mpi().Comm.Create_keyval()


def our_own(comm: Comm) -> tuple[Comm, int, team.Worker]:
    """A duplicate of the communicator, this rank's cores, and who it is; made once and kept."""
    programs()
    kept = comm.Get_attr(keyval())
    if not isinstance(kept, tuple):
        duplicate = duplicate_of(comm)
        kept = duplicate, *_settled(duplicate)
        comm.Set_attr(keyval(), kept)
    return kept


def duplicate_of(comm: Comm) -> Comm:
    """A communicator of our own; waits for the other ranks without burning a core."""
    duplicate, request = comm.Idup()
    backoff, missing = Backoff(), MissingRanks(comm.rank, comm.size)
    while not request.Test():
        backoff.wait()
        missing.tell()
    return duplicate


def where_is(comm: Comm) -> str:
    """This rank, as messages to the user name it."""
    return f"rank {comm.rank} of {comm.size} on {platform.node()}"


def _settled(comm: Comm) -> tuple[int, team.Worker]:
    """Give each rank of a node its share of the cores that it may use; how many that is, and who it is."""
    library = load_mpi()
    node = comm.Split_type(library.COMM_TYPE_SHARED)
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    sharing = node.allgather(mine).count(mine)
    who = team.Worker(platform.node(), comm.rank, node.rank)
    node.Free()
    share = machine.cores(sharing)
    threads.limit(share)
    return share, who
