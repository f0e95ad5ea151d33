"""A run of batches, whose process is killed in its third generation if a flag is given and not there yet.

Arguments: store, scheduler, flag.
"""

import os
import signal
import sys
from pathlib import Path

import mpiabc
from tests import problems


def sampler(simulate=problems.gaussian_vectorized, n=150, recycle=None, **options):
    """mu ~ U(-2, 2), so that later proposals lie outside too."""
    settings = {"vectorized": True, "batch": 512} | options
    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Uniform(-2, 2)), simulate, {"y": 1.0}, **settings)
    return mpiabc.ABCSMC(problem, n, threshold=mpiabc.Listed([3, 1, 0.2]), seed=1, recycle=recycle)


def simulate(theta, rng, *, id):
    """The toy simulator, killed once."""
    if len(sys.argv) > 3 and id.generation == 2 and id.index[0] >= 512 and not Path(sys.argv[3]).exists():
        Path(sys.argv[3]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return problems.gaussian_vectorized(theta, rng)


if __name__ == "__main__":
    sampler(simulate).run(sys.argv[1], scheduler=sys.argv[2])
