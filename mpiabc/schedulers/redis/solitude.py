"""A run without workers, whose user learns how to get some."""

import logging
import time
from contextlib import suppress

from mpiabc.schedulers.foreign import RedisClient
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.wire import Server

_log = logging.getLogger(__name__)

_ALONE = 5.0  # seconds without any worker after which the user learns how to start one


class Solitude:
    """How long nobody has been there."""

    def __init__(self, server: Server, client: RedisClient, name: str) -> None:
        """name: the run's, for `mpiabc worker --run`."""
        self._server, self._client, self._name = server, client, name
        self._began, self._is_reported = time.monotonic(), False

    def look(self, n_workers: int) -> None:
        """Tell the user, once, if it lasts."""
        now = time.monotonic()
        if n_workers:
            self._began, self._is_reported = now, False
        elif now - self._began > _ALONE and not self._is_reported:
            self._is_reported = True
            _log.warning("no worker is there; %s", self.words())

    def words(self) -> str:
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
