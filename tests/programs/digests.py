"""Run every variant of the toy problem on the ranks of this job; rank 0 prints the digests as JSON."""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mpiabc
from tests import problems
from tests.programs import batches, foreign, several


def parts_of_ones_own():
    problem = problems.problem(distance=foreign.Mahalanobis())
    return mpiabc.ABCSMC(problem, 60, kernel=foreign.Student(), threshold=foreign.Sharper(), seed=1)


def mixed(**options):
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2), k=mpiabc.Integer(0, 3), c=mpiabc.Choice(["a", "b"]))
    problem = mpiabc.Problem(prior, mixed_gaussian, {"y": 1.0})
    return mpiabc.ABCSMC(problem, 40, seed=1, **options)


def mixed_gaussian(theta, rng):
    return {"y": theta["mu"] + theta["k"] - (theta["c"] == "b") + rng.standard_normal()}


def noisy(**options):
    """Data with noise, by a function of data and theta: its largest density is a guess."""
    options = {"population_size": 60, "acceptor": mpiabc.Noise(log_density, steps=2), "seed": 1} | options
    return mpiabc.ABCSMC(problems.problem(), **options)


def log_density(simulated, observed, theta):
    sd = 0.5 + 0.1 * abs(theta["mu"])
    return -0.5 * ((observed["y"] - simulated["y"]) / sd) ** 2 - np.log(sd)


def resized(**options):
    return mpiabc.ABCSMC(
        problems.problem(), mpiabc.sizes.ESS(60), threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1, **options
    )


def fitted(distance, threshold=None):
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    problem = mpiabc.Problem(prior, with_noise, {"y": 1.0, "noise": 0.0}, distance=distance)
    return mpiabc.ABCSMC(problem, 40, threshold=threshold, seed=1)


def pooled():
    """At the edge of a prior, and with scales that are fitted: what each batch is made of depends on all."""
    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Uniform(0, 4)), with_noise, {"y": 0.5, "noise": 0.0})
    return mpiabc.ABCAMIS(problem, 150, batches=3, population_size=20, seed=1)


def with_noise(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(), "noise": 100 * rng.standard_normal()}


def by_name(simulated, observed):
    return {key: abs(simulated[key] - observed[key]) for key in ("y", "noise")}


def begun_early(theta, rng):
    """Takes so long that workers look ahead."""
    time.sleep(0.005 + 0.01 * rng.random())
    return problems.gaussian(theta, rng)


def undecided():
    """What is begun early is measured again, at its level, and all of it is kept."""
    prior, distance = mpiabc.Prior(mu=mpiabc.Normal(0, 2)), mpiabc.PNorm(scale="mad")
    problem = mpiabc.Problem(prior, with_noise_late, {"y": 1.0, "noise": 0.0}, distance=distance)
    return mpiabc.ABCSMC(problem, 15, seed=1, lookahead=True, keep="all")


def with_noise_late(theta, rng):
    time.sleep(0.005 + 0.01 * rng.random())
    return with_noise(theta, rng)


STATIC = {  # those for static scheduling, too
    "scalar": problems.sampler,
    "vectorized": lambda: problems.sampler(simulate=problems.gaussian_vectorized, vectorized=True),
    "batches": batches.sampler,
    "several models": several.sampler,
    "several models, batches": lambda: several.sampler(vectorized=True, batch=512),
    "several models, scales, integers and choices": lambda: several.mixed(
        40, distance=mpiabc.PNorm(scale="mad")
    ),
    "random delays": lambda: problems.sampler(simulate=problems.gaussian_slow, n=20),
    "parts of one's own": parts_of_ones_own,
    "integers and choices": mixed,
    "noise": noisy,
    "sizes": resized,
    "scales": lambda: fitted(mpiabc.PNorm(scale="mad"), mpiabc.Quantile(start=3.0)),
    "predictor": lambda: fitted(mpiabc.Predicted(foreign.LeastSquares())),
    "several distances": lambda: fitted(by_name),
}
VARIANTS = STATIC | {
    "all simulations of a budget": pooled,
    "recycled, integers and choices": lambda: mixed(recycle=True),
    "recycled, noise": lambda: noisy(
        acceptor=mpiabc.Noise(mpiabc.noise.Normal(sd=0.5), steps=2), recycle=True
    ),
    "recycled, batches": lambda: batches.sampler(recycle=True),
    "recycled, several models": lambda: several.sampler(recycle=True),
    "recycled": lambda: problems.sampler(recycle=True, simulate=problems.gaussian_late, n=60),
    "recycled, vectorized": lambda: problems.sampler(
        simulate=problems.gaussian_vectorized, vectorized=True, recycle=True
    ),
    "recycled, local": lambda: problems.sampler(
        recycle=True, n=60, kernel=mpiabc.LocalGaussian(), weights="levels"
    ),
    "looking ahead": lambda: problems.sampler(simulate=begun_early, n=15, lookahead=True),
    "looking ahead, recycled": lambda: mixed(lookahead=True, recycle=True),
    "looking ahead, scales": undecided,
}


def digests(scheduler, variant):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.db"
        history = VARIANTS[variant]().run(file, scheduler=scheduler, generations=3)
        return None if history is None else problems.digests(history)


if __name__ == "__main__":
    found = {
        f"{scheduler}, {variant}": digests(scheduler, variant)
        for scheduler in sys.argv[1:]
        for variant in (STATIC if "static" in scheduler else VARIANTS)
    }
    if None not in found.values():
        print("DIGESTS", json.dumps(found))
