"""A run that needs a minute, given ten seconds at a time: the same digests, and nothing done twice.

    python -m tests.walltime [--walltime 10] [--seconds 0.1] [--mpi mpich]

The table has a row for each start: its status, how long it took, what is committed, and how many
simulations were begun, finished, and finished a second time. At most what was in flight when a start
ended may be lost: as many simulations as there are workers, times those that wait behind them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import mpiabc
from tests import problems
from tests.conftest import environment, launcher_of

N, THRESHOLDS = 150, (3, 1.5, 0.8)


def sampler(seconds, log=None):
    """The run, each simulation of which needs so long and is noted when it begins and ends."""

    def gaussian(theta, rng, *, id):
        _note(log, "begun", id)
        time.sleep(seconds)
        _note(log, "done", id)
        return problems.gaussian(theta, rng)

    return problems.sampler(n=N, thresholds=THRESHOLDS, simulate=gaussian, name="gaussian")


def _note(log, what, id):
    if log:
        with open(log, "a") as file:  # one short write, which others do not come between
            file.write(f"{what} {id}\n")


@dataclass(frozen=True)
class Start:
    """What one start of the command came to."""

    status: int
    seconds: float
    generations: int
    begun: int
    done: int
    again: int  # of those done, the ones that an earlier start had done too

    @property
    def lost(self):
        """Simulations whose work was for nothing: left unfinished, or done before."""
        return self.begun - self.done + self.again


def play(folder, walltime, seconds, scheduler, mpi=None):
    """Starts until one ends by itself."""
    store, log = folder / "run.db", folder / "log"
    log.touch()
    starts, before = [], Counter()
    arguments = ["-m", "tests.walltime", "run", store, log, scheduler, walltime, seconds]
    command = mpi.command(2, *arguments) if mpi else [sys.executable, *arguments]
    while not starts or starts[-1].status == 75:
        began = time.monotonic()
        status = subprocess.run(
            list(map(str, command)), env=environment(), stderr=subprocess.DEVNULL
        ).returncode
        after = Counter(log.read_text().splitlines())
        new = after - before
        done = [line for line in new if line.startswith("done")]
        starts.append(
            Start(
                status,
                time.monotonic() - began,
                problems.committed(store),
                sum(n for line, n in new.items() if line.startswith("begun")),
                sum(new[line] for line in done),
                sum(new[line] - (before[line] == 0) for line in done),
            )
        )
        before = after
        assert len(starts) < 50
    return starts


def in_flight(seconds, workers=2):
    """Simulations that workers hold: a lease of 50 ms or one simulation, and one that waits behind it."""
    return workers * 2 * max(1, round(0.05 / seconds))


def quiet(folder):
    return problems.digests(sampler(0).run(folder / "quiet.db", scheduler="serial", progress=False))


def main():
    """Print the table; 1 if the digests differ or a start lost more than was in flight."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walltime", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a simulation")
    parser.add_argument("--mpi", help="mpich or openmpi; processes without")
    options = parser.parse_args()
    mpi = launcher_of(options.mpi) if options.mpi else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = play(folder, options.walltime, options.seconds, "mpi" if mpi else "processes", mpi)
        populations = list(mpiabc.open(folder / "run.db"))
        is_equal = problems.digests(populations) == quiet(folder)
    columns = ("status", "seconds", "generations", "begun", "done", "again", "lost")
    print("start" + "".join(f"{column:>13}" for column in columns))
    for number, start in enumerate(starts, 1):
        print(f"{number:>5}" + "".join(f"{getattr(start, column):>13.4g}" for column in columns))
    needed = sum(p.simulations for p in populations)
    done = sum(start.done for start in starts)
    print(f"needed: {needed} simulations, {needed * options.seconds:.0f} s of work; done: {done}")
    print("digests " + ("equal those of the uninterrupted run" if is_equal else "DIFFER"))
    is_little = all(start.lost <= in_flight(options.seconds) for start in starts)
    return 0 if is_equal and is_little and starts[-1].status == 0 else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        store, log, scheduler, walltime, seconds = sys.argv[2:]
        sampler(float(seconds), log).run(store, scheduler=scheduler, walltime=float(walltime))
    else:
        sys.exit(main())
