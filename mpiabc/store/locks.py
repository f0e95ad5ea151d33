"""What keeps a second run off a file, where the system has locks; some network file systems have none."""

import errno
import logging
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from mpiabc.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BYTE = 1 << 62  # that stands for the whole file: far from those that SQLite locks


class Lock:
    """Of the one run that writes into a file; it dies with this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name: int | None = None
        self._file: int | None = None

    def take(self) -> bool:
        """Lock the file's name; False if there are no locks here. Raises StoreError if another run has it."""
        if fcntl is None:
            return False
        try:
            fd = os.open(lock_path(self._path), os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot write beside {self._path} ({error.strerror}): make its folder "
                "writable, or give another file name"
            ) from None
        is_locked = self._lock(fd, lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
        if os.fstat(fd).st_nlink == 0:  # the run before has just ended, and taken its lock with it
            os.close(fd)
            return self.take()
        self._name = fd
        return is_locked

    def take_file(self) -> None:
        """Lock the file itself too, where the system can: a link or a mount may give it a second name."""
        is_known = hasattr(fcntl, "F_OFD_SETLK") and struct.calcsize("P") == 8
        if not is_known or self._file is not None:
            return
        with suppress(OSError):  # which SQLite will tell
            fd = os.open(self._path, os.O_RDWR)
            self._lock(fd, lambda: _set(fd, fcntl.F_WRLCK))
            self._file = fd

    def release(self) -> None:
        """Let both go, also where a process that was forked goes on and has them, too."""
        if self._file is not None:
            with suppress(OSError):
                _set(self._file, fcntl.F_UNLCK)
            os.close(self._file)
        if self._name is not None:
            with suppress(OSError):
                os.unlink(lock_path(self._path))
            os.close(self._name)
        self._name = self._file = None

    def _lock(self, fd: int, lock: Callable[[], object]) -> bool:
        """Lock a file; False if there are no locks here. It is closed if that is refused."""
        try:
            lock()
        except BlockingIOError:
            os.close(fd)
            raise in_use(self._path) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            os.close(fd)
            raise StoreError(f"{self._path} cannot be locked: {error.strerror}") from None
        return True


def in_use(path: Path) -> StoreError:
    """That another run has the file."""
    from mpiabc.schedulers.mpi import launched_rank, launched_size

    text = f"{path} is in use by another run: wait for it to end, or give another file name"
    if (ranks := launched_size()) > 1:
        text += (
            f"; this is rank {launched_rank()} of {ranks}, each of which leads a run of its own where the "
            "scheduler is not MPI: start it without mpirun, or give scheduler='mpi'"
        )
    return StoreError(text)


def lock_path(path: Path) -> Path:
    """Where the lock of a run's file lies: beside it."""
    return path.with_name(path.name + ".lock")


def _set(fd: int, kind: int) -> None:
    """Lock or unlock the byte for this descriptor, not for the process, in which SQLite has others."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, _BYTE, 1, 0))


@cache
def work(path: Path) -> bool:
    """Whether the file system has the locks that SQLite uses; asked of a file beside, if there is one."""
    probe = lock_path(path) if lock_path(path).exists() else path
    try:
        fd = os.open(probe, os.O_RDONLY)
    except OSError:
        return True
    try:
        if fcntl is not None:
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            _log.info("file locks do not work for %s: going on without them", path)
            return False
    finally:
        os.close(fd)
    return True
