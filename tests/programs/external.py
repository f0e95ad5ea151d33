"""A run whose simulations are external programs: STORE SCHEDULER checked|unchecked ON_ERROR.

Where the status of a program is not checked, one that was killed gives what was observed: an evaluation
that never was, and that is accepted.
"""

import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial

import mpiabc
from mpiabc import store
from mpiabc.store import writer

PROGRAM = "MPIABC_TEST_PROGRAM"  # in the environment of the external programs
OBSERVED = 1.0
THRESHOLDS = (3, 2, 1.2, 0.8)


def arithmetic(theta, rng):
    """What the program does, here and in no time."""
    return {"y": theta["mu"] + rng.standard_normal()}


def simulator(is_checked, seconds=0.04):
    def simulate(theta, rng):
        command = f"sleep {seconds} && echo {arithmetic(theta, rng)['y']!r}"
        done = subprocess.run(
            ["sh", "-c", command],
            check=is_checked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ | {PROGRAM: "1"},
            text=True,
        )
        return {"y": float(done.stdout or OBSERVED)}

    return simulate


def sampler(simulate=arithmetic, on_error="raise"):
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, {"y": OBSERVED}, on_error=on_error, name="external"
    )
    return mpiabc.ABCSMC(problem, 10, threshold=mpiabc.Listed(THRESHOLDS), seed=1)


def place(scheduler):
    """What is meant by the word, for a `with`."""
    if scheduler != "executors":
        return nullcontext(scheduler)
    from tests.programs import grouped

    return grouped.scheduler("spawn")


if __name__ == "__main__":
    path, scheduler, how, on_error = sys.argv[1:]
    writer.Journal = partial(store.Journal, period=0.3)  # so that much of the last second is in the file
    with place(scheduler) as engine:
        sampler(simulator(how == "checked"), on_error).run(path, scheduler=engine)
