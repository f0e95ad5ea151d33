"""A worker's line to the leader of its run: orders that come, reports that go, both signed and numbered."""

import json
import logging
import os
import platform
from collections.abc import Iterator, Sequence

from mpiabc.records import Records
from mpiabc.schedulers.base import Lost, Recent
from mpiabc.schedulers.foreign import RedisClient
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.wire import Greeting, Inbox, Server, key
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, encoded
from mpiabc.version import versions

_log = logging.getLogger(__name__)


class Line:
    """Keeps reports while the server is away. Its methods raise what a connection that breaks raises."""

    def __init__(self, server: Server, run: str) -> None:
        self.client = server.connect(wire.WORKER)
        self.recent = Recent()
        self._server, self._signer, self._run = server, server.signer, run
        self._worker = wire.new_name()
        self._orders = key(run, "to", self._worker)
        self._inbox = Inbox(self.client, self._orders)
        self._outbox: list[bytes] = []
        self._serial = self._ack = self._refused = 0

    # Orders.

    def orders(self, timeout: float) -> Iterator[tuple[int, bytes]]:
        """Kinds and contents of orders that have come within so many seconds, each once."""
        for message in self._inbox.take(timeout):
            body = self._signer.open(self._orders, message)
            if body is None or len(body) < wire.ORDER.size:
                self._refuse()
                continue
            kind, serial = wire.ORDER.unpack_from(body)
            if serial > self._ack:
                self._ack = serial
                yield kind, body[wire.ORDER.size :]

    def _refuse(self) -> None:
        if not self._refused:
            _log.warning("an order on %s is not signed by the leader of this run: refused", self._server)
        self._refused += 1

    def fetch(self, part: str, digest: str) -> bytes | None:
        """What the leader has put on the server for all workers; if it is not there any more, ask again."""
        name = key(self._run, part)
        body = self._signer.open(name, wire.read(self.client, name))
        if body is None or wire.sha256(body) != digest:
            self.tell([Missing(-1, (part,))])
            return None
        return body

    def looked_up(self) -> tuple[bool, bytes | None]:
        """Whether the leader has announced the run lately, and how soon the broker is stopped, if it is."""
        names = (key(self._run, "announcement"), wire.STOPPED)
        announcement, stopped = (
            self._signer.open(name, message)
            for name, message in zip(names, self.client.mget(names), strict=True)
        )
        return announcement is not None, stopped

    def fileno(self) -> int | None:
        """What orders can be waited for on, together with others."""
        return self._inbox.fileno()

    # Reports.

    def report(self, kind: int, content: bytes = b"") -> None:
        """Say it with the next `send`."""
        self._serial += 1
        head = wire.REPORT.pack(kind, self._worker.encode(), self._serial, self._ack)
        self._outbox.append(self._signer.sign(key(self._run, "reports"), head + content))

    def greet(self, slots: int) -> None:
        """Say who this is."""
        greeting: Greeting = {
            "host": platform.node(),
            "process": os.getpid(),
            "places": slots,
            "versions": versions(),
        }
        self.report(Kind.HELLO, json.dumps(greeting).encode())

    def tell(self, answers: Sequence[Answer]) -> None:
        """Say what came of leases."""
        for answer in answers:
            if isinstance(answer, Records):
                self._tell_records(answer)
            else:
                self.report(*encoded(answer))

    def _tell_records(self, records: Records) -> None:
        kind, content = encoded(records)
        if len(content) <= wire.LARGEST:
            self.report(kind, content)
            self.recent.add(records.lease)
            return
        why = f"what came of it is {wire.too_large(len(content))}: return less of it"
        is_one = len(records) == 1
        self.tell([Lost(records.lease, "", why, culprit=records.start if is_one else None)])

    def send(self) -> None:
        """Send all that is to be said."""
        if not self._outbox:
            return
        size = sum(map(len, self._outbox))
        with self._server.carrying(self.client, size) as client, client.pipeline(transaction=False) as pipe:
            reports = key(self._run, "reports")
            pipe.rpush(reports, *self._outbox)
            pipe.expire(reports, wire.TTL)
            pipe.execute()
        self._outbox.clear()

    # The server goes and comes.

    def close(self) -> None:
        """Give the connection up."""
        self._inbox.close()
        self.client.close()

    def reopen(self, client: RedisClient) -> bool:
        """Go on with this one; whether nothing is left to be said."""
        self.client = client
        self._inbox = Inbox(client, self._orders)
        return not self._outbox

    def end(self) -> None:
        """Say the last words, and take away what is not read any more."""
        self.send()
        self.client.delete(self._orders)
