"""Waiting is reported: for whom, at what, how long. What cannot be awaited is a sentence before any work."""

import errno
import itertools
import os
import re
import resource
import subprocess
import sys
import time

import pytest

import mpiabc
from mpiabc import mapping, pool, schedulers
from mpiabc.driver import Driver, Waited
from mpiabc.progress import logged
from mpiabc.schedulers.redis import solitude
from mpiabc.schedulers.shared import starting
from mpiabc.schedulers.silence import Awaited, Silence
from tests import bridge, jobs, problems
from tests.conftest import HANGS, environment, missing, quick
from tests.programs import silent

# When it is reported.


def due_at(silence, seconds, step=0.25, **usual):
    """The seconds at which it is to be reported."""
    times = (step * i for i in range(1, int(seconds / step) + 1))
    return [at for at in times if silence.is_due(at, **usual)]


def test_silence_is_reported_after_a_minute_and_at_growing_intervals():
    assert due_at(Silence(0.0), 1000) == [60, 120, 240, 480, 960]
    assert due_at(Silence(0.0, times=4), 1000) == [240, 480, 960]


def test_silence_of_which_simulations_have_twice_as_much_is_none():
    assert due_at(Silence(0.0), 1000, usual=200.0) == [400, 800]


def test_a_silence_ends_and_another_one_begins_anew():
    silence = Silence(0.0)
    assert due_at(silence, 130) == [60, 120]
    silence.end(130.0)
    assert [at for at in range(131, 300) if silence.is_due(at)] == [190, 250]


def test_time_in_which_we_were_suspended_is_no_silence():
    silence = Silence(0.0)
    assert not silence.is_due(1e6)
    assert silence.seconds <= 1


class Mute:
    """An engine from which nothing comes home."""

    workers = 1

    def begin(self, job):
        pass

    def capacity(self, prefetch):
        return 0

    def poll(self, timeout):
        return []

    def busy(self):
        return 1

    def cancel(self, cut):
        pass

    def waits_for(self):
        return [Awaited(f"worker {i}", f"0:{i}", 61.0 + i, "why") for i in range(10)] + [Awaited("another")]


class EnoughError(Exception):
    pass


def test_the_driver_of_any_job_tells_what_its_engine_waits_for(caplog):
    reported = []

    def observe(event):
        if isinstance(event, Waited):
            reported.append(event.seconds)
            logged("run.db")(event)
        if len(reported) == 3:
            raise EnoughError

    items = mapping.sent([(1,)] * 4, "items")
    job = pool._Map(mapping.Batch(0, mapping.sent(abs, "function"), items, 4))
    clock = itertools.count(0.0, 0.01)
    with pytest.raises(EnoughError):
        list(Driver(Mute(), observers=[observe], clock=lambda: next(clock)).run(job))
    assert reported == pytest.approx([60, 120, 240], abs=1)
    assert caplog.messages[0] == (
        "run.db: nothing has come home for 1 min 00 s in generation 0, 0 of 4 accepted: waiting for worker 0 "
        "(0:0, for 1 min 01 s), worker 1 (0:1, for 1 min 02 s), worker 2 (0:2, for 1 min 03 s), worker 3 "
        "(0:3, for 1 min 04 s), worker 4 (0:4, for 1 min 05 s), worker 5 (0:5, for 1 min 06 s), worker 6 "
        "(0:6, for 1 min 07 s), worker 7 (0:7, for 1 min 08 s), 3 more; why"
    )


# What is reported.


def until_said(job, pattern):
    """What a job has said when it has said this."""
    end = time.monotonic() + HANGS
    while not (found := re.search(pattern, job.said()[0])):
        assert time.monotonic() < end, job.said()
        assert job.leader.poll() is None, job.said()
        time.sleep(0.05)
    return found[0]


NAMES = {
    "processes": r"process \d+ on \S+",
    "mpich": r"rank \d of 2 on \S+",
    "openmpi": r"rank \d of 2 on \S+",
    "redis": r"worker \w+ \(process \d+ on \S+\)",
    "dask": r"worker tcp://\S+",
}


@pytest.mark.long
@pytest.mark.parametrize("engine", quick(NAMES, "processes"))
def test_a_run_says_who_is_at_which_evaluation_since_when(engine, tmp_path):
    store, go = tmp_path / "run.db", tmp_path / "go"
    with jobs.opened(engine, tmp_path) as place:
        job = place.start("silent", store, go)
        try:
            until_said(
                job,
                r"run\.db: nothing has come home for \S+ s in generation 0, \d+ of 40 accepted: waiting for "
                rf"{NAMES[engine]} \(0:[\d to:]+, for \S+ s\)",
            )
            go.touch()
            assert job.leader.wait(HANGS) == 0, job.said()
        finally:
            job.close()
    expected = silent.sampler().run(tmp_path / "expected.db", scheduler="serial")
    assert problems.digests(mpiabc.open(store)) == problems.digests(expected)


@pytest.mark.parametrize("engine", jobs.MPIS)
@pytest.mark.parametrize(
    ("case", "pattern"),
    [
        (
            "collective",
            r"waiting for rank 1 of 2 on \S+ \(0:.*COMM_WORLD.*let it use COMM_SELF.*MPI\(comm=\.\.\.\)",
        ),
        ("absent", r"rank 0 of 2 on \S+ has waited \d+ s for all ranks to call run: .*MPI\(comm="),
        ("unstarted", r"rank 0 of 2 on \S+ has waited \d+ s for all ranks to call run: "),
    ],
)
@pytest.mark.long
def test_ranks_that_wait_for_each_other_are_reported(case, pattern, engine, tmp_path):
    with jobs.opened(engine, tmp_path) as place:
        job = place.start("silent", tmp_path / "run.db", case)
        try:
            until_said(job, pattern)
        finally:
            job.close()


def test_redis_workers_that_are_there_for_another_run_are_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(solitude, "_ALONE", 0.0)
    server = bridge.RedisServer(tmp_path)
    try:
        with server.workers(1, "--run", "another") as (worker,):
            assert worker.says("waiting for a run named another")
            engine = server.scheduler().open(problems.problem())
            end = time.monotonic() + HANGS
            while not caplog.messages and time.monotonic() < end:
                engine.poll(0.1)
            (nobody,) = engine.waits_for()
            engine.close(0)
    finally:
        server.kill()
    reported = (
        r"those on redis://\S+ \(\d connections of workers\) serve another run, wait for one of another name"
    )
    assert re.match(f"no worker is there; {reported}", caplog.messages[0])
    assert re.match(reported, nobody.why)


def test_dask_workers_that_are_paused_are_reported():
    try:
        import dask
        import distributed
    except ImportError as error:
        missing(str(error))
    settings = {"distributed.worker.memory.pause": 0.01, "distributed.worker.memory.terminate": False}
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(memory_limit="1GB", **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        engine = schedulers.Dask(client).open(problems.problem())
        end = time.monotonic() + HANGS
        while not (found := engine.waits_for()) and time.monotonic() < end:
            time.sleep(0.05)
        engine.close(0)
    assert re.fullmatch(r"worker inproc://\S+, which is paused with \S+ of 1 GB of memory", found[0].who)
    assert "larger --memory-limit" in found[0].why


# What is no waiting: a sentence before any work.


def test_more_processes_than_files_may_be_open_are_a_sentence(tmp_path):
    program = "from tests import problems\nfrom mpiabc import schedulers\n"
    program += "problems.sampler().run('run.db', scheduler=schedulers.Processes(24))"
    job = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert job.returncode == 1
    assert re.search(
        r"SchedulerError: 24 worker processes need 96 open files, and this process may have 64, of which \d+ "
        r"are in use \(ulimit -n\): raise the limit, or take fewer, as in scheduler=Processes\(\d+\)$",
        job.stderr.strip().splitlines()[-1],
    )
    assert not (tmp_path / "run.db").exists()


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_system_that_gives_no_more_processes_is_a_sentence_and_leaves_none(how, monkeypatch):
    kind = {"fork": starting.Forked, "spawn": starting.Spawned}[how]
    start, started = kind.__call__, []

    def limited(self, siblings, watch, who):
        if len(started) == 2:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        process, connection = start(self, siblings, watch, who)
        started.append(process.pid)
        return process, connection

    monkeypatch.setattr(kind, "__call__", limited)
    scheduler = schedulers.Processes(5, start=how)
    with pytest.raises(
        mpiabc.SchedulerError, match=r"^worker process 3 of 5 cannot be started \(Resource temp"
    ):
        scheduler.open(problems.problem())
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


PROGRAM = """
from mpi4py import MPI
import mpiabc
from mpiabc import schedulers
from tests import problems

world = MPI.COMM_WORLD
mine = world.Split(world.rank)
between = mine.Create_intercomm(0, world, 1 - world.rank)
for comm in (world.Split(MPI.UNDEFINED), MPI.COMM_NULL, between, "world"):
    try:
        problems.sampler().run("none.db", scheduler=schedulers.MPI(comm))
    except mpiabc.SchedulerError as error:
        print(error)
"""


def test_communicators_that_no_run_can_have_are_a_sentence(mpi):
    job = mpi.run(2, "-c", PROGRAM)
    assert job.returncode == 0, job.stdout
    assert job.stdout.count("MPI(comm=COMM_NULL): this rank is in no communicator") == 4
    assert job.stdout.count("MPI(comm=...): an intercommunicator has two groups") == 2
    assert job.stdout.count("MPI(comm='world'): give a communicator of mpi4py") == 2
