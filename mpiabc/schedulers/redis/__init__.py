"""The Redis bridge: workers that come and go, on any machine that reaches the server.

    mpiabc broker start                       # a server, with a password and a secret of its own
    python fit.py                             # abc.run(..., scheduler="redis")
    mpiabc worker --processes 8               # anywhere, any number, before or after the run begins

The leader gives leases to workers as it gives them to MPI ranks; a worker returns records. Both are
buffers. Only the problem and the jobs are pickled; they are signed, and a worker loads nothing that
is not signed with the secret that it shares with the leader.
"""

import os
from typing import TypedDict, Unpack

from mpiabc.schedulers.base import OneLeads, Shared
from mpiabc.schedulers.redis.leader import RedisEngine
from mpiabc.schedulers.redis.wire import find_server, is_broker_file

__all__ = ["Redis", "RedisStatic", "is_broker_file"]


class Redis(OneLeads):
    """Workers on a Redis server.

    url: redis://[:password@]host:port/db, rediss:// for TLS; None for the broker that `mpiabc broker start`
    has started here, or that of `broker`, its file. The password may also stand in
    MPIABC_REDIS_PASSWORD, the secret in MPIABC_SECRET or in the file that MPIABC_SECRET_FILE names.
    name: for `mpiabc worker --run`; by default that of the problem. patience: seconds that the server may
    be away. Raises SchedulerError where a server cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        broker: str | os.PathLike[str] | None = None,
        password: str | None = None,
        secret: bytes | str | None = None,
        insecure: bool = False,
        name: str | None = None,
        patience: float = 300.0,
        is_static: bool = False,
    ) -> None:
        self._where = url, broker
        self._password, self._secret, self._is_insecure = password, secret, insecure
        self.name = name
        self.patience = patience
        self.is_static = is_static

    def __repr__(self) -> str:
        return "RedisStatic()" if self.is_static else "Redis()"

    def open(self, problem: Shared) -> RedisEngine:
        """Announce the run on the server."""
        url, file = self._where
        server = find_server(
            url, file=file, password=self._password, secret=self._secret, is_insecure=self._is_insecure
        )
        return RedisEngine(
            server,
            problem,
            name=self.name or getattr(problem, "name", None) or "run",
            is_static=self.is_static,
            patience=self.patience,
        )


class Options(TypedDict, total=False):
    """What `Redis` takes by name."""

    broker: str | os.PathLike[str] | None
    password: str | None
    secret: bytes | str | None
    insecure: bool
    name: str | None
    patience: float


def RedisStatic(url: str | None = None, **options: Unpack[Options]) -> Redis:
    """Static scheduling over Redis: no simulation is wasted, the slowest slot is waited for."""
    return Redis(url, is_static=True, **options)
