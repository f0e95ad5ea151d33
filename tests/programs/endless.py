"""A run of generations of about half a second, without end for all that tests can tell."""

import sys
import time

import mpiabc
from tests import problems


def gaussian(theta, rng):
    time.sleep(0.005)
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    problem = problems.problem(gaussian, name="gaussian")
    mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Constant(0.5), seed=1).run(
        sys.argv[1], generations=10_000, scheduler="auto"
    )
