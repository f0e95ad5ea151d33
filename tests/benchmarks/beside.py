"""This checkout beside commits before it: processor time and wall time of the same runs.

    python -m tests.benchmarks.beside REVISION [REVISION ...]

One process for each, on one core, which take turns: a run of each, then the next run of each, so that what
else the machine does meets all alike. Ratios are medians over the rounds.
A trivial simulator, serial, store and fsync included.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

import mpiabc
from tests.benchmarks import toy

ROOT = Path(__file__).parents[2]  # not conftest's, which wants today's package beside it
ROUNDS = 40
CASES = [  # simulator, population size, generations: the first ones without any weights
    ("scalar", 20_000, 1),
    ("scalar", 1000, 6),
    ("scalar", 4000, 6),
    ("vectorised", 100_000, 1),
    ("vectorised", 1000, 6),
    ("vectorised", 4000, 6),
]


def play():
    """Make a run for each line that is read, and tell its times and simulations."""
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            kind, n, generations = line.split()
            is_vectorised = kind == "vectorised"
            simulate = toy.trivial_vectorized if is_vectorised else toy.trivial
            sampler = mpiabc.ABCSMC(
                toy.problem(simulate, vectorized=is_vectorised),
                int(n),
                kernel=mpiabc.Gaussian(scale=1.0),
                threshold=mpiabc.Quantile(0.5),
                seed=1,
            )
            wall, processor = time.perf_counter(), time.process_time()
            history = sampler.run(
                Path(folder) / f"{number}.db", generations=int(generations), scheduler="serial"
            )
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            print(processor, wall, sum(population.simulations for population in history), flush=True)


def unpacked(revision, folder):
    """A folder with the package as it was, and the benchmarks as they are."""
    place = Path(folder) / revision
    place.mkdir()
    archive = subprocess.check_output(["git", "archive", revision, "mpiabc"], cwd=ROOT)
    subprocess.run(["tar", "-x", "-C", place], input=archive, check=True)
    (place / "tests").symlink_to(ROOT / "tests")
    return place


def started(place, stack):
    """The player of the package in this folder."""
    core = max(os.sched_getaffinity(0))
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.beside", "--player"],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=partial(os.sched_setaffinity, 0, {core}),
        )
    )
    stack.callback(process.stdin.close)
    return process


def turn(process, case):
    """Processor and wall time of one run, in microseconds a simulation, and how many there were."""
    print(*case, file=process.stdin)
    process.stdin.flush()
    processor, wall, simulations = map(float, process.stdout.readline().split())
    return processor / simulations * 1e6, wall / simulations * 1e6, simulations


def main(revisions):
    """Print the table."""
    print("us of processor time a simulation: least, median; this checkout over it: processor, wall")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        places = {"this checkout": ROOT} | {revision: unpacked(revision, folder) for revision in revisions}
        players = {name: started(place, stack) for name, place in places.items()}
        for case in CASES:
            rounds = [[turn(player, case) for player in players.values()] for _ in range(ROUNDS + 2)]
            times = np.array(rounds[2:])  # (rounds, players, 3)
            kind, n, generations = case
            print(f"{kind}, N = {n}, {generations} generations, {times[0, 0, 2]:.0f} simulations")
            for name, mine in zip(players, times.swapaxes(0, 1), strict=True):
                ratios = np.median(times[:, 0, :2] / mine[:, :2], axis=0)
                least, middle = mine[:, 0].min(), np.median(mine[:, 0])
                print(f"    {name:<20}{least:8.2f}{middle:8.2f}{ratios[0]:12.3f}{ratios[1]:8.3f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    play() if sys.argv[1] == "--player" else main(sys.argv[1:])
