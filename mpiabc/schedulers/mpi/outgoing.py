"""What rank 0 sends: to one rank at once, to many a little in each turn, so that it never writes for long."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mpiabc.records import Lease
from mpiabc.schedulers.shared.messages import Order, encoded
from mpiabc.schedulers.wire import Wire

#: Messages of a kind that rank 0 handles in a turn, from one look at the ranks to the next: leases it gives,
#: answers it reads, others it sends. Each takes it a few tenths of a millisecond at most.
TURN = 100


@dataclass
class _News:
    """What many ranks are to get, and those that have not got it."""

    kind: int
    framed: bytes
    ranks: dict[int, None]


class Outgoing:
    """Messages to ranks. Each rank gets its own in the order in which they were given here."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._news: deque[_News] = deque()  # oldest first
        self.left = TURN  # messages of this turn
        self.room = TURN  # leases of this turn

    def turn(self) -> None:
        """A new turn begins: go on with what waits."""
        self.left = self.room = TURN
        self._go_on()

    def send(self, rank: int, kind: int, content: bytes = b"") -> None:
        """Send it now, behind all that the rank has not got yet."""
        for news in [news for news in self._news if rank in news.ranks]:
            self._pass_on(news, rank)
        self._wire.send(rank, kind, content)
        self.left -= 1

    def tell(self, rank: int, order: Order) -> None:
        """Send what workers of all kinds obey."""
        self.send(rank, *encoded(order))

    def give(self, rank: int, lease: Lease) -> None:
        """Send a lease."""
        self.tell(rank, lease)
        self.left += 1
        self.room -= 1

    def spread(self, ranks: Iterable[int], kind: int, content: bytes) -> None:
        """Send it to all these, to some of them in later turns."""
        self._news.append(_News(kind, self._wire.framed(content), dict.fromkeys(ranks)))
        self._go_on()

    def hurry(self, ranks: Iterable[int], kind: int, content: bytes) -> None:
        """Send it to all these now, as a run begins or ends: nothing that they have not got is wanted."""
        self._news.clear()
        framed = self._wire.framed(content)
        for rank in ranks:
            self._wire.post(rank, kind, framed)

    def _go_on(self) -> None:
        while self._news and self.left > 0:
            news = self._news[0]
            if news.ranks:
                self._pass_on(news, next(iter(news.ranks)))
            if not news.ranks:
                self._news.popleft()

    def _pass_on(self, news: _News, rank: int) -> None:
        del news.ranks[rank]
        self._wire.post(rank, news.kind, news.framed)
        self.left -= 1
