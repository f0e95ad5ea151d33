"""The toy problem in pyABC 0.13, run by an interpreter that has it. Prints seconds, simulations, tasks.

    python peer.py SAMPLER N SECONDS BATCH [PORT PASSWORD]

SAMPLER is one of those below, with two workers where it has any. SECONDS of processor time go into a
simulation. Starting the workers is not counted. Tasks are those that go to Dask or the executor.
"""

import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import pyabc.sampler

SAMPLER, N, SECONDS, BATCH, *SERVER = sys.argv[1:]
BUSY = float(SECONDS)
tasks = 0


def model(parameter):
    end = time.thread_time() + BUSY
    while BUSY and time.thread_time() < end:
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
def dask():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.submit = counted(client.submit)
        yield pyabc.sampler.DaskDistributedSampler(client, batch_size=int(BATCH))


@contextmanager
def futures():
    with ProcessPoolExecutor(2) as executor:
        list(executor.map(abs, range(2)))
        executor.submit = counted(executor.submit)
        yield pyabc.sampler.ConcurrentFutureSampler(executor, client_max_jobs=2, batch_size=int(BATCH))


def redis():
    port, password = SERVER
    sampler = pyabc.sampler.RedisEvalParallelSampler
    return nullcontext(sampler(host="127.0.0.1", port=int(port), password=password, batch_size=int(BATCH)))


SAMPLERS = {
    "SingleCore": lambda: nullcontext(pyabc.sampler.SingleCoreSampler()),
    "MulticoreEvalParallel": lambda: nullcontext(pyabc.sampler.MulticoreEvalParallelSampler(n_procs=2)),
    "Dask": dask,
    "Futures": futures,
    "Redis": redis,
}

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with SAMPLERS[SAMPLER]() as sampler, tempfile.TemporaryDirectory() as folder:
        abc = pyabc.ABCSMC(
            model,
            pyabc.Distribution(theta=pyabc.RV("uniform", -10, 20)),
            distance,
            population_size=int(N),
            eps=pyabc.ListEpsilon([4, 2, 1, 0.5, 0.25]),
            sampler=sampler,
        )
        began = time.perf_counter()
        abc.new("sqlite:///" + os.path.join(folder, "run.db"), {"y": 0.0})
        history = abc.run(max_nr_populations=5)
        print(time.perf_counter() - began, history.total_nr_simulations, tasks)
