"""A simulator that prints, warns and logs in every evaluation, under a μ: STORE SCHEDULER [print]."""

import logging
import os
import sys
import time
import warnings

import mpiabc
from mpiabc import schedulers
from tests import problems

FOREVER = "x" in os.environ.get("TALKING", "")


def talking(theta, rng):
    print("μ is printed", "by a simulator")
    print("begun", end=" ")
    print("and ended")
    warnings.warn("careless", RuntimeWarning, stacklevel=1)
    logging.getLogger("elsewhere").error("logged by a simulator")
    time.sleep(0.002)
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    warnings.simplefilter("always")
    problem = problems.problem(talking, name="talking")
    scheduler = sys.argv[2]
    if scheduler.isdecimal():
        scheduler = schedulers.Processes(int(scheduler))
    mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Listed([3, 1.5]), seed=1).run(sys.argv[1], scheduler=scheduler)
