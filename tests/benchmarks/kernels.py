"""Kernels: what each gives of 1000 simulations, by dimension and population size.

    python -m tests.benchmarks.kernels [N or NxD ...]    by default 200, 1000, 5000 in 1 to 20 dimensions

theta = L phi with phi ~ N(0, 4) in each of d dimensions, correlated; y ~ N(phi, 1), the largest distance to
0; six thresholds, each of which half of the prior's simulations of the one before would meet. Of the last
population, averaged over seeds: Kish's effective sample size; the true one, exact variance over the squared
error of the means; both for 1000 simulations of the whole run; and the variance found over the exact one.
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

import mpiabc

DIMENSIONS = (1, 2, 5, 10, 20)
HALVINGS = 6
TAU, S = 2.0, math.sqrt(5.0)
SEEDS = {200: 8, 1000: 3, 5000: 1}
MOST = (
    60  # simulations for each that the thresholds need of the prior: a kernel that needs more has collapsed
)
KERNELS = {
    "scale .25": mpiabc.Gaussian(scale=0.25),
    "scale .5": mpiabc.Gaussian(scale=0.5),
    "scale 1": mpiabc.Gaussian(scale=1.0),
    "scale 1.5": mpiabc.Gaussian(scale=1.5),
    "scale 2": mpiabc.Gaussian(scale=2.0),
    ".5, shrunk": mpiabc.Gaussian(scale=0.5, shrink=True),
    "1, shrunk": mpiabc.Gaussian(scale=1.0, shrink=True),
    ".5, 5 % prior": mpiabc.Gaussian(scale=0.5, defensive=0.05),
    "1, 5 % prior": mpiabc.Gaussian(scale=1.0, defensive=0.05),
    "local": mpiabc.LocalGaussian(),
    "olcm": mpiabc.OLCM(),
    "olcm, shrunk": mpiabc.OLCM(shrink=True),
}
CHEAP = [name for name, kernel in KERNELS.items() if isinstance(kernel, mpiabc.Gaussian)]


class Correlated:
    """theta = L phi, phi ~ N(0, TAU²) in each dimension."""

    is_normalised = True

    def __init__(self, d):
        self.names = tuple(f"x{i}" for i in range(d))
        self.factor = np.linalg.cholesky(0.5 + 0.5 * np.eye(d))
        self.inverse = np.linalg.inv(self.factor)

    def phi(self, theta):
        return theta @ self.inverse.T

    def sample(self, n, rng):
        return TAU * rng.standard_normal((n, len(self.names))) @ self.factor.T

    def logpdf(self, theta):
        d = len(self.names)
        constant = d * math.log(TAU * math.sqrt(2 * math.pi)) + np.log(np.diagonal(self.factor)).sum()
        return -0.5 * np.square(self.phi(theta) / TAU).sum(axis=1) - constant


class Largest:
    is_rowwise = True

    def rows(self, simulated, observed):
        return np.abs(simulated - observed).max(axis=1)


def simulator(prior):
    def simulate(theta, rng):
        x = np.stack([theta[name] for name in prior.names], axis=1)
        return {"y": prior.phi(x) + rng.standard_normal(x.shape)}

    return simulate


def thresholds(d):
    """Where a share 1, 1/2, 1/4, ... of the prior's simulations lie."""
    shares = 0.5 ** (np.arange(1, HALVINGS + 1) / d)
    return [1e9, *(S * stats.norm.ppf(0.5 + shares / 2)).tolist()]


def exact(d):
    """The variance of each phi in the last population."""
    e = thresholds(d)[-1] / S
    of_y = S**2 * (1 - 2 * e * stats.norm.pdf(e) / (2 * stats.norm.cdf(e) - 1))
    return TAU**2 / S**2 + (TAU**2 / S**2) ** 2 * of_y


def measured(kernel, d, n, seed, folder):
    """Kish's effective sample size, simulations, mean and variance of phi; None if it has collapsed."""
    prior = Correlated(d)
    observed = {"y": np.zeros(d)}
    problem = mpiabc.Problem(
        prior, simulator(prior), observed, distance=Largest(), vectorized=True, batch=1024
    )
    abc = mpiabc.ABCSMC(
        problem, n, kernel=kernel, threshold=mpiabc.Listed(thresholds(d)), seed=seed, keep="theta"
    )
    history = abc.run(
        folder / f"{seed}.db", scheduler="serial", progress=False, overwrite=True, simulations=MOST * n * 16
    )
    if len(history) <= HALVINGS:
        return None
    last = history[-1]
    phi = prior.phi(last.theta)
    mean = last.weights @ phi
    variance = last.weights @ np.square(phi - mean)
    return last.ess, sum(p.simulations for p in history), mean, variance


def row(name, d, n, folder):
    found = [measured(KERNELS[name], d, n, seed, folder) for seed in range(SEEDS.get(n, 1))]
    whole = [each for each in found if each is not None]
    if len(whole) < len(found):
        return f"{d:3} {n:6}  {name:14} collapsed in {len(found) - len(whole)} of {len(found)} runs"
    ess, simulations, means, variances = (np.array(column) for column in zip(*whole, strict=True))
    true = exact(d) / np.square(means).mean()
    total = simulations.mean() / 1000
    return (
        f"{d:3} {n:6}  {name:14} {total:10.1f} {ess.mean():8.0f} {ess.mean() / total:10.2f} "
        f"{true / total:10.2f} {variances.mean() / exact(d):8.3f}"
    )


def cases(texts):
    for text in texts or map(str, SEEDS):
        n, _, d = text.partition("x")
        yield from ((int(n), int(each)) for each in ([d] if d else DIMENSIONS))


def main(texts):
    print("  d      N  kernel         thousands     Kish  Kish/1000  true/1000 variance", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for n, d in cases(texts):
            for name in KERNELS if n * d < 50_000 else CHEAP:
                print(row(name, d, n, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
