"""Which evaluations are needed: pure bookkeeping, without statistics, clocks, or sockets.

`Ledger` keeps the ids of one generation under dynamic scheduling. Its population is the first `size`
acceptances *in id order*; taking the first to finish would prefer fast simulations. `SlotLedger` is
its twin for static scheduling, where each of `size` slots tries until it has one acceptance.
"""

import heapq
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mpiabc.particles import Particles, joined, none
from mpiabc.records import Failure, Lease, Records, Status, generation_of
from mpiabc.simulations import Simulations, of_rows
from mpiabc.streams import stride_of

_MANY = 64  # rows from which on they are sorted into a heap together


class _Addresses:
    """What all ledgers do: hand addresses out, take them back, note what became known."""

    counted = "accepted"  # what `accepted` counts, in words
    goes_on = False  # what is known, and out, beyond its cut is the next level's
    kept_for: int | None = None  # the level that its records are kept for, if that is not their own
    beside: tuple[int, ...] = ()  # numbers of other orders of which work is out that counts here

    def __init__(
        self,
        job: int,
        size: int,
        *,
        first: int = 0,
        step: int = 1,
        most_ids: float = math.inf,
        most_simulations: float = math.inf,
        sample: int = 0,
        sample_end: float = math.inf,
    ) -> None:
        """first: the lowest address. most_ids: how many addresses there may be. sample: see `sample`."""
        self.job = job
        self._jobs = {job}  # all numbers that it has had
        self.size = size
        self.first = first
        self.step = step  # leases start and end at multiples of it (or at the end of a static generation)
        self.most_ids = most_ids
        self.most_simulations = most_simulations
        self._sample, self._sample_end = sample, sample_end
        self.issued = first  # addresses below it have been handed out, or were known before
        self.dispatched = 0  # evaluations handed out, duplicates included
        self.known = 0
        self.frontier = first
        self._failures: dict[int, Failure] = {}
        self._statuses = np.zeros(1024, np.uint8)  # from `first` on
        self._returned: list[tuple[int, int]] = []  # heap of ranges to hand out again
        self._records: list[Records] = []
        self.columns: tuple[str, ...] = ()  # names of several distances

    @property
    def cut(self) -> float:
        """One past the last address that can matter."""
        raise NotImplementedError

    @property
    def end(self) -> float:
        """One past the last id that counts."""
        return math.inf

    @property
    def wanted(self) -> float:
        """From here on no address is wanted."""
        return self.cut

    def look_ahead(self, reach: int) -> None:
        """Hand out so many ids beyond the frontier, although enough are known, if ids go on from here."""

    def tell(self, records: Records) -> bool:
        """Take records in; what is known already is ignored. False if nothing was new."""
        if records.job != self.job:
            return False
        start, stop = records.start, records.stop
        part = self._status(start, stop)
        new = (part == Status.UNKNOWN) & (records.status != Status.UNKNOWN)
        self._failures |= {f.index: f for f in records.failures}
        self.columns = self.columns or records.columns
        if not new.any():
            return False
        if not new.all():
            records = records.only(new)
        np.copyto(part, records.status, where=new)
        self.known += int(np.count_nonzero(new))
        self.issued = max(self.issued, stop)
        if len(records.rows) or len(records.rejected) or records.tries is not None:
            self._records.append(records)
        self._note(records)
        self._advance()
        return True

    def _note(self, records: Records) -> None:
        """What a ledger keeps of new records besides their statuses."""

    def _recount(self) -> None:
        """The same anew, when a range is not known any more."""

    def give_back(self, start: int, stop: int) -> None:
        """Of the range, hand out again what is not known."""
        for gap in self._gaps(start, stop):
            heapq.heappush(self._returned, gap)

    def forget(self, start: int, stop: int) -> None:
        """Know nothing of the range any more: it is to be handed out again."""
        self._failures = {
            id: failure
            for id, failure in self._failures.items()
            if not start <= self.address_of(failure) < stop
        }
        stop = min(stop, self.issued)  # what was never handed out needs no second time
        if start >= stop:
            return
        had_cut = self.cut < math.inf
        self._status(start, stop)[:] = Status.UNKNOWN
        self.known = int(np.count_nonzero(self._status()))
        self.frontier = min(self.frontier, start)
        self._records = [
            records.only(self._status(records.start, records.stop) != Status.UNKNOWN)
            if records.start < stop and start < records.stop
            else records
            for records in self._records
        ]
        self._recount()
        if had_cut:  # what lies above it was handed out, and given up
            self.recover()
        else:
            self.give_back(start, stop)

    def failures_of(self, records: Records) -> tuple[Failure, ...]:
        """Those of records that are to be looked at."""
        return records.failures

    def counts_now(self, lease: Lease, id: int) -> bool:
        """Whether what a lease has come to at this address is of this ledger."""
        return True

    def has(self, lease: Lease) -> bool:
        """Whether what came of the lease is here, under whatever number."""
        return lease.job in self._jobs

    def reopen(self, job: int) -> None:
        """Go on under another number, with what is known."""
        self.job = job
        self._jobs.add(job)
        self.recover()

    def recover(self) -> None:
        """After a restart: all that was handed out and is not known is to be handed out again."""
        self._returned.clear()
        self.give_back(self.first, self.issued)

    def address_of(self, failure: Failure) -> int:
        """Where a failed evaluation belongs: its id, or its slot."""
        return failure.index

    @property
    def failures(self) -> list[Failure]:
        """Failed evaluations known anywhere."""
        return list(self._failures.values())

    @property
    def failed(self) -> int:
        """How many these are."""
        return len(self._failures)

    def failed_ids(self) -> int:
        """How many ids have failed, where one failure may be that of many."""
        return int(np.count_nonzero(self._status() == Status.FAILED)) if self._failures else 0

    @property
    def in_flight(self) -> int:
        """Addresses handed out and neither known nor given back."""
        return self.issued - self.first - self.known - sum(stop - start for start, stop in self._returned)

    def _status(self, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """What is known of [start, stop), by default of all that was handed out; to be written into, too."""
        begin = 0 if start is None else start - self.first
        end = (self.issued if stop is None else stop) - self.first
        if end > len(self._statuses):
            grown = np.zeros(max(end, 2 * len(self._statuses)), np.uint8)
            grown[: len(self._statuses)] = self._statuses
            self._statuses = grown
        return self._statuses[begin:end]

    def _gaps(self, start: int, stop: int, end: float = math.inf) -> Iterator[tuple[int, int]]:
        """The unknown parts of [start, stop) that begin below `end`, as ranges in whole steps."""
        unknown = np.flatnonzero(self._status(start, stop) == Status.UNKNOWN) + start
        if unknown.size:
            breaks = np.flatnonzero(np.diff(unknown) > 1) + 1
            for run in np.split(unknown, breaks):
                if run[0] >= end:  # which may lie in a batch that is known up to there
                    return
                first = int(run[0]) // self.step * self.step
                yield first, min(-(-(int(run[-1]) + 1) // self.step) * self.step, stop)

    def _advance(self) -> None:
        """Move the frontier over all that is known."""
        ahead = self._status(self.frontier)
        unknown = int(np.argmin(ahead)) if ahead.size else 0
        is_all_known = ahead.size and ahead[unknown] != Status.UNKNOWN
        self.frontier += len(ahead) if is_all_known else unknown

    def _again(self, n: int, end: float) -> Lease | None:
        """A lease of returned addresses below `end`, if there are any."""
        while self._returned:
            start, stop = heapq.heappop(self._returned)
            gaps = list(self._gaps(start, stop, end))
            if gaps:
                start, stop = gaps[0]
                cut = min(stop, start + self._whole(n))
                for gap in [(cut, stop), *gaps[1:]]:
                    if gap[0] < gap[1]:
                        heapq.heappush(self._returned, gap)
                self.dispatched += cut - start
                return Lease(self.job, start, cut)
        return None

    def _whole(self, n: int) -> int:
        return max(self.step, n // self.step * self.step)

    def population(self) -> Particles:
        """The first `size` accepted rows, in the order of their addresses; there is at least one."""
        parts = [records for records in self._records if len(records.rows)]
        order = np.argsort(np.concatenate([records.addresses for records in parts]))[: self.size]
        return joined([records.rows for records in parts]).take(order)

    def sample(self) -> Particles:
        """The first simulated rows of a complete generation, accepted or not: at most as many as wanted.

        Which these are depends on ids alone: they lie below the cut, and below `sample_end`.
        """
        parts = [part for records in self._records for part in (records.rows, records.rejected) if len(part)]
        ids = np.concatenate([part.ids for part in parts])
        order = self._in_turn(ids)
        order = order[(ids[order] < self.cut) & (ids[order] < self._sample_end)][: self._sample]
        return joined(parts).take(order)

    def simulated(self) -> Simulations:
        """All simulated rows that count, accepted or not, in id order, if the rejected ones come home."""
        parts = [(part.rows, True) for part in self._records if len(part.rows)]
        parts += [(part.rejected, False) for part in self._records if len(part.rejected)]
        found = of_rows(parts, generation_of(self.job))
        order = np.argsort(found.ids)
        return found.take(order[found.ids[order] < self.end])

    def _in_turn(self, ids: np.ndarray) -> np.ndarray:
        """An index that brings ids into the order in which they are taken."""
        return np.argsort(ids)


class Ledger(_Addresses):
    """Ids of a generation that ends with the first `size` acceptances in id order.

    `most_ids` and `most_simulations` bound how far it goes: beyond them it is `exhausted`.
    """

    def __init__(self, job: int, size: int, **bounds: Any) -> None:
        """As `_Addresses`: first, step, most_ids, most_simulations."""
        super().__init__(job, size, **bounds)
        self._lowest: list[int] = []  # heap of the negated `size` smallest accepted ids
        self._outside = 0

    @property
    def accepted(self) -> int:
        """Acceptances known anywhere, at most `size`."""
        return len(self._lowest)

    @property
    def cut(self) -> float:
        """One past the last id that can matter: it falls, and is final once the frontier reaches it."""
        if not self.size:
            return self.first
        return 1 - self._lowest[0] if len(self._lowest) == self.size else math.inf

    @property
    def complete(self) -> bool:
        """Whether the population is known: `size` acceptances below the frontier, within the bounds."""
        return self.frontier >= self.cut and self.exhausted is None

    @property
    def exhausted(self) -> str | None:
        """The bound that keeps an open generation from being completed, if one does."""
        if self.frontier < min(self.issued, self.cut):
            return None
        if self.frontier >= self.cut:  # only whole blocks can have gone too far
            used, end, spare = self.simulations_below(self.cut), self.cut, 1
        else:
            used, end, spare = self.simulations_below(self.frontier), self.frontier, 0
        if used >= self.most_simulations + spare:
            return "simulations"
        return "acceptance_rate" if end - self.first >= self.most_ids + spare else None

    @property
    def simulations(self) -> int:
        """Simulations known anywhere."""
        return self.known - self._outside

    @property
    def expected(self) -> float:
        """Ids that will probably be needed beyond those known or in flight."""
        rate = (self.accepted + 1) / (self.known + 2)
        return max(0.0, (self.size - self.accepted) / rate - self.in_flight)

    def simulations_below(self, id: float) -> int:
        """Known evaluations below `id` that were simulated."""
        status = self._status(None, int(min(id, self.issued)))
        return int(np.count_nonzero((status != Status.OUTSIDE) & (status != Status.UNKNOWN)))

    @property
    def end(self) -> float:
        """One past the last id that counts: the cut, or the end of the bound that was met before it."""
        if self.exhausted is None:
            return self.cut
        status = self._status(None, int(min(self.frontier, self.first + self.most_ids)))
        simulated = np.flatnonzero(status != Status.OUTSIDE)
        if len(simulated) < self.most_simulations:
            return self.first + len(status)
        last = int(self.most_simulations)
        return self.first + (int(simulated[last - 1]) + 1 if last > 0 else 0)

    def partial(self) -> Particles | None:
        """The accepted rows below the end of a bound that was met before the population was known."""
        parts = [records.rows for records in self._records if len(records.rows)]
        if not parts:
            return None
        rows = joined(parts)
        order = np.argsort(rows.ids)
        return rows.take(order[rows.ids[order] < self.end])

    def _recount(self) -> None:
        self._outside = int(np.count_nonzero(self._status() == Status.OUTSIDE))
        self._lowest = []
        self._take_first(self._status(), self.first)

    def _note(self, records: Records) -> None:
        self._outside += int(np.count_nonzero(records.status == Status.OUTSIDE))
        self._take_first(records.status, records.start)

    def _take_first(self, status: np.ndarray, start: int) -> None:
        """Note what is accepted of the ids from `start` on, whether rows have come of them or a payload."""
        found = np.flatnonzero(status == Status.ACCEPTED) + start
        if len(found) > _MANY:  # negated and in order, they are a heap
            ids = np.append(found, -np.array(self._lowest, np.int64))
            self._lowest = np.sort(-ids)[max(0, len(ids) - self.size) :].tolist()
            return
        for id in found.tolist():
            if len(self._lowest) < self.size:
                heapq.heappush(self._lowest, -id)
            elif self.size and -id > self._lowest[0]:
                heapq.heapreplace(self._lowest, -id)

    def lease(self, n: int, end: float = math.inf) -> Lease | None:
        """About `n` ids to evaluate, the lowest first; None if no more are wanted now.

        `end`, if it is given, lies below an id that was handed out: what is not below it can wait.
        """
        end = min(end, self.cut)
        again = self._again(n, end)
        if again is not None:
            return again
        return self._new(n) if end == math.inf else None  # new ids would lie above it

    def _new(self, n: int) -> Lease | None:
        """About `n` ids that were never handed out, if there may be more."""
        start = self.issued
        handed_out = start - self.first
        room = min(self.most_ids - handed_out, self.most_simulations - (handed_out - self._outside))
        if room <= 0:
            return None
        stop = start + self._whole(int(min(n, room)))
        self.issued = stop
        self.dispatched += stop - start
        return Lease(self.job, start, stop)

    def counts(self) -> tuple[int, int]:
        """Evaluations and simulations below the cut."""
        return int(self.cut) - self.first, self.simulations_below(self.cut)

    def failures_below_cut(self) -> list[Failure]:
        """Failed evaluations that are part of the result so far, in id order."""
        end = min(self.cut, self.frontier)
        return [self._failures[id] for id in sorted(self._failures) if id < end]


class BatchLedger(Ledger):
    """Ids of a batch, all of which are needed, whatever becomes of them: there are `size`."""

    counted = "done"

    @property
    def accepted(self) -> int:
        """Ids that are known, of those needed."""
        return min(self.known, self.size)

    @property
    def cut(self) -> float:
        """One past the last id."""
        return self.first + self.size

    @property
    def exhausted(self) -> None:
        """No bound keeps it from being completed."""

    @property
    def expected(self) -> float:
        """Ids not handed out yet."""
        return max(0, self.first + self.size - self.issued)

    def lease(self, n: int, end: float = math.inf) -> Lease | None:
        """About `n` ids below `end`; None if all are handed out."""
        end = min(end, self.cut)
        again = self._again(n, end)
        if again is not None or self.issued >= end:
            return again
        start = self.issued
        self.issued = start + min(self._whole(n), self._whole(int(self.cut) - start + self.step - 1))
        self.dispatched += self.issued - start
        return Lease(self.job, start, self.issued)

    def _take_first(self, status: np.ndarray, start: int) -> None:
        """None are the first: all count."""

    def population(self) -> Particles:
        """All simulated rows, in id order."""
        parts = [records.rows for records in self._records if len(records.rows)]
        if not parts:
            return none()
        ids = np.concatenate([part.ids for part in parts])
        order = np.argsort(ids)
        return joined(parts).take(order[ids[order] < self.cut])


class SlotLedger(_Addresses):
    """Slots of a generation, each of which tries its own ids until one is accepted."""

    def __init__(self, job: int, size: int, **bounds: Any) -> None:
        """As `_Addresses`: first, step, most_ids, most_simulations."""
        super().__init__(job, size, **bounds)
        self._tries = np.zeros(2, np.int64)  # ids and simulations of all known slots

    def address_of(self, failure: Failure) -> int:
        """The slot that tried the id."""
        return failure.index % stride_of(self.size, self.step)

    def _in_turn(self, ids: np.ndarray) -> np.ndarray:
        """By slot, then by try: a slot's last try is chosen by its acceptance, not by its number."""
        stride = stride_of(self.size, self.step)
        return np.lexsort((ids // stride, ids % stride))

    @property
    def cut(self) -> float:
        """All slots are needed."""
        return math.inf

    @property
    def accepted(self) -> int:
        """Slots that have their acceptance."""
        return int(np.count_nonzero(self._status() == Status.ACCEPTED))

    @property
    def complete(self) -> bool:
        """Whether all slots have an acceptance, within the bound on simulations."""
        return self.frontier == self.size and self.exhausted is None

    @property
    def exhausted(self) -> str | None:
        """The bound that keeps an open generation from being completed, if one does."""
        evaluations, simulations = self.counts()
        if simulations > self.most_simulations:
            return "simulations"
        if evaluations > self.most_ids:
            return "acceptance_rate"
        has_given_up = np.any(self._status(None, self.frontier) == Status.REJECTED)
        fewer = "simulations" if self.most_simulations <= self.most_ids else "acceptance_rate"
        return fewer if has_given_up else None

    @property
    def simulations(self) -> int:
        """Simulations known anywhere."""
        return int(self._tries[1])

    @property
    def expected(self) -> float:
        """Slots not handed out yet."""
        return self.size - self.issued

    def lease(self, n: int, end: float = math.inf) -> Lease | None:
        """About `n` slots below `end`; None if all are handed out."""
        again = self._again(n, min(end, self.size))
        if again is not None or self.issued >= self.size:
            return again
        start = self.issued
        self.issued = min(self.size, start + self._whole(n))
        self.dispatched += self.issued - start
        return Lease(self.job, start, self.issued)

    def counts(self) -> tuple[int, int]:
        """Evaluations and simulations of all slots."""
        return int(self._tries[0]), int(self._tries[1])

    def _note(self, records: Records) -> None:
        if records.tries is not None:
            self._tries += records.tries.sum(axis=0)

    def _recount(self) -> None:
        self._tries = np.zeros(2, np.int64)
        for records in self._records:
            self._note(records)

    def failures_below_cut(self) -> list[Failure]:
        """Failed evaluations, in id order."""
        return [self._failures[id] for id in sorted(self._failures)]


def fatal(ledger: Ledger | SlotLedger, on_error: str | int, before: int) -> Failure | None:
    """The failure that ends the run, if one is part of the result; `before`: failures of earlier levels."""
    failures = ledger.failures_below_cut()
    for failure in failures:
        if on_error == "raise" or failure.ends_every_run:
            return failure
    if isinstance(on_error, int) and failures and before + len(failures) >= on_error:
        return failures[max(0, on_error - before - 1)]
    return None
