"""A size of one's own: more particles from generation to generation, as the threshold falls.

A rule for sizes has `size(generation, previous)`: the number of particles of this generation, from the
population before (None before the first). It must be a function of these two. `high`, if there is one, is the
most that it will ever ask for.
"""

from dataclasses import dataclass

from scipy import stats

import mpiabc


@dataclass(frozen=True)
class Growing:
    """Times `factor` each generation, and no more than `high`."""

    first: int
    factor: float = 1.5
    high: int = 1000

    def size(self, generation, previous):
        return min(self.high, int(self.first * self.factor**generation))


def simulate(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal()}


problem = mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), simulate, {"y": 1.0})
abc = mpiabc.ABCSMC(problem, Growing(100), seed=1)

if __name__ == "__main__":
    history = abc.run("size.db", generations=4)
    if history is not None:
        print([len(population) for population in history])
