"""The server of a page, with uvicorn: on 127.0.0.1 alone, until Ctrl-C."""

import socket
from contextlib import suppress
from typing import Any

from mpiabc.errors import Error
from mpiabc.onlooker.page import MISSING

_HERE = "127.0.0.1"


def listening(port: int) -> socket.socket:
    """A socket of this machine alone, on this port, or on a free one for 0. Raises Error for one in use."""
    try:
        return socket.create_server((_HERE, port))
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise Error(f"cannot listen on {_HERE}:{port} ({said}): give another --port, or none") from None


def serve(application: Any, listener: socket.socket) -> None:
    """Answer until Ctrl-C. Raises Error without uvicorn."""
    try:
        import uvicorn
    except ImportError:
        raise Error(MISSING) from None
    configuration = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,  # addresses have the token
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    with suppress(KeyboardInterrupt):  # which it raises once all is closed
        uvicorn.Server(configuration).run(sockets=[listener])
