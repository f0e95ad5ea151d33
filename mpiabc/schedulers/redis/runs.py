"""Runs on a server, as workers find them, and what is wished of a worker."""

import json
import logging
import time
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from mpiabc.schedulers.foreign import RedisClient
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.wire import Server, key
from mpiabc.signals import Signals
from mpiabc.text import shown

_log = logging.getLogger(__name__)

PAUSES = (0.1, 2.0)  # seconds between tries to reach the server: the first, the longest

OVER, GONE, REFUSED, LEFT = range(4)  # how serving a run ends


@dataclass(frozen=True)
class Wishes:
    """What the user wants of a worker; times in seconds, None: without end."""

    processes: int
    runtime: float | None = None
    wait: float | None = None
    run: str | None = None
    once: bool = False
    renew: int | None = None  # simulations after which a process is replaced


class Announced(TypedDict):
    """What a run says of itself."""

    name: str
    versions: dict[str, str]
    host: str
    process: int
    static: bool
    workers: int
    places: int
    hosts: int
    leases: int
    refused: int
    state: object  # how far it is: see `Together.publish`


class Announcement(NamedTuple):
    """A run that has a leader."""

    run: str
    fields: Announced

    @property
    def name(self) -> str:
        """The run's name, and whose it is."""
        return shown(f"{self.fields['name']} (of {self.fields['host']})")


class Seen(NamedTuple):
    """What is on a server: runs of ours, those with the fewest workers first, and how many of others."""

    runs: list[Announcement]
    foreign: int


def announcements(client: RedisClient, server: Server) -> Seen:
    """The runs on the server; those of others are signed with another secret, or not at all."""
    runs = sorted(member.decode("ascii", "replace") for member in wire.members(client, wire.RUNS))
    names = [key(run, "announcement") for run in runs]
    messages = client.mget(names) if names else []
    if dead := [run for run, message in zip(runs, messages, strict=True) if message is None]:
        client.srem(wire.RUNS, *dead)  # a leader that was only slow adds itself again
    bodies = [server.signer.open(name, message) for name, message in zip(names, messages, strict=True)]
    found = [Announcement(run, json.loads(body)) for run, body in zip(runs, bodies, strict=True) if body]
    foreign = sum(message is not None for message in messages) - len(found)
    return Seen(sorted(found, key=lambda announcement: announcement.fields["places"]), foreign)


def connected(server: Server, signals: Signals, patience: float) -> RedisClient:
    """A client of a server that answers; None after a signal. Raises SchedulerError after `patience`."""
    end, pause, is_reported = time.monotonic() + patience, PAUSES[0], False
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
        if not is_reported:
            is_reported = True
            _log.info("waiting for a server at %s", server)
        time.sleep(pause)
        pause = min(2 * pause, PAUSES[1])
    return None
