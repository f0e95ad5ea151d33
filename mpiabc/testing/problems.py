"""Problems whose posterior is known at every epsilon, so that a part of one's own can be held against it.

```python
target = testing.gaussian()
history = target.sampler(2000, kernel=Mine()).run("mine.db", generations=4)
assert abs(target.misses(history[-1])) < 4
assert target.deviates(history[-1]) < 2.2
```
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.population import Population
from mpiabc.priors.marginals import Choice, Integer
from mpiabc.priors.prior import Normal, Prior, Uniform
from mpiabc.problem import Problem
from mpiabc.smc import ABCSMC


class Posterior:
    """The exact ABC posterior of one parameter: what is accepted is seen with a known probability.

    prior: a frozen distribution of SciPy. accepts: of theta (n,), the probabilities that a simulation comes
    within epsilon. low, high: beyond which nothing is accepted.
    """

    def __init__(
        self,
        prior: Any,
        accepts: Callable[[np.ndarray], np.ndarray],
        low: float = -30.0,
        high: float = 30.0,
    ) -> None:
        from scipy import integrate

        low, high = max(low, prior.support()[0]), min(high, prior.support()[1])
        grid = np.linspace(low, high, 20_001)
        density = prior.pdf(grid) * accepts(grid)
        self.evidence = float(integrate.trapezoid(density, grid))  # the probability of an acceptance
        self._grid, self._density = grid, density / self.evidence
        self._cdf = np.concatenate([[0], integrate.cumulative_trapezoid(self._density, grid)])

    def expect(self, f: Callable[[np.ndarray], np.ndarray]) -> float:
        """The expectation of a function of theta (n,)."""
        from scipy import integrate

        return float(integrate.trapezoid(f(self._grid) * self._density, self._grid))

    @property
    def mean(self) -> float:
        """Its mean."""
        return self.expect(lambda theta: theta)

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return float(np.sqrt(self.expect(lambda theta: (theta - self.mean) ** 2)))

    def cdf(self, x: Any) -> np.ndarray:
        """Its distribution function."""
        return np.interp(x, self._grid, self._cdf)


def located(prior: Any, y: float, epsilon: float, sd: float = 1.0, **bounds: float) -> Posterior:
    """That of a theta that was seen with normal noise, as y, to within epsilon."""

    def accepts(theta: np.ndarray) -> np.ndarray:
        norm = _distributions().norm
        return norm.cdf((y + epsilon - theta) / sd) - norm.cdf((y - epsilon - theta) / sd)

    return Posterior(prior, accepts, **bounds)


def _distributions() -> Any:
    """SciPy's, once they are asked for: workers with these problems need none, and they load for seconds."""
    from scipy import stats

    return stats


@dataclass(frozen=True)
class Target:
    """A problem of one parameter with its exact posteriors, by epsilon."""

    problem: Problem
    posterior: Callable[[float], Posterior]

    def sampler(self, population_size: Any = 1000, *, seed: int = 1, **options: Any) -> ABCSMC:
        """A run's sampler. options: as ABCSMC has them."""
        return ABCSMC(self.problem, population_size, seed=seed, **options)

    def misses(self, population: Population) -> float:
        """By how many standard errors the mean of a population is off the exact one."""
        exact = self.posterior(population.epsilon)
        return float((population.mean()[0] - exact.mean) / (exact.sd / np.sqrt(population.ess)))

    def deviates(self, population: Population) -> float:
        """By how much its distribution function is off at most, in units of 1 / sqrt(ESS).

        Kolmogorov and Smirnov: of independent draws, beyond 1.63 in one case of a hundred.
        """
        x = np.sort(population.theta[:, 0])
        below = np.cumsum(population.weights[np.argsort(population.theta[:, 0])])
        off = below - self.posterior(population.epsilon).cdf(x)
        return float(np.abs(off).max() * np.sqrt(population.ess))


def gaussian(*, vectorized: bool = False) -> Target:
    """mu ~ N(0, 2^2), and y ~ N(mu, 1) was 1: the posterior is nearly normal."""
    problem = Problem(Prior(mu=Normal(0, 2)), seen_with_noise, {"y": 1.0}, vectorized=vectorized)
    return Target(problem, lambda epsilon: located(_distributions().norm(0, 2), 1.0, epsilon))


def edge() -> Target:
    """mu ~ U(0, 4), and y ~ N(mu, 1) was 0.2: much of what a kernel proposes lies outside of the prior."""
    problem = Problem(Prior(mu=Uniform(0, 4)), seen_with_noise, {"y": 0.2})
    return Target(problem, lambda epsilon: located(_distributions().uniform(0, 4), 0.2, epsilon))


def coin(tosses: int = 10, heads: int = 3) -> Target:
    """p ~ U(0, 1), and so many of the tosses were heads: distances are whole numbers, many of them equal."""

    def accepts(epsilon: float, p: np.ndarray) -> np.ndarray:
        near = [k for k in range(tosses + 1) if abs(k - heads) <= epsilon]
        return np.sum([_distributions().binom.pmf(k, tosses, p) for k in near], axis=0)

    def simulate(theta: Any, rng: np.random.Generator) -> dict[str, Any]:
        return {"heads": rng.binomial(tosses, theta["p"])}

    problem = Problem(Prior(p=Uniform(0, 1)), simulate, {"heads": heads}, name="coin")
    return Target(
        problem, lambda epsilon: Posterior(_distributions().uniform(0, 1), lambda p: accepts(epsilon, p))
    )


TARGETS = {"gaussian": gaussian, "edge": edge, "coin": coin}


def seen_with_noise(theta: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Simulate one row, or many at once."""
    return {"y": theta["mu"] + rng.standard_normal(np.shape(theta["mu"]))}


def seen_beside_others(theta: Any, rng: np.random.Generator) -> dict[str, Any]:
    """An integer and a choice beside it, and a statistic that says nothing."""
    y = theta["mu"] + theta["k"] - (theta["c"] == "b") + rng.standard_normal()
    return {"y": y, "noise": 100 * rng.standard_normal()}


def mixed(**options: Any) -> ABCSMC:
    """A sampler of reals, integers and choices, whose two statistics differ in scale."""
    prior = Prior(mu=Normal(0, 2), k=Integer(0, 3), c=Choice(["a", "b"]))
    problem = Problem(prior, seen_beside_others, {"y": 1.0, "noise": 0.0}, **options)
    return ABCSMC(problem, 40, seed=1)


def two_models() -> ABCSMC:
    """A sampler of two models, the second with another prior."""
    first, second = gaussian().problem, edge().problem
    models = [first, Problem(second.prior, seen_with_noise, {"y": 1.0}, name="edge")]
    return ABCSMC(models, 60, seed=1)
