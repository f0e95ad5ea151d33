"""A threshold of one's own: from generation to generation half of the way to a goal.

A threshold has `epsilon(generation, previous)`: the number for this generation, from the population before
(None before the first), or None when there are no more. It must not rise, and be a function of these two:
`mpiabc.testing.check_threshold(Halfway(0.2))` asks that, in a test.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

import mpiabc


@dataclass(frozen=True)
class Halfway:
    """Half of the way from the epsilon before, or the population's largest distance, to a goal."""

    goal: float
    enough: float = 1e-2  # of the goal

    def epsilon(self, generation, previous):
        if previous is None:
            return np.inf
        last = min(previous.epsilon, previous.distances.max())
        return None if last <= self.goal * (1 + self.enough) else (last + self.goal) / 2


def simulate(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal()}


problem = mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), simulate, {"y": 1.0})
abc = mpiabc.ABCSMC(problem, 200, threshold=Halfway(0.2), seed=1)

if __name__ == "__main__":
    history = abc.run("threshold.db", generations=4)
    if history is not None:
        print([float(population.epsilon) for population in history])
