"""Parallel efficiency on 2 cores: (processor seconds of the simulations below the cuts / 2) / wall.

    python -m tests.benchmarks.efficiency            processes, then mpirun -n 2
    mpirun -n 2 python -m tests.benchmarks.efficiency mpi

Starting the interpreters is not counted, starting the workers of a run is.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mpiabc.streams import Purpose, Stream, stream_key
from tests.benchmarks import toy

CORES = 2
N = int(os.environ.get("N", 200))


def needed(history, busy, seed=1):
    """Processor seconds of all simulations below the cuts, from their own streams."""
    stream = Stream(stream_key(seed), Purpose.SIMULATION)
    total = 0.0
    for population in history:
        # All proposals count alike: which ones were outside the support does not depend on their run time.
        mean = sum(busy.duration(stream.at(population.generation, i)) for i in range(population.evaluations))
        total += mean * population.simulations / population.evaluations
    return total


def measure(scheduler):
    """One table: a row for each simulator."""
    for seconds in (0.01, 0.001):
        for holds_gil in (False, True):
            for is_lognormal in (False, True):
                busy = toy.Busy(seconds, is_lognormal=is_lognormal, holds_gil=holds_gil)
                results = []
                for _ in range(3):
                    with tempfile.TemporaryDirectory() as folder:
                        began = time.perf_counter()
                        history = toy.sampler(busy, N).run(Path(folder) / "run.db", scheduler=scheduler)
                        wall = time.perf_counter() - began
                        if history is not None:
                            results.append(needed(history, busy) / CORES / wall)
                if results:
                    simulator = "C, holds GIL" if holds_gil else "pure Python"
                    run_times = "lognormal" if is_lognormal else "even"
                    print(
                        f"{scheduler:<11}{seconds * 1e3:5.0f} ms  {simulator:<14}{run_times:<11}"
                        f"{sorted(results)[1]:.3f}   ({min(results):.3f} to {max(results):.3f})",
                        flush=True,
                    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        print(f"{'scheduler':<11}{'cost':>8}  {'simulator':<14}{'run times':<11}efficiency, median of 3")
        measure("processes")
        mpirun = Path(sys.executable).parent / "mpirun"
        command = [str(mpirun), "-n", "2", sys.executable, "-m", "tests.benchmarks.efficiency", "mpi"]
        sys.exit(subprocess.run(command, env=os.environ).returncode)
