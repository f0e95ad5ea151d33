"""N = 10 000, d = 10 on two ranks; then the worker waits, and says what it has used."""

import resource
import sys
import time

import numpy as np

import mpiabc

D = 10


def simulate(theta, rng):
    return {"y": np.stack(list(theta.values()), axis=1) + rng.standard_normal((len(theta["x0"]), D))}


problem = mpiabc.Problem(
    mpiabc.Prior(**{f"x{i}": mpiabc.Normal(0, 1) for i in range(D)}),
    simulate,
    {"y": np.zeros(D)},
    vectorized=True,
)

if __name__ == "__main__":
    abc = mpiabc.ABCSMC(problem, 10_000, threshold=mpiabc.Quantile(0.7), seed=1)
    abc.run(sys.argv[1], generations=3, scheduler="mpi")
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 1:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        # A second run: rank 0 comes 3 s late, nothing else happens here.
        before, began = time.process_time(), time.monotonic()
        abc.run(sys.argv[1] + "2", generations=1, scheduler="mpi")
        share = (time.process_time() - before) / (time.monotonic() - began)
        print("WORKER", peak, share, flush=True)
    else:
        time.sleep(3)
        tiny = mpiabc.ABCSMC(problem, 2, seed=1)
        tiny.run(sys.argv[1] + "2", generations=1, scheduler="mpi")
