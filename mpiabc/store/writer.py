"""The one that writes: what the driver of a run has kept, as orders, commits and a journal.

A commit waits for the order that comes of it, which is decided at once: both go into the file together.
"""

from collections.abc import Iterator
from contextlib import suppress

from mpiabc.actions import Commit, Open, Partial
from mpiabc.driver import Keeper
from mpiabc.errors import StoreError
from mpiabc.order import kept
from mpiabc.records import Failure, Lease, Records
from mpiabc.store.database import Store
from mpiabc.store.journal import Journal


class Writer(Keeper):
    """Writes one run into its file."""

    def __init__(self, store: Store) -> None:
        self._store, self._journal = store, Journal(store)
        self._waiting: Commit | None = None
        self._level = 0  # the generation that comes next
        self._looks_ahead = False  # records may be kept for later levels than their own
        self._reason = store.history().reason  # as the file has it

    def recovered(self, level: int) -> Iterator[Records]:
        """What an earlier process has kept of this generation."""
        return self._journal.recover(level)

    def open(self, opened: Open) -> None:
        """Write what was decided, and the commit that waits: no worker has begun on it."""
        order = None if opened.is_kept else kept(opened.order, opened.base)
        with self._store.transaction():
            if self._waiting is not None:
                self._write_commit(None)
            elif self._reason is not None:
                self._store.go_on()
            if order is not None:
                self._store.keep_order(opened.order.level, *order)
        self._waiting = self._reason = None

    def add(self, records: Records, level: int | None = None) -> None:
        """Keep records until they are part of a population, for this level or their own."""
        self._looks_ahead |= level is not None
        self._journal.add(records, level)

    def forget(self, lease: Lease) -> None:
        """Drop what came of the lease."""
        if self._looks_ahead:
            self._journal.forget_until(lease, self._level)
        else:
            self._journal.forget(lease)

    def commit(self, commit: Commit) -> None:
        """Write a population, when it is known what comes next."""
        self.write()
        self._waiting, self._level = commit, commit.population.generation + 1

    def void(self, level: int) -> None:
        """Drop this generation, and all after it; of its own journal what is not in doubt stays."""
        if self._waiting is not None and self._waiting.population.generation >= level:
            self._waiting = None
        self._store.take_back(level)
        self._journal.void(level + 1)
        self._level = level

    def tell(self, topic: str, note: str, *, is_anew: bool = False) -> bool:
        """Keep what the user learns once a run; False if it was reported before."""
        return self._store.tell(topic, note, anew=is_anew)

    def tick(self) -> None:
        """Time has passed: called many times a second."""
        self._journal.tick()

    def write(self, reason: str | None = None) -> None:
        """Write what waits, and what ends the run, if that is sure."""
        if self._waiting is not None:
            self._write_commit(reason)
            self._waiting, self._reason = None, reason
        elif reason is not None and reason != self._reason:
            self._store.finish(reason)
            self._reason = reason

    def stop(self, before: float, doubtful: int | None) -> None:
        """Write what came home before this time of the monotonic clock; from `doubtful` on nothing counts."""
        with suppress(StoreError):  # which may be what ends the run
            if doubtful is not None:
                self.void(doubtful)
            self.write()
            self._journal.flush(before, first=self._level)

    def end(self, reason: str, partial: Partial | None = None) -> None:
        """Write all that is known, and what ends the run, be it inside of a generation."""
        self._journal.flush(first=self._level)
        self.write(reason)
        if partial is not None:
            self._store.keep_partial(partial)

    def _write_commit(self, reason: str | None) -> None:
        assert self._waiting is not None
        waiting = self._waiting
        more = waiting.sample, waiting.simulated, waiting.pool, waiting.share
        self._store.commit(waiting.population, waiting.failures, reason, *more)

    def last_words(self, failure: Failure, records: Records | None) -> None:
        """Write all that is known before an evaluation ends this process; `records`: that it has failed."""
        if records is not None:
            self._journal.add(records)
        self.write()
        self._journal.flush(first=self._level)
        reason = f"failed: evaluation {failure.generation}:{failure.index}: {failure.error}"
        self._store.finish(reason, failure)
