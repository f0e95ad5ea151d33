"""All commands by name; the one that is asked for is imported, as some need what takes long."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mpiabc import voice
from mpiabc.cli.command import COMMANDS, InYamlError, Parser, in_options
from mpiabc.cli.words import Format
from mpiabc.errors import Error, Interrupted, SimulatorError
from mpiabc.text import shown_lines
from mpiabc.version import __version__


def carried_out(words: Sequence[str]) -> int:
    """Run the command of these words; returns its exit status."""
    options = parser(words).parse_args(words)
    logging.basicConfig(handlers=[_handler()])
    logging.getLogger("mpiabc").setLevel(logging.INFO)
    try:
        return options.command(options)
    except Error as error:
        return _failed(error, options)
    except Interrupted as stopped:  # the run has said so
        return stopped.code


def _failed(error: Error, options: argparse.Namespace) -> int:
    """Say it, and end the job that this is a rank of."""
    from mpiabc.schedulers.mpi import end_job, launched_rank

    if launched_rank():
        time.sleep(1.0)  # the same on all ranks, most likely: the job ends when rank 0 has said it
    has_own_words = isinstance(error, SimulatorError | InYamlError)
    text = str(error) if has_own_words else in_options(str(error), options)
    voice.put(f"mpiabc: {shown_lines(text)}\n", sys.stderr)
    end_job()
    return 1


def _handler() -> logging.Handler:
    handler = voice.Handler()
    handler.setFormatter(Format("%(message)s"))
    return handler


def parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser of these words, which knows the other commands by name alone; without words, all."""
    parser = Parser(
        prog="mpiabc",
        description="Approximate Bayesian computation on every core you have.",
        epilog="example:\n  mpiabc run influenza.py --population-size 1000 --generations 8\n"
        "  mpiabc show influenza.db",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mpiabc {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = None if words is None else next((word for word in words if not word.startswith("-")), "")
    for name, help in COMMANDS.items():
        _add(commands, name, help, is_wanted=wanted in (None, name))
    return parser


def _add(commands: Any, name: str, help: str, *, is_wanted: bool) -> None:
    if is_wanted:
        import_module(f"mpiabc.cli.{name}").add(commands)
    else:
        commands.add_parser(name, help=help)
