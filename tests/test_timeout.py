"""Simulations that do not return are ended, whatever they do to the interpreter lock."""

import subprocess
import time
from pathlib import Path

import pytest

import mpiabc
from mpiabc import schedulers
from tests import problems
from tests.conftest import HANGS, ROOT, environment, jobs_of


def sleeping(theta, rng, *, id):
    if id.index in (7, 30):
        time.sleep(1000)
    return problems.gaussian(theta, rng)


def locked(theta, rng, *, id):
    if id.index in (7, 30):
        sum(range(10**13))  # one call into C that never gives the lock away
    return problems.gaussian(theta, rng)


def failing(theta, rng, *, id):
    if id.index in (7, 30):
        raise RuntimeError
    return problems.gaussian(theta, rng)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A timeout is a failure like any other: as if these simulations had raised at once."""
    store = tmp_path_factory.mktemp("quiet") / "run.db"
    return problems.digests(sampler(failing).run(store, scheduler="serial"))


def sampler(simulate, on_error="reject", timeout=None, thresholds=(3, 1.5)):
    return problems.sampler(
        30, thresholds, simulate=simulate, on_error=on_error, timeout=timeout, name="hanging"
    )


PLACES = {
    "serial": schedulers.Serial(),
    "forked": schedulers.Processes(2, start="fork"),
    "spawned": schedulers.Processes(2, start="spawn"),
}


@pytest.mark.long
@pytest.mark.parametrize("simulate", [sleeping, locked])
@pytest.mark.parametrize("place", ["serial", "forked", "spawned"])
def test_timeout_counts_as_a_failure(simulate, place, expected, tmp_path):
    abc = sampler(simulate, timeout=0.5)
    history = abc.run(tmp_path / "run.db", scheduler=PLACES[place])
    assert problems.digests(history) == expected
    assert [(f.generation, f.index, f.kind) for f in history.failures] == [
        (t, i, "timeout") for t in (0, 1) for i in (7, 30)
    ]


@pytest.mark.long
def test_timeout_ends_the_run_where_failures_do(tmp_path):
    with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:7 failed on process") as error:
        sampler(locked, "raise", 0.5).run(tmp_path / "run.db", scheduler="processes")
    assert "took longer than timeout=0.5 s" in str(error.value)
    assert "theta: mu=" in str(error.value)


@jobs_of(["mpi"], [], ["mpich"])
def test_timeout_holds_on_ranks(mpi, expected, tmp_path):
    job = mpi.run(2, "-m", "tests.programs.hanging", tmp_path / "run.db")
    assert job.returncode == 0, job.stdout
    history = mpiabc.open(tmp_path / "run.db")
    assert problems.digests(history) == expected
    assert {f.kind for f in history.failures} == {"timeout"}
    assert all("rank" in f.where for f in history.failures)


WORLDS = ["-m", "tests.programs.worlds"]


@pytest.mark.long
def test_simulators_that_use_mpi_work_in_child_processes(mpi, tmp_path):
    """Each child is a world of its own, and leaves nothing in shared memory."""
    alone = subprocess.run(
        [mpi.python / "python", *WORLDS, tmp_path / "alone.db", "serial", "self", tmp_path],
        cwd=ROOT,
        env=environment(OMPI_MCA_btl="^sm"),
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert alone.stdout
    for how in ("self", "timeout"):
        folder = tmp_path / how
        folder.mkdir()
        together = mpi.run(2, *WORLDS, tmp_path / f"{how}.db", "mpi", how, folder)
        assert together.returncode == 0, together.stdout
        assert alone.stdout in together.stdout
        notes = folder.iterdir()
        assert not [name for note in notes for name in note.read_text().split() if Path(name).exists()]


@jobs_of(["mpi"], [], ["openmpi"])
def test_rank_0_does_without_a_child_that_cannot_start(mpi, tmp_path):
    done = mpi.run(2, *WORLDS, tmp_path / "run.db", "mpi", "dies", tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("worker processes die as soon as they start") == 1
