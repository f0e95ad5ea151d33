"""Simulations per second in large batches, and what a simulation takes outside of its simulator.

    python -m tests.benchmarks.batches [SIR | OUTSIDE]

One process, serial, store and fsync included. The SIR model has 100 steps, in NumPy and, where it is
installed, in JAX, on whatever device it finds; N = 1000. Simulations per second are those of wall time and,
as other work on the machine changes these, of processor time. Outside is what a run takes besides its
simulator, in microseconds for each row of a call; in wall time it may be less, where threads share the
densities of large populations. It depends on the rate of acceptance, as what is accepted is weighed: these
runs end when one in two hundred is.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mpiabc
from examples import gpu_simulator as sir

logging.getLogger("mpiabc").setLevel(logging.ERROR)  # the largest batches waste more than half here
BATCHES = (256, 4096, 65_536)
QUANTILE = 0.25


class Counted:
    """A simulator, with the rows that it has made, and the wall and processor seconds that it took."""

    def __init__(self, simulate):
        self.simulate, self.rows, self.wall, self.processor = simulate, 0, 0.0, 0.0

    def __call__(self, theta, rng):
        """Simulate, until the numbers are here."""
        wall, processor = time.perf_counter(), time.process_time()
        data = np.asarray(self.simulate(theta, rng))
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        self.rows += len(data)
        return data


def measure(simulate, prior, observed, n, batch, **rules):
    """What a run of this simulator took: the counted one, wall and processor seconds, the last rate."""
    counted = Counted(simulate)
    problem = mpiabc.Problem(prior, counted, observed, vectorized=True, batch=batch)
    sampler = mpiabc.ABCSMC(problem, n, threshold=mpiabc.Quantile(QUANTILE), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        history = sampler.run(Path(folder) / "run.db", scheduler="serial", **rules)
        seconds = time.perf_counter() - wall, time.process_time() - processor
        return counted, *seconds, history[-1].acceptance_rate


def with_numpy(theta, rng):
    """The SIR model in NumPy."""
    return np.sqrt(sir.with_numpy(theta["beta"], theta["gamma"], rng))


def with_jax(theta, rng):
    """The SIR model in JAX."""
    return np.sqrt(sir.simulate(theta, rng))


def epidemics():
    """The table of the SIR model."""
    print(f"{'':<26}{'a second':>14}{'':<14}{'a processor second':>28}")
    columns = "".join(f"{name:>14}" for name in (*(2 * ("simulator", "run")), "outside"))
    print(f"{'SIR, 100 steps':<18}{'batch':>8}{columns}")
    simulators = {"NumPy": with_numpy} | ({"JAX": with_jax} if sir.jax_here() else {})
    for name, simulate in simulators.items():
        for batch in BATCHES:
            simulate({"beta": np.full(batch, 0.5), "gamma": np.full(batch, 0.2)}, np.random.default_rng(1))
            parts = simulate, sir.problem.prior, sir.problem.observed
            counted, wall, processor, _ = measure(*parts, 1000, batch, generations=8)
            seconds = counted.wall, wall, counted.processor, processor
            rates = "".join(f"{counted.rows / each:14,.0f}" for each in seconds)
            outside = (processor - counted.processor) / counted.rows * 1e6
            print(f"{name:<18}{batch:8}{rates}{outside:11.2f} us", flush=True)


def stacked(theta, rng):
    """What is returned as soon as possible: the parameters and some noise that is there already."""
    return np.stack(list(theta.values()), axis=1) + NOISE[: len(theta["x0"]), : len(theta)]


NOISE = 0.3 * np.random.default_rng(1).standard_normal((max(BATCHES), 3))


def outside():
    """The table of what is left: microseconds a row."""
    print(f"{'outside':<10}{'N':>8}{'processor':>12}{'wall':>12}{'rows':>12}{'last rate':>12}")
    for d in (1, 2, 3):
        prior = mpiabc.Prior(**{f"x{i}": mpiabc.Uniform(-3, 3) for i in range(d)})
        for n in (1000, 10_000):
            parts = stacked, prior, np.zeros(d)
            measure(*parts, 100, 4096, generations=2)  # what the first run in a process loads
            counted, wall, processor, rate = measure(*parts, n, max(BATCHES), acceptance_rate=0.005)
            inner = [(processor - counted.processor), (wall - counted.wall)]
            cells = "".join(f"{seconds / counted.rows * 1e6:9.2f} us" for seconds in inner)
            print(f"d = {d:<6}{n:8}{cells}{counted.rows:12,}{rate:12.3f}", flush=True)


if __name__ == "__main__":
    for name, table in {"SIR": epidemics, "OUTSIDE": outside}.items():
        if name in sys.argv[1:] or len(sys.argv) == 1:
            table()
