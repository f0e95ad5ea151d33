"""A run over Redis, URL STORE MILLISECONDS [mpi]: with the ranks of this job too. Prints its digests."""

import sys
import time

import mpiabc
from mpiabc import schedulers
from tests import bridge, problems

URL, STORE = sys.argv[1:3]
SECONDS = float(sys.argv[3]) / 1000


def gaussian(theta, rng):
    time.sleep(SECONDS)
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    place = schedulers.Redis(URL, password=bridge.PASSWORD, secret=bridge.SECRET)
    if sys.argv[4:] == ["mpi"]:
        place = [schedulers.MPI(), place]
    problem = problems.problem(gaussian, name="gaussian")
    abc = mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    history = abc.run(STORE, scheduler=place)
    if history is not None:
        print("DONE", *problems.digests(history), flush=True)
