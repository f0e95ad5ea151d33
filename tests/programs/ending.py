"""A run that ends as $ENDING says, in the file $STORE: a script, and a file for `mpiabc run`."""

import os
import time
from pathlib import Path

import mpiabc

ENDING = os.environ["ENDING"]


def simulate(theta, rng, *, id):
    time.sleep(0.001 if ENDING == "done" else 0.005)
    if ENDING == "fails" and id.generation == 1 and id.index >= 20:
        raise RuntimeError("the pump broke")
    if ENDING == "hangs" and id.generation == 1:
        time.sleep(60)
    return {"y": theta["mu"] + rng.standard_normal()}


problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, {"y": 1.0}, name="ending")

if __name__ == "__main__":
    if ENDING == "late":
        from mpi4py import MPI

        Path(os.environ["STORE"] + ".late").touch()
        time.sleep(600 * MPI.COMM_WORLD.rank)
    abc = mpiabc.ABCSMC(problem, 30, threshold=mpiabc.Constant(1.5), seed=1)
    abc.run(
        os.environ["STORE"],
        generations=3 if ENDING == "done" else 10_000,
        walltime=1.0 if ENDING == "walltime" else None,
    )
