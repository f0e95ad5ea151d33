"""The run's file: whole generations, readable at any time, on any file system."""

import math
import os
import signal
import sqlite3
import threading
import time
import tracemalloc
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

import mpiabc
from mpiabc import cli
from mpiabc.signals import DOUBT
from mpiabc.store import Store
from mpiabc.store.schema import ARRAYS, NUMBERS, crc_of_row
from tests import damage, disks, problems
from tests.conftest import HANGS, environment


@pytest.fixture
def finished(tmp_path):
    """A finished run of three generations."""
    return problems.sampler().run(tmp_path / "run.db", scheduler="serial")


def test_history_gives_back_what_was_yielded(tmp_path):
    populations = list(problems.sampler().sample(tmp_path / "run.db", scheduler="serial"))
    history = mpiabc.open(tmp_path / "run.db")
    assert problems.digests(history) == problems.digests(populations)
    assert len(history) == 3
    assert history[-1].digest() == history[2].digest()
    with pytest.raises(IndexError):
        history[3]
    for kept, yielded in zip(history, populations, strict=True):
        for name in (
            "epsilon",
            "evaluations",
            "simulations",
            "dispatched",
            "seconds",
            "log_evidence",
            "names",
        ):
            assert getattr(kept, name) == getattr(yielded, name)
        np.testing.assert_array_equal(kept.summaries, yielded.summaries)
        np.testing.assert_array_equal(kept.distances, np.abs(kept.summaries[:, 0] - 1.0))


def test_history_says_how_the_run_went(finished):
    assert finished.reason == "threshold"
    assert finished.problem_name == "gaussian"
    assert finished.settings["seed"] == 1
    assert finished.settings["population_size"] == 100


def test_populations_are_immutable(finished):
    with pytest.raises(ValueError, match="read-only"):
        finished[-1].theta[0] = 0.0


def test_data_frames_hold_all_rows(finished):
    frame = finished.to_dataframe()
    assert list(frame.columns) == ["mu", "weight", "distance", "id", "generation"]
    assert len(frame) == 300
    np.testing.assert_array_equal(finished[1].to_dataframe()["mu"], finished[1]["mu"])


def test_a_few_blobs_a_generation_and_no_row_a_particle(finished):
    with closing(sqlite3.connect(finished.path)) as db, db:
        counts = {
            name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    db.close()
    assert counts["population"] == 3
    assert sum(counts.values()) < 25


@pytest.mark.long
def test_reading_while_writing_sees_whole_generations_only(tmp_path):
    """A reader opens the file all the time during a run of many small generations."""
    store = tmp_path / "run.db"
    abc = mpiabc.ABCSMC(problems.problem(), 50, threshold=mpiabc.Constant(3.0), seed=1)
    expected = problems.digests(abc.run(tmp_path / "quiet.db", generations=60, scheduler="serial"))
    seen, errors = [], []

    def read():
        while len(seen) < 60:
            try:
                seen[:] = problems.digests(mpiabc.open(store)) if store.exists() else []
            except mpiabc.StoreError as error:
                if "is empty" not in str(error):  # the file is there before its first table
                    errors.append(error)
                    return

    reader = threading.Thread(target=read)
    reader.start()
    abc.run(store, generations=60, scheduler="serial")
    reader.join(30)
    assert not errors
    assert seen == expected


def test_second_run_on_one_file_is_refused_at_once(tmp_path):
    sampling = problems.sampler().sample(tmp_path / "run.db", scheduler="serial")
    next(sampling)
    with pytest.raises(mpiabc.StoreError, match="in use by another run"):
        problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert len(list(sampling)) == 2
    assert len(problems.sampler().run(tmp_path / "run.db", scheduler="serial")) == 3


@pytest.mark.long
def test_damaged_file_gives_the_right_posterior_or_one_clear_sentence():
    """A sample of `python -m tests.damage`, which takes every byte; nothing committed is lost in silence."""
    wrong = []
    counts = damage.play(step=1499, out=wrong.append)
    assert not wrong
    assert sum(counts.values()) > 100
    for kind, outcome in [
        ("cut short", "reported"),
        ("cut short", "reported, begun anew"),
        ("one byte", "went on"),
        ("page of zeros", "reported"),
        ("another page", "reported"),
        ("journal whole", "went on"),
        ("journal cut", "reported"),
    ]:
        assert counts[kind, outcome] > 0, counts


def test_damage_in_the_text_of_a_table_is_reported_in_a_line(finished):
    """SQLite quotes the text, of several lines, and it may be anything."""
    content = bytearray(finished.path.read_bytes())
    at = content.index(b"CREATE TABLE population") + len(b"CREATE TABLE ")
    for harm in (b"\xff", b"\x1b[31m\xff"):
        content[at : at + len(harm)] = harm
        finished.path.write_bytes(content)
        with pytest.raises(mpiabc.StoreError, match="is damaged") as error:
            list(mpiabc.open(finished.path))
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("key", ["shares", "sessions", "settings", "reason"])
def test_text_that_is_none_is_reported_before_any_work(key, tmp_path):
    """Also where it would be read only when there is something to write."""
    path = tmp_path / "run.db"
    calls = []

    def simulate(theta, rng):
        calls.append(theta)
        return problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=simulate)
    sampler.run(path, scheduler="serial", generations=1)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE run SET value = CAST(? AS TEXT) WHERE key = ?", (b'{"\xff": 1}', key))
        db.commit()
    calls.clear()
    with pytest.raises(mpiabc.StoreError, match="damaged"):
        sampler.run(path, scheduler="serial", generations=2)
    assert not calls


def test_a_table_without_one_of_its_columns_is_reported_before_any_work(tmp_path):
    """A comma that has become a space joins two columns: what is written into one of them fails late."""
    path = tmp_path / "run.db"
    problems.sampler().run(path, scheduler="serial", generations=1)
    whole = path.read_bytes()
    for before in (b"theta TEXT", b"key TEXT PRIMARY KEY", b"level INTEGER PRIMARY KEY", b"epsilon REAL"):
        at = whole.index(before + b",") + len(before)
        path.write_bytes(whole[:at] + b" " + whole[at + 1 :])
        calls = []
        with pytest.raises(mpiabc.StoreError, match=r"is damaged \("):
            damage.run(path, calls)
        assert not calls


def test_damaged_file_is_begun_anew_when_asked(finished):
    content = finished.path.read_bytes()
    expected = problems.digests(finished)
    finished.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(mpiabc.StoreError, match=r"is damaged .*overwrite=True"):
        problems.sampler().run(finished.path, scheduler="serial")
    again = problems.sampler().run(finished.path, scheduler="serial", overwrite=True)
    assert problems.digests(again) == expected


def test_commit_that_is_killed_leaves_the_generations_before_it(tmp_path):
    """The process is killed within its third commit, with the journal file on disk."""
    job = disks.program(disks.killed_in_commit("problems.sampler()"), environment(), tmp_path / "run.db")
    assert job.returncode == -signal.SIGKILL
    expected = problems.digests(problems.sampler().run(tmp_path / "quiet.db", scheduler="serial"))
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected[:2]
    assert problems.digests(problems.sampler().run(tmp_path / "run.db", scheduler="serial")) == expected


def test_a_run_needs_no_file_locks(tmp_path):
    """A library in front of libc refuses every lock, as some network file systems do."""
    program = (
        "import mpiabc\nfrom tests import problems\n"
        "history = problems.sampler().run(sys.argv[1], scheduler='serial', progress=False)\n"
        "print(*problems.digests(history))"
    )
    job = disks.program(disks.PROBE + program, disks.without_locks(), tmp_path / "run.db")
    assert job.returncode == 0, job.stdout
    refused, digests = job.stdout.splitlines()
    assert refused == "refused 37"  # ENOLCK
    expected = problems.digests(problems.sampler().run(tmp_path / "quiet.db", scheduler="serial"))
    assert digests.split() == expected
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected


def test_a_large_generation_is_written_quickly(tmp_path):
    """N = 10 000, d = 10, k = 10: a few MB in one transaction; the bound is generous, see the benchmark."""
    rng = np.random.default_rng(1)
    n, d = 10_000, 10
    theta, weights = rng.standard_normal((n, d)), np.full(n, 1 / n)
    population = problems.population(theta, weights, rng.random(n), rng.random((n, 10)))
    with Store(tmp_path / "run.db") as store:
        store.start({"names": list(population.names)}, "large")
        store.commit(population, [], None)
    assert mpiabc.open(tmp_path / "run.db")[0].digest() == population.digest()
    assert os.path.getsize(tmp_path / "run.db") < 2.2e6 * 1.2


def test_deleted_file_is_reported(finished):
    os.remove(finished.path)
    with pytest.raises(mpiabc.StoreError, match="cannot be opened"):
        finished[0]
    with pytest.raises(mpiabc.StoreError, match="there is no file"):
        mpiabc.open(finished.path)


@pytest.mark.long
def test_ctrl_c_leaves_a_store_that_opens(mpi, tmp_path):
    """SIGINT to mpirun in the middle of a run: the job ends, the file opens and the run goes on."""
    job = mpi.start(2, "-m", "tests.programs.endless", tmp_path / "run.db")
    deadline = time.monotonic() + HANGS
    while problems.committed(tmp_path / "run.db") < 2:
        assert time.monotonic() < deadline, job.stdout.read()
        time.sleep(0.1)
    time.sleep(1.5 * DOUBT)  # what is younger is taken back
    job.send_signal(signal.SIGINT)
    output, _ = job.communicate(timeout=HANGS)
    assert job.returncode != 0, output
    before = problems.digests(mpiabc.open(tmp_path / "run.db"))
    assert len(before) >= 2
    quiet = mpiabc.ABCSMC(problems.problem(), 50, threshold=mpiabc.Constant(0.5), seed=1)
    expected = problems.digests(quiet.run(tmp_path / "quiet.db", generations=len(before), scheduler="serial"))
    assert before == expected


def test_index_is_a_whole_number_or_said_to_be_none(finished):
    """Of Python or NumPy; a good file is never called damaged for it."""
    for kind in (int, np.int64, np.int8, np.array):
        assert finished[kind(1)] is finished[1]
        assert finished[kind(-1)] is finished[2]
        for beyond in (3, -4):
            with pytest.raises(IndexError, match=f"generation {beyond} of 3 committed ones"):
                finished[kind(beyond)]
    for other in (1.0, "1", None, True, np.True_, np.ones(1, int), (0, 1)):
        with pytest.raises(TypeError, match="give the whole number of one generation"):
            finished[other]


def test_a_slice_is_a_list_of_generations(finished):
    assert problems.digests(finished[1:]) == problems.digests(finished)[1:]
    assert [population.generation for population in finished[::-1]] == [2, 1, 0]
    assert finished[5:] == []


def test_only_a_writer_whose_check_finds_damage_advises_to_overwrite(finished, monkeypatch):
    """What a reader meets may be half a write, or a disk that fails for a moment."""
    with closing(sqlite3.connect(finished.path)) as db, db:
        db.execute("UPDATE population SET weights = zeroblob(800) WHERE generation = 1")
    db.close()
    for room in ("files", "history"):
        monkeypatch.setattr(f"mpiabc.store.{room}.attempts", lambda: (0,))

    def message_of(read):
        with pytest.raises(mpiabc.StoreError) as error:
            read()
        return str(error.value).replace(str(finished.path), "run.db")

    def run():
        problems.sampler().run(finished.path, scheduler="serial")

    found = "the content of generation 1 does not have the digest stored with it"
    assert message_of(lambda: list(mpiabc.open(finished.path))) == (
        f"run.db is damaged ({found}): read a copy of it, if there is one"
    )
    assert (
        message_of(run)
        == f"run.db is damaged ({found}): start again from a copy of it, or with overwrite=True"
    )
    monkeypatch.setattr("mpiabc.store.database.damage", lambda path: None)
    assert message_of(run) == (
        f"run.db could not be read ({found}), yet a check of it finds no damage: run the same command again"
    )


@pytest.mark.parametrize("later", [False, True])
def test_generation_of_weights_that_are_no_numbers_is_left_out_and_computed_again(
    later, finished, caplog, capsys
):
    """Once such were committed; SQLite keeps nan as NULL, with which no checksum agrees."""
    _, second, third = finished
    expected = problems.digests(finished)
    with Store(finished.path) as store:
        with store.transaction() as db:
            db.execute("DELETE FROM population WHERE generation > 0")
        nan = {"weights": np.full(100, math.nan), "log_evidence": math.nan}
        store.commit(replace(second, **nan), [], None)
        if later:  # a kernel that does not look at weights
            store.commit(third, [], "threshold")
    caplog.clear()
    history = mpiabc.open(finished.path)
    assert len(history) == len(list(history)) == 1
    assert problems.digests(history) == [history[-1].digest()] == expected[:1]
    (message,) = caplog.records
    assert message.getMessage().startswith(f"{finished.path}: the weights of generation 1 are no numbers")
    assert cli.main(["show", str(finished.path)]) == 0
    assert expected[0][:12] in capsys.readouterr().out
    caplog.clear()
    assert problems.digests(problems.sampler().run(finished.path, scheduler="serial")) == expected
    assert [record.levelname for record in caplog.records if "no numbers" in record.getMessage()] == [
        "WARNING"
    ]
    assert problems.digests(mpiabc.open(finished.path)) == expected


@pytest.mark.parametrize("kind", [int, np.float64])
def test_file_in_whose_checksum_epsilon_was_as_its_threshold_gave_it_is_good(kind, tmp_path):
    """Quantile(start=3) left such files, and thresholds of one's own."""
    finished = problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    row = {name: getattr(finished[0], name) for name in (*NUMBERS, *ARRAYS)} | {"epsilon": kind(3)}
    crc = crc_of_row(row | {name: row[name].tobytes() for name in ARRAYS})
    with closing(sqlite3.connect(finished.path)) as db, db:
        db.execute("UPDATE population SET crc = ? WHERE generation = 0", (crc,))
    db.close()
    assert problems.digests(mpiabc.open(finished.path)) == problems.digests(finished)


def test_problem_larger_than_the_limit_is_neither_copied_nor_kept_and_that_is_reported(
    tmp_path, monkeypatch, caplog
):
    """A script with gigabytes beside its simulator starts at once, in its own memory."""
    for room in ("parts", "database"):
        monkeypatch.setattr(f"mpiabc.store.{room}.MOST_PART", 1_000_000)
    table = np.zeros(2_000_000)  # 16 MB
    abc = mpiabc.ABCSMC(problems.problem(lambda theta, rng: {"y": theta["mu"] + table[0]}), 20, seed=1)
    tracemalloc.start()
    history = abc.run(tmp_path / "run.db", generations=1, scheduler="serial")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < table.nbytes / 2
    assert caplog.text.count("`mpiabc replay` needs --problem") == 1
    with pytest.raises(mpiabc.StoreError, match="does not hold its problem"):
        history.part("problem")
    assert history.part("threshold", trust=True) == mpiabc.Quantile()


def test_problem_with_arrays_comes_back_from_the_file(tmp_path):
    table = np.arange(100_000.0)
    abc = mpiabc.ABCSMC(problems.problem(lambda theta, rng: {"y": theta["mu"] + table[7]}), 20, seed=1)
    history = abc.run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert history.part("problem", trust=True).simulate({"mu": 1.0}, None) == {"y": 8.0}
