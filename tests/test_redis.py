"""The Redis bridge, against a real server and real workers: same digest, whatever comes and goes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

import mpiabc
from mpiabc import schedulers
from mpiabc.schedulers.redis import wire
from mpiabc.version import PROTOCOL
from tests import bridge, problems, test_renew
from tests.conftest import HANGS, environment, jobs_of, missing
from tests.expected import serial, static
from tests.programs import digests as program


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = bridge.RedisServer(tmp_path_factory.mktemp("redis"))
    yield started
    started.kill()


@pytest.fixture(scope="module")
def expected():
    """The digests of the serial run."""
    return serial()


@pytest.fixture(scope="module")
def expected_static():
    """The digests of a simulated cluster with static scheduling, which any other engine must have too."""
    return static()


@pytest.mark.long
@pytest.mark.parametrize("n", [2, 3])
def test_digest_does_not_depend_on_the_number_of_workers(n, server, expected):
    """What is left on the server expires: last orders, and reports that came too late."""
    with server.workers(n):
        found = {variant: program.digests(server.scheduler(), variant) for variant in program.VARIANTS}
    assert found == expected
    assert all(":to:" in name or ":reports" in name for name in server.names())
    assert all(server.client.ttl(name) != -1 for name in server.names())  # for ever


@pytest.mark.long
def test_static_digest_does_not_either(server, expected_static):
    static = schedulers.RedisStatic(server.url, password=bridge.PASSWORD, secret=bridge.SECRET)
    with server.workers(2):
        found = {variant: program.digests(static, variant) for variant in program.STATIC}
    assert found == expected_static


@jobs_of(["mpi"], [], ["openmpi"])
def test_ranks_and_redis_workers_share_one_run(mpi, server, quiet, tmp_path):
    with server.workers(2) as workers:
        assert all(worker.says("waiting for a run") for worker in workers)
        go = tmp_path / "go"
        job = mpi.start(2, "-m", "tests.programs.bridged", server.url, tmp_path / "run.db", 10, "mpi", go)
        assert all(worker.says("working for") for worker in workers)
        go.touch()
        output, _ = job.communicate(timeout=HANGS)
        assert job.returncode == 0, output
        assert output.split("DONE")[1].splitlines()[0].split() == quiet
        assert all(worker.says("is over") for worker in workers)


class Leader:
    """A run in a thread of this process, or its error."""

    def __init__(self, sampler, store, scheduler):
        self._arguments = store, scheduler
        self._sampler = sampler
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        store, scheduler = self._arguments
        try:
            self.result = problems.digests(self._sampler.run(store, scheduler=scheduler))
        except BaseException as error:
            self.result = error

    @property
    def is_running(self):
        return self._thread.is_alive()

    def digests(self, timeout=HANGS):
        self._thread.join(timeout)
        assert not self.is_running, "the run hangs"
        return self.result


def slow(theta, rng):
    time.sleep(0.004)
    return problems.gaussian(theta, rng)


def slower(theta, rng):
    time.sleep(0.02)
    return problems.gaussian(theta, rng)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The digests that every run of `slow` must have."""
    return problems.digests(
        problems.sampler().run(tmp_path_factory.mktemp("quiet") / "a.db", scheduler="serial")
    )


def slow_sampler(simulate=slow):
    return mpiabc.ABCSMC(
        problems.problem(simulate, name="gaussian"), 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1
    )


def are_at_work(workers):
    """Whether one of them simulates, or soon will."""
    end = time.monotonic() + HANGS
    while not any(worker.says("generation", within=0) for worker in workers):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def chaos(server, folder, seed):
    """A run whose workers are killed at random, new ones taking their places: its digests, the kills."""
    random_ = random.Random(seed)
    workers = [server.worker("--processes", 1) for _ in range(2)]
    leader = Leader(slow_sampler(), folder / f"{seed}.db", server.scheduler())
    kills = 0
    while leader.is_running:
        time.sleep(random_.uniform(0.2, 1.2))
        if kills < 6:
            kills += 1
            i = random_.randrange(len(workers))
            workers[i].kill()
            workers[i] = server.worker("--processes", 1)
    for worker in workers:
        worker.kill()
    return leader.digests(), kills


@pytest.mark.long
def test_worker_renews_its_processes_after_so_many_simulations(server, quiet, tmp_path):
    simulate = test_renew.noting(tmp_path / "by")
    with server.workers(1, "--renew", 20):
        history = slow_sampler(simulate).run(tmp_path / "run.db", scheduler=server.scheduler())
    assert problems.digests(history) == quiet
    by = test_renew.simulated(tmp_path / "by")
    done = [id for ids in by.values() for id in ids]
    assert len(done) == len(set(done))
    assert len(by) > 3


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.long
def test_workers_killed_at_random_change_nothing(seed, server, quiet, tmp_path):
    """(`python -m tests.benchmarks.redis_chaos` makes fifty such runs.)"""
    found, kills = chaos(server, tmp_path, seed)
    assert found == quiet
    assert kills


@pytest.mark.parametrize("lines", [(), ("appendonly yes", "appendfsync always")], ids=["empty", "persistent"])
@pytest.mark.long
def test_server_that_is_killed_and_started_again_changes_nothing(lines, quiet, tmp_path):
    server = bridge.RedisServer(tmp_path, *lines)
    with server.workers(2) as workers:
        leader = Leader(slow_sampler(), tmp_path / "run.db", server.scheduler())
        assert are_at_work(workers)
        server.kill()
        time.sleep(1)
        assert leader.is_running
        server.start()
        assert leader.digests() == quiet
    server.kill()


@pytest.mark.long
def test_without_its_server_others_go_on_and_a_leader_alone_ends(quiet, tmp_path):
    """The same command goes on later."""
    server = bridge.RedisServer(tmp_path)
    both = [schedulers.Processes(1, start="spawn"), server.scheduler(patience=1)]
    with server.workers(1):
        leaders = [
            Leader(slow_sampler(), tmp_path / "both.db", both),
            Leader(slow_sampler(), tmp_path / "alone.db", server.scheduler(patience=1)),
        ]
        while sum(name.endswith(":announcement") for name in server.names()) < 2:
            time.sleep(0.02)
        server.kill()
        with_others, alone = [leader.digests() for leader in leaders]
    assert with_others == quiet
    assert "has been away for 1 s" in str(alone)
    assert problems.digests(slow_sampler().run(tmp_path / "alone.db", scheduler="serial")) == quiet


@pytest.mark.long
def test_line_that_is_cut_for_a_while_changes_nothing(server, quiet, tmp_path):
    """Longer than it takes to miss a worker; the worker with its own line goes on meanwhile."""
    line = bridge.Line(server.port)
    with server.workers(1, url=line.url) as workers, server.workers(1):
        leader = Leader(slow_sampler(), tmp_path / "run.db", server.scheduler())
        assert are_at_work(workers)
        line.is_cut = True
        time.sleep(10)
        line.is_cut = False
        assert leader.digests() == quiet
    line.close()


@pytest.mark.long
def test_leader_that_is_killed_goes_on_with_the_same_workers(server, quiet, tmp_path):
    command = [sys.executable, "-m", "tests.programs.bridged", server.url, tmp_path / "run.db", "10"]
    with server.workers(2) as workers:
        first = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        assert are_at_work(workers)
        first.kill()
        first.wait()
        second = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, timeout=HANGS)
    assert second.returncode == 0
    assert second.stdout.split()[1:] == quiet


def _announced(server):
    """The run that has a leader, as soon as there is one."""
    while True:
        for name in server.names():
            if name.endswith(":announcement"):
                return name.split(":")[1]
        time.sleep(0.02)


def test_forged_messages_are_refused_and_harm_nothing(server, quiet, tmp_path, caplog):
    """20 000 of them, some of them true ones from elsewhere: nothing is executed, and workers still join."""
    mark = tmp_path / "executed"
    poison = f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode()
    with server.workers(2):
        leader = Leader(slow_sampler(), tmp_path / "run.db", server.scheduler())
        run = _announced(server)
        time.sleep(0.5)
        reports = wire.key(run, "reports")
        announcement = server.client.get(wire.key(run, "announcement"))
        with server.client.pipeline(transaction=False) as pipe:
            for i in range(20_000):
                junk = (poison, bytes(32) + poison, announcement, os.urandom(64))[i % 4]
                pipe.rpush(reports, junk)
            parts = server.client.keys(wire.key(run, "part", "*"))
            assert parts
            for part in (wire.key(run, "problem"), *parts):
                pipe.set(part, bytes(32) + poison)
            pipe.sadd(wire.RUNS, "forged")
            pipe.set(wire.key("forged", "announcement"), poison)
            pipe.execute()
        with server.workers(1) as (late,):
            while server.client.exists(reports):
                time.sleep(0.01)
            server.client.set(reports, poison)  # not even a list any more
            assert late.says("working for gaussian")
            assert leader.digests() == quiet
    assert not mark.exists()
    (found,) = [r.getMessage() for r in caplog.records if "were not signed" in r.getMessage()]
    assert int(found.split()[5]) >= 20_000
    server.client.delete(wire.RUNS, wire.key("forged", "announcement"))


class Heavy:
    """A simulator that takes long to load, as a worker's first import of large libraries does."""

    def __reduce__(self):
        return loaded, ()

    def __call__(self, theta, rng):
        return problems.gaussian(theta, rng)


def loaded():
    time.sleep(wire.DEAD_AFTER * wire.BEAT_PERIOD + 2)
    return Heavy()


@pytest.mark.long
def test_worker_that_takes_long_to_load_the_problem_is_not_taken_for_dead(server, quiet, tmp_path, caplog):
    with server.workers(1):
        assert Leader(slow_sampler(Heavy()), tmp_path / "run.db", server.scheduler()).digests() == quiet
    assert "no sign of life" not in caplog.text


@pytest.mark.parametrize("whom", ["the worker", "all of its processes"])
@pytest.mark.long
def test_worker_that_is_asked_to_leave_gives_its_lease_back_at_once(whom, server, quiet, tmp_path, caplog):
    """Long before its silence would be noticed; the run goes on with another."""
    with server.workers(1) as (first,):
        leader = Leader(slow_sampler(), tmp_path / "run.db", server.scheduler())
        assert first.says("generation 0")
        first.send_signal(signal.SIGTERM, to_all=whom != "the worker")
        status, output = first.ends()
        assert status == 0
        assert "Traceback" not in output
        with server.workers(1):
            assert leader.digests() == quiet
    assert "no sign of life" not in caplog.text


@pytest.mark.long
def test_worker_lives_on_between_runs(server, tmp_path):
    with server.workers(1) as (worker,):
        for seed in (1, 2):
            Leader(problems.sampler(seed=seed), tmp_path / f"{seed}.db", server.scheduler()).digests()
        assert worker.says("is over", times=2)
        worker.send_signal(signal.SIGTERM)
        status, output = worker.ends()
    assert status == 0
    assert "done, 2 runs served" in output


@pytest.mark.long
def test_worker_leaves_when_its_time_is_up_and_the_run_goes_on(server, quiet, tmp_path):
    with server.workers(1, "--runtime", "2s") as (short,), server.workers(1):
        leader = Leader(slow_sampler(), tmp_path / "run.db", server.scheduler())
        assert short.ends()[0] == 0
        assert leader.digests() == quiet


@pytest.mark.long
def test_workers_choose_runs_by_name_and_once(server, tmp_path):
    """Two runs at the same time, each with a worker of its own."""
    with (
        server.workers(1, "--run", "one", "--once") as (a,),
        server.workers(1, "--run", "two", "--once") as (b,),
    ):
        runs = [
            Leader(problems.sampler(seed=1), tmp_path / f"{name}.db", server.scheduler(name=name))
            for name in ("one", "two")
        ]
        assert runs[0].digests() == runs[1].digests()
        assert "working for one " in a.ends()[1]
        assert "working for two " in b.ends()[1]


@jobs_of(["mpi"], [], ["mpich"])
def test_every_rank_of_an_mpi_job_is_a_worker(mpi, server, quiet, tmp_path):
    secrets = {"MPIABC_SECRET": bridge.SECRET, "MPIABC_REDIS_PASSWORD": bridge.PASSWORD}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        job = mpi.start(2, "-m", "mpiabc", "worker", server.url, "--once")
        assert Leader(slow_sampler(), tmp_path / "run.db", server.scheduler()).digests() == quiet
        output, _ = job.communicate(timeout=HANGS)
    assert job.returncode == 0, output
    assert output.count("working for gaussian") == 2


def test_failing_evaluation_is_named_with_its_worker(server, tmp_path):
    def simulate(theta, rng, *, id):
        if id.index == 30:
            raise RuntimeError("the pump broke")
        return problems.gaussian(theta, rng)

    with server.workers(2):
        error = Leader(problems.sampler(simulate=simulate), tmp_path / "a.db", server.scheduler()).digests()
    assert isinstance(error, mpiabc.SimulatorError)
    assert "evaluation 0:30 failed on" in str(error)
    assert "RuntimeError: the pump broke" in str(error)


@pytest.mark.long
def test_killed_children_and_timeouts_are_what_they_are_elsewhere(server, tmp_path):
    def simulate(theta, rng, *, id):
        if id.index == 20:
            time.sleep(60)
        return problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=simulate, timeout=0.5, on_error="reject")
    with server.workers(2):
        found = Leader(sampler, tmp_path / "a.db", server.scheduler()).digests()
    assert found == problems.digests(sampler.run(tmp_path / "b.db", scheduler=schedulers.Processes(2)))
    (failure, *_) = mpiabc.open(tmp_path / "a.db").failures
    assert (failure.index, failure.kind) == (20, "timeout")


# Bad input, on both sides.


def said_by_leader(tmp_path, **options):
    with pytest.raises(mpiabc.SchedulerError) as error:
        problems.sampler().run(tmp_path / "run.db", scheduler=schedulers.Redis(**options))
    assert not (tmp_path / "run.db").exists()
    return str(error.value)


def said_by_worker(*arguments, **variables):
    worker = bridge.Worker("--wait", "1s", *arguments, **variables)
    status, output = worker.ends()
    worker.kill()
    assert status == 1, output
    assert "Traceback" not in output
    return output


def test_wrong_password_is_reported_on_both_sides(server, tmp_path):
    sentence = "does not accept the password"
    assert sentence in said_by_leader(tmp_path, url=server.url, password="no", secret="s")
    assert sentence in said_by_worker(server.url, MPIABC_REDIS_PASSWORD="no")
    assert "wants a password" in said_by_leader(tmp_path, url=server.url, secret="s")


def test_wrong_port_is_reported_on_both_sides(tmp_path):
    url = f"redis://127.0.0.1:{bridge.free_port()}"
    sentence = f"no Redis server answers at {url}: start one with `mpiabc broker start`"
    assert sentence in said_by_leader(tmp_path, url=url, secret="s")
    assert sentence in said_by_worker(url)


@pytest.mark.long
def test_run_with_another_secret_is_none_of_ours_and_reported(server, tmp_path):
    with server.workers(1) as (ours,), server.workers(1, MPIABC_SECRET="another") as (other,):
        leader = Leader(slow_sampler(), tmp_path / "run.db", server.scheduler())
        assert other.says("1 there with another secret than ours")
        assert ours.says("working for")
        assert not isinstance(leader.digests(), BaseException)
        assert not other.says("working for", within=0)


def test_missing_secret_is_reported_on_both_sides(server, tmp_path):
    sentence = "need a secret that they share: set MPIABC_SECRET"
    assert sentence in said_by_leader(tmp_path, url=server.url)
    assert sentence in said_by_worker(server.url, MPIABC_SECRET="")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://", "is no address of a Redis server"),
        ("redis://host:port", "is no address of a Redis server"),
        (None, "there is no broker's file"),
    ],
)
def test_address_that_is_none_is_refused(url, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sentence in said_by_leader(tmp_path, url=url, secret="s")


@pytest.mark.long
def test_passwords_and_secrets_are_shown_nowhere(server, tmp_path, caplog, capfd):
    url = f"redis://:{bridge.PASSWORD}@127.0.0.1:{server.port}".replace(" ", "%20")
    scheduler = schedulers.Redis(url, secret=bridge.SECRET)
    with server.workers(1) as (worker,):
        shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        Leader(problems.sampler(), tmp_path / "run.db", scheduler).digests()
        worker.send_signal(signal.SIGTERM)
        shown += worker.ends()[1]
    shown += (
        caplog.text + "".join(capfd.readouterr()) + repr(scheduler) + repr(wire.find_server(url, secret="s"))
    )
    shown += (tmp_path / "run.db").read_bytes().decode("latin-1")
    assert bridge.PASSWORD not in shown
    assert bridge.PASSWORD.replace(" ", "%20") not in shown
    assert bridge.SECRET not in shown


class FakeServer:
    """Answers INFO as another program would."""

    def __init__(self, answer):
        self._answer = answer
        self._listener = bridge.socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with suppress(OSError), connection:
            while content := connection.recv(4096):
                for _ in range(content.count(b"*")):
                    connection.sendall(self._answer if b"INFO" in content else b"+OK\r\n")


def test_server_that_is_too_old_or_none_is_reported(tmp_path):
    info = b"redis_version:5.0.14\r\n"
    old = FakeServer(b"$%d\r\n%s\r\n" % (len(info), info))
    sentence = "is Redis 5.0.14: it must be 6.0 or later"
    assert sentence in said_by_leader(tmp_path, url=old.url, secret="s")
    assert sentence in said_by_worker(old.url)
    none = FakeServer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "is no Redis server: check host and port" in said_by_leader(tmp_path, url=none.url, secret="s")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server that speaks TLS only."""
    folder = tmp_path_factory.mktemp("tls")
    bridge.make_certificate(folder)
    port = bridge.free_port()
    lines = ["tls-cert-file cert.pem", "tls-key-file key.pem", "tls-auth-clients no", f"tls-port {port}"]
    try:
        server = bridge.RedisServer(folder, *lines)
    except AssertionError:
        missing("this redis-server knows no TLS")
    server.tls_url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={folder / 'cert.pem'}&ssl_check_hostname=false"
    server.tls_port = port
    yield server
    server.kill()


@pytest.mark.long
def test_run_over_tls_has_the_same_digest(tls, quiet, tmp_path):
    with tls.workers(1, url=tls.tls_url):
        assert Leader(slow_sampler(), tmp_path / "run.db", tls.scheduler(tls.tls_url)).digests() == quiet


@pytest.mark.long
def test_tls_on_one_side_only_is_reported(tls, tmp_path):
    options = {"password": bridge.PASSWORD, "secret": bridge.SECRET}
    plain = f"redis://127.0.0.1:{tls.tls_port}"
    assert "use rediss:// if it speaks TLS" in said_by_leader(tmp_path, url=plain, **options)
    assert "use rediss:// if it speaks TLS" in said_by_worker(plain)
    secured = f"rediss://127.0.0.1:{tls.port}"
    assert "no TLS connection to" in said_by_leader(tmp_path, url=secured, **options)


@pytest.mark.long
def test_other_versions_are_reported_on_both_sides(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("mpiabc.version.PROTOCOL", 0)
    with server.workers(1, "--once", "--wait", "3s") as (worker,):
        leader = Leader(problems.sampler(), tmp_path / "run.db", server.scheduler())
        sentence = f"protocol {PROTOCOL} there, 0 here"
        while sentence not in caplog.text:
            time.sleep(0.05)
            assert leader.is_running
        output = worker.ends()[1]
        assert f"protocol 0 there, {PROTOCOL} here; use one environment" in output
        monkeypatch.undo()
        with server.workers(1):
            leader.digests()


@pytest.mark.long
def test_worker_without_a_module_says_so_on_both_sides(server, tmp_path, caplog, monkeypatch):
    """The run goes on with workers that have it."""
    (tmp_path / "pumps.py").write_text("def flow():\n    return 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import pumps

    def simulate(theta, rng):
        return {"y": problems.gaussian(theta, rng)["y"] + pumps.flow()}

    sampler = problems.sampler(simulate=simulate)
    with server.workers(1, "--wait", "3s") as (worker,):
        leader = Leader(sampler, tmp_path / "run.db", server.scheduler())
        output = worker.ends()[1]
        assert "the problem cannot be loaded: ModuleNotFoundError: No module named 'pumps'" in output
        assert "No module named 'pumps'" in caplog.text
        with server.workers(1, PYTHONPATH=f"{environment()['PYTHONPATH']}:{tmp_path}"):
            assert leader.digests() == problems.digests(sampler.run(tmp_path / "s.db", scheduler="serial"))


# The broker.


def broker(*arguments, home, status=0, **variables):
    command = [sys.executable, "-m", "mpiabc", "broker", *arguments]
    done = subprocess.run(
        command, env=environment(HOME=str(home), **variables), capture_output=True, text=True, timeout=HANGS
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def home_worker(tmp_path, monkeypatch):
    """Starts a worker of the broker in this test's home; both are gone after the test, however it ends."""
    monkeypatch.setenv("HOME", str(tmp_path))
    started = []

    def start(processes):
        variables = {"HOME": str(tmp_path), "MPIABC_SECRET": "", "MPIABC_REDIS_PASSWORD": ""}
        started.append(bridge.Worker("--processes", processes, **variables))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()
    if (tmp_path / ".mpiabc" / "broker.json").exists():
        broker("stop", "--now", home=tmp_path)


@pytest.mark.long
def test_broker_serves_a_run_from_start_to_stop(tmp_path, quiet, home_worker):
    """Leader and workers find it without being given anything; info tells of the run; stop leaves nothing."""
    assert "workers:  mpiabc worker" in broker("start", home=tmp_path)
    file = tmp_path / ".mpiabc" / "broker.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "a broker is running at" in broker("start", home=tmp_path, status=1)
    worker = home_worker(2)
    leader = Leader(slow_sampler(slower), tmp_path / "run.db", "redis")
    line = ""
    while "/100 accepted" not in line or "with 2 processes" not in line:
        assert leader.is_running
        line = broker("info", home=tmp_path)
    assert "gaussian (of process" in line
    assert "1 workers with 2 processes on 1 hosts" in line
    assert leader.digests() == quiet
    assert "no runs" in broker("info", home=tmp_path)
    assert "keys of dead runs deleted" in broker("reset", home=tmp_path)
    port = json.loads(file.read_text())["url"].rpartition(":")[2]
    assert "has ended" in broker("stop", home=tmp_path)
    assert not file.exists()
    assert worker.ends()[0] == 0
    assert worker.says("the broker is being stopped")
    with pytest.raises(ConnectionRefusedError):
        bridge.socket.create_connection(("127.0.0.1", int(port)))
    assert "there is no broker's file" in broker("info", home=tmp_path, status=1)


def test_former_name_of_a_scheduler_is_understood_and_reported():
    with pytest.warns(DeprecationWarning, match=r"schedulers.Several is called schedulers.Combined now"):
        assert schedulers.Several is schedulers.Combined


def test_scheduler_is_described_in_a_word(tmp_path):
    """A broker's file, a URL, and several of them, as on the command line."""
    file = tmp_path / "broker.json"
    file.write_text(json.dumps({"url": "redis://h:1", "password": "p", "secret": "s"}))
    assert isinstance(schedulers.resolve(str(file)), schedulers.Redis)
    assert isinstance(schedulers.resolve(tmp_path / "dask.json"), schedulers.Dask)
    several = schedulers.resolve("serial,redis://h:1")
    assert repr(several) == "Combined([Serial(), Redis()])"
    with pytest.raises(mpiabc.SchedulerError, match="mix static and dynamic"):
        schedulers.resolve(["redis-static", "serial"])
    with pytest.raises(mpiabc.SchedulerError, match="give at least one"):
        schedulers.resolve([])
    assert isinstance(schedulers.resolve("redis://:a,b@h:1"), schedulers.Redis)
    with pytest.raises(mpiabc.SchedulerError, match=r"unknown scheduler 'Redis://...'"):
        schedulers.resolve("Redis://:password@h:1")


@pytest.mark.long
def test_stopping_the_broker_leaves_a_run_resumable(tmp_path, quiet, home_worker):
    broker("start", home=tmp_path)
    worker = home_worker(1)
    leader = Leader(slow_sampler(slower), tmp_path / "run.db", "redis")
    assert worker.says("generation 1")
    broker("stop", "--now", home=tmp_path)
    stopped = leader.digests()
    assert isinstance(stopped, mpiabc.Interrupted)
    assert "stopped by `mpiabc broker stop`" in str(stopped)
    assert worker.ends()[0] == 0
    again = slow_sampler(slower).run(tmp_path / "run.db", scheduler="processes")
    assert problems.digests(again) == quiet


def test_signals_reach_a_worker_under_its_launcher(server):
    """SIGUSR1 too, which batch systems send before the end."""
    with server.workers(1) as (worker,):
        assert worker.says("waiting for a run")
        worker.send_signal(signal.SIGUSR1)
        assert worker.ends()[0] == 0
