"""What a leader and its workers say to each other, signed and numbered."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from mpiabc.records import Lease, Records
from mpiabc.schedulers.base import Lost, Report
from mpiabc.schedulers.foreign import RedisClient
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.attendance import Attendance
from mpiabc.schedulers.redis.presence import Presence
from mpiabc.schedulers.redis.wire import Greeting, Inbox, Server, Timer, key
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, answer_of, encoded
from mpiabc.text import shown
from mpiabc.version import digit_difference, version_difference

_log = logging.getLogger(__name__)

_MANY = 500  # workers, from which on they give signs of life less often


class Heard(NamedTuple):
    """A report that was signed: what it is, and the last order that its worker had read."""

    kind: int
    worker: str
    serial: int
    ack: int
    content: bytes


class Post:
    """Orders that go out together, and reports that come in."""

    def __init__(self, server: Server, client: RedisClient, run: str) -> None:
        self.refused = 0  # messages that were forged or altered
        self._server, self._client, self._signer, self._run = server, client, server.signer, run
        self._reports = key(run, "reports")
        self._inbox = Inbox(client, self._reports)
        self._orders: dict[str, list[bytes]] = defaultdict(list)

    @property
    def lists(self) -> list[str]:
        """Where orders would go that are not out."""
        return [key(self._run, "to", worker) for worker in self._orders]

    def order(self, worker: str, serial: int, kind: int, body: bytes) -> None:
        """Send it with the next `flush`."""
        content = wire.ORDER.pack(kind, serial) + body
        self._orders[worker].append(self._signer.sign(key(self._run, "to", worker), content))

    def flush(self) -> None:
        """Send all orders in one round trip."""
        if not self._orders:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for worker, orders in self._orders.items():
                pipe.rpush(key(self._run, "to", worker), *orders)
                pipe.expire(key(self._run, "to", worker), wire.TTL)
            pipe.execute()
        self._orders.clear()

    def reports(self, timeout: float) -> Iterator[Heard]:
        """What has come within so many seconds, and was signed."""
        for message in self._inbox.take(timeout):
            body = self._signer.open(self._reports, message)
            if body is None or len(body) < wire.REPORT.size:
                self._refuse()
                continue
            kind, name, serial, ack = wire.REPORT.unpack_from(body)
            yield Heard(kind, name.decode("ascii", "replace"), serial, ack, body[wire.REPORT.size :])

    def _refuse(self) -> None:
        if not self.refused:
            _log.warning("a message on %s is not signed by a worker of this run: refused", self._server)
        self.refused += 1

    def close(self) -> None:
        """Wait for nothing any more."""
        self._inbox.close()


class Talk:
    """The leader's side of it: what each report means, and what is said then."""

    def __init__(self, post: Post, attendance: Attendance, jobs: Jobs, presence: Presence) -> None:
        self._post, self._attendance, self._jobs, self._presence = post, attendance, jobs, presence
        self._liveness = Timer(wire.BEAT_PERIOD)
        self.repeated = 0  # reports that were played again: by others, or by a worker that heard no answer

    def order(self, worker: str, kind: int, body: bytes = b"") -> int:
        """Say it to the worker with the next `flush`; the serial that it has."""
        serial = self._attendance.peers[worker].ordered()
        self._post.order(worker, serial, kind, body)
        return serial

    def submit(self, lease: Lease) -> None:
        """Give the lease to the worker with the most room."""
        worker = self._attendance.holders.assign(lease)
        serial = self.order(worker, *encoded(lease))
        self._attendance.peers[worker].sent[lease] = serial, time.monotonic()

    def hear(self, heard: Heard) -> list[Report]:
        """What a report says; nothing if it was heard before."""
        missed = self._attendance.heard(heard.worker, heard.serial, heard.ack, time.monotonic())
        if missed is None:
            self.repeated += 1
            return []
        return missed + self._heard(heard.worker, heard.kind, heard.content)

    def silent(self, polled: float) -> list[Report] | None:
        """What is lost with workers that say nothing; None where it was the leader that was away.

        polled: when reports were last looked for.
        """
        now, period = time.monotonic(), self._liveness.period
        if now - polled > 2 * period:
            self._attendance.hear_all_again(now)
            return None
        dead, lost = self._attendance.silent(now, period)
        for where in dead:
            _log.warning("%s gives no sign of life; its evaluations go out again", where)
        return lost

    def is_due(self) -> bool:
        """Whether signs of life are to be looked at."""
        return self._liveness.is_due()

    def _heard(self, worker: str, kind: int, content: bytes) -> list[Report]:
        """What a report of this kind says."""
        attendance = self._attendance
        match kind:
            case Kind.HELLO:
                self._welcome(worker, json.loads(content))
            case Kind.BROKEN:
                where = attendance.where(worker)
                _log.warning("%s cannot work for this run: %s", where, shown(content.decode()))
                return attendance.bury(worker)
            case Kind.RECORDS | Kind.LOST | Kind.DOUBTED | Kind.SAID:
                return self._answered(worker, answer_of(kind, content, attendance.where(worker)))
            case _ if worker not in attendance.holders:
                self.order(worker, Kind.AGAIN)
            case Kind.MISSING:
                self._presence.publish_all()
                self._brief(worker)
            case Kind.BEAT:
                slots, held = json.loads(content)
                return attendance.reconcile(worker, slots, {Lease(*lease) for lease in held})
        return []

    def _answered(self, worker: str, answer: Answer) -> list[Report]:
        """What a worker says of leases, which it may know of although it was taken for dead."""
        match answer:
            case Records() | Lost():
                self._attendance.answered(worker, answer, time.monotonic())
            case Missing():
                return []
        return [answer]

    def _welcome(self, worker: str, greeting: Greeting) -> None:
        """A worker is there; refuse one that would compute something else."""
        peer, holders = self._attendance.peers[worker], self._attendance.holders
        peer.host = shown(str(greeting["host"]))
        peer.where = f"worker {worker[:6]} (process {greeting['process']} on {peer.host})"
        difference = version_difference(greeting["versions"])
        if difference:
            _log.warning("%s cannot work for this run: %s; use one environment", peer.where, difference)
            self.order(worker, Kind.REFUSED, b"its versions differ from the leader's")
            return
        if difference := digit_difference(greeting["versions"]):
            _log.warning("%s: %s; digests may differ in the last bit", peer.where, difference)
        if worker not in holders:
            _log.debug("%s joined with %d processes", peer.where, greeting["places"])
            self._attendance.greet(worker)
        self._liveness.period = wire.BEAT_PERIOD * max(1.0, len(holders) / _MANY)
        self._brief(worker)

    def _brief(self, worker: str) -> None:
        """Tell a worker what to fetch."""
        welcome = {"problem": self._presence.problem.digest, "beat": self._liveness.period}
        self.order(worker, Kind.WELCOME, json.dumps(welcome).encode())
        for number in self._jobs:
            self.order(worker, *encoded(self._jobs.named(number)))
