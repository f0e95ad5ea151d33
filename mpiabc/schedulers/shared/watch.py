"""What a child evaluates, since when, and for how long."""

import mmap
import struct
import tempfile
import time

from mpiabc.records import Lease
from mpiabc.schedulers.silence import Awaited

_NEVER = -1.0


class Watch:
    """What a child evaluates since when, in memory that it shares with its leader."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
            self.file.write(struct.pack("<qd", -1, 0.0))
            self.file.flush()
        else:
            self.file = open(fd, "r+b", closefd=False)  # noqa: SIM115
        self._memory = mmap.mmap(self.file.fileno(), 16)

    def __call__(self, index: int) -> None:
        """Note an id, -1 for none; the time goes first, so that an id is never seen with an older one."""
        struct.pack_into("<d", self._memory, 8, time.monotonic())
        struct.pack_into("<q", self._memory, 0, index)

    def read(self) -> tuple[int, float]:
        """The id, and since when (of the monotonic clock)."""
        return struct.unpack_from("<qd", self._memory)

    def exit(self) -> None:
        """Note that the evaluation in work has ended its process."""
        struct.pack_into("<d", self._memory, 8, _NEVER)

    def exited(self) -> int | None:
        """The id that has ended its process, if one has."""
        index, since = self.read()
        return index if since == _NEVER else None

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        self.file.close()


class InWork:
    """What a child is at, as its leader sees it, who may have been suspended meanwhile."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.spent = 0.0  # seconds that its simulation has taken, as far as we were there to see
        self._born = time.monotonic()
        self._since: tuple[int, float] = (-1, 0.0)

    def spend(self, seconds: float) -> int | None:
        """Add to what the simulation in work has taken; its id, if there is one."""
        noted = self.watch.read()
        if noted != self._since:
            self._since = noted
            self.spent = max(0.0, min(seconds, time.monotonic() - noted[1]))
        else:
            self.spent += seconds
        return noted[0] if noted[0] >= 0 else None

    def awaited(self, name: str, held: list[Lease]) -> Awaited:
        """The same, as somebody waits for it; one that holds nothing has not come up."""
        (index, since), now = self.watch.read(), time.monotonic()
        if not held:
            return Awaited(name, "its start", now - self._born)
        if index < 0:
            return Awaited(name, str(held[0]))
        return Awaited(name, str(Lease(held[0].job, index, index + 1)), now - since)
