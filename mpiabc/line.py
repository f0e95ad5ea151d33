"""One line of ids for a whole run, where workers look ahead: each level's ledger goes on from the one before.

    level of an id p    the number of generations t with C_t <= p, C_t the cut of generation t
    a record counts     if the id has what it had then at the level that it turns out to be of

Ids beyond the cut are worked on with what is known then, and when a generation is committed they come to the
next level with all that is known of them: what has another proposal there is void, and goes out again; what
was decided by what is another one there is looked at again. Work that is out and still counts is waited for,
not handed out twice. Which ids were begun early depends on time; what they come to does not.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from mpiabc.ledger import Ledger
from mpiabc.particles import in_line
from mpiabc.records import Failure, Lease, Records, Status, generation_of

_MANY = 1000  # records that may be remembered although they lie below the frontier


class Settling(Protocol):
    """What work on ids at an earlier level comes to at one level. A function of ids and records alone."""

    def kept(self, ids: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Which ids (m,) have kept the proposal that they had at these levels (m,)."""
        ...

    def settled(self, records: Records, level: int) -> Records:
        """Records of an earlier level as the level has them; what does not count is UNKNOWN."""
        ...

    def own(self, records: Records) -> Records:
        """Records of the level itself, without what nothing will be made of there."""
        ...


class Line(Ledger):
    """The ledger of one level, which goes on beyond its cut and takes over what lies beyond the one before.

    It extends `Ledger`, as each rule of that holds below the cut.
    """

    goes_on = True

    def __init__(self, job: int, size: int, settling: Settling, before: "Line | None", **bounds: Any) -> None:
        """before: of the level before; without one, records of earlier levels come from a journal."""
        super().__init__(job, size, **bounds)
        self._settling, self._level = settling, generation_of(job)
        self.kept_for = self._level
        self._reach = 0  # ids that may be handed out beyond the frontier, although enough are known
        self._early: list[Records] = []  # as they came home
        self._many = _MANY  # of them, from which on it is time to drop some
        self._out = np.zeros(1024, np.int32)  # from `first` on: 1 + the level of the work that is out
        if before is None:
            self._jobs |= set(range(self._level))
        else:
            self._take_over(before)

    def tell(self, records: Records) -> bool:
        """Take records of this or an earlier level in. False if nothing of them was new and counts."""
        if records.job not in self._jobs:
            return False
        raw = _from(records, self.first)
        if raw is None:
            return False
        was_out = self._land(raw)
        now = self._now(raw)
        is_new = super().tell(now)
        if is_new:
            self._remember([raw])
        if raw.failures and not now.failures:  # what lies above the void one was not evaluated
            self.give_back(raw.start, raw.stop)
        elif was_out.any():  # what was waited for may not count, after all
            is_lost = was_out & (raw.status != Status.UNKNOWN) & (self._status(raw.start, raw.stop) == 0)
            for start, stop in _ranges(raw.start + np.flatnonzero(is_lost)):
                super().give_back(start, stop)
        return is_new

    def _remember(self, raw: list[Records]) -> None:
        """Have it for the next level; what lies below the frontier is of this one."""
        self._early += raw
        if len(self._early) > self._many:
            self._early = [records for records in self._early if records.stop > self.frontier]
            self._many = max(_MANY, 2 * len(self._early))

    def failures_of(self, records: Records) -> tuple[Failure, ...]:
        """Those that count."""
        raw = _from(records, self.first) if records.failures else None
        return () if raw is None else self._now(raw).failures

    def counts_now(self, lease: Lease, id: int) -> bool:
        """Whether what a lease of this or an earlier level has come to at an id is of this level."""
        return id >= self.first and bool(self._kept(np.array([id]), np.array([generation_of(lease.job)]))[0])

    @property
    def beside(self) -> tuple[int, ...]:  # type: ignore[override]
        """Numbers of earlier orders of which work is out that still counts."""
        levels = np.unique(self._of_out(self.first, self.issued) - 1).tolist()
        newest = {generation_of(job): job for job in sorted(self._jobs)}
        return tuple(newest[level] for level in levels if level not in (-1, self._level))

    @property
    def wanted(self) -> float:
        """Whatever is out may be wanted at the next level."""
        return np.inf

    def look_ahead(self, reach: int) -> None:
        """Hand out so many ids beyond the frontier, although enough are known."""
        self._reach = reach

    def early(self, first: int) -> Iterator[Records]:
        """What is known beyond a cut, as it came home."""
        for records in self._early:
            part = _from(records, first)
            if part is not None and (part.status != Status.UNKNOWN).any():
                yield part

    def lease(self, n: int, end: float = np.inf) -> Lease | None:
        """About `n` ids to evaluate, the lowest first; beyond the cut only within reach."""
        found = self._again(n, end if self._reach else min(end, self.cut))
        is_near = self.issued < self.frontier + self._reach
        if found is None and end == np.inf and (self.cut == np.inf or is_near):
            found = self._new(n)
        if found is not None:
            self._of_out(found.start, found.stop)[:] = self._level + 1
        return found

    @property
    def expected(self) -> float:
        """Ids that will probably be needed beyond those known or in flight, or are within reach."""
        return max(super().expected, self.frontier + self._reach - self.issued)

    def give_back(self, start: int, stop: int) -> None:
        """Of the range, hand out again what is not known."""
        start = max(start, self.first)
        if start < stop:
            self._of_out(start, stop)[:] = 0
            super().give_back(start, stop)

    def recover(self) -> None:
        """All that was handed out and is not known is to be handed out again."""
        self._out[:] = 0
        super().recover()

    def forget(self, start: int, stop: int) -> None:
        """Know nothing of the range any more: it is to be handed out again."""
        start = max(start, self.first)
        if start < stop:
            self._early = [_without(records, start, stop) for records in self._early]
            super().forget(start, stop)

    def _take_over(self, before: "Line") -> None:
        """Go on with what the line of the level before has beyond its cut."""
        self._jobs |= before._jobs
        if before.issued <= self.first:
            return
        self.issued = before.issued
        ids = np.arange(self.first, self.issued)
        out = before._of_out(self.first, self.issued)
        is_out = out > 0
        is_out[is_out] = self._kept(ids[is_out], out[is_out] - 1)
        self._of_out(self.first, self.issued)[:] = np.where(is_out, out, 0)
        self._take_in(list(before.early(self.first)))
        is_idle = (self._of_out(self.first, self.issued) == 0) & (self._status() == Status.UNKNOWN)
        for start, stop in _ranges(ids[is_idle]):
            super().give_back(start, stop)

    def _take_in(self, raw: list[Records]) -> None:
        """Take records of earlier levels in, those of one level together."""
        self._early += raw
        for job in sorted({records.job for records in raw}):
            for part in _together([records for records in raw if records.job == job]):
                super().tell(self._now(part))

    def _kept(self, ids: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Which ids have now what they had at these levels."""
        is_kept = levels == self._level
        if not is_kept.all():
            is_kept[~is_kept] = self._settling.kept(ids[~is_kept], levels[~is_kept])
        return is_kept

    def _now(self, raw: Records) -> Records:
        """Records as this level has them."""
        level = generation_of(raw.job)
        now = self._settling.own(raw) if level == self._level else self._settling.settled(raw, level)
        return replace(now, job=self.job)

    def _land(self, records: Records) -> np.ndarray:
        """Work has come home; what of it was waited for (stop - start,)."""
        out = self._of_out(records.start, records.stop)
        was_out = out == generation_of(records.job) + 1
        out[was_out] = 0
        return was_out

    def _of_out(self, start: int, stop: int) -> np.ndarray:
        """What is out of the ids [start, stop), to be written into, too."""
        begin, end = start - self.first, stop - self.first
        if end > len(self._out):
            grown = np.zeros(max(end, 2 * len(self._out)), np.int32)
            grown[: len(self._out)] = self._out
            self._out = grown
        return self._out[begin:end]


def _from(records: Records, first: int) -> Records | None:
    """The part of records that begins with this id, if there is one."""
    if records.start >= first:
        return records
    if records.stop <= first:
        return None
    part = records.only(np.arange(records.start, records.stop) >= first)
    failures = tuple(failure for failure in part.failures if failure.index >= first)
    return replace(part, start=first, status=part.status[first - records.start :], failures=failures)


def _together(parts: list[Records]) -> list[Records]:
    """Records of one job as one, if no id is known twice."""
    start, stop = min(part.start for part in parts), max(part.stop for part in parts)
    status = np.zeros(stop - start, np.uint8)
    for part in parts:
        own = status[part.start - start : part.stop - start]
        if (own[part.status != Status.UNKNOWN] != Status.UNKNOWN).any():
            return parts
        own[part.status != Status.UNKNOWN] = part.status[part.status != Status.UNKNOWN]
    first, failures = parts[0], tuple(failure for part in parts for failure in part.failures)
    rows, rejected = in_line([part.rows for part in parts]), in_line([part.rejected for part in parts])
    columns = next((part.columns for part in parts if part.columns), ())
    return [
        Records(first.job, start, stop, status, rows, failures=failures, rejected=rejected, columns=columns)
    ]


def _without(records: Records, start: int, stop: int) -> Records:
    """Records that know nothing of these ids."""
    ids = np.arange(records.start, records.stop)
    is_kept = (ids < start) | (ids >= stop)
    if is_kept.all():
        return records
    failures = tuple(failure for failure in records.failures if not start <= failure.index < stop)
    return replace(records.only(is_kept), failures=failures)


def _ranges(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ids in order as ranges."""
    if ids.size:
        for part in np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1):
            yield int(part[0]), int(part[-1]) + 1
