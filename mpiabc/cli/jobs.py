"""`mpiabc jobs`: what the jobs of `mpiabc.cluster` are doing."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from mpiabc.cli.command import add_command
from mpiabc.cli.words import say, table
from mpiabc.cluster import FOLDER, Call, listed
from mpiabc.errors import SchedulerError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc jobs\n  mpiabc jobs /scratch/me/mpiabc-jobs --failures"
    parser = add_command(commands, "jobs", _jobs, "show the jobs of mpiabc.cluster's maps", example)
    parser.add_argument("folder", nargs="?", default=FOLDER, help=f"the maps' folder, by default {FOLDER}")
    parser.add_argument("--failures", action="store_true", help="the tracebacks of the items that failed")


def _jobs(options: argparse.Namespace) -> int:
    """Print a line for each call of `map` that is going on, or has gone wrong."""
    if not Path(options.folder).is_dir():
        say(f"no folder {options.folder} here: a map that went well leaves nothing behind")
        return 0
    folders = sorted(path.parent for path in Path(options.folder).glob("*/call.json"))
    found = {folder: _read(folder) for folder in folders}
    calls = [call for call in found.values() if isinstance(call, Call)]
    answers = {system: _asked(system) for system in sorted({call.scheduler for call in calls})}
    if not found:
        say(f"no jobs in {options.folder}: a map that went well leaves nothing behind")
        return 0
    heads = ["map", "system", "job", "tasks", "done", "running", "waiting", "lost", "failed"]
    rows = [
        _row(call, answers[call.scheduler])
        if isinstance(call, Call)
        else [folder.name] + ["?"] * (len(heads) - 1)
        for folder, call in found.items()
    ]
    say(table([heads, *rows]))
    for error in (*found.values(), *answers.values()):
        if isinstance(error, SchedulerError):
            say(f"\n{error}")
    if options.failures:
        for call in calls:
            say("".join(f"\n{call.folder.name}: {text}" for text in call.failures()))
    return 0


def _read(folder: Path) -> Call | SchedulerError:
    try:
        return Call.read(folder)
    except SchedulerError as error:
        return error


def _asked(system: str) -> list[tuple[str, int, str]] | SchedulerError:
    """What a batch system says, asked once for all calls."""
    try:
        return listed(system)
    except SchedulerError as error:
        return error


def _row(call: Call, answer: list[tuple[str, int, str]] | SchedulerError) -> list[str]:
    """Its tasks by their state; lost: without a result, and unknown to the batch system."""
    done = call.done()
    known: list[object] = ["?"] * 3
    if not isinstance(answer, SchedulerError):
        states = call.states(answer)
        counts = Counter(states[task] for task in states if task not in done)
        known = [counts["runs"], counts["waits"] + counts["error"], call.n - len(done | set(states))]
    numbers = (call.n, len(done), *known, len(call.failures()))
    return [call.folder.name, call.scheduler, ",".join(call.jobs), *map(str, numbers)]
