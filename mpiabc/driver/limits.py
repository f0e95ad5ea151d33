"""What ends a run from outside: the clock, the end of the batch job, a signal."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from mpiabc.signals import GRACE, Signals

_RESERVE = 5.0  # seconds before the end of a job in which journal, ranks and scripts come to theirs


class Stop(NamedTuple):
    """Why a run is stopped, and until when what is in flight may come home."""

    why: str
    until: float


@dataclass
class Limits:
    """The times of a run, of its driver's clock, and the signals that it hears."""

    deadline: float = math.inf  # no new work from here on
    end: float = math.inf  # the batch system ends the job
    signals: Signals = field(default_factory=Signals)
    grace: float = GRACE

    def stop(self, now: float, longest: float) -> Stop | None:
        """Whether to stop now; the work in flight may still need `longest` seconds.

        Before the end of the job there is time to collect that, and to keep it.
        """
        if self.signals.seen:
            return Stop(f"stopped by {self.signals.seen}", now + self.grace)
        if now >= self.deadline:
            return Stop("walltime reached", now + self.grace)
        if now >= self.end - _RESERVE - max(longest, self.grace):
            return Stop("the end of the job is near", self.end - _RESERVE)
        return None
