"""Priors of one's own: a distribution of one parameter, and one of all parameters at once.

The distribution of a parameter has `rvs(size, random_state)`, which draws from the generator `random_state`,
and `logpdf(x)`, both (n,); with `support()`, (low, high), kernels know its bounds. A whole prior has `names`,
`sample(n, rng)`, which draws theta (n, d), and `logpdf(theta)` (n,); `is_normalised = True` says that its
densities are those of a probability, as recycling and looking ahead ask for.
"""

from dataclasses import dataclass

import numpy as np

import mpiabc


@dataclass(frozen=True)
class Triangle:
    """From 0 to `high`, most probable at 0."""

    high: float

    def rvs(self, size, random_state):
        return self.high * (1 - np.sqrt(random_state.random(size)))

    def logpdf(self, x):
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.log(2 * (self.high - x)) - 2 * np.log(self.high)
        return np.where((x >= 0) & (x < self.high), inside, -np.inf)

    def support(self):
        return 0.0, self.high


class Ring:
    """Two parameters that lie near a circle of radius 3, whatever the direction."""

    names = "x", "y"
    is_normalised = True

    def sample(self, n, rng):
        radius, angle = 3 + 0.3 * rng.standard_normal(n), rng.uniform(0, 2 * np.pi, n)
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    def logpdf(self, theta):
        radius = np.hypot(*theta.T)
        radial = -0.5 * ((radius - 3) / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi))
        return radial - np.log(2 * np.pi * radius)


def simulate(theta, rng):
    return {"x": theta["x"] + rng.standard_normal()}


def wait(theta, rng):
    return {"time": rng.exponential(theta["mean"], 20).mean()}


problem = mpiabc.Problem(Ring(), simulate, {"x": 2.0})
abc = mpiabc.ABCSMC(problem, 200, seed=1)
waiting = mpiabc.Problem(mpiabc.Prior(mean=Triangle(5.0)), wait, {"time": 1.0})

if __name__ == "__main__":
    history = abc.run("prior.db", generations=4)
    if history is not None:
        print(history[-1].mean(), history[-1].std())
