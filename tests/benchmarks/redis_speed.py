"""Two workers over Redis, beside pyABC's, on 2 cores: throughput, efficiency, commands a simulation.

    python -m tests.benchmarks.redis_speed [PYTHON_WITH_PYABC]

Workers are started before the clock is. Efficiency is processor time of the simulations / 2 / wall time.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests import bridge
from tests.benchmarks import toy

WORKERS = 2
BATCHES = (10, 100)  # 1 is slower than both
CASES = [("trivial, N = 1000", 0.0, 1000), ("trivial, N = 4000", 0.0, 4000), ("10 ms, N = 200", 0.01, 200)]


def calls(server):
    """Commands that the server has carried out so far."""
    return sum(stats["calls"] for stats in server.client.info("commandstats").values())


def ours(server, seconds, n):
    """Seconds, simulations and server commands of one run."""
    simulate = toy.Busy(seconds) if seconds else toy.trivial
    with tempfile.TemporaryDirectory() as folder:
        before, began = calls(server), time.perf_counter()
        history = toy.sampler(simulate, n).run(Path(folder) / "run.db", scheduler=server.scheduler())
        wall = time.perf_counter() - began
        return wall, sum(population.simulations for population in history), calls(server) - before


def theirs(server, python, seconds, n, batch):
    """The same of pyABC's RedisEvalParallelSampler."""
    before = calls(server)
    wall, simulations, _ = toy.peer(python, "Redis", n, seconds, batch, server.port, bridge.PASSWORD)
    return wall, simulations, calls(server) - before


def row(name, case, seconds, found):
    """A line of the table: medians."""
    wall, simulations, commands = (median(column) for column in zip(*found, strict=True))
    efficiency = f"{seconds * simulations / WORKERS / wall:10.3f}" if seconds else " " * 10
    print(
        f"{name:<24}{case:<19}{wall / simulations * 1e6:12.1f}{efficiency}{commands / simulations:14.3f}"
        f"{simulations:12.0f}",
        flush=True,
    )
    return simulations / wall


def main(python):
    """Print the table."""
    print(
        f"{'':<24}{'simulator':<19}{'us/simulation':>12}{'efficiency':>11}{'commands/sim':>13}{'simulations':>12}"
    )
    with tempfile.TemporaryDirectory() as folder:
        server = bridge.RedisServer(folder)
        rates = {}
        with server.workers(WORKERS) as workers:
            assert all(worker.says("waiting for a run") for worker in workers)
            for case, seconds, n in CASES:
                rates[case] = row("mpiabc", case, seconds, [ours(server, seconds, n) for _ in range(3)])
        if python is None:
            print("give a Python with pyABC 0.13 as the argument to see it beside")
        else:
            beside(server, python, rates)
        server.kill()


def beside(server, python, rates):
    """pyABC's rows, and how many times faster ours are than its best."""
    with ExitStack() as stack:
        for _ in range(WORKERS):
            command = [Path(python).parent / "abc-redis-worker", "--host=127.0.0.1", f"--port={server.port}"]
            worker = subprocess.Popen(
                [*command, f"--password={bridge.PASSWORD}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(worker.wait)
            stack.callback(worker.kill)
        time.sleep(8)  # until its workers have imported it
        for case, seconds, n in CASES:
            best = max(
                row(f"pyABC, batch {batch}", case, seconds, [theirs(server, python, seconds, n, batch)])
                for batch in BATCHES
            )
            print(f"{'':<24}{case}: mpiabc has {rates[case] / best:.1f} times the throughput", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
