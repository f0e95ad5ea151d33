"""`mpiabc jobs`: what the jobs of `mpiabc.cluster` are doing."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from mpiabc.cli.command import add_command
from mpiabc.cli.words import say, table
from mpiabc.cluster import FOLDER, Call


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc jobs\n  mpiabc jobs /scratch/me/mpiabc-jobs --failures"
    parser = add_command(commands, "jobs", _jobs, "show the jobs of mpiabc.cluster's maps", example)
    parser.add_argument("folder", nargs="?", default=FOLDER, help=f"the maps' folder, by default {FOLDER}")
    parser.add_argument("--failures", action="store_true", help="the tracebacks of the items that failed")


def _jobs(options: argparse.Namespace) -> int:
    """Print a line for each call of `map` that is going on, or has gone wrong."""
    folders = sorted(path.parent for path in Path(options.folder).glob("*/call.json"))
    calls = [Call.read(folder) for folder in folders]
    if not calls:
        say(f"no jobs in {options.folder}: a map that went well leaves nothing behind")
        return 0
    heads = ["map", "system", "job", "tasks", "done", "running", "waiting", "lost", "failed"]
    say(table([heads, *map(_row, calls)]))
    if options.failures:
        for call in calls:
            say("".join(f"\n{call.folder.name}: {text}" for text in call.failures()))
    return 0


def _row(call: Call) -> list[str]:
    """Its tasks by their state; lost: without a result, and unknown to the batch system."""
    done, states = call.done(), call.states()
    counts = Counter(states[task] for task in states if task not in done)
    lost = call.n - len(done | set(states))
    numbers = (
        call.n,
        len(done),
        counts["runs"],
        counts["waits"] + counts["error"],
        lost,
        len(call.failures()),
    )
    return [call.folder.name, call.scheduler, ",".join(call.jobs), *map(str, numbers)]
