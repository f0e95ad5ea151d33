"""The toy problem in pyABC 0.13; run by an interpreter that has it. Prints microseconds per simulation."""

import logging
import os
import sys
import tempfile
import time

import numpy as np
import pyabc


def model(parameter):
    return {"y": parameter["theta"] + np.random.standard_normal()}


def distance(x, x0):
    return abs(x["y"] - x0["y"])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    name, n = sys.argv[1], int(sys.argv[2])
    options = {"n_procs": 2} if name.startswith("Multicore") else {}
    sampler = getattr(pyabc.sampler, name + "Sampler")(**options)
    abc = pyabc.ABCSMC(
        model,
        pyabc.Distribution(theta=pyabc.RV("uniform", -10, 20)),
        distance,
        population_size=n,
        eps=pyabc.ListEpsilon([4, 2, 1, 0.5, 0.25]),
        sampler=sampler,
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        abc.new("sqlite:///" + os.path.join(folder, "run.db"), {"y": 0.0})
        history = abc.run(max_nr_populations=5)
        wall = time.perf_counter() - began
        print(wall / history.total_nr_simulations * 1e6)
