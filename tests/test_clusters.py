"""Real Slurm and real Grid Engine, on one node of their own: the job scripts as users submit them."""

import os
import platform
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

import mpiabc
import mpiabc.cluster
from mpiabc import cli
from mpiabc.batch.systems import SYSTEMS
from mpiabc.cluster import waiting
from tests import problems
from tests.conftest import HANGS, ROOT, missing
from tests.programs import killed

pytestmark = pytest.mark.long
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
    script = slurm.script(folder, "requeue", *run, ranks=2, walltime="3m")
    text = script.read_text().replace("00:03:00", "00:01:00").replace("B:USR1@120", "B:USR1@20")
    script.write_text(text.replace("\nmpirun", '\necho "${SLURM_RESTART_COUNT:-0}" >>starts\nmpirun'))
    return slurm.submit(folder, script), folder


@pytest.fixture(scope="module")
def rerun(sge, tmp_path_factory):
    """A job of 20 s, of which the last 7 are kept for winding up, with a run that takes 14."""
    folder = tmp_path_factory.mktemp("rerun")
    run = PROGRAM, "run.db", "mpi", "-", "0.04"
    script = sge.script(folder, "mpi", *run, ranks=2, walltime="20s")
    script.write_text(script.read_text().replace("exec mpirun", 'echo "$RESTARTED" >>starts\nexec mpirun'))
    return sge.submit(folder, script), folder


def test_slurm_job_has_the_digest_of_the_serial_run(requeued, slurm, expected, tmp_path):
    asked = {"nodes": 1, "tasks-per-node": 2, "cpus-per-task": 1, "mail": "me@nowhere", "line": "--exclusive"}
    script = slurm.script(tmp_path, "mpi", PROGRAM, "run.db", "auto", walltime="10m", **asked)
    said = slurm.wait(slurm.submit(tmp_path, script), tmp_path)
    assert (tmp_path / "run.db").exists(), said
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected, said


@pytest.mark.parametrize("system", ["slurm", "sge"])
def test_time_left_is_that_of_the_job(system, requeued, rerun, request, tmp_path):
    cluster = request.getfixturevalue(system)
    script = tmp_path / "left.sh"
    program = "import mpiabc.batch; print(mpiabc.batch.seconds_left())"
    script.write_text(f"#!/bin/bash\nsleep 2\n{sys.executable} -c '{program}'\n")
    limit = ["--time=5", "--output=left.log"] if system == "slurm" else ["-l", "h_rt=300", "-cwd", "-j", "y"]
    said = cluster.wait(cluster.submit(tmp_path, script, *limit), tmp_path)
    assert 290 < float(said.splitlines()[-1]) <= 298, said


def test_slurm_job_starts_a_dask_cluster_that_the_run_uses_and_leaves_nothing(slurm, expected, tmp_path):
    """With a user's file that names no scheduler."""
    if shutil.which("dask-mpi", path=Path(sys.executable).parent) is None:
        missing("dask-mpi is not installed: install `mpiabc[dask]`")
    plain = str(ROOT / "tests" / "programs" / "plain.py")
    script = slurm.script(tmp_path, "dask", plain, ranks=2, walltime="10m")
    said = slurm.wait(slurm.submit(tmp_path, script), tmp_path)
    assert (tmp_path / "run.db").exists(), said
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected, said
    assert [path.name for path in tmp_path.glob("simulated-by-*")] == ["simulated-by-dask-mpi"]
    assert not list(tmp_path.glob("*.json"))


@pytest.fixture(params=["slurm", "sge"])
def client(request, monkeypatch, tmp_path):
    """A folder for jobs, in a process that is a client of the batch system."""
    cluster = request.getfixturevalue(request.param)
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "_ASK", 0.5)
    monkeypatch.setattr(waiting, "_LAG", 2.0)
    return request.param


def test_map_gives_results_in_order_and_the_exceptions_of_items(client, tmp_path, capsys):
    """One object for several calls; what has gone wrong is seen afterwards, what has not leaves no trace."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def reciprocal(x):
        if x == 5 and not (marks / "5").exists():
            (marks / "5").touch()
            os.kill(os.getpid(), signal.SIGKILL)  # the task is lost, and submitted again
        time.sleep(0.3 * (x == 1))  # the first ends last
        return 1 / x

    with mpiabc.cluster.Cluster(client, walltime="5m", chunk=2) as jobs:
        assert jobs.map(reciprocal, [1, 2, 4, 5, 8]) == [1, 0.5, 0.25, 0.2, 0.125]
        assert not (tmp_path / "mpiabc-jobs").exists()
        with pytest.raises(ZeroDivisionError, match="division by zero") as error:
            jobs.map(reciprocal, [1, 2, 0, 4])
    assert "items[2], on " in error.value.__notes__[0]
    assert "in reciprocal" in str(error.value.__cause__)
    assert (marks / "5").exists()
    assert cli.main(["jobs", "--failures"]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("map-")][:1]
    assert row[1] == client
    assert (row[3], row[8]) == ("2", "1")  # tasks, failed


def test_jobs_are_seen_while_they_run_and_leave_the_queue_with_their_map(
    client, tmp_path, capsys, monkeypatch
):
    def look(_):
        cli.main(["jobs"])
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("map-")]
        if int(rows[0][5]) == 2:  # running
            raise KeyboardInterrupt
        time.sleep(0.3)

    def has_left():
        jobs = {job for path in tmp_path.glob("mpiabc-jobs/*") for job in mpiabc.cluster.Call.read(path).jobs}
        return not jobs & {job for job, *_ in SYSTEMS[client].arrays.states()}

    monkeypatch.setattr(waiting, "_pause", look)
    with pytest.raises(KeyboardInterrupt):
        mpiabc.cluster.map(lambda x: time.sleep(600), range(2), system=client, walltime="20m")
    deadline = time.monotonic() + HANGS
    while not has_left() and time.monotonic() < deadline:
        time.sleep(0.3)
    assert has_left()


@pytest.mark.parametrize("how", ["all", "one"])
def test_a_cancellation_of_jobs_is_taken_for_one(how, client, tmp_path, request):
    """Of tasks that run and of those that wait; nothing is submitted again."""
    cluster = request.getfixturevalue(client)

    def f(x):
        (tmp_path / f"begun-{x}").touch()
        time.sleep(600)

    def look(_):
        if any(tmp_path.glob("begun-*")) and (calls := [*tmp_path.glob("mpiabc-jobs/*")]):
            (job,) = mpiabc.cluster.Call.read(calls[0]).jobs
            begun = min(int(path.name.partition("-")[2]) for path in tmp_path.glob("begun-*"))
            cluster.cancel(job if how == "all" else SYSTEMS[client].arrays.task.format(job, begun + 1))
            monkey.setattr(waiting, "_pause", time.sleep)
        time.sleep(0.3)

    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(waiting, "_pause", look)
        with pytest.raises(mpiabc.SchedulerError, match=r"was cancelled \(.*\): nothing is submitted again"):
            mpiabc.cluster.map(f, range(6), system=client, walltime="20m")
    (call,) = map(mpiabc.cluster.Call.read, tmp_path.glob("mpiabc-jobs/*"))
    assert len(call.jobs) == 1


@pytest.mark.parametrize("client", ["sge"], indirect=True)
def test_a_time_limit_that_is_too_short_is_named(client, tmp_path):
    """On Grid Engine; Slurm's shortest is a minute, and its words are in tests/test_cluster_map.py."""
    message = (
        r"items\[0\] to items\[1\], job .* was ended at its time limit \(failed 37 : .* of 00:00:02 on .*"
    )
    with pytest.raises(mpiabc.SchedulerError, match=message + "give more walltime="):
        mpiabc.cluster.map(time.sleep, [0, 600], system=client, chunk=2, walltime=2)
    (call,) = map(mpiabc.cluster.Call.read, tmp_path.glob("mpiabc-jobs/*"))
    assert len(call.jobs) == 1


def test_only_the_batch_system_that_is_here_is_available(client):
    available = {name: getattr(mpiabc.cluster, f"{name}_available")() for name in ("slurm", "sge", "pbs")}
    assert available == {name: name == client for name in available}


def test_refusals_of_the_batch_system_are_reported_with_their_reason(client, tmp_path):
    """And nothing is left of a map that is refused."""
    reasons = {"slurm": "invalid partition specified: nowhere", "sge": "Unable to run job: .*nowhere"}
    with pytest.raises(mpiabc.SchedulerError, match=reasons[client]):
        mpiabc.cluster.map(abs, [1], system=client, queue="nowhere")
    if client == "sge":
        with pytest.raises(mpiabc.SchedulerError, match="is Grid Engine's, give system='sge'"):
            mpiabc.cluster.map(abs, [1], system="pbs")
    assert not (tmp_path / "mpiabc-jobs").exists()


@pytest.mark.parametrize("system", ["slurm", "sge"])
def test_array_of_workers_serves_a_run(system, request, expected, tmp_path):
    """With the digest of the serial run."""
    if not shutil.which("redis-server"):
        missing("redis-server is not installed: apt-get install redis-server")
    cluster = request.getfixturevalue(system)
    broker = tmp_path / "broker.json"
    script = cluster.script(tmp_path, "workers", ranks=2, walltime="10m", broker=broker)
    assert cli.main(["broker", "start", "--file", str(broker)]) == 0
    try:
        job = cluster.submit(tmp_path, script)
        scheduler = mpiabc.schedulers.Redis(broker=broker)
        history = killed.sampler(0.01).run(tmp_path / "run.db", scheduler=scheduler, walltime=60)
        cluster.cancel(job)
        said = cluster.wait(job, tmp_path)
    finally:
        cli.main(["broker", "stop", "--now", "--file", str(broker)])
    assert problems.digests(history) == expected
    assert "1 processes for redis://127.0.0.1" in said
    assert "generation 2" in said


def test_slurm_job_requeues_itself_until_the_run_is_done(requeued, slurm, expected):
    """And comes to the digest of the run that nobody has interrupted."""
    job, folder = requeued
    said = slurm.wait(job, folder)
    begun = [line for line in said.splitlines() if f"SLURM job {job} on {platform.node()}, 2 ranks: " in line]
    assert begun[0].endswith("2 ranks: new")
    assert begun[1].partition("2 ranks: ")[2].startswith("resumed from generation ")
    assert "status 75 is meant: this job goes back into the queue" in said
    assert (folder / "starts").read_text().splitlines()[:2] == ["0", "1"]  # SLURM_RESTART_COUNT
    assert problems.digests(mpiabc.open(folder / "run.db")) == expected


def test_sge_job_is_run_again_until_the_run_is_done(rerun, sge, expected):
    """Status 99 says so."""
    job, folder = rerun
    sge.wait(job, folder)
    assert (folder / "starts").read_text().splitlines()[:2] == ["0", "1"]  # RESTARTED
    assert problems.digests(mpiabc.open(folder / "run.db")) == expected
