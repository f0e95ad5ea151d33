"""A run whose simulators have an MPI of their own, or cannot be had in a child: STORE SCHEDULER HOW FOLDER.

HOW: "self", "timeout", which is the same with a timeout, or "dies", whose child ends before it comes up.
Each process that simulates leaves a file in the folder, with the names of what it shares of its memory.
Prints the last digest.
"""

import os
import sys
import time
from pathlib import Path

from mpi4py import MPI

import mpiabc


class Simulator:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, theta, rng):
        note = self.folder / str(os.getpid())
        if not note.exists():
            words = Path("/proc/self/maps").read_text().split()
            note.write_text("\n".join(word for word in words if word.startswith("/dev/shm/")))
        time.sleep(0.02)
        return {"y": theta["mu"] + rng.standard_normal() + MPI.COMM_SELF.allreduce(0.0)}


class OfRanks(Simulator):
    def __call__(self, theta, rng):
        """Rank 1 waits for rank 0's child to have died as often as it is started."""
        while MPI.COMM_WORLD.rank and len(list(self.folder.glob("died-*"))) < 2:
            time.sleep(0.02)
        return super().__call__(theta, rng)

    def __setstate__(self, state):
        """Called where it arrives: not on ranks, which have it from the script."""
        (state["folder"] / f"died-{os.getpid()}").touch()
        os._exit(14)

    def __getstate__(self):
        return {"folder": self.folder}


if __name__ == "__main__":
    store, scheduler, how, folder = sys.argv[1:]
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    simulate = (OfRanks if how == "dies" else Simulator)(Path(folder))
    problem = mpiabc.Problem(prior, simulate, {"y": 1.0}, timeout=60 if how == "timeout" else None)
    history = mpiabc.ABCSMC(problem, 150, seed=1).run(store, generations=2, scheduler=scheduler)
    if history is not None:
        print("DIGEST", history[-1].digest())
