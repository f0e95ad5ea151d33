"""A kernel of one's own: Student's t around each particle, whose tails reach further than a Gaussian's.

A kernel has `fit(population)`, or `fit(population, prior)`, and gives a proposal: `sample(n, rng)` draws
theta (n, d), `logpdf(theta)` is the log density of rows (n,). A density of heavy tails bounds the weights.
That both belong together is asked by `mpiabc.testing.check_kernel(Student())`, in a test.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

import mpiabc


@dataclass(frozen=True)
class Student:
    """Around the particles, with as many degrees of freedom."""

    freedom: float = 5.0

    def fit(self, population):
        spread = 2 * np.cov(population.theta.T, aweights=population.weights).reshape(
            population.theta.shape[1], -1
        )
        return Proposal(
            population.theta, population.weights, stats.multivariate_t(None, spread, self.freedom)
        )


@dataclass(frozen=True)
class Proposal:
    theta: np.ndarray
    weights: np.ndarray
    step: stats.multivariate_t

    def sample(self, n, rng):
        parents = rng.choice(len(self.weights), size=n, p=self.weights)
        return self.theta[parents] + self.step.rvs(n, random_state=rng).reshape(n, -1)

    def logpdf(self, theta):
        steps = self.step.logpdf(theta[:, None] - self.theta).reshape(len(theta), -1)  # (m, N)
        return special.logsumexp(steps, b=self.weights, axis=1)


def simulate(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal()}


problem = mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), simulate, {"y": 1.0})
abc = mpiabc.ABCSMC(problem, 200, kernel=Student(), seed=1)

if __name__ == "__main__":
    history = abc.run("kernel.db", generations=4)
    if history is not None:
        print(history[-1].mean(), history[-1].std())
