"""The worker's side of the Redis bridge: finds runs, and works for one after another.

The worker itself only looks for runs. For each it forks a process (`serving`), which loads the problem,
evaluates in child processes, and takes all of it away again when the run is over.
"""

import logging
import os
import signal
import time

from mpiabc import voice
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.foreign import RedisClient
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.runs import (
    GONE,
    LEFT,
    OVER,
    PAUSES,
    REFUSED,
    Announcement,
    Wishes,
    announcements,
    connected,
)
from mpiabc.schedulers.redis.serving import Serving
from mpiabc.schedulers.redis.wire import Server
from mpiabc.schedulers.shared.child import die_with_parent
from mpiabc.schedulers.shared.starting import fork
from mpiabc.signals import GRACE, Signals

_log = logging.getLogger(__name__)

_LOOK = 1.0  # seconds between two looks for runs, where no news comes
_SERVER_WITHIN = 60.0  # seconds that a server which is not there yet is waited for


class Worker:
    """Serves the runs on a server until it is asked to stop, or its time is up."""

    def __init__(self, server: Server, wishes: Wishes) -> None:
        self._server, self._wishes = server, wishes
        self._end = float("inf") if wishes.runtime is None else time.monotonic() + wishes.runtime
        self._refused: set[str] = set()
        self._served = 0
        self._reported = ""  # what is waited for
        self._client: RedisClient = None  # stays while a run is served: the server always sees a worker

    def work(self) -> int:
        """Serve; returns the number of runs served. Raises SchedulerError if there never was any."""
        with Signals() as signals:
            signals.settle()  # who serves a run ends itself
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
                self._client = connected(self._server, signals, self._patience)
                continue
            try:
                known, is_stopped = self._look(self._client)
                if not known and not is_stopped:
                    wire.wait_for_news(self._client, _LOOK)
            except wire.connection_errors() as error:
                self._disconnect()
                self._take_refusal(error)
                time.sleep(PAUSES[0])
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

    def _look(self, client: RedisClient) -> tuple[list[Announcement], bool]:
        """The runs that may be served, and whether the broker is being stopped."""
        seen = announcements(client, self._server)
        known = [
            announcement
            for announcement in seen.runs
            if announcement.run not in self._refused
            and self._wishes.run in (None, announcement.fields["name"])
        ]
        if not known:
            self._tell_waiting(seen.foreign)
        return known, self._server.signer.open(wire.STOPPED, wire.read(client, wire.STOPPED)) is not None

    def _take_refusal(self, error: Exception) -> None:
        """Say what is wrong with a server that refuses. Raises SchedulerError where waiting does not help."""
        if isinstance(error, wire.refusals()):
            text = self._server.trouble(error)
            if not troubles.may_pass(error):
                raise SchedulerError(text) from None
            self._tell(text)

    def _tell(self, text: str) -> None:
        """Say it, once."""
        if text != self._reported:
            self._reported = text
            _log.info(text)

    def _tell_waiting(self, foreign: int) -> None:
        """Say what is waited for, and what is there instead."""
        name = f" named {self._wishes.run}" if self._wishes.run else ""
        others = f"; {foreign} there with another secret than ours" if foreign else ""
        self._tell(f"waiting for a run{name} on {self._server}{others}")

    def _serve(self, announcement: Announcement, signals: Signals) -> int:
        """Fork a process that serves the run; how it ended."""
        self._reported = ""
        voice.flush()
        child = fork()
        if child:
            return self._wait_for(child, signals)
        how = GONE
        try:
            die_with_parent()
            how = Serving(self._server, announcement, self._wishes, self._end).run()
        except SchedulerError as error:
            _log.error("%s", error)
        except BaseException:
            _log.exception("serving the run broke down")
        finally:
            voice.flush()
            os._exit(how)

    def _wait_for(self, child: int, signals: Signals) -> int:
        """How that process ended; a signal that asks us to stop is passed on, and must be obeyed soon."""
        kill_at = float("inf")
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                how = os.waitstatus_to_exitcode(status)
                if how < 0 and not signals.seen:
                    _log.warning("the process that served the run was ended by %s", signal.Signals(-how).name)
                return how if how >= 0 else GONE
            if signals.seen and kill_at == float("inf"):
                kill_at = time.monotonic() + GRACE
                os.kill(child, signal.SIGTERM)
            if time.monotonic() > kill_at:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
