"""Runs whose simulator reads a file that is mapped.

FOLDER memory PROCESSES [timeout]: rank 0 prints MEGABYTES, the proportional set sizes of all processes of the
run together, when so many besides itself have read all of FOLDER/data.npy.
FOLDER run [timeout]: prints DIGESTS, those of the populations.
FOLDER other: rank 1 has FOLDER/other/data.npy in place of FOLDER/data.npy.
FOLDER changed [timeout]: so it has, and that changes before its call of run.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

import mpiabc
from tests import problems


def sampler(data, **options):
    """Of a simulator that adds a number of `data` to what it simulates."""

    def reading(theta, rng):
        y = problems.gaussian(theta, rng)["y"]
        return {"y": y + data[rng.integers(len(data)), 0]}

    problem = problems.problem(reading, name="reading", **options)
    return mpiabc.ABCSMC(problem, 40, seed=1)


def digests(data, store, scheduler, **options):
    """Of a short run."""
    history = sampler(data, **options).run(store, scheduler=scheduler, generations=3)
    return None if history is None else problems.digests(history)


def reader_of_all(data, folder):
    """A simulator that reads all pages of the file, once in each process."""

    def gaussian(theta, rng):
        mark = folder / f"{os.getpid()}.reader"
        if not mark.exists():
            data.reshape(-1)[::512].sum()
            mark.touch()
        time.sleep(0.01)
        return problems.gaussian(theta, rng)

    return gaussian


def measure(data, folder, processes, **options):
    """Run until so many processes have read the file."""
    (folder / f"{os.getpid()}.rank").touch()
    problem = problems.problem(reader_of_all(data, folder), **options)
    run = mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Constant(3), seed=1)
    for _ in run.sample(folder / "run.db", scheduler="mpi", generations=10_000):
        readers = {int(mark.stem) for mark in folder.glob("*.reader")}
        if len(readers - {os.getpid()}) >= processes:
            print("MEGABYTES", megabytes(readers | {int(mark.stem) for mark in folder.glob("*.rank")}))
            break


def megabytes(processes):
    """What these processes take, where each page counts once, however many have it."""
    lines = [
        line
        for process in processes
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main(folder, what, *words):
    options = {"timeout": 60} if "timeout" in words else {}
    rank = int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", 0)))
    is_other = rank == 1 and what in ("other", "changed")
    file = folder / ("other" if is_other else "") / "data.npy"
    data = np.load(file, mmap_mode="r")
    if what == "memory":
        measure(data, folder, int(words[0]), **options)
    elif what == "changed":
        run = sampler(data, **options)
        if rank == 1:
            os.utime(file, ns=(0, 0))
        run.run(folder / "run.db", scheduler="mpi", generations=3)
    elif found := digests(data, folder / "run.db", "mpi", **options):
        print("DIGESTS", *found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
