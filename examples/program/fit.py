"""A simulator that is a program: a plain SIR epidemic for the counts of examples/influenza.py, in C, or in R.

    mpirun -n 2 python examples/program/fit.py
    mpirun -n 2 python examples/program/fit.py --language R

A program takes a millisecond to start, an interpreter two hundred: those are what a simulation costs here.
"""

import argparse
import hashlib
import logging
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import mpiabc

HERE = Path(__file__).parent
IN_BED = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])


def compiled(source):
    """The program of a C file, made once; all ranks of a machine find the same one."""
    program = (
        Path(tempfile.gettempdir()) / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"
    )
    if not program.exists():
        part = f"{program}.{os.getpid()}"
        subprocess.run(["cc", "-O2", "-o", part, source, "-lm"], check=True)
        os.replace(part, program)
    return program


def command(language):
    words = [compiled(HERE / "influenza.c")] if language == "C" else ["Rscript", HERE / "influenza.R"]
    return mpiabc.Command([*words, "{beta}", "{gamma}", "{seeds}", "{seed}"], timeout=60)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--language", choices=["C", "R"], default="C")
    arguments.add_argument("--population", type=int, default=200)
    arguments.add_argument("--generations", type=int, default=4)
    arguments.add_argument("--store", default="program.db")
    given = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    problem = mpiabc.Problem(
        prior=mpiabc.Prior(
            beta=mpiabc.LogUniform(0.2, 10), gamma=mpiabc.LogUniform(0.05, 5), seeds=mpiabc.Uniform(0, 10)
        ),
        simulate=command(given.language),
        summarize=np.sqrt,
        observed=np.sqrt(IN_BED),
        on_error=20,
    )
    abc = mpiabc.ABCSMC(problem, given.population, seed=1)
    history = abc.run(given.store, generations=given.generations)
    if history is not None:
        print(history[-1].mean())


if __name__ == "__main__":
    main()
