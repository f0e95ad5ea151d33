"""`mpiabc broker`: a Redis server for a leader and its workers."""

import argparse
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import say
from mpiabc.cli.worker import add_server, server_of
from mpiabc.onlooker.terminal import showing
from mpiabc.onlooker.view import view_of_broker
from mpiabc.schedulers.redis import broker, wire
from mpiabc.schedulers.redis.wire import Server

_PERIOD = 2.0  # seconds between two looks


def add(commands: Any) -> None:
    """Add the command and its own commands to the parser."""
    example = """\
  mpiabc broker start --bind 0.0.0.0
  mpiabc broker info --watch
  mpiabc broker stop"""
    parser = add_command(commands, "broker", _help, COMMANDS["broker"], example)
    parser.set_defaults(parser=parser)
    own = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_start(own)
    _add_info(own)
    _add_stop(own)
    _add_reset(own)


def _help(options: argparse.Namespace) -> int:
    options.parser.error("give a command: start, info, stop or reset")
    return 2


def _add_start(commands: Any) -> None:
    example = "  mpiabc broker start\n  mpiabc broker start --bind 10.0.0.7 --port 6379 --file broker.json"
    parser = add_command(commands, "start", _start, "start a Redis server of one's own", example)
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="HOST",
        help="the address that it listens on, by default this machine only; 0.0.0.0 for all",
    )
    parser.add_argument("--port", type=int, metavar="PORT", help="by default a free one")
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="where its address and secrets go (mode 600), by default ~/.mpiabc/broker.json",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="no TLS where other machines reach it: passwords and problems can be read on the network",
    )


def _add_info(commands: Any) -> None:
    example = "  mpiabc broker info\n  mpiabc broker info redis://node7:6379 --watch"
    parser = add_command(commands, "info", _info, "a line for each run on the server", example)
    add_server(parser)
    parser.add_argument("--watch", action="store_true", help="follow them, as `mpiabc watch` does")


def _add_stop(commands: Any) -> None:
    example = "  mpiabc broker stop\n  mpiabc broker stop --now"
    parser = add_command(commands, "stop", _stop, "let the workers go, and end the server", example)
    parser.add_argument("--file", type=Path, metavar="FILE", help="the broker's file")
    parser.add_argument("--now", action="store_true", help="without waiting for what is in work")


def _add_reset(commands: Any) -> None:
    example = "  mpiabc broker reset"
    parser = add_command(
        commands, "reset", _reset, "delete what dead runs have left (it also expires)", example
    )
    add_server(parser)


def _start(options: argparse.Namespace) -> int:
    server = broker.start(options.bind, options.port, options.file, is_insecure=options.insecure)
    path = options.file or wire.default_file()
    more = f" --broker {path}" if options.file else ""
    leader = f'schedulers.Redis(broker="{path}")' if options.file else '"redis"'
    say(f"broker at {server}, described in {path}")
    say(f"leader:   abc.run(..., scheduler={leader})")
    say(f"workers:  mpiabc worker{more}")
    return 0


def _info(options: argparse.Namespace) -> int:
    server = server_of(options)
    for line in [] if options.watch else broker.info(server):
        say(line)
    with suppress(KeyboardInterrupt):
        if options.watch:
            _watch(server)
    return 0


def _watch(server: Server) -> None:
    """Show the runs on the server until Ctrl-C."""
    with showing(say, f"{server}: no runs") as show:
        while True:
            show([view_of_broker(fields) for fields in broker.announced(server)])
            time.sleep(_PERIOD)


def _stop(options: argparse.Namespace) -> int:
    say(broker.stop(options.file, now=options.now))
    return 0


def _reset(options: argparse.Namespace) -> int:
    say(f"{broker.reset(server_of(options))} keys of dead runs deleted")
    return 0
