"""Real Slurm and real Grid Engine, on one node of their own: the job scripts as users submit them."""

import pytest

import mpiabc
from tests import problems
from tests.conftest import ROOT
from tests.programs import killed

PROGRAM = str(ROOT / "tests" / "programs" / "killed.py")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The digests of the quiet run."""
    store = tmp_path_factory.mktemp("quiet") / "run.db"
    return problems.digests(killed.sampler(0).run(store, scheduler="serial"))


@pytest.fixture(scope="module")
def requeued(slurm, tmp_path_factory):
    """A job of a minute, with a run that takes longer than the 10 to 40 s after which USR1 comes."""
    folder = tmp_path_factory.mktemp("requeued")
    run = PROGRAM, "run.db", "mpi", "1h", "0.13"
    script = slurm.script(folder, "requeue", *run, ranks=2, walltime="1m")
    script.write_text(script.read_text().replace("B:USR1@120", "B:USR1@20"))
    return slurm.submit(folder, script), folder


def test_slurm_job_has_the_digest_of_the_serial_run(requeued, slurm, expected, tmp_path):
    script = slurm.script(tmp_path, "mpi", PROGRAM, "run.db", "mpi", "auto", ranks=2, walltime="10m")
    said = slurm.wait(slurm.submit(tmp_path, script), tmp_path)
    assert (tmp_path / "run.db").exists(), said
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected, said


@pytest.mark.parametrize("system", ["slurm", "sge"])
def test_time_left_is_that_of_the_job(system, request, tmp_path):
    cluster = request.getfixturevalue(system)
    script = tmp_path / "left.sh"
    script.write_text("#!/bin/bash\nsleep 2\npython -c 'import mpiabc.batch as b; print(b.seconds_left())'\n")
    limit = ["--time=5", "--output=left.log"] if system == "slurm" else ["-l", "h_rt=300", "-cwd", "-j", "y"]
    said = cluster.wait(cluster.submit(tmp_path, script, *limit), tmp_path)
    assert 290 < float(said.splitlines()[-1]) <= 298, said


def test_slurm_job_requeues_itself_until_the_run_is_done(requeued, slurm, expected):
    """And comes to the digest of the run that nobody has interrupted."""
    job, folder = requeued
    said = slurm.wait(job, folder, timeout=120)
    assert "DUE TO JOB REQUEUE" in said, said
    assert problems.digests(mpiabc.open(folder / "run.db")) == expected, said


def test_sge_job_is_run_again_until_the_run_is_done(sge, expected, tmp_path):
    """Status 99, at the end of jobs of ten seconds each."""
    script = sge.script(tmp_path, "mpi", PROGRAM, "run.db", "mpi", "auto", ranks=2, walltime="10s")
    said = sge.wait(sge.submit(tmp_path, script), tmp_path)
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected, said
