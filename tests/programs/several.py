"""Two models of one number, whose probabilities are known: y = mu + e, mu ~ N(0, 2^2) or N(3, 1)."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import mpiabc

PRIOR = (0.25, 0.75)  # of the models


def near(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(np.shape(theta["mu"]))}


def far(theta, rng):
    return {"y": theta["nu"] + rng.standard_normal(np.shape(theta["nu"]))}


def problems(**options):
    first = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    second = mpiabc.Prior(nu=mpiabc.Normal(3, 1), unused=mpiabc.Uniform(0, 1))
    return [
        mpiabc.Problem(first, near, {"y": 1.0}, **options),
        mpiabc.Problem(second, far, {"y": 1.0}, **options),
    ]


def sampler(n=60, thresholds=(3, 1.5, 0.8), *, vectorized=False, batch=None, seed=1, **options):
    threshold = mpiabc.Listed(thresholds)
    models = problems(vectorized=vectorized, batch=batch)
    return mpiabc.ABCSMC(models, n, threshold=threshold, seed=seed, **{"model_prior": PRIOR} | options)


def counts(theta, rng):
    """A model with an integer and a choice."""
    assert theta["c"] in ("low", "high")
    high = theta["c"] == "high"
    return {"y": theta["k"] + high + rng.standard_normal(), "z": 9 * rng.standard_normal()}


def lines(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(), "z": 9 * rng.standard_normal()}


def mixed(n, threshold=None, **options):
    """Models with discrete and continuous parameters, and a distance that is fitted to simulations."""
    discrete = mpiabc.Prior({"k": mpiabc.Integer(0, 4), "c": mpiabc.Choice(["low", "high"])})
    continuous = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    pairs = ((discrete, counts), (continuous, lines))
    models = [mpiabc.Problem(*pair, {"y": 1.0, "z": 0.0}, **options) for pair in pairs]
    return mpiabc.ABCSMC(models, n, threshold=threshold, seed=1)


def evidence(epsilon):
    """Of both models, by target 1 of the statistics."""
    from scipy import stats  # which the ranks that import this have no need of

    ends = [(1 - m0 + sign * epsilon) / np.hypot(tau, 1) for m0, tau in ((0, 2), (3, 1)) for sign in (-1, 1)]
    a, b = np.reshape(stats.norm.cdf(ends), (2, 2)).T
    return b - a


def probabilities(epsilon, prior=PRIOR):
    """Of both models."""
    joint = evidence(epsilon) * prior
    return joint / joint.sum()


def dying(flag, at):
    """Whose first model kills its process in one evaluation, the first time."""

    def simulate(theta, rng, *, id):
        if id == at and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return near(theta, rng)

    first, second = problems()
    first = replace(first, simulate=simulate, name="near")
    threshold = mpiabc.Listed([3, 1.5, 0.8])
    return mpiabc.ABCSMC([first, second], 60, threshold=threshold, seed=1, model_prior=PRIOR)


if __name__ == "__main__":
    store, flag, t, i = sys.argv[1:]
    dying(Path(flag), (int(t), int(i))).run(store, generations=3, scheduler="serial")
