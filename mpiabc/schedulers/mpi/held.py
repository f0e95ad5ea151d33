"""Ranks that are held: they serve whatever rank 0 opens, one after another, until it releases them."""

import atexit
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from mpiabc.errors import SchedulerError
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.mpi.ending import GRACE, left
from mpiabc.schedulers.shared.messages import Kind
from mpiabc.schedulers.wire import Wire

if TYPE_CHECKING:
    from mpiabc.schedulers.mpi.leader import Ranks


@dataclass
class Hold:
    """Ranks that serve whatever rank 0 opens, one after another, and wait in between."""

    comm: Comm
    library: ModuleType
    depth: int = 0  # how many hold them
    opened: "Ranks | None" = None
    give_back: Callable[[], None] | None = None  # closes that

    def make_room(self) -> None:
        """Have closed what is open. Raises SchedulerError where its owner is at work with it."""
        if self.opened and self.give_back:
            self.give_back()
        if self.opened:
            raise SchedulerError(
                "the ranks of this communicator serve a pool or a run that is open: leave its `with` first"
            )
        self.give_back = None

    def end(self, status: int = 0) -> None:
        """Release the ranks."""
        if self.opened and self.give_back:
            self.give_back()
        if left or self.opened:
            return
        self.depth = 0
        wire = Wire(self.comm, self.library)
        wire.run = secrets.randbits(64)
        for rank in range(1, self.comm.size):
            wire.send(rank, Kind.RELEASE, bytes([status]))
        wire.flush(GRACE)

    def end_if_held(self) -> None:
        """The same at the end of the process."""
        if self.depth:
            self.end()


_holds: dict[int, Hold] = {}  # by communicators of our own


def hold_of(comm: Comm, library: ModuleType) -> Hold:
    """That of a communicator of ours, which ends with the process at the latest."""
    if comm.py2f() not in _holds:
        _holds[comm.py2f()] = hold = Hold(comm, library)
        atexit.register(hold.end_if_held)
    return _holds[comm.py2f()]


def held_now(comm: Comm) -> Hold | None:
    """The same, if anybody holds its ranks now."""
    hold = _holds.get(comm.py2f())
    return hold if hold and hold.depth else None


def are_any_held() -> bool:
    """Whether this process holds ranks of any communicator."""
    return any(hold.depth for hold in _holds.values())
