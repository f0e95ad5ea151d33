"""A script of pyABC, of which one line is ours: two models of a growing population, and which one it was.

    mpirun -n 4 python examples/pyabc_mpi.py

The counts were made by the first model. All ranks come to the line of the sampler; rank 0 alone goes on.
"""

import argparse
import tempfile

import numpy as np
import pyabc

from mpiabc.adapters.pyabc import Sampler

DAYS = 12
OBSERVED = np.array([2, 5, 6, 11, 17, 24, 39, 50, 83, 121, 170, 270])


def exponential(parameters):
    """Counts of a population that grows for ever."""
    return {"counts": np.random.poisson(2 * np.exp(parameters["rate"] * np.arange(DAYS)))}


def logistic(parameters):
    """Counts of one that has room for 200."""
    grown = 2 * np.exp(parameters["rate"] * np.arange(DAYS))
    return {"counts": np.random.poisson(200 * grown / (198 + grown))}


def distance(simulated, observed):
    """Between the roots of counts, whose spread does not grow with their mean."""
    return np.abs(np.sqrt(simulated["counts"]) - np.sqrt(observed["counts"])).sum()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--population", type=int, default=200)
    arguments.add_argument("--generations", type=int, default=5)
    arguments.add_argument("--scheduler", default="auto")
    options = arguments.parse_args()

    sampler = Sampler(options.scheduler, seed=1)
    prior = pyabc.Distribution(rate=pyabc.RV("uniform", 0, 1))
    abc = pyabc.ABCSMC(
        [exponential, logistic],
        [prior, prior],
        distance,
        population_size=options.population,
        sampler=sampler,
    )
    with tempfile.TemporaryDirectory() as folder:
        abc.new(f"sqlite:///{folder}/growth.db", {"counts": OBSERVED})
        history = abc.run(max_nr_populations=options.generations)
        probabilities = history.get_model_probabilities(history.max_t)["p"].to_dict()
        rates, weights = history.get_distribution(m=0)
    print("probability of unlimited growth:", round(float(probabilities.get(0, 0.0)), 3))
    print("its rate:", round(float(np.average(rates["rate"], weights=weights)), 3))


if __name__ == "__main__":
    main()
