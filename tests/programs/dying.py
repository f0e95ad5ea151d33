"""A run in which ranks kill themselves, one after another, until rank 0 is alone; needs fault tolerance."""

import os
import signal
import sys
import time
from pathlib import Path

import mpiabc
from tests import problems

STORE, DYING = sys.argv[1], int(sys.argv[2])


def gaussian(theta, rng):
    time.sleep(0.004)
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK", 0))
    turn = len(list(Path(STORE).parent.glob("dead-*")))
    if rank == turn + 1 <= DYING and time.monotonic() - BEGAN > 0.4 * (turn + 1):
        Path(STORE).with_name(f"dead-{rank}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return problems.gaussian(theta, rng)


BEGAN = time.monotonic()

if __name__ == "__main__":
    problem = problems.problem(gaussian, name="gaussian")
    abc = mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    history = abc.run(STORE, scheduler="mpi")
    if history is not None:
        print("DONE", *problems.digests(history), flush=True)
