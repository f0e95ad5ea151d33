"""`mpiabc watch`: follow a run in a terminal."""

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import say
from mpiabc.errors import StoreError
from mpiabc.onlooker.look import Onlooker
from mpiabc.onlooker.terminal import showing
from mpiabc.onlooker.view import State, View

_PERIOD = 1.0  # seconds between two looks
_IN_DOUBT = 5.0  # seconds after which a run that gives no sign of life is left
_ENDS = (State.ENDED, State.INTERRUPTED, State.FAILED, State.KILLED)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc watch fit.db\n  mpiabc watch fit.db --wait    # for a job that is in a queue"
    parser = add_command(commands, "watch", _watch, COMMANDS["watch"], example)
    parser.description = (
        "Follow a run in a terminal, to its end. It reads the file for moments only, and the run never waits "
        "for it. Where the output is no terminal: a line for what is new. Exit status: 0 if a stopping rule "
        "has ended the run, or Ctrl-C the watch; 75 if the run was interrupted and can go on; 1 if it has "
        "failed or was killed."
    )
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="for a file that is not there yet, and a run that does not go on now",
    )


def _watch(options: argparse.Namespace) -> int:
    """Show the run until it ends."""
    onlooker = Onlooker(options.store)
    if not options.wait and onlooker.look().state is State.ABSENT:
        raise StoreError(f"there is no file {options.store}: give --wait to wait for it")
    with suppress(KeyboardInterrupt), showing(say) as show:
        return follow(onlooker, lambda view: show([view]), waits=options.wait)
    return 0


def follow(onlooker: Onlooker, show: Callable[[View], None], *, waits: bool = False) -> int:
    """Show a run until it ends; its exit status. `waits`: only a stopping rule or a failure is its end."""
    alive_at = time.monotonic()
    while True:
        view = onlooker.look()
        show(view)
        if view.state is State.RUNNING:
            alive_at = time.monotonic()
        if _is_over(view.state, time.monotonic() - alive_at, waits):
            return view.status
        time.sleep(_PERIOD)


def _is_over(state: State, seconds: float, waits: bool) -> bool:
    """Whether nothing more is to come, as far as is seen `seconds` after it was seen to run."""
    if waits:
        return state in (State.ENDED, State.FAILED)
    return state in _ENDS or seconds > _IN_DOUBT
