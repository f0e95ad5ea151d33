"""Distances of one's own: a function of the data of one simulation, and one of many simulations at once.

A callable gets what `simulate` returned, and what was observed, and gives a number that is not negative, or
nan for what cannot be compared. A distance with `rows(simulated, observed)` gets statistics as numbers,
(n, k) and (k,), and gives (n,): `mpiabc.distances.RowDistance` states what else it may have. That it keeps
its promises is asked by `mpiabc.testing.check_distance(Huber())`, in a test.
"""

from dataclasses import dataclass

import numpy as np

import mpiabc


def dissimilarity(simulated, observed):
    """1 - the correlation of two series: shape counts, height does not."""
    return 1 - np.corrcoef(simulated["y"], observed["y"])[0, 1]


@dataclass(frozen=True)
class Huber:
    """Squares of small differences, and no more than a multiple of large ones: outliers count little."""

    bend: float = 1.0
    is_rowwise = True  # a row's distance does not depend, in any bit, on the rows beside it

    def rows(self, simulated, observed):
        off = np.abs(simulated - observed)
        return np.where(off <= self.bend, off**2 / 2, self.bend * (off - self.bend / 2)).sum(axis=1)


TIMES = np.linspace(0, 6, 30)


def simulate(theta, rng):
    return {"y": np.sin(theta["frequency"] * TIMES) + 0.3 * rng.standard_t(2, len(TIMES))}


def sampler(distance):
    observed = simulate({"frequency": 1.5}, np.random.default_rng(4))
    problem = mpiabc.Problem(
        mpiabc.Prior(frequency=mpiabc.Uniform(0.5, 3)), simulate, observed, distance=distance
    )
    return mpiabc.ABCSMC(problem, 200, seed=1)


if __name__ == "__main__":
    for distance in (dissimilarity, Huber()):
        name = getattr(distance, "__name__", repr(distance))
        history = sampler(distance).run(f"distance-{name}.db", generations=4)
        if history is not None:
            print(name, history[-1].mean(), history[-1].std())
