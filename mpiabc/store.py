"""The run's file: one SQLite database, written by the leading process, readable at any time.

A generation is one row of a few large blobs, committed in one transaction before anything depends on
it; while it is open, a journal keeps the records that are finished. The rollback journal of SQLite is
used, not the write-ahead log, whose shared memory does not exist on network file systems; where file
locks do not work either, SQLite is told to do without them, which is safe because one process writes
and readers check what they read: every value has a checksum, and the number of generations is kept apart.
"""

import errno
import inspect
import io
import json
import logging
import math
import os
import pickle
import sqlite3
import sys
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from mpiabc.arguments import whole
from mpiabc.errors import StoreError
from mpiabc.particles import Column, columns
from mpiabc.population import Population
from mpiabc.records import Failure, Lease, Records, generation_of, pack, unpack
from mpiabc.signals import DOUBT

_log = logging.getLogger(__name__)

FORMAT = 4
_OLDER = (2, 3)  # formats that are read, and written on in the new one
_APPLICATION = 0x41424353  # "ABCS", SQLite's application_id
_MOST_FAILURES = 100  # of a generation that are kept in full; all are counted
_MOST_PART = 100_000_000  # bytes of a pickled problem that are kept
_PATIENCE = 10.0  # seconds to wait for another process's short transaction

_NUMBERS: dict[str, type] = {  # and what SQLite gives back of them, whatever number was written
    "generation": int,
    "epsilon": float,
    "evaluations": int,
    "simulations": int,
    "failures": int,
    "log_evidence": float,
    "dispatched": int,
    "seconds": float,
}
_ARRAYS = {"weights": Column("weigh")} | columns()
_DIGESTED = ("ids", "theta", "weights", "distances")  # by `Population.digest`

_ORDERS = "CREATE TABLE IF NOT EXISTS orders (level INTEGER PRIMARY KEY, crc INTEGER, told TEXT, arrays BLOB)"
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value, crc INTEGER);
CREATE TABLE IF NOT EXISTS population (
    generation INTEGER PRIMARY KEY, epsilon REAL, evaluations INTEGER, simulations INTEGER,
    failures INTEGER, log_evidence REAL, dispatched INTEGER, seconds REAL, digest TEXT, crc INTEGER,
    {", ".join(f"{name} BLOB" for name in _ARRAYS)});
CREATE TABLE IF NOT EXISTS journal (generation INTEGER, crc INTEGER, records BLOB);
{_ORDERS};
CREATE TABLE IF NOT EXISTS failure (
    generation INTEGER, id INTEGER, theta TEXT, error TEXT, traceback TEXT, place TEXT, kind TEXT,
    PRIMARY KEY (generation, id));
"""


class Store:
    """The file, open for writing. Use as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._is_new = self._is_discarded = False
        self._inode: tuple[int, int] | None = None
        self._damage: _DamagedError | None = None
        self._history: History | None = None
        self._unusable: int | None = None  # generations from here on go with the first write

    def __enter__(self) -> "Store":
        if not self.path.parent.is_dir():
            raise StoreError(f"the folder of {self.path} does not exist: make it first")
        self._lock = _lock(self.path)
        was_there = self.path.exists()
        try:
            with _errors_told(self.path):
                self._connect()
                self._check_kind()
        except _DamagedError as error:
            self._damage = error
            if not _is_ours(self.path):
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
        if isinstance(error, _DamagedError):
            raise self._checked(error) from error

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        if self._is_discarded:
            with suppress(OSError):
                os.unlink(self.path)
        if self._lock is not None:
            with suppress(OSError):
                os.unlink(_lock_path(self.path))
            os.close(self._lock)

    def settings(self) -> dict[str, Any] | None:
        """What the run in the file was begun with; None if the file is new.

        Raises StoreError if the file is damaged.
        """
        if self._is_new:
            return None
        if self._damage:
            raise self._damage
        with _errors_told(self.path):
            assert self._db is not None
            (found,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise _DamagedError(self.path, found.splitlines()[-1])
        return self.history().settings

    def renew(self, settings: dict[str, Any]) -> None:
        """Keep changed settings of the run that is continued."""
        with _errors_told(self.path), self._transaction() as db:
            _modernise(db)
            _set(db, "settings", json.dumps(settings))

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
        kept = {f"part {name}": blob for name, part in (parts or {}).items() if (blob := _portable(part))}
        values = {"settings": json.dumps(settings), "problem_name": problem_name, "reason": None, **kept}
        for name, value in (plain or {}).items():
            values[name] = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value)
        if parts and "part problem" not in kept:
            _log.warning(
                "the problem cannot be pickled, or takes more than %.0f MB: %s does not hold it, so that "
                "`mpiabc replay` needs --problem and its file",
                _MOST_PART / 1e6,
                self.path,
            )
        self._make_room()
        with _errors_told(self.path), self._transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            for key, value in [*values.items(), ("generations", 0)]:
                _set(db, key, value)

    def commit(self, population: Population, failures: list[Failure], reason: str | None) -> None:
        """Write a generation, all of it or nothing, and whether it ends the run.

        Its journal stays until the next one is committed, or the run ends: it may be taken back.
        """
        row = {name: kind(getattr(population, name)) for name, kind in _NUMBERS.items()}
        row |= {name: getattr(population, name).tobytes() for name in _ARRAYS}
        row["digest"] = population.digest()
        row["crc"] = _crc_of(row)
        places = ", ".join(f":{name}" for name in row)
        with _errors_told(self.path), self._transaction() as db:
            _modernise(db)
            db.execute(f"INSERT INTO population ({', '.join(row)}) VALUES ({places})", row)
            _insert(db, failures[:_MOST_FAILURES])
            _set(db, "generations", population.generation + 1)
            _set(db, "reason", reason)
            kept = population.generation if reason is None else population.generation + 1
            db.execute("DELETE FROM journal WHERE generation < ?", (kept,))

    def take_back(self, generation: int) -> None:
        """Leave the file as it was before this generation was committed; its journal is still there."""
        with _errors_told(self.path), self._transaction() as db:
            _drop(db, generation, first_of_journal=generation + 1)
            _set(db, "reason", None)
        self._history = None  # which may know what is gone

    def note(self, generation: int, records: list[bytes]) -> None:
        """Keep records of a generation that is not complete."""
        with _errors_told(self.path), self._transaction() as db:
            _insert_journal(db, generation, records)

    def note_anew(self, generation: int, records: list[bytes]) -> None:
        """Keep these records of a generation, and none of those kept before."""
        with _errors_told(self.path), self._transaction() as db:
            db.execute("DELETE FROM journal WHERE generation = ?", (generation,))
            _insert_journal(db, generation, records)

    def keep_order(self, level: int, told: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep what was decided for a level."""
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]  # of its allow_pickle
        row = told, packed.getvalue()
        with _errors_told(self.path), self._transaction() as db:
            _modernise(db)
            values = (level, _crc_of_order(*row), *row)
            db.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", values)

    def tell(self, topic: str, text: str, *, anew: bool = False) -> bool:
        """Keep what the user is told once a run; False if the topic was told before, perhaps less well."""
        notes = self.history().notes
        if topic in notes and not anew:
            return False
        with _errors_told(self.path), self._transaction() as db:
            _set(db, "notes", json.dumps(notes | {topic: text}))
        return topic not in notes

    def noted(self, generation: int) -> Iterator[bytes]:
        """The records kept of an open generation; damaged ones are left out, to be computed again."""
        with _errors_told(self.path):
            assert self._db is not None
            query = "SELECT crc, records FROM journal WHERE generation = ?"
            rows = self._db.execute(query, (generation,)).fetchall()
        return _whole_buffers(rows)

    def finish(self, reason: str, failure: Failure | None = None) -> None:
        """Note what ended the run: a stopping rule, or what stopped it early, such as a failure."""
        with _errors_told(self.path), self._transaction() as db:
            _set(db, "reason", reason)
            _insert(db, [failure] if failure else [])
            db.execute("DELETE FROM journal WHERE generation IN (SELECT generation FROM population)")

    def go_on(self) -> None:
        """Forget what ended the run before."""
        with _errors_told(self.path), self._transaction() as db:
            _set(db, "reason", None)
            db.execute("DELETE FROM failure WHERE generation NOT IN (SELECT generation FROM population)")

    def discard_if_new(self) -> None:
        """Leave no file behind a problem that never ran."""
        if self._is_new and not len(self.history()):
            self._is_discarded = True

    def history(self) -> "History":
        """The read-only view, one for all that is asked while the file is open."""
        if self._history is None:
            self._history = History(self.path)
            self._unusable = self._history._unusable
        return self._history

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._db is not None
        self._check_place()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self._unusable is not None:
                _drop(self._db, self._unusable, self._unusable)
            yield self._db
            self._db.execute("COMMIT")
            self._unusable = None
        except BaseException:
            if self._db.in_transaction:  # some errors have rolled it back already
                self._db.execute("ROLLBACK")
            raise

    def _checked(self, error: "_DamagedError") -> StoreError:
        """Damage that was met, with the way out of it if a check of the whole file finds damage too."""
        found = _damage(self.path)
        if found is None:
            return StoreError(
                f"{self.path} could not be read ({error.found}), yet a check of it finds no damage: run the "
                "same command again"
            )
        return _DamagedError(self.path, found, "start again from a copy of it, or with overwrite=True")

    def _connect(self) -> None:
        self._db = _connect(self.path, "mode=rwc")
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("BEGIN IMMEDIATE")  # finds out now whether the file can be written
        self._db.execute("ROLLBACK")
        self._inode = _inode(self.path)

    def _check_place(self) -> None:
        """What is written into a file that has no name any more would be lost without a word."""
        if self._inode != _inode(self.path):
            raise StoreError(
                f"{self.path} was deleted, moved or replaced while the run was going on: put it back, if you "
                "can, and run the same command again"
            )

    def _check_kind(self) -> None:
        """A new file may be ours; another program's file is left alone."""
        assert self._db is not None
        self._is_new = self.path.stat().st_size == 0
        if not self._is_new:
            _check_format(self._db, self.path)

    def _make_room(self) -> None:
        """Leave nothing of what is in the file, which may be damaged."""
        if self._is_new:
            return
        assert self._db is not None
        self._db.close()
        try:
            for path in (self.path.with_name(self.path.name + "-journal"), self.path):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove what is in {path}: {error.strerror}") from None
        with _errors_told(self.path):
            self._connect()
        self._is_new, self._history, self._unusable = True, None, None


def _drop(db: sqlite3.Connection, generation: int, first_of_journal: int) -> None:
    """Forget this generation and all after it."""
    for table in ("population", "failure"):
        db.execute(f"DELETE FROM {table} WHERE generation >= ?", (generation,))
    db.execute("DELETE FROM journal WHERE generation >= ?", (first_of_journal,))
    if "level" in _columns(db, "orders"):
        db.execute("DELETE FROM orders WHERE level >= ?", (first_of_journal,))
    _set(db, "generations", generation)


def _set(db: sqlite3.Connection, key: str, value: Any) -> None:
    db.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?)", (key, value, _crc(value)))


def _crc(value: Any) -> int:
    return zlib.crc32(value if isinstance(value, bytes) else repr(value).encode())


def _crc_of(row: Mapping[str, Any]) -> int:
    """Of what the digest of a population leaves out; older files lack columns."""
    crc = _crc(tuple(row[name] for name in _NUMBERS))
    for name in _ARRAYS:
        if name not in _DIGESTED and row[name] is not None:
            crc = zlib.crc32(row[name], crc)
    return crc


def _modernise(db: sqlite3.Connection) -> None:
    """Give the file of an older mpiabc today's format; what it lacks stays unknown."""
    for name in _ARRAYS.keys() - _columns(db, "population"):
        db.execute(f"ALTER TABLE population ADD COLUMN {name} BLOB")
    db.execute(_ORDERS)
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    """Those of a table; older files lack some, or all."""
    return {name for _, name, *_ in db.execute(f'PRAGMA table_info("{table}")')}


def _crc_of_order(told: str, arrays: bytes) -> int:
    return zlib.crc32(arrays, zlib.crc32(told.encode()))


def _insert_journal(db: sqlite3.Connection, generation: int, records: list[bytes]) -> None:
    blob = b"".join(len(buffer).to_bytes(8, "little") + buffer for buffer in records)
    db.execute("INSERT INTO journal VALUES (?, ?, ?)", (generation, zlib.crc32(blob), blob))


def _insert(db: sqlite3.Connection, failures: list[Failure]) -> None:
    rows = [
        (f.generation, f.index, json.dumps(f.theta), f.error, f.traceback, f.where, f.kind) for f in failures
    ]
    db.executemany("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


class Journal:
    """Keeps what is finished of open generations, in batches: at most so long is lost with the process.

    Nothing is written that has been home for less than `DOUBT`: a signal may be behind it. Where writing is
    slow it is done less often, so that it takes at most a fiftieth of the time.
    """

    def __init__(
        self, store: Store, period: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._period, self._clock = store, period, clock
        self._pending: deque[tuple[float, Records]] = deque()  # the oldest first
        self._next = clock() + period

    def add(self, records: Records) -> None:
        """Take records in; they are written when it is time."""
        self._pending.append((self._clock(), records))

    def forget(self, lease: Lease) -> None:
        """Drop what came of the lease, written or not."""
        pending = [entry for entry in self._pending if entry[1].lease != lease]
        is_written = len(pending) == len(self._pending)
        self._pending = deque(pending)
        if is_written:
            t = generation_of(lease.job)
            kept = [buffer for buffer in self._store.noted(t) if not _is_within(unpack(buffer), lease)]
            self._store.note_anew(t, kept)

    def tick(self) -> None:
        """Write if it is time: also what came in shortly before a long silence."""
        if self._pending and self._clock() >= self._next:
            self.flush(self._clock() - DOUBT)

    def flush(self, before: float = math.inf) -> None:
        """Write now what came home before that time."""
        began = self._clock()
        due: dict[int, list[bytes]] = defaultdict(list)
        while self._pending and self._pending[0][0] < before:
            _, records = self._pending.popleft()
            t = generation_of(records.job)
            due[t].append(pack(replace(records, job=t)))
        for t, buffers in due.items():
            self._store.note(t, buffers)
        now = self._clock()
        self._next = now + max(self._period, 50 * (now - began))

    def void(self, generation: int) -> None:
        """Drop what is not written of this generation and later ones."""
        self._pending = deque(entry for entry in self._pending if generation_of(entry[1].job) < generation)

    def recover(self, generation: int) -> Iterator[Records]:
        """What an earlier process has kept of this generation."""
        return map(unpack, self._store.noted(generation))


def _is_within(records: Records, lease: Lease) -> bool:
    return lease.start <= records.start and records.stop <= lease.stop


class History:
    """The committed populations of a run, read-only; safe while the run goes on."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"there is no file {self.path}")
        self._populations: dict[int, Population] = {}
        self._unusable: int | None = None  # the first generation that is left out, with all after it
        len(self)  # it can be read

    def __repr__(self) -> str:
        return f"<History {str(self.path)!r}: {len(self)} generations of {self.problem_name}>"

    def __len__(self) -> int:
        noted = "SELECT value FROM run WHERE key = 'generations'"
        doubtful = "min(CASE WHEN log_evidence IS NULL THEN generation END)"
        query = f"SELECT count(*), max(generation), ({noted}), {doubtful} FROM population"
        for _ in _attempts():
            ((count, last, noted, doubtful),) = self._read(query)
            if count == noted == (0 if last is None else last + 1):
                if doubtful is None or not self._is_unusable(doubtful):
                    return count
                return doubtful
        raise _DamagedError(self.path, f"{count} generations of {noted} are there")

    def __getitem__(self, t: int) -> Population:
        at, n = whole(t), len(self)
        if at is None:
            raise TypeError(
                f"history[{t!r}]: give the whole number of one generation, slices are not supported"
            )
        if not -n <= at < n:
            raise IndexError(f"generation {at} of {n} committed ones")
        generation = at % n
        if generation not in self._populations:
            self._populations[generation] = self._load(generation)
        return self._populations[generation]

    def __iter__(self) -> Iterator[Population]:
        return (self[t] for t in range(len(self)))

    def order(self, level: int) -> tuple[str, dict[str, np.ndarray]] | None:
        """What was decided for a level, as JSON and arrays; None if the file does not have it whole."""
        with _errors_told(self.path), closing(_connect_to_read(self.path)) as db:
            if "level" not in _columns(db, "orders"):
                return None  # a file of an older mpiabc
        for crc, told, arrays in self._read("SELECT crc, told, arrays FROM orders WHERE level = ?", level):
            with suppress(AttributeError, TypeError):  # what is damaged may be of any type
                if crc == _crc_of_order(told, arrays):
                    with np.load(io.BytesIO(arrays), allow_pickle=False) as found:
                        return told, dict(found)
        return None

    @property
    def reason(self) -> str | None:
        """What ended the run: a stopping rule, or "interrupted: ..." or "failed: ..."; None: it goes on.

        None too after a death that left no time to write; the run can be continued after all of these.
        """
        return self._setting("reason")

    @property
    def notes(self) -> dict[str, str]:
        """What the user was told of the run, by topic."""
        return json.loads(self._setting("notes", "{}"))

    @property
    def warnings(self) -> list[str]:
        """What casts doubt on the run, such as a collapse, each told once."""
        return list(self.notes.values())

    @property
    def problem_name(self) -> str:
        """The name of the problem."""
        return self._setting("problem_name") or ""

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was begun with."""
        return json.loads(self._setting("settings") or "{}")

    @property
    def observed(self) -> np.ndarray | None:
        """The observed data as the row (k,) that `summaries` are compared with; None in older files."""
        row = self._setting("observed", None)
        return None if row is None else np.frombuffer(row, np.float64)

    @property
    def labels(self) -> list[str] | None:
        """A name for each number of a row of `summaries`; None in older files, and for very long rows."""
        return json.loads(self._setting("labels", "null"))

    @property
    def bounds(self) -> list[list[float] | None] | None:
        """The ends of each parameter's support, None where they are not known."""
        return json.loads(self._setting("bounds", "null"))

    def part(self, name: str) -> Any:
        """The run's "problem", "kernel" or "threshold"; executes code that the file holds.

        Raises StoreError if the file does not hold it, or if it cannot be rebuilt here.
        """
        blob = self._setting(f"part {name}", None)
        if blob is None:
            raise StoreError(f"{self.path} does not hold its {name}, which could not be pickled")
        path, inner = pickle.loads(blob)
        sys.path += [folder for folder in path if folder not in sys.path]
        try:
            body, buffers = (inner, ()) if isinstance(inner, bytes) else inner  # the former: in older files
            return pickle.loads(body, buffers=buffers)
        except Exception as error:
            raise StoreError(
                f"the {name} in {self.path} cannot be rebuilt here ({type(error).__name__}: {error}): use "
                "the environment and the folders that the run had"
            ) from error

    @property
    def failures(self) -> list[Failure]:
        """Failed evaluations by address: below the cuts, of the open generation, and what ended the run."""
        rows = self._read(
            "SELECT generation, id, theta, error, traceback, place, kind FROM failure ORDER BY generation, id"
        )
        journal = self._read("SELECT crc, records FROM journal")
        try:
            kept = [Failure(t, id, json.loads(theta), *rest) for t, id, theta, *rest in rows]
            noted = [failure for buffer in _whole_buffers(journal) for failure in unpack(buffer).failures]
        except (TypeError, ValueError) as error:
            raise _DamagedError(self.path, f"its failures: {error}") from None
        by_address = {(failure.generation, failure.index): failure for failure in noted + kept}
        return [by_address[address] for address in sorted(by_address)]

    def to_dataframe(self) -> Any:
        """All populations in one pandas data frame, with the generation as a column."""
        frames = [population.to_dataframe().assign(generation=t) for t, population in enumerate(self)]
        import pandas

        return pandas.concat(frames, ignore_index=True)

    def to_arviz(self, draws: int = 1000, seed: int = 0) -> Any:
        """The last population, resampled to equal weights, as ArviZ has it: InferenceData, or a DataTree."""
        try:
            import arviz
        except ImportError:
            raise ImportError("to_arviz needs arviz: install `mpiabc[arviz]`") from None
        theta = self[-1].resample(draws, np.random.default_rng(seed))
        posterior = {name: column[None] for name, column in zip(self[-1].names, theta.T, strict=True)}
        groups = inspect.signature(arviz.from_dict).parameters
        if "posterior" in groups:  # ArviZ 0.x
            return arviz.from_dict(posterior=posterior)
        return arviz.from_dict({"posterior": posterior})

    def _is_unusable(self, generation: int) -> bool:
        """Whether a generation without evidence is as it was written: nan weights were let pass once."""
        if generation != self._unusable:
            row = next(self._rows(generation), {})
            if not row or _content(row | {"log_evidence": math.nan}, self._names()) is None:
                return False  # it is damaged, which is told when it is read
            self._unusable = generation
            _log.warning(
                "%s: the weights of generation %d are no numbers, as prior or kernel gave nan or infinite "
                "densities: it is left out, with all after it",
                self.path,
                generation,
            )
        return True

    def _load(self, generation: int) -> Population:
        """A population, checked by its digest: a reader without locks may meet a half-written file."""
        names = self._names()
        for _ in _attempts():
            row: dict[str, Any] = {}
            for row in self._rows(generation):
                population = _content(row, names)
                if population is not None:
                    return population
        if not row:
            raise StoreError(f"{self.path} does not hold generation {generation} any more: open it again")
        raise _DamagedError(
            self.path, f"the content of generation {generation} does not have the digest stored with it"
        )

    def _rows(self, generation: int) -> Iterator[dict[str, Any]]:
        """The row of a generation, if it is there."""
        names = (*_NUMBERS, *_ARRAYS, "digest", "crc")
        with _errors_told(self.path), closing(_connect_to_read(self.path)) as db:
            there = _columns(db, "population")
        asked = (name if name in there else f"NULL AS {name}" for name in names)
        query = f"SELECT {', '.join(asked)} FROM population WHERE generation = ?"
        return (dict(zip(names, values, strict=True)) for values in self._read(query, generation))

    def _names(self) -> tuple[str, ...]:
        return tuple(self.settings["names"])

    def _setting(self, key: str, *default: Any) -> Any:
        for _ in _attempts():
            rows = self._read("SELECT value, crc FROM run WHERE key = ?", key)
            if not rows and default:
                return default[0]
            if rows and _crc(rows[0][0]) == rows[0][1]:
                return rows[0][0]
        raise _DamagedError(self.path, f"its {key} {'is not what was written' if rows else 'is missing'}")

    def _read(self, query: str, *values: Any) -> list[tuple]:
        with _errors_told(self.path), closing(_connect_to_read(self.path)) as db:
            _check_format(db, self.path)
            return db.execute(query, values).fetchall()


def _content(row: Mapping[str, Any], names: tuple[str, ...]) -> Population | None:
    """The population of a row; None if it is not as it was written."""
    with suppress(TypeError, ValueError):  # what is damaged may be of any type
        population = _population(row, names)
        if population.digest() == row["digest"] and row["crc"] in map(_crc_of, _written(row)):
            return population
    return None


def _written(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What may have been written: epsilon was once taken as a threshold gave it, and a crc sees its type."""
    yield row
    epsilon = row["epsilon"]
    if isinstance(epsilon, float):
        yield {**row, "epsilon": np.float64(epsilon)}
        if epsilon.is_integer():
            yield {**row, "epsilon": int(epsilon)}


def _population(row: Mapping[str, Any], names: tuple[str, ...]) -> Population:
    n = len(row["weights"]) // 8
    arrays: dict[str, Any] = {
        name: np.frombuffer(row[name], column.dtype).reshape(column.shape(n, {"d": len(names), "k": -1}))
        for name, column in _ARRAYS.items()
        if row[name] is not None
    }
    return Population(names=names, **arrays, **{name: row[name] for name in _NUMBERS})


class _DamagedError(StoreError):
    """The file is not as it was written: what was `found`.

    Who only reads is not told to write over it, and who writes only when a check has found damage too.
    """

    def __init__(self, path: Path, found: str, remedy: str = "read a copy of it, if there is one") -> None:
        super().__init__(f"{path} is damaged ({found}): {remedy}")
        self.found = found


def _damage(path: Path) -> str | None:
    """What SQLite's check of a whole file, or our own checksums, find damaged; None if nothing."""
    try:
        with _errors_told(path), closing(_connect_to_read(path)) as db:
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            return found.splitlines()[-1]
        history = History(path)
        _ = history.settings, history.reason, history.problem_name, list(history), history.failures
    except _DamagedError as error:
        return error.found
    except StoreError:  # it cannot be read now, which is no damage
        pass
    return None


def _is_ours(path: Path) -> bool:
    """Whether a file that SQLite cannot read begins as ours do."""
    with path.open("rb") as file:
        return file.read(72)[68:] == _APPLICATION.to_bytes(4, "big")


def _portable(part: object) -> bytes | None:
    """A part with the folders that its modules came from; None if it cannot be pickled, or is huge.

    Pickling stops at the limit, before anything huge is copied.
    """
    body, buffers = _Limited(_MOST_PART), []

    def put_aside(buffer: pickle.PickleBuffer) -> None:
        body.count(buffer.raw().nbytes)
        buffers.append(bytes(buffer.raw()))

    try:
        cloudpickle.Pickler(body, 5, put_aside).dump(part)
        return pickle.dumps((sys.path, (body.getvalue(), buffers)))
    except Exception:
        return None


class _Limited(io.BytesIO):
    """A file in memory that takes so many bytes; raises OverflowError for more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def count(self, n: int) -> None:
        """Take `n` bytes off what is left."""
        self._left -= n
        if self._left < 0:
            raise OverflowError("too large")

    def write(self, data: Any) -> int:
        """Write if there is room."""
        self.count(memoryview(data).nbytes)
        return super().write(data)


def _whole_buffers(rows: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """The buffers in rows of the journal; those of damaged rows are left out."""
    for crc, blob in rows:
        at = 0 if zlib.crc32(blob) == crc else len(blob)
        while at < len(blob):
            end = at + 8 + int.from_bytes(blob[at : at + 8], "little")
            yield blob[at + 8 : end]
            at = end


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size == 0:
        raise StoreError(f"{path} is empty: no run has begun in it")
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise StoreError(f"{path} is a database of another program: give another file name")
    if version not in (FORMAT, *_OLDER):
        raise StoreError(
            f"{path} has format {version}, this mpiabc reads {FORMAT}: use the one that wrote it"
        )


# Connections: with the system's file locks where they work, without where they do not.


def _connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection; `options` are those of an SQLite URI."""
    if not _locks_work(path.absolute()):
        options = f"{options}&nolock=1"
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    last: sqlite3.OperationalError | None = None
    for _ in _attempts():
        for mode in ("ro", "rw"):  # the second rolls back what a killed run had begun to write
            db = _connect(path, f"mode={mode}")
            try:
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return db
            except sqlite3.Error as error:
                db.close()
                if not isinstance(error, sqlite3.OperationalError):
                    raise
                last = error
    assert last is not None
    raise last


@cache
def _locks_work(path: Path) -> bool:
    """Whether the file system has the locks that SQLite uses; asked of a file beside, if there is one."""
    probe = _lock_path(path) if _lock_path(path).exists() else path
    try:
        import fcntl

        fd = os.open(probe, os.O_RDONLY)
    except (ImportError, OSError):
        return True
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            _log.info("file locks do not work for %s: going on without them", path)
            return False
    finally:
        os.close(fd)
    return True


def _inode(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _attempts(n: int = 5) -> Iterator[int]:
    for i in range(n):
        yield i
        time.sleep(0.02 * 2**i)


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int | None:
    """A lock that dies with this process; None where the file system has none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fd = os.open(_lock_path(path), os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise StoreError(
            f"cannot write beside {path} ({error.strerror}): make its folder "
            "writable, or give another file name"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink == 0:  # the run before has just ended, and taken its lock with it
            os.close(fd)
            return _lock(path)
    except BlockingIOError:
        os.close(fd)
        raise StoreError(
            f"{path} is in use by another run: wait for it to end, or give another file name"
        ) from None
    except OSError:
        os.close(fd)
        return None
    return fd


@contextmanager
def _errors_told(path: Path) -> Iterator[None]:
    """SQLite's errors as StoreError, with what to do."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")  # without: text that cannot be decoded
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_ERROR")):
            raise _DamagedError(path, str(error)) from error
        advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), "{error}")
        raise StoreError(f"{path}: {advice.format(error=error)}") from error


_ADVICE = {
    "SQLITE_FULL": "the disk is full; make room and run the same command again",
    "SQLITE_READONLY_DBMOVED": "it was deleted, moved or replaced while the run was going on",
    "SQLITE_IOERR": "it cannot be read or written ({error}); see whether the disk, or "
    "your share of it, is full",
    "SQLITE_READONLY": "it cannot be written; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check the path and the permissions of the file and its folder",
    "SQLITE_NOTADB": "it is not an mpiabc run (no SQLite database), or its beginning is damaged; "
    "give another file name",
    "SQLITE_BUSY": "another program holds it locked; close that and run the same command again",
}
