"""A user's file that says nothing of schedulers and time; the program of each simulation leaves its name."""

import sys
from pathlib import Path

import mpiabc
from tests import problems


def gaussian(theta, rng):
    Path(f"simulated-by-{Path(sys.argv[0]).name}").touch()
    return problems.gaussian(theta, rng)


problem = problems.problem(gaussian, name="gaussian")

if __name__ == "__main__":
    mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1).run("run.db")
