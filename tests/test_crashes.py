"""What kills the process that simulates is named at the next start: evaluation, theta, and where it was."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import mpiabc
from mpiabc import whereabouts
from mpiabc.cli import main
from mpiabc.evaluate import Level, theta_of
from mpiabc.order import restored
from mpiabc.records import order_number
from mpiabc.streams import stream_key
from tests import problems
from tests.conftest import HANGS, ROOT, environment, jobs_of, quick


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The run without deaths."""
    return problems.sampler().run(tmp_path_factory.mktemp("quiet") / "run.db", scheduler="serial")


def start(folder, signal_, *words, mpi=None):
    """One start of a run that dies in 1:37 of this signal, if any: its exit status, and what it has said."""
    command = ["-m", "tests.programs.crashing", str(folder / "run.db"), *words]
    job = subprocess.run(
        [sys.executable, *command] if mpi is None else mpi.command(2, *command),
        cwd=ROOT,
        env=environment(CRASHING=signal_),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
    )
    return job.returncode, job.stdout


def lines(text):
    return [
        line for line in text.splitlines() if "was killed, or its simulator crashed, in evaluation" in line
    ]


@pytest.mark.parametrize("how", quick(["SIGSEGV", "SIGKILL", "SIGABRT"], "SIGKILL"))
def test_evaluation_that_kills_a_serial_run_is_named_with_theta_and_counted(how, quiet, tmp_path, capsys):
    mu = re.escape(repr(theta(quiet, 1, 37)["mu"]))
    status, text = start(tmp_path, how)
    assert (status, lines(text)) == (-signal.Signals[how], [])
    (tmp_path / "link").symlink_to("run.db")
    assert main(["show", str(tmp_path / "link")]) == 0
    assert re.search(r"evaluation 1:37 on process \d+ on ", capsys.readouterr().out)
    status, text = start(tmp_path, how)
    assert status == -signal.Signals[how]
    (line,) = lines(text)
    assert re.search(rf"in evaluation 1:37 on process \d+ on \S+, theta: mu={mu};", line)
    assert mpiabc.open(tmp_path / "run.db").deaths == {"1:37": 1}
    status, text = start(tmp_path, "")
    (line,) = lines(text)
    assert "in evaluation 1:37 (2 times) on process" in line
    history = mpiabc.open(tmp_path / "run.db")
    assert (status, problems.digests(history)) == (0, problems.digests(quiet))
    assert history.warnings == history.failures == []
    assert main(["show", str(tmp_path / "run.db")]) == 0
    assert "in evaluation 1:37 (2 times)" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("run.db")] == ["run.db"]


def theta(history, t, i):
    """What was proposed, by the order of the file."""
    text, arrays = history.order(t)
    parts = restored(text, arrays, history[t - 1])
    return theta_of(problems.problem(), Level(key=stream_key(1), **parts), i)


@jobs_of(("mpi", "how"), [], ("mpich", "SIGSEGV"), ("openmpi", "SIGKILL"))
def test_evaluation_that_kills_a_rank_is_named_with_rank_and_host_although_mpi_ends_the_job(
    how, mpi, quiet, tmp_path
):
    """And those that the other ranks were at, if they were at any: who died first cannot be known."""
    status, text = start(tmp_path, how, "alone", mpi=mpi)
    assert status not in (0, 75), text
    status, text = start(tmp_path, "", mpi=mpi)
    assert status == 0, text
    (line,) = lines(text)
    mu = re.escape(repr(theta(quiet, 1, 37)["mu"]))
    assert re.search(rf"1:37 on rank 1 of 2 on \S+ \(process \d+\), theta: mu={mu}", line)
    history = mpiabc.open(tmp_path / "run.db")
    assert history.deaths["1:37"] == 1
    assert problems.digests(history) == problems.digests(quiet)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("run.db")] == ["run.db"]


@pytest.mark.parametrize("scheduler", ["serial", "processes"])
def test_runs_that_end_in_any_way_of_their_own_leave_nothing_behind(scheduler, tmp_path):
    def simulate(theta, rng, *, id):
        if id == (1, 20):
            raise RuntimeError("the pump broke")
        return problems.gaussian(theta, rng)

    for i, on_error in enumerate(["raise", "reject"]):
        sampler = problems.sampler(simulate=simulate, on_error=on_error)
        try:
            sampler.run(tmp_path / f"{i}.db", scheduler=scheduler)
        except mpiabc.SimulatorError:
            assert on_error == "raise"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.db", "1.db"]


def test_block_of_a_vectorised_simulator_is_named_as_a_whole(tmp_path, caplog):
    sampler = problems.sampler(simulate=problems.gaussian_vectorized, vectorized=True)
    sampler.run(tmp_path / "run.db", scheduler="serial", generations=1, simulations=1)
    note = whereabouts.Note(tmp_path / "run.db", None)
    level = len(mpiabc.open(tmp_path / "run.db"))
    note.watch(order_number(level))(256)  # and this process would die
    sampler.run(tmp_path / "run.db", scheduler="serial")
    assert f"in evaluation {level}:256 to {level}:511 on process " in caplog.text


def test_what_a_run_that_is_begun_anew_was_at_is_not_reported(tmp_path, caplog):
    sampler = problems.sampler()
    sampler.run(tmp_path / "run.db", scheduler="serial", simulations=50)
    whereabouts.Note(tmp_path / "run.db", None).watch(0)(60)
    sampler.run(tmp_path / "run.db", scheduler="serial", overwrite=True)
    assert "was killed" not in caplog.text
    assert mpiabc.open(tmp_path / "run.db").deaths == {}
    assert whereabouts.left(tmp_path / "run.db") == []


def test_folder_that_cannot_be_written_is_gone_without(tmp_path, quiet):
    (tmp_path / "run.db.at").write_text("a file of the user's")
    history = problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)
    assert (tmp_path / "run.db.at").read_text() == "a file of the user's"


def test_files_that_are_none_of_ours_are_not_read(tmp_path):
    (tmp_path / "run.db.at").mkdir()
    for i, content in enumerate([b"", b"short", np.array([0, -1]).tobytes(), bytes(16) + b"\xff"]):
        (tmp_path / "run.db.at" / str(i)).write_bytes(content)
    assert whereabouts.left(tmp_path / "run.db") == []
