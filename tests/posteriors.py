"""Targets whose posterior is known in closed form, as weighted simulations, and how far off one is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

import mpiabc
from mpiabc.analysis.weighted import Weighted


@dataclass(frozen=True)
class Target:
    """A prior, a simulator of rows, the observed row, and the exact posterior: draws and density."""

    prior: Any
    simulate: Any  # (theta, rng) -> (n, k)
    observed: np.ndarray
    draws: Any  # (n, rng) -> (n, d)
    logpdf: Any

    def population(self, seed, size=400, share=0.1, weigh=None):
        """The nearest of many draws of the prior, or of another density that is `weigh`ed for."""
        rng = np.random.default_rng(seed)
        proposal = self.prior if weigh is None else weigh
        theta = proposal.sample(int(size / share), rng)
        theta = theta[self.prior.logpdf(theta) > -np.inf]
        log_weights = self.prior.logpdf(theta) - proposal.logpdf(theta)
        statistics = self.simulate(theta, rng)
        distances = np.abs(statistics - self.observed).max(axis=1)
        near = np.argsort(distances, kind="stable")[:size]
        parts = (a[near] for a in (theta, log_weights, distances, statistics))
        return Weighted(self.prior.names, *parts, self.observed, self.prior, size)

    def divergence(self, posterior, n=2000):
        """How far a posterior is off: Kullback and Leibler's, from the exact one."""
        theta = self.draws(n, np.random.default_rng(0))
        return float(np.mean(self.logpdf(theta) - np.maximum(posterior.logpdf(theta), -50)))


def seen_with_noise(prior, exact, d, s, at):
    """Each parameter is seen with noise of its own, so that they are independent."""
    return Target(
        prior,
        lambda theta, rng: theta + s * rng.standard_normal(theta.shape),
        np.full(d, at),
        lambda n, rng: exact.rvs((n, d), random_state=rng),
        lambda theta: exact.logpdf(theta).sum(axis=1),
    )


def gaussian(d=2, s=0.5, at=1.0):
    """Normal prior and noise: conjugate."""
    prior = mpiabc.Prior({f"m{i}": mpiabc.Normal(0, 1) for i in range(d)})
    exact = stats.norm(at / (1 + s**2), np.sqrt(s**2 / (1 + s**2)))
    return seen_with_noise(prior, exact, d, s, at)


def edge(d=2, s=0.2, at=0.05):
    """A uniform prior near whose edge the data lie: a truncated normal distribution."""
    prior = mpiabc.Prior({f"u{i}": mpiabc.Uniform(0, 1) for i in range(d)})
    exact = stats.truncnorm(-at / s, (1 - at) / s, at, s)
    return seen_with_noise(prior, exact, d, s, at)


def two_modes(s=0.15, at=1.0):
    """The square of a parameter is seen: one mode at each side of zero."""
    prior = mpiabc.Prior(a=mpiabc.Uniform(-2, 2))
    grid = np.linspace(-2, 2, 8001)
    density = stats.norm.pdf(at, grid**2, s)
    density /= density.sum() * (grid[1] - grid[0])
    cumulative = np.cumsum(density) / density.sum()
    return Target(
        prior,
        lambda theta, rng: theta**2 + s * rng.standard_normal(theta.shape),
        np.array([at]),
        lambda n, rng: np.interp(rng.random((n, 1)), cumulative, grid),
        lambda theta: np.log(np.interp(theta[:, 0], grid, density)),
    )


TARGETS = {"gaussian": gaussian(), "edge": edge(), "two modes": two_modes(), "wide": gaussian(5)}
