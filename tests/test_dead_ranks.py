"""Ranks that die under fault tolerance: lost leases, no more. (Without it: `tests/kills.py`.)"""

import pytest

import mpiabc
from tests import problems
from tests.conftest import HANGS, launcher_of


@pytest.fixture(scope="module")
def tolerant():
    """Open MPI with its fault tolerance."""
    return launcher_of("openmpi", "--with-ft", "ulfm")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    sampler = problems.sampler()
    return problems.digests(sampler.run(tmp_path_factory.mktemp("quiet") / "run.db", scheduler="serial"))


@pytest.mark.parametrize("order", ["3", "5,1,4,2,3"], ids=["one of 6", "5 of 6"])
def test_run_survives_dead_ranks_down_to_rank_0_alone(tolerant, order, expected, tmp_path):
    """Each death is reported once, with rank and host; the digest is that of a quiet run, the status 0."""
    job = tolerant.run(6, "-m", "tests.programs.dying", tmp_path / "run.db", order)
    assert job.returncode == 0, job.stdout
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected
    for rank in range(1, 6):
        assert job.stdout.count(f"rank {rank} of 6 on ") == (str(rank) in order)
    assert job.stdout.count("died; its evaluations go out again") == len(order.split(","))


def test_job_that_loses_rank_0_ends_and_goes_on_when_started_again(tolerant, expected, tmp_path):
    command = ("-m", "tests.programs.dying", tmp_path / "run.db", "0")
    first = tolerant.run(3, *command, timeout=HANGS)
    assert first.returncode not in (0, 75), first.stdout
    assert "rank 0 died; run the same command again" in first.stdout
    second = tolerant.run(3, *command, timeout=HANGS)
    assert second.returncode == 0, second.stdout
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected
