"""Jobs and cuts on their way to ranks: to those that need them, and where they are large, once for a node."""

from collections.abc import Collection, Iterable

from mpiabc.schedulers.base import Job
from mpiabc.schedulers.mpi.nearby import Shelf
from mpiabc.schedulers.mpi.outgoing import Outgoing
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Cancel, Kind, encoded
from mpiabc.schedulers.shared.workers import Workers

_AT_ONCE = 16_000_000  # bytes of an order, to all ranks, up to which nobody has to ask for it


class Sending:
    """Open jobs, and what is not wanted of them."""

    def __init__(self, run: int, workers: Workers[int], outgoing: Outgoing) -> None:
        self._jobs = Jobs()
        self._workers, self._outgoing = workers, outgoing
        self._sender = transfer.Sender()  # all ranks get the same
        self._shelf = Shelf(run)  # of this node
        self._shelved: set[int] = set()  # jobs that lie there
        self._whole: dict[int, bytes] = {}  # jobs as they travel to who asks
        self._cuts: dict[int, float] = {}  # of which not all know that hold leases above
        self.unanswered: set[int] = set()  # ranks that have failed and wait for an answer

    def begin(self, job: Job, beside: Collection[int], ranks: Collection[int], *, may_ask: bool) -> None:
        """Send a job to all these ranks; if it is large and they may ask for it, to those that do."""
        self._jobs.begin(job, beside)
        self._workers.begin(job.number, beside)
        _, content = encoded(self._jobs.sent_by(self._sender, job.number))
        self._put_away(beside)
        if not may_ask or len(content) * len(ranks) <= _AT_ONCE:
            self._outgoing.spread(ranks, Kind.JOB, content)  # with it, all else goes back
        else:
            self._sender = transfer.Sender()  # who has not asked for this one lacks its parts
            self._shelf.put(job.number, self._as_asked_for(job.number))
            self._shelved.add(job.number)
            self._close_others()
        self._cuts = {number: cut for number, cut in self._cuts.items() if number in self._jobs}

    def reply(self, rank: int, number: int) -> None:
        """Send a rank the open job that it lacks, else the newest one."""
        number = number if number in self._jobs else self._jobs.newest
        self._outgoing.send(rank, Kind.JOB, self._as_asked_for(number))

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Have skipped what lies above a cut: by those that hold it, or by all, where the cut has risen."""
        order, is_for_all = self._jobs.cancel(cut, job)
        if is_for_all:
            self._cuts.pop(order.job, None)
            self._spread(order, self._workers)
        else:
            self._spread(order, sorted(self.unanswered))
            self._cuts[order.job] = cut
        self.unanswered.clear()
        self._go_on()

    def turn(self) -> None:
        """A new turn begins: go on with what waits."""
        self._outgoing.turn()
        self._go_on()

    def close(self) -> None:
        """The run is over."""
        self._cuts.clear()
        self._shelf.close()

    def _close_others(self) -> None:
        """Have skipped what waits of jobs that are closed, of whose cuts not all know."""
        for number, cut in self._cuts.items():
            if number not in self._jobs:
                self._spread(Cancel(number, cut), self._workers.behind())

    def _spread(self, order: Cancel, ranks: Iterable[int]) -> None:
        if there := [rank for rank in ranks if rank in self._workers]:
            self._outgoing.spread(there, *encoded(order))

    def _go_on(self) -> None:
        """Tell more of those that hold leases above a cut."""
        for number, cut in list(self._cuts.items()):
            for rank in self._workers.above(cut, number, self._outgoing.left):
                self._outgoing.tell(rank, Cancel(number, cut))
            if not self._workers.has_above(cut, number):
                del self._cuts[number]

    def _as_asked_for(self, number: int) -> bytes:
        """A job whole; encoded once."""
        if number not in self._whole:
            self._whole[number] = encoded(self._jobs.whole(number))[1]
        return self._whole[number]

    def _put_away(self, beside: Collection[int]) -> None:
        for number in self._shelved.difference(beside):
            self._shelf.drop(number)
        self._shelved &= set(beside)
        self._whole.clear()  # as it says what is open beside it
