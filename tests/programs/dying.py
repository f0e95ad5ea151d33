"""A run in which ranks kill themselves, one after another, in the order given: STORE RANKS, as in 3,1,2."""

import os
import signal
import sys
import time
from pathlib import Path

import mpiabc
from tests import problems

STORE = Path(sys.argv[1])
ORDER = [int(rank) for rank in sys.argv[2].split(",")]
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK", 0))
BEGAN = time.monotonic()


def gaussian(theta, rng):
    time.sleep(0.002)
    turn = len(list(STORE.parent.glob("dead-*")))
    if turn < len(ORDER) and ORDER[turn] == RANK and time.monotonic() - BEGAN > 0.2 * (turn + 1):
        STORE.with_name(f"dead-{RANK}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    problem = problems.problem(gaussian, name="gaussian")
    abc = mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    history = abc.run(STORE, scheduler="mpi")
    if history is not None:
        print("DONE", *problems.digests(history), flush=True)
