"""One script under mpirun in which dask-mpi has started the cluster: rank 1 goes on, the others serve it.

mpirun -n 4 python -m tests.programs.dask_inside [SCHEDULER]
"""

import json
import sys

import dask_mpi

from tests.programs import digests as program

if __name__ == "__main__":
    dask_mpi.initialize(dashboard=False)
    digests = {variant: program.digests(*sys.argv[1:] or ["auto"], variant) for variant in program.VARIANTS}
    print("DIGESTS", json.dumps(digests))
