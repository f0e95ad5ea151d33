"""Messages over a pipe between a leader and a child."""

import struct
from multiprocessing.connection import Connection
from socket import socketpair


def pipe() -> tuple[Connection, Connection]:
    """Both ends of a new one."""
    return tuple(Connection(end.detach()) for end in socketpair())  # type: ignore[return-value]


_HEAD = struct.Struct("<q")  # the kind of a message, so wide that arrays behind it are aligned


def send(connection: Connection, kind: int, content: bytes) -> None:
    """Send a message of this kind. Raises OSError where nobody reads any more."""
    connection.send_bytes(_HEAD.pack(kind) + content)


def received(connection: Connection) -> tuple[int, memoryview]:
    """The kind of the next message, and its content. Raises EOFError, OSError where none will come."""
    message = connection.recv_bytes()
    return _HEAD.unpack_from(message)[0], memoryview(message)[_HEAD.size :]
