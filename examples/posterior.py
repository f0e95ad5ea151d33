"""From a population to a posterior: 4000 simulations of a curved problem, beside its exact answer.

    python examples/posterior.py [picture.svg]

Two numbers are seen, a and b + a², each with noise of .15. The last population of ABC-SMC is as wide as its
threshold; `history.posterior()` moves what was simulated to the data that were seen, and smooths it.
`ABCAMIS` weighs all simulations together, and its posterior is made of them.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import mpiabc

NOISE, OBSERVED, SIMULATIONS = 0.15, np.array([0.4, 0.9]), 4000


def simulate(theta, rng):
    """Many at once."""
    exact = np.stack([theta["a"], theta["b"] + theta["a"] ** 2], axis=1)
    return {"y": exact + NOISE * rng.standard_normal(exact.shape)}


problem = mpiabc.Problem(
    prior=mpiabc.Prior(a=mpiabc.Uniform(-2, 2), b=mpiabc.Uniform(-2, 2)),
    simulate=simulate,
    observed={"y": OBSERVED},
    vectorized=True,
)


def exact(theta):
    """Log density of the exact posterior (n,), but for the little that the prior cuts off."""
    a, b = theta.T
    z = (np.stack([a, b + a**2], axis=1) - OBSERVED) / NOISE
    return -0.5 * np.square(z).sum(axis=1) - 2 * np.log(NOISE * np.sqrt(2 * np.pi))


def drawn(n, rng):
    """Draws of the exact posterior, (n, 2): y is what it may have been without noise."""
    a, y = (OBSERVED + NOISE * rng.standard_normal((n, 2))).T
    return np.stack([a, y - a**2], axis=1)


def histories(folder):
    """The same number of simulations in two ways."""
    smc = mpiabc.ABCSMC(problem, 200, seed=1)
    amis = mpiabc.ABCAMIS(problem, SIMULATIONS, seed=1)
    options = {"scheduler": "serial", "progress": False}
    return (
        smc.run(Path(folder) / "smc.db", simulations=SIMULATIONS, **options),
        amis.run(Path(folder) / "amis.db", **options),
    )


def report(population, posteriors):
    """How far each is from what is exact: standard deviations, and the mean log density of exact draws."""
    rng = np.random.default_rng(1)
    truth = drawn(4000, rng)
    print(f"{'':<24}{'sd of a':>9}{'sd of b':>9}{'log density':>13}")
    print(f"{'last population':<24}{population.std()[0]:9.3f}{population.std()[1]:9.3f}")
    for name, posterior in posteriors.items():
        a, b = posterior.std()
        print(f"{name:<24}{a:9.3f}{b:9.3f}{posterior.logpdf(truth).mean():13.3f}   {posterior.method}")
    a, b = truth.std(axis=0)
    print(f"{'exact':<24}{a:9.3f}{b:9.3f}{exact(truth).mean():13.3f}")


def draw(population, posteriors, picture):
    """One picture: the population, the posteriors, each over the exact one."""
    import matplotlib.pyplot as plt

    a, b = np.meshgrid(np.linspace(-0.4, 1.2, 40), np.linspace(-0.8, 1.7, 40))
    theta = np.column_stack([a.ravel(), b.ravel()])
    levels = np.array([0.02, 0.2, 0.6]) / (2 * np.pi * NOISE**2)
    with plt.rc_context({"svg.hashsalt": "mpiabc", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = plt.subplots(1, 3, figsize=(8, 2.8), sharex=True, sharey=True, layout="constrained")
        for axis, name in zip(axes, ["last population", *posteriors], strict=True):
            axis.contour(a, b, np.exp(exact(theta)).reshape(a.shape), levels, colors="0.75", linewidths=3)
            axis.set(title=name, xlabel="a")
            if name in posteriors:
                density = np.exp(posteriors[name].logpdf(theta)).reshape(a.shape)
                axis.contour(a, b, density, levels, colors="C0", linewidths=1)
        axes[0].plot(*population.resample(200, np.random.default_rng(1)).T, ".", ms=3, alpha=0.5)
        axes[0].set(xlim=(-0.4, 1.2), ylim=(-0.8, 1.7), ylabel="b")
        figure.savefig(picture, metadata={"Date": None} if str(picture).endswith(".svg") else None)


def main(picture=None):
    with tempfile.TemporaryDirectory() as folder:
        smc, amis = histories(folder)
        population = smc[-1]
        posteriors = {"history.posterior()": smc.posterior(), "ABCAMIS, posterior()": amis.posterior()}
    report(population, posteriors)
    if picture is not None:
        draw(population, posteriors, picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
