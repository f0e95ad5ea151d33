"""What the journal costs: the same runs with and without it, in turn, in one command.

    python -m tests.benchmarks.journal [REPETITIONS]

1 ms simulator on two ranks: at most 2 % of the wall time. Trivial scalar simulator in one process: at
most 5 % of the throughput. Medians, with the spread of single runs to judge them by; beside them the share
of the time that was spent in the journal's methods, which other programs on the machine disturb less.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

from mpiabc.store import Journal
from tests.benchmarks import toy
from tests.conftest import Launcher, environment_of

REPETITIONS = 5


class Watched:
    """The journal's methods, with the time in them; nothing is kept if it is off."""

    def __init__(self, is_on):
        self.seconds, self.writes = 0.0, 0
        add_, tick_, flush_ = Journal.add if is_on else _nothing, Journal.tick, Journal.flush

        def timed(method):
            def call(*arguments):
                began = time.perf_counter()
                method(*arguments)
                self.seconds += time.perf_counter() - began

            return call

        def flush(journal, *before):
            self.writes += 1
            flush_(journal, *before)

        methods = {"add": timed(add_), "tick": timed(tick_), "flush": flush}
        self.patches = [mock.patch.object(Journal, name, method) for name, method in methods.items()]

    def __enter__(self):
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *exception):
        for patch in self.patches:
            patch.stop()


def _nothing(journal, records):
    pass


def run(case, is_on):
    """Wall seconds of one run, seconds in the journal, its writes, and simulations; None on other ranks."""
    _, scheduler, simulate, n, _ = CASES[case]
    with tempfile.TemporaryDirectory() as folder, Watched(is_on) as journal:
        began = time.perf_counter()
        history = toy.sampler(simulate, n).run(Path(folder) / "run.db", scheduler=scheduler)
        wall = time.perf_counter() - began
        if history is None:
            return None
        return wall, journal.seconds, journal.writes, sum(population.simulations for population in history)


CASES = {
    "slow": ("1 ms, two ranks", "mpi", toy.Busy(0.001), 500, 0.02),
    "trivial": ("trivial, one process", "serial", toy.trivial, 20_000, 0.05),
}


def measured(case, is_on):
    """The same in a process, or job, of its own."""
    arguments = ["-m", "tests.benchmarks.journal", "run", case, "on" if is_on else "off"]
    bin = environment_of("mpich")
    is_parallel = CASES[case][1] == "mpi"
    command = (
        Launcher("mpich", bin, bin).command(2, *arguments) if is_parallel else [sys.executable, *arguments]
    )
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in output.split("RESULT ")[1].split()]


def main(repetitions):
    """Print the table."""
    heads = ("off: s", "on: s", "cost", "aim", "in journal", "writes", "simulations")
    print(f"{'':<22}{heads[0]:>20}{heads[1]:>20}{heads[2]:>8}" + "".join(f"{head:>12}" for head in heads[3:]))
    for case, (name, _, _, _, aim) in CASES.items():
        off, on = [], []
        for _ in range(repetitions):
            off.append(measured(case, False))
            on.append(measured(case, True))
        cost = median(one[0] / other[0] for one, other in zip(on, off, strict=True)) - 1
        inside = median(seconds / wall for wall, seconds, _, _ in on)
        _, _, writes, simulations = on[0]
        print(
            f"{name:<22}{_spread(off):>20}{_spread(on):>20}{cost:>8.1%}{aim:>12.0%}{inside:>12.2%}"
            f"{writes:>12.0f}{simulations:>12.0f}",
            flush=True,
        )


def _spread(results):
    walls = [wall for wall, *_ in results]
    return f"{median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        result = run(sys.argv[2], sys.argv[3] == "on")
        if result is not None:
            print("RESULT", *result)
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else REPETITIONS)
