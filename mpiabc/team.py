"""Who evaluates in this process, and with whom: what a simulator can ask, and its team's communicator.

Engines say so for as long as they evaluate. It holds for the process, so that threads of a simulator know
it too.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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


_who: Worker | None = None


@contextmanager
def being(who: Worker | None) -> Iterator[None]:
    """Evaluate as this worker; None is one without numbers."""
    global _who
    before, _who = _who, who
    try:
        yield
    finally:
        _who = before
