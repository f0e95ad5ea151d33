"""Evaluation on the ranks of an MPI job.

Rank 0 leads and simulates too (`Home`); the others take leases. Everything after the communicator's
duplication is point to point and waits by probing with a growing pause, so that no rank burns a core
while it waits, signals are seen, and no rank is ever stuck in a collective call.
"""

from mpiabc.schedulers.mpi.launch import end_job, launched_rank, launched_size, load_mpi
from mpiabc.schedulers.mpi.leader import Ranks
from mpiabc.schedulers.mpi.scheduler import MPI, MPIStatic

__all__ = ["MPI", "MPIStatic", "Ranks", "end_job", "launched_rank", "launched_size", "load_mpi"]
