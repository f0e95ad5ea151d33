"""The heartbeats of a worker and of its leader. Knows no server."""

import time

from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.wire import Timer

_GONE_AFTER = 2.0  # seconds without an announcement after which a leader is taken for dead
_BACK_WITHIN = 8.0  # and more, when the server was away: the leader may be slower to see that it is back


class Heartbeat:
    """When this worker is to say that it lives, and whether its leader does."""

    def __init__(self) -> None:
        self.beat = Timer(wire.BEAT_PERIOD)
        self._announced = time.monotonic()

    def is_gone(self, is_announced: bool) -> bool:
        """Whether the leader is, of which an announcement is there now, or not."""
        if is_announced:
            self._announced = time.monotonic()
        return time.monotonic() - self._announced > _GONE_AFTER

    def server_is_back(self) -> None:
        """Wait longer for the leader."""
        self._announced = time.monotonic() + _BACK_WITHIN
