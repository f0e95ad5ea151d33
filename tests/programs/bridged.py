"""A run over Redis, URL STORE MILLISECONDS [mpi GO]: on the ranks of this job too, once the file GO is there.

Prints its digests.
"""

import os
import sys
import time

import mpiabc
from mpiabc import schedulers
from tests import bridge, problems

URL, STORE = sys.argv[1:3]
SECONDS = float(sys.argv[3]) / 1000
GO = sys.argv[5] if sys.argv[4:] else None


def gaussian(theta, rng):
    while GO and not os.path.exists(GO):
        time.sleep(0.01)
    time.sleep(SECONDS)
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    place = schedulers.Redis(URL, password=bridge.PASSWORD, secret=bridge.SECRET)
    if GO:
        place = [schedulers.MPI(), place]
    problem = problems.problem(gaussian, name="gaussian")
    abc = mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    history = abc.run(STORE, scheduler=place)
    if history is not None:
        print("DONE", *problems.digests(history), flush=True)
