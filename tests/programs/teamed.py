"""Runs of simulators that are MPI programs, on teams of the sizes given; rank 0 prints the digests.

Arguments: SIZE,SIZE... VARIANT... Size 0 is the serial scheduler.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import mpiabc
from mpiabc import schedulers
from tests import problems


def rounds(theta, rng, *, comm):
    """A sum over parts that is the same in any number of parts, with random numbers that all ranks draw."""
    numbers = rng.integers(-1000, 1000, size=24)
    part = np.array(numbers[comm.rank :: comm.size].sum(), np.int64)
    whole = comm.allreduce(int(part))
    return {"y": theta["mu"] + whole / 5000} if comm.rank == 0 else None


def blocks(theta, rng, *, comm):
    """The same for a block of parameters."""
    numbers = rng.integers(-1000, 1000, size=(24, len(theta["mu"])))
    whole = np.empty(len(theta["mu"]), np.int64)
    comm.Allreduce(np.ascontiguousarray(numbers[comm.rank :: comm.size].sum(0)), whole)
    return {"y": theta["mu"] + whole / 5000}


def global_numbers(theta, *, comm):
    """Draws from NumPy's global generator, on all ranks."""
    numbers = np.random.randint(-1000, 1000, size=24)
    return {"y": theta["mu"] + comm.allreduce(int(numbers[comm.rank :: comm.size].sum())) / 5000}


def some_fail(theta, rng, *, comm):
    """In one of nine evaluations all ranks raise, after one has sent what nobody takes."""
    if rng.integers(9) == 0:
        if comm.rank == 0 and comm.size > 1:
            comm.isend("stale", dest=1)
        raise RuntimeError("the pump broke")
    if comm.rank == 0 and comm.size > 1:
        comm.isend("fresh", dest=1)
    assert comm.rank != 1 or comm.recv(source=0) == "fresh"
    return rounds(theta, rng, comm=comm)


def several():
    """Two models, whose calls all ranks of a team make in the same order."""
    first = problems.problem(blocks, vectorized=True)
    prior = mpiabc.Prior(mu=mpiabc.Normal(1, 1), unused=mpiabc.Uniform(0, 1))
    models = [first, replace(first, prior=prior, name="another")]
    return mpiabc.ABCSMC(models, 40, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)


VARIANTS = {
    "scalar": lambda: problems.sampler(n=40, simulate=rounds),
    "vectorized": lambda: problems.sampler(n=40, simulate=blocks, vectorized=True),
    "recycled": lambda: problems.sampler(n=40, simulate=rounds, recycle=True),
    "global": lambda: problems.sampler(n=40, simulate=global_numbers),
    "failing": lambda: problems.sampler(n=40, simulate=some_fail, on_error="reject"),
    "several models": several,
    "static": lambda: problems.sampler(n=20, simulate=rounds),
}


def digests(variant, size):
    """Those of one run; None where it is not led."""
    if size == 0:
        place = "serial"
    else:
        place = (schedulers.MPIStatic if variant == "static" else schedulers.MPI)(team=size)
    with tempfile.TemporaryDirectory() as folder:
        history = VARIANTS[variant]().run(Path(folder) / "run.db", scheduler=place)
        return None if history is None else problems.digests(history)


if __name__ == "__main__":
    sizes = [int(size) for size in sys.argv[1].split(",")]
    variants = sys.argv[2:] or VARIANTS
    found = {f"{variant} {size}": digests(variant, size) for variant in variants for size in sizes}
    if None not in found.values():
        print("DIGESTS", json.dumps(found))
