"""Where a run's file lies: one place, by whatever name it is given, wherever the process goes meanwhile."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from mpiabc.errors import StoreError

_JOURNAL = "-journal"  # what SQLite appends to a name, for a file beside it
_MOST_PATH = 512 - len(_JOURNAL)  # bytes that SQLite takes
_NO_FILE = re.compile(r":memory:$|(file|sqlite\w*):")  # what SQLite and SQLAlchemy take instead of a name


def absolute(store: Any) -> Path:
    """The path that a name means now: a simulator may take this process to another folder.

    Raises StoreError for what names no file, without a look at the disk.
    """
    try:
        name = os.fsdecode(store)
    except TypeError:
        raise StoreError(f"the store is {store!r}: give the name of a file, such as 'run.db'") from None
    if not name or "\0" in name or _NO_FILE.match(name):
        raise StoreError(f"the store is {name!r}, which names no file: give a plain name, such as 'run.db'")
    with suppress(OSError):
        return Path(name).absolute()
    return Path(name)  # the current folder is gone, which matters to who opens the file only


def place_of(store: Any) -> Path:
    """The file that a name leads to, through a link: SQLite, and we, put more files beside it.

    Of several names it is the one beside which SQLite's journal lies. Raises StoreError where no run's file
    can be.
    """
    path = absolute(store)
    if not path.is_absolute():
        raise StoreError(f"{path} cannot be opened: the current folder is gone; give a path from the root")
    if os.path.islink(path):
        path = Path(os.path.realpath(path))
    found, length = status(path), len(os.fsencode(path))
    if length > _MOST_PATH:
        why = f"its path has {length} bytes, and SQLite takes {_MOST_PATH}; give a shorter one"
    elif _has_long_name(path):
        why = "its name is too long for a journal beside it; give a shorter one"
    elif found is None or stat.S_ISREG(found.st_mode):
        return path if found is None or found.st_nlink == 1 else _beside_journal(path, found.st_ino)
    else:
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        why = f"it is {what}; give the name of a file"
    raise StoreError(f"{path} cannot be opened: {why}")


def status(path: Path) -> os.stat_result | None:
    """What the system knows of a file; None if there is none. Raises StoreError with what else it says."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be reached: {_said(error)}") from None


def inode(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None if there is none."""
    found = status(path)
    return found and (found.st_dev, found.st_ino)


def journal_path(path: Path) -> Path:
    """Where SQLite keeps what a transaction that was not finished has changed."""
    return path.with_name(path.name + _JOURNAL)


def _beside_journal(path: Path, number: int) -> Path:
    """That name of a file, in its folder, which has a journal; this one if none has."""
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.inode() == number and journal_path(Path(entry.path)).exists():
                return Path(entry.path)
    return path


def _has_long_name(path: Path) -> bool:
    try:
        most = os.pathconf(path.parent, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # there is no such folder, which is reported elsewhere
        return False
    return len(os.fsencode(path.name + _JOURNAL)) > most


def _said(error: OSError) -> str:
    return error.strerror or str(error)
