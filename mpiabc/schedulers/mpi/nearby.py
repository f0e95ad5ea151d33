"""Orders that lie in the memory of a node: one of its ranks asks rank 0 for them, the others read them there.

Else an order of a megabyte would leave rank 0 ten thousand times for ten thousand ranks. A tree of ranks that
pass it on would do as well, if these were not at work: most MPIs send and receive in calls alone. What lies
in a file of the node's memory needs nobody's attention. Whoever does not find it there in time asks for
itself, so nothing rests on that file: neither on its being there, nor on a rank that was to write it.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEAD = struct.Struct("<QQ")  # length and checksum
_PREFIX = "mpiabc-orders-"
_LATE = 2.0  # seconds after which a rank asks for itself
_YOUNG = 60.0  # seconds for which the folder of another run is let alone, whoever is seen in it
_LOCK = "in-use"


def _memory() -> Path:
    """A folder in the node's memory, or the one for temporary files."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Shelf:
    """What the ranks of one node have of a run's orders. What cannot be written is not there: no error."""

    def __init__(self, run: int, parent: Path | None = None) -> None:
        self._parent = _memory() if parent is None else parent
        self._folder = self._parent / f"{_PREFIX}{os.geteuid()}-{run:016x}"
        self._lock = -1

    def put(self, job: int, content: bytes | memoryview) -> None:
        """Let the others of the node have it."""
        with contextlib.suppress(OSError):
            self._open()
            half = self._folder / f"{job}.{os.getpid()}"
            try:
                with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(_HEAD.pack(len(content), zlib.crc32(content)))
                    file.write(content)
                half.rename(self._folder / str(job))
            finally:
                half.unlink(missing_ok=True)

    def get(self, job: int) -> bytes | None:
        """What one of them has put there, whole."""
        with contextlib.suppress(OSError, struct.error):
            self._open()
            with open(os.open(self._folder / str(job), os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                length, checksum = _HEAD.unpack(file.read(_HEAD.size))
                content = file.read()
            if len(content) == length and zlib.crc32(content) == checksum:
                return content
        return None

    def claims(self, job: int) -> bool:
        """Whether this is the first rank of its node to want it, as each is where nothing can be written."""
        try:
            self._open()
            os.close(os.open(self._folder / f"{job}.asked", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        except OSError:
            return True
        return True

    def drop(self, job: int) -> None:
        """Nobody wants it any more."""
        if self._lock >= 0:
            for name in (str(job), f"{job}.asked"):
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink()

    def close(self) -> None:
        """The last of the node's ranks that leaves takes all with it."""
        if self._lock >= 0:
            if _is_alone(self._lock):
                shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def _open(self) -> None:
        """Come in, after a look for what killed runs have left. Raises OSError."""
        if self._lock >= 0:
            return
        _sweep(self._parent)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        seen = self._folder.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
            raise PermissionError(f"{self._folder} is somebody else's")
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._lock = lock


def _is_alone(lock: int) -> bool:
    """Whether no other process has the folder of this lock open, or goes on with it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_UN)  # of two that leave at once, one is to find the other gone
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(parent: Path) -> None:
    """Remove folders of ours that nobody has open: their runs were killed."""
    for folder in parent.glob(f"{_PREFIX}{os.geteuid()}-*"):
        with contextlib.suppress(OSError), _opened(folder / _LOCK) as lock:
            if time.time() > folder.stat().st_mtime + _YOUNG and _is_alone(lock):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Nearby:
    """One rank's way to an order that it lacks: from the node; from rank 0, if it is the first, or late."""

    def __init__(self) -> None:
        self._shelf: Shelf | None = None
        self._since: dict[int, float] = {}  # jobs that others of the node have asked for
        self._asked: set[int] = set()  # that this rank has asked for, and will put there
        self._put: set[int] = set()

    @property
    def is_awaiting(self) -> bool:
        """Whether it waits for another rank to put an order there."""
        return bool(self._since)

    def must_ask(self, job: int, run: int) -> bool:
        """Whether rank 0 is to be asked for a job; else it is in what `found` gives, sooner or later."""
        self._shelf = self._shelf or Shelf(run)
        if self._shelf.get(job) is None and self._shelf.claims(job):
            self._asked.add(job)
            return True
        self._since[job] = time.monotonic()
        return False

    def found(self) -> list[bytes]:
        """What others have put there."""
        found = [] if self._shelf is None else [(job, self._shelf.get(job)) for job in self._since]
        there = {job: content for job, content in found if content is not None}
        self._since = {job: since for job, since in self._since.items() if job not in there}
        return list(there.values())

    def late(self) -> list[int]:
        """Jobs that are waited for no longer: rank 0 is to be asked."""
        now = time.monotonic()
        late = [job for job, since in self._since.items() if now > since + _LATE]
        for job in late:
            del self._since[job]
        return late

    def came(self, job: int, content: bytes | memoryview) -> None:
        """Rank 0 has sent a job: if this rank has asked for it, the others have it from here."""
        self._since.pop(job, None)
        if self._shelf is not None and job in self._asked:
            self._asked.discard(job)
            self._put.add(job)
            self._shelf.put(job, content)

    def keep(self, jobs: tuple[int, ...]) -> None:
        """Only these are open still."""
        for job in self._put - set(jobs):
            assert self._shelf is not None
            self._shelf.drop(job)
        self._put &= set(jobs)

    def close(self) -> None:
        """The run is over."""
        if self._shelf is not None:
            self._shelf.close()
            self._shelf = None
        self._since.clear()
        self._asked.clear()
        self._put.clear()
