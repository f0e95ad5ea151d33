"""A run whose simulator leaves a pool whose processes are at work: it ends them by SIGTERM, and waits.

python -m tests.programs.pooling SCHEDULER
"""

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mpiabc
from tests import problems


def simulate(theta, rng):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.apply_async(time.sleep, (600,))
        (size,) = pool.map(abs, [theta["mu"]])
    return {"y": size + rng.standard_normal()}


if __name__ == "__main__":
    scheduler = sys.argv[1]
    if scheduler == "executors":
        scheduler = mpiabc.schedulers.Futures(ProcessPoolExecutor(2, multiprocessing.get_context("fork")))
    with tempfile.TemporaryDirectory() as folder:
        sampler = mpiabc.ABCSMC(problems.problem(simulate), 4, threshold=mpiabc.Constant(9.0), seed=1)
        history = sampler.run(Path(folder) / "run.db", scheduler=scheduler, generations=1)
        if history is not None:
            print("DIGEST", history[-1].digest())
