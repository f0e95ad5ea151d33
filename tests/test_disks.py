"""Disks with faults, without locks, and held by others: nothing is lost, and the system's words are shown."""

import errno
import logging
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

import mpiabc
from mpiabc.store import live
from tests import disks, problems
from tests.conftest import HANGS, environment

_RUN = """
import sys
from tests import problems
history = problems.sampler().run(sys.argv[1], scheduler="serial", progress=False)
print(*problems.digests(history))
"""


@pytest.fixture
def expected(tmp_path_factory):
    """The digests of the undisturbed run."""
    quiet = tmp_path_factory.mktemp("quiet") / "run.db"
    return problems.digests(problems.sampler().run(quiet, scheduler="serial"))


# Without locks.


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_where_there_are_no_locks(expected, tmp_path):
    """In its third commit, with half of that in the file, and SQLite's journal beside."""
    store, nowhere = tmp_path / "run.db", disks.without_locks()
    killed = disks.program(disks.PROBE + disks.killed_in_commit("problems.sampler()"), nowhere, store)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, f"refused {errno.ENOLCK}\n")
    assert (tmp_path / "run.db-journal").exists()
    looked_at = disks.program("import mpiabc, sys; mpiabc.open(sys.argv[1])", nowhere, store)
    assert "if no run is going on, start it again, which mends it" in looked_at.stdout
    assert (tmp_path / "run.db-journal").exists()  # it might be of a run that is writing now
    again = disks.program(_RUN, nowhere, store)
    assert again.stdout.split() == expected
    assert problems.digests(mpiabc.open(store)) == expected


def test_a_second_run_is_refused_where_there_are_no_locks(tmp_path):
    """By the signs of life that the first one gives; a sign of one that was killed is no obstacle, above."""
    store, nowhere = tmp_path / "run.db", disks.without_locks()
    first = subprocess.Popen([sys.executable, "-m", "tests.programs.endless", store], env=nowhere)
    try:
        while live.read(store) is None:
            assert first.poll() is None
            time.sleep(0.05)
        second = disks.program(_RUN, nowhere, store)
        assert "run.db is in use by another run: wait for it to end" in second.stdout
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait(HANGS) == 75


def test_a_second_name_of_a_file_knows_of_the_journal_beside_the_first(expected, tmp_path):
    store, other = tmp_path / "run.db", tmp_path / "other.db"
    disks.program(disks.killed_in_commit("problems.sampler()"), environment(), store)
    os.link(store, other)
    assert (tmp_path / "run.db-journal").exists()
    assert problems.digests(mpiabc.open(other)) == expected[:2]
    assert problems.digests(problems.sampler().run(other, scheduler="serial")) == expected


# What the system says.


@pytest.mark.long
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_cannot_be_read_is_no_damage(number, expected, tmp_path):
    """Whatever SQLite's check makes of it: the first pages can be read."""
    store, flag = tmp_path / "run.db", tmp_path / "flag"
    problems.sampler().run(store, scheduler="serial", generations=2)
    content = store.read_bytes()
    flag.touch()
    job = disks.program(_RUN, disks.with_fault(number, "r", flag, "run.db", 8192), store)
    output = job.stdout.splitlines()[-1]
    said = f"the system says: {os.strerror(number)}; when that is mended, run the same command again"
    assert output.endswith(f"run.db: it cannot be read or written, {said}")
    assert store.read_bytes() == content
    assert problems.digests(problems.sampler().run(store, scheduler="serial")) == expected


_FAULT_LATER = """
import pathlib, sys
from tests import problems
sampling = problems.sampler().sample(sys.argv[1], scheduler="serial", progress=False)
next(sampling)
pathlib.Path(sys.argv[2]).touch()
list(sampling)
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ENOSPC])
def test_a_disk_that_cannot_be_written_is_reported_as_the_system_says(number, expected, tmp_path):
    folder, flag = tmp_path / "disk", tmp_path / "flag"
    folder.mkdir()
    faulty = disks.with_fault(number, "w", flag, folder)
    job = disks.program(_FAULT_LATER, faulty, folder / "run.db", flag)
    output = job.stdout.splitlines()[-1]
    assert job.returncode == 1
    if number == errno.ENOSPC:
        assert "run.db: the disk is full; make room and run the same command again" in output
    else:
        assert f"the system says: {os.strerror(number)}; when that is mended, run the same command" in output
    assert problems.digests(problems.sampler().run(folder / "run.db", scheduler="serial")) == expected


# Held by others.


@pytest.mark.parametrize("what", ["a run that goes on", "its next start", "one that begins anew"])
def test_a_run_waits_for_a_backup_as_long_as_that_takes(what, expected, tmp_path, monkeypatch, caplog):
    """Who reads the file lets nobody write meanwhile; here, until the run has said that it waits."""
    monkeypatch.setattr("mpiabc.store.files._TRY", 0.01)
    monkeypatch.setattr("mpiabc.store.files._SHORT", 0.05)
    store = tmp_path / "run.db"
    sampling = problems.sampler().sample(store, scheduler="serial")
    next(sampling)
    if what != "a run that goes on":
        sampling.close()
        sampling = problems.sampler().sample(store, scheduler="serial", overwrite="anew" in what)
    backup = sqlite3.connect(store, isolation_level=None)
    backup.execute("BEGIN")
    backup.execute("SELECT count(*) FROM population").fetchone()

    class Finished(logging.Handler):
        def emit(self, record):
            if "another program, perhaps a backup, holds it locked" in record.getMessage():
                backup.execute("ROLLBACK")

    heard = Finished()
    logging.getLogger("mpiabc").addHandler(heard)
    try:
        list(sampling)
    finally:
        logging.getLogger("mpiabc").removeHandler(heard)
        assert not backup.in_transaction
        backup.close()
    assert problems.digests(mpiabc.open(store)) == expected
    assert caplog.text.count("holds it locked") == 1


def test_who_is_asked_to_stop_does_not_wait_for_a_backup(tmp_path, monkeypatch):
    monkeypatch.setattr("mpiabc.store.files._TRY", 0.01)
    monkeypatch.setattr("mpiabc.store.files._SHORT", 0.05)
    store = tmp_path / "run.db"
    sampling = problems.sampler().sample(store, scheduler="serial")
    next(sampling)
    backup = sqlite3.connect(store, isolation_level=None)
    backup.execute("BEGIN")
    backup.execute("SELECT count(*) FROM population").fetchone()

    class Asked(logging.Handler):
        def emit(self, record):
            if "holds it locked" in record.getMessage():
                os.kill(os.getpid(), signal.SIGTERM)

    asked = Asked()
    logging.getLogger("mpiabc").addHandler(asked)
    try:
        with pytest.raises((mpiabc.Interrupted, mpiabc.StoreError)):
            list(sampling)
    finally:
        logging.getLogger("mpiabc").removeHandler(asked)
        backup.close()


# Large files.


@pytest.mark.long
def test_a_run_goes_on_from_its_last_population_and_needs_no_room_for_the_others(tmp_path):
    """Each generation is 4 MB; what is allowed is a few of them, whatever their number."""
    noise = np.random.default_rng(1).random(25_000)

    def wide(theta, rng):
        return {"y": theta["mu"] + rng.standard_normal() + noise}

    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal(0, 2)), wide, {"y": noise}, distance=lambda simulated, observed: 0.0
    )
    abc = mpiabc.ABCSMC(problem, 20, threshold=mpiabc.Constant(1.0), seed=1)
    peaks = []
    for generations in (2, 12):
        abc.run(tmp_path / "run.db", generations=generations, scheduler="serial")
        tracemalloc.start()
        history = abc.run(tmp_path / "run.db", generations=generations + 1, scheduler="serial")
        for _ in history:
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2 * history[-1].summaries.nbytes


def test_a_population_that_somebody_has_is_not_loaded_twice_and_a_history_travels(tmp_path):
    history = problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    first = history[0]
    assert history[-1] is history[2]
    assert history[0] is first
    assert problems.digests(pickle.loads(pickle.dumps(history))) == problems.digests(history)
