"""Files of others: nothing of them is executed, and nothing computed, unless the user says so."""

import os
import sqlite3
from contextlib import closing

import cloudpickle
import pytest

import mpiabc
from mpiabc import cli
from mpiabc.store.schema import crc_of, crc_of_order, put
from tests import problems


@pytest.fixture
def finished(tmp_path):
    """A finished run's file."""
    return problems.sampler(n=20).run(tmp_path / "run.db", scheduler="serial").path


class Evil:
    """What leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self._mark),)


def changed(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


# Code.


@pytest.mark.parametrize("part", ["problem", "kernel", "threshold"])
def test_nothing_of_a_file_is_executed_without_trust(part, finished, tmp_path, capsys):
    """A file that does not say what was decided, and holds the parts that could decide it again."""
    mark, script = tmp_path / "mark", tmp_path / "fit.py"
    script.write_text("from tests import problems\n\nproblem = problems.problem()\n")
    changed(finished, "DELETE FROM orders")
    if part == "threshold":  # the open generation, whose epsilon nobody has
        changed(
            finished, "DELETE FROM population WHERE generation = 2", "DELETE FROM run WHERE key = 'reason'"
        )
    blob = cloudpickle.dumps(([], (cloudpickle.dumps(Evil(mark)), [])))
    with closing(sqlite3.connect(finished, isolation_level=None)) as db:
        put(db, f"part {part}", blob)
        put(db, "reason", None)
        if part == "threshold":
            put(db, "generations", 2)
    mine = [] if part == "problem" else ["--problem", str(script)]
    assert cli.main(["show", str(finished)]) == 0
    capsys.readouterr()
    assert cli.main(["replay", str(finished), "2:3", *mine]) == 1
    assert capsys.readouterr().err == (
        f"mpiabc: this would execute the {part} that {finished} holds: give --trust if you trust whoever "
        f"made that file{'; --problem FILE takes another one' if part == 'problem' else ''}\n"
    )
    with pytest.raises(mpiabc.StoreError, match="give trust=True if you trust whoever made that file"):
        mpiabc.open(finished).part(part)
    assert not mark.exists()
    with pytest.raises(AttributeError):  # it is no kernel
        cli.main(["replay", str(finished), "2:3", *mine, "--trust"])
    assert mark.exists()


# What computes.

_LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000)"  # or without a limit
_IN_PLACE_OF_A_TABLE = {
    "a view": ["DROP TABLE failure", f"CREATE VIEW failure AS {_LONG} SELECT * FROM n"],
    "a trigger": ["CREATE TRIGGER t AFTER INSERT ON run BEGIN DELETE FROM population; END"],
    "a column that computes": ["ALTER TABLE failure ADD COLUMN x AS (abs(id))"],
    "an index that computes": ["CREATE INDEX x ON failure (abs(id))"],
    "a check": ["DROP TABLE failure", "CREATE TABLE failure (id INTEGER CHECK (abs(id)))"],
    "a virtual table": ["DROP TABLE failure", "CREATE VIRTUAL TABLE failure USING fts4(id)"],
}


@pytest.mark.parametrize("what", _IN_PLACE_OF_A_TABLE)
def test_what_computes_in_place_of_a_table_is_refused_before_it_is_read(what, finished, capsys):
    changed(finished, *_IN_PLACE_OF_A_TABLE[what])
    content = finished.read_bytes()
    for command in (["show"], ["replay", "0:1", "--trust"]):
        words = [command[0], str(finished), *command[1:]]
        assert cli.main(words) == 1
        message = capsys.readouterr().err
        assert "in it is no plain table: 'CREATE " in message
        assert message.count("\n") == 1
    with pytest.raises(mpiabc.StoreError, match="is no plain table"):
        problems.sampler(n=20).run(finished, scheduler="serial")
    assert finished.read_bytes() == content
    assert len(problems.sampler(n=20).run(finished, scheduler="serial", overwrite=True)) == 3


def test_tables_of_others_and_plain_indices_are_no_reason(finished):
    """As SQLite's ANALYZE makes them, and people who look for something."""
    expected = problems.digests(mpiabc.open(finished))
    changed(finished, "CREATE INDEX mine ON failure (kind)", 'CREATE TABLE "my notes" (note TEXT)', "ANALYZE")
    assert problems.digests(mpiabc.open(finished)) == expected
    assert problems.digests(problems.sampler(n=20).run(finished, scheduler="serial")) == expected


@pytest.mark.parametrize("text", ["[" * 100_000, "no JSON", ""])
def test_settings_that_are_none_are_damage(text, finished):
    with closing(sqlite3.connect(finished, isolation_level=None)) as db:
        db.execute("UPDATE run SET value = ?, crc = ? WHERE key = 'settings'", (text, crc_of(text)))
    with pytest.raises(mpiabc.StoreError, match="is damaged"):
        _ = mpiabc.open(finished).settings


def test_arrays_of_an_order_are_arrays_or_nothing(finished):
    """Not a zip, a pickle, or a head that promises more than there is."""
    promised = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        + b"\n"
    )
    for content in (b"PK\x03\x04" + bytes(100), cloudpickle.dumps(print), promised):
        with closing(sqlite3.connect(finished, isolation_level=None)) as db:
            (message,) = db.execute("SELECT told FROM orders WHERE level = 1").fetchone()
            row = content, crc_of_order(message, content)
            db.execute("UPDATE orders SET arrays = ?, crc = ? WHERE level = 1", row)
        assert mpiabc.open(finished).order(1) is None
