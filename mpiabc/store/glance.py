"""A glance at a run's file, for onlookers: short reads of a few columns, however large the populations are.

A file that has not changed since is not opened. What is read here are numbers to look at, which are not
checked against a digest; `History` does that.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpiabc.errors import StoreError
from mpiabc.order import epsilon_of
from mpiabc.population import effective_sample_size, short
from mpiabc.store.history import History
from mpiabc.store.live import Failed
from mpiabc.store.place import place_of, status

_MOST_ROWS = 50  # generations, the last ones
_MOST_FAILURES = 5


@dataclass(frozen=True)
class Row:
    """A committed generation."""

    generation: int
    epsilon: str
    size: int
    evaluations: int
    simulations: int
    acceptance_rate: float
    ess: float
    seconds: float
    digest: str


@dataclass(frozen=True)
class Contents:
    """What a file says of its run; `generations` None: nothing has begun in it."""

    problem: str = ""
    generations: int | None = None
    rows: tuple[Row, ...] = ()  # the last generations, the newest is the last
    reason: str | None = None
    open_epsilon: str | None = None  # of the generation that comes next, where that was decided
    warnings: tuple[str, ...] = ()
    failed: int = 0  # evaluations that the file has failures of
    failures: tuple[Failed, ...] = ()  # the last ones, the newest first


class Glance:
    """Looks at a file again and again, and remembers what it has read of it."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.path: Path = place_of(store)
        self._stamp: Any = None
        self._contents: Contents | None = None
        self._rows: dict[tuple[int, str], Row] = {}

    def look(self) -> Contents | None:
        """What the file says now; None if there is none. Raises StoreError for a file that cannot be read."""
        stamp = self._stamp_now()
        if stamp is None:
            self._contents = None
        elif stamp != self._stamp or self._contents is None:
            self._contents = self._read() if stamp[1] else Contents()
        self._stamp = stamp
        return self._contents

    def _stamp_now(self) -> tuple[int, ...] | None:
        """What changes whenever the file does."""
        found = status(self.path)
        return found and (found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self) -> Contents:
        history = History(self.path)
        n = len(history)
        order = history.order(n) if (reason := history.reason) is None else None
        ((failed,),) = history.read("SELECT count(*) FROM failure")
        return Contents(
            problem=history.problem_name,
            generations=n,
            rows=self._last_rows(history, n),
            reason=reason,
            open_epsilon=None if order is None else short(epsilon_of(order[0])),
            warnings=tuple(history.warnings),
            failed=failed,
            failures=_last_failures(history),
        )

    def _last_rows(self, history: History, n: int) -> tuple[Row, ...]:
        """The last generations; only those that are new are read."""
        query = "SELECT generation, digest FROM population WHERE generation >= ? AND generation < ?"
        keys = sorted(history.read(query, n - _MOST_ROWS, n))
        self._rows = {key: self._rows.get(key) or _row(history, *key) for key in keys}
        return tuple(self._rows.values())


def _row(history: History, generation: int, digest: str) -> Row:
    """One generation. Raises StoreError where it is not there, or is none."""
    has_first = history.read("SELECT 1 FROM pragma_table_info('population') WHERE name = 'first'")
    first_id = "coalesce(first, 0)" if has_first else "0"  # which older files do not say
    columns = f"epsilon, evaluations, simulations, seconds, {first_id}, weights, ids"
    query = f"SELECT {columns} FROM population WHERE generation = ?"
    try:
        ((epsilon, evaluations, simulations, seconds, first, weights, ids),) = history.read(query, generation)
        accepted = int(np.count_nonzero(np.frombuffer(ids, np.int64) >= first))
        values = np.frombuffer(weights, np.float64)
        return Row(
            generation,
            short(np.frombuffer(epsilon, np.float64) if isinstance(epsilon, bytes) else epsilon),
            len(values),
            int(evaluations),
            int(simulations),
            accepted / evaluations if evaluations else 1.0,
            effective_sample_size(values),
            float(seconds),
            str(digest),
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"{history.path}: generation {generation} cannot be read: {error}") from None


def _last_failures(history: History) -> tuple[Failed, ...]:
    query = (
        "SELECT generation, id, kind, theta, error, place FROM failure ORDER BY rowid DESC "
        f"LIMIT {_MOST_FAILURES}"
    )
    return tuple(_failed(*row) for row in history.read(query))


def _failed(generation: Any, index: Any, kind: Any, theta: Any, error: Any, where: Any) -> Failed:
    """In words; what is damaged is shown as it is."""
    with suppress(TypeError, ValueError):
        theta = json.loads(theta)
    return Failed.of(f"{generation}:{index}", str(kind), theta, str(error), str(where or ""))
