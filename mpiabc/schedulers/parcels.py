"""Jobs as bytes that travel once: large parts that a receiver has are not sent again."""

import hashlib
import pickle
from typing import Any

from mpiabc import mapped

_LARGE = 4096  # bytes from which a buffer travels for itself


Parts = list[tuple[str, bytes]]


def parts(job: Any) -> Parts:
    """A job as bytes, then its large buffers, each with its hash: they may be those of another."""
    aside: list[bytes] = []

    def put_aside(buffer: pickle.PickleBuffer) -> bool:
        is_large = buffer.raw().nbytes >= _LARGE
        if is_large:
            aside.append(bytes(buffer.raw()))
        return not is_large

    body = mapped.dumps(job, protocol=5, buffer_callback=put_aside)
    return [(key(part), part) for part in (body, *aside)]


def key(part: bytes) -> str:
    """What a part is called."""
    return hashlib.sha256(part).hexdigest()


def joined(body: bytes, *aside: bytes) -> Any:
    """The inverse of `parts`; arrays can be written to, as they always could."""
    return pickle.loads(body, buffers=[bytearray(buffer) for buffer in aside])


class Sender:
    """Jobs for one receiver that gets all of this sender's messages, in order."""

    def __init__(self) -> None:
        self._sent: set[str] = set()

    def message(self, parts: Parts) -> bytes:
        """The parts that were not in the last message, and the names of all in order."""
        names = [name for name, _ in parts]
        new = {name: part for name, part in parts if name not in self._sent}
        self._sent = set(names)
        return pickle.dumps((names, new))


class Receiver:
    """The other side of a Sender."""

    def __init__(self) -> None:
        self._parts: dict[str, bytes] = {}

    def job(self, message: bytes | bytearray | memoryview) -> Any:
        """The job of a message."""
        names, new = pickle.loads(message)
        self._parts = {name: new[name] if name in new else self._parts[name] for name in names}
        return joined(*(self._parts[name] for name in names))
