"""Several engines as one: a rank's own core beside the other ranks, MPI beside Redis."""

import os
import time
from collections.abc import Collection, Sequence

from mpiabc.records import Lease
from mpiabc.schedulers.base import (
    Away,
    Engine,
    Job,
    Report,
    at_work,
    awaited,
    begin,
    cancel,
    notices_within,
    target,
)
from mpiabc.schedulers.silence import Awaited


class Backoff:
    """Waits that begin short and grow to a millisecond, and on to a hundredth of what has been waited.

    Quick answers at 3 % of a core; who has waited for seconds is at most 20 ms late. One of many who have
    nothing to do gives them more rest, by a larger share: with a tenth it looks every 10 ms after 100 ms.
    One that gives way is woken late where processes outnumber cores, and leaves these to those that work:
    its waits are not shorter than a few times what it was late.
    """

    _SHORTEST, _USUAL, _LONGEST = 2e-5, 1e-3, 2e-2
    _CROWDED = 1e-3  # seconds of being late that more processes than cores make
    _WAY = 4  # times as long as it was late waits one that gives way

    def __init__(self, *, gives_way: bool = False) -> None:
        self._gives_way = gives_way
        self._late = 0.0  # of late, seconds by which it was woken late
        self.reset()

    def reset(self) -> None:
        """Something happened: be quick again."""
        self._next = self._waited = 0.0

    def wait(self, most: float = float("inf"), share: float = 0.01) -> None:
        """Give the core away for a moment, at most for `most` seconds."""
        if self._late > self._CROWDED:
            self._next = max(self._next, min(self._WAY * self._late, self._LONGEST))
        elif self._next < self._SHORTEST:
            os.sched_yield()
            self._next += self._SHORTEST / 10
            return
        self._sleep(min(self._next, most))
        self._waited += self._next
        longest = min(max(self._USUAL, share * self._waited), self._LONGEST)
        self._next = min(2 * self._next, longest)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        time.sleep(seconds)
        if self._gives_way:
            self._late += (max(0.0, time.monotonic() - end) - self._late) / 4


def _room(engine: Engine) -> tuple[int, int]:
    """Leases that it would take, without and with those ahead."""
    return engine.capacity(False), engine.capacity(True)


class Together:
    """Engines that share one ledger: a lease goes to the one with the most room.

    One that evaluates while it is polled comes last: it works when the others have what they need.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = list(engines)
        self.target = max(target(engine) for engine in engines)
        self.notices_within = max(notices_within(engine) for engine in engines)

    @property
    def workers(self) -> int:
        """The workers of all."""
        return sum(engine.workers for engine in self._engines)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start all on a job."""
        for engine in self._engines:
            begin(engine, job, beside)

    def capacity(self, prefetch: bool) -> int:
        """The room of all."""
        return sum(engine.capacity(prefetch) for engine in self._engines)

    def submit(self, lease: Lease) -> None:
        """Give the lease to an engine with a free worker, else to one with room to prefetch."""
        free = max(self._engines, key=lambda engine: engine.capacity(False))
        if not free.capacity(False):
            free = max(self._engines, key=lambda engine: engine.capacity(True))
        free.submit(lease)

    def poll(self, timeout: float) -> list[Report]:
        """What the first one that has anything has; asks them in turn, less and less often.

        Returns with nothing when there is more room, as a worker has come up: it is to be fed before anyone
        else goes on. Raises Away when all are.
        """
        end = time.monotonic() + timeout
        backoff = Backoff()
        while True:
            away = []
            for engine in self._engines:
                before = _room(engine)
                try:
                    reports = engine.poll(0)
                except Away as error:
                    away.append(error)
                    continue
                if reports or any(now > then for now, then in zip(_room(engine), before, strict=True)):
                    return reports
            if len(away) == len(self._engines):
                raise away[0]
            left = end - time.monotonic()
            if left <= 0:
                return []
            backoff.wait(left)

    def waiting(self) -> list[Lease]:
        """The waiting leases of all."""
        return [lease for engine in self._engines for lease in engine.waiting()]

    def waits_for(self) -> list[Awaited]:
        """What all say."""
        return [one for engine in self._engines for one in awaited(engine)]

    def at_work(self) -> list[Awaited]:
        """What all know."""
        return [one for engine in self._engines for one in at_work(engine)]

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Tell all."""
        for engine in self._engines:
            cancel(engine, cut, job)

    def busy(self) -> int:
        """The busy workers of all."""
        return sum(engine.busy() for engine in self._engines)

    def publish(self, state: object) -> None:
        """Tell those that show it."""
        for engine in self._engines:
            getattr(engine, "publish", lambda state: None)(state)

    def note_beside(self, store: str) -> None:
        """Tell those whose processes may die with what they evaluate."""
        for engine in self._engines:
            getattr(engine, "note_beside", lambda store: None)(store)

    def close(self, status: int) -> None:
        """Close all, whatever happens to one."""
        first: BaseException | None = None
        for engine in self._engines:
            try:
                engine.close(status)
            except Exception as error:
                first = first or error
        if first:
            raise first
