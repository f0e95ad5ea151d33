"""`run.db.live`: how far a run is, for onlookers, who never hold the database.

One JSON object, replaced once a second while the run goes on, and removed at its end: what a run leaves
behind that was killed has an old `at`.
"""

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mpiabc.driver import Ended, Event, Progressed
from mpiabc.store.place import place_of

_PERIOD = 1.0  # seconds between two states
_LATE = 5.0  # seconds after which there will be no other one


@dataclass(frozen=True)
class Sign:
    """A sign of life: how far the run was `at` a time of the system's clock, by the process that leads."""

    progressed: Progressed
    at: float
    began: float
    host: str
    process: int


class Live:
    """Writes the file beside a run's, as the run is observed."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self._path = path_of(store)
        self._began = time.time()
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        """Note how far the run is. What cannot be written is left out: the run matters more."""
        with suppress(OSError):
            if isinstance(event, Ended):
                self._path.unlink(missing_ok=True)
            if isinstance(event, Progressed) and time.monotonic() >= self._next:
                self._next = time.monotonic() + _PERIOD
                sign = Sign(event, time.time(), self._began, platform.node(), os.getpid())
                part = self._path.with_name(self._path.name + ".part")
                part.write_text(json.dumps(asdict(sign)))
                part.replace(self._path)


def path_of(store: str | os.PathLike[str]) -> Path:
    """The file's place: beside the run's file, by whatever name that is given."""
    path = place_of(store)
    return path.with_name(path.name + ".live")


def goes_on(store: str | os.PathLike[str]) -> bool:
    """Whether a run with this file gives another sign of life, if it has ever given one."""
    before, until = read(store), time.monotonic() + _LATE
    while before is not None and time.monotonic() < until:
        time.sleep(_PERIOD / 10)
        if (after := read(store)) is not None and after.at != before.at:
            return True
    return False


def read(store: str | os.PathLike[str]) -> Sign | None:
    """The last sign of life of the run in this file; None if there is none, or of another mpiabc."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path_of(store).read_text())
        return Sign(**{**found, "progressed": Progressed(**found["progressed"])})
    return None
