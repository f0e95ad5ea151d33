"""The command line: one module a command, each of which adds itself to the parser.

    mpiabc run influenza.py --population-size 1000 --generations 8
    mpiabc show influenza.db
    mpiabc replay influenza.db 3:17 --trust

Exit status: 0 done, 1 an error, 2 a wrong command line, 75 stopped early and resumable (or what
MPIABC_RESUMABLE_STATUS says, as SGE wants 99).
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from mpiabc import voice
from mpiabc.cli import (
    broker,
    doctor,
    export,
    jobs,
    jobscript,
    plot,
    replay,
    report,
    run,
    serve,
    show,
    watch,
    worker,
)
from mpiabc.cli.command import Parser, in_options
from mpiabc.cli.settings import InYamlError
from mpiabc.cli.words import Format
from mpiabc.errors import Error, Interrupted, SimulatorError
from mpiabc.schedulers.mpi import end_job, launched_rank
from mpiabc.text import shown_lines
from mpiabc.version import __version__

_COMMANDS = (run, show, watch, serve, report, plot, export, replay, worker, broker, jobs, jobscript, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, of `sys.argv` by default; returns its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(handlers=[_handler()])
    logging.getLogger("mpiabc").setLevel(logging.INFO)
    try:
        return options.command(options)
    except Error as error:
        if launched_rank():
            time.sleep(1.0)  # the same on all ranks, most likely: the job ends when rank 0 has said it
        has_own_words = isinstance(error, SimulatorError | InYamlError)
        told = str(error) if has_own_words else in_options(str(error), options)
        voice.put(f"mpiabc: {shown_lines(told)}\n", sys.stderr)
        end_job()
        return 1
    except Interrupted as stopped:  # the run has said so
        return stopped.code


def _handler() -> logging.Handler:
    handler = voice.Handler()
    handler.setFormatter(Format("%(message)s"))
    return handler


def _parser() -> argparse.ArgumentParser:
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
    for command in _COMMANDS:
        command.add(commands)
    return parser
