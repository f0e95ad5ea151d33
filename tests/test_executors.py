"""Any executor and any map: the same digest, failures and timeouts as anywhere, a clear end if it breaks."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

import mpiabc
from mpiabc import schedulers
from tests import problems
from tests.conftest import HANGS, ROOT, environment, jobs_of, missing, quick
from tests.expected import serial, static
from tests.programs import digests as program
from tests.test_conformance import FAILURES, go_wrong
from tests.test_timeout import failing, sampler, sleeping


def spawned():
    return multiprocessing.get_context("spawn")


@contextmanager
def loky():
    try:
        from loky import get_reusable_executor
    except ImportError as error:
        missing(str(error))
    executor = get_reusable_executor(max_workers=2)
    yield executor
    executor.shutdown()


DYNAMIC = {
    "processes": lambda: ProcessPoolExecutor(2, mp_context=spawned()),
    "threads": lambda: ThreadPoolExecutor(3),
    "loky": loky,
}


@contextmanager
def builtin():
    yield map


@contextmanager
def pool(method):
    with spawned().Pool(2) as workers:
        yield getattr(workers, method)


STATIC = {"builtin": builtin, "map": lambda: pool("map"), "imap": lambda: pool("imap")}


@pytest.fixture(scope="module")
def expected():
    return serial()


@pytest.mark.long
@pytest.mark.parametrize("executor", DYNAMIC)
def test_digest_is_that_of_serial_in_any_executor(executor, expected):
    with DYNAMIC[executor]() as running:
        scheduler = schedulers.Futures(running)
        assert {v: program.digests(scheduler, v) for v in program.VARIANTS} == expected


@jobs_of(("mpi", "ranks", "how"), [], ("mpich", 1, "comm"), ("mpich", 3, "pool"), ("openmpi", 3, "comm"))
def test_digest_is_that_of_serial_in_executors_of_mpi4py(mpi, ranks, how, expected):
    runner = ["-m", "mpi4py.futures"] if how == "pool" else []
    job = mpi.run(ranks, *runner, "-m", "tests.programs.executors", how)
    assert job.returncode == 0, job.stdout
    (line,) = [line for line in job.stdout.splitlines() if line.startswith("DIGESTS")]
    assert json.loads(line.removeprefix("DIGESTS")) == expected


@pytest.mark.long
@pytest.mark.parametrize("kind", STATIC)
def test_digest_is_that_of_static_scheduling_in_any_map(kind):
    with STATIC[kind]() as function:
        scheduler = schedulers.Map(function)
        assert {v: program.digests(scheduler, v) for v in program.STATIC} == static()


@pytest.mark.parametrize("how", FAILURES)
def test_failing_evaluation_ends_a_run_in_an_executor(how, tmp_path):
    def simulate(theta, rng, *, id):
        return go_wrong(how) if id.index == 30 else problems.gaussian(theta, rng)

    abc = problems.sampler(simulate=simulate)
    for scheduler in (schedulers.Futures(ThreadPoolExecutor(2)), schedulers.Map(map)):
        is_dynamic = not scheduler.is_static
        with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:30 failed on process") as error:
            abc.run(tmp_path / f"{is_dynamic}.db", scheduler=scheduler)
        assert FAILURES[how] in str(error.value)


@pytest.mark.parametrize("place", quick(["processes", "loky", "map"], "map"))
def test_failing_evaluation_is_named_from_any_executor_and_pool_of_processes(place, tmp_path):
    """With where it was: a process of the pool, not this one."""

    def simulate(theta, rng, *, id):
        return go_wrong("exception") if id.index == 30 else problems.gaussian(theta, rng)

    with (DYNAMIC | STATIC)[place]() as running:
        scheduler = schedulers.Map(running) if place in STATIC else schedulers.Futures(running)
        with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:30 failed on process") as error:
            problems.sampler(simulate=simulate).run(tmp_path / "run.db", scheduler=scheduler)
    assert FAILURES["exception"] in str(error.value)
    assert f"process {os.getpid()} " not in str(error.value)


@pytest.mark.long
def test_simulation_that_hangs_is_ended_in_an_executor(tmp_path):
    """By a child of the worker, as anywhere; the worker itself goes on."""
    quiet = sampler(failing, thresholds=(3,)).run(tmp_path / "quiet.db", scheduler="serial")
    with ThreadPoolExecutor(2) as executor:
        history = sampler(sleeping, timeout=0.5, thresholds=(3,)).run(
            tmp_path / "run.db", scheduler=schedulers.Futures(executor)
        )
    assert problems.digests(history) == problems.digests(quiet)
    assert {f.kind for f in history.failures} == {"timeout"}


@pytest.mark.long
def test_broken_executor_ends_the_run_with_a_word_and_the_same_command_goes_on(tmp_path):
    """A process pool cannot replace a worker that was killed; what was finished is kept."""
    simulate = problems.killed_once(tmp_path / "killed", at=(1, 40))
    abc = problems.sampler(simulate=simulate)
    with ProcessPoolExecutor(2, mp_context=spawned()) as executor:
        with pytest.raises(mpiabc.SchedulerError, match=r"takes no more work .*run the same command again"):
            abc.run(tmp_path / "run.db", scheduler=schedulers.Futures(executor))
        with pytest.raises(mpiabc.SchedulerError, match="takes no more work"):
            abc.run(tmp_path / "run.db", scheduler=schedulers.Futures(executor))
    assert len(mpiabc.open(tmp_path / "run.db")) == 1
    with ProcessPoolExecutor(2, mp_context=spawned()) as executor:
        history = abc.run(tmp_path / "run.db", scheduler=schedulers.Futures(executor))
    quiet = problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)


@pytest.mark.parametrize("how", quick(["fork", "spawn", "loky", "map"], "fork"))
def test_signal_to_all_processes_ends_the_run_with_one_sentence(how, tmp_path):
    """As Ctrl-C in a terminal, and what batch systems send: the workers have it too."""
    if how == "loky":
        with loky():
            pass
    asked = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if how == "map":  # Python's Pool may wait for ever for a lock that a worker ended by SIGTERM held
        asked.remove(signal.SIGTERM)
    jobs = [_grouped(how, tmp_path / number.name) for number in asked]
    try:
        for job, number in zip(jobs, asked, strict=True):
            workers = tmp_path / number.name / "workers"
            while job.poll() is None and not (workers.exists() and len(list(workers.iterdir())) == 2):
                time.sleep(0.05)
            os.killpg(job.pid, number)
            _, output = job.communicate(timeout=HANGS)
            assert job.returncode == 75, output
            assert output.count(f"stopped by {number.name}") == 1, output
            # Python itself may have more to say: its resource tracker, which SIGUSR1 ends, and an executor
            # whose workers die after tasks were cancelled.
            is_python = number == signal.SIGUSR1 or "terminate_broken" in output
            said = [line for line in output.splitlines() if not line.startswith("generation")]
            assert is_python or len(said) == 1, output
            assert "KeyboardInterrupt" not in output, output
    finally:
        for job in jobs:
            with job, suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)


def _grouped(how, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.programs.grouped", how, folder],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_bad_places_are_refused_at_once(tmp_path):
    abc = problems.sampler()
    for scheduler, message in [
        (schedulers.Futures(7), r"Futures\(7\): give an executor"),
        (schedulers.Map(7), r"Map\(7\): give a function"),
        (schedulers.Map(lambda f, items: []), "the map gave 0 results for"),
        (schedulers.Map(lambda f: []), "the map failed .TypeError"),
    ]:
        with pytest.raises(mpiabc.SchedulerError, match=message):
            abc.run(tmp_path / "run.db", scheduler=scheduler)


def test_problem_travels_once_to_each_worker_and_not_with_each_task(tmp_path):
    """Counted where it is unpickled, in threads, each of which keeps its own."""
    opened = _Counted.opened = []
    abc = problems.sampler(simulate=_Counted())
    with ThreadPoolExecutor(2) as executor:
        abc.run(tmp_path / "run.db", scheduler=schedulers.Futures(executor))
    assert 1 <= len(opened) <= 2


class _Counted:
    """A simulator that notes each time that it is unpickled."""

    opened: list = []

    def __call__(self, theta, rng):
        time.sleep(0.0005)
        return problems.gaussian(theta, rng)

    def __setstate__(self, state):
        self.opened.append(1)

    def __getstate__(self):
        return {"some": "state"}
