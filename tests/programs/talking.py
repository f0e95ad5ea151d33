"""A simulator that prints, warns and logs in every evaluation, some of it in letters that not all know.

python -m tests.programs.talking STORE SCHEDULER [live] [configured] [silent] [failing]
"""

import logging
import sys
import time
import warnings

import mpiabc
from tests import problems

SAID = ("μ is printed, in pieces", "careless", "logged by a simulator")


def talking(theta, rng):
    print(SAID[0].split(",")[0], end=",")
    print("", *SAID[0].split()[3:])
    warnings.warn(SAID[1], RuntimeWarning, stacklevel=1)
    logging.getLogger("elsewhere").error(SAID[2])
    time.sleep(0.002)
    if "failing" in sys.argv and theta["mu"] > 3:
        raise RuntimeError("μ is too large")
    return problems.gaussian(theta, rng)


def sampler(simulate=talking):
    problem = problems.problem(simulate, name="μ")
    return mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Listed([3, 1.5]), seed=1)


if __name__ == "__main__":
    warnings.simplefilter("always")
    if "configured" in sys.argv:
        logging.basicConfig(level=logging.WARNING)
    progress = True if "live" in sys.argv else False if "silent" in sys.argv else None
    sampler().run(sys.argv[1], scheduler=sys.argv[2], progress=progress)
