"""`mpiabc serve`: a page that follows a run."""

import argparse
import os
import platform
import secrets
from typing import Any

from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import say
from mpiabc.errors import StoreError
from mpiabc.onlooker.look import Onlooker
from mpiabc.onlooker.page import Doorkeeper, Looks, application
from mpiabc.onlooker.server import listening, serve
from mpiabc.onlooker.view import State


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = """\
  mpiabc serve fit.db
  mpiabc serve fit.db --port 8765     # then, at home: ssh -L 8765:127.0.0.1:8765 LOGIN-NODE"""
    parser = add_command(commands, "serve", _serve, COMMANDS["serve"], example)
    parser.description = (
        "A page in the browser that follows a run: how far it is, pictures, failures. It is served to this "
        "machine alone, to who has the token in the address that is printed, and changes nothing. Ctrl-C "
        "ends it."
    )
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument("--port", type=int, default=0, metavar="PORT", help="by default a free one")
    parser.add_argument("--wait", action="store_true", help="also for a file that is not there yet")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which a proxy, such as JupyterHub's, asks for the page; repeatable",
    )


def _serve(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    onlooker = Onlooker(options.store)
    if onlooker.look().state is State.ABSENT and not options.wait:
        raise StoreError(f"there is no file {options.store}: give --wait to wait for it")
    looks, token = Looks(onlooker), secrets.token_urlsafe(24)
    keeper = Doorkeeper(token, [name.lower() for name in options.allow_host])
    app = application(looks, keeper, onlooker.path.name)
    with listening(options.port) as listener:
        _say_where(options.store, listener.getsockname()[1], token)
        serve(app, listener)
    looks.gallery.close()
    return 0


def _say_where(store: str, port: int, token: str) -> None:
    """How to come to the page from here, from another machine, and through Jupyter."""
    say(f"{store} is shown at\n  http://127.0.0.1:{port}/?token={token}")
    say(f"from another machine: ssh -L {port}:127.0.0.1:{port} {platform.node()}, then the same address")
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        say(f"through jupyter-server-proxy: {prefix.rstrip('/')}/proxy/{port}/?token={token}")
    say("Ctrl-C ends it")
