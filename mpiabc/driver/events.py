"""What happens to a run, reported to whoever observes it: the live line, the log, a page, a broker.

Events are reported in the process that leads, in the order in which they happen. An observer returns soon,
and raises nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpiabc.population import Population
from mpiabc.records import Failure
from mpiabc.schedulers.base import Said
from mpiabc.schedulers.silence import Awaited


@dataclass(frozen=True)
class Progressed:
    """How far the open generation is; reported at most five times a second."""

    level: int
    epsilon: Any  # a number, or of several distances a list
    size: int
    accepted: int
    simulations: int
    failures: int
    seconds: float  # since it was opened
    workers: int
    busy: int
    counted: str = "accepted"  # or "done", where all are needed
    models: str = ""  # and how probable they were in the generation before, where there are several
    had_simulations: int = 0  # when it was opened: of a run that goes on, recycled, or begun ahead
    had_accepted: int = 0

    @property
    def rate(self) -> float:
        """Simulations a second."""
        return max(0, self.simulations - self.had_simulations) / max(1e-9, self.seconds)

    @property
    def seconds_left(self) -> float | None:
        """Until it is complete, if acceptances come as before; None before the first one."""
        come = self.accepted - self.had_accepted
        return self.seconds * (self.size - self.accepted) / come if come > 0 else None


@dataclass(frozen=True)
class Committed:
    """A population is in the file."""

    population: Population
    share: float  # of the workers' time, in which they simulated


@dataclass(frozen=True)
class Noted:
    """Something that casts doubt on the run, which its file has too; reported once a run."""

    note: str


@dataclass(frozen=True)
class Waited:
    """Nothing has come home for long; reported after a minute, then at growing intervals."""

    seconds: float
    where: str  # in the run
    awaited: tuple[Awaited, ...]  # what the engine says of it


@dataclass(frozen=True)
class AtWork:
    """Who holds leases, as far as the engine knows by itself, and what failed last; once a second."""

    workers: tuple[Awaited, ...]
    failures: tuple[Failure, ...]  # the newest is the last


@dataclass(frozen=True)
class Ended:
    """The run has come to its end, or is left."""


Event = Progressed | Committed | Noted | Said | Waited | AtWork | Ended
Observer = Callable[[Event], None]
