"""Jobs on their way to ranks: to all, or, where they are large, to who asks for them, once for a node."""

from collections.abc import Collection

from mpiabc.schedulers import parcels
from mpiabc.schedulers.mpi.nearby import Shelf
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import encoded

_AT_ONCE = 16_000_000  # bytes of an order, to all ranks, up to which nobody has to ask for it


class Sending:
    """Open jobs as messages."""

    def __init__(self, jobs: Jobs, run: int) -> None:
        self._jobs = jobs
        self._parcels = parcels.Sender()  # all ranks get the same
        self._shelf = Shelf(run)  # of this node
        self._whole: dict[int, bytes] = {}  # jobs as they travel to who asks

    def begin(self, number: int, beside: Collection[int], n_ranks: int) -> bytes | None:
        """The newest job for so many ranks, all of which get it; None where each is to ask for it."""
        _, content = encoded(self._jobs.sent_by(self._parcels, number))
        self._put_away(beside)
        if len(content) * n_ranks <= _AT_ONCE:
            return content
        self._parcels = parcels.Sender()  # who has not asked for this one lacks its parts
        self._shelf.put(number, self.whole(number))
        return None

    def whole(self, number: int) -> bytes:
        """An open job whole, else the newest one; encoded once."""
        number = number if number in self._jobs else self._jobs.newest
        if number not in self._whole:
            self._whole[number] = encoded(self._jobs.whole(number))[1]
        return self._whole[number]

    def close(self) -> None:
        """The run is over."""
        self._shelf.close()

    def _put_away(self, beside: Collection[int]) -> None:
        for number in self._whole:
            if number not in beside:
                self._shelf.drop(number)
        self._whole.clear()
