"""pyABC's own statistical tests as native problems, with its tolerances; others stand with models and sizes.

They are those of its test_abc_smc_algorithm.py, each named; a model without parameters has one that means
nothing.
"""

import math

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import sizes
from tests.test_models import coin, evidence_of_coin, jar, off, run

FLAT = mpiabc.Uniform(0, 1)


@pytest.mark.parametrize(("size", "within"), [(1500, 0.05), (sizes.CV(0.05, start=1500), 0.1)])
def test_two_models_that_no_parameter_tells_apart(size, within, tmp_path):
    """test_empty_population, and test_empty_population_adaptive."""
    models = [jar(0.8, "two in ten"), jar(0.4, "six in ten")]  # of plain cookies, of which none was drawn
    abc = mpiabc.ABCSMC(models, size, threshold=mpiabc.Constant(0.0), seed=1)
    assert off(run(abc, tmp_path, generations=3)[-1], [0.2, 0.6]) < within


def test_twins_are_equally_probable_in_populations_of_adaptive_size(tmp_path):
    """test_beta_binomial_two_identical_models_adaptive, and test_all_in_one_model."""
    twins = [coin(5, "one"), coin(5, "two")]
    abc = mpiabc.ABCSMC(twins, sizes.CV(0.05, start=800), threshold=mpiabc.Quantile(0.1), seed=1)
    assert off(run(abc, tmp_path, epsilon=0.2, generations=3)[-1], [1, 1]) < 0.08


def test_sharp_prior_that_misses_the_data_is_improbable(tmp_path):
    """test_beta_binomial_different_priors_initial_epsilon_from_sample."""
    models = [coin(5, "flat"), coin(5, "sharp", 10, 1)]
    abc = mpiabc.ABCSMC(models, 800, threshold=mpiabc.Quantile(0.5), seed=1)
    last = run(abc, tmp_path, generations=5)[-1]
    assert last.epsilon == 0
    assert off(last, [evidence_of_coin(5, a, b, 2) for a, b in ((1, 1), (10, 1))]) < 0.08


def test_posterior_that_is_no_gaussian(tmp_path):
    """test_continuous_non_gaussian: d ~ U(0, u), u ~ U(0, 1), d = .5; 1 / u beyond .5."""

    def simulate(theta, rng):
        return theta["u"] * rng.random(theta["u"].shape)

    problem = mpiabc.Problem(mpiabc.Prior(u=FLAT), simulate, 0.5, vectorized=True)
    abc = mpiabc.ABCSMC(problem, 250, threshold=mpiabc.Quantile(0.2), seed=1)
    last = run(abc, tmp_path, generations=3)[-1]
    u = np.linspace(0.1, 1)
    exact = np.where(u > 0.5, 1 - np.log(np.maximum(u, 0.5)) / math.log(0.5), 0)
    assert np.max(np.abs(distribution(last, "u", u) - exact)) < 0.12


@pytest.mark.parametrize(("thresholds", "sd"), [([0.1], 1.0), ([2, 0.5, 0.1], 0.5)])
def test_gaussian_of_one_population_and_of_several(thresholds, sd, tmp_path):
    """test_gaussian_single_population, test_gaussian_multiple_populations, and that with a chosen kernel."""

    def simulate(theta, rng):
        return theta["x"] + sd * rng.standard_normal(theta["x"].shape)

    problem = mpiabc.Problem(mpiabc.Prior(x=mpiabc.Normal(0, 1)), simulate, 1.0, vectorized=True)
    last = run(mpiabc.ABCSMC(problem, 600, threshold=mpiabc.Listed(thresholds), seed=1), tmp_path)[-1]
    deviation = 1 / math.sqrt(1 + 1 / sd**2)
    mean, x = deviation**2 / sd**2, np.linspace(-8, 8, 200)
    exact = stats.norm(mean, deviation).cdf(x)
    assert np.max(np.abs(distribution(last, "x", x) - exact)) < 0.12
    assert abs(last.mean()["x"] - mean) < 0.07
    assert abs(last.std()["x"] - deviation) < 0.1


@pytest.mark.parametrize("kernel", [mpiabc.Gaussian(), mpiabc.LocalGaussian()])
def test_two_competing_gaussians_of_one_population(kernel, tmp_path):
    """test_two_competing_gaussians_single_population."""

    def simulate(theta, rng):
        return theta["x"] + 0.5 * rng.standard_normal(theta["x"].shape)

    models = [
        mpiabc.Problem(mpiabc.Prior(x=mpiabc.Normal(mean, 0.5)), simulate, 1.0, vectorized=True, name=name)
        for mean, name in ((0, "at 0"), (1, "at 1"))
    ]
    abc = mpiabc.ABCSMC(models, 500, threshold=mpiabc.Constant(0.02), kernel=kernel, seed=1)
    exact = [stats.norm(mean, math.sqrt(0.5)).pdf(1) for mean in (0, 1)]
    assert off(run(abc, tmp_path, generations=1)[-1], exact) < 0.07


def distribution(population, name, x):
    """The empirical distribution function at x."""
    return (population.weights[:, None] * (population[name][:, None] <= x)).sum(axis=0)
