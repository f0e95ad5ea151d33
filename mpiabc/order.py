"""Orders: what adaptive parts have decided for one level of a run."""

from dataclasses import dataclass, field
from typing import Any

from mpiabc.acceptors import Acceptor, Within
from mpiabc.kernel import Proposal
from mpiabc.records import order_number
from mpiabc.streams import BLOCK


@dataclass(frozen=True, eq=False)
class Order:
    """The order that produces one population: all that evaluations need besides the problem."""

    level: int
    key: tuple[int, int]  # of the streams, from the run's seed
    epsilon: float
    proposal: Proposal
    size: int
    is_static: bool = False
    most_tries: int | None = None  # after which a slot gives up
    attempt: int = 0  # how often the level was taken back
    distance: Any = None  # as fitted; None is the problem's own
    acceptor: Acceptor = field(default_factory=Within)

    @property
    def number(self) -> int:
        """What leases and records know the order by."""
        return order_number(self.level, self.attempt)

    @property
    def stride(self) -> int:
        """Distance between the ids that one slot tries: the size in whole blocks."""
        return -(-self.size // BLOCK) * BLOCK
