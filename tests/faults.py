"""Faults of what users bring, on every engine: held, reported, or resumed, and never wrong in silence.

    python -m tests.faults [--engines serial redis ...] [--faults masked ...] [--jobs 2]

Each cell of the table is a command of its own, `tests.programs.faulty`, where the rows are. What the run
should have been says a run of the same problem without the fault, in this process.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import groupby, product, zip_longest
from pathlib import Path
from typing import NamedTuple

import mpiabc
from tests import jobs, problems
from tests.conftest import HANGS
from tests.programs.faulty import FAULTS

ENGINES = ("serial", "processes", *jobs.MPIS, "redis", "dask")

_SUSPENDED = 3.0  # seconds
_LINES = 15  # of what a command said, to show


class NotSoError(AssertionError):
    """What became of a run was not expected."""


def play(name, engine, folder):
    """What became of the fault on the engine, in a word. Raises NotSoError with what it was instead."""
    fault, store = FAULTS[name], folder / "run.db"
    with jobs.opened(engine, folder, fault.workers) as place:
        ended = _ended(place, store, name, fault.event)
        is_stopped = ended.status == 75
        if is_stopped:
            ended = _ended(place, store, name)
    doubts = {}
    for expected in fault.expected:
        doubts[expected] = [*_doubts(name, store, expected, ended, is_stopped)]
        if not doubts[expected]:
            return expected.outcome
    why = "; ".join(f"not {expected.outcome}: {', '.join(found)}" for expected, found in doubts.items())
    raise NotSoError(f"{why}; it said:\n{_shortened(ended)}")


def _doubts(name, store, expected, ended, is_stopped):
    """What speaks against this expectation."""
    if is_stopped != (expected.outcome == "resumed"):
        yield "it stopped with status 75" if is_stopped else f"it did not stop, status {ended.status}"
    elif expected.goes_on not in (None, ended.status == 0):
        yield f"status {ended.status}"
    if expected.words and not _is_reported(expected, ended):
        yield f"/{expected.words}/ is not reported, or not once"
    if expected.outcome != "reported" and ended.status == 0:
        yield from _differing(_outcome(store), _reference(name))
    if expected.kind and {failure.kind for failure in mpiabc.open(store).failures} != {expected.kind}:
        yield f"the file holds no failure of kind {expected.kind}"
    if expected.committed not in (None, problems.committed(store)):
        yield f"{problems.committed(store)} generations are committed or can be read"


def _is_reported(expected, ended):
    """Whether words are said where the job ends with them, or once by its command, or else by its workers."""
    lines = [line for line in ended.said.splitlines() if re.search(expected.words, line)]
    if not lines:
        return re.search(expected.words, ended.said_by_workers) is not None
    return len(lines) == 1 or ended.status != 0


class _Ended(NamedTuple):
    """A finished command."""

    status: int
    said: str
    said_by_workers: str


def _ended(place, store, name, event=""):
    """The finished command, to which an event has happened."""
    job = place.start("faulty", store, name)
    try:
        if event and job.until(lambda: problems.committed(store), pause=0.1):
            EVENTS[event](job)
        return _Ended(job.leader.wait(HANGS), *job.said())
    except subprocess.TimeoutExpired:
        said = _shortened(_Ended(-1, *job.said()))
        raise NotSoError(f"no end within {HANGS:g} s; it said:\n{said}") from None
    finally:
        job.close()


def _suspend(job):
    """Stop all of its processes for a while."""
    found = job.processes()
    jobs.send(found, signal.SIGSTOP)
    time.sleep(_SUSPENDED)
    jobs.send(found, signal.SIGCONT)


def _signal(job):
    """SIGUSR1 to all of its processes."""
    jobs.send(job.processes(), signal.SIGUSR1)


EVENTS = {"suspended": _suspend, "signalled": _signal}


def _outcome(store):
    """All that counts of a file's populations."""
    return [(p.digest(), p.summaries.tolist(), p.failures) for p in mpiabc.open(store)]


@cache
def _reference(name):
    """The outcome without the fault, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            FAULTS[name].make(False).run(Path(folder) / "run.db", scheduler="serial", progress=False)
            return _outcome(Path(folder) / "run.db")
        except mpiabc.Error as error:
            return str(error)


def _differing(found, reference):
    if isinstance(reference, str):
        yield f"without the fault there is no run: {reference}"
    elif different := [t for t, (mine, its) in enumerate(zip_longest(found, reference)) if mine != its]:
        yield f"generations {different} differ"


def _shortened(ended):
    """The last lines of what was said."""
    lines = (ended.said + ended.said_by_workers).splitlines()
    return textwrap.indent("\n".join(lines[-_LINES:]), "    ")


def cells(words=(), engines=ENGINES):
    """Fault and engine of each cell of the rows with one of these words in their names, or of all."""
    names = [name for name in FAULTS if not words or any(word in name for word in words)]
    return [(name, engine) for name, engine in product(names, engines) if _is_for(name, engine)]


def _is_for(name, engine):
    return FAULTS[name].engines is None or engine in FAULTS[name].engines


def played(cells, at_once=2):
    """Each cell with its outcome, or with the NotSoError of it; some of them at the same time."""
    for name in dict.fromkeys(name for name, _ in cells):
        if any(expected.outcome != "reported" for expected in FAULTS[name].expected):
            _reference(name)  # here: a run of the main thread is as undisturbed as can be

    def outcome(cell):
        with tempfile.TemporaryDirectory() as folder:
            try:
                return cell, play(*cell, Path(folder))
            except NotSoError as error:
                return cell, error

    with ThreadPoolExecutor(at_once) as threads:
        yield from threads.map(outcome, cells)


def main():
    """Print the rows as they come, then what was not as expected; 1 if there was any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--faults", nargs="+", default=(), help="words of their names; all without")
    parser.add_argument("--jobs", type=int, default=2, help="commands at the same time")
    options = parser.parse_args()
    print(_line("fault", options.engines))
    troubles = []
    for name, cells_of_row in groupby(played(cells(options.faults, options.engines), options.jobs), _name):
        row = {engine: outcome for (_, engine), outcome in cells_of_row}
        troubles += [(name, engine, error) for engine, error in row.items() if not isinstance(error, str)]
        words = (row.get(engine, "-") for engine in options.engines)
        print(_line(name, ("FAILED" if isinstance(word, NotSoError) else word for word in words)), flush=True)
    for name, engine, error in troubles:
        print(f"FAILED {name}, {engine}: {error}")
    return 1 if troubles else 0


def _line(first, others):
    return f"{first:<48}" + "".join(f"{other:<11}" for other in others)


def _name(played):
    (name, _), _ = played
    return name


if __name__ == "__main__":
    sys.exit(main())
