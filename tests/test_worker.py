"""`mpiabc.worker()`: a simulator knows who evaluates it, wherever it is."""

import os
import platform
import signal

import pytest

import mpiabc
from mpiabc import schedulers
from mpiabc.team import Worker, being
from tests import problems
from tests.conftest import jobs_of, quick
from tests.programs import whoami

HOST = platform.node()


def seen(folder):
    """Whom simulators took themselves for, by process."""
    return {int(path.name): eval(path.read_text()) for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """Where simulators leave notes."""
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.mark.long
def test_a_process_of_its_own_knows_its_host(folder, tmp_path):
    problems.sampler(simulate=whoami.noted(folder)).run(tmp_path / "run.db", scheduler="serial")
    assert seen(folder) == {os.getpid(): Worker(HOST)}
    assert mpiabc.worker() == Worker(HOST)


@pytest.mark.long
@pytest.mark.parametrize("start", quick(["fork", "spawn"], "fork"))
def test_processes_are_numbered_and_one_that_comes_for_another_has_its_number(start, folder, tmp_path):
    simulate = whoami.noted(folder)

    def suicidal(theta, rng, *, id):
        y = simulate(theta, rng)
        if id.generation == 0 and id.index % 30 == 29 and not (tmp_path / str(id.index)).exists():
            (tmp_path / str(id.index)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return y

    place = schedulers.Processes(2, start=start)
    problems.sampler(simulate=suicidal).run(tmp_path / "run.db", scheduler=place)
    workers = seen(folder)
    assert len(workers) > 2
    assert set(workers.values()) == {Worker(HOST, local_rank=0), Worker(HOST, local_rank=1)}


@pytest.mark.long
@jobs_of(("mpi", "timeout"), [("mpich", "-")], ("openmpi", "60"))
def test_ranks_and_their_children_have_the_ranks_numbers(mpi, timeout, folder, tmp_path):
    job = mpi.run(2, "-m", "tests.programs.whoami", tmp_path / "run.db", "mpi", timeout, folder)
    assert job.returncode == 0, job.stdout
    assert set(seen(folder).values()) == {Worker(HOST, 0, 0), Worker(HOST, 1, 1)}


def test_what_an_evaluation_knows_ends_with_it():
    def fail():
        with being(Worker("elsewhere", 3)):
            raise KeyError(mpiabc.worker().rank)

    with pytest.raises(KeyError, match="3"):
        fail()
    assert mpiabc.worker() == Worker(HOST)
