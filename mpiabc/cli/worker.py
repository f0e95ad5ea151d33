"""`mpiabc worker`: evaluate for the runs on a Redis server."""

import argparse
import logging
import platform
from pathlib import Path
from typing import Any

from mpiabc import machine, threads
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.errors import ProblemError
from mpiabc.schedulers.base import count
from mpiabc.schedulers.redis.wire import Server, find_server, read_private
from mpiabc.stopping import seconds

_log = logging.getLogger("mpiabc")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = """\
  mpiabc worker                                          # for the broker of `mpiabc broker start`
  mpiabc worker redis://node7:6379 --processes 16 --runtime 2h
  mpirun -n 64 mpiabc worker --broker broker.json        # every rank a worker

MPIABC_SECRET or MPIABC_SECRET_FILE: the secret that the leader has too. MPIABC_REDIS_PASSWORD: the server's
password. SIGTERM gives back what is in work, at once."""
    parser = add_command(commands, "worker", _worker, COMMANDS["worker"], example)
    add_server(parser)
    parser.add_argument(
        "--processes", metavar="N", type=int, help="by default one for each core; 1 under mpirun"
    )
    parser.add_argument(
        "--renew", metavar="K", type=int, help="replace a process after K simulations, if these lose memory"
    )
    parser.add_argument("--runtime", metavar="TIME", help="take no new work after 30s, 10m, 2h, 1d")
    parser.add_argument(
        "--wait",
        metavar="TIME",
        help="for a server or run that is not there yet; by default 1m for a server, without end for a run",
    )
    parser.add_argument(
        "--run", metavar="NAME", help="serve only the runs of this name (by default that of the simulator)"
    )
    parser.add_argument("--once", action="store_true", help="leave after one run")


def add_server(parser: argparse.ArgumentParser) -> None:
    """The options that say where the server is."""
    parser.add_argument(
        "url", nargs="?", help="redis://host:port, rediss:// for TLS; without it, the broker's file"
    )
    parser.add_argument(
        "--broker", metavar="FILE", help="the file of `mpiabc broker start`, by default ~/.mpiabc/broker.json"
    )
    parser.add_argument("--password-file", metavar="FILE", help="a file with the server's password")
    parser.add_argument(
        "--password", help="seen by everyone on this machine: prefer the file or MPIABC_REDIS_PASSWORD"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="work without a secret: whoever reaches the server can run code here",
    )


def server_of(options: argparse.Namespace) -> Server:
    """The server that the options name. Raises SchedulerError."""
    password = options.password
    if options.password_file:
        password = read_private(Path(options.password_file), "--password-file").strip()
    return find_server(options.url, file=options.broker, password=password, is_insecure=options.insecure)


def _worker(options: argparse.Namespace) -> int:
    """Serve runs until the time is up or a signal comes."""
    from mpiabc.schedulers.mpi import launched_size
    from mpiabc.schedulers.redis.runs import Wishes
    from mpiabc.schedulers.redis.worker import Worker

    is_rank = launched_size() > 1
    processes = options.processes
    if processes is None:
        processes = 1 if is_rank else machine.cores()
    if processes < 1:
        raise ProblemError(f"--processes {processes}: give a whole number of at least 1")
    if options.renew is not None:
        count(options.renew, f"--renew {options.renew}")
    server = server_of(options)
    times = _seconds(options.runtime, "runtime"), _seconds(options.wait, "wait")
    wishes = Wishes(processes, *times, options.run, options.once, options.renew)
    limit = f", for {options.runtime}" if options.runtime else ""
    _log.info("worker on %s: %d processes for %s%s", platform.node(), processes, server, limit)
    threads.limit(1 if is_rank else machine.cores() // processes)  # before any fork: who serves a run has it
    served = Worker(server, wishes).work()
    _log.info("worker on %s: done, %d runs served", platform.node(), served)
    return 0


def _seconds(text: str | None, name: str) -> float | None:
    return None if text is None else seconds(text, name)
