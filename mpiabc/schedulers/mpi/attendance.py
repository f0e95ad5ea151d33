"""Who is there: ranks that live, that have greeted, that have left, of which team, and what they hold."""

from typing import NamedTuple

from mpiabc.records import Lease
from mpiabc.schedulers.shared.workers import Workers
from mpiabc.schedulers.teams import Plan


class Died(NamedTuple):
    """A rank that is there no more, and the leases that nobody will bring home."""

    where: str
    leases: list[Lease]


class Attendance:
    """The other ranks of a run. Knows no communicator and no messages.

    Those that lead a team, be it of one, hold leases once they have greeted (`holders`).
    """

    def __init__(self, plan: Plan, size: int) -> None:
        """size: of the communicator; rank 0 is none of them."""
        self.holders: Workers[int] = Workers()
        self.living = set(range(1, size))
        self.names: dict[int, str] = {}  # of those that have greeted
        self.plan = plan
        self._size = size
        self._teams = plan.numbers()  # of the ranks that simulate
        self._lost: set[int] = set()  # teams that have lost a rank
        self._ended: set[int] = set()
        self.has_larger_teams = plan.has_larger
        self._leading = {ranks[0] for ranks in plan.teams} & self.living

    @property
    def workers(self) -> int:
        """Ranks that have leases, or will have when they greet."""
        return len(self._leading)

    @property
    def are_teams_lost(self) -> bool:
        """Whether ranks simulate together, and no team is complete any more."""
        return self.has_larger_teams and len(self._lost) == len(self.plan.teams)

    @property
    def have_left(self) -> bool:
        """Whether all that live have said that they leave."""
        return self._ended >= self.living

    def greet(self, rank: int, where: str) -> None:
        """The rank is up, and may have leases."""
        self.names[rank] = where
        number = self._teams.get(rank)
        if number is not None and number not in self._lost and self.plan.teams[number][0] == rank:
            self.holders.join(rank, 1)

    def missing(self) -> list[str]:
        """Those that have not greeted."""
        ranks = [rank for rank in sorted(self.living) if rank not in self.names]
        return [f"rank {rank} of {self._size}" for rank in ranks]

    def await_end(self) -> None:
        """From now on they are to say that they leave."""
        self._ended.clear()

    def leave(self, rank: int) -> None:
        """The rank says so."""
        self._ended.add(rank)

    def bury(self, rank: int) -> Died:
        """The rank is dead; its team has lost its leases, once."""
        self.living.discard(rank)
        return Died(self.names.pop(rank, f"rank {rank}"), self._disbanded(rank))

    def _disbanded(self, rank: int) -> list[Lease]:
        """The leases of the team of a rank that has died."""
        number = self._teams.get(rank)
        if number is None or number in self._lost:
            return []
        self._lost.add(number)
        first = self.plan.teams[number][0]
        self._leading.discard(first)
        return self.holders.leave(first) if first in self.holders else []
