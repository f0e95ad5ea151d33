"""Waiting that is reported: for whom, at what, since when; after a minute, then at growing intervals."""

from typing import NamedTuple

MINUTE = 60.0  # seconds of waiting after which it is reported
_STEP = 1.0  # seconds between two looks that count: in longer gaps we were suspended, or others had the word


class Awaited(NamedTuple):
    """Whom a run waits for."""

    who: str
    at: str = ""  # the evaluations in work, or what else
    seconds: float = 0.0  # for how long; 0: not known
    why: str = ""  # what that may come of, and what to do; reported once for all who have the same


class Silence:
    """How long nothing has come, and when that is to be reported. Knows no clock: it is given the time."""

    def __init__(self, now: float, times: float = 1.0) -> None:
        """times: minutes until it is reported first."""
        self._times = times
        self.end(now)

    def end(self, now: float) -> None:
        """Something has come."""
        self.seconds, self._looked, self._factor = 0.0, now, self._times

    def is_due(self, now: float, usual: float = 0.0) -> bool:
        """Whether it lasts so long that it is reported now, where `usual` seconds are nothing to speak of."""
        self.seconds += min(now - self._looked, _STEP)
        self._looked = now
        if self.seconds < self._factor * max(MINUTE, 2 * usual):
            return False
        self._factor *= 2
        return True
