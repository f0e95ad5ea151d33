"""`mpiabc export`: a run's particles for other programs."""

import argparse
from pathlib import Path
from typing import Any

from mpiabc.analysis.export import FORMATS, exported
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import say
from mpiabc.errors import ProblemError
from mpiabc.store import History

_SUFFIXES = {"netcdf": "nc"}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = """\
  mpiabc export fit.db --to csv
  mpiabc export fit.db --to npz --all --output particles.npz"""
    parser = add_command(commands, "export", _export, COMMANDS["export"], example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument("--output", metavar="FILE", help="by default RUN.csv and so on, here")
    parser.add_argument("--model", metavar="NAME", help="the one of several models, which netcdf needs")
    parser.add_argument("--all", action="store_true", help="all generations, not the last one alone")


def _export(options: argparse.Namespace) -> int:
    """Write the file, and say where it is."""
    suffix = _SUFFIXES.get(options.to, options.to)
    output = Path(options.output or f"{Path(options.store).stem}.{suffix}")
    if options.all and options.to == "netcdf":
        raise ProblemError("--all with --to netcdf, which has the last population: leave --all out")
    history = History(options.store)
    exported(history, options.to, output, options.all, options.model)
    text = f"{len(history)} generations" if options.all else f"generation {len(history) - 1}"
    say(f"{text} of {options.store}: {output}")
    return 0
