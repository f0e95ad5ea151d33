"""The master's side of the Redis bridge; the worker's, which mirrors it, is in `worker`."""

import json
import logging
import os
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mpiabc import mapped
from mpiabc.errors import Interrupted, SchedulerError
from mpiabc.records import Lease, Records
from mpiabc.schedulers.base import Away, Job, Lost, Recent, Report
from mpiabc.schedulers.crew import Crew
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.wire import Inbox, Renewal, Server, key
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, answer_of, encoded
from mpiabc.schedulers.silence import Awaited
from mpiabc.signals import DOUBT
from mpiabc.text import shown
from mpiabc.version import digit_difference, version_difference, versions

_log = logging.getLogger(__name__)

_ALONE = 5.0  # seconds without any worker after which the user is told how to start one
_RENEW = 2.0  # seconds between two renewals of what is on the server
_RECONNECT = 0.5  # seconds between two tries to reach the server again
_IN_TRANSIT = 8.0  # seconds after which an order that a living worker has not read is lost
_LOADS_WITHIN = 60  # signs of life that may be missing while a worker imports what the problem needs
_SUSPECT_AFTER = 3  # signs of life that are missing
_OFFLINE = 3.0  # seconds without the server after which others may take what is out
_MANY = 500  # workers, from which on they give signs of life less often


class RedisEngine:
    """Workers that come and go, each known by the name it has drawn.

    All that can be lost on the way is found by what workers say of themselves: the last order that
    they have read, and the leases that they hold.
    """

    target = 0.1  # seconds of work in a lease: each costs a worker and the master a few wake-ups

    def __init__(self, server: Server, problem: Any, *, name: str, is_static: bool, patience: float) -> None:
        self._server, self._seal = server, server.seal
        self._patience = patience
        self._name, self._is_static = name, is_static
        self._run = wire.new_name()
        try:
            content = mapped.dumps(problem)
        except Exception as error:
            raise SchedulerError(
                f"the problem cannot be sent to workers: {type(error).__name__}: {error}; make what the "
                "simulator uses picklable"
            ) from error
        self._problem = _Part(content, "the problem")
        self._client = server.checked()
        self._reports = key(self._run, "reports")
        self._inbox = Inbox(self._client, self._reports)
        self._crew: Crew[str] = Crew()
        self._peers: dict[str, _Peer] = {}
        self._jobs = Jobs()
        self._parts_of_jobs: dict[str, _Part] = {}  # by their names on the server
        self._is_stopping = False
        self._orders: dict[str, list[bytes]] = defaultdict(list)
        self._renewal, self._liveness = Renewal(_RENEW), Renewal(wire.BEAT_PERIOD)
        self._offline_since: float | None = None
        self._refusal: str | None = None  # what is wrong with it, if it is there
        self._is_refused_for_good = False
        self._next_try = 0.0
        self._began, self._is_alone_told = time.monotonic(), False
        self._polled = time.monotonic()
        self._state: Any = ""  # JSON
        self.refused = 0  # messages that were forged or altered
        self.repeated = 0  # and played again: by others, or by a worker that heard no answer
        with server.errors_told():
            wire.tried(wire.members, self._client, wire.RUNS)  # what is none goes
            wire.tried(self._publish, self._parts)
        self._keeper = _Keeper(server, self._run)
        self._keeper.start()

    @property
    def workers(self) -> int:
        """Places of all workers; at least one, as some will come."""
        return max(1, self._crew.places)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Send the job once; each worker is told to fetch it."""
        self._jobs.begin(job, beside)
        there = self._parts_of_jobs
        parts = {f"part:{name}": part for name, part in self._jobs.parts()}
        self._parts_of_jobs = {name: there.get(name) or _Part(part, str(job)) for name, part in parts.items()}
        self._keeper.parts = self._parts
        self._crew.begin(job.number, beside)
        with self._breaks_noted():
            self._publish(self._parts_of_jobs.keys() - there.keys())
            if old := there.keys() - self._parts_of_jobs.keys():
                self._client.delete(*(key(self._run, part) for part in old))
        kind, content = encoded(self._jobs.named(job.number))
        for worker in self._crew:
            self._order(worker, kind, content)

    def capacity(self, prefetch: bool) -> int:
        """Free places; none while the server is away, or when it is about to be stopped."""
        return 0 if self._offline_since or self._is_stopping else self._crew.room(prefetch)

    def submit(self, lease: Lease) -> None:
        """Give the lease to the worker with the most room; it is sent by the next poll."""
        worker = self._crew.give(lease)
        serial = self._order(worker, *encoded(lease))
        self._peers[worker].sent[lease] = serial, time.monotonic()

    def poll(self, timeout: float) -> list[Report]:
        """What workers have reported, and what is lost."""
        if self._offline_since:
            return self._wait_for_server(timeout)
        reports: list[Report] = []
        with self._breaks_noted():
            if self._renewal.is_due():
                self._renew()
            self._flush()
            for message in self._inbox.take(timeout):
                reports += self._hear(message)
            self._flush()
        if self._offline_since is None and self._liveness.is_due():
            reports += self._missing()
        if self._is_stopping and not reports and not self._crew.busy():
            raise Interrupted("stopped by `mpiabc broker stop`")
        self._polled = time.monotonic()
        return reports

    def waiting(self) -> list[Lease]:
        """Leases behind others; all of a worker that has gone silent, which has no place."""
        return self._crew.waiting()

    def waits_for(self) -> list[Awaited]:
        """Workers with leases, and those that have not loaded the problem."""
        loading = [
            Awaited(self._peers[worker].where, "loading the problem")
            for worker in self._crew
            if not self._peers[worker].places
        ]
        nobody = (
            [] if len(self._crew) or self._offline_since else [Awaited("a worker", why=self._for_workers())]
        )
        return [*nobody, *loading, *self._crew.awaited(lambda worker: self._peers[worker].where)]

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Workers skip leases above the cut that they have not begun."""
        order, is_for_all = self._jobs.cancel(cut, job)
        kind, content = encoded(order)
        for worker in self._crew:
            if is_for_all or self._crew.ahead(worker):
                self._order(worker, kind, content)

    def busy(self) -> int:
        """Places that have work."""
        return self._crew.busy()

    def publish(self, state: Any) -> None:
        """How far the run is, for `mpiabc broker info`: JSON."""
        self._state = state

    def close(self, status: int) -> None:
        """Let the workers go and leave nothing on the server but their last orders, which expire."""
        self._keeper.stop()
        for worker in self._peers:  # also those that were taken for dead
            self._order(worker, Kind.STOP, bytes([status]))
        try:
            self._flush()
            parts = ("announcement", "reports", *self._parts)
            self._client.delete(*(key(self._run, part) for part in parts))
            self._client.srem(wire.RUNS, self._run)
        except wire.connection_errors():
            _log.debug("the Redis server went away before the end; what is left there expires")
        finally:
            self._inbox.close()
            self._client.close()
        if self.refused:
            _log.warning(
                "refused on the Redis server: %d messages that were not signed by a worker, %d repeated ones",
                self.refused,
                self.repeated,
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

    def _publish(self, parts: Iterable[str]) -> None:
        """Put what workers need on the server."""
        known = {"problem": self._problem, **self._parts_of_jobs}
        contents = {key(self._run, part): known[part].content for part in parts}
        size = sum(map(len, contents.values()))
        with self._server.carrying(self._client, size) as client, client.pipeline(transaction=False) as pipe:
            for name, content in contents.items():
                pipe.set(name, self._seal.sign(name, content), ex=wire.TTL)
            self._announce(pipe)
            pipe.execute()

    def _renew(self) -> None:
        """Say that the master lives; put what the server has lost there again."""
        parts = self._parts
        with self._client.pipeline(transaction=False) as pipe:
            for part in parts:
                pipe.expire(key(self._run, part), wire.TTL)
            self._announce(pipe)
            pipe.mget(wire.STOPPED)
            *kept, [stop] = pipe.execute()
        if lost := [part for part, is_there in zip(parts, kept, strict=False) if not is_there]:
            self._publish(lost)
        stopped = self._seal.open(wire.STOPPED, stop)
        if stopped == b"now":
            raise Interrupted("stopped by `mpiabc broker stop`")
        self._is_stopping = stopped is not None

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
        pipe.publish(wire.NEWS, self._run)

    @property
    def _parts(self) -> tuple[str, ...]:
        """All that workers may fetch."""
        return ("problem", *self._parts_of_jobs)

    # Hearing.

    def _hear(self, message: bytes) -> list[Report]:
        """What a report says; nothing if it was not signed, or was heard before.

        One before it may have been lost, with word that leases are in doubt: then they are.
        """
        body = self._seal.open(self._reports, message)
        if body is None or len(body) < wire.REPORT.size:
            self._refuse()
            return []
        kind, name, serial, ack = wire.REPORT.unpack_from(body)
        worker, content = name.decode("ascii", "replace"), body[wire.REPORT.size :]
        peer = self._peers.setdefault(worker, _Peer())
        if serial <= peer.last:
            self.repeated += 1
            return []
        missed: list[Report] = [peer.recent.doubted()] if serial > peer.last + 1 else []
        peer.last, peer.ack, peer.heard = serial, ack, time.monotonic()
        if peer.is_suspect and worker in self._crew:
            peer.is_suspect = False
            self._crew.join(worker, peer.places)
        return missed + self._heard(worker, kind, content)

    def _heard(self, worker: str, kind: int, content: bytes) -> list[Report]:
        """What a report of this kind says."""
        match kind:
            case Kind.HELLO:
                self._welcome(worker, json.loads(content))
            case Kind.BROKEN:
                where = self._peers[worker].where
                _log.warning("%s cannot work for this run: %s", where, shown(content.decode()))
                return self._bury(worker)
            case Kind.RECORDS | Kind.LOST | Kind.DOUBTED | Kind.SAID:
                return self._answered(worker, answer_of(kind, content, self._peers[worker].where))
            case _ if worker not in self._crew:
                self._order(worker, Kind.AGAIN)
            case Kind.MISSING:
                self._publish(self._parts)
                self._brief(worker)
            case Kind.BEAT:
                places, held = json.loads(content)
                return self._reconcile(worker, places, {Lease(*lease) for lease in held})
        return []

    def _answered(self, worker: str, answer: Answer) -> list[Report]:
        """What a worker says of leases, which it may know of although it was taken for dead."""
        match answer:
            case Records():
                self._done(worker, answer.lease)
                if answer.is_exposed:
                    self._peers[worker].recent.add(answer.lease)
            case Lost():
                self._done(worker, answer.lease)
            case Missing():
                return []
        return [answer]

    def _refuse(self) -> None:
        if not self.refused:
            _log.warning("a message on %s is not signed by a worker of this run: refused", self._server)
        self.refused += 1

    def _welcome(self, worker: str, told: dict[str, Any]) -> None:
        """A worker is there; refuse one that would compute something else."""
        peer = self._peers[worker]
        peer.host = shown(str(told["host"]))
        peer.where = f"worker {worker[:6]} (process {told['process']} on {peer.host})"
        difference = version_difference(told["versions"])
        if difference:
            _log.warning("%s cannot work for this run: %s; use one environment", peer.where, difference)
            self._order(worker, Kind.REFUSED, b"its versions differ from the master's")
            return
        if difference := digit_difference(told["versions"]):
            _log.warning("%s: %s; digests may differ in the last bit", peer.where, difference)
        if worker not in self._crew:
            _log.debug("%s joined with %d processes", peer.where, told["places"])
            self._crew.join(worker, 0)  # until it says that it has loaded the problem
        self._liveness.period = wire.BEAT_PERIOD * max(1.0, len(self._crew) / _MANY)
        self._brief(worker)

    def _brief(self, worker: str) -> None:
        """Tell a worker what to fetch."""
        welcome = {"problem": self._problem.digest, "beat": self._liveness.period}
        self._order(worker, Kind.WELCOME, json.dumps(welcome).encode())
        for number in self._jobs:
            self._order(worker, *encoded(self._jobs.named(number)))

    def _done(self, worker: str, lease: Lease) -> None:
        self._crew.take(worker, lease)
        self._peers[worker].sent.pop(lease, None)

    def _reconcile(self, worker: str, places: int, held: set[Lease]) -> list[Report]:
        """Leases that a worker has read of and does not hold were skipped, given back, or lost on the way."""
        peer = self._peers[worker]
        peer.places = places
        self._crew.join(worker, places)
        gone = [
            lease
            for lease in self._crew.leases(worker)
            if lease not in held and peer.sent.get(lease, (0, 0.0))[0] <= peer.ack
        ]
        if not places and not held:
            return self._bury(worker)
        return self._lose(worker, gone, "the lease was given back")

    def _lose(self, worker: str, leases: list[Lease], why: str) -> list[Report]:
        peer = self._peers[worker]
        for lease in leases:
            self._done(worker, lease)
        return [
            Lost(lease, peer.where, why, is_returned=True) for lease in leases if self._jobs.is_wanted(lease)
        ]

    def _bury(self, worker: str) -> list[Report]:
        """A worker has left, or died: what it held goes out again.

        That says nothing about the evaluations; a child that dies in one is reported by its worker.
        """
        peer = self._peers[worker]
        peer.sent.clear()
        leases = self._crew.leave(worker) if worker in self._crew else []
        return [Lost(lease, peer.where, "the worker left", is_returned=True) for lease in leases]

    def _missing(self) -> list[Report]:
        """Leases of workers that have been silent for too long, and orders that never arrived."""
        now, period = time.monotonic(), self._liveness.period
        if now - self._polled > 2 * period:  # it was the master that was away
            self._hear_all_again()
            return []
        lost: list[Report] = []
        for worker in self._crew:
            peer = self._peers[worker]
            is_loading = not (peer.places or self._crew.leases(worker))  # it greets before it has the problem
            if now - peer.heard > (_LOADS_WITHIN if is_loading else wire.DEAD_AFTER) * period:
                _log.warning("%s gives no sign of life; its evaluations go out again", peer.where)
                lost += [*self._bury(worker), peer.recent.doubted()]
            else:
                if now - peer.heard > _SUSPECT_AFTER * period and not peer.is_suspect:
                    peer.is_suspect = True
                    self._crew.join(worker, 0)
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
            _log.warning("no worker is there; %s", self._for_workers())

    def _for_workers(self) -> str:
        """What brings some."""
        found = 0
        with suppress(*wire.connection_errors()):  # a server may forbid it
            found = sum(one.get("name") == wire.WORKER for one in self._client.client_list())
        if not found:
            return (
                f"start some, on any machine that reaches {self._server}: mpiabc worker {self._server.words}"
            )
        return (
            f"those on {self._server} ({found} connections of workers) serve another run, wait for one of "
            f"another name (mpiabc worker --run; this one is {self._name!r}), or have another secret: start "
            "more"
        )

    # The server goes and comes.

    @contextmanager
    def _breaks_noted(self) -> Iterator[None]:
        """A connection that breaks is noted; from then on, `poll` tries to get it back."""
        try:
            yield
        except wire.connection_errors() as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        refusal = self._server.refusal(error)
        self._is_refused_for_good = isinstance(error, wire.refusals()) and not troubles.may_pass(error)
        if self._offline_since is None or (refusal and refusal != self._refusal):
            lost = f"lost the Redis server at {self._server} ({troubles.reason(error)})"
            _log.warning(
                "%s; %s", refusal or lost, "giving up" if self._is_refused_for_good else "trying again"
            )
        self._refusal = refusal
        if self._offline_since is None:
            self._offline_since = time.monotonic()
        if troubles.is_of_another_kind(error):
            with suppress(*wire.connection_errors()):
                self._client.delete(wire.RUNS, *(key(self._run, "to", worker) for worker in self._orders))

    def _wait_for_server(self, timeout: float) -> list[Report]:
        """Try now and then: others who share this process are hardly held up. What is out goes to them."""
        assert self._offline_since is not None
        began = time.monotonic()
        if began < self._next_try:
            time.sleep(max(0.0, min(timeout, self._next_try - began)))
        elif not self._is_refused_for_good and self._is_back():
            _log.warning("the Redis server at %s is back", self._server)
            self._offline_since = None
            self._hear_all_again()
            return []
        else:
            now = time.monotonic()
            self._next_try = now + max(_RECONNECT, 10 * (now - began))
        away = time.monotonic() - self._offline_since
        lost = [lost for worker in self._crew for lost in self._bury(worker)] if away > _OFFLINE else []
        if not lost and away > max(_OFFLINE, 0.0 if self._is_refused_for_good else self._patience):
            gone = f"the Redis server at {self._server} has been away for {self._patience:g} s: start it"
            raise Away(f"{self._refusal or gone}, and run the same command again to go on")
        return lost

    def _is_back(self) -> bool:
        try:
            self._publish(self._parts)
        except wire.connection_errors() as error:
            self._note(error)
            return False
        return True


class _Part:
    """Bytes that all workers fetch, and their digest. Raises SchedulerError for too many."""

    def __init__(self, content: bytes, what: str) -> None:
        if len(content) > wire.LARGEST:
            large = wire.too_large(len(content))
            raise SchedulerError(f"{what} is {large}: let workers read large data from a file")
        self.content, self.digest = content, wire.sha256(content)


class _Keeper(threading.Thread):
    """Keeps the run on the server while the master is busy with something else, such as a user's code."""

    def __init__(self, server: Server, run: str) -> None:
        super().__init__(name="mpiabc-keeper", daemon=True)
        self._server, self._run = server, run
        self.parts: tuple[str, ...] = ("problem",)
        self._is_over = threading.Event()

    def run(self) -> None:
        """Renew what would expire, every few seconds."""
        while not self._is_over.wait(wire.ALIVE / 4):
            ttl = {"announcement": wire.ALIVE, **dict.fromkeys(self.parts, wire.TTL)}
            with suppress(*wire.connection_errors()), self._server.connect() as client:
                for part, seconds in ttl.items():
                    client.expire(key(self._run, part), seconds)

    def stop(self) -> None:
        """Let it end."""
        self._is_over.set()


class _Peer:
    """What the master knows of a worker."""

    def __init__(self) -> None:
        self.host = ""
        self.places = 0  # as it says
        self.is_suspect = False  # silent for a while: it gets nothing, and others take over what it has
        self.where = "a worker"
        self.serial = 0  # of the last order to it
        self.last = 0  # serial of its last report
        self.ack = 0  # serial of the last order that it has read
        self.heard = time.monotonic()
        self.recent = Recent(wire.DEAD_AFTER * wire.BEAT_PERIOD + DOUBT)
        self.sent: dict[Lease, tuple[int, float]] = {}  # serial and time of the order of each lease
