"""ESPEI's MCMC on whatever runs mpiabc, without a Dask cluster: a pool in the place of its scheduler.

cd examples/espei                                  where its input lies
python ../espei_pool.py                            the cores of this machine
mpirun -n 4 python ../espei_pool.py mpi            the ranks of a job
mpiabc jobscript slurm --ranks 64 ../espei_pool.py mpi

emcee draws all random numbers in the process that leads: the trace is the same everywhere, and that of
`espei --input espei.yaml`.
"""

import json
import sys

from espei.datasets import load_datasets, recursive_glob
from espei.optimizers.opt_mcmc import EmceeOptimizer
from espei.utils import database_symbols_to_fit
from pycalphad import Database

import mpiabc


def main(scheduler):
    with mpiabc.Pool(scheduler) as pool:
        if pool is None:  # a rank that has served, and is done
            return
        database = Database("input.tdb")
        with open("phases.json") as file:
            optimizer = EmceeOptimizer(database, phase_models=json.load(file), scheduler=pool)
        optimizer.fit(
            database_symbols_to_fit(database),
            load_datasets(sorted(recursive_glob("datasets", "*.json"))),
            iterations=20,
            chains_per_parameter=8,
            chain_std_deviation=0.1,
            tracefile="trace.npy",
            probfile="lnprob.npy",
        )
    optimizer.dbf.to_file("fitted.tdb", if_exists="overwrite")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "processes")
