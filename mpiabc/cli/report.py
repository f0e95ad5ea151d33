"""`mpiabc report`: a run as one page."""

import argparse
from pathlib import Path
from typing import Any

from mpiabc.analysis.report import report
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import say
from mpiabc.errors import Error
from mpiabc.store import History


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc report fit.db\n  mpiabc report fit.db --output fit-2.html"
    parser = add_command(commands, "report", _report, COMMANDS["report"], example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file; it may be going on")
    parser.add_argument("--output", metavar="FILE", help="by default RUN.html, here")


def _report(options: argparse.Namespace) -> int:
    """Write the page, and say where it is."""
    history = History(options.store)
    output = Path(options.output or f"{Path(options.store).stem}.html")
    try:
        report(history, output)
    except ImportError as error:
        raise Error(str(error)) from None
    say(f"report of {options.store}: {output}")
    return 0
