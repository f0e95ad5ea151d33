"""The toy problem in pyABC 0.13 over Redis, run by an interpreter that has it. Prints seconds, simulations.

PORT PASSWORD N BATCH SECONDS, the last being the processor time of a simulation.
"""

import logging
import os
import sys
import tempfile
import time

import numpy as np
import pyabc

PORT, PASSWORD, N, BATCH, SECONDS = sys.argv[1:]
BUSY = float(SECONDS)


def model(parameter):
    end = time.thread_time() + BUSY
    while BUSY and time.thread_time() < end:
        pass
    return {"y": parameter["theta"] + np.random.standard_normal()}


def distance(x, x0):
    return abs(x["y"] - x0["y"])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    abc = pyabc.ABCSMC(
        model,
        pyabc.Distribution(theta=pyabc.RV("uniform", -10, 20)),
        distance,
        population_size=int(N),
        eps=pyabc.ListEpsilon([4, 2, 1, 0.5, 0.25]),
        sampler=pyabc.sampler.RedisEvalParallelSampler(
            host="127.0.0.1", port=int(PORT), password=PASSWORD, batch_size=int(BATCH)
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        abc.new("sqlite:///" + os.path.join(folder, "run.db"), {"y": 0.0})
        history = abc.run(max_nr_populations=5)
        print(time.perf_counter() - began, history.total_nr_simulations)
