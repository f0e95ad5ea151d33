"""Who evaluates in this process, and with whom: what a simulator can ask, and its team's communicator.

Engines say so for as long as they evaluate. It holds for the process, so that threads of a simulator know
it too.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mpiabc.errors import ProblemError


@dataclass(frozen=True)
class Worker:
    """Who evaluates here; None where there is none.

    host: as the system names it. rank: of the run's ranks; a child process that simulates for a rank has that
    rank's numbers. local_rank: the number among the run's ranks on this host, or, of a worker process, among
    those that were started together; one that replaces another has its number. team: of ranks that simulate
    together.
    """

    host: str
    rank: int | None = None
    local_rank: int | None = None
    team: int | None = None


def worker() -> Worker:
    """Who evaluates here: what a simulator chooses its GPU or its file by, never its result."""
    return Worker(platform.node()) if _who is None else _who


class Team(Protocol):
    """Those that simulate together, as the one sees them that is at work here."""

    is_exposed: bool  # whether programs had a part in what others of it have done for the lease in work

    def simulating(self, number: int, at: int) -> AbstractContextManager[Any]:
        """Simulate these addresses of an order together, with the communicator that this gives.

        What others of the team raise comes out of it as `OfAnotherError`.
        """
        ...


class Description(NamedTuple):
    """What was raised on another rank of a team, in words."""

    error: str
    traceback: str
    where: str
    is_exposed: bool


class OfAnotherError(Exception):
    """A simulation has failed on another rank of the team than the one that leads it."""

    def __init__(self, description: Description) -> None:
        super().__init__(description.error)
        self.description = description


class Alone:
    """A team of one, whose communicator is had when a simulator first asks for it."""

    is_exposed = False

    def __init__(self, communicator: Callable[[], Any]) -> None:
        self._communicator = communicator

    @contextmanager
    def simulating(self, number: int, at: int) -> Iterator[Any]:
        """With nobody else."""
        yield self._communicator()


_who: Worker | None = None
_team: Team | None = None


def here() -> Team:
    """The team that is at work here. Raises ProblemError if nobody has said so."""
    if _team is None:
        raise ProblemError("the simulator takes comm, and is called outside of a run: call it yourself")
    return _team


def has_exposed() -> bool:
    """Whether programs had a part in what the team's others have done for the lease in work."""
    return _team is not None and _team.is_exposed


@contextmanager
def being(who: Worker | None, team: Team | None = None) -> Iterator[None]:
    """Evaluate as this worker, None is one without numbers, and with this team."""
    global _who, _team
    before, (_who, _team) = (_who, _team), (who, team)
    try:
        yield
    finally:
        _who, _team = before
