"""The jobs that an engine has open: the leading side's part in what workers hold."""

from collections.abc import Collection, Iterator

from mpiabc.records import Lease
from mpiabc.schedulers.base import Job
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.messages import Cancel
from mpiabc.schedulers.shared.transfer import Parcel


class Jobs:
    """Jobs that are open, as parts, each with what is not wanted of it any more."""

    def __init__(self) -> None:
        self._parts: dict[int, transfer.Parts] = {}
        self._cuts: dict[int, float] = {}
        self.newest = -1

    def __contains__(self, number: int) -> bool:
        return number in self._parts

    def __iter__(self) -> Iterator[int]:
        return iter(self._parts)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Open the job, and close all but those beside it."""
        self._parts = {number: parts for number, parts in self._parts.items() if number in beside}
        self._cuts = {number: cut for number, cut in self._cuts.items() if number in beside}
        self.newest = job.number
        self._parts[self.newest] = transfer.parts(job)
        self._cuts[self.newest] = float("inf")

    def is_wanted(self, lease: Lease) -> bool:
        """Whether the lease is of an open job, and below its cut."""
        return lease.start < self._cuts.get(lease.job, -1.0)

    def cancel(self, cut: float, job: int | None = None) -> tuple[Cancel, bool]:
        """What workers are sent of a cut, and whether all of them are: it is higher than the one before."""
        number = self.newest if job is None else job
        before = self._cuts.get(number, float("inf"))
        if number in self._cuts:
            self._cuts[number] = cut
        return Cancel(number, cut), cut > before

    def sent_by(self, sender: transfer.Sender, number: int) -> Parcel:
        """An open job, for who gets all parcels of this sender."""
        return sender.parcel(number, self._parts[number], self._others(number))

    def whole(self, number: int) -> Parcel:
        """The job that a worker lacks, for who has nothing of it; if that is closed, the newest one."""
        number = number if number in self._parts else self.newest
        return transfer.parcel(number, self._parts[number], self._others(number))

    def named(self, number: int) -> Parcel:
        """An open job, for who finds its parts elsewhere."""
        return self.whole(number)._replace(new={})

    def parts(self) -> transfer.Parts:
        """Those of all open jobs."""
        return [part for parts in self._parts.values() for part in parts]

    def _others(self, number: int) -> list[int]:
        return [other for other in self._parts if other != number]
