"""The master's side of the Redis bridge; the worker's, which mirrors it, is in `worker`."""

import json
import logging
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle

from mpiabc.errors import Interrupted, SchedulerError
from mpiabc.generation import Generation
from mpiabc.records import Lease, Records, unpack
from mpiabc.schedulers.base import Lost
from mpiabc.schedulers.crew import Crew
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.wire import Inbox, Renewal, Server, key
from mpiabc.version import version_difference, versions

_log = logging.getLogger(__name__)

_ALONE = 5.0  # seconds without any worker after which the user is told how to start one
_RENEW = 2.0  # seconds between two renewals of what is on the server
_RECONNECT = 0.5  # seconds between two tries to reach the server again
_IN_TRANSIT = 8.0  # seconds after which an order that a living worker has not read is lost
_MANY = 500  # workers, from which on they give signs of life less often


class RedisEngine:
    """Workers that come and go, each known by the name it has drawn.

    All that can be lost on the way is found by what workers say of themselves: the last order that
    they have read, and the leases that they hold.
    """

    def __init__(self, server: Server, problem: Any, *, name: str, is_static: bool, patience: float) -> None:
        self._server, self._seal = server, server.seal
        self._patience = patience
        self._name, self._is_static = name, is_static
        self._run = wire.new_name()
        try:
            self._problem = cloudpickle.dumps(problem)
        except Exception as error:
            raise SchedulerError(
                f"the problem cannot be sent to workers: {type(error).__name__}: {error}; make what the "
                "simulator uses picklable"
            ) from error
        self._client = server.checked()
        self._reports = key(self._run, "reports")
        self._inbox = Inbox(self._client, self._reports)
        self._crew: Crew[str] = Crew()
        self._peers: dict[str, _Peer] = {}
        self._generation = -1
        self._generation_blob = b""
        self._cut = float("inf")
        self._orders: dict[str, list[bytes]] = defaultdict(list)
        self._renewal, self._liveness = Renewal(_RENEW), Renewal(wire.BEAT_PERIOD)
        self._offline_since: float | None = None
        self._next_try = 0.0
        self._began, self._is_alone_told = time.monotonic(), False
        self._polled = time.monotonic()
        self._state = ""
        self.refused = 0  # messages that were forged, altered or played again
        with server.errors_told():
            self._publish()

    @property
    def workers(self) -> int:
        """Places of all workers; at least one, as some will come."""
        return max(1, self._crew.places)

    def begin(self, generation: Generation) -> None:
        """Send the generation once; each worker is told to fetch it."""
        self._generation, self._cut = generation.index, float("inf")
        self._generation_blob = cloudpickle.dumps(generation)
        self._crew.begin(generation.index)
        with self._breaks_noted():
            self._publish()
        order = self._generation_order()
        for worker in self._crew:
            self._order(worker, wire.GENERATION, order)

    def capacity(self, prefetch: bool) -> int:
        """Free places; none while the server is away."""
        return 0 if self._offline_since else self._crew.room(prefetch)

    def submit(self, lease: Lease) -> None:
        """Give the lease to the worker with the most room; it is sent by the next poll."""
        worker = self._crew.give(lease)
        serial = self._order(worker, wire.LEASE, wire.LEASE_BODY.pack(*lease))
        self._peers[worker].sent[lease] = serial, time.monotonic()

    def poll(self, timeout: float) -> list[Records | Lost]:
        """What workers have reported, and what is lost."""
        if self._offline_since:
            return self._wait_for_server(timeout)
        reports: list[Records | Lost] = []
        with self._breaks_noted():
            if self._renewal.is_due():
                self._renew()
            self._flush()
            for message in self._inbox.take(timeout):
                reports += self._hear(message)
            self._flush()
        if self._offline_since is None and self._liveness.is_due():
            reports += self._missing()
        self._polled = time.monotonic()
        return reports

    def waiting(self) -> list[Lease]:
        """Leases behind others, and those of workers that have gone silent."""
        silent = 3 * self._liveness.period
        now = time.monotonic()
        suspect = [worker for worker in self._crew if now - self._peers[worker].heard > silent]
        held = [lease for worker in suspect for lease in self._crew.leases(worker)]
        return held + [lease for lease in self._crew.waiting() if lease not in held]

    def cancel(self, cut: float) -> None:
        """Workers skip leases above the cut that they have not begun."""
        self._cut = cut
        order = wire.CUT_BODY.pack(self._generation, cut)
        for worker in self._crew:
            if self._crew.ahead(worker):
                self._order(worker, wire.CANCEL, order)

    def busy(self) -> int:
        """Places that have work."""
        return self._crew.busy()

    def publish(self, state: str) -> None:
        """How far the run is, for `mpiabc broker info`."""
        self._state = state

    def close(self, status: int) -> None:
        """Let the workers go and leave nothing on the server but their last orders, which expire."""
        for worker in self._crew:
            self._order(worker, wire.STOP, bytes([status]))
        try:
            self._flush()
            parts = ("announcement", "problem", "generation", "reports")
            self._client.delete(*(key(self._run, part) for part in parts))
            self._client.srem(wire.RUNS, self._run)
        except wire.connection_errors():
            _log.debug("the Redis server went away before the end; what is left there expires")
        finally:
            self._inbox.close()
            self._client.close()
        if self.refused:
            _log.warning(
                "%d messages on the Redis server were not signed by a worker, and refused", self.refused
            )

    # Sending.

    def _order(self, worker: str, kind: int, body: bytes = b"") -> int:
        peer = self._peers[worker]
        peer.serial += 1
        content = wire.ORDER.pack(kind, peer.serial) + body
        self._orders[worker].append(self._seal.sign(key(self._run, "to", worker), content))
        return peer.serial

    def _flush(self) -> None:
        """Send all orders in one round trip."""
        if not self._orders:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for worker, orders in self._orders.items():
                pipe.rpush(key(self._run, "to", worker), *orders)
                pipe.expire(key(self._run, "to", worker), wire.TTL)
            pipe.execute()
        self._orders.clear()

    def _publish(self) -> None:
        """Put what workers need on the server."""
        with self._client.pipeline(transaction=False) as pipe:
            for part, content in (("problem", self._problem), ("generation", self._generation_blob)):
                name = key(self._run, part)
                pipe.set(name, self._seal.sign(name, content), ex=wire.TTL)
            self._announce(pipe)
            pipe.execute()

    def _renew(self) -> None:
        """Say that the master lives; put what the server has lost there again."""
        names = [key(self._run, part) for part in ("problem", "generation")]
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.expire(name, wire.TTL)
            self._announce(pipe)
            pipe.get(wire.STOPPED)
            kept = pipe.execute()
        if not all(kept[: len(names)]):
            self._publish()
        if self._seal.open(wire.STOPPED, kept[-1]) is not None:
            raise Interrupted("stopped by `mpiabc broker stop`")

    def _announce(self, pipe: Any) -> None:
        told = {
            "name": self._name,
            "versions": versions(),
            "host": platform.node(),
            "process": os.getpid(),
            "static": self._is_static,
            "workers": len(self._crew),
            "places": self._crew.places,
            "hosts": len({self._peers[worker].host for worker in self._crew}),
            "leases": sum(len(self._crew.leases(worker)) for worker in self._crew),
            "refused": self.refused,
            "state": self._state,
        }
        name = key(self._run, "announcement")
        pipe.set(name, self._seal.sign(name, json.dumps(told).encode()), ex=wire.ALIVE)
        pipe.sadd(wire.RUNS, self._run)
        pipe.expire(wire.RUNS, wire.TTL)

    def _generation_order(self) -> bytes:
        return json.dumps([self._generation, wire.sha256(self._generation_blob)]).encode()

    # Hearing.

    def _hear(self, message: bytes) -> list[Records | Lost]:
        """What a report says; nothing if it was not signed, or was heard before."""
        body = self._seal.open(self._reports, message)
        if body is None or len(body) < wire.REPORT.size:
            self._refuse()
            return []
        kind, name, serial, ack = wire.REPORT.unpack_from(body)
        worker, content = name.decode("ascii", "replace"), body[wire.REPORT.size :]
        peer = self._peers.setdefault(worker, _Peer())
        if serial <= peer.last:
            self._refuse()
            return []
        peer.last, peer.ack, peer.heard = serial, ack, time.monotonic()
        if kind == wire.HELLO:
            self._welcome(worker, json.loads(content))
        elif kind == wire.RECORDS:
            records = unpack(content)
            self._done(worker, records.lease)
            return [records]
        elif kind == wire.LOST:
            lease, why, culprit = json.loads(content)
            self._done(worker, Lease(*lease))
            return [Lost(Lease(*lease), peer.where, why, culprit)]
        elif kind == wire.BROKEN:
            _log.warning("%s cannot work for this run: %s", peer.where, content.decode())
            return self._bury(worker)
        elif worker not in self._crew:
            self._order(worker, wire.AGAIN)
        elif kind == wire.MISSING:
            self._publish()
            self._brief(worker)
        elif kind == wire.BEAT:
            places, held = json.loads(content)
            return self._reconcile(worker, places, {Lease(*lease) for lease in held})
        return []

    def _refuse(self) -> None:
        if not self.refused:
            _log.warning("a message on %s is not signed by a worker of this run: refused", self._server)
        self.refused += 1

    def _welcome(self, worker: str, told: dict[str, Any]) -> None:
        """A worker is there; refuse one that would compute something else."""
        peer = self._peers[worker]
        peer.host = str(told["host"])
        peer.where = f"worker {worker[:6]} (process {told['process']} on {peer.host})"
        difference = version_difference(told["versions"])
        if difference:
            _log.warning("%s cannot work for this run: %s; use one environment", peer.where, difference)
            self._order(worker, wire.REFUSED, b"its versions differ from the master's")
            return
        if worker not in self._crew:
            _log.debug("%s joined with %d processes", peer.where, told["places"])
        self._crew.join(worker, int(told["places"]))
        self._liveness.period = wire.BEAT_PERIOD * max(1.0, len(self._crew) / _MANY)
        self._brief(worker)

    def _brief(self, worker: str) -> None:
        """Tell a worker what to fetch."""
        welcome = {"problem": wire.sha256(self._problem), "beat": self._liveness.period}
        self._order(worker, wire.WELCOME, json.dumps(welcome).encode())
        if self._generation >= 0:
            self._order(worker, wire.GENERATION, self._generation_order())

    def _done(self, worker: str, lease: Lease) -> None:
        self._crew.take(worker, lease)
        self._peers[worker].sent.pop(lease, None)

    def _reconcile(self, worker: str, places: int, held: set[Lease]) -> list[Records | Lost]:
        """Leases that a worker has read of and does not hold were skipped, given back, or lost on the way."""
        peer = self._peers[worker]
        self._crew.join(worker, places)
        gone = [
            lease
            for lease in self._crew.leases(worker)
            if lease not in held and peer.sent[lease][0] <= peer.ack
        ]
        if not places and not held:
            return self._bury(worker)
        return self._lose(worker, gone, "the lease was given back")

    def _lose(self, worker: str, leases: list[Lease], why: str) -> list[Records | Lost]:
        peer = self._peers[worker]
        for lease in leases:
            self._done(worker, lease)
        return [Lost(lease, peer.where, why, is_returned=True) for lease in leases if self._is_wanted(lease)]

    def _is_wanted(self, lease: Lease) -> bool:
        return lease.generation == self._generation and lease.start < self._cut

    def _bury(self, worker: str, death: str = "") -> list[Records | Lost]:
        """A worker has left, or died: what it held goes out again."""
        peer = self._peers[worker]
        peer.sent.clear()
        leases = self._crew.leave(worker) if worker in self._crew else []
        why = death or "the worker left"
        return [Lost(lease, peer.where, why, is_returned=not death) for lease in leases]

    def _missing(self) -> list[Records | Lost]:
        """Leases of workers that have been silent for too long, and orders that never arrived."""
        now, period = time.monotonic(), self._liveness.period
        if now - self._polled > 2 * period:  # it was the master that was away
            self._hear_all_again()
            return []
        lost: list[Records | Lost] = []
        for worker in self._crew:
            peer = self._peers[worker]
            if now - peer.heard > wire.DEAD_AFTER * period:
                _log.warning("%s gives no sign of life; its evaluations go out again", peer.where)
                lost += self._bury(worker, "it gave no sign of life")
            else:
                late = [
                    lease
                    for lease, (serial, sent) in peer.sent.items()
                    if serial > peer.ack and now - sent > _IN_TRANSIT * period
                ]
                lost += self._lose(worker, late, "the order was lost on the way")
        self._tell_if_alone(now)
        return lost

    def _hear_all_again(self) -> None:
        now = time.monotonic()
        for worker in self._crew:
            self._peers[worker].heard = now

    def _tell_if_alone(self, now: float) -> None:
        if len(self._crew):
            self._began, self._is_alone_told = now, False
        elif now - self._began > _ALONE and not self._is_alone_told:
            self._is_alone_told = True
            _log.warning(
                "no worker is there; start some, on any machine that reaches the server: mpiabc worker %s",
                self._server,
            )

    # The server goes and comes.

    @contextmanager
    def _breaks_noted(self) -> Iterator[None]:
        """A connection that breaks is noted; from then on, `poll` tries to get it back."""
        try:
            yield
        except wire.connection_errors() as error:
            if self._offline_since is None:
                self._offline_since = time.monotonic()
                _log.warning(
                    "lost the Redis server at %s (%s); trying to reach it again", self._server, error
                )

    def _wait_for_server(self, timeout: float) -> list[Records | Lost]:
        assert self._offline_since is not None
        time.sleep(max(0.0, min(timeout, self._next_try - time.monotonic())))
        now = time.monotonic()
        if now - self._offline_since > self._patience:
            raise SchedulerError(
                f"the Redis server at {self._server} has been away for {self._patience:g} s: start it, and "
                "run the same command again to go on"
            )
        if now < self._next_try:
            return []
        self._next_try = now + _RECONNECT
        try:
            self._publish()
        except wire.connection_errors():
            return []
        _log.warning("the Redis server at %s is back", self._server)
        self._offline_since = None
        self._hear_all_again()
        return []


class _Peer:
    """What the master knows of a worker."""

    def __init__(self) -> None:
        self.host = ""
        self.where = "a worker"
        self.serial = 0  # of the last order to it
        self.last = 0  # serial of its last report
        self.ack = 0  # serial of the last order that it has read
        self.heard = time.monotonic()
        self.sent: dict[Lease, tuple[int, float]] = {}  # serial and time of the order of each lease
