"""Who is there, who holds what, who is silent: what a leader knows of workers that come and go."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mpiabc.records import Lease, Records
from mpiabc.schedulers.base import Lost, Recent, Report
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.shared.workers import Workers
from mpiabc.schedulers.silence import Awaited
from mpiabc.signals import DOUBT

_IN_TRANSIT = 8.0  # periods after which an order that a living worker has not read is lost
_LOADS_WITHIN = 60  # signs of life that may be missing while a worker imports what the problem needs
_SUSPECT_AFTER = 3  # signs of life that are missing


@dataclass
class Peer:
    """A worker."""

    heard: float  # when
    host: str = ""
    where: str = "a worker"
    slots: int = 0  # as it says
    is_suspect: bool = False  # silent for a while: it gets nothing, and others take over what it has
    serial: int = 0  # of the last order to it
    last: int = 0  # serial of its last report
    ack: int = 0  # serial of the last order that it has read
    recent: Recent = field(default_factory=lambda: Recent(wire.DEAD_AFTER * wire.BEAT_PERIOD + DOUBT))
    sent: dict[Lease, tuple[int, float]] = field(default_factory=dict)  # serial and time of each order

    def ordered(self) -> int:
        """The serial of a new order to it."""
        self.serial += 1
        return self.serial

    def is_dead(self, now: float, period: float, *, is_idle: bool) -> bool:
        """Whether it has been silent for too many periods; it greets before it has loaded the problem."""
        is_loading = is_idle and not self.slots
        return now - self.heard > (_LOADS_WITHIN if is_loading else wire.DEAD_AFTER) * period

    def late(self, now: float, period: float) -> list[Lease]:
        """Leases whose orders it should have read long ago."""
        return [
            lease
            for lease, (serial, sent) in self.sent.items()
            if serial > self.ack and now - sent > _IN_TRANSIT * period
        ]

    def skipped(self, leases: list[Lease], held: set[Lease]) -> list[Lease]:
        """Of these leases those whose orders it has read, and which it does not hold."""
        return [
            lease for lease in leases if lease not in held and self.sent.get(lease, (0, 0.0))[0] <= self.ack
        ]


class Silent(NamedTuple):
    """Workers that are taken for dead, as the user knows them, and what is lost, with them or on the way."""

    dead: list[str]
    lost: list[Report]


class Attendance:
    """Workers by the names that they have drawn. Knows no server and no clock: it is given the time.

    All that can be lost on the way is found by what workers say of themselves: the last order that they have
    read, and the leases that they hold.
    """

    def __init__(self, is_wanted: Callable[[Lease], bool]) -> None:
        """is_wanted: whether a lease is."""
        self.holders: Workers[str] = Workers()  # those that are there
        self.peers: dict[str, Peer] = {}  # and all that ever were
        self._is_wanted = is_wanted

    def where(self, worker: str) -> str:
        """The worker, as messages to the user name it."""
        return self.peers[worker].where

    def awaited(self) -> list[Awaited]:
        """Workers with leases, and those that have not loaded the problem."""
        loading = [
            Awaited(self.where(worker), "loading the problem")
            for worker in self.holders
            if not self.peers[worker].slots
        ]
        return [*loading, *self.holders.awaited(self.where)]

    def counts(self) -> dict[str, int]:
        """How many there are, for onlookers."""
        return {
            "workers": len(self.holders),
            "places": self.holders.slots,
            "hosts": len({self.peers[worker].host for worker in self.holders}),
            "leases": sum(len(self.holders.leases(worker)) for worker in self.holders),
        }

    # What comes in.

    def heard(self, worker: str, serial: int, ack: int, now: float) -> list[Report] | None:
        """A report has come; None if that was heard before.

        One before it may have been lost, with word that leases are in doubt: then they are.
        """
        peer = self.peers.setdefault(worker, Peer(now))
        if serial <= peer.last:
            return None
        missed: list[Report] = [peer.recent.doubted(now)] if serial > peer.last + 1 else []
        peer.last, peer.ack, peer.heard = serial, ack, now
        if peer.is_suspect and worker in self.holders:
            peer.is_suspect = False
            self.holders.join(worker, peer.slots)
        return missed

    def greet(self, worker: str) -> None:
        """The worker is there; until it says that it has loaded the problem it gets no lease."""
        if worker not in self.holders:
            self.holders.join(worker, 0)

    def answered(self, worker: str, answer: Records | Lost, now: float) -> None:
        """The worker, which may have been taken for dead, is done with a lease."""
        self._done(worker, answer.lease)
        if isinstance(answer, Records) and answer.is_exposed:
            self.peers[worker].recent.add(answer.lease, now)

    def reconcile(self, worker: str, slots: int, held: set[Lease]) -> list[Report]:
        """Leases that a worker has read of and does not hold were skipped, given back, or lost on the way."""
        peer = self.peers[worker]
        peer.slots = slots
        self.holders.join(worker, slots)
        if not slots and not held:
            return self.bury(worker)
        skipped = peer.skipped(self.holders.leases(worker), held)
        return self._lose(worker, skipped, "the lease was given back")

    def bury(self, worker: str) -> list[Report]:
        """A worker has left, or died: what it held goes out again.

        That says nothing about the evaluations; a child that dies in one is reported by its worker.
        """
        peer = self.peers[worker]
        peer.sent.clear()
        leases = self.holders.leave(worker) if worker in self.holders else []
        return [Lost(lease, peer.where, "the worker left", is_returned=True) for lease in leases]

    # What does not come.

    def silent(self, now: float, period: float) -> Silent:
        """Find workers that have been silent for too many periods, and orders that never arrived."""
        dead: list[str] = []
        lost: list[Report] = []
        for worker in self.holders:
            peer = self.peers[worker]
            if peer.is_dead(now, period, is_idle=not self.holders.leases(worker)):
                dead.append(peer.where)
                lost += [*self.bury(worker), peer.recent.doubted(now)]
                continue
            if now - peer.heard > _SUSPECT_AFTER * period and not peer.is_suspect:
                peer.is_suspect = True
                self.holders.join(worker, 0)
            lost += self._lose(worker, peer.late(now, period), "the order was lost on the way")
        return Silent(dead, lost)

    def hear_all_again(self, now: float) -> None:
        """It was the leader that was away: nobody has been silent."""
        for worker in self.holders:
            self.peers[worker].heard = now

    def _lose(self, worker: str, leases: list[Lease], why: str) -> list[Report]:
        for lease in leases:
            self._done(worker, lease)
        where = self.where(worker)
        return [Lost(lease, where, why, is_returned=True) for lease in leases if self._is_wanted(lease)]

    def _done(self, worker: str, lease: Lease) -> None:
        self.holders.complete(worker, lease)
        self.peers[worker].sent.pop(lease, None)
