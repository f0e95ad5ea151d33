"""The ten tasks of sbibm (Lueckmann et al. 2021), version 1.1.0, as vectorised simulators in NumPy.

What a task needs of sbibm's files (a stimulus, distractors, their order) is drawn here with its seeds, to the
last bit or the one before it; observations and reference posteriors are read by `tests.benchmarks.sbibm`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

import mpiabc

SPREAD = math.sqrt(0.1)  # sbibm's scales of .1 in the linear tasks are variances
BINS, COMPONENTS, DISTRACTORS = 100, 20, 92


@dataclass(frozen=True)
class Task:
    """A task: `simulator(theta (n, d), rng)` gives (n, k), `marginal(i)` is the prior of parameter i."""

    name: str
    d: int
    simulator: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    marginal: Callable[[int], object] | None = None  # None: all together, the smooth filter of bernoulli_glm
    folder: str = ""  # of its files in sbibm
    observation: str = "observation"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the parameters, in their order."""
        return tuple(f"parameter_{i + 1}" for i in range(self.d))

    @property
    def path(self) -> str:
        """Where sbibm keeps observations and reference posteriors."""
        return f"sbibm/tasks/{self.folder or self.name}/files"

    def prior(self) -> mpiabc.Prior:
        """The prior."""
        if self.marginal is None:
            return mpiabc.Prior({self.names: smooth_filter()})
        return mpiabc.Prior({name: self.marginal(i) for i, name in enumerate(self.names)})

    def simulate(self, theta, rng):
        """What a vectorised Problem calls."""
        return self.simulator(np.stack([theta[name] for name in self.names], axis=1), rng)

    def problem(self, observed, **options) -> mpiabc.Problem:
        """The task as a Problem, with the Euclidean distance unless `distance` is given."""
        return mpiabc.Problem(
            self.prior(), self.simulate, np.asarray(observed), vectorized=True, name=self.name, **options
        )


def gaussian_linear(theta, rng):
    """The parameters, and Gaussian noise."""
    return theta + SPREAD * rng.standard_normal(theta.shape)


def gaussian_mixture(theta, rng):
    """The parameters, and noise that is wide or ten times less so."""
    scale = np.where(rng.random((len(theta), 1)) < 0.5, 1.0, 0.1)
    return theta + scale * rng.standard_normal(theta.shape)


def two_moons(theta, rng):
    """A point of a half circle, moved by a function that folds theta."""
    angle = rng.uniform(-math.pi / 2, math.pi / 2, len(theta))
    radius = 0.1 + 0.01 * rng.standard_normal(len(theta))
    moon = np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)
    return moon + folded(theta)


def folded(theta):
    """What two_moons adds to its half circle."""
    total, difference = theta[:, 0] + theta[:, 1], theta[:, 1] - theta[:, 0]
    return np.stack([-np.abs(total), difference], axis=1) / math.sqrt(2)


def two_moons_density(theta, x):
    """As sbibm has it, without the 1 / (pi r) of polar coordinates, at theta (n, 2) for data x (2,)."""
    u, v = (x - folded(theta)).T
    u = u - 0.25
    density = np.exp(-0.5 * ((np.hypot(u, v) - 0.1) / 0.01) ** 2) / (0.01 * math.sqrt(2 * math.pi))
    return np.where(u < 0, 0.0, density)


def slcp_parts(theta):
    """Means (n, 2) and lower Cholesky factors, as (a, b, c) of [[a, 0], [b, c]]."""
    s1, s2, correlation = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
    a = np.sqrt(s1**2 + 1e-6)
    b = correlation * s1 * s2 / a
    return theta[:, :2], (a, b, np.sqrt(s2**2 + 1e-6 - b**2))


def slcp(theta, rng):
    """Four points of a Gaussian in the plane: a simple likelihood, a complex posterior."""
    mean, (a, b, c) = slcp_parts(theta)
    z = rng.standard_normal((len(theta), 4, 2))
    first = mean[:, :1] + a[:, None] * z[:, :, 0]
    second = mean[:, 1:] + b[:, None] * z[:, :, 0] + c[:, None] * z[:, :, 1]
    return np.stack([first, second], axis=2).reshape(len(theta), 8)


def slcp_distractors(theta, rng):
    """The same among 92 numbers that have nothing to do with theta, in a fixed disorder."""
    locations, factors, order = distractors()
    component = rng.integers(COMPONENTS, size=len(theta))
    z = rng.standard_normal((len(theta), DISTRACTORS))
    z /= np.sqrt(rng.chisquare(2, len(theta)) / 2)[:, None]  # Student's t with 2 degrees of freedom
    noise = locations[component] + np.einsum("nij,nj->ni", factors[component], z)
    return np.concatenate([slcp(theta, rng), noise], axis=1)[:, order]


@cache
def distractors():
    """Locations (20, 92) and Cholesky factors (20, 92, 92) of the distractors, and the order of all data."""
    legacy = np.random.RandomState(42)
    locations = np.array([15 * legacy.normal(size=DISTRACTORS) for _ in range(COMPONENTS)])
    shape = (DISTRACTORS, DISTRACTORS)
    factors = [
        np.tril(legacy.normal(size=shape)) + np.diag(np.exp(legacy.normal(size=DISTRACTORS)))
        for _ in range(COMPONENTS)
    ]
    return locations, 3 * np.array(factors), legacy.permutation(DISTRACTORS + 8)


def runge_kutta(slope, state, step, steps, every):
    """States of y' = slope(y) at 0, `every`, 2 `every`, ... steps, by the method of fourth order."""
    states = [state]
    for number in range(1, steps + 1):
        k1 = slope(state)
        k2 = slope(state + 0.5 * step * k1)
        k3 = slope(state + 0.5 * step * k2)
        state = state + step / 6 * (k1 + 2 * (k2 + k3) + slope(state + step * k3))
        if number % every == 0:
            states.append(state)
    return np.array(states)


def sir_infected(theta):
    """Infected of a million at days 0, 17, ..., 153, (n, 10): in logarithms, where slopes stay small."""
    beta, gamma = theta.T

    def slope(state):
        infection = beta * np.exp(state)  # log shares of susceptible, infected
        return np.stack([-infection[1], infection[0] - gamma])

    start = np.log([[1 - 1e-6], [1e-6]]) + np.zeros((2, len(theta)))
    return 1e6 * np.exp(runge_kutta(slope, start, 0.25, 612, 68)[:, 1].T)


def sir(theta, rng):
    """Ten binomial counts of 1000 people."""
    return rng.binomial(1000, np.clip(sir_infected(theta) / 1e6, 0, 1)).astype(float)


def lotka_volterra_logs(theta):
    """Logarithms of prey, then predators, at 0, 2.1, ..., 18.9, (n, 20)."""
    alpha, beta, gamma, delta = theta.T

    def slope(state):
        prey, predators = np.exp(state)
        return np.stack([alpha - beta * predators, delta * prey - gamma])

    start = np.log([[30.0], [1.0]]) + np.zeros((2, len(theta)))
    states = runge_kutta(slope, start, 0.0125, 1512, 168)
    return states.transpose(2, 1, 0).reshape(len(theta), 20)


def lotka_volterra(theta, rng):
    """Ten times prey and predators, with lognormal noise."""
    logs = np.clip(lotka_volterra_logs(theta), math.log(1e-10), math.log(1e4))
    return np.exp(logs + 0.1 * rng.standard_normal(logs.shape))


@cache
def design():
    """What drives the neuron in each bin, (100, 10): a constant, and the stimulus with lags 0 to 8."""
    stimulus = np.random.RandomState(42).randn(BINS)
    lagged = [np.concatenate([np.zeros(lag), stimulus[: BINS - lag]]) for lag in range(9)]
    return np.stack([np.ones(BINS), *lagged], axis=1).astype(np.float32).astype(float)


def smooth_filter():
    """The prior of bernoulli_glm: second differences of the filter are penalised."""
    from scipy import stats

    return stats.multivariate_normal(np.zeros(10), np.linalg.inv(filter_precision()))


def filter_precision():
    """The inverse of its covariance, (10, 10)."""
    differences = np.eye(9) - np.eye(9, k=-1)
    factor = differences @ differences + np.diag(np.sqrt(np.arange(9) / 9))
    precision = np.zeros((10, 10))
    precision[0, 0] = 0.5
    precision[1:, 1:] = factor.T @ factor
    return precision


def bernoulli_glm_raw(theta, rng):
    """Whether the neuron spikes, in each bin."""
    drive = np.einsum("nd,bd->nb", theta, design())
    return (rng.random(drive.shape) < 1 / (1 + np.exp(-drive))).astype(float)


def bernoulli_glm(theta, rng):
    """Sufficient statistics: how many spikes, and what the stimulus was on average before them."""
    return np.einsum("nb,bd->nd", bernoulli_glm_raw(theta, rng), design())


def _uniform(bound):
    return lambda i: mpiabc.Uniform(-bound, bound)


def _rates(means, sds):
    return lambda i: mpiabc.LogNormal(means[i], sds[i])


_of_epidemics = _rates([math.log(0.4), math.log(0.125)], [0.5, 0.2])
_of_species = _rates([-0.125, -3.0, -0.125, -3.0], [0.5] * 4)

TASKS = {
    task.name: task
    for task in [
        Task("gaussian_linear", 10, gaussian_linear, lambda i: mpiabc.Normal(0, SPREAD)),
        Task("gaussian_linear_uniform", 10, gaussian_linear, _uniform(1.0)),
        Task("gaussian_mixture", 2, gaussian_mixture, _uniform(10.0)),
        Task("two_moons", 2, two_moons, _uniform(1.0)),
        Task("slcp", 5, slcp, _uniform(3.0)),
        Task("slcp_distractors", 5, slcp_distractors, _uniform(3.0), "slcp", "observation_distractors"),
        Task("sir", 2, sir, _of_epidemics),
        Task("lotka_volterra", 4, lotka_volterra, _of_species),
        Task("bernoulli_glm", 10, bernoulli_glm),
        Task("bernoulli_glm_raw", 10, bernoulli_glm_raw, None, "bernoulli_glm", "observation_raw"),
    ]
}
