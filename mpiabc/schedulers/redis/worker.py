"""The worker's side of the Redis bridge: finds runs, and works for one after another.

The worker itself only looks for runs. For each it forks a session, which loads the problem, evaluates in
child processes, and takes all of it away again when the run is over. A session never simulates: it
answers within milliseconds, whatever a simulator does.
"""

import json
import logging
import os
import platform
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import cloudpickle

from mpiabc import voice
from mpiabc.errors import Error, SchedulerError
from mpiabc.records import Records
from mpiabc.schedulers.base import Job, Lost, Recent
from mpiabc.schedulers.parcels import Parcel
from mpiabc.schedulers.processes import ProcessesEngine, die_with_parent, fork
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.wire import Inbox, Renewal, Server, key
from mpiabc.schedulers.shared.messages import Answer, Cancel, Kind, Missing, Order, encoded, order_of
from mpiabc.schedulers.shared.worker import Evaluator
from mpiabc.schedulers.shared.worker import Worker as LeaseWorker
from mpiabc.signals import GRACE, Signals
from mpiabc.text import shown
from mpiabc.version import version_difference, versions

_log = logging.getLogger(__name__)

_LOOK = 1.0  # seconds between two looks for runs, where no news comes
_GONE_AFTER = 2.0  # seconds without an announcement after which a master is taken for dead
_BACK_WITHIN = 8.0  # and more, when the server was away: the master may be slower to see that it is back
_WELCOME_WITHIN = 20.0  # seconds that a master has to answer
_SERVER_WITHIN = 60.0  # seconds that a server which is not there yet is waited for
_SERVER_BACK_WITHIN = 300.0  # and one that is not there any more
_POLL = 0.25  # seconds to wait for processes, or for orders
_PAUSES = (0.1, 2.0)  # seconds between tries to reach the server: the first, the longest

OVER, GONE, REFUSED, LEFT = range(4)  # how a session ends


@dataclass(frozen=True)
class Wishes:
    """What the user wants of a worker; times in seconds, None: without end."""

    processes: int
    runtime: float | None = None
    wait: float | None = None
    run: str | None = None
    once: bool = False
    renew: int | None = None  # simulations after which a process is replaced


class Announcement(NamedTuple):
    """A run that has a master."""

    run: str
    told: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's name, and whose it is."""
        return shown(f"{self.told['name']} (of {self.told['host']})")


class Seen(NamedTuple):
    """What is on a server: runs of ours, those with the fewest workers first, and how many of others."""

    runs: list[Announcement]
    foreign: int


def announcements(client: Any, server: Server) -> Seen:
    """The runs on the server; those of others are signed with another secret, or not at all."""
    runs = sorted(member.decode("ascii", "replace") for member in wire.members(client, wire.RUNS))
    names = [key(run, "announcement") for run in runs]
    messages = client.mget(names) if names else []
    if dead := [run for run, message in zip(runs, messages, strict=True) if message is None]:
        client.srem(wire.RUNS, *dead)  # a master that was only slow adds itself again
    bodies = [server.seal.open(name, message) for name, message in zip(names, messages, strict=True)]
    found = [Announcement(run, json.loads(body)) for run, body in zip(runs, bodies, strict=True) if body]
    foreign = sum(message is not None for message in messages) - len(found)
    return Seen(sorted(found, key=lambda announcement: announcement.told["places"]), foreign)


class Worker:
    """Serves the runs on a server until it is told to stop, or its time is up."""

    def __init__(self, server: Server, wishes: Wishes) -> None:
        self._server, self._wishes = server, wishes
        self._end = float("inf") if wishes.runtime is None else time.monotonic() + wishes.runtime
        self._refused: set[str] = set()
        self._served = 0
        self._told = ""  # what is waited for
        self._client: Any = None  # stays while a session works: so a worker is always seen on the server

    def work(self) -> int:
        """Serve; returns the number of runs served. Raises SchedulerError if there never was any."""
        with Signals() as signals:
            signals.settle()  # sessions end themselves
            while not signals.seen:
                announcement = self._find(signals)
                if announcement is None:
                    break
                how = self._serve(announcement, signals)
                self._served += how in (OVER, LEFT)
                if how == REFUSED:
                    self._refused.add(announcement.run)
                if how == GONE:
                    time.sleep(_LOOK)
                if how == LEFT or (self._wishes.once and how == OVER):
                    break
        self._disconnect()
        return self._served

    def _find(self, signals: Signals) -> Announcement | None:
        """The next run; None when the time is up."""
        waited = time.monotonic()
        while not signals.seen and time.monotonic() < self._end:
            if self._client is None:
                self._client = _connected(self._server, signals, self._patience)
                continue
            try:
                known, is_stopped = self._look(self._client)
                if not known and not is_stopped:
                    wire.wait_for_news(self._client, _LOOK)
            except wire.connection_errors() as error:
                self._disconnect()
                self._take_refusal(error)
                time.sleep(_PAUSES[0])
                continue
            if is_stopped:
                _log.info("the broker is being stopped")
                break
            if known:
                return known[0]
            if self._wishes.wait is not None and time.monotonic() - waited > self._wishes.wait:
                if not self._served:
                    raise SchedulerError(f"no run came to {self._server} within {self._wishes.wait:g} s")
                break
        return None

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    @property
    def _patience(self) -> float:
        return _SERVER_WITHIN if self._wishes.wait is None else self._wishes.wait

    def _look(self, client: Any) -> tuple[list[Announcement], bool]:
        """The runs that may be served, and whether the broker is being stopped."""
        seen = announcements(client, self._server)
        known = [
            announcement
            for announcement in seen.runs
            if announcement.run not in self._refused and self._wishes.run in (None, announcement.told["name"])
        ]
        if not known:
            self._tell_waiting(seen.foreign)
        return known, self._server.seal.open(wire.STOPPED, wire.read(client, wire.STOPPED)) is not None

    def _take_refusal(self, error: Exception) -> None:
        """Say what is wrong with a server that refuses. Raises SchedulerError where waiting does not help."""
        if isinstance(error, wire.refusals()):
            told = self._server.trouble(error)
            if not troubles.may_pass(error):
                raise SchedulerError(told) from None
            self._tell(told)

    def _tell(self, told: str) -> None:
        """Say it, once."""
        if told != self._told:
            self._told = told
            _log.info(told)

    def _tell_waiting(self, foreign: int) -> None:
        """Say what is waited for, and what is there instead."""
        name = f" named {self._wishes.run}" if self._wishes.run else ""
        others = f"; {foreign} there with another secret than ours" if foreign else ""
        self._tell(f"waiting for a run{name} on {self._server}{others}")

    def _serve(self, announcement: Announcement, signals: Signals) -> int:
        """Fork a session for the run; how it ended."""
        self._told = ""
        voice.flush()
        child = fork()
        if child:
            return self._wait_for(child, signals)
        how = GONE
        try:
            die_with_parent()
            how = Session(self._server, announcement, self._wishes, self._end).run()
        except SchedulerError as error:
            _log.error("%s", error)
        except BaseException:
            _log.exception("the session broke down")
        finally:
            voice.flush()
            os._exit(how)

    def _wait_for(self, child: int, signals: Signals) -> int:
        """How the session ended; a signal that asks us to stop is passed on, and must be obeyed soon."""
        kill_at = float("inf")
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                how = os.waitstatus_to_exitcode(status)
                if how < 0 and not signals.seen:
                    _log.warning("the session was ended by %s", signal.Signals(-how).name)
                return how if how >= 0 else GONE
            if signals.seen and kill_at == float("inf"):
                kill_at = time.monotonic() + GRACE
                os.kill(child, signal.SIGTERM)
            if time.monotonic() > kill_at:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)


def _connected(server: Server, signals: Signals, patience: float) -> Any:
    """A client of a server that answers; None after a signal. Raises SchedulerError after `patience`."""
    end, pause, is_told = time.monotonic() + patience, _PAUSES[0], False
    while not signals.seen:
        client = server.connect(wire.WORKER)
        try:
            server.check_version(client)
        except wire.connection_errors() as error:
            client.close()
            if time.monotonic() + pause > end or not troubles.may_pass(error):
                return server.checked(wire.WORKER)  # says why not
        else:
            return client
        if not is_told:
            is_told = True
            _log.info("waiting for a server at %s", server)
        time.sleep(pause)
        pause = min(2 * pause, _PAUSES[1])
    return None


class Session:
    """One worker's work for one run."""

    def __init__(self, server: Server, announcement: Announcement, wishes: Wishes, end: float) -> None:
        self._server, self._seal = server, server.seal
        self._run, self._announcement = announcement.run, announcement
        self._processes, self._renew, self._end = wishes.processes, wishes.renew, end
        self._worker = wire.new_name()
        self._client = server.connect(wire.WORKER)
        self._reports = key(self._run, "reports")
        self._orders = key(self._run, "to", self._worker)
        self._inbox = Inbox(self._client, self._orders)
        self._outbox: list[bytes] = []
        self._serial = self._ack = self._refused = 0
        self._engine: ProcessesEngine | None = None
        self._leases = LeaseWorker(self._load)  # what it holds is not given to the engine yet
        self._beat = Renewal(wire.BEAT_PERIOD)
        self._announced = time.monotonic()
        self._how: int | None = None
        self._recent = Recent()
        self._is_doubted = False
        self._places = wishes.processes
        self._fd: int | None = None
        self._told = ""  # of a server that refuses

    def run(self) -> int:
        """Work until the run is over, its master is gone, or we are to leave."""
        difference = version_difference(self._announcement.told["versions"])
        with Signals() as signals:
            signals.settle()
            self._greet()
            began = time.monotonic()
            while self._how is None:
                self._step(signals)
                if self._engine is None and time.monotonic() - began > _WELCOME_WITHIN:
                    self._how = GONE
            if difference:
                _log.error("cannot work for %s: %s; use one environment", self._announcement.name, difference)
            if self._engine:
                self._engine.close(0)
            self._say_goodbye()
        return self._how

    def _step(self, signals: Signals) -> None:
        """Hear, work, and tell: once around."""
        try:
            self._exchange()
        except wire.refusals() as error:
            self._take_refusal(error)
        except wire.connection_errors() as error:
            self._reconnect(error, signals)
        except Exception as error:
            self._break_down(f"{type(error).__name__}: {error}")
        if signals.seen and self._how is None and not self._is_doubted:
            self._doubt(signals)
        if signals.seen or time.monotonic() > self._end:
            self._leave(bool(signals.seen))

    def _take_refusal(self, error: Exception) -> None:
        """The server answers, and does not do what it was told: for now, or for good."""
        told = self._server.trouble(error)
        if not troubles.may_pass(error):
            self._break_down(told)
            return
        if told != self._told:
            self._told = told
            _log.warning("%s; trying again", told)
        time.sleep(_PAUSES[1])

    def _exchange(self) -> None:
        if self._beat.is_due():
            self._sign_of_life()
        self._send()
        for message in self._inbox.take(0 if self._engine else 0.1):
            self._obey(message)
        if self._engine and self._how is None:
            self._feed()
            self._watch_inbox()
            self._tell(self._engine.poll(_POLL))

    # Orders.

    def _obey(self, message: bytes) -> None:
        body = self._seal.open(self._orders, message)
        if body is None or len(body) < wire.ORDER.size:
            if not self._refused:
                _log.warning("an order on %s is not signed by the master of this run: refused", self._server)
            self._refused += 1
            return
        kind, serial = wire.ORDER.unpack_from(body)
        content = body[wire.ORDER.size :]
        if serial <= self._ack:
            return
        self._ack = serial
        match kind:
            case Kind.JOB | Kind.LEASE | Kind.CANCEL:
                self._take(order_of(kind, content))
            case Kind.WELCOME:
                self._start(**json.loads(content))
            case Kind.AGAIN:
                self._greet()
            case Kind.REFUSED:
                self._how = REFUSED
            case Kind.STOP:
                self._how = OVER

    def _take(self, order: Order) -> None:
        match order:
            case Parcel():
                self._begin(order)
            case Cancel():
                self._cancel(order)
            case _:
                self._leases.obey(order)

    def _start(self, problem: str, beat: float) -> None:
        """Load the problem, once, and start the processes."""
        self._beat.period = beat
        if self._engine is not None:
            return
        body = self._fetch("problem", problem)
        if body is None:
            return
        try:
            problem = cloudpickle.loads(body).arrived()
            self._engine = ProcessesEngine(problem, self._processes, renew=self._renew)
        except Error as error:
            self._break_down(str(error))
            return
        except Exception as error:
            self._break_down(f"the problem cannot be loaded: {type(error).__name__}: {error}")
            return
        self._beat.hurry()  # tells that we are ready
        _log.info("working for %s with %d processes", self._announcement.name, self._processes)

    def _begin(self, parcel: Parcel) -> None:
        """Have a job; parts that others had are here already."""
        if self._engine is None or self._leases.has(parcel):
            return
        new = {}
        for name in self._leases.lacks(parcel):
            content = self._fetch(f"part:{name}", name)
            if content is None:
                return
            new[name] = content
        self._leases.obey(parcel._replace(new=new))
        self._leases.answers()  # what is not held any more is told by the next sign of life

    def _load(self, job: Job) -> Evaluator:
        """Let the processes have a job; leases go to them, and none is evaluated here."""
        assert self._engine is not None
        self._engine.begin(job, self._leases.jobs)
        _log.info("%s", job)
        return _of_processes

    def _fetch(self, part: str, digest: str) -> bytes | None:
        """What the master has put on the server for all workers; if it is not there any more, ask again."""
        name = key(self._run, part)
        body = self._seal.open(name, wire.read(self._client, name))
        if body is None or wire.sha256(body) != digest:
            self._tell([Missing(-1, (part,))])
            return None
        return body

    def _cancel(self, order: Cancel) -> None:
        if order.job not in self._leases.jobs:
            return
        self._leases.obey(order)
        self._leases.answers()
        if self._engine:
            self._engine.cancel(order.cut, order.job)
        self._beat.hurry()  # tells what is not held any more

    def _feed(self) -> None:
        """Give leases to processes that have room; ask for jobs that are missing for them."""
        assert self._engine is not None
        while self._engine.capacity(True) and (lease := self._leases.next()):
            self._engine.submit(lease)
        self._tell([answer for answer in self._leases.answers() if isinstance(answer, Missing)])

    def _watch_inbox(self) -> None:
        """Let an order end the wait for the processes."""
        assert self._engine is not None
        fd = self._inbox.fileno()
        if fd != self._fd:
            self._engine.wake_on(self._fd, fd)
            self._fd = fd

    # Reports.

    def _report(self, kind: int, content: bytes = b"") -> None:
        self._serial += 1
        head = wire.REPORT.pack(kind, self._worker.encode(), self._serial, self._ack)
        self._outbox.append(self._seal.sign(self._reports, head + content))

    def _send(self) -> None:
        if not self._outbox:
            return
        size = sum(map(len, self._outbox))
        with self._server.carrying(self._client, size) as client, client.pipeline(transaction=False) as pipe:
            pipe.rpush(self._reports, *self._outbox)
            pipe.expire(self._reports, wire.TTL)
            pipe.execute()
        self._outbox.clear()

    def _greet(self) -> None:
        told = {
            "host": platform.node(),
            "process": os.getpid(),
            "places": self._places,
            "versions": versions(),
        }
        self._report(Kind.HELLO, json.dumps(told).encode())

    def _tell(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Records):
                self._tell_records(answer)
            else:
                self._report(*encoded(answer))

    def _tell_records(self, records: Records) -> None:
        kind, content = encoded(records)
        if len(content) <= wire.LARGEST:
            self._report(kind, content)
            self._recent.add(records.lease)
            return
        why = f"what came of it is {wire.too_large(len(content))}: return less of it"
        is_one = len(records) == 1
        self._tell([Lost(records.lease, "", why, culprit=records.start if is_one else None)])

    def _sign_of_life(self) -> None:
        """Say that we live and what we hold; look whether the master does."""
        if self._engine:
            body = json.dumps([self._places, [*self._engine.held(), *self._leases.held]])
            self._report(Kind.BEAT, body.encode())
        names = (key(self._run, "announcement"), wire.STOPPED)
        announcement, stopped = self._client.mget(names)
        if self._seal.open(names[0], announcement) is not None:
            self._announced = time.monotonic()
        elif time.monotonic() - self._announced > _GONE_AFTER:
            _log.info("the master of %s is gone", self._announcement.name)
            self._how = GONE
        how_soon = self._seal.open(wire.STOPPED, stopped)
        if how_soon is not None:
            self._leave(how_soon == b"now")

    def _break_down(self, why: str) -> None:
        """This worker is of no use for the run: say so on both sides."""
        _log.error("cannot work for %s: %s", self._announcement.name, why)
        self._report(Kind.BROKEN, why.encode())
        self._how = REFUSED

    def _doubt(self, signals: Signals) -> None:
        """A signal has come, to our programs too: take back what it may have made of them."""
        self._is_doubted = True
        self._tell([self._recent.doubted()])

    def _leave(self, at_once: bool) -> None:
        """Take no more; return what has not begun; finish what has, unless we are to end at once."""
        self._leases.leave()
        if self._places:
            self._places = 0
            self._beat.hurry()
        if self._engine is None or at_once or not self._engine.held():
            self._how = LEFT

    def _say_goodbye(self) -> None:
        if self._how != OVER:
            self._report(Kind.BEAT, json.dumps([0, []]).encode())
        try:
            self._send()
            self._client.delete(self._orders)
        except wire.connection_errors():
            _log.debug("the server is away: the master will miss us")
        self._inbox.close()
        self._client.close()
        words = {OVER: "is over", GONE: "has no master any more", LEFT: "goes on without this worker"}
        if self._how in words:
            _log.info("%s %s", self._announcement.name, words[self._how])

    def _reconnect(self, error: Exception, signals: Signals) -> None:
        """The server is away: the processes go on with what they have until it is back."""
        why = troubles.reason(error)
        _log.warning("lost the server at %s (%s); trying to reach it again", self._server, why)
        if self._engine:
            self._engine.wake_on(self._fd, None)
            self._fd = None
        self._inbox.close()
        self._client.close()
        client = _connected(self._server, signals, _SERVER_BACK_WITHIN)
        if client is None:
            self._how = LEFT
            return
        _log.warning("the server at %s is back", self._server)
        self._client = client
        self._inbox = Inbox(client, self._orders)
        self._announced = time.monotonic() + _BACK_WITHIN
        if not self._outbox:
            self._greet()


def _of_processes(start: int, stop: int) -> NoReturn:
    """In place of an evaluator: a session never evaluates."""
    raise AssertionError(f"the lease of {start} to {stop - 1} is for the processes")
