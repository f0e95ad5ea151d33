"""The leading side of the Redis bridge; the worker's, which mirrors it, is in `serving`."""

import logging
import time
from collections.abc import Collection
from contextlib import suppress

from mpiabc.errors import Interrupted
from mpiabc.records import Lease
from mpiabc.schedulers.base import Job, Report, Shared
from mpiabc.schedulers.redis import presence, wire
from mpiabc.schedulers.redis.attendance import Attendance
from mpiabc.schedulers.redis.outage import Outage
from mpiabc.schedulers.redis.presence import Presence
from mpiabc.schedulers.redis.solitude import Solitude
from mpiabc.schedulers.redis.talk import Post, Talk
from mpiabc.schedulers.redis.wire import Server
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Kind, encoded
from mpiabc.schedulers.shared.workers import Staffed
from mpiabc.schedulers.silence import Awaited

_log = logging.getLogger(__name__)


class RedisEngine(Staffed[str]):
    """Workers that come and go, each known by the name it has drawn."""

    target = 0.1  # seconds of work in a lease: each costs a worker and the leader a few wake-ups

    def __init__(
        self, server: Server, problem: Shared, *, name: str, is_static: bool, patience: float
    ) -> None:
        self._run = wire.new_name()
        part = presence.problem_part(problem)
        self._client = server.checked()
        self._jobs = Jobs()
        self._attendance = Attendance(self._jobs.is_wanted)
        self._workers = self._attendance.holders
        self._post = Post(server, self._client, self._run)
        self._presence = Presence(server, self._client, self._run, name, part)
        self._talk = Talk(self._post, self._attendance, self._jobs, self._presence)
        self._outage = Outage(server, patience, self._clear)
        self._solitude = Solitude(server, self._client, name)
        self._polled = time.monotonic()
        self._presence.details = lambda: {
            "static": is_static,
            **self._attendance.counts(),
            "refused": self._post.refused,
            "state": self._state,
        }
        self._state: object = ""  # JSON
        self._presence.begin()

    @property
    def workers(self) -> int:
        """Slots of all workers; at least one, as some will come."""
        return max(1, self._workers.slots)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Send the job once; each worker is asked to fetch it."""
        self._jobs.begin(job, beside)
        new, old = self._presence.change(self._jobs.parts(), str(job))
        self._workers.begin(job.number, beside)
        with self._outage.noted():
            self._presence.exchange(new, old)
        kind, content = encoded(self._jobs.named(job.number))
        for worker in self._workers:
            self._talk.order(worker, kind, content)

    def capacity(self, prefetch: bool) -> int:
        """Free slots; none while the server is away, or when it is about to be stopped."""
        return 0 if self._outage.is_on or self._presence.is_stopping else self._workers.capacity(prefetch)

    def submit(self, lease: Lease) -> None:
        """Give the lease to the worker with the most room; it is sent by the next poll."""
        self._talk.submit(lease)

    def poll(self, timeout: float) -> list[Report]:
        """What workers have reported, and what is lost."""
        if self._outage.is_on:
            return self._wait_for_server(timeout)
        reports: list[Report] = []
        with self._outage.noted():
            self._presence.renew()
            self._post.flush()
            for heard in self._post.reports(timeout):
                reports += self._talk.hear(heard)
            self._post.flush()
        if not self._outage.is_on and self._talk.is_due():
            reports += self._silent()
        if self._presence.is_stopping and not reports and not self._workers.busy():
            raise Interrupted("stopped by `mpiabc broker stop`")
        self._polled = time.monotonic()
        return reports

    def waits_for(self) -> list[Awaited]:
        """Workers with leases, and those that have not loaded the problem; anybody, if there is nobody."""
        is_alone = not len(self._workers) and not self._outage.is_on
        nobody = [Awaited("a worker", why=self._solitude.words())] if is_alone else []
        return [*nobody, *self._attendance.awaited()]

    def at_work(self) -> list[Awaited]:
        """The same, without a question to the server about whom else there is."""
        return self._attendance.awaited()

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Workers skip leases above the cut that they have not begun."""
        order, is_for_all = self._jobs.cancel(cut, job)
        kind, content = encoded(order)
        for worker in self._workers:
            if is_for_all or self._workers.ahead(worker):
                self._talk.order(worker, kind, content)

    def publish(self, state: object) -> None:
        """How far the run is, for `mpiabc broker info`: JSON."""
        self._state = state

    def close(self, status: int) -> None:
        """Let the workers go and leave nothing on the server but their last orders, which expire."""
        self._presence.stop()
        for worker in self._attendance.peers:  # also those that were taken for dead
            self._talk.order(worker, Kind.STOP, bytes([status]))
        try:
            self._post.flush()
            self._presence.remove()
        except wire.connection_errors():
            _log.debug("the Redis server went away before the end; what is left there expires")
        finally:
            self._post.close()
            self._client.close()
        if self._post.refused:
            _log.warning(
                "refused on the Redis server: %d messages that were not signed by a worker, %d repeated ones",
                self._post.refused,
                self._talk.repeated,
            )

    def _silent(self) -> list[Report]:
        """What is lost with those that say nothing, unless it was the leader that was away."""
        lost = self._talk.silent(self._polled)
        if lost is None:
            return []
        self._solitude.look(len(self._workers))
        return lost

    def _wait_for_server(self, timeout: float) -> list[Report]:
        """Try now and then. What is out goes to others."""
        if self._outage.end_by(self._presence.publish_all, timeout):
            self._attendance.hear_all_again(time.monotonic())
            return []
        lost: list[Report] = []
        if self._outage.is_long:
            lost = [lost for worker in self._workers for lost in self._attendance.bury(worker)]
        if not lost:
            self._outage.check()
        return lost

    def _clear(self) -> None:
        """Delete what others have made of our keys."""
        with suppress(*wire.connection_errors()):
            self._client.delete(wire.RUNS, *self._post.lists)
