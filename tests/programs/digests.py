"""Run every variant of the toy problem on the ranks of this job; rank 0 prints the digests as JSON."""

import json
import sys
import tempfile
from pathlib import Path

import mpiabc
from tests import problems
from tests.programs import batches, foreign, several


def parts_of_ones_own():
    problem = problems.problem(distance=foreign.Mahalanobis())
    return mpiabc.ABCSMC(problem, 60, kernel=foreign.Student(), threshold=foreign.Sharper(), seed=1)


STATIC = {  # those for static scheduling, too
    "scalar": problems.sampler,
    "vectorized": lambda: problems.sampler(simulate=problems.gaussian_vectorized, vectorized=True),
    "batches": batches.sampler,
    "several models": several.sampler,
    "several models, batches": lambda: several.sampler(vectorized=True, batch=512),
    "random delays": lambda: problems.sampler(simulate=problems.gaussian_slow, n=20),
    "parts of one's own": parts_of_ones_own,
}
VARIANTS = STATIC | {
    "recycled, batches": lambda: batches.sampler(recycle=True),
    "recycled, several models": lambda: several.sampler(recycle=True),
    "recycled": lambda: problems.sampler(recycle=True, simulate=problems.gaussian_late, n=60),
    "recycled, vectorized": lambda: problems.sampler(
        simulate=problems.gaussian_vectorized, vectorized=True, recycle=True
    ),
    "recycled, local": lambda: problems.sampler(
        recycle=True, n=60, kernel=mpiabc.LocalGaussian(), weights="levels"
    ),
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
