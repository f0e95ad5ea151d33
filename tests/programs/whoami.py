"""A run whose simulators note in files as whom they evaluate: STORE SCHEDULER TIMEOUT FOLDER.

TIMEOUT: seconds, or - for none, with which simulations run in the ranks themselves.
"""

import os
import sys
import time
from pathlib import Path

import mpiabc
from tests import problems


def noted(folder):
    """A simulator that notes in a file of its process's name who it is."""

    def simulate(theta, rng):
        time.sleep(0.001)
        (folder / str(os.getpid())).write_text(repr(mpiabc.worker()))
        return problems.gaussian(theta, rng)

    return simulate


if __name__ == "__main__":
    store, scheduler, timeout, folder = sys.argv[1:]
    sampler = problems.sampler(
        simulate=noted(Path(folder)), timeout=None if timeout == "-" else float(timeout)
    )
    sampler.run(store, scheduler=scheduler)
