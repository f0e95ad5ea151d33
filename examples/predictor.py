"""Predictions of a neural network as statistics: what it says of the parameters is compared.

    mpirun -n 4 python examples/predictor.py        (or without mpirun: all cores of this machine)

Fearnhead and Prangle (2012, doi:10.1111/j.1467-9868.2011.01010.x): the best single statistic for a parameter
is its posterior mean, and a regression of parameters on statistics learns it. The network is fitted after
each generation to its first simulations, accepted or not. It needs scikit-learn (`mpiabc[sklearn]`), and
keeps its run in oscillation.db, in the folder where it is started.
"""

import numpy as np
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

import mpiabc

TIMES = np.linspace(0, 5, 40)


class Network:
    """scikit-learn's regression as mpiabc asks for it; with a seed, as a run that goes on fits it again."""

    def fit(self, theta, summaries):
        self.scaler, self.units = StandardScaler().fit(summaries), StandardScaler().fit(theta)
        self.network = MLPRegressor(hidden_layer_sizes=(32,), solver="lbfgs", max_iter=300, random_state=1)
        self.network.fit(self.scaler.transform(summaries), self.units.transform(theta).squeeze())

    def predict(self, summaries):
        found = self.network.predict(self.scaler.transform(summaries))
        return self.units.inverse_transform(found.reshape(len(summaries), -1))


def simulate(theta, rng):
    """A damped oscillation, seen with noise."""
    wave = np.exp(-theta["damping"] * TIMES) * np.cos(theta["frequency"] * TIMES)
    return {"y": wave + 0.3 * rng.standard_normal(len(TIMES))}


def sampler(population_size=500):
    observed = simulate({"damping": 0.3, "frequency": 3.0}, np.random.default_rng(1))
    problem = mpiabc.Problem(
        mpiabc.Prior(damping=mpiabc.Uniform(0, 1), frequency=mpiabc.Uniform(1, 6)),
        simulate,
        observed,
        distance=mpiabc.Predicted(Network(), mpiabc.PNorm(scale="mad")),
    )
    return mpiabc.ABCSMC(problem, population_size, seed=1)


def main():
    history = sampler().run("oscillation.db", generations=6)
    if history is not None:
        print(f"mean {history[-1].mean()}, sd {history[-1].std()}")


if __name__ == "__main__":
    main()
