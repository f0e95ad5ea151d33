"""The file as the leading process writes it: whatever stays goes in by one transaction."""

import json
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from mpiabc.actions import Partial
from mpiabc.errors import StoreError
from mpiabc.particles import Particles
from mpiabc.population import Population
from mpiabc.records import Failure, is_readable
from mpiabc.simulations import Simulations
from mpiabc.store.files import DamagedError, Patience, connect_to_write, damaged, errors_reported
from mpiabc.store.history import History, damage
from mpiabc.store.live import goes_on
from mpiabc.store.locks import Lock, in_use
from mpiabc.store.parts import MOST_PART, portable
from mpiabc.store.place import absolute, inode, journal_path, place_of, status
from mpiabc.store.schema import (
    SCHEMA,
    check_format,
    crc_of_order,
    drop,
    drop_simulations,
    insert_failures,
    insert_journal,
    insert_pool,
    insert_row,
    insert_sample,
    insert_simulations,
    is_ours,
    lacking,
    modernise,
    packed_arrays,
    put,
    row_of,
    whole_buffers,
)
from mpiabc.store.sessions import Session, joined, sessions_from

_log = logging.getLogger(__name__)

MOST_FAILURES = 100  # of a generation that are kept in full; all are counted


def _put_columns(db: sqlite3.Connection, population: Population) -> None:
    """Keep the names of several distances."""
    if population.columns_of_distances:
        put(db, "distances", json.dumps(population.columns_of_distances))


def _drop_partial(db: sqlite3.Connection) -> None:
    """Forget what was known of a generation that is not committed."""
    ((count,),) = db.execute("SELECT count(*) FROM population")
    drop_simulations(db, count)


class Store:
    """The file, open for writing. Use as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """The file is the one that the name means now, wherever this process is when it is opened."""
        self.path = self._given = absolute(path)
        self._db: sqlite3.Connection | None = None
        self._lock, self._patience = Lock(self.path), Patience(self.path)
        self._is_new = self._is_discarded = False
        self._inode: tuple[int, int] | None = None
        self._damage: DamagedError | None = None
        self._history: History | None = None
        self._unusable: int | None = None  # generations from here on go with the first write
        self._session: Session | None = None  # which goes with the next write
        self._began: Session | None = None

    def __enter__(self) -> "Store":
        self.path = place_of(self._given)
        if status(self.path.parent) is None:
            raise StoreError(f"the folder of {self.path} does not exist: make it first")
        self._lock, self._patience = Lock(self.path), Patience(self.path)
        is_locked = self._lock.take()
        try:
            if not is_locked and goes_on(self.path):
                raise in_use(self.path)
            was_there = status(self.path) is not None
            with errors_reported(self.path):
                self._connect()
                self._check_kind()
        except DamagedError as error:
            self._damage = error
            if not is_ours(self.path):
                self._close()
                raise
        except BaseException:
            self._close()
            raise
        if was_there and self._is_new:
            _log.warning("%s is empty: a new run begins in it", self.path)
        return self

    def __exit__(self, kind: Any = None, error: Any = None, traceback: Any = None) -> None:
        self._close()
        if isinstance(error, DamagedError):
            raise self._checked(error) from error

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        if self._is_discarded:
            with suppress(OSError):
                os.unlink(self.path)
        self._lock.release()

    def begin(self, session: Session) -> None:
        """Keep how this process has begun, together with what it writes first, if anything."""
        self._session = self._began = session

    def _end(self, reason: str) -> None:
        if self._began is not None:
            self._session = replace(self._began, ended=time.time(), reason=reason)

    def settings(self) -> dict[str, Any] | None:
        """What the run in the file was begun with; None if the file is new.

        Raises StoreError if the file is damaged.
        """
        if self._is_new:
            return None
        if self._damage:
            raise self._damage
        with errors_reported(self.path):
            assert self._db is not None
            (found,) = self._patience.execute(self._db, "PRAGMA integrity_check(1)").fetchone()
            harm = lacking(self._db) if found == "ok" else found.splitlines()[-1]
        if harm:
            raise damaged(self.path, harm)
        return self.history().settings

    def renew(self, settings: dict[str, Any]) -> None:
        """Keep changed settings of the run that is continued."""
        with self.transaction() as db:
            modernise(db)
            put(db, "settings", json.dumps(settings))

    def rethreshold(self, level: int, settings: dict[str, Any], threshold: object, note: str) -> None:
        """Keep another threshold for this level and all after it; an order for it is to be decided again."""
        notes, part = self.history().notes, portable(threshold)
        with self.transaction() as db:
            self.renew(settings)
            db.execute("DELETE FROM orders WHERE level >= ?", (level,))
            db.execute("DELETE FROM run WHERE key = 'part threshold'")
            if part is not None:
                put(db, "part threshold", part)
            put(db, "notes", json.dumps(notes | {f"threshold {level}": note}))

    def start(
        self,
        settings: dict[str, Any],
        problem_name: str,
        parts: Mapping[str, object] | None = None,
        plain: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a run in the file; what was in it is gone.

        `parts` (problem, kernel, threshold) are for `History.part`; those that cannot travel are left out.
        `plain` is what `Problem.plain` says.
        """
        kept = {f"part {name}": blob for name, part in (parts or {}).items() if (blob := portable(part))}
        values = {"settings": json.dumps(settings), "problem_name": problem_name, "reason": None, **kept}
        for name, value in (plain or {}).items():
            values[name] = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value)
        if parts and "part problem" not in kept:
            _log.warning(
                "the problem cannot be pickled, or takes more than %.0f MB: %s does not hold it, so that "
                "`mpiabc replay` needs --problem and its file",
                MOST_PART / 1e6,
                self.path,
            )
        self._make_room()
        with self.transaction() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            for key, value in [*values.items(), ("generations", 0)]:
                put(db, key, value)

    def commit(
        self,
        population: Population,
        failures: list[Failure],
        reason: str | None,
        sample: Particles | None = None,
        simulated: Simulations | None = None,
        pool: list[np.ndarray] | None = None,
        share: float | None = None,
    ) -> None:
        """Write a generation, all of it or nothing, and whether it ends the run.

        `share`: of the workers' time, in which they simulated.

        Its journal stays until the next one is committed, or the run ends: it may be taken back.
        """
        row = row_of(population)
        if reason is not None:
            self._end(reason)
        with self.transaction() as db:
            modernise(db)
            drop_simulations(db, population.generation)
            insert_row(db, "population", row)
            if simulated is not None:
                insert_simulations(db, population.generation, simulated)
            insert_failures(db, failures[:MOST_FAILURES])
            if sample is not None:
                insert_sample(db, population.generation, sample)
            if pool is not None:
                insert_pool(db, population.generation, pool)
            _put_columns(db, population)
            if share is not None:
                _put_share(db, population.generation, share)
            put(db, "generations", population.generation + 1)
            put(db, "reason", reason)
            kept = population.generation if reason is None else population.generation + 1
            db.execute("DELETE FROM journal WHERE generation < ?", (kept,))

    def take_back(self, generation: int) -> None:
        """Leave the file as it was before this generation was committed; its journal is still there."""
        with self.transaction() as db:
            drop(db, generation, first_of_journal=generation + 1)
            put(db, "reason", None)
        self._history = None  # which may know what is gone

    def note(self, generation: int, records: list[bytes]) -> None:
        """Keep records of a generation that is not complete."""
        with self.transaction() as db:
            insert_journal(db, generation, records)

    def note_anew(self, generation: int, records: list[bytes]) -> None:
        """Keep these records of a generation, and none of those kept before."""
        with self.transaction() as db:
            db.execute("DELETE FROM journal WHERE generation = ?", (generation,))
            insert_journal(db, generation, records)

    def keep_order(self, level: int, text: str, arrays: list[np.ndarray]) -> None:
        """Keep what was decided for a level."""
        row = text, packed_arrays(arrays)
        with self.transaction() as db:
            modernise(db)
            values = (level, crc_of_order(*row), *row)
            db.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", values)

    def tell(self, topic: str, text: str, *, anew: bool = False) -> bool:
        """Keep what the user learns once a run; False if the topic was reported before, perhaps less well."""
        notes = self.history().notes
        if topic in notes and not anew:
            return False
        with self.transaction() as db:
            put(db, "notes", json.dumps(notes | {topic: text}))
        return topic not in notes

    def died(self, addresses: list[str]) -> dict[str, int]:
        """Keep that processes died that were at these evaluations; how often that has been for each."""
        deaths = Counter(self.history().deaths)
        deaths.update(addresses)
        with self.transaction() as db:
            put(db, "deaths", json.dumps(deaths))
        return {address: deaths[address] for address in addresses}

    def noted(self, generation: int) -> Iterator[bytes]:
        """The records kept of an open generation; damaged and old ones are left out, to be computed again."""
        with errors_reported(self.path):
            assert self._db is not None
            query = "SELECT crc, records FROM journal WHERE generation = ?"
            rows = self._patience.execute(self._db, query, generation).fetchall()
        return filter(is_readable, whole_buffers(rows))

    def finish(self, reason: str, failure: Failure | None = None) -> None:
        """Note what ended the run: a stopping rule, or what stopped it early, such as a failure."""
        self._end(reason)
        with self.transaction() as db:
            _drop_partial(db)
            put(db, "reason", reason)
            insert_failures(db, [failure] if failure else [])
            db.execute("DELETE FROM journal WHERE generation IN (SELECT generation FROM population)")

    def keep_partial(self, partial: Partial) -> None:
        """Keep what was known of the generation that a budget has ended the run in."""
        with self.transaction() as db:
            modernise(db)
            drop_simulations(db, partial.level)
            if partial.population is not None:
                insert_row(db, "partial", row_of(partial.population))
                _put_columns(db, partial.population)
            if partial.simulated is not None:
                insert_simulations(db, partial.level, partial.simulated)
            put(db, "partial", json.dumps({"level": partial.level, "evaluations": partial.evaluations}))

    def go_on(self) -> None:
        """Forget what ended the run before, and what was known of the generation that it ended in."""
        with self.transaction() as db:
            _drop_partial(db)
            put(db, "reason", None)
            db.execute("DELETE FROM failure WHERE generation NOT IN (SELECT generation FROM population)")

    def discard_if_new(self) -> None:
        """Leave no file behind a problem that never ran."""
        if self._is_new and (self.path.stat().st_size == 0 or not len(self.history())):
            self._is_discarded = True

    def history(self) -> History:
        """The read-only view, one for all that is asked while the file is open."""
        if self._history is None:
            self._history = History(self.path)
            self._unusable = self._history.unusable
        return self._history

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is written within goes into the file, all or nothing; one within another is part of it."""
        assert self._db is not None
        if self._db.in_transaction:
            yield self._db
            return
        self._check_place()
        with errors_reported(self.path), self._all_or_nothing(self._db, self._patience):
            if self._unusable is not None:
                drop(self._db, self._unusable, self._unusable)
            yield self._db
            if self._session is not None:
                put(self._db, "sessions", joined(_sessions(self._db), self._session))
        self._unusable = self._session = None

    @staticmethod
    @contextmanager
    def _all_or_nothing(db: sqlite3.Connection, patience: Patience) -> Iterator[None]:
        patience.execute(db, "BEGIN IMMEDIATE")
        try:
            yield
            patience.execute(db, "COMMIT")
        except BaseException:
            if db.in_transaction:  # some errors have rolled it back already
                db.execute("ROLLBACK")
            raise

    def _checked(self, error: DamagedError) -> StoreError:
        """Damage that was met, with the way out of it if a check of the whole file finds damage too."""
        found = damage(self.path)
        if found is None:
            return StoreError(
                f"{self.path} could not be read ({error.found}), yet a check of it finds no damage: run the "
                "same command again"
            )
        return DamagedError(self.path, found, "start again from a copy of it, or with overwrite=True")

    def _connect(self) -> None:
        self._db = connect_to_write(self.path)
        self._lock.take_file()
        self._patience.execute(self._db, "PRAGMA journal_mode = DELETE")
        self._patience.execute(self._db, "BEGIN IMMEDIATE")  # finds out now whether the file can be written
        self._db.execute("ROLLBACK")
        self._inode = inode(self.path)

    def _check_place(self) -> None:
        """What is written into a file that has no name any more would be lost without a word."""
        if self._inode != inode(self.path):
            raise StoreError(
                f"{self.path} was deleted, moved or replaced while the run was going on: put it back, if you "
                "can, and run the same command again"
            )

    def _check_kind(self) -> None:
        """A new file may be ours; another program's file is left alone."""
        assert self._db is not None
        self._is_new = self.path.stat().st_size == 0
        if not self._is_new:
            check_format(self._db, self.path)

    def _make_room(self) -> None:
        """Leave nothing of what is in the file, which may be damaged; all its names go on to be its names."""
        if self._is_new:
            return
        if self._given != self.path:
            _log.warning("%s is a link: what is in %s is replaced", self._given, self.path)
        assert self._db is not None
        with errors_reported(self.path):
            if self._damage is None:
                self._patience.execute(self._db, "BEGIN EXCLUSIVE")  # nobody reads it, such as a backup
            journal_path(self.path).unlink(missing_ok=True)
            os.truncate(self.path, 0)
            self._db.close()
            self._connect()
        self._is_new, self._history, self._unusable = True, None, None


def _put_share(db: sqlite3.Connection, generation: int, share: float) -> None:
    """Keep how busy workers were; read by the one who writes, as a transaction may keep others out."""
    shares: dict[str, float] = {}
    for (text,) in db.execute("SELECT value FROM run WHERE key = 'shares'"):
        with suppress(TypeError, ValueError):  # what is damaged is reported when it is read
            shares = dict(json.loads(text))
    put(db, "shares", json.dumps(shares | {str(generation): round(share, 4)}))


def _sessions(db: sqlite3.Connection) -> list[Session]:
    """Those before; read by the one who writes, as a transaction may keep others out."""
    for (text,) in db.execute("SELECT value FROM run WHERE key = 'sessions'"):
        with suppress(TypeError, ValueError, AttributeError):  # what is damaged is reported when it is read
            return sessions_from(json.loads(text))
    return []
