"""The problem that all benchmarks share: theta ~ U(-10, 10), y ~ N(theta, 1), y0 = 0."""

import math
import subprocess
import time
from pathlib import Path

import mpiabc

THRESHOLDS = [4, 2, 1, 0.5, 0.25]


def problem(simulate, **options):
    """The toy problem around a simulator."""
    return mpiabc.Problem(mpiabc.Prior(theta=mpiabc.Uniform(-10, 10)), simulate, {"y": 0.0}, **options)


def sampler(simulate, n, **options):
    """Five generations of the toy problem."""
    return mpiabc.ABCSMC(problem(simulate, **options), n, threshold=mpiabc.Listed(THRESHOLDS), seed=1)


def peer(python, sampler, n, seconds=0.0, batch=1, *server):
    """The same in pyABC: seconds of wall time, simulations, tasks. See `peer` for the arguments."""
    command = [
        python,
        "-W",
        "ignore",
        Path(__file__).with_name("peer.py"),
        sampler,
        n,
        seconds,
        batch,
        *server,
    ]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    wall, simulations, tasks = done.stdout.split()[-3:]
    return float(wall), int(simulations), int(tasks)


def trivial(theta, rng):
    """A simulation that costs a microsecond."""
    return {"y": theta["theta"] + rng.standard_normal()}


def trivial_vectorized(theta, rng):
    """The same for many at once."""
    return {"y": theta["theta"] + rng.standard_normal(theta["theta"].shape)}


class Busy:
    """A simulator that needs `seconds` of processor time, even or lognormal (variance = mean^2).

    holds_gil: in one call into C that keeps the interpreter lock, else in a loop of Python.
    """

    def __init__(self, seconds, *, is_lognormal=False, holds_gil=False):
        self.seconds, self.is_lognormal, self.holds_gil = seconds, is_lognormal, holds_gil
        self.rate = _sums_per_second() if holds_gil else 0.0

    def __call__(self, theta, rng):
        """Draw the run time first, so that it can be drawn again for the account."""
        seconds = self.duration(rng)
        if self.holds_gil:
            sum(range(int(seconds * self.rate)))
        else:
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass
        return {"y": theta["theta"] + rng.standard_normal()}

    def duration(self, rng):
        """Processor seconds of the simulation with this stream."""
        sigma = math.sqrt(math.log(2))
        return self.seconds * (rng.lognormal(-(sigma**2) / 2, sigma) if self.is_lognormal else 1.0)


def _sums_per_second():
    n, rates = 2_000_000, []
    for _ in range(9):
        began = time.thread_time()
        sum(range(n))
        rates.append(n / (time.thread_time() - began))
    return sorted(rates)[4]
