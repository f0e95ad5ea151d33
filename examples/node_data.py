"""A large record of the past, read by all processes of a node, of which each node has one copy.

python examples/node_data.py                      the cores of this machine
mpirun -n 4 python examples/node_data.py mpi      the ranks of a job

How strongly does the weather of the last months drive what is measured? Each simulation takes a year at
random out of a record of many, which lies in a file (here 40 MB, made if it is not there; it may be
larger than the memory of a process). Mapped to be read, the file is shared by all processes of a node;
to workers travels where it is, so all hosts must see it at the same path.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

import mpiabc

FOLDER = Path(os.environ.get("NODE_DATA", "."))
YEARS, DAYS = 13_700, 365


def record():
    """The record, mapped. Whoever comes first makes the file, which is whole when it appears."""
    file = FOLDER / "weather.npy"
    if not file.exists():
        part = file.with_name(f"weather-{os.getpid()}.npy")
        np.save(part, np.random.default_rng(1).gamma(2.0, 1.0, (YEARS, DAYS)))
        with suppress(FileExistsError):  # another process was first: its file is the one that all have
            os.link(part, file)
        part.unlink()
    return np.load(file, mmap_mode="r")


def simulator(weather):
    """A yearly yield that grows with what falls in its days, of which the memory keeps the last ones best."""

    def simulate(theta, rng):
        year = weather[rng.integers(YEARS)]  # one row is read of the file, none is copied
        weights = np.exp(-np.arange(DAYS)[::-1] / theta["memory"])
        wetness = year @ weights / weights.sum()
        return {"yield": theta["effect"] * wetness + rng.normal(0, 0.1), "wetness": wetness}

    return simulate


def main(scheduler):
    prior = mpiabc.Prior(effect=mpiabc.Uniform(0, 3), memory=mpiabc.Uniform(5, 100))
    problem = mpiabc.Problem(prior, simulator(record()), {"yield": 3.1, "wetness": 2.05}, name="weather")
    sampler = mpiabc.ABCSMC(problem, population_size=200, seed=1)
    history = sampler.run(FOLDER / "weather.db", scheduler=scheduler, generations=4)
    if history is None:  # a rank that has served, and is done
        return
    effect = history[-1].mean()["effect"]
    print(f"effect {effect:.6f}, digest {history[-1].digest()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "processes")
