"""Between generations: N = 10 000, d = 10, trivial vectorised simulator. Idle share, and store time.

python -m tests.benchmarks.between            then with two ranks
mpirun -n 2 python -m tests.benchmarks.between mpi
"""

import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mpiabc
from mpiabc.store import Store
from tests.benchmarks.overhead import ten_vectorized


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        """Keep the line."""
        self.lines.append(record.getMessage())


def main(scheduler):
    """Print a row a generation."""
    kept, writes = Kept(), []
    logging.getLogger("mpiabc").addHandler(kept)
    logging.getLogger("mpiabc").setLevel(logging.INFO)
    commit = Store.commit

    def timed(self, *arguments):
        began = time.perf_counter()
        commit(self, *arguments)
        writes.append(time.perf_counter() - began)

    Store.commit = timed
    prior = mpiabc.Prior(**{f"x{i}": mpiabc.Uniform(-10, 10) for i in range(10)})
    problem = mpiabc.Problem(prior, ten_vectorized, np.zeros(10), vectorized=True)
    abc = mpiabc.ABCSMC(problem, 10_000, threshold=mpiabc.Quantile(0.5), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        history = abc.run(Path(folder) / "run.db", generations=5, scheduler=scheduler)
        if history is not None:
            for line, write in zip(kept.lines, writes, strict=True):
                print(f"{scheduler}: {line}; store {write * 1e3:.0f} ms", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        main("processes")
        mpirun = Path(sys.executable).parent / "mpirun"
        command = [str(mpirun), "-n", "2", sys.executable, "-m", "tests.benchmarks.between", "mpi"]
        sys.exit(subprocess.run(command).returncode)
