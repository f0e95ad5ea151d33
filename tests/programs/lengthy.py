"""A run whose simulations take longer than anybody waits: STORE SCHEDULER FOLDER HOW.

Each process that simulates leaves a file in the folder first. HOW: "c", a library's function that lets other
threads go on; "program", a shell and a program of it; "orphan", a program whose shell has gone.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import mpiabc

_LONG = "1000"  # seconds


def simulator(folder, how):
    def simulate(theta, rng):
        if how == "orphan":
            subprocess.run(["sh", "-c", f"sleep {_LONG} &"], check=True)
        (Path(folder) / str(os.getpid())).touch()
        if how == "program":
            subprocess.run(["sh", "-c", f"sleep {_LONG}; true"], check=True)
        ctypes.CDLL(None).sleep(int(_LONG))
        return {"y": theta["mu"]}

    return simulate


if __name__ == "__main__":
    store, scheduler, folder, how = sys.argv[1:]
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    problem = mpiabc.Problem(prior, simulator(folder, how), {"y": 1.0})
    mpiabc.ABCSMC(problem, 20, seed=1).run(store, generations=2, scheduler=scheduler)
