"""A run whose simulator reads a large file that is mapped; rank 0 measures the memory of all processes of it.

FOLDER PROCESSES SCHEDULER [--timeout]: the folder holds data.npy. Prints MEGABYTES, the proportional set sizes
of all processes together, when so many have read the file, and then the digests of the run.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

import mpiabc
from tests import problems

DATA = np.zeros(0)


def gaussian(theta, rng):
    """Reads all pages of the file, once in each process."""
    mark = FOLDER / f"{os.getpid()}.pid"
    if not mark.exists():
        DATA[::512].sum()
        mark.touch()
    time.sleep(0.01)
    return problems.gaussian(theta, rng)


def sampler(folder, timeout=None):
    problem = problems.problem(gaussian, timeout=timeout, name="gaussian")
    return mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Constant(3), seed=1)


def megabytes(processes):
    """What these processes take, where each page counts once, however many have it."""
    lines = [
        line
        for process in processes
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    DATA = np.load(FOLDER / "data.npy", mmap_mode="r")
    wanted, told = int(sys.argv[2]), False
    run = sampler(FOLDER, 60 if "--timeout" in sys.argv else None)
    for _ in run.sample(FOLDER / "run.db", scheduler=sys.argv[3], generations=60):
        readers = {int(mark.stem) for mark in FOLDER.glob("*.pid")}
        if len(readers - {os.getpid()}) >= wanted:
            print("MEGABYTES", megabytes(readers | {os.getpid()}))
            break
