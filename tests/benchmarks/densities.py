"""Microseconds to weigh a particle, for N components in d dimensions, on one core.

    python -m tests.benchmarks.densities

Beside bare NumPy on all pairs at once (`cdist`, `exp`, `sum`), where they fit into memory; medians of five.
"""

import time
from functools import partial
from statistics import median

import numpy as np
from scipy.spatial.distance import cdist

from mpiabc import threads
from mpiabc.kernels.mixture import GaussianMixture

SIZES = (1_000, 10_000, 30_000, 100_000)
DIMENSIONS = (1, 5, 20)
_PAIRS = 20_000_000


def bare(mixture, theta):
    """The same without blocks: an array of all pairs."""
    z = [points @ mixture.inverse.T for points in (theta, mixture.centres)]
    norm = np.log(np.diagonal(mixture.cholesky)).sum() + 0.5 * len(z[0].T) * np.log(2 * np.pi)
    return np.log(np.exp(-0.5 * cdist(*z, "sqeuclidean")) @ mixture.weights) - norm


def microseconds(function, theta):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        function(theta)
        times.append(time.perf_counter() - began)
    return median(times) / len(theta) * 1e6


def main():
    rng = np.random.default_rng(0)
    print(f"{'N':>8}{'d':>4}{'us a row':>12}{'ns a pair':>12}{'bare':>12}")
    for n in SIZES:
        for d in DIMENSIONS:
            factor = np.eye(d) + 0.1 * np.tril(rng.standard_normal((d, d)), -1)
            mixture = GaussianMixture(rng.standard_normal((n, d)), np.full(n, 1 / n), factor)
            theta = mixture.sample(min(n, _PAIRS // n), rng)
            np.testing.assert_allclose(mixture.logpdf(theta), bare(mixture, theta), rtol=1e-9)
            ours, theirs = microseconds(mixture.logpdf, theta), microseconds(partial(bare, mixture), theta)
            print(f"{n:>8}{d:>4}{ours:12.2f}{ours / n * 1e3:12.3f}{theirs:12.2f}", flush=True)


if __name__ == "__main__":
    with threads.single():
        main()
