"""Real workers that wait for each other as a generation ends: what looking ahead and recycling bring.

    python -m tests.benchmarks.tails [--workers 16] [--milliseconds 50] [--particles 64] [--repeats 1]

A simulation sleeps: lognormal, with a standard deviation as large as its mean. Five thresholds; ours over
MPI, pyABC by its Redis sampler with as many workers, with and without its own look-ahead. Seconds are those
of the run alone, once all workers are up. Sleeping needs no core, so that a small machine has many ranks.
"""

import argparse
import json
import logging
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import mpiabc
from tests.benchmarks.pyabc_samplers import _warmed, reported

THRESHOLDS = [1.6, 0.8, 0.4, 0.2, 0.1]
OURS = {
    "mpiabc": {},
    "mpiabc, looking ahead": {"lookahead": True},
    "mpiabc, recycling": {"recycle": True},
    "mpiabc, recycling, looking ahead": {"recycle": True, "lookahead": True},
}
THEIRS = {"pyABC Redis": False, "pyABC Redis, looking ahead": True}
_SIGMA = math.sqrt(math.log(2))


class Model:
    """Sleeps, and is off by a little; the same for both packages."""

    def __init__(self, milliseconds):
        self.mean = milliseconds / 1000

    def __call__(self, theta, rng):
        time.sleep(rng.lognormal(math.log(self.mean) - _SIGMA**2 / 2, _SIGMA))
        return {"y": theta["mu"] + 0.1 * rng.standard_normal()}


class Theirs(Model):
    """Called as pyABC calls."""

    def __call__(self, theta):
        return super().__call__(theta, np.random.default_rng(np.random.randint(2**31)))


def distance(x, y):
    return abs(x["y"] - y["y"])


def ours(name, options):
    """On each rank; rank 0 has the figures."""
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 1))
    problem = mpiabc.Problem(prior, Model(options.milliseconds), {"y": 0.0}, distance=mpiabc.PNorm(p=2))
    threshold = mpiabc.Listed(THRESHOLDS)
    abc = mpiabc.ABCSMC(problem, options.particles, threshold=threshold, seed=options.seed, **OURS[name])
    from mpi4py.MPI import COMM_WORLD

    with tempfile.TemporaryDirectory() as folder:
        COMM_WORLD.Barrier()
        began = time.perf_counter()
        history = abc.run(Path(folder) / "run.db", scheduler="mpi", generations=len(THRESHOLDS))
        seconds = time.perf_counter() - began
        if history is None:
            return None
        simulations = sum(population.simulations for population in history)
        return {"seconds": seconds, "ess": history[-1].ess, "simulations": simulations}


def theirs(name, options):
    import pyabc
    from pyabc.sampler import RedisEvalParallelSamplerServerStarter

    np.random.seed(options.seed)
    sampler = RedisEvalParallelSamplerServerStarter(
        workers=1, processes_per_worker=options.workers, look_ahead=THEIRS[name]
    )
    try:
        sampler.set_analysis_id("warm")
        _warmed(sampler, options.workers)
        sampler.stop()
        prior = pyabc.Distribution(mu=pyabc.RV("norm", 0, 1))
        eps = pyabc.ListEpsilon(THRESHOLDS)
        model = Theirs(options.milliseconds)
        abc = pyabc.ABCSMC(model, prior, distance, options.particles, eps=eps, sampler=sampler)
        abc.new("sqlite://", {"y": 0.0})
        began = time.perf_counter()
        history = abc.run(max_nr_populations=len(THRESHOLDS))
        seconds = time.perf_counter() - began
        _, weights = history.get_distribution()
        return {
            "seconds": seconds,
            "ess": float(weights.sum() ** 2 / (weights**2).sum()),
            "simulations": int(history.total_nr_simulations),
        }
    finally:
        sampler.shutdown()


def measure(options):
    """In the process that leads."""
    warnings.simplefilter("ignore")
    logging.getLogger("ABC").setLevel("ERROR")
    found = (ours if options.one in OURS else theirs)(options.one, options)
    if found is not None:
        print("MEASURED", json.dumps(found), flush=True)


def measured(name, seed, options):
    """The same in a process, or job, of its own; None where it fails."""
    program = [sys.executable, "-m", "tests.benchmarks.tails", "--one", name, "--seed", str(seed)]
    for option in ("workers", "milliseconds", "particles"):
        program += [f"--{option}", str(getattr(options, option))]
    return reported(name, program, ranks=options.workers if name in OURS else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--milliseconds", type=float, default=50)
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", choices=[*OURS, *THEIRS], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options)
        return
    print(f"{options.workers} workers, {options.milliseconds:g} ms, {options.particles} particles")
    print(f"{'':36}{'seconds':>9}{'ESS':>7}{'simulations':>13}{'ESS/s':>8}{'busy':>7}")
    for seed in range(1, options.repeats + 1):
        for name in [*OURS, *THEIRS]:
            found = measured(name, seed, options)
            if found is not None:
                busy = found["simulations"] * options.milliseconds / 1000 / options.workers / found["seconds"]
                print(
                    f"{name:36}{found['seconds']:9.2f}{found['ess']:7.1f}{found['simulations']:13d}"
                    f"{found['ess'] / found['seconds']:8.2f}{busy:7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
