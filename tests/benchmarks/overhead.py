"""Microseconds of wall time per simulation, serial, trivial simulator, five generations of N = 1000.

    python -m tests.benchmarks.overhead [PYTHON_WITH_PYABC]

With an interpreter that has pyABC 0.13, its SingleCore and MulticoreEvalParallel samplers run the same
problem in turn with ours. All figures include opening and writing the store (fsync and all).
"""

import sys
import tempfile
import time
import timeit
from pathlib import Path
from statistics import median

import numpy as np

import mpiabc
from mpiabc import guard, whereabouts
from mpiabc.fingerprint import fingerprint
from mpiabc.streams import stream_key
from tests.benchmarks import toy

N = 1000
RUNS = 7


def ten(theta, rng):
    """y ~ N(theta, 1) in ten dimensions."""
    return np.fromiter(theta.values(), float, 10) + rng.standard_normal(10)


def ten_vectorized(theta, rng):
    """The same for many at once."""
    return np.stack(list(theta.values()), axis=1) + rng.standard_normal((len(theta["x0"]), 10))


def samplers():
    """Name, sampler, and the aim in microseconds per simulation."""
    prior = mpiabc.Prior(**{f"x{i}": mpiabc.Uniform(-10, 10) for i in range(10)})
    for name, simulate, vectorized, aim in [
        ("d = 1, scalar", toy.trivial, False, 12),
        ("d = 1, vectorised", toy.trivial_vectorized, True, 1),
    ]:
        yield name, toy.sampler(simulate, N, vectorized=vectorized), {}, simulate, aim
    for name, simulate, vectorized, aim in [
        ("d = 10, scalar", ten, False, 25),
        ("d = 10, vectorised", ten_vectorized, True, 3),
    ]:
        problem = mpiabc.Problem(prior, simulate, np.zeros(10), vectorized=vectorized)
        yield name, mpiabc.ABCSMC(problem, N, seed=1), {"generations": 5}, simulate, aim


def measure(sampler, options):
    """Median over runs of: microseconds per simulation in all, and within the generations."""
    whole, inner = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            history = sampler.run(Path(folder) / "run.db", scheduler="serial", **options)
            wall = time.perf_counter() - began
            simulations = sum(population.simulations for population in history)
            whole.append(wall / simulations * 1e6)
            inner.append(sum(population.seconds for population in history) / simulations * 1e6)
    return median(whole), median(inner), simulations


def bare(simulate, vectorized, d):
    """Microseconds per simulation of the simulator alone."""
    rng, n = np.random.default_rng(1), 256 if vectorized else 1
    names = ["theta"] if d == 1 else [f"x{i}" for i in range(10)]
    theta = {name: np.zeros(256) if vectorized else 0.0 for name in names}
    began = time.perf_counter()
    for _ in range(2000):
        simulate(theta, rng)
    return (time.perf_counter() - began) / 2000 / n * 1e6


def parts():
    """Name, a call, and the aim in microseconds."""
    random, problem = guard.GlobalRandom(stream_key(1)), next(samplers())[1].problem
    yield "seeding the global generators", lambda: random.seed(1, 2), 20
    with tempfile.TemporaryDirectory() as folder:
        note = whereabouts.Note(Path(folder) / "run.db", None)
        watch = note.watch(0)
        yield "noting an evaluation", lambda: watch(7), 1
        note.close()
    yield "a fingerprint", lambda: fingerprint(simulate=problem.simulate, prior=problem.prior), 1000


def main(python):
    """Print the tables."""
    for name, call, aim in parts():
        best = min(timeit.repeat(call, number=200, repeat=20)) / 200 * 1e6
        print(f"{name:<32}{best:10.2f} us, aim {aim}", flush=True)
    print(f"{'':<22}{'us per simulation':>18}{'in generations':>16}{'bare':>8}{'aim':>6}{'simulations':>13}")
    found = {}
    for name, sampler, options, simulate, aim in samplers():
        whole, inner, simulations = found[name] = measure(sampler, options)
        alone = bare(simulate, sampler.problem.vectorized, 1 if "d = 1," in name else 10)
        print(f"{name:<22}{whole:18.2f}{inner:16.2f}{alone:8.2f}{aim:6}{simulations:13}", flush=True)
    if python is None:
        print("give a Python with pyABC 0.13 as the argument to see it beside")
        return
    for sampler in ("SingleCore", "MulticoreEvalParallel"):
        wall, simulations, _ = toy.peer(python, sampler, N)
        theirs = wall / simulations * 1e6
        again, _, _ = measure(next(samplers())[1], {})
        vectorised = theirs / found["d = 1, vectorised"][0]
        print(
            f"{'pyABC ' + sampler:<30}{theirs:10.0f}   {theirs / again:.0f} times ours scalar, "
            f"{vectorised:.0f} times ours vectorised",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
