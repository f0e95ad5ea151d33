"""The last team of two ranks fails in evaluation 0:17, or in the first one after it: HOW ON_ERROR STORE.

HOW: who fails ("first", "other", "all"), "before" or "after" a collective call, as in "other before"; or what
the other rank does: "exit" (of C; "exit first": the first rank), "hang" (with a timeout of two seconds).
"""

import ctypes
import sys
import time

import mpiabc
from mpiabc import schedulers
from mpiabc.schedulers import teams
from mpiabc.schedulers.mpi import launched_size
from tests import problems

HOW, ON_ERROR, STORE = sys.argv[1:]
WHO, _, WHEN = HOW.partition(" ")
IS_ANY = ON_ERROR == "reject"  # team: then the digest is that of any other run
LAST = launched_size() // 2 - 1


def go_wrong(comm):
    if WHO == "exit" and comm.rank == (0 if WHEN == "first" else 1):
        ctypes.CDLL(None).exit(0)
    if WHO == "hang" and comm.rank == 1:
        time.sleep(1000)
    if WHO in {"all", "other" if comm.rank else "first"}:
        raise RuntimeError(f"the pump of part {comm.rank} broke")


def simulate(theta, rng, *, comm, id):
    is_its_turn = id.index == 17 if IS_ANY else id.index >= 17 and mpiabc.worker().team == LAST
    is_wrong = id.generation == 0 and is_its_turn
    if is_wrong and WHEN != "after":
        go_wrong(comm)
    part = comm.allreduce(1)
    if is_wrong and WHEN == "after":
        go_wrong(comm)
    return {"y": theta["mu"] + rng.standard_normal() + part - comm.size}


if __name__ == "__main__":
    teams._PATIENCE = 1.0
    timeout = 2.0 if WHO == "hang" else None
    problem = problems.problem(simulate, on_error=ON_ERROR, timeout=timeout)
    sampler = mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Listed([3, 1.5]), seed=1)
    history = sampler.run(STORE, scheduler=schedulers.MPI(team=2))
    if history is not None:
        print("DONE", history[-1].digest(), [failure.address for failure in history.failures], flush=True)
