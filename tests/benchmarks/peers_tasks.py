"""Dask and executors with 2 workers on 2 cores: ours beside pyABC 0.13, which gets its best batch size.

    python -m tests.benchmarks.peers_tasks [PYTHON_WITH_PYABC]

Five generations, N = 1000 for the trivial simulator, N = 200 for 10 ms of processor time. Starting the
workers is not counted, opening and writing the store is. Efficiency: simulated time / 2 cores / wall;
"without ABC": that of the place itself, for the same simulations in tasks of a second.
"""

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from mpiabc import schedulers
from tests.benchmarks import toy

CORES, RUNS = 2, 3
BATCHES = (20, 200)  # of pyABC; 1 is 10 times slower than 20
CASES = [("trivial", 1000, 0.0), ("10 ms", 200, 0.01)]
AIMS = {"trivial": "20 times", "10 ms": "0.92"}


class Counter:
    """Counts the tasks that go to an executor or client."""

    def __init__(self, place):
        self.tasks, self._submit = 0, place.submit
        place.submit = self

    def __call__(self, *arguments, **options):
        """Count one, and submit it."""
        self.tasks += 1
        return self._submit(*arguments, **options)


@contextmanager
def dask():
    """A Dask cluster: its scheduler for us, and a counter of its tasks."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield schedulers.Dask(client), Counter(client)


@contextmanager
def futures():
    """An executor: its scheduler for us, and a counter of its tasks."""
    with ProcessPoolExecutor(CORES) as executor:
        list(executor.map(abs, range(CORES)))
        yield schedulers.Futures(executor), Counter(executor)


def ours(make, n, seconds):
    """Microseconds of wall time per simulation, median of some runs, and tasks per simulation."""
    simulate = toy.Busy(seconds) if seconds else toy.trivial
    walls, simulations = [], 0
    with make() as (scheduler, counter):
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                history = toy.sampler(simulate, n).run(Path(folder) / "run.db", scheduler=scheduler)
                walls.append(time.perf_counter() - began)
                simulations = sum(population.simulations for population in history)
        return median(walls) / simulations * 1e6, counter.tasks / RUNS / simulations


def bare(make, seconds):
    """The same without any algorithm: simulations in tasks of a second, which is what the place can do."""
    per_task = int(1 / seconds)
    with make() as (_, counter):
        began = time.perf_counter()
        outs = [counter(_simulate, toy.Busy(seconds), per_task, i) for i in range(10 * CORES)]
        for out in outs:
            out.result()
        return (time.perf_counter() - began) / len(outs) / per_task * 1e6, 1 / per_task


def _simulate(busy, n, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        busy({"theta": 0.0}, rng)


def theirs(python, place, n, seconds):
    """The same for pyABC with the best of its batch sizes, and that size."""

    def run(batch):
        wall, simulations, tasks = toy.peer(python, place, n, seconds, batch)
        return wall / simulations * 1e6, tasks / simulations, batch

    return min(map(run, BATCHES))


def main(python):
    """Print the table."""
    heads = f"{'us/simulation':>14}{'efficiency':>12}{'tasks/simulation':>18}{'times ours':>12}{'aim':>10}"
    print(f"{'':<42}{heads}")
    for place, make in [("Dask", dask), ("Futures", futures)]:
        for case, n, seconds in CASES:
            mine, tasks = ours(make, n, seconds)
            _row(f"{place}, {case}", mine, seconds, tasks, "", AIMS[case])
            if seconds:
                wall, tasks = bare(make, seconds)
                _row(f"{place}, {case}, without ABC", wall, seconds, tasks, f"{wall / mine:.2f}")
            if python is not None:
                wall, tasks, batch = theirs(python, place, n, seconds)
                _row(f"{place}, {case}, pyABC, batch {batch}", wall, seconds, tasks, f"{wall / mine:.1f}")
    if python is None:
        print("give a Python with pyABC 0.13 as the argument to see it beside")


def _row(name, wall, seconds, tasks, ratio, aim=""):
    efficiency = f"{seconds * 1e6 / CORES / wall:.3f}" if seconds else ""
    print(f"{name:<42}{wall:14.1f}{efficiency:>12}{tasks:18.4f}{ratio:>12}{aim:>10}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
