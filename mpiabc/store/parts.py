"""A problem's parts, pickled to be kept in the file, and rebuilt from it."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

from mpiabc import mapped
from mpiabc.errors import ProblemError, StoreError
from mpiabc.moved import present

MOST_PART = 100_000_000  # bytes of a pickled problem that are kept


def portable(part: object) -> bytes | None:
    """A part with the folders that its modules came from; None if it cannot be pickled, or is huge.

    Pickling stops at the limit, before anything huge is copied.
    """
    body, buffers = _Limited(MOST_PART), []

    def put_aside(buffer: pickle.PickleBuffer) -> None:
        body.count(buffer.raw().nbytes)
        buffers.append(bytes(buffer.raw()))

    try:
        mapped.Pickler(body, 5, put_aside).dump(part)
        return pickle.dumps((sys.path, (body.getvalue(), buffers)))
    except Exception:
        return None


class _Limited(io.BytesIO):
    """A file in memory that takes so many bytes; raises OverflowError for more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def count(self, n: int) -> None:
        """Take `n` bytes off what is left."""
        self._left -= n
        if self._left < 0:
            raise OverflowError("too large")

    def write(self, data: Any) -> int:
        """Write if there is room."""
        self.count(memoryview(data).nbytes)
        return super().write(data)


class _Unpickler(pickle.Unpickler):
    """Finds classes of ours where they are now."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name; its module may have moved."""
        return super().find_class(present(module), name)


def rebuilt(blob: bytes, name: str, file: Path) -> Any:
    """The part of which `portable` made this; executes code that the file holds.

    Raises StoreError if it cannot be rebuilt here.
    """
    path, inner = pickle.loads(blob)
    sys.path += [folder for folder in path if folder not in sys.path]
    try:
        body, buffers = (inner, ()) if isinstance(inner, bytes) else inner  # the former: in older files
        return _Unpickler(io.BytesIO(body), buffers=buffers).load()
    except ProblemError as error:
        raise StoreError(f"the {name} in {file} cannot be rebuilt here: {error}") from error
    except Exception as error:
        raise StoreError(
            f"the {name} in {file} cannot be rebuilt here ({type(error).__name__}: {error}): use "
            "the environment and the folders that the run had"
        ) from error
