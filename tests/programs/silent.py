"""A run in which nothing comes home for long, which it says after half a second: STORE SCHEDULER CASE.

CASE: `collective`, in which rank 1 calls one; `absent`, in which it does not call run; `unstarted`, in which
it does not even start MPI; else a file that evaluation 0:5 waits for.
"""

import os
import sys
import time
from pathlib import Path

import mpiabc
from mpiabc.schedulers import silence
from tests import jobs, problems

RANK = jobs.rank_of(os.environ)


def waiting_for(file):
    def simulate(theta, rng, *, id):
        while id == (0, 5) and not Path(file).exists():
            time.sleep(0.01)
        return problems.gaussian(theta, rng)

    return simulate


def collective(theta, rng):
    if RANK == 1:
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
    return problems.gaussian(theta, rng)


def sampler(simulate=problems.gaussian):
    problem = problems.problem(simulate, name="silent")
    return mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Listed([3, 1.5]), seed=1)


if __name__ == "__main__":
    silence.MINUTE = 0.5
    store, scheduler, case = sys.argv[1:]
    if case in ("absent", "unstarted"):
        if case == "absent":
            from mpi4py import MPI  # noqa: F401 (starts it)
        if RANK == 1:
            time.sleep(1e6)
    sampler(collective if case == "collective" else waiting_for(case)).run(store, scheduler=scheduler)
