"""A run of a few seconds that journals every tenth of a second; arguments: store, scheduler, walltime
or - for none, and the seconds of a simulation."""

import sys
import time
from functools import partial

import mpiabc
from mpiabc import store
from mpiabc.store import writer
from tests import problems


def sampler(pause=0.004):
    def gaussian(theta, rng):
        time.sleep(pause)
        return problems.gaussian(theta, rng)

    problem = problems.problem(gaussian, name="gaussian")
    return mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)


if __name__ == "__main__":
    writer.Journal = partial(store.Journal, period=0.1)  # so that short tests have something to lose
    walltime = sys.argv[3] if len(sys.argv) > 3 and sys.argv[3] != "-" else None
    pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.004
    sampler(pause).run(sys.argv[1], scheduler=sys.argv[2], walltime=walltime)
