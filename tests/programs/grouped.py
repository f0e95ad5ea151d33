"""A long run in an executor or pool, whose workers get each signal that its process gets.

    python -m tests.programs.grouped (fork|spawn|loky|map) FOLDER

Each worker that has begun is a file of the folder's `workers`.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mpiabc
from mpiabc import schedulers
from tests import problems


def simulator(folder):
    def simulate(theta, rng):
        (folder / str(os.getpid())).touch()
        time.sleep(0.005)
        return problems.gaussian(theta, rng)

    return simulate


@contextmanager
def scheduler(how):
    context = multiprocessing.get_context("fork" if how == "fork" else "spawn")
    if how == "map":
        with context.Pool(2) as pool:
            yield schedulers.Map(pool.map)
    elif how == "loky":
        from loky import get_reusable_executor

        with get_reusable_executor(max_workers=2) as executor:
            yield schedulers.Futures(executor)
    else:
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            executor.submit(os.getpid).result()  # the user's own work, before the run
            yield schedulers.Futures(executor)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    (folder / "workers").mkdir(parents=True)
    problem = problems.problem(simulator(folder / "workers"))
    abc = mpiabc.ABCSMC(problem, 30, threshold=mpiabc.Constant(1.5), seed=1)
    with scheduler(sys.argv[1]) as place:
        abc.run(folder / "run.db", generations=10_000, scheduler=place)
