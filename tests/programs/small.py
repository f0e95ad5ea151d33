"""A run of about a second that journals all the time.

python -m tests.programs.small STORE SCHEDULER SECONDS-A-SIMULATION [recycle] [lookahead]
"""

import sys
import time
from functools import partial

import mpiabc
from mpiabc import store
from mpiabc.store import writer
from tests import problems


def sampler(pause=0.0, recycle=False, lookahead=False):
    def gaussian(theta, rng):
        time.sleep(pause)
        return problems.gaussian(theta, rng)

    problem = problems.problem(gaussian, name="gaussian")
    threshold = mpiabc.Listed([3, 1.5, 1, 0.8, 0.5] if recycle else [3, 1.5, 1, 0.8])
    options = {"recycle": recycle, "lookahead": lookahead}
    return mpiabc.ABCSMC(problem, 50, threshold=threshold, seed=1, **options)


if __name__ == "__main__":
    writer.Journal = partial(store.Journal, period=0.02)
    options = {word: word in sys.argv for word in ("recycle", "lookahead")}
    sampler(float(sys.argv[3]), **options).run(sys.argv[1], scheduler=sys.argv[2])
