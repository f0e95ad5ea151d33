"""Signals to all processes of a job: it stops, goes on, and comes to the uninterrupted digests.

    python -m tests.signals [--runs 100] [--seed 0] [--jobs 2] [--engines serial mpich ...]

Simulations are external programs, which such a signal kills: what they leave behind is no outcome. Each run
is a command that is started, signalled at a random moment, and started again, until it ends by itself; the
table says, for each engine, signal and kind of simulator, how many runs there were and what became of them.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from pathlib import Path

import mpiabc
from tests import jobs, problems
from tests.conftest import obey_signals
from tests.programs import external

KINDS = tuple(product(("checked", "unchecked"), ("raise", "reject")))  # of a program's status, of on_error
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_ALONE = ("redis", "dask", *jobs.MPIS)  # a worker there may be signalled and the others not
_HANGS = 120.0  # seconds after which a job should have ended
_LATER = 0.05  # seconds between the first and the second of the waves in which a signal comes


@dataclass(frozen=True)
class Case:
    """One run: where, with what simulator, which signal comes, and to whom in which order."""

    engine: str
    number: signal.Signals
    kind: tuple[str, str]
    order: str
    seed: int

    def __str__(self):
        return f"{self.engine}, {self.number.name}, {', '.join(self.kind)}, {self.order}, seed {self.seed}"


@dataclass
class Outcome:
    """What became of it: signals, stops with 75, starts after them, and what went wrong, if anything."""

    hits: int = 0
    stopped: int = 0
    resumed: int = 0
    trouble: str = ""


def orders(engine, number):
    """To whom a signal may come, and in which order."""
    yield from ("programs first", "programs first", "programs last", "at once")
    if engine in jobs.MPIS and number == signal.SIGUSR1:
        yield "mpirun alone"
    if engine in _ALONE:
        yield "one worker"


def waves(job, case, rng):
    """The processes that are hit first, and those that are hit later."""
    found = job.processes()
    if case.order == "mpirun alone":
        return [[job.leader.pid]]
    if case.order == "one worker":
        found = _one_worker(found, rng)
    if case.engine == "openmpi" and case.number != signal.SIGUSR1:
        found.pop(job.leader.pid, None)  # mpirun: it would end the job by itself, with status 1
    programs = [pid for pid in found if external.PROGRAM in found[pid]]
    others = [pid for pid in found if external.PROGRAM not in found[pid]]
    if case.order == "at once":
        return [programs + others]
    return [others, programs] if case.order == "programs last" else [programs, others]


def _one_worker(found, rng):
    """Of these processes, those of a rank or a worker that is simulating."""
    simulating = _simulating(found)
    if not simulating:
        return {}
    worker = rng.choice([*simulating])
    name = jobs.worker_of(found[worker])
    its = simulating[worker] | {worker}
    return {pid: found[pid] for pid in found if pid in its or (name and name == jobs.worker_of(found[pid]))}


def _simulating(found):
    """Of these processes, those that wait for an external program, each with the processes of that."""
    parents = {pid: jobs.parent(pid) for pid, content in found.items() if external.PROGRAM in content}
    simulating = {}
    for pid, parent in parents.items():
        if (worker := parents.get(parent, parent)) in found:  # a shell, and what it has started
            simulating.setdefault(worker, set()).add(pid)
    return simulating


def strike(job, case, rng):
    """Send the signal when its moment has come; the seconds that its waves took, 0 if nobody was hit."""
    workers, seen = 1 if case.engine == "serial" else 2, set()
    while job.leader.poll() is None and len(seen) < workers:  # who simulates knows what to do about signals
        seen.update(_simulating(job.processes()))
        time.sleep(0.02)
    end = time.monotonic() + rng.uniform(0, 1.5)
    hit = waves(job, case, rng) if job.until(lambda: time.monotonic() >= end) else []
    began = time.monotonic()
    for number, wave in enumerate(hit):
        time.sleep(_LATER if number else 0)
        jobs.send(wave, case.number)
    return time.monotonic() - began if any(hit) else 0.0


def play(case, folder, expected):
    """Start, signal, start again, and compare with the expected digests; anew if it was over too soon."""
    rng, outcome = random.Random(f"{case}"), Outcome()
    with jobs.opened(case.engine, folder, workers=({}, {})) as place:
        for attempt in range(5):
            store = folder / f"{attempt}.db"
            _go_on_until_done(case, place, store, rng, outcome)
            if not outcome.trouble and (different := _differing(store, expected)):
                kept = shutil.copy(store, tempfile.mkdtemp(prefix="signals-"))
                outcome.trouble = f"{different}; the file is kept as {kept}"
            if outcome.trouble or outcome.hits:
                return outcome
    return replace(outcome, trouble="there was nobody to signal")


def _differing(store, expected):
    """In what a file differs from the uninterrupted run, in which no evaluation fails."""
    populations = list(mpiabc.open(store))
    if failures := sum(population.failures for population in populations):
        return f"{failures} failures were kept"
    pairs = enumerate(zip_longest(problems.digests(populations), expected))
    different = [t for t, (found, wanted) in pairs if found != wanted]
    return f"generations {different} differ" if different else ""


def _go_on_until_done(case, place, store, rng, outcome):
    """The same command again and again; once or twice it is signalled."""
    most = rng.choice((1, 1, 2))
    while not outcome.trouble:
        job = place.start("external", store, *case.kind)
        outcome.resumed += outcome.stopped > outcome.resumed
        try:
            lasted = strike(job, case, rng) if outcome.hits < most else 0.0
            is_hit = lasted > 0.0
            outcome.hits += is_hit
            status = job.leader.wait(_HANGS)
            is_over = is_hit and status != 1 and problems.committed(store) == len(external.THRESHOLDS)
            if status in (0, 75) and (left := job.leftovers()):
                outcome.trouble = f"left over: {left}"
            elif status == 0:
                return
            elif status == 75 and is_hit:
                outcome.stopped += 1
            elif not is_over:  # what comes after a run is not the run's to catch
                said = "".join(job.said())
                outcome.trouble = f"status {status}, {lasted:.2f} s of signals, it said:\n{said}"
        except subprocess.TimeoutExpired:
            outcome.trouble = f"the job hangs, it said:\n{''.join(job.said())}"
        finally:
            job.close()


def cases(runs, seed, engines=jobs.ENGINES):
    """So many cases, in which every engine, and there every signal and kind of simulator, has its turn."""
    rng = random.Random(seed)
    turns = {engine: rng.sample([*product(SIGNALS, KINDS)], len(SIGNALS) * len(KINDS)) for engine in engines}
    for i in range(runs):
        turn, at = divmod(i, len(engines))
        number, kind = turns[engines[at]][turn % (len(SIGNALS) * len(KINDS))]
        yield Case(engines[at], number, kind, rng.choice([*orders(engines[at], number)]), seed + i)


def expected():
    """The digests of the uninterrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        return problems.digests(
            external.sampler().run(Path(folder) / "quiet.db", scheduler="serial", progress=False)
        )


def played(cases, at_once):
    """Each case with its outcome, some of them at the same time."""
    digests = expected()

    def outcome(case):
        with tempfile.TemporaryDirectory() as place:
            return case, play(case, Path(place), digests)

    with ThreadPoolExecutor(at_once) as threads:
        yield from threads.map(outcome, cases)


def main():
    """Play all cases, print each trouble when it comes and the table at the end; 1 if there was any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--engines", nargs="+", choices=jobs.ENGINES, default=jobs.ENGINES)
    options = parser.parse_args()
    rows = {}
    for case, outcome in played(cases(options.runs, options.seed, options.engines), options.jobs):
        row = rows.setdefault((case.engine, case.number.name, ", ".join(case.kind)), Counter())
        row += Counter(runs=1, stopped=outcome.stopped, resumed=outcome.resumed)
        row += Counter(equal=not outcome.trouble, failures=bool(outcome.trouble))
        if outcome.trouble:
            print(f"FAILED {case}: {outcome.trouble}", flush=True)
    return jobs.table(
        rows,
        {"engine": 12, "signal": 10, "simulator": 20},
        ("runs", "stopped", "resumed", "equal", "failures"),
    )


if __name__ == "__main__":
    obey_signals()
    sys.exit(main())
