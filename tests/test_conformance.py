"""What every scheduler must do: the same digest, the truth, the same treatment of failures."""

import faulthandler
import json
import multiprocessing
import os
import signal
import time

import pytest
import threadpoolctl

import mpiabc
from mpiabc import schedulers
from tests import jobs, problems
from tests.conftest import jobs_of, quick
from tests.expected import serial, static
from tests.programs import digests as program

SCHEDULERS = {
    "serial": schedulers.Serial(),
    "processes 1": schedulers.Processes(1),
    "processes 2": schedulers.Processes(2),
    "processes 3": schedulers.Processes(3),
    "processes, spawned": schedulers.Processes(2, start="spawn"),
    "auto": "auto",
}


@pytest.fixture(scope="module")
def expected():
    """The digests of the serial run."""
    return serial()


@pytest.mark.parametrize("variant", program.VARIANTS)
@pytest.mark.parametrize("scheduler", quick(SCHEDULERS, "processes 2"))
def test_digest_does_not_depend_on_the_scheduler(scheduler, variant, expected):
    assert program.digests(SCHEDULERS[scheduler], variant) == expected[variant]


@pytest.fixture(scope="module")
def expected_static():
    """The digests of a simulated cluster with static scheduling, which any other engine must have too."""
    return static()


@jobs_of(("mpi", "ranks"), [("mpich", 3)], ("mpich", 1), ("mpich", 5), ("openmpi", 2))
def test_digest_does_not_depend_on_the_number_of_ranks(mpi, ranks, expected, expected_static):
    """Dynamic as serial; static as static anywhere, which is another population."""
    job = mpi.run(ranks, "-m", "tests.programs.digests", "mpi", "mpi-static")
    assert job.returncode == 0, job.stdout
    (line,) = [line for line in job.stdout.splitlines() if line.startswith("DIGESTS")]
    found = json.loads(line.removeprefix("DIGESTS"))
    assert {v: found[f"mpi, {v}"] for v in program.VARIANTS} == expected
    assert {v: found[f"mpi-static, {v}"] for v in program.STATIC} == expected_static
    assert not any(digest in expected.values() for digest in expected_static.values())


FAILURES = {
    "exception": "RuntimeError: the pump broke",
    "SystemExit": "SystemExit: 0",
    "os._exit": "the simulator called os._exit(0)",
    "nan": "the distance of the simulated from the observed data is nan",
    "shape": 'it is {"y": array (3,)}, expected {"y": float}',
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "scheduler"), [*((how, "mpi") for how in FAILURES), ("exception", "mpi-static")]
)
def test_failing_evaluation_ends_the_job_and_is_named(mpi, how, scheduler, tmp_path):
    """Within seconds, non-zero, with address, theta, rank, host and traceback in the last lines."""
    job = mpi.run(2, "-m", "tests.programs.failing", how, scheduler, "raise", tmp_path / "run.db")
    assert job.returncode not in (0, 75)
    output = job.stdout[job.stdout.index("mpiabc.errors.SimulatorError") :]
    assert output.startswith("mpiabc.errors.SimulatorError: evaluation 0:137 failed on rank ")
    assert "theta: mu=" in output
    assert FAILURES[how] in output
    assert job.stdout.count("SimulatorError:") == 1
    if how in ("exception", "SystemExit", "os._exit"):
        assert "in simulate" in output
    assert len(mpiabc.open(tmp_path / "run.db")) == 0


@pytest.mark.long
def test_job_ends_although_another_rank_is_stuck_in_a_simulation(mpi, tmp_path):
    job = mpi.run(3, "-m", "tests.programs.failing", "hang elsewhere", "mpi", "raise", tmp_path / "run.db")
    assert job.returncode not in (0, 75)
    assert "evaluation 0:130 failed on rank" in job.stdout
    assert "the pump broke" in job.stdout


@pytest.mark.long
def test_policy_on_error_holds_on_ranks(mpi, tmp_path):
    def run(on_error):
        return mpi.run(
            2, "-m", "tests.programs.failing", "exception", "mpi", on_error, tmp_path / f"{on_error}.db"
        )

    rejected, counted, stopped = run("reject"), run("3"), run("2")
    assert rejected.returncode == counted.returncode == 0, rejected.stdout + counted.stdout
    done = [[line for line in job.stdout.splitlines() if "DONE" in line] for job in (rejected, counted)]
    assert done[0] == done[1]  # the digest too: a policy is no setting of the population
    assert "['0:137', '1:137']" in rejected.stdout
    assert stopped.returncode == 1
    assert "2 evaluations failed, as many as on_error allows" in stopped.stdout


@pytest.mark.parametrize("how", FAILURES)
def test_failing_evaluation_ends_a_run_in_processes(how, tmp_path):
    def simulate(theta, rng, *, id):
        return go_wrong(how) if id.index == 30 else problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=simulate)
    with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:30 failed on process") as error:
        sampler.run(tmp_path / "run.db", scheduler=schedulers.Processes(2))
    assert FAILURES[how] in str(error.value)


def go_wrong(how):
    if how == "exception":
        raise RuntimeError("the pump broke")
    if how == "SystemExit":
        raise SystemExit(0)
    if how == "os._exit":
        os._exit(0)
    return {"y": float("nan") if how == "nan" else [0.0, 0.0, 0.0]}


def test_killed_workers_are_replaced_and_change_nothing(tmp_path):
    """A child is killed every few evaluations of generation 0; the digest is that of a quiet run."""
    flag = tmp_path / "killed"
    flag.mkdir()

    def simulate(theta, rng, *, id):
        mark = flag / f"{id}"
        if id.index % 40 == 39 and id.generation == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return problems.gaussian(theta, rng)

    quiet = problems.sampler().run(tmp_path / "b.db", scheduler="serial")
    sampler = problems.sampler(simulate=simulate)
    history = sampler.run(tmp_path / "run.db", scheduler=schedulers.Processes(2))
    assert len(list(flag.iterdir())) >= 3
    assert problems.digests(history) == problems.digests(quiet)


def test_evaluation_that_always_kills_its_worker_is_named(tmp_path):
    def simulate(theta, rng, *, id):
        if id.index == 30:
            faulthandler.disable()  # pytest's, which would print a page
            os.kill(os.getpid(), signal.SIGSEGV)
        return problems.gaussian(theta, rng)

    with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:30 failed") as error:
        problems.sampler(simulate=simulate).run(tmp_path / "run.db", scheduler=schedulers.Processes(2))
    assert "was ended by SIGSEGV" in str(error.value)
    assert "theta: mu=" in str(error.value)


@pytest.mark.parametrize("start", quick(["fork", "spawn"], "fork"))
@pytest.mark.parametrize("is_far", [False, True])
def test_death_of_a_child_is_seen_although_what_it_started_lives(start, is_far, tmp_path):
    """A process of its group is ended with it; one that has left the group holds its pipe open."""
    flag, pid = tmp_path / "flag", tmp_path / "pid"

    def simulate(theta, rng, *, id):
        if id == (0, 30) and not flag.exists():
            flag.touch()
            if not (started := os.fork()):
                if is_far:
                    os.setsid()
                time.sleep(600)
            pid.write_text(str(started))
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return problems.gaussian(theta, rng)

    scheduler = schedulers.Processes(2, start=start)
    history = problems.sampler(simulate=simulate).run(tmp_path / "run.db", scheduler=scheduler)
    quiet = problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)
    if is_far:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    else:
        assert not jobs.is_alive(int(pid.read_text()))


@pytest.mark.long
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_children_share_the_threads_and_the_leader_gets_its_own_back(start, tmp_path, monkeypatch):
    for name in ("OMP", "OPENBLAS", "MKL", "BLIS"):
        monkeypatch.delenv(f"{name}_NUM_THREADS", raising=False)
    monkeypatch.setattr("mpiabc.machine.cores", lambda: 2)

    def most():
        return max(library["num_threads"] for library in threadpoolctl.threadpool_info())

    def simulate(theta, rng):
        assert most() == 1
        return problems.gaussian(theta, rng)

    with threadpoolctl.threadpool_limits(2):
        problems.sampler(simulate=simulate).run(
            tmp_path / "run.db", scheduler=schedulers.Processes(2, start=start)
        )
        assert most() == 2


def test_problem_that_cannot_travel_is_refused_where_it_must(tmp_path):
    handle = multiprocessing.Lock()

    def simulate(theta, rng):
        with handle:
            return problems.gaussian(theta, rng)

    with pytest.raises(mpiabc.SchedulerError, match="cannot be sent to another process"):
        problems.sampler(simulate=simulate).run(
            tmp_path / "run.db", scheduler=schedulers.Processes(2, start="spawn")
        )


def test_all_failing_simulator_ends_the_run_under_reject(tmp_path):
    def simulate(theta, rng):
        raise RuntimeError("always")

    with pytest.raises(mpiabc.SimulatorError, match=r"all of the first \d+ evaluations failed"):
        problems.sampler(simulate=simulate, on_error="reject").run(tmp_path / "run.db", scheduler="serial")
