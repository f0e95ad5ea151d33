"""More ranks than cores: simulators that sleep for 20 ms, as those that wait for another machine do.

    mpirun -n 64 python -m tests.benchmarks.crowded 4096

Prints (seconds of the simulations below the cuts / ranks) / seconds of the generations, without the start.
"""

import sys
import tempfile
import time
from pathlib import Path

from mpi4py import MPI

import mpiabc

SECONDS = 0.02


def simulate(theta, rng):
    """A normal with unknown mean."""
    time.sleep(SECONDS)
    return {"y": theta["mu"] + rng.standard_normal()}


def main(n):
    """One run."""
    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, observed={"y": 1.0})
    thresholds = mpiabc.Listed([3, 1.5, 0.8, 0.5])
    sampler = mpiabc.ABCSMC(problem, population_size=n, threshold=thresholds, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        history = sampler.run(Path(folder) / "run.db")
        if history is not None:
            simulations = sum(population.simulations for population in history)
            seconds = sum(population.seconds for population in history)
            ideal = simulations * SECONDS / MPI.COMM_WORLD.size
            print(f"{simulations} simulations in {seconds:.1f} s: efficiency {ideal / seconds:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
