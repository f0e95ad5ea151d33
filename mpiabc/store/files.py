"""Connections, with the system's file locks where they work, without where they do not, and their errors."""

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mpiabc.errors import StoreError

_log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds to wait for another process's short transaction


class DamagedError(StoreError):
    """The file is not as it was written: what was `found`.

    Who only reads is not told to write over it, and who writes only when a check has found damage too.
    """

    def __init__(self, path: Path, found: str, remedy: str = "read a copy of it, if there is one") -> None:
        super().__init__(f"{path} is damaged ({found}): {remedy}")
        self.found = found


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection; `options` are those of an SQLite URI."""
    if not _locks_work(path.absolute()):
        options = f"{options}&nolock=1"
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that can be read, for who does not write."""
    last: sqlite3.OperationalError | None = None
    for _ in attempts():
        for mode in ("ro", "rw"):  # the second rolls back what a killed run had begun to write
            db = connect(path, f"mode={mode}")
            try:
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return db
            except sqlite3.Error as error:
                db.close()
                if not isinstance(error, sqlite3.OperationalError):
                    raise
                last = error
    assert last is not None
    raise last


@cache
def _locks_work(path: Path) -> bool:
    """Whether the file system has the locks that SQLite uses; asked of a file beside, if there is one."""
    probe = lock_path(path) if lock_path(path).exists() else path
    try:
        import fcntl

        fd = os.open(probe, os.O_RDONLY)
    except (ImportError, OSError):
        return True
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            _log.info("file locks do not work for %s: going on without them", path)
            return False
    finally:
        os.close(fd)
    return True


def inode(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def attempts(n: int = 5) -> Iterator[int]:
    """Tries, with longer and longer pauses between them."""
    for i in range(n):
        yield i
        time.sleep(0.02 * 2**i)


def lock_path(path: Path) -> Path:
    """Where the lock of a run's file lies: beside it."""
    return path.with_name(path.name + ".lock")


def lock(path: Path) -> int | None:
    """A lock that dies with this process; None where the file system has none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fd = os.open(lock_path(path), os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise StoreError(
            f"cannot write beside {path} ({error.strerror}): make its folder "
            "writable, or give another file name"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink == 0:  # the run before has just ended, and taken its lock with it
            os.close(fd)
            return lock(path)
    except BlockingIOError:
        os.close(fd)
        raise StoreError(
            f"{path} is in use by another run: wait for it to end, or give another file name"
        ) from None
    except OSError:
        os.close(fd)
        return None
    return fd


@contextmanager
def errors_told(path: Path) -> Iterator[None]:
    """SQLite's errors as StoreError, with what to do."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")  # without: text that cannot be decoded
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_ERROR")):
            raise DamagedError(path, str(error)) from error
        advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), "{error}")
        raise StoreError(f"{path}: {advice.format(error=error)}") from error


_ADVICE = {
    "SQLITE_FULL": "the disk is full; make room and run the same command again",
    "SQLITE_READONLY_DBMOVED": "it was deleted, moved or replaced while the run was going on",
    "SQLITE_IOERR": "it cannot be read or written ({error}); see whether the disk, or "
    "your share of it, is full",
    "SQLITE_READONLY": "it cannot be written; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check the path and the permissions of the file and its folder",
    "SQLITE_NOTADB": "it is not an mpiabc run (no SQLite database), or its beginning is damaged; "
    "give another file name",
    "SQLITE_BUSY": "another program holds it locked; close that and run the same command again",
}
