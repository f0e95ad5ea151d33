"""A run of teams that takes a while: STORE WALLTIME PAUSE DYING TEAM.

WALLTIME: or - for none. PAUSE: seconds of a simulation. DYING: ranks that kill themselves, one after another,
in the midst of a simulation whose collective call comes then, as in 3,1; or - for none.
"""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from mpiabc import schedulers, store
from mpiabc.schedulers.mpi import launched_rank
from mpiabc.store import writer
from tests import problems

BEGAN = time.monotonic()


def die_in_turn():
    """What is given to one run alone is read here: globals would be values of the problem."""
    store, dying = Path(sys.argv[1]), sys.argv[4].split(",")
    turn = len(list(store.parent.glob("dead-*")))
    is_due = turn < len(dying) and dying[turn] == str(launched_rank())
    if is_due and time.monotonic() - BEGAN > 0.3 * (turn + 1):
        store.with_name(f"dead-{launched_rank()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def simulate(theta, rng, *, comm):
    time.sleep(float(sys.argv[3]))
    die_in_turn()
    assert comm.allreduce(1) == comm.size
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    writer.Journal = partial(store.Journal, period=0.1)
    sampler = problems.sampler(n=60, simulate=simulate)
    walltime = None if sys.argv[2] == "-" else sys.argv[2]
    history = sampler.run(sys.argv[1], scheduler=schedulers.MPI(team=int(sys.argv[5])), walltime=walltime)
    if history is not None:
        print("DONE", *problems.digests(history), flush=True)
