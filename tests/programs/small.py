"""A run of about a second that journals all the time; arguments: store, scheduler, seconds a simulation."""

import sys
import time
from functools import partial

import mpiabc
from mpiabc import store
from mpiabc.store import writer
from tests import problems


def sampler(pause=0.0):
    def gaussian(theta, rng):
        time.sleep(pause)
        return problems.gaussian(theta, rng)

    problem = problems.problem(gaussian, name="gaussian")
    return mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Listed([3, 1.5, 1, 0.8]), seed=1)


if __name__ == "__main__":
    writer.Journal = partial(store.Journal, period=0.02)
    sampler(float(sys.argv[3])).run(sys.argv[1], scheduler=sys.argv[2])
