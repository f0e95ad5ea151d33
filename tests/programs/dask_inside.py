"""One script under mpirun in which dask-mpi has started the cluster: rank 1 goes on, the others serve it.

mpirun -n 4 python -m tests.programs.dask_inside
"""

import json

import dask_mpi

from tests.programs import digests as program

if __name__ == "__main__":
    dask_mpi.initialize(dashboard=False)
    print("DIGESTS", json.dumps({v: program.digests("dask", v) for v in program.VARIANTS}))
