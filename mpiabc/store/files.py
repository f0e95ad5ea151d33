"""Connections, with the system's file locks where they work, without where they do not, and their errors."""

import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpiabc.errors import StoreError
from mpiabc.signals import heard
from mpiabc.store import locks
from mpiabc.text import shown_lines

_log = logging.getLogger(__name__)

_TRY = 1.0  # seconds that SQLite waits at a time for who writes: signals are heard between
_SHORT = 10.0  # seconds to wait for another process's transaction, if that is a short one
_LONG = 1800.0  # seconds to wait for one that reads the whole file, as a backup does
_MOST_SHOWN = 200  # characters of what SQLite says


class DamagedError(StoreError):
    """The file is not as it was written: what was `found`.

    Who only reads is not advised to write over it, and who writes only when a check has found damage too.
    """

    def __init__(self, path: Path, found: str, remedy: str = "read a copy of it, if there is one") -> None:
        super().__init__(f"{path} is damaged ({_in_a_line(found)}): {remedy}")
        self.found = found


def _in_a_line(said: object) -> str:
    """What SQLite says, in a sentence: it may quote the text of a table, or what has become of it."""
    text = " ".join(shown_lines(str(said)).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."


def connect(path: Path, options: str, timeout: float = _SHORT) -> sqlite3.Connection:
    """A connection; `options` are those of an SQLite URI."""
    if not locks.work(path):
        options = f"{options}&vfs=unix-none"  # `nolock=1` would still ask who has the lock of a journal
    uri = f"{path.as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)


def connect_to_write(path: Path) -> sqlite3.Connection:
    """A connection for the one that writes, which is in short transactions only."""
    return connect(path, "mode=rwc", _TRY)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that can be read, for who does not write.

    It rolls back what a killed run had begun to write; without locks that cannot be distinguished from what a
    run is writing now, and only the next run does it.
    """
    last: sqlite3.OperationalError | None = None
    for _ in attempts():
        for mode in ("ro", "rw") if locks.work(path) else ("ro",):
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


def attempts(n: int = 5) -> Iterator[int]:
    """Tries, with longer and longer pauses between them."""
    for i in range(n):
        yield i
        time.sleep(0.02 * 2**i)


class Patience:
    """How long a run waits for programs that hold its file; once that was in vain, no longer than it must."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._most = _LONG

    def execute(self, db: sqlite3.Connection, statement: str, *values: Any) -> sqlite3.Cursor:
        """Execute a statement that may have to wait; who is asked to stop waits no longer than it must."""
        began, is_reported = time.monotonic(), False
        end = began + self._most
        while True:
            try:
                return db.execute(statement, values)
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                end = min(end, now + _SHORT) if heard() else end
                if not _name_of(error).startswith("SQLITE_BUSY"):
                    raise
                if now >= end:
                    self._most = _SHORT
                    raise
            if not is_reported and now >= began + _SHORT:
                is_reported = True
                _log.warning(
                    "%s: another program, perhaps a backup, holds it locked: waiting for it, "
                    "at most %.0f minutes",
                    self._path,
                    (end - began) / 60,
                )


@contextmanager
def errors_reported(path: Path) -> Iterator[None]:
    """SQLite's errors, and the system's, as StoreError, with what to do."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _reported(path, error) from error
    except OSError as error:
        raise StoreError(f"{path}: the system says: {error.strerror or error}") from error


def _reported(path: Path, error: Exception) -> StoreError:
    name = _name_of(error)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_ERROR", "SQLITE_TOOBIG")):
        return damaged(path, str(error))
    said = said_by_system(path, is_written=True) if name.startswith(_OF_SYSTEM) else ""
    if said and name.startswith("SQLITE_IOERR"):
        return StoreError(_unreadable(path, said))
    advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), "{error}")
    return StoreError(f"{path}: {advice.format(error=_in_a_line(error))}" + (f" ({said})" if said else ""))


def _name_of(error: Exception) -> str:
    """SQLite's name of an error; that of damage for text that cannot be decoded."""
    return getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")


def damaged(path: Path, found: str) -> StoreError:
    """That a file is damaged; unless the system cannot read it, which SQLite's check takes for the same."""
    said = said_by_system(path)
    return StoreError(_unreadable(path, said)) if said else DamagedError(path, found)


def _unreadable(path: Path, said: str) -> str:
    return (
        f"{path}: it cannot be read or written, the system says: {said}; when that is mended, run the same "
        "command again"
    )


def said_by_system(path: Path, *, is_written: bool = False) -> str:
    """What the system says to who reads the whole file, and writes beside it; empty if nothing is wrong.

    SQLite does not tell. The locks that this process has on the file are lost by it.
    """
    try:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
        if is_written:
            with tempfile.TemporaryFile(dir=path.parent, buffering=0) as probe:
                probe.write(bytes(4096))
                os.fsync(probe.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


_OF_SYSTEM = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")
_ADVICE = {
    "SQLITE_FULL": "the disk is full; make room and run the same command again",
    "SQLITE_READONLY_DBMOVED": "it was deleted, moved or replaced while the run was going on",
    "SQLITE_READONLY_ROLLBACK": "it is being written, or was when its run was killed, which nobody can tell "
    "apart on a file system without locks; if no run is going on, start it again, which mends it",
    "SQLITE_IOERR": "it cannot be read or written ({error}); see whether the disk, or "
    "your share of it, is full",
    "SQLITE_READONLY": "it cannot be written; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check the path and the permissions of the file and its folder",
    "SQLITE_NOTADB": "it is not an mpiabc run (no SQLite database), or its beginning is damaged; "
    "give another file name",
    "SQLITE_BUSY": "another program holds it locked; close that and run the same command again",
}
