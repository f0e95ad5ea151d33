"""On paper made of code: the real ledger and driver against a simulated cluster with a virtual clock.

    python -m tests.benchmarks.wide

Lognormal run times of mean 1 s and variance 1, one evaluation a lease, 0.1 ms of latency a message.
Five generations of falling acceptance. Efficiency is the run time of the evaluations below the cuts
over workers x makespan; reports/s are what the driver handles in real time, on one core.
"""

import math
import time

import numpy as np

from mpiabc.driver import Driver
from mpiabc.evaluate import Level
from mpiabc.ledger import Ledger
from mpiabc.particles import Particles
from mpiabc.records import Records, Status
from tests.cluster import Cluster
from tests.problems import OneOrder

RATES = (0.5, 0.3, 0.2, 0.1, 0.05)
SIGMA = math.sqrt(math.log(2))


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


if __name__ == "__main__":
    print(f"{'workers':>8}{'N':>8}{'efficiency':>12}{'messages/s':>12}{'makespan s':>12}{'reports/s':>11}")
    for workers, n in [(384, 1024), (768, 1024), (768, 4096), (10_000, 10_000), (10_000, 50_000)]:
        efficiency, messages, reports, makespan = measure(workers, n)
        print(
            f"{workers:8}{n:8}{efficiency:12.2f}{messages:12.0f}{makespan:12.1f}{reports:11.0f}", flush=True
        )
