"""A distance that is fitted: in units of how far simulations typically lie from what was observed.

A distance with `fit(sample, observed)` is fitted after each generation to its first simulations, accepted or
not: `sample.summaries` (n, k), `sample.theta` (n, d). What it gives measures the next generation, and the
present one once more. `fit` must give the same every time: a run that goes on fits again. Generation 0,
which accepts all, has the distance as it is given.
"""

from dataclasses import dataclass

import numpy as np

import mpiabc


@dataclass(frozen=True)
class Typical:
    """The sum of absolute differences, each in units of its median over the last generation."""

    units: tuple[float, ...] = ()
    is_rowwise = True

    def rows(self, simulated, observed):
        return (np.abs(simulated - observed) / (self.units or 1.0)).sum(axis=1)

    def fit(self, sample, observed):
        units = np.median(np.abs(sample.summaries - observed), axis=0)
        return Typical(tuple(units.tolist()))


def simulate(theta, rng):
    return {"small": theta["mu"] + rng.standard_normal(), "large": 1000 * rng.standard_normal()}


problem = mpiabc.Problem(
    mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, {"small": 1.0, "large": 0.0}, distance=Typical()
)
abc = mpiabc.ABCSMC(problem, 200, seed=1)

if __name__ == "__main__":
    history = abc.run("fitted.db", generations=4)
    if history is not None:
        print(history[-1].mean(), history[-1].std())
