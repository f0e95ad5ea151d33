"""Dask: the same digest on any cluster, whatever happens to its workers; a clear end when it goes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from contextlib import contextmanager
from pathlib import Path

import pytest

import mpiabc
from mpiabc import schedulers
from tests import problems
from tests.bridge import make_certificate
from tests.conftest import HANGS, ROOT, environment, environment_of, missing
from tests.expected import serial
from tests.programs import digests as program
from tests.programs.slow import gaussian as slow_gaussian
from tests.test_conformance import FAILURES, go_wrong
from tests.test_timeout import failing, sampler, sleeping

# Dask leaves sockets and event loops to the garbage collector when a cluster dies under it.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}


@pytest.fixture(scope="module")
def expected():
    return serial()


@contextmanager
def running(folder, workers, how="", **variables):
    """The scheduler file of a cluster of its own, to which happens what `how` says, and its process."""
    file = folder / "my_scheduler.json"
    job = subprocess.Popen(
        [sys.executable, "-m", "tests.programs.dask_cluster", file, str(workers), how],
        cwd=ROOT,
        env=environment(**QUIET, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    job.scheduler_file = file
    with job:
        try:
            yield job
        finally:
            job.stdin.close()


def quiet_digests(folder):
    """What `tests.programs.slow` comes to, computed here without its sleeps."""
    return problems.digests(problems.sampler(200).run(folder / "quiet.db", scheduler="serial"))


def slow(store, file):
    """A process that makes the run of `tests.programs.slow`."""
    command = [sys.executable, "-m", "tests.programs.slow", store, file]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**QUIET), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def digests_in(output):
    """The digests that a program has printed."""
    (line,) = [line for line in output.splitlines() if line.startswith("DIGESTS")]
    return json.loads(line.removeprefix("DIGESTS"))


@pytest.mark.long
def test_digest_is_that_of_serial_on_a_cluster_by_client_and_by_address(dask_client, expected):
    assert {v: program.digests(dask_client, v) for v in program.VARIANTS} == expected
    assert program.digests(dask_client.scheduler.address, "scalar") == expected["scalar"]


@pytest.mark.long
def test_database_of_pyabc_is_that_of_serial(dask_client):
    """(The other engines are in `test_pyabc`.)"""
    from tests.test_pyabc import digest_with_own_calls, models, open_sampler

    def databases(place):
        with open_sampler(place, seed=1) as sampler:
            examples = models.delayed, models.adaptive_distance
            return [digest_with_own_calls(sampler, make) for make in examples]

    assert databases(schedulers.Dask(dask_client)) == databases("serial")


@pytest.mark.usefixtures("dask_client")  # with which Dask's configuration is complete
@pytest.mark.long
def test_digest_is_that_of_serial_over_tls(expected, tmp_path):
    """With the certificates that Dask's configuration names; without them, there is no connection."""
    import dask

    make_certificate(tmp_path)
    roles = ("scheduler", "worker", "client")
    tls = {f"{role}.{part}": str(tmp_path / f"{part}.pem") for role in roles for part in ("cert", "key")}
    tls = {f"distributed.comm.tls.{name}": file for name, file in tls.items()}
    tls["distributed.comm.tls.ca-file"] = str(tmp_path / "cert.pem")
    variables = {f"DASK_{name.upper().replace('.', '__')}": file for name, file in tls.items()}
    with running(tmp_path, 2, "tls", **variables) as cluster:
        with dask.config.set(tls):
            assert program.digests(str(cluster.scheduler_file), "scalar") == expected["scalar"]
        dask_ = schedulers.Dask(scheduler_file=cluster.scheduler_file, wait=1)
        with pytest.raises(mpiabc.SchedulerError, match=r"tls://.* speaks TLS, and .* names no certificates"):
            problems.sampler().run(tmp_path / "run.db", scheduler=dask_)


@pytest.mark.long
def test_nothing_is_left_on_the_scheduler(dask_client, expected):
    assert (
        program.digests(schedulers.Dask(address=dask_client.scheduler.address), "scalar")
        == expected["scalar"]
    )

    def look(dask_scheduler):
        return [key for key in dask_scheduler.tasks if "mpiabc" in key], len(dask_scheduler.clients)

    end = time.monotonic() + HANGS
    while dask_client.run_on_scheduler(look) != ([], 2) and time.monotonic() < end:  # Dask's own, and ours
        time.sleep(0.05)
    assert dask_client.run_on_scheduler(look) == ([], 2)


def test_pool_brings_results_in_order_on_dask(dask_client):
    with mpiabc.Pool(dask_client) as pool:
        assert pool.map(lambda x: x / 2, range(300)) == [x / 2 for x in range(300)]
        assert pool.map(lambda x: x + 1, range(3)) == [1, 2, 3]


def crowded(theta, rng):
    """How many simulations of this process there are at once, if there may be several; waits for another."""
    mates = sys.modules.setdefault("tests.mates", types.SimpleNamespace(n=0, most=0, lock=threading.Lock()))
    with mates.lock:
        mates.n += 1
        mates.most = max(mates.most, mates.n)
    end = time.monotonic() + (HANGS if theta["is_awaited"] > 0 else 0.01)
    while mates.most < 2 and time.monotonic() < end:
        time.sleep(0.001)
    with mates.lock:
        mates.n -= 1
    return {"y": theta["is_awaited"] + rng.standard_normal(), "most": float(mates.most)}


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.long
def test_worker_with_several_threads_simulates_once_at_a_time_unless_it_is_asked(threads, tmp_path, caplog):
    import distributed

    sign = 1 if threads else -1
    prior = mpiabc.Prior(is_awaited=mpiabc.Uniform(min(sign, 2 * sign), max(sign, 2 * sign)))
    problem = mpiabc.Problem(prior, crowded, {"y": float(sign), "most": 1.0}, distance=lambda x, y: 0.0)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        history = mpiabc.ABCSMC(problem, 60, threshold=mpiabc.Constant(1), seed=1).run(
            tmp_path / "run.db", generations=2, scheduler=schedulers.Dask(client, threads=threads)
        )
    assert (history[-1].summaries[:, 1].max() > 1) == threads
    message = "3 threads in 1 processes, each of which simulates once at a time"
    assert (message in caplog.text) == (not threads)


@pytest.mark.parametrize("how", FAILURES)
def test_failing_evaluation_ends_a_run_on_dask(how, dask_client, tmp_path):
    def simulate(theta, rng, *, id):
        return go_wrong(how) if id.index == 30 else problems.gaussian(theta, rng)

    with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:30 failed on process") as error:
        problems.sampler(simulate=simulate).run(tmp_path / "run.db", scheduler=dask_client)
    assert FAILURES[how] in str(error.value)


@pytest.mark.long
def test_simulation_that_hangs_is_ended_on_dask(dask_client, tmp_path):
    quiet = sampler(failing, thresholds=(3,)).run(tmp_path / "quiet.db", scheduler="serial")
    abc = sampler(sleeping, timeout=0.5, thresholds=(3,))
    history = abc.run(tmp_path / "run.db", scheduler=dask_client)
    assert problems.digests(history) == problems.digests(quiet)
    assert {f.kind for f in history.failures} == {"timeout"}


@pytest.mark.long
def test_worker_that_dies_of_an_evaluation_changes_nothing(dask_client, tmp_path):
    """Dask gives the task up, so its evaluations go out again; the nanny brings another worker."""
    simulate = problems.killed_once(tmp_path / "killed", at=(1, 40))
    history = problems.sampler(simulate=simulate).run(tmp_path / "run.db", scheduler=dask_client)
    assert (tmp_path / "killed").exists()
    quiet = problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)


@pytest.mark.long
def test_workers_that_are_restarted_change_nothing(dask_client, tmp_path):
    """By `client.restart()`, in the middle of a generation; the scheduler stays up."""
    restarts = []

    def restart():
        while not problems.committed(tmp_path / "run.db"):
            time.sleep(0.02)
        restarts.append(dask_client.restart())

    thread = threading.Thread(target=restart)
    thread.start()
    abc = problems.sampler(200, simulate=slow_gaussian)
    history = abc.run(tmp_path / "run.db", scheduler=dask_client)
    thread.join()
    assert restarts
    assert problems.digests(history) == quiet_digests(tmp_path)


@pytest.mark.usefixtures("dask_client")  # it comes last too, and leaves threads
@pytest.mark.long
def test_cluster_that_adapts_from_no_worker_gets_some_and_the_digest_is_that_of_serial(expected):
    """`cluster.adapt(0, 3)`, through a client: it grows because leases wait."""
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=3, interval="100ms")
        assert program.digests(client, "scalar") == expected["scalar"]


@pytest.mark.long
def test_evaluation_that_always_kills_its_worker_is_named_and_no_other(dask_client, tmp_path, monkeypatch):
    """Dask blames all that the worker had; under `reject`, only the guilty one counts as failed."""
    monkeypatch.setattr("mpiabc.driver.failures._MOST_DEATHS", 3)  # a worker takes seconds to come back

    def simulate(theta, rng, *, id):
        if id == (0, 30):
            time.sleep(0.5)  # a nanny gives up if its worker dies before it has seen it come up
            os.kill(os.getpid(), signal.SIGKILL)
        return problems.gaussian(theta, rng)

    abc = problems.sampler(50, thresholds=(3,), simulate=simulate, on_error="reject")
    history = abc.run(tmp_path / "run.db", scheduler=dask_client)
    assert [(f.index, f.kind) for f in history.failures] == [(30, "death")]


@pytest.mark.long
def test_workers_killed_every_second_and_others_that_join_change_nothing(tmp_path):
    with (
        running(tmp_path, 3, "kill") as cluster,
        slow(tmp_path / "run.db", cluster.scheduler_file) as job,
    ):
        output, errors = job.communicate(timeout=2 * HANGS)  # a start on a busy machine: 10 s
        cluster.stdin.close()
        killed = int(cluster.stdout.read().split()[-1])
    assert job.returncode == 0, errors
    assert killed >= 3
    assert digests_in(output) == quiet_digests(tmp_path)


@pytest.mark.long
def test_scheduler_that_goes_ends_the_run_and_the_same_command_goes_on(tmp_path):
    with running(tmp_path, 2) as cluster:
        job = slow(tmp_path / "run.db", cluster.scheduler_file)
        end = time.monotonic() + HANGS
        while not _committed(tmp_path / "run.db") and time.monotonic() < end:
            time.sleep(0.05)
    with job:
        _, errors = job.communicate(timeout=HANGS)
    assert job.returncode == 1
    assert "has gone or was restarted" in errors.splitlines()[-1]
    assert _committed(tmp_path / "run.db") in (1, 2)
    (tmp_path / "my_scheduler.json").unlink()
    with (  # another one; the run waits for its file
        running(tmp_path, 2) as cluster,
        slow(tmp_path / "run.db", cluster.scheduler_file) as job,
    ):
        output, errors = job.communicate(timeout=HANGS)
    assert job.returncode == 0, errors
    assert digests_in(output) == quiet_digests(tmp_path)


def _committed(store):
    try:
        return len(mpiabc.open(store))
    except mpiabc.StoreError:
        return 0


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.long
def test_digest_is_that_of_serial_on_dask_mpi_by_its_scheduler_file(workers, tmp_path, expected):
    """The command of examples/dask.md; the client is started first, and waits for file and workers."""
    file = tmp_path / "my_scheduler.json"
    cluster = subprocess.Popen(
        dask_mpi(workers + 1, "--scheduler-file", file),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert {v: program.digests(str(file), v) for v in program.VARIANTS} == expected
    finally:
        cluster.terminate()
        cluster.wait(HANGS)


def dask_mpi(ranks, *arguments):
    """The documented command, with the MPI of this environment."""
    folder = environment_of("mpich")
    if not (folder / "dask-mpi").exists():
        missing("dask-mpi is not installed")
    options = [
        "--worker-class",
        "distributed.Worker",
        "--nthreads",
        "1",
        "--memory-limit",
        "0",
        "--no-dashboard",
    ]
    return [str(c) for c in [folder / "mpirun", "-n", ranks, folder / "dask-mpi", *options, *arguments]]


@pytest.mark.parametrize("scheduler", ["dask", "auto"])
@pytest.mark.parametrize("mpi", ["mpich"], indirect=True)
@pytest.mark.long
def test_digest_is_that_of_serial_where_dask_mpi_was_initialized_in_the_script(scheduler, mpi, expected):
    job = mpi.run(4, "-m", "tests.programs.dask_inside", scheduler)
    assert job.returncode == 0, job.stdout
    assert digests_in(job.stdout) == expected


def test_an_address_that_all_ranks_have_been_given_is_no_cluster_of_theirs(monkeypatch):
    """Each would lead a run of its own there, where MPI has one."""
    import dask
    import dask_mpi  # noqa: F401

    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://10.0.0.1:8786")
    for address, expected in {None: "MPI", "tcp://10.0.0.1:8786": "MPI", "tcp://10.0.0.2:1": "Dask"}.items():
        with dask.config.set(scheduler_address=address):
            assert type(schedulers.resolve("auto")).__name__ == expected
            for ranks in ("mpi", "mpi-static", schedulers.MPI()):
                if expected == "MPI":
                    assert schedulers.resolve(ranks).comm is None
                    continue
                with pytest.raises(
                    mpiabc.SchedulerError, match="dask_mpi has made a Dask cluster of the ranks"
                ):
                    schedulers.resolve(ranks)


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "it does not exist"),
        ("", "it holds no scheduler address"),
        ('{"type": "Scheduler", "id": "Sched', "it holds no scheduler address"),
        ('{"address": "tcp://127.0.0.1:9"}', "it names tcp://127.0.0.1:9, where nobody answers"),
    ],
    ids=["missing", "empty", "half-written", "stale"],
)
def test_scheduler_file_that_leads_nowhere_is_named_after_a_time(content, problem, tmp_path, caplog):
    file = tmp_path / "my_scheduler.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(
        mpiabc.SchedulerError, match=f"waited 0.7 s for the Dask scheduler file {file}: {problem}"
    ):
        problems.sampler().run(tmp_path / "run.db", scheduler=schedulers.Dask(scheduler_file=file, wait=0.7))
    assert content or f"waiting for the Dask scheduler file {file}" in caplog.text
    assert not Path(tmp_path / "run.db").exists()


def test_address_without_a_scheduler_is_named_after_a_time(tmp_path):
    dask = schedulers.Dask(address="tcp://127.0.0.1:9", wait=0.7)
    with pytest.raises(
        mpiabc.SchedulerError, match=r"waited 0.7 s for a Dask scheduler at tcp://127.0.0.1:9"
    ):
        problems.sampler().run(tmp_path / "run.db", scheduler=dask)


@pytest.mark.long
@pytest.mark.parametrize(
    ("workers", "how", "problem"),
    [
        (0, "", "no Dask worker has joined tcp://.* for 2 s: start workers"),
        (1, "without", "a Dask worker of tcp://.* is without mpiabc .*No module named 'mpiabc'"),
        (1, "older", r"differs from the leading process: .*protocol .* there, 0 here; use one environment"),
    ],
    ids=["none", "without mpiabc", "another version"],
)
def test_workers_that_cannot_work_end_the_run_with_a_word(workers, how, problem, tmp_path):
    with running(tmp_path, workers, how) as cluster:
        while not cluster.scheduler_file.exists():
            time.sleep(0.05)
        dask = schedulers.Dask(scheduler_file=cluster.scheduler_file, wait=2)
        with pytest.raises(mpiabc.SchedulerError, match=problem):
            problems.sampler().run(tmp_path / "run.db", scheduler=dask)


def test_address_without_a_port_is_refused_before_a_client_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.Client", None)
    with pytest.raises(mpiabc.SchedulerError, match=r"'tcp://localhost' is no address of .*missing port"):
        problems.sampler().run(tmp_path / "run.db", scheduler=schedulers.Dask(address="tcp://localhost"))


@pytest.mark.long
def test_signal_while_a_scheduler_is_awaited_ends_the_run_at_once_with_a_sentence(tmp_path):
    """Whether a file is missing, or somebody takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(HANGS)
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        file = tmp_path / "mute.json"
        file.write_text(json.dumps({"address": address}))
        for number, *where in [
            (signal.SIGINT, "file", tmp_path / "missing.json"),
            (signal.SIGTERM, "address", address),
            (signal.SIGUSR1, "file", file),
        ]:
            command = [sys.executable, "-m", "tests.programs.waiting", tmp_path / "run.db", *where]
            with subprocess.Popen(
                command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
            ) as job:
                waits = job.stderr.readline() if number == signal.SIGINT else mute.accept()
                job.send_signal(number)
                began = time.monotonic()
                output = job.stderr.read()
            assert job.returncode == 75, output
            assert time.monotonic() - began < HANGS, waits  # it would wait for 300
            message = f"stopped by {number.name} while waiting for "
            assert output.startswith(message)
            assert output.count("\n") == 1


def test_two_ways_to_a_cluster_are_refused(tmp_path):
    with pytest.raises(mpiabc.SchedulerError, match="give one of client, scheduler_file and address"):
        problems.sampler().run(
            tmp_path / "run.db", scheduler=schedulers.Dask(address="tcp://a:1", scheduler_file="b.json")
        )
