"""What a run has on the server: its announcement, renewed like a heartbeat, the problem and parts of jobs."""

import json
import os
import platform
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from mpiabc import mapped
from mpiabc.errors import Interrupted, SchedulerError
from mpiabc.schedulers.base import Shared
from mpiabc.schedulers.foreign import RedisClient, RedisPipeline
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.wire import Server, Timer, key
from mpiabc.version import versions

_RENEW = 2.0  # seconds between two renewals of what is on the server


class Part:
    """Bytes that all workers fetch, and their digest. Raises SchedulerError for too many."""

    def __init__(self, content: bytes, what: str) -> None:
        if len(content) > wire.LARGEST:
            large = wire.too_large(len(content))
            raise SchedulerError(f"{what} is {large}: let workers read large data from a file")
        self.content, self.digest = content, wire.sha256(content)


def problem_part(problem: Shared) -> Part:
    """The problem, for workers. Raises SchedulerError for one that cannot travel."""
    try:
        content = mapped.dumps(problem)
    except Exception as error:
        raise SchedulerError(
            f"the problem cannot be sent to workers: {type(error).__name__}: {error}; make what the "
            "simulator uses picklable"
        ) from error
    return Part(content, "the problem")


class Presence:
    """What workers of a run find on the server. Its methods raise what a connection that breaks raises."""

    def __init__(self, server: Server, client: RedisClient, run: str, name: str, problem: Part) -> None:
        """client: the run's, name: the user's."""
        self.run, self.name, self.problem = run, name, problem
        self.details: Callable[[], dict[str, object]] = dict  # what else the announcement has
        self.is_stopping = False  # the broker is to be stopped when nothing is in work
        self._server, self._client, self._signer = server, client, server.signer
        self._of_jobs: dict[str, Part] = {}  # by their names on the server
        self._timer = Timer(_RENEW)
        self._keeper = _Keeper(server, run)

    def begin(self) -> None:
        """Announce the run. Raises SchedulerError where the server cannot have it."""
        with self._server.errors_reported():
            wire.tried(wire.members, self._client, wire.RUNS)  # what is none goes
            wire.tried(self.publish_all)
        self._keeper.start()

    def change(self, parts: Sequence[tuple[str, bytes]], what: str) -> tuple[set[str], set[str]]:
        """From now on these are the parts of open jobs; the names of new ones, and of those that go."""
        before = self._of_jobs
        named = {f"part:{name}": part for name, part in parts}
        self._of_jobs = {name: before.get(name) or Part(part, what) for name, part in named.items()}
        self._keeper.parts = self._parts
        return self._of_jobs.keys() - before.keys(), before.keys() - self._of_jobs.keys()

    def exchange(self, new: Iterable[str], old: Iterable[str]) -> None:
        """Put new parts on the server, and take old ones off it."""
        self.publish(new)
        if names := [key(self.run, part) for part in old]:
            self._client.delete(*names)

    def publish_all(self) -> None:
        """Put all that workers may need on the server, again."""
        self.publish(self._parts)

    def publish(self, parts: Iterable[str]) -> None:
        """Put what workers need on the server."""
        known = {"problem": self.problem, **self._of_jobs}
        contents = {key(self.run, part): known[part].content for part in parts}
        size = sum(map(len, contents.values()))
        with self._server.carrying(self._client, size) as client, client.pipeline(transaction=False) as pipe:
            for name, content in contents.items():
                pipe.set(name, self._signer.sign(name, content), ex=wire.TTL)
            self._announce(pipe)
            pipe.execute()

    def renew(self) -> None:
        """If it is time: say that the leader lives, put what the server has lost there again.

        Raises Interrupted where the broker is stopped now.
        """
        if not self._timer.is_due():
            return
        parts = self._parts
        with self._client.pipeline(transaction=False) as pipe:
            for part in parts:
                pipe.expire(key(self.run, part), wire.TTL)
            self._announce(pipe)
            pipe.mget(wire.STOPPED)
            *kept, [stop] = pipe.execute()
        if lost := [part for part, is_there in zip(parts, kept, strict=False) if not is_there]:
            self.publish(lost)
        stopped = self._signer.open(wire.STOPPED, stop)
        if stopped == b"now":
            raise Interrupted("stopped by `mpiabc broker stop`")
        self.is_stopping = stopped is not None

    def stop(self) -> None:
        """Renew it no more from beside."""
        self._keeper.stop()

    def remove(self) -> None:
        """Leave nothing on the server."""
        parts = ("announcement", "reports", *self._parts)
        self._client.delete(*(key(self.run, part) for part in parts))
        self._client.srem(wire.RUNS, self.run)

    def _announce(self, pipe: RedisPipeline) -> None:
        fields = {
            "name": self.name,
            "versions": versions(),
            "host": platform.node(),
            "process": os.getpid(),
            **self.details(),
        }
        name = key(self.run, "announcement")
        pipe.set(name, self._signer.sign(name, json.dumps(fields).encode()), ex=wire.ALIVE)
        pipe.sadd(wire.RUNS, self.run)
        pipe.expire(wire.RUNS, wire.TTL)
        pipe.publish(wire.NEWS, self.run)

    @property
    def _parts(self) -> tuple[str, ...]:
        """All that workers may fetch."""
        return ("problem", *self._of_jobs)


class _Keeper(threading.Thread):
    """Keeps the run on the server while the leader is busy with something else, such as a user's code."""

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
