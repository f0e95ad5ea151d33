"""A server that goes and comes: what is said of it, and how long it has been away. Knows no connection."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mpiabc.schedulers.base import Away
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.wire import Server

_log = logging.getLogger(__name__)

_RECONNECT = 0.5  # seconds between two tries to reach the server again
_OFFLINE = 3.0  # seconds without the server after which others may take what is out


class Outage:
    """Connections that break are noted here; from then on the server is away until it is `over`."""

    def __init__(self, server: Server, patience: float, clear: Callable[[], None]) -> None:
        """patience: seconds that it may be away; clear: deletes keys that others have made something else."""
        self._server, self._patience, self._clear = server, patience, clear
        self._since: float | None = None
        self._refusal: str | None = None  # what is wrong with the server, if it is there
        self._is_for_good = False
        self._next_try = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the server is away."""
        return self._since is not None

    @property
    def is_long(self) -> bool:
        """Whether others may take what is out."""
        return self._seconds > _OFFLINE

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A connection that breaks is noted."""
        try:
            yield
        except wire.connection_errors() as error:
            self.note(error)

    def note(self, error: Exception) -> None:
        """The server is away, or refuses what it is to do."""
        refusal = self._server.refusal(error)
        self._is_for_good = isinstance(error, wire.refusals()) and not troubles.may_pass(error)
        if self._since is None or (refusal and refusal != self._refusal):
            lost = f"lost the Redis server at {self._server} ({troubles.reason(error)})"
            _log.warning("%s; %s", refusal or lost, "giving up" if self._is_for_good else "trying again")
        self._refusal = refusal
        if self._since is None:
            self._since = time.monotonic()
        if troubles.is_of_another_kind(error):
            self._clear()

    def end_by(self, reach: Callable[[], None], timeout: float) -> bool:
        """Try to reach the server, now and then; whether it is back.

        Others who share this process are hardly held up: where it is not time yet, wait, `timeout` at most.
        """
        began = time.monotonic()
        if began < self._next_try:
            time.sleep(max(0.0, min(timeout, self._next_try - began)))
            return False
        if not self._is_for_good and self._is_reached(reach):
            _log.warning("the Redis server at %s is back", self._server)
            self._since = None
            return True
        now = time.monotonic()
        self._next_try = now + max(_RECONNECT, 10 * (now - began))
        return False

    def check(self) -> None:
        """Raises Away when it has lasted too long."""
        if self._seconds > max(_OFFLINE, 0.0 if self._is_for_good else self._patience):
            gone = f"the Redis server at {self._server} has been away for {self._patience:g} s: start it"
            raise Away(f"{self._refusal or gone}, and run the same command again to go on")

    def _is_reached(self, reach: Callable[[], None]) -> bool:
        try:
            reach()
        except wire.connection_errors() as error:
            self.note(error)
            return False
        return True

    @property
    def _seconds(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since
