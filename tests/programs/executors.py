"""Run every variant of the toy problem on mpi4py's executors; prints the digests as JSON.

mpirun -n 3 python -m mpi4py.futures -m tests.programs.executors pool
mpirun -n 3 python -m tests.programs.executors comm
"""

import json
import sys

from mpi4py.futures import MPICommExecutor, MPIPoolExecutor

from mpiabc import schedulers
from tests.programs import digests as program


def main(executor):
    scheduler = schedulers.Futures(executor)
    print("DIGESTS", json.dumps({v: program.digests(scheduler, v) for v in program.VARIANTS}))


if __name__ == "__main__":
    with MPIPoolExecutor() if sys.argv[1] == "pool" else MPICommExecutor() as executor:
        if executor is not None:
            main(executor)
