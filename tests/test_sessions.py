"""What a file says of how, when and where its run was begun."""

import json
import os
import platform
import shlex
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict, replace

import pytest

import mpiabc
from mpiabc.store import schema, sessions
from tests import problems


def test_the_file_says_how_when_and_where_the_run_was_begun_and_gone_on_with(tmp_path):
    store = tmp_path / "run.db"
    problems.sampler().run(store, generations=1, scheduler="serial")
    history = problems.sampler().run(store, generations=2, scheduler="serial")
    first, second = history.sessions
    assert first.began < first.ended <= second.began < second.ended
    assert (first.host, first.folder, first.process) == (platform.node(), os.getcwd(), os.getpid())
    assert (first.scheduler, first.workers, first.reason) == ("Serial()", 1, "generations")
    assert first.command == shlex.join(sys.orig_argv)
    assert first.versions["Python"] == platform.python_version()


def test_a_start_that_writes_nothing_is_no_session(tmp_path):
    store = tmp_path / "run.db"
    problems.sampler().run(store, generations=1, scheduler="serial")
    before = store.read_bytes()
    history = problems.sampler().run(store, generations=1, scheduler="serial")
    assert len(history.sessions) == 1
    assert store.read_bytes() == before


def test_of_many_sessions_the_first_and_the_latest_are_kept_and_a_known_one_once():
    given = [sessions.Session(float(i), "", "", "", "", i, "", 1) for i in range(120)]
    kept: list = []
    for one in given:
        kept = sessions.sessions_from(json.loads(sessions.joined(kept, one)))
    assert [one.process for one in kept] == [0, *range(21, 120)]
    ended = replace(given[-1], ended=1.0, reason="epsilon")
    assert sessions.sessions_from(json.loads(sessions.joined(kept, ended))) == [*kept[:-1], ended]


def test_no_password_of_a_command_line_is_kept(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "fit.py", "redis://:secret@host:6379", "a@b"])
    found = sessions.session("Redis('rediss://me:secret@host')", 0)
    assert "secret" not in found.command + found.scheduler
    assert found.command == "python fit.py redis://…@host:6379 a@b"
    assert found.scheduler == "\"Redis('rediss://…@host')\""


def test_older_files_have_no_sessions_and_later_ones_may_say_more(tmp_path):
    store = tmp_path / "run.db"
    history = problems.sampler().run(store, generations=1, scheduler="serial")
    (one,) = history.sessions
    with closing(sqlite3.connect(store)) as db, db:
        schema.put(db, "sessions", json.dumps([{**asdict(one), "moon": "full"}]))
    assert mpiabc.open(store).sessions == [one]
    with closing(sqlite3.connect(store)) as db, db:
        schema.put(db, "sessions", json.dumps([17]))
    with pytest.raises(mpiabc.StoreError, match="its sessions"):
        _ = mpiabc.open(store).sessions
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("DELETE FROM run WHERE key = 'sessions'")
    assert mpiabc.open(store).sessions == []
