"""Which evaluation each process of a run is at, in files beside the run's: what is left is of the dead.

A crash leaves no time for words, nor does a system that is out of memory, and a launcher of MPI then ends
all other ranks. So who evaluates in its own process notes each id in memory that it shares with a small
file, `run.db.at/HOST-PROCESS`, in a tenth of a microsecond. The files go with the end of the run.
"""

import mmap
import os
import platform
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mpiabc.records import generation_of

_CELLS = struct.Struct("=qq")  # the order's number, and the id: -1 between two leases


@dataclass(frozen=True, order=True)
class At:
    """An evaluation that a process has not come back from; the first of a call, if vectorised."""

    generation: int
    index: int
    where: str

    @property
    def address(self) -> str:
        """Generation and id, as `mpiabc replay` takes them."""
        return f"{self.generation}:{self.index}"


class Note:
    """What this process writes. Where there can be no such file, it is gone without."""

    def __init__(self, store: str | os.PathLike[str], where: str | None) -> None:
        self._path = _folder(store) / f"{platform.node()}-{os.getpid()}"
        process = f"process {os.getpid()}"
        self._where = f"{process} on {platform.node()}" if where is None else f"{where} ({process})"
        self._memory: mmap.mmap | None = None

    def watch(self, number: int) -> Callable[[int], None] | None:
        """What is to hear of each id of this order before it is begun, and of -1 at the end of a lease."""
        if self._memory is None:
            with suppress(OSError, ValueError):
                self._memory = self._shared()
        if self._memory is None:
            return None
        self._memory[:] = _CELLS.pack(number, -1)
        return partial(self._cells.__setitem__, 1)

    def close(self) -> None:
        """This process has come to a good end."""
        if self._memory is None:
            return
        self._cells.release()
        self._memory.close()
        self._memory = None
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._path.parent.rmdir()

    def _shared(self) -> mmap.mmap:
        """Memory of a new file: one of this name is of a process that has died, or is another's still."""
        self._path.parent.mkdir(exist_ok=True)
        self._path.unlink(missing_ok=True)
        with open(self._path, "x+b") as file:
            file.write(_CELLS.pack(0, -1) + self._where.encode())
            file.flush()
            memory = mmap.mmap(file.fileno(), _CELLS.size)
        self._cells = memoryview(memory).cast("q")
        return memory


def left(store: str | os.PathLike[str]) -> list[At]:
    """What processes of a run are at, or were when they died."""
    found = []
    for path in _files(store):
        with suppress(OSError, ValueError, struct.error):
            content = path.read_bytes()
            number, index = _CELLS.unpack_from(content)
            if index >= 0:
                found.append(At(generation_of(number), index, content[_CELLS.size :].decode()))
    return sorted(found)


def clear(store: str | os.PathLike[str]) -> None:
    """The run has come to an end that was reported, or what is left has been read."""
    with suppress(OSError):
        for path in _files(store):
            path.unlink(missing_ok=True)
        _folder(store).rmdir()


def _folder(store: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(os.fspath(store)) + ".at")


def _files(store: str | os.PathLike[str]) -> list[Path]:
    with suppress(OSError):
        return list(_folder(store).iterdir())
    return []
