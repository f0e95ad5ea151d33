"""`mpiabc doctor`: what is installed here, what is wrong with it, and what to do."""

import argparse
import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from mpiabc.analysis.diagnostics import Severity
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.doctor import extras, leftovers, places, ranks, system
from mpiabc.cli.doctor.asking import end_all
from mpiabc.cli.doctor.check import Check, Place, Seen, seen
from mpiabc.cli.doctor.launching import Launched, own_rank
from mpiabc.cli.words import say
from mpiabc.schedulers.mpi import launched_rank, launched_size

_COLUMNS = 110
_TOGETHER = 150.0  # seconds that all ranks have to come; ranks 0 and 1 have said by then what they wait for

CHECKS = (
    Check("Python", system.look_at_python, system.judge_python),
    Check("mpiabc", system.look_at_package, system.judge_package),
    Check("arithmetic", system.look_at_arithmetic, system.judge_arithmetic),
    Check("MPI", ranks.look_at_library, ranks.judge_library),
    Check("launchers", ranks.look_at_launchers, ranks.judge_launchers, limit=70.0),
    Check("two ranks", ranks.look_at_start, ranks.judge_start, limit=120.0),
    Check("left by MPI", leftovers.look, leftovers.judge),
    Check("cores", system.look_at_cores, system.judge_cores),
    Check("processes", system.look_at_children, system.judge_children, limit=60.0),
    Check("shared memory", system.look_at_memory, system.judge_memory),
    Check("open files", system.look_at_limits, system.judge_limits),
    Check("folder", places.look_at_folder, places.judge_folder),
    Check("temporary", places.look_at_temporary, places.judge_temporary),
    Check("batch job", system.look_at_batch, system.judge_batch, limit=60.0),
    Check("extras", extras.look_at_extras, extras.judge_extras),
    Check("Redis", extras.look_at_redis, extras.judge_redis, limit=60.0),
    Check("broker", extras.look_at_broker, extras.judge_broker),
)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc doctor\n  mpirun -n 4 mpiabc doctor     # whether these ranks find each other"
    parser = add_command(commands, "doctor", _doctor, COMMANDS["doctor"], example)
    parser.description = (
        "Look at this installation and this machine, and say what is there, what is wrong, and what to do. "
        "Two ranks are started for it, and two worker processes, for a moment. Exit status: 0 if runs have "
        "what they need, 1 if there is a problem."
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=Path(), help="of runs, by default this one"
    )
    parser.add_argument(
        "--clear", action="store_true", help="remove what killed runs of Open MPI have left for temporary"
    )


def _doctor(options: argparse.Namespace) -> int:
    """Look, and tell; of several ranks the first one tells."""
    rank = _own_rank()
    if launched_rank():
        return 0 if rank is None else rank.status or 0
    place = Place(options.folder, options.clear, rank)
    try:
        found = {check.topic: seen(check, place) for check in CHECKS}
    finally:
        end_all()
    say("\n".join([*_table(found), "", *_sentences(found)]))
    return int(any(each.severity is Severity.PROBLEM for each in found.values()))


def _own_rank() -> Launched | None:
    """What MPI says of this process; a watch of C's ends it if the other ranks do not come."""
    if launched_size() == 1:
        return None
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(_TOGETHER, exit=True, file=nowhere)
        try:
            return own_rank()
        finally:
            faulthandler.cancel_dump_traceback_later()


def _table(found: dict[str, Seen]) -> Iterator[str]:
    """A line for each check; what is well has an empty margin."""
    marks = {topic: "" if each.severity is Severity.GOOD else each.severity for topic, each in found.items()}
    margin, width = max(map(len, marks.values())), max(map(len, found))
    for topic, each in found.items():
        head = f"{marks[topic]:<{margin}}  {topic:<{width}}  "
        yield fill(
            each.words,
            _COLUMNS,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,  # paths are to be copied
            break_on_hyphens=False,
        )


def _sentences(found: dict[str, Seen]) -> Iterator[str]:
    """The worst first, then what it comes to."""
    remarks = [remark for each in found.values() for remark in each.remarks]
    for severity in Severity:
        yield from (f"{severity}: {each.text}" for each in remarks if each.severity is severity)
    count = sum(each.severity is Severity.PROBLEM for each in remarks)
    yield f"{count} problem{'s' * (count > 1)}" if count else "Nothing is wrong: runs have what they need"
