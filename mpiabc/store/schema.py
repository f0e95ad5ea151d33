"""What is in the file: its tables, their rows and checksums, and what older files lack of them."""

import io
import json
import re
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mpiabc.errors import StoreError
from mpiabc.particles import Column, Particles, columns, unpacked
from mpiabc.population import Model, Population, width_of
from mpiabc.records import Failure
from mpiabc.simulations import Simulations, chunks, read
from mpiabc.store.files import DamagedError, connect_to_read, errors_reported

FORMAT = 7
_OLDER = (2, 3, 4, 5, 6)  # formats that are read, and written on in the new one
_APPLICATION = 0x41424353  # "ABCS", SQLite's application_id
_MOST_SHOWN = 60  # characters of somebody's declaration

NUMBERS: dict[str, type] = {  # and what SQLite gives back of them, whatever number was written
    "generation": int,
    "first": int,
    "epsilon": float,
    "evaluations": int,
    "simulations": int,
    "failures": int,
    "log_evidence": float,
    "dispatched": int,
    "seconds": float,
}
ARRAYS = {"weights": Column("weigh")} | columns()
_DIGESTED = ("ids", "theta", "weights", "distances")  # by `Population.digest`

_POPULATION = f"""
    generation INTEGER PRIMARY KEY, first INTEGER, epsilon REAL, evaluations INTEGER, simulations INTEGER,
    failures INTEGER, log_evidence REAL, dispatched INTEGER, seconds REAL, digest TEXT, crc INTEGER,
    {", ".join(f"{name} BLOB" for name in ARRAYS)}"""
_PARTIALS = f"CREATE TABLE IF NOT EXISTS partial ({_POPULATION})"
_ORDERS = "CREATE TABLE IF NOT EXISTS orders (level INTEGER PRIMARY KEY, crc INTEGER, told TEXT, arrays BLOB)"
_SAMPLES = (
    "CREATE TABLE IF NOT EXISTS sample (generation INTEGER PRIMARY KEY, crc INTEGER, widths TEXT, rows BLOB)"
)
_SIMULATIONS = (
    "CREATE TABLE IF NOT EXISTS simulation (generation INTEGER, chunk INTEGER, crc INTEGER, told TEXT, "
    "rows BLOB, PRIMARY KEY (generation, chunk))"
)
_POOLS = "CREATE TABLE IF NOT EXISTS pool (generation INTEGER PRIMARY KEY, crc INTEGER, arrays BLOB)"
SCHEMA = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value, crc INTEGER);
CREATE TABLE IF NOT EXISTS population ({_POPULATION});
CREATE TABLE IF NOT EXISTS journal (generation INTEGER, crc INTEGER, records BLOB);
{_ORDERS};
{_SAMPLES};
{_SIMULATIONS};
{_PARTIALS};
{_POOLS};
CREATE TABLE IF NOT EXISTS failure (
    generation INTEGER, id INTEGER, theta TEXT, error TEXT, traceback TEXT, place TEXT, kind TEXT,
    PRIMARY KEY (generation, id));
"""


def is_ours(path: Path) -> bool:
    """Whether a file that SQLite cannot read begins as ours do."""
    with path.open("rb") as file:
        return file.read(72)[68:] == _APPLICATION.to_bytes(4, "big")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read from a file that is seen to be a run's."""
    with errors_reported(path), closing(connect_to_read(path)) as db:
        check_format(db, path)
        yield db


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError if the file is not one that this mpiabc reads, whoever has made it."""
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
    _check_declarations(db, path)


_PLAIN = re.compile(
    r'CREATE (TABLE|INDEX|UNIQUE INDEX) [\w\s"]+\((PRIMARY KEY ?\([\w\s,"]+\)|[\w\s,"])*+\)', re.IGNORECASE
)


def _check_declarations(db: sqlite3.Connection, path: Path) -> None:
    """Raise DamagedError for what is no plain table: a view or an expression may compute for ever."""
    for name, declared in db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"):
        if not _PLAIN.fullmatch(str(declared)):
            text = str(declared)[:_MOST_SHOWN]
            raise DamagedError(path, f"{str(name)[:_MOST_SHOWN]!r} in it is no plain table: {text!r}")


def modernise(db: sqlite3.Connection) -> None:
    """Give the file of an older mpiabc today's format; what it lacks stays unknown."""
    for name in (NUMBERS.keys() | ARRAYS.keys()) - columns_of(db, "population"):
        db.execute(f"ALTER TABLE population ADD COLUMN {name} {'BLOB' if name in ARRAYS else 'INTEGER'}")
    db.execute(_ORDERS)
    for declared in (_SAMPLES, _SIMULATIONS, _PARTIALS, _POOLS):
        db.execute(declared)
    db.execute(f"PRAGMA user_version = {FORMAT}")


def lacking(db: sqlite3.Connection) -> str:
    """What a file of today's format lacks of its tables, which older ones get; empty if nothing.

    Nor may text of the run be none: some of it is read late, when there is work that would be lost.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for table, expected in _tables().items() if version == FORMAT else ():
        if missing := sorted(expected - columns_of(db, table)):
            return f"its table {table} has no {', '.join(missing)}"
    try:
        db.execute("SELECT value FROM run WHERE typeof(value) = 'text'").fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        return "its table run has text that cannot be decoded"
    return ""


@cache
def _tables() -> dict[str, set[str]]:
    """The columns of all tables."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: columns_of(db, name) for name in names}


def columns_of(db: sqlite3.Connection, table: str) -> set[str]:
    """Those of a table; older files lack some, or all."""
    return {name for _, name, *_ in db.execute(f'PRAGMA table_info("{table}")')}


def put(db: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep a value of the run, in place of what was kept under this key."""
    db.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?)", (key, value, crc_of(value)))


def drop(db: sqlite3.Connection, generation: int, first_of_journal: int) -> None:
    """Forget this generation and all after it."""
    for table in ("population", "failure"):
        db.execute(f"DELETE FROM {table} WHERE generation >= ?", (generation,))
    db.execute("DELETE FROM journal WHERE generation >= ?", (first_of_journal,))
    if "level" in columns_of(db, "orders"):
        db.execute("DELETE FROM orders WHERE level >= ?", (first_of_journal,))
    for table in ("sample", "pool"):
        if "generation" in columns_of(db, table):
            db.execute(f"DELETE FROM {table} WHERE generation >= ?", (generation,))
    drop_simulations(db, generation)
    put(db, "generations", generation)


def drop_simulations(db: sqlite3.Connection, generation: int) -> None:
    """Forget what is kept of all simulations of this generation and those after it, and what was partial."""
    for table in ("simulation", "partial"):
        if "generation" in columns_of(db, table):
            db.execute(f"DELETE FROM {table} WHERE generation >= ?", (generation,))
    db.execute("DELETE FROM run WHERE key = 'partial'")


def insert_simulations(db: sqlite3.Connection, generation: int, rows: Simulations) -> None:
    """Keep all simulations of a generation, in chunks."""
    for number, (header, content) in enumerate(chunks(rows)):
        text = json.dumps(header)
        values = (generation, number, crc_of_order(text, content), text, content)
        db.execute("INSERT INTO simulation VALUES (?, ?, ?, ?, ?)", values)


def whole_chunk(generation: int, crc: int, text: str, content: bytes) -> Simulations | None:
    """What `insert_simulations` has kept as one chunk; None if it is not as it was written."""
    with suppress(TypeError, ValueError, AttributeError, ArithmeticError, LookupError, MemoryError):
        if crc == crc_of_order(text, content):
            return read(json.loads(text), content, generation)
    return None


def row_of(population: Population) -> dict[str, Any]:
    """A population as the row of a table."""
    numbers = {name: getattr(population, name) for name in NUMBERS}
    row = {
        name: value.tobytes() if isinstance(value, np.ndarray) else NUMBERS[name](value)
        for name, value in numbers.items()
    }
    row |= {name: blob_of(name, getattr(population, name)) for name in ARRAYS}
    row["digest"] = population.digest()
    row["crc"] = crc_of_row(row)
    return row


def insert_row(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Put a row into a table."""
    places = ", ".join(f":{name}" for name in row)
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", row)


def packed_arrays(arrays: list[np.ndarray]) -> bytes:
    """Arrays as one buffer, each as NumPy's files have it."""
    buffer = io.BytesIO()
    for array in arrays:
        np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpacked_arrays(content: bytes) -> list[np.ndarray]:
    """The inverse of `packed_arrays`; nothing is unpickled."""
    buffer, arrays = io.BytesIO(content), []
    while buffer.tell() < len(content):
        arrays.append(np.lib.format.read_array(buffer, allow_pickle=False))
    return arrays


def blob_of(name: str, array: np.ndarray) -> bytes:
    """A column of a population; as NumPy's files have it where it is not of the declared type."""
    return array.tobytes() if array.dtype == ARRAYS[name].dtype else packed_arrays([array])


def insert_journal(db: sqlite3.Connection, generation: int, records: list[bytes]) -> None:
    """Add records to the journal, as one row; `whole_buffers` gives them back."""
    blob = b"".join(len(buffer).to_bytes(8, "little") + buffer for buffer in records)
    db.execute("INSERT INTO journal VALUES (?, ?, ?)", (generation, zlib.crc32(blob), blob))


def insert_sample(db: sqlite3.Connection, generation: int, sample: Particles) -> None:
    """Keep the sample of a generation, and that of the one before, from which it was ordered."""
    widths = json.dumps({"m": len(sample)} | sample.widths())
    content = sample.pack()
    values = (generation, crc_of_order(widths, content), widths, content)
    db.execute("INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?)", values)
    db.execute("DELETE FROM sample WHERE generation < ?", (generation - 1,))


def insert_pool(db: sqlite3.Connection, generation: int, arrays: list[np.ndarray]) -> None:
    """Keep how all simulations are weighted and measured after a batch."""
    content = packed_arrays(arrays)
    db.execute("INSERT OR REPLACE INTO pool VALUES (?, ?, ?)", (generation, zlib.crc32(content), content))


def whole_pool(crc: int, content: bytes) -> list[np.ndarray] | None:
    """What `insert_pool` has kept; None if it is not as it was written."""
    with suppress(TypeError, ValueError, AttributeError, MemoryError):
        if crc == zlib.crc32(content):
            return unpacked_arrays(content)
    return None


def whole_sample(crc: int, widths: str, content: bytes) -> Particles | None:
    """A sample that was kept; None if it is not as it was written."""
    with suppress(TypeError, ValueError, AttributeError, ArithmeticError, LookupError, MemoryError):
        if crc == crc_of_order(widths, content):
            sizes = json.loads(widths)
            return unpacked(content, 0, sizes.pop("m"), sizes)
    return None


def insert_failures(db: sqlite3.Connection, failures: list[Failure]) -> None:
    """Keep failures, each once."""
    rows = [
        (f.generation, f.index, json.dumps(f.theta), f.error, f.traceback, f.where, f.kind) for f in failures
    ]
    db.executemany("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def crc_of(value: Any) -> int:
    """Of a value of the run."""
    return zlib.crc32(value if isinstance(value, bytes) else repr(value).encode())


def crc_of_row(row: Mapping[str, Any]) -> int:
    """Of what the digest of a population leaves out; older files lack columns."""
    crc = crc_of(tuple(_numbers(row).values()))
    for name in ARRAYS:
        if name not in _DIGESTED and row[name] is not None:
            crc = zlib.crc32(row[name], crc)
    return crc


def crc_of_order(text: str, arrays: bytes) -> int:
    """Of what was decided for a level."""
    return zlib.crc32(arrays, zlib.crc32(text.encode()))


def whole_buffers(rows: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """The buffers in rows of the journal; those of damaged rows are left out."""
    for crc, blob in rows:
        at = 0 if zlib.crc32(blob) == crc else len(blob)
        while at < len(blob):
            end = at + 8 + int.from_bytes(blob[at : at + 8], "little")
            yield blob[at + 8 : end]
            at = end


def content(
    row: Mapping[str, Any], names: tuple[str, ...], models: tuple[Model, ...] = ()
) -> Population | None:
    """The population of a row; None if it is not as it was written."""
    with suppress(TypeError, ValueError, ArithmeticError):  # what is damaged may be of any type
        if row["crc"] in map(crc_of_row, _written(row)):
            population = _population(row, names, models)
            return population if population.digest() == row["digest"] else None
    return None


def _written(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What may have been written: epsilon was once taken as a threshold gave it, and a crc sees its type."""
    yield row
    epsilon = row["epsilon"]
    if isinstance(epsilon, float):
        yield {**row, "epsilon": np.float64(epsilon)}
        if epsilon.is_integer():
            yield {**row, "epsilon": int(epsilon)}


def _population(row: Mapping[str, Any], names: tuple[str, ...], models: tuple[Model, ...]) -> Population:
    n, d = len(row["weights"]) // 8, width_of(names, models)
    arrays: dict[str, Any] = {}
    for name, column in ARRAYS.items():
        if row[name] is not None:
            array = _column(row[name], column)
            many = len(array) // n
            several = {"c": many if many > 1 else 0, "d": d}
            arrays[name] = array.reshape(column.shape(n, {column.width: several.get(column.width, many)}))
    numbers = _numbers(row)
    if isinstance(numbers["epsilon"], bytes):  # of several distances
        numbers["epsilon"] = np.frombuffer(numbers["epsilon"], np.float64)
    return Population(names=names, models=models, **arrays, **numbers)


def _column(blob: bytes, column: Column) -> np.ndarray:
    """The inverse of `blob_of`, as one row of numbers."""
    if blob.startswith(np.lib.format.MAGIC_PREFIX):
        (array,) = unpacked_arrays(blob)
        return array.ravel()
    return np.frombuffer(blob, column.dtype)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a row; older files do not say the first id."""
    return {name: row[name] for name in NUMBERS if name != "first" or row[name] is not None}
