"""A straight line fitted by emcee on whatever runs mpiabc: one pool for its walkers.

python examples/emcee_pool.py                     the cores of this machine
mpirun -n 4 python examples/emcee_pool.py mpi     the ranks of a job
python examples/emcee_pool.py my_scheduler.json   a Dask cluster

emcee draws all random numbers in the process that leads: the chain is the same everywhere.
"""

import sys

import emcee
import numpy as np

import mpiabc

X = np.linspace(0, 10, 50)
Y = 0.7 * X + 2.0 + np.random.default_rng(1).normal(0, 0.5, X.size)


def log_probability(parameters):
    slope, intercept = parameters
    return -0.5 * np.sum(((Y - slope * X - intercept) / 0.5) ** 2)


def main(scheduler):
    with mpiabc.Pool(scheduler) as pool:
        if pool is None:  # a rank that has served, and is done
            return
        np.random.seed(1)  # emcee's, by its own design
        start = np.random.normal([0.5, 1.0], 0.1, (32, 2))
        sampler = emcee.EnsembleSampler(32, 2, log_probability, pool=pool)
        sampler.run_mcmc(start, 200)
    slope, intercept = sampler.get_chain(discard=100, flat=True).mean(axis=0)
    print(f"slope {slope:.6f} intercept {intercept:.6f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "processes")
