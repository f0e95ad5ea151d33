"""Where files go: the folder of runs, whose file system should have locks, and that for temporary files."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from mpiabc.cli.doctor.check import Place, Remark, Seen, problem, warning
from mpiabc.cli.doctor.system import size
from mpiabc.errors import StoreError
from mpiabc.store import locks
from mpiabc.store.files import connect_to_write, errors_reported

_MOUNTS = Path("/proc/self/mounts")
_LITTLE = 100 * 2**20  # bytes
_OF_A_NODE = ("localflock", "nolock", "local_lock=all", "local_lock=flock", "local_lock=posix")  # of mounts


@dataclass(frozen=True)
class Disk:
    """A folder's file system: its kind, how it is mounted, its room; `lack`: why nothing can be kept."""

    folder: str
    kind: str = ""
    options: str = ""
    free: int | None = None
    has_locks: bool = True
    lack: str = ""
    wanted: str = ""  # what TMPDIR says, where that is no folder

    def __str__(self) -> str:
        parts = [self.kind, "" if self.free is None else f"{size(self.free)} free"]
        return f"{self.folder} ({', '.join(filter(None, parts))})"


def look_at_folder(place: Place) -> Disk:
    """A database is written there, and removed."""
    folder = Path(os.path.abspath(place.folder))
    kind, options = mounted(folder)
    try:
        has_locks = _tried(folder)
    except (StoreError, OSError) as error:
        return Disk(str(folder), kind, options, lack=_why(error))
    return Disk(str(folder), kind, options, _free(folder), has_locks)


def _tried(folder: Path) -> bool:
    """Whether SQLite's locks work there, and ours. Raises StoreError, OSError."""
    with tempfile.TemporaryDirectory(prefix=".mpiabc-doctor-", dir=folder) as own:
        path = Path(own) / "probe.db"
        path.touch()
        lock = locks.Lock(path)
        has_own = lock.take()
        try:
            with errors_reported(path), closing(connect_to_write(path)) as db:
                db.execute("CREATE TABLE probe (x)")
        finally:
            lock.release()
        return has_own and locks.work(path)


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _free(folder: Path) -> int | None:
    with suppress(OSError):
        found = os.statvfs(folder)
        return found.f_frsize * found.f_bavail
    return None


def mounted(folder: Path) -> tuple[str, str]:
    """The kind of file system that a folder is on, and its options; empty where the system does not tell."""
    try:
        lines = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return "", ""
    real = os.path.realpath(folder)
    around = [line for line in lines if len(line) > 3 and _is_within(real, _plain(line[1]))]
    _, _, kind, options, *_ = max(around, key=lambda line: len(_plain(line[1])), default=["", "", "", ""])
    return kind, options


def _plain(path: str) -> str:
    """A mount's path, in which spaces are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _is_within(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def judge_folder(found: Disk) -> Seen:
    """A run needs to write there, and is safer with locks."""
    if found.lack:
        text = (
            f"no run can be kept in {found.folder} ({found.lack}): make it writable, or take another folder"
        )
        return Seen(f"{found}: not writable", (problem(text),))
    words = f"{found}, locks {'work' if found.has_locks else 'do not work'}"
    return Seen(words, (*_of_locks(found), *_of_room(found)))


def _of_locks(found: Disk) -> Iterator[Remark]:
    never = "never start two runs on one file"
    if not found.has_locks:
        yield warning(f"the file system of {found.folder} has no locks: runs go on without them; {never}")
    elif local := next((word for word in _OF_A_NODE if word in found.options.split(",")), None):
        yield warning(f"locks in {found.folder} hold on this node alone ({local}): {never} from two nodes")


def _of_room(found: Disk) -> Iterator[Remark]:
    if found.free is not None and found.free < _LITTLE:
        yield warning(f"{found.folder} has {size(found.free)} left: make room, or take another folder")


def look_at_temporary(place: Place) -> Disk:
    """What TMPDIR says, or the system."""
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile() as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        return Disk(os.environ.get("TMPDIR", "/tmp"), lack=_why(error))
    wanted = os.environ.get("TMPDIR", "")
    is_there = not wanted or Path(wanted).is_dir()
    return Disk(str(folder), *mounted(folder), _free(folder), wanted="" if is_there else wanted)


def judge_temporary(found: Disk) -> Seen:
    """MPI and simulators' programs put files there."""
    if found.lack:
        text = f"there is no folder for temporary files ({found.lack}): let TMPDIR name one, with room"
        return Seen(f"{found}: not writable", (problem(text),))
    if found.wanted:
        text = f"TMPDIR is {found.wanted}, which is no folder: MPI may not start; make it, or unset TMPDIR"
        return Seen(str(found), (warning(text),))
    return Seen(str(found), tuple(_of_room(found)))
