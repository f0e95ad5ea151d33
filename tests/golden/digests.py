"""Populations of a few problems by the mpiabc that is imported, as JSON: what must never change.

    PYTHONPATH=tests/golden/streams2/mpiabc-0.1.0-py3-none-any.whl python tests/golden/digests.py FOLDER 4

Begins the runs in the folder, or continues them. Each problem names its kernel's scale. Only the public
interface is used, so that any commit can be asked.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import mpiabc

PRIOR = mpiabc.Prior(a=mpiabc.Normal(0, 2), b=mpiabc.Uniform(-1, 3))
DATA = {"mean": 0.7, "series": np.array([0.5, 0.8, 1.1])}


def scalar(theta, rng):
    return theta["a"] + rng.standard_normal()


def block(theta, rng):
    return {"y": theta["a"] + 0.5 * theta["b"] + rng.standard_normal(len(theta["a"]))}


def several(theta, rng):
    noise = rng.standard_normal(4)
    return {"mean": theta["a"] + 0.1 * noise[0], "series": theta["b"] * np.arange(1, 4) / 3 + noise[1:]}


def failing(theta, rng):
    y = scalar(theta, rng)
    if theta["b"] < -0.8:
        raise ValueError("b is too small")
    return y


def weighted(simulated, observed):
    return abs(simulated["mean"] - observed["mean"]) + float(
        np.abs(simulated["series"] - observed["series"]).max()
    )


GAUSSIAN, LOCAL = mpiabc.Gaussian(scale=1.0), mpiabc.LocalGaussian(k=30, scale=1.0)
STATIC = mpiabc.schedulers.Map(map)
CASES = {
    "scalar": (mpiabc.Problem(PRIOR, scalar, 1.0), GAUSSIAN, "serial"),
    "vectorised": (mpiabc.Problem(PRIOR, block, {"y": 1.0}, vectorized=True), GAUSSIAN, "serial"),
    "static": (mpiabc.Problem(PRIOR, scalar, 1.0), GAUSSIAN, STATIC),
    "local kernel": (mpiabc.Problem(PRIOR, scalar, 1.0), LOCAL, "serial"),
    "dict data": (mpiabc.Problem(PRIOR, several, DATA, distance=mpiabc.PNorm(p=3)), GAUSSIAN, "serial"),
    "callable distance": (mpiabc.Problem(PRIOR, several, DATA, distance=weighted), GAUSSIAN, "serial"),
    "failures rejected": (mpiabc.Problem(PRIOR, failing, 1.0, on_error="reject"), GAUSSIAN, "serial"),
}


def of_case(name, folder, generations):
    """What is known of each population of a case."""
    problem, kernel, scheduler = CASES[name]
    abc = mpiabc.ABCSMC(problem, 100, kernel=kernel, threshold=mpiabc.Quantile(0.5), seed=11)
    history = abc.run(Path(folder) / f"{name}.db", generations=generations, scheduler=scheduler)
    return [
        {
            "digest": p.digest(),
            "ids": hashlib.sha256(p.ids.tobytes()).hexdigest()[:16],
            "evaluations": p.evaluations,
            "simulations": p.simulations,
            "failures": p.failures,
            "summaries": hashlib.sha256(p.summaries.tobytes()).hexdigest()[:16],
            "log_evidence": p.log_evidence.hex(),
        }
        for p in history
    ]


if __name__ == "__main__":
    folder, generations = sys.argv[1:]
    found = {name: of_case(name, folder, int(generations)) for name in CASES}
    print(json.dumps({"from": mpiabc.__file__, "populations": found}))
