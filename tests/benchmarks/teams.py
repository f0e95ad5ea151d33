"""Efficiency of teams of ranks: (seconds of the simulations below the cuts / teams) / wall.

    mpirun -n 6 python -m tests.benchmarks.teams 2

Simulators sleep, so that more ranks than cores are none the slower; all ranks of a team meet at their end.
Starting the interpreters is not counted, the generations are.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from mpiabc import schedulers
from mpiabc.schedulers.mpi import launched_size
from tests import problems


def sleeping(theta, rng, *, comm, seconds=0.0):
    time.sleep(seconds)
    comm.allreduce(1)
    return problems.gaussian(theta, rng)


def measure(size):
    """A row for each simulator."""
    for seconds in (0.02, 0.1):
        sampler = problems.sampler(n=200, simulate=partial(sleeping, seconds=seconds))
        with tempfile.TemporaryDirectory() as folder:
            history = sampler.run(Path(folder) / "run.db", scheduler=schedulers.MPI(team=size))
            if history is None:
                continue
            wall = sum(population.seconds for population in history)
            work = seconds * sum(population.simulations for population in history)
        teams = launched_size() // size
        print(f"{teams} teams of {size}  {1e3 * seconds:5.0f} ms  {work / teams / wall:.3f}", flush=True)


if __name__ == "__main__":
    measure(int(sys.argv[1]))
