"""Wide: thousands of workers on paper, with the real run, driver and evaluations, and a virtual clock.

    python -m tests.benchmarks.wide [--workers 48 384 768] [--cases wide published] [--replicates 8]
                                    [--latency 1e-4] [--with-leader] [--ways plain coupled ...]
                                    [--kept wide.csv] [--table]
    python -m tests.benchmarks.wide --reports

N = 1024 (10 000 particles from 10 000 workers on), lognormal run times of mean 1 s and variance 1, one
evaluation a lease. "wide": five thresholds, some 40 N simulations; "published": eight, some 17 N, as in
Alamoudi et al. 2024. Efficiency is honest: what one worker of the plain algorithm takes for all evaluations
below its cuts, over workers x makespan, times the effective sample size over that of plain, so that work in
vain and poorer populations count against a way. `--with-leader` lets the virtual clock go on while the
leading process fits and decides between generations, by its processor time on this machine. The evaluations
are real, but made a block at a time, which changes none of them. `--kept` has each run in a file as soon as
it is done, and makes none that is there already; `--table` only shows that file.

`--reports`: what the driver handles in real time, on one core, where evaluations are made up.
"""

import argparse
import csv
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mpiabc
from mpiabc.actions import Commit
from mpiabc.cli.words import table
from mpiabc.driver import Driver
from mpiabc.evaluate import Level
from mpiabc.ledger import Ledger
from mpiabc.particles import Particles, in_line
from mpiabc.planner import Planner
from mpiabc.records import Records, Status
from mpiabc.run import Run, reproducible
from mpiabc.stopping import Stopping
from mpiabc.streams import BLOCK, stream_key
from tests.cluster import Cluster
from tests.problems import OneOrder

SIGMA = math.sqrt(math.log(2))
CASES = {  # thresholds of the largest of two differences
    "wide": (1.635, 0.998, 0.722, 0.42, 0.27),
    "published": (math.inf, 2.3, 1.81, 1.5, 1.31, 1.13, 0.98, 0.85),
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


class Blockwise:
    """An evaluator that evaluates what is left of a block of ids when it is asked for the first of them."""

    def __init__(self, evaluator):
        self.order = evaluator.order
        self._evaluator = evaluator
        self._known: dict[
            int, tuple[int, list[Records]]
        ] = {}  # by block: its first known id, and on from there

    def prepare(self, start, stop):
        """Know what these ids bring, as long as all parts of the order are at hand."""
        for id in reversed(range(start, stop)):
            number = id // BLOCK
            first, known = self._known.get(number, ((number + 1) * BLOCK, []))
            if id < first:
                self._known[number] = id, [*_singly(self._evaluator(id, first)), *known]

    def __call__(self, start, stop):
        self.prepare(start, stop)
        return joined_records([self._of(id) for id in range(start, stop)])

    def _of(self, id):
        first, known = self._known[id // BLOCK]
        return known[id - first]


def _singly(records):
    """Records of single ids."""
    at = np.cumsum(records.status == Status.ACCEPTED) - 1
    nothing = records.rows.take(np.zeros(0, np.int64))
    for i, status in enumerate(records.status.tolist()):
        rows = records.rows.take(at[i : i + 1]) if status == Status.ACCEPTED else nothing
        id = records.start + i
        yield Records(records.job, id, id + 1, records.status[i : i + 1], rows)


def joined_records(parts):
    """Those of neighbouring ids as one."""
    if len(parts) == 1:
        return parts[0]
    rows, status = in_line([part.rows for part in parts]), np.concatenate([part.status for part in parts])
    return Records(parts[0].job, parts[0].start, parts[-1].stop, status, rows)


class Timed(Cluster):
    """A cluster whose clock goes on, if so wanted, while the leading process decides about a generation."""

    def __init__(self, *options, with_leader=False, **faults):
        super().__init__(*options, **faults)
        self._with_leader, self._polled = with_leader, math.inf
        self.leading = 0.0  # seconds of all such decisions

    def begin(self, generation):
        decided = max(0.0, time.process_time() - self._polled)
        self.leading += decided
        self.now += decided if self._with_leader else 0.0
        super().begin(generation)

    def poll(self, timeout):
        found = super().poll(timeout)
        self._polled = time.process_time()
        return found

    def submit(self, lease):
        if isinstance(self._evaluator, Blockwise):  # and not densities, which are shared where they are dear
            self._evaluator.prepare(lease.start, lease.stop)
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


class Cell(NamedTuple):
    """A run on paper."""

    case: str
    workers: int
    n: int
    way: str
    seed: int
    latency: float
    with_leader: bool


class Found(NamedTuple):
    """What came of it."""

    ess: float
    makespan: float  # virtual seconds
    alone: float  # what one worker takes for all below the cuts
    evaluations: int
    leading: float  # seconds for all decisions between generations
    real: float  # seconds of processor time that it took to find out


def driven(cell: Cell) -> Found:
    """Run it."""
    began = time.process_time()
    options = WAYS[cell.way]
    threshold = mpiabc.Listed(CASES[cell.case])
    sampler = mpiabc.ABCSMC(problem(), cell.n, threshold=threshold, seed=cell.seed, **options)
    parts = sampler.problem.prior, sampler.kernel, sampler.threshold
    key = stream_key(cell.seed)
    planner = Planner(*parts, key, cell.n, False, sampler.weights, lookahead=sampler.lookahead)
    job = Run(sampler.problem, planner, Stopping())
    make = (sampler.problem,)
    times = Timetable(cell.seed)
    cluster = Timed(
        cell.workers,
        times,
        lambda job: Blockwise(job.evaluator(*make)) if isinstance(job, Level) else job.evaluator(*make),
        latency=cell.latency,
        with_leader=cell.with_leader,
    )
    with reproducible():
        events = list(Driver(cluster, clock=cluster.clock).run(job))
    populations = [event.population for event in events if isinstance(event, Commit)]
    evaluations = sum(p.evaluations for p in populations)
    alone, real = times.below_cuts(populations), time.process_time() - began
    return Found(populations[-1].ess, cluster.now, alone, evaluations, cluster.leading, real)


class Kept:
    """Runs that were made, in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._found = path, {}
        for row in csv.DictReader(path.open()) if path and path.exists() else ():
            cell = (_read(row[name], kind) for name, kind in Cell.__annotations__.items())
            found = (_read(row[name], kind) for name, kind in Found.__annotations__.items())
            self._found[Cell(*cell)] = Found(*found)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._found)

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._found

    def get(self, cell: Cell) -> Found:
        """What came of it, now if it has not been made."""
        if cell not in self._found:
            self._found[cell] = found = driven(cell)
            if self._path:
                is_new = not self._path.exists()
                with self._path.open("a", newline="") as file:
                    rows = csv.writer(file)
                    rows.writerows([(*Cell._fields, *Found._fields)] if is_new else [])
                    rows.writerow((*cell, *found))
        return self._found[cell]

    def efficiency(self, cell: Cell) -> float:
        """Of a run; the populations of plain are the measure of all."""
        plain, found = self.get(cell._replace(way="plain")), self.get(cell)
        return found.ess / plain.ess * plain.alone / (cell.workers * found.makespan)


def _read(text: str, kind: type) -> object:
    return text == "True" if kind is bool else kind(text)


def described(kept: Kept, cells: list[Cell]) -> str:
    """Mean efficiency of some runs that differ in their seeds, with its standard error, and how many."""
    each = np.array([kept.efficiency(cell) for cell in cells if cell in kept])
    if not each.size:
        return ""
    error = "" if each.size < 2 else f" ±{each.std(ddof=1) / math.sqrt(each.size):.2f}"
    return f"{each.mean():.2f}{error} ({each.size})"


def compare(arguments):
    """The table, a row for each case and number of workers."""
    kept = Kept(arguments.kept)
    seeds = range(arguments.replicates)
    places = list(itertools.product(arguments.cases, arguments.workers))

    def cells(case, workers, way):
        n = arguments.particles or (10_000 if workers >= 10_000 else 1024)
        return [Cell(case, workers, n, way, s, arguments.latency, arguments.with_leader) for s in seeds]

    if not arguments.table:  # a replicate of all first
        every = [cells(*place, way) for place in places for way in arguments.ways]
        for cell in itertools.chain.from_iterable(zip(*every, strict=True)):
            print(*cell, f"{kept.efficiency(cell):.3f}", f"{kept.get(cell).real:.0f} s", flush=True)
    rows = [["case", "workers", *arguments.ways, "pyABC's look-ahead"]]
    for case, workers in places:
        each = [described(kept, cells(case, workers, way)) for way in arguments.ways]
        rows.append([case, str(workers), *each, f"{PYABC.get((case, workers), math.nan):.2f}"])
    print(table(rows))


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
    parser.add_argument("--kept", type=Path, help="a file of all runs that were made")
    parser.add_argument("--table", action="store_true", help="show what is there, make nothing")
    parser.add_argument("--reports", action="store_true", help="what the driver handles")
    arguments = parser.parse_args()
    report() if arguments.reports else compare(arguments)


if __name__ == "__main__":
    main()
