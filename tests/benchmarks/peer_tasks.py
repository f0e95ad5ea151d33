"""The toy problem in pyABC 0.13 on Dask or an executor with 2 workers; run by an interpreter that has it.

    python peer_tasks.py Dask|Futures N SECONDS BATCH

Prints microseconds of wall time per simulation, and tasks per simulation. SECONDS are of processor time.
"""

import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np
import pyabc
from pyabc.sampler import ConcurrentFutureSampler, DaskDistributedSampler

PLACE, N, SECONDS, BATCH = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
tasks = 0


def model(parameter):
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        pass
    return {"y": parameter["theta"] + np.random.standard_normal()}


def distance(x, x0):
    return abs(x["y"] - x0["y"])


def counted(submit):
    def call(*arguments, **options):
        global tasks
        tasks += 1
        return submit(*arguments, **options)

    return call


@contextmanager
def sampler():
    if PLACE == "Dask":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            client.submit = counted(client.submit)
            yield DaskDistributedSampler(client, batch_size=BATCH)
    else:
        with ProcessPoolExecutor(2) as executor:
            list(executor.map(abs, range(2)))
            executor.submit = counted(executor.submit)
            yield ConcurrentFutureSampler(executor, client_max_jobs=2, batch_size=BATCH)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with sampler() as place, tempfile.TemporaryDirectory() as folder:
        abc = pyabc.ABCSMC(
            model,
            pyabc.Distribution(theta=pyabc.RV("uniform", -10, 20)),
            distance,
            population_size=N,
            eps=pyabc.ListEpsilon([4, 2, 1, 0.5, 0.25]),
            sampler=place,
        )
        began = time.perf_counter()
        abc.new("sqlite:///" + os.path.join(folder, "run.db"), {"y": 0.0})
        history = abc.run(max_nr_populations=5)
        wall = time.perf_counter() - began
        print(wall / history.total_nr_simulations * 1e6, tasks / history.total_nr_simulations)
