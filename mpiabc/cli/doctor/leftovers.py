"""What killed runs of Open MPI have left for temporary: an mpirun of the same process number stops there."""

import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mpiabc.cli.doctor.check import Place, Seen, note, warning

_MOST_SHOWN = 3  # names in one sentence
_OF_ONE = re.compile(r"(?:ompi|prte)\.(?P<process>\d+)")  # of an mpirun
_OF_A_HOST = re.compile(r"(?:ompi|prte)\.(?P<host>.+)\.(?P<user>\d+)")  # with a folder for each mpirun
_WITHIN = re.compile(r"(?:pid\.)?(?P<process>\d+)")


@dataclass(frozen=True)
class Left:
    """Folders of mpiruns that have ended, by their paths; those that were `removed` are gone."""

    folder: str
    dead: tuple[str, ...]
    removed: tuple[str, ...] = ()


def look(place: Place) -> Left:
    """What is there; with `--clear` it is removed."""
    folder = Path(tempfile.gettempdir())
    dead = sorted(dead_folders(folder))
    if place.clears:
        for path in dead:
            shutil.rmtree(path, ignore_errors=True)
    removed = tuple(str(path) for path in dead if not path.exists())
    return Left(str(folder), tuple(str(path) for path in dead if path.exists()), removed)


def dead_folders(folder: Path) -> Iterator[Path]:
    """Those of this user's mpiruns on this machine whose process is not there any more."""
    for path, process in _folders(folder):
        with suppress(OSError):
            found = path.lstat()
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if is_ours and not _is_there(process):
                yield path


def _folders(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.iterdir():
        if (one := _OF_ONE.fullmatch(path.name)) is not None:
            if _is_of_here(path):
                yield path, int(one["process"])
        elif (host := _OF_A_HOST.fullmatch(path.name)) is not None and _is_here(host["host"]):
            with suppress(OSError):
                found = ((each, _WITHIN.fullmatch(each.name)) for each in path.iterdir())
                yield from ((each, int(within["process"])) for each, within in found if within)


def _is_of_here(path: Path) -> bool:
    """Temporary folders may be shared by machines: a file in it has the host's name."""
    with suppress(OSError):
        names = [each.name for each in path.iterdir()]
        return any(name.startswith(f"pmix.{host}.") for name in names for host in _hosts())
    return False


def _is_here(host: str) -> bool:
    return host in _hosts()


def _hosts() -> set[str]:
    node = platform.node()
    return {node, node.partition(".")[0]}


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def judge(left: Left) -> Seen:
    """Nothing, or names, and what to do."""
    if left.removed:
        return Seen(f"{len(left.removed)} removed", (note(f"removed: {_names(left.removed)}"),))
    if not left.dead:
        return Seen(f"none in {left.folder}")
    text = (
        f"killed runs of Open MPI have left {_names(left.dead)}, and an mpirun that gets the number of one "
        "stops there: `mpiabc doctor --clear` removes them"
    )
    return Seen(f"{len(left.dead)} in {left.folder}", (warning(text),))


def _names(paths: tuple[str, ...]) -> str:
    more = len(paths) - _MOST_SHOWN
    return ", ".join(paths[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
