"""`mpiabc jobs`: what the jobs of `mpiabc.cluster` are doing."""

import argparse
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from mpiabc import durations
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import say, table
from mpiabc.cluster import FOLDER, Call, listed
from mpiabc.errors import SchedulerError

Answer = list[tuple[str, int, str]] | SchedulerError  # of a batch system

_UNKNOWN = "?"
_HEADS = ["map", "system", "job", "tasks", "done", "running", "waiting", "lost", "failed"]
_WORDS = {"waits": "waiting", "error": "in error"}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc jobs\n  mpiabc jobs /scratch/me/mpiabc-jobs --failures"
    parser = add_command(commands, "jobs", _jobs, COMMANDS["jobs"], example)
    parser.add_argument("folder", nargs="?", default=FOLDER, help=f"the maps' folder, by default {FOLDER}")
    parser.add_argument("--all", action="store_true", help="also the jobs that have done their work")
    parser.add_argument("--failures", action="store_true", help="the tracebacks of the items that failed")


def _jobs(options: argparse.Namespace) -> int:
    """Print a line for each call of `map` that is going on, or has gone wrong, and for each of its jobs."""
    if not Path(options.folder).is_dir():
        say(f"no folder {options.folder} here: a map that went well leaves nothing behind")
        return 0
    folders = sorted(path.parent for path in Path(options.folder).glob("*/call.json"))
    found = {folder: _read(folder) for folder in folders}
    calls = [call for call in found.values() if isinstance(call, Call)]
    answers = {system: _asked(system) for system in sorted({call.system for call in calls})}
    if not found:
        say(f"no jobs in {options.folder}: a map that went well leaves nothing behind")
        return 0
    rows, lines = [_HEADS], []
    for folder, call in found.items():
        row, its = _view(folder, call, answers, options.all)
        rows.append(row)
        lines += its
    say(table(rows))
    if lines:
        say("\n" + table([["job", "items", "state", "time", "host", "log"], *lines]))
    for error in (*found.values(), *answers.values()):
        if isinstance(error, SchedulerError):
            say(f"\n{error}")
    if options.failures:
        for call in calls:
            say(_failures(call))
    return 0


def _failures(call: Call) -> str:
    """The tracebacks of its items, unless its map has just collected them."""
    with suppress(SchedulerError, OSError):
        failures = map(call.failure, sorted(call.failed()))
        return "".join(f"\n{call.folder.name}: {each.address}\n{each.text}\n" for each in failures)
    return ""


def _read(folder: Path) -> Call | SchedulerError:
    try:
        return Call.read(folder)
    except SchedulerError as error:
        return error


def _asked(system: str) -> Answer:
    """What a batch system says, asked once for all calls."""
    try:
        return listed(system)
    except SchedulerError as error:
        return error


def _view(
    folder: Path, call: Call | SchedulerError, answers: dict[str, Answer], is_all: bool
) -> tuple[list[str], list[list[str]]]:
    """A map's row, and those of its jobs; question marks for one that is damaged, or goes meanwhile."""
    if isinstance(call, Call):
        with suppress(SchedulerError, OSError):
            states = _states(call, answers[call.system])
            return _row(call, states), _lines(call, states, is_all)
    return [folder.name] + [_UNKNOWN] * (len(_HEADS) - 1), []


def _states(call: Call, answer: Answer) -> list[str]:
    """The state of each task in a word; lost: without a result, and unknown to the batch system."""
    done, known, other = call.done(), {}, _UNKNOWN
    if not isinstance(answer, SchedulerError):
        known, other = {t: _WORDS.get(state, "running") for t, state in call.states(answer).items()}, "lost"
    return ["done" if task in done else known.get(task, other) for task in range(1, call.n + 1)]


def _row(call: Call, states: list[str]) -> list[str]:
    """A map: its tasks by their state."""
    counts = Counter(states)
    known: list[object] = [counts["running"], counts["waiting"] + counts["in error"], counts["lost"]]
    if counts[_UNKNOWN]:
        known = [_UNKNOWN] * 3
    numbers = (call.n, counts["done"], *known, len(call.failed()))
    return [call.folder.name, call.system, ",".join(call.jobs), *map(str, numbers)]


def _lines(call: Call, states: list[str], is_all: bool) -> list[list[str]]:
    """The tasks of a map: what they compute, since when or for how long, where, and what they print."""
    failed = {call.task_of(item) for item in call.failed()}
    return [
        _line(call, task, "failed" if task in failed and state != "running" else state)
        for task, state in enumerate(states, 1)
        if is_all or state not in ("done", "waiting") or task in failed
    ]


def _line(call: Call, task: int, state: str) -> list[str]:
    first, *rest = call.items_of(task)
    log = call.logs(task)[-1:]
    trace = call.trace(task)
    spent, host = "-", "-"
    if trace is not None:
        host = trace.host
        written = [path.stat().st_mtime for path in call.outputs(task) if path.exists()]
        if ends := [time.time()] if state == "running" else written:
            spent = durations.clock(round(max(0.0, max(ends) - trace.began)), digits=1)
    items = f"{first}-{rest[-1]}" if rest else str(first)
    return [call.job_of(task), items, state, spent, host, *(map(os.path.relpath, log) if log else "-")]
