"""The journal: what is finished of a generation that is open."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from mpiabc.records import Lease, Records, generation_of, pack, unpack
from mpiabc.signals import DOUBT
from mpiabc.store.database import Store


class Journal:
    """Keeps what is finished of open generations, in batches: at most so long is lost with the process.

    Nothing is written that has been home for less than `DOUBT`: a signal may be behind it. Where writing is
    slow it is done less often, so that it takes at most a fiftieth of the time.
    """

    def __init__(
        self, store: Store, period: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._period, self._clock = store, period, clock
        self._pending: deque[tuple[float, Records, int]] = deque()  # with their generation; the oldest first
        self._next = clock() + period

    def add(self, records: Records, level: int | None = None) -> None:
        """Take records in, for this generation or their own; they are written when it is time."""
        t = generation_of(records.job) if level is None else level
        self._pending.append((self._clock(), records, t))

    def forget(self, lease: Lease) -> None:
        """Drop what came of the lease, written or not."""
        pending = [entry for entry in self._pending if entry[1].lease != lease]
        is_written = len(pending) == len(self._pending)
        self._pending = deque(pending)
        if is_written:
            self._forget_written(generation_of(lease.job), lease)

    def forget_until(self, lease: Lease, level: int) -> None:
        """The same, in parts too, of what was kept for its generation and those up to this one."""
        self._pending = deque(entry for entry in self._pending if not _is_within(entry[1], lease))
        for t in range(generation_of(lease.job), level + 1):
            self._forget_written(t, lease)

    def _forget_written(self, t: int, lease: Lease) -> None:
        kept = [buffer for buffer in self._store.noted(t) if not _is_within(unpack(buffer), lease)]
        self._store.note_anew(t, kept)

    def tick(self) -> None:
        """Write if it is time: also what came in shortly before a long silence."""
        if self._pending and self._clock() >= self._next:
            self.flush(self._clock() - DOUBT)

    def flush(self, before: float = math.inf, *, first: int = 0) -> None:
        """Write now what came home before that time, of the generations from `first` on."""
        began = self._clock()
        due: dict[int, list[bytes]] = defaultdict(list)
        while self._pending and self._pending[0][0] < before:
            _, records, t = self._pending.popleft()
            if t >= first:
                due[t].append(pack(replace(records, job=generation_of(records.job))))
        for t, buffers in due.items():
            self._store.note(t, buffers)
        now = self._clock()
        self._next = now + max(self._period, 50 * (now - began))

    def void(self, generation: int) -> None:
        """Drop what is not written of this generation and later ones."""
        self._pending = deque(entry for entry in self._pending if entry[2] < generation)

    def recover(self, generation: int) -> Iterator[Records]:
        """What an earlier process has kept of this generation."""
        return map(unpack, self._store.noted(generation))


def _is_within(records: Records, lease: Lease) -> bool:
    return lease.start <= records.start and records.stop <= lease.stop
