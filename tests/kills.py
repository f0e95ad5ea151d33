"""Kill anywhere: runs that lose processes at random moments, and come to the uninterrupted digests.

    python -m tests.kills [--runs 200] [--seed 0]

Each run is a command that is started, hit by SIGKILL, and started again, perhaps on another number of ranks,
until it ends by itself; half of them recycle, half look ahead. The table says, for each engine and each
victim, how many runs there were and what became of them.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import mpiabc
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import Launcher
from tests.jobs import Job, launchers, table
from tests.programs import small

_HANGS = 120.0  # seconds after which a job that lost a process should have ended

VICTIMS = {
    "serial": ("leader",),
    "processes": ("leader", "child", "all"),
    "mpi": ("leader", "another rank", "child", "mpirun", "all"),
    "mpi-static": ("leader", "another rank", "mpirun", "all"),
}
OPTIONS = ((), ("recycle",), ("lookahead",), ("recycle", "lookahead"))
MOMENTS = ("at its start", "making the store", "at any time", "writing")


@dataclass(frozen=True)
class Case:
    """One run: where, who is hit, when, and how often."""

    mpi: Launcher | None
    scheduler: str
    victim: str
    moment: str
    seed: int
    options: tuple[str, ...] = ()  # of "recycle" and "lookahead"

    def __str__(self):
        how = "".join(f", {option}" for option in self.options)
        return f"{self.engine}, {self.victim}, {self.moment}, seed {self.seed}{how}"

    @property
    def engine(self):
        return f"{self.scheduler}, {self.mpi.name}" if self.mpi else self.scheduler

    @property
    def arguments(self):
        # Rank 0 has a child only if simulations are slow, and only slow ones are begun early.
        is_slow = "lookahead" in self.options or (self.mpi and self.victim == "child")
        seconds = 0.007 if is_slow else 0.002 if self.scheduler == "serial" else 0.004
        return [self.scheduler, seconds, *self.options]

    def command(self, store, ranks=2):
        arguments = ["-m", "tests.programs.small", store, *self.arguments]
        return self.mpi.command(ranks, *arguments) if self.mpi else [sys.executable, *map(str, arguments)]


@dataclass
class Outcome:
    """What became of it: kills, starts after kills, and what went wrong, if anything."""

    kills: int = 0
    resumed: int = 0
    trouble: str = ""


def wait_for_moment(case, job, store, rng):
    """Return when it is time to kill; False if the job has ended before."""
    seconds = 1.2 if case.mpi else 0.4
    end = time.monotonic() + rng.uniform(0, seconds)
    if case.moment == "at its start":
        job.until(lambda: time.monotonic() >= end)
    else:
        job.until(store.exists)
    if case.moment == "making the store":
        time.sleep(rng.uniform(0, 0.01))
    if case.moment in ("at any time", "writing"):
        end = time.monotonic() + rng.uniform(0, 1.0)
        job.until(lambda: time.monotonic() >= end)
    if case.moment == "writing":
        writing = store.with_name(store.name + "-journal")
        job.until(writing.exists, pause=0.0001)
        time.sleep(rng.uniform(0, 0.002))
    if case.victim in ("another rank", "child"):
        job.until(lambda: job.victims(case.victim), pause=0.02)
    return job.leader.poll() is None


def play(case, folder, expected):
    """Start, kill, start again, and compare with the expected digests; anew if it was over too soon."""
    rng, outcome = random.Random(f"{case}"), Outcome()
    for attempt in range(10):
        store = folder / f"{attempt}.db"
        _go_on_until_done(case, store, rng, outcome)
        if not outcome.trouble and (found := problems.digests(mpiabc.open(store))) != expected:
            kept = shutil.copy(store, tempfile.mkdtemp(prefix="kills-"))
            outcome.trouble = f"the digests are {found}, expected {expected}; the file is kept as {kept}"
        if outcome.trouble or outcome.kills:
            return outcome
    return replace(outcome, trouble="there was nobody to kill")


def _go_on_until_done(case, store, rng, outcome):
    """The same command again and again; the first few times it is hit."""
    most, hit = rng.choice((1, 1, 1, 2, 3)), 0
    while not outcome.trouble:
        job = Job(case.command(store, rng.choice((2, 3)) if case.options else 2), store.parent)
        outcome.resumed += bool(hit)
        try:
            hit = 0
            if outcome.kills < most and wait_for_moment(case, job, store, rng):
                hit = job.kill(case.victim, rng)
                outcome.kills += bool(hit)
            status = job.leader.wait(_HANGS)
            if left := job.leftovers():
                outcome.trouble = f"left over: {left}"
            elif status == 0:
                return
            elif not hit:
                outcome.trouble = f"status {status}, it said:\n{job.said()[0]}"
        except subprocess.TimeoutExpired:
            outcome.trouble = f"the job hangs, it said:\n{job.said()[0]}"
        finally:
            job.close()


def quiet(folder):
    """The digests of uninterrupted runs, by whether they are static, and their options."""
    static = Simulated(2, random_time, is_static=True)
    kinds = [(True, (), static), *((False, options, "serial") for options in OPTIONS)]
    return {
        (is_static, options): problems.digests(
            small.sampler(**dict.fromkeys(options, True)).run(
                folder / f"{is_static}{'-'.join(options)}.db", scheduler=scheduler, progress=False
            )
        )
        for is_static, options, scheduler in kinds
    }


def cases(runs, seed, mpis):
    """So many cases, in which every engine, victim and moment has its turn."""
    kinds = [(None, "serial", victim) for victim in VICTIMS["serial"]]
    kinds += [(None, "processes", victim) for victim in VICTIMS["processes"]]
    for mpi in mpis:
        kinds += [(mpi, name, victim) for name in ("mpi", "mpi-static") for victim in VICTIMS[name]]
    rng = random.Random(seed)
    for i in range(runs):
        mpi, scheduler, victim = kinds[i % len(kinds)]
        options = () if scheduler == "mpi-static" else OPTIONS[(i // len(kinds) + i) % len(OPTIONS)]
        yield Case(mpi, scheduler, victim, rng.choice(MOMENTS), seed + i, options)


def played(cases, jobs):
    """Each case with its outcome, some of them at the same time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        digests = quiet(Path(folder))

        def outcome(case):
            with tempfile.TemporaryDirectory() as place:
                kind = case.scheduler == "mpi-static", case.options
                return case, play(case, Path(place), digests[kind])

        yield from threads.map(outcome, cases)


def main():
    """Play all cases, print each trouble when it comes and the table at the end; 1 if there was any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    options = parser.parse_args()
    rows = {}
    for case, outcome in played(cases(options.runs, options.seed, launchers()), options.jobs):
        row = rows.setdefault((case.engine, case.victim), Counter())
        row += Counter(runs=1, kills=outcome.kills, resumed=outcome.resumed)
        row += Counter(equal=not outcome.trouble, failures=bool(outcome.trouble))
        if outcome.trouble:
            print(f"FAILED {case}: {outcome.trouble}", flush=True)
    return table(rows, {"engine": 22, "victim": 14}, ("runs", "kills", "resumed", "equal", "failures"))


if __name__ == "__main__":
    sys.exit(main())
