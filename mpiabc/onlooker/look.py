"""Looks at a run: its file, its last sign of life, and whether its leader is still there."""

import os
import platform
import time

from mpiabc.errors import StoreError
from mpiabc.onlooker.view import Seen, View, view_of
from mpiabc.store import live
from mpiabc.store.glance import Glance

_PATIENCE = 10.0  # seconds in which a file that was read cannot be read, before that is reported


class Onlooker:
    """Looks at a run again and again, and holds neither its file nor a lock on it between two looks."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self._glance = Glance(store)
        self.path = self._glance.path
        self._at: float | None = None  # of the last sign, by the clock of who gave it
        self._heard = 0.0  # when it was first seen, by ours
        self._is_followed = False  # it is not the first that was seen
        self._last: tuple[float, View] | None = None

    def look(self) -> View:
        """What is to be seen now. Raises StoreError for a file that cannot be read, and stays so."""
        try:
            view = view_of(self._seen())
        except StoreError:
            if self._last is None or time.monotonic() > self._last[0] + _PATIENCE:
                raise
            return self._last[1]  # it is being written, or made anew
        self._last = time.monotonic(), view
        return view

    def _seen(self) -> Seen:
        sign = live.read(self.path)
        contents = self._glance.look()
        if sign is not None and contents is not None:
            return Seen(self.path.name, contents, sign, self._age(sign), is_gone(sign))
        return Seen(self.path.name, contents)

    def _age(self, sign: live.Sign) -> float:
        """Seconds since the sign was given; clocks of machines differ, so ours counts once two were seen."""
        if sign.at != self._at:
            self._is_followed = self._at is not None
            self._at, self._heard = sign.at, time.monotonic()
        since = time.monotonic() - self._heard
        return since if self._is_followed else max(since, time.time() - sign.at)


def is_gone(sign: live.Sign) -> bool:
    """Whether its leader was a process of this machine, which is not there any more."""
    if sign.host != platform.node():
        return False
    try:
        os.kill(sign.process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False
