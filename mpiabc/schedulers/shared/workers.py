"""Who holds which leases: the bookkeeping of engines whose workers are elsewhere."""

import heapq
import itertools
import math
import time
from abc import ABC
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mpiabc.records import Lease
from mpiabc.schedulers.silence import Awaited

W = TypeVar("W")


@dataclass
class _Worker:
    """A worker: its slots, one for each evaluation that it does at once, and its leases, oldest first."""

    slots: int
    leases: list[Lease] = field(default_factory=list)
    takes_leases: bool = True
    since: float = 0.0  # when it was given work, or brought some
    load: float = 0.0  # as the tables have it
    rooms: tuple[int, int] = (0, 0)
    busy: int = 0


class Workers(Generic[W]):
    """Workers by name. All that is asked for each lease takes the same time for any number of workers.

    One that is still busy with an older job is not given leases ahead: these would wait for it. What is
    asked for a job, or a cut, takes time for those that hold leases, or hold unwanted ones. Large, as
    each question has its table, and all tables change together.
    """

    def __init__(self) -> None:
        self._states: dict[W, _Worker] = {}
        self._by_load: dict[float, dict[W, None]] = defaultdict(dict)  # leases held above the slots
        self._room = {False: 0, True: 0}
        self._jobs: set[int] = set()  # that are open
        self._holding: dict[W, None] = {}  # those with leases
        self._ahead: dict[W, None] = {}  # those with leases that wait behind others
        self._busy = 0  # slots that have work
        # By job: heaps of what was given ahead.
        self._highest: dict[int, list[tuple[int, int, W, Lease]]] = {}
        self._order = itertools.count()
        self.slots = 0  # of all workers

    def __contains__(self, worker: W) -> bool:
        return worker in self._states

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[W]:
        return iter(list(self._states))

    def begin(self, job: int, beside: Collection[int] = ()) -> None:
        """Leases of other jobs than this one and those beside it are old from now on."""
        self._jobs = {job, *beside}
        self._highest = {job: heap for job, heap in self._highest.items() if job in self._jobs}
        for worker in self._holding:
            self._look_again_at(worker)

    def join(self, worker: W, slots: int) -> None:
        """A worker has come, or has another number of slots now."""
        if worker in self._states:
            self._leave_tables(worker)
            self._states[worker].slots = slots
        else:
            self._states[worker] = _Worker(slots)
        self._enter_tables(worker)
        self._note_ahead(worker, self.ahead(worker))

    def retire(self, worker: W) -> None:
        """The worker is given no lease any more; those that it holds, it brings home."""
        self._leave_tables(worker)
        self._states[worker].takes_leases = False
        self._enter_tables(worker)

    def leave(self, worker: W) -> list[Lease]:
        """A worker is gone; the leases that it held."""
        self._leave_tables(worker)
        return self._states.pop(worker).leases

    def capacity(self, prefetch: bool) -> int:
        """Leases that could be given now; with `prefetch`, one ahead for each slot."""
        return self._room[prefetch]

    def assign(self, lease: Lease) -> W:
        """The worker with the most room, which holds the lease from now on."""
        worker = next(iter(self._by_load[min(self._by_load)]))
        self._leave_tables(worker)
        if not self._states[worker].leases:
            self._states[worker].since = time.monotonic()
        self._states[worker].leases.append(lease)
        self._enter_tables(worker)
        self._note_ahead(worker, [lease] if worker in self._ahead else [])
        return worker

    def complete(self, worker: W, lease: Lease) -> bool:
        """The worker is done with the lease; whether it was known to hold it."""
        state = self._states.get(worker)
        if state is None or lease not in state.leases:
            return False
        self._leave_tables(worker)
        state.leases.remove(lease)
        state.since = time.monotonic()
        self._enter_tables(worker)
        return True

    def answered(self, worker: W, job: int, start: int) -> Lease | None:
        """The worker is done with the lease that begins there, which it may bring home short."""
        state = self._states.get(worker)
        held = [] if state is None else state.leases
        lease = next((lease for lease in held if (lease.job, lease.start) == (job, start)), None)
        if lease is not None:
            self.complete(worker, lease)
        return lease

    def leases(self, worker: W) -> list[Lease]:
        """What the worker holds, oldest first."""
        return list(self._states[worker].leases)

    def ahead(self, worker: W) -> list[Lease]:
        """What the worker holds and cannot have begun: it waits behind other leases."""
        state = self._states[worker]
        return state.leases[state.slots :]

    def above(self, cut: float, job: int, most: int | None = None) -> list[W]:
        """Workers that hold, ahead, a lease of the job from `cut` on; each lease is named once.

        At most so many leases are looked at: whether there may be more, `has_above` says.
        """
        heap, found = self._highest.get(job, []), dict[W, None]()
        for _ in range(len(heap) if most is None else most):
            if not self.has_above(cut, job):
                break
            _, _, worker, lease = heapq.heappop(heap)
            if worker in self._ahead and lease in self.ahead(worker):
                found[worker] = None
        return list(found)

    def has_above(self, cut: float, job: int) -> bool:
        """Whether `above` would look at any lease."""
        heap = self._highest.get(job, [])
        return bool(heap) and -heap[0][0] >= cut

    def behind(self) -> list[W]:
        """Workers that hold leases which wait behind others."""
        return list(self._ahead)

    def awaited(self, name: Callable[[W], str], why: str = "") -> list[Awaited]:
        """Workers with leases, each by its name with the oldest, and since when nothing has come from it."""
        now = time.monotonic()
        return [
            Awaited(name(worker), str(state.leases[0]), now - state.since, why)
            for worker, state in ((worker, self._states[worker]) for worker in self._holding)
        ]

    def queued(self) -> list[Lease]:
        """What waits, of all workers."""
        return [lease for worker in self._ahead for lease in self.ahead(worker)]

    def busy(self) -> int:
        """Slots that have work."""
        return self._busy

    def _note_ahead(self, worker: W, leases: list[Lease]) -> None:
        for lease in leases:
            entry = -lease.start, next(self._order), worker, lease
            heapq.heappush(self._highest.setdefault(lease.job, []), entry)

    def _enter_tables(self, worker: W) -> None:
        """Count the worker in, by what it holds now."""
        state = self._states[worker]
        held, slots = len(state.leases), state.slots
        state.rooms, state.load = self._rooms_and_load(state)
        state.busy = min(held, slots)
        self._by_load[state.load][worker] = None
        if held:
            self._holding[worker] = None
        if held > slots:
            self._ahead[worker] = None
        self._count(state, 1)

    def _rooms_and_load(self, state: _Worker) -> tuple[tuple[int, int], float]:
        held, takes = len(state.leases), state.slots if state.takes_leases else 0
        is_late = any(lease.job not in self._jobs for lease in state.leases)
        rooms = max(0, takes - held), max(0, (1 if is_late else 2) * takes - held)
        return rooms, held - state.slots if rooms[True] else math.inf  # of who cannot take any

    def _look_again_at(self, worker: W) -> None:
        """Count the worker as it is now, if other jobs are open than before, and nothing else is other."""
        state = self._states[worker]
        rooms, load = self._rooms_and_load(state)
        if rooms != state.rooms:
            self._room[True] += rooms[True] - state.rooms[True]
            self._leave_load(worker, state.load)
            self._by_load[load][worker] = None
            state.rooms, state.load = rooms, load

    def _leave_load(self, worker: W, load: float) -> None:
        alike = self._by_load[load]
        del alike[worker]
        if not alike:
            del self._by_load[load]

    def _leave_tables(self, worker: W) -> None:
        """Count the worker out, as it was counted in."""
        state = self._states[worker]
        self._leave_load(worker, state.load)
        self._holding.pop(worker, None)
        self._ahead.pop(worker, None)
        self._count(state, -1)

    def _count(self, state: _Worker, sign: int) -> None:
        self._room[False] += sign * state.rooms[False]
        self._room[True] += sign * state.rooms[True]
        self.slots += sign * state.slots
        self._busy += sign * state.busy


class Staffed(ABC, Generic[W]):
    """What an engine answers by its table of who holds what, and by nothing else."""

    _workers: Workers[W]

    def capacity(self, prefetch: bool) -> int:
        """Leases that its workers would take now; with `prefetch`, one ahead for each slot."""
        return self._workers.capacity(prefetch)

    def waiting(self) -> list[Lease]:
        """Leases that wait behind others."""
        return self._workers.queued()

    def held(self) -> list[Lease]:
        """All leases that workers have not answered."""
        return [lease for worker in self._workers for lease in self._workers.leases(worker)]

    def busy(self) -> int:
        """Slots that have work."""
        return self._workers.busy()
