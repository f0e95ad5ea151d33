"""A worker's work for one run.

It never simulates: it answers within milliseconds, whatever a simulator does.
"""

import json
import logging
import time

from mpiabc.errors import Error
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.heartbeat import Heartbeat
from mpiabc.schedulers.redis.line import Line
from mpiabc.schedulers.redis.processing import Processing
from mpiabc.schedulers.redis.runs import GONE, LEFT, OVER, PAUSES, REFUSED, Announcement, Wishes, connected
from mpiabc.schedulers.redis.wire import Server
from mpiabc.schedulers.shared.messages import Kind, order_of
from mpiabc.signals import Signals
from mpiabc.version import version_difference

_log = logging.getLogger(__name__)

_WELCOME_WITHIN = 20.0  # seconds that a leader has to answer
_SERVER_BACK_WITHIN = 300.0  # seconds that a server which is not there any more is waited for


class Serving:
    """Hears orders, lets processes work, tells what came of it."""

    def __init__(self, server: Server, announcement: Announcement, wishes: Wishes, end: float) -> None:
        self._server, self._announcement, self._end = server, announcement, end
        self._line = Line(server, announcement.run)
        self._processing = Processing(wishes.processes, wishes.renew, self._line.fetch)
        self._heartbeat = Heartbeat()
        self._how: int | None = None
        self._is_doubted = False
        self._slots = wishes.processes
        self._reported = ""  # of a server that refuses

    def run(self) -> int:
        """Work until the run is over, its leader is gone, or we are to leave."""
        difference = version_difference(self._announcement.fields["versions"])
        with Signals() as signals:
            signals.settle()
            self._line.greet(self._slots)
            began = time.monotonic()
            while self._how is None:
                self._step(signals)
                if not self._processing.has_begun and time.monotonic() - began > _WELCOME_WITHIN:
                    self._how = GONE
            if difference:
                _log.error("cannot work for %s: %s; use one environment", self._announcement.name, difference)
            self._processing.close()
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
            self._doubt()
        if signals.seen or time.monotonic() > self._end:
            self._leave(bool(signals.seen))

    def _take_refusal(self, error: Exception) -> None:
        """The server answers, and does not do what it was asked: for now, or for good."""
        text = self._server.trouble(error)
        if not troubles.may_pass(error):
            self._break_down(text)
            return
        if text != self._reported:
            self._reported = text
            _log.warning("%s; trying again", text)
        time.sleep(PAUSES[1])

    def _exchange(self) -> None:
        processing = self._processing
        if self._heartbeat.beat.is_due():
            self._beat()
        self._line.send()
        for kind, content in self._line.orders(0 if processing.has_begun else 0.1):
            self._obey(kind, content)
        if processing.has_begun and self._how is None:
            self._line.tell(processing.feed())
            processing.wake_on(self._line.fileno())
            self._line.tell(processing.poll())

    def _obey(self, kind: int, content: bytes) -> None:
        match kind:
            case Kind.JOB | Kind.LEASE | Kind.CANCEL:
                if self._processing.obey(order_of(kind, content)):
                    self._heartbeat.beat.hurry()  # tells what is not held any more
            case Kind.WELCOME:
                self._start(**json.loads(content))
            case Kind.AGAIN:
                self._line.greet(self._slots)
            case Kind.REFUSED:
                self._how = REFUSED
            case Kind.STOP:
                self._how = OVER

    def _start(self, problem: str, beat: float) -> None:
        """Load the problem, once, and start the processes."""
        self._heartbeat.beat.period = beat
        if self._processing.has_begun:
            return
        body = self._line.fetch("problem", problem)
        if body is None:
            return
        try:
            self._processing.start(body)
        except Error as error:
            self._break_down(str(error))
            return
        except Exception as error:
            self._break_down(f"the problem cannot be loaded: {type(error).__name__}: {error}")
            return
        self._heartbeat.beat.hurry()  # tells that we are ready
        name, processes = self._announcement.name, self._processing.processes
        _log.info("working for %s with %d processes", name, processes)

    def _beat(self) -> None:
        """Say that we live and what we hold; look whether the leader does."""
        if self._processing.has_begun:
            self._line.report(Kind.BEAT, json.dumps([self._slots, self._processing.held]).encode())
        is_announced, how_soon = self._line.looked_up()
        if self._heartbeat.is_gone(is_announced):
            _log.info("the leader of %s is gone", self._announcement.name)
            self._how = GONE
        if how_soon is not None:
            self._leave(how_soon == b"now")

    def _break_down(self, why: str) -> None:
        """This worker is of no use for the run: say so on both sides."""
        _log.error("cannot work for %s: %s", self._announcement.name, why)
        self._line.report(Kind.BROKEN, why.encode())
        self._how = REFUSED

    def _doubt(self) -> None:
        """A signal has come, to our programs too: take back what it may have made of them."""
        self._is_doubted = True
        self._line.tell([self._line.recent.doubted()])

    def _leave(self, at_once: bool) -> None:
        """Take no more; return what has not begun; finish what has, unless we are to end at once."""
        self._processing.leave()
        if self._slots:
            self._slots = 0
            self._heartbeat.beat.hurry()
        if at_once or not self._processing.is_at_work:
            self._how = LEFT

    def _say_goodbye(self) -> None:
        if self._how != OVER:
            self._line.report(Kind.BEAT, json.dumps([0, []]).encode())
        try:
            self._line.end()
        except wire.connection_errors():
            _log.debug("the server is away: the leader will miss us")
        self._line.close()
        words = {OVER: "is over", GONE: "has no leader any more", LEFT: "goes on without this worker"}
        if self._how in words:
            _log.info("%s %s", self._announcement.name, words[self._how])

    def _reconnect(self, error: Exception, signals: Signals) -> None:
        """The server is away: the processes go on with what they have until it is back."""
        why = troubles.reason(error)
        _log.warning("lost the server at %s (%s); trying to reach it again", self._server, why)
        self._processing.wake_on(None)
        self._line.close()
        client = connected(self._server, signals, _SERVER_BACK_WITHIN)
        if client is None:
            self._how = LEFT
            return
        _log.warning("the server at %s is back", self._server)
        self._heartbeat.server_is_back()
        if self._line.reopen(client):
            self._line.greet(self._slots)
