"""Wide: thousands of workers on paper, with the real run, driver and evaluations, and a virtual clock.

    python -m tests.benchmarks.wide [--workers 48 384 768] [--cases wide published] [--replicates 8]
                                    [--latency 1e-4] [--with-leader] [--ways plain coupled ...]
    python -m tests.benchmarks.wide --reports

N = 1024 (10 000 particles from 10 000 workers on), lognormal run times of mean 1 s and variance 1, one
evaluation a lease. "wide": five thresholds, some 40 N simulations; "published": eight, some 17 N, as in
Alamoudi et al. 2024. Efficiency is honest: what one worker of the plain algorithm takes for all evaluations
below its cuts, over workers x makespan, times the effective sample size over that of plain, so that work in
vain and poorer populations count against a way. `--with-leader` lets the virtual clock stand while the
leading process fits and decides between generations, in this machine's seconds. Each cell takes minutes:
the evaluations are real.

`--reports`: what the driver handles in real time, on one core, where evaluations are made up.
"""

import argparse
import itertools
import math
import time
from dataclasses import dataclass

import numpy as np

import mpiabc
from mpiabc.actions import Commit
from mpiabc.cli.words import table
from mpiabc.driver import Driver
from mpiabc.evaluate import Level
from mpiabc.ledger import Ledger
from mpiabc.particles import Particles
from mpiabc.planner import Planner
from mpiabc.records import Records, Status
from mpiabc.run import Run, reproducible
from mpiabc.stopping import Stopping
from mpiabc.streams import stream_key
from tests.cluster import Cluster
from tests.problems import OneOrder

SIGMA = math.sqrt(math.log(2))
CASES = {  # thresholds of the largest of two differences
    "wide": (1.635, 0.998, 0.722, 0.42, 0.27),
    "published": (math.inf, 1.42, 1.08, 0.84, 0.66, 0.51, 0.39, 0.29),
}
WAYS = {
    "plain": {},
    "coupled": {"lookahead": True},
    "recycle": {"recycle": True},
    "recycle + coupled": {"recycle": True, "lookahead": True},
}
PYABC = {  # its look-ahead, as published
    ("wide", 384): 0.70,
    ("wide", 768): 0.58,
    ("published", 384): 0.54,
    ("published", 768): 0.31,
}
_TIMES = 200_000  # run times of a level, by id


class Timed(Cluster):
    """A cluster whose clock goes on, if so wanted, while the leading process decides about a generation."""

    def __init__(self, *options, with_leader=False, **faults):
        super().__init__(*options, **faults)
        self._with_leader, self._polled, self._begun = with_leader, 0.0, 0.0

    def begin(self, generation):
        super().begin(generation)
        self._begun = time.perf_counter()

    def poll(self, timeout):
        if self._with_leader and self._begun > self._polled > 0.0:
            self.now += self._begun - self._polled
        found = super().poll(timeout)
        self._polled = time.perf_counter()
        return found

    def submit(self, lease):
        if self._with_leader and self._begun > self._polled > 0.0:
            self.now += self._begun - self._polled
            self._polled = self._begun
        super().submit(lease)


@dataclass(frozen=True)
class Timetable:
    """How long each id takes at each level, the same whoever evaluates it."""

    seed: int

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        times = rng.lognormal(-(SIGMA**2) / 2, SIGMA, _TIMES)
        object.__setattr__(self, "times", times)

    def of(self, level, id):
        """Seconds."""
        return float(self.times[(id + 104_729 * level) % _TIMES])

    def __call__(self, evaluator, id, rng):
        return self.of(evaluator.order.level, id)

    def below_cuts(self, populations):
        """What one worker takes for all that counts."""
        ids = ((p.generation, i) for p in populations for i in range(p.first, p.first + p.evaluations))
        return sum(itertools.starmap(self.of, ids))


def problem():
    """theta ~ N(0, 1) in two dimensions, y ~ N(theta, .5^2)."""

    def simulate(theta, rng):
        a, b = rng.standard_normal(2)
        return [theta["a"] + 0.5 * a, theta["b"] + 0.5 * b]

    prior = mpiabc.Prior(a=mpiabc.Normal(0, 1), b=mpiabc.Normal(0, 1))
    return mpiabc.Problem(prior, simulate, [1.0, 1.0], distance=mpiabc.PNorm(p=math.inf))


def driven(case, way, workers, n, seed, **options):
    """The populations of a run, and when it was done; without workers, on one."""
    sampler = mpiabc.ABCSMC(problem(), n, threshold=mpiabc.Listed(CASES[case]), seed=seed, **WAYS[way])
    parts = sampler.problem.prior, sampler.kernel, sampler.threshold
    planner = Planner(*parts, stream_key(seed), n, False, sampler.weights, lookahead=sampler.lookahead)
    job = Run(sampler.problem, planner, Stopping())
    make = (sampler.problem,)
    cluster = Timed(workers, Timetable(seed), lambda order: order.evaluator(*make), **options)
    with reproducible():
        events = list(Driver(cluster, clock=cluster.clock).run(job))
    return [event.population for event in events if isinstance(event, Commit)], cluster.now


def efficiencies(case, workers, n, seed, ways, **options):
    """Of each way; the populations of plain are the measure of all."""
    plain, seconds = driven(case, "plain", workers, n, seed, **options)
    alone = Timetable(seed).below_cuts(plain)
    for way in ways:
        found, now = (plain, seconds) if way == "plain" else driven(case, way, workers, n, seed, **options)
        yield found[-1].ess / plain[-1].ess * alone / (workers * now)


def compare(arguments):
    """The table, a row for each case and number of workers."""
    options = {"latency": arguments.latency, "with_leader": arguments.with_leader}
    rows = [["case", "workers", "N", *arguments.ways, "pyABC's look-ahead"]]
    for case, workers in itertools.product(arguments.cases, arguments.workers):
        n = arguments.particles or (10_000 if workers >= 10_000 else 1024)
        seeds = range(arguments.replicates)
        each = np.array([list(efficiencies(case, workers, n, s, arguments.ways, **options)) for s in seeds])
        told = [f"{x:.2f}" for x in each.mean(axis=0)]
        rows.append([case, str(workers), str(n), *told, f"{PYABC.get((case, workers), math.nan):.2f}"])
        print(table([rows[0], rows[-1]]), flush=True)


# What a driver handles.

RATES = (0.5, 0.3, 0.2, 0.1, 0.05)


class Coin:
    """Accepts each id with a fixed probability and simulates nothing."""

    def __init__(self, generation):
        self.generation = generation.level
        rng = np.random.default_rng(generation.level)
        rate = RATES[generation.level]
        enough = int(1.5 * generation.size / rate) + 50_000
        self.accepts = rng.random(enough) < rate
        self.seconds = rng.lognormal(-(SIGMA**2) / 2, SIGMA, enough)

    def __call__(self, start, stop):
        """Records of made-up evaluations."""
        accepted = self.accepts[start:stop]
        ids = start + np.flatnonzero(accepted)
        column = np.zeros((len(ids), 1))
        flat = column[:, 0]
        status = np.where(accepted, Status.ACCEPTED, Status.REJECTED).astype(np.uint8)
        rows = Particles(ids, column, flat, flat, column)
        return Records(self.generation, start, stop, status, rows)


def measure(workers, n, rates=RATES):
    """Efficiency, messages per virtual second, reports per real second."""
    cluster = Cluster(workers, lambda coin, id, rng: coin.seconds[id], Coin, latency=1e-4)
    driver = Driver(cluster, clock=cluster.clock)
    useful, reports, real = 0.0, 0, 0.0
    for t in range(len(rates)):
        generation = Level(t, (0, 0), 1.0, None, n)
        ledger = Ledger(t, n)
        before = cluster.messages
        began = time.perf_counter()
        list(driver.run(OneOrder(generation, ledger)))
        real += time.perf_counter() - began
        reports += (cluster.messages - before) // 2
        useful += Coin(generation).seconds[: int(ledger.cut)].sum()
    return useful / workers / cluster.now, cluster.messages / cluster.now, reports / real, cluster.now


def report():
    """A row for each number of workers and particles."""
    print(f"{'workers':>8}{'N':>8}{'efficiency':>12}{'messages/s':>12}{'makespan s':>12}{'reports/s':>11}")
    for workers, n in [(384, 1024), (768, 1024), (768, 4096), (10_000, 10_000), (10_000, 50_000)]:
        efficiency, messages, reports, makespan = measure(workers, n)
        print(
            f"{workers:8}{n:8}{efficiency:12.2f}{messages:12.0f}{makespan:12.1f}{reports:11.0f}", flush=True
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[48, 384, 768, 10_000])
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--replicates", type=int, default=8)
    parser.add_argument("--particles", type=int, help="N, instead of 1024 or 10 000")
    parser.add_argument("--latency", type=float, default=1e-4, help="virtual seconds of a message")
    parser.add_argument("--with-leader", action="store_true", help="the leading process takes time, too")
    parser.add_argument("--reports", action="store_true", help="what the driver handles")
    arguments = parser.parse_args()
    report() if arguments.reports else compare(arguments)


if __name__ == "__main__":
    main()
