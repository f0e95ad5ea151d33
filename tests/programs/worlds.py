"""A run whose simulators have an MPI of their own, or cannot be had in a child: STORE SCHEDULER HOW.

HOW: "self", "timeout", which is the same with a timeout, or "dies", whose child ends before it comes up.
Prints the last digest.
"""

import os
import sys
import time

from mpi4py import MPI

import mpiabc


class Simulator:
    def __call__(self, theta, rng):
        time.sleep(0.02)
        return {"y": theta["mu"] + rng.standard_normal() + MPI.COMM_SELF.allreduce(0.0)}


class OfRanks(Simulator):
    def __setstate__(self, state):
        """Called where it arrives: not on ranks, which have it from the script."""
        os._exit(14)

    def __getstate__(self):
        return {"is": "somewhere else"}


if __name__ == "__main__":
    store, scheduler, how = sys.argv[1:]
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    simulate = OfRanks() if how == "dies" else Simulator()
    problem = mpiabc.Problem(prior, simulate, {"y": 1.0}, timeout=60 if how == "timeout" else None)
    history = mpiabc.ABCSMC(problem, 150, seed=1).run(store, generations=2, scheduler=scheduler)
    if history is not None:
        print("DIGEST", history[-1].digest())
