"""Run every variant of the toy problem on the ranks of this job; rank 0 prints the digests as JSON."""

import json
import sys
import tempfile
from pathlib import Path

from tests import problems

VARIANTS = {
    "scalar": {},
    "vectorized": {"simulate": problems.gaussian_vectorized, "vectorized": True},
    "random delays": {"simulate": problems.gaussian_slow, "n": 20},
}


def digests(scheduler, variant):
    with tempfile.TemporaryDirectory() as folder:
        history = problems.sampler(**VARIANTS[variant]).run(Path(folder) / "run.db", scheduler=scheduler)
        return None if history is None else problems.digests(history)


if __name__ == "__main__":
    found = {
        f"{scheduler}, {variant}": digests(scheduler, variant)
        for scheduler in sys.argv[1:]
        for variant in VARIANTS
    }
    if None not in found.values():
        print("DIGESTS", json.dumps(found))
