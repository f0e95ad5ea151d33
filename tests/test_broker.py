"""What the clients of a broker may do, who reads what it says, and where its secrets lie."""

import json
import os
import socket
import ssl
import stat
import sys
import threading
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
import redis

import mpiabc
from mpiabc.cli import main
from mpiabc.schedulers.redis import broker, certificate, wire
from mpiabc.schedulers.redis.program import CLIENT, OWNER, Program, program
from mpiabc.text import shown
from tests import bridge, problems
from tests.conftest import ROOT, missing, quick
from tests.test_redis import Leader, slow_sampler

_FORBIDDEN = """\
CONFIG SET dir /tmp
CONFIG SET requirepass x
CONFIG GET *
MODULE LOAD /tmp/evil.so
DEBUG SLEEP 0
REPLICAOF evil 6379
SLAVEOF evil 6379
SCRIPT LOAD x
EVAL x 0
EVALSHA x 0
SAVE
BGSAVE
BGREWRITEAOF
SHUTDOWN NOSAVE
ACL WHOAMI
ACL SETUSER mpiabc +@all
CLIENT LIST
CLIENT KILL TYPE normal
MONITOR
SYNC
KEYS *
FLUSHALL
FLUSHDB
SWAPDB 0 1
SELECT 1
MIGRATE evil 6379 mpiabc:a 0 1
DUMP mpiabc:a
RESTORE mpiabc:a 0 x
RENAME mpiabc:a b
COPY mpiabc:a b
OBJECT ENCODING mpiabc:a
SLOWLOG GET
LATENCY LATEST
MEMORY STATS
COMMAND LIST
GET other
SET other x
DEL other
MGET mpiabc:a other
RPUSH other x
BLPOP other 1
PUBLISH other x
SUBSCRIBE other
PSUBSCRIBE *"""


@pytest.fixture(params=quick(["first", "last"], "first"))
def server_program(request, monkeypatch):
    """The first server program of this machine, and the last, such as that of a wheel, which knows less."""
    found = bridge.programs()
    if request.param == "last" and len(found) < 2:
        missing("there is only one redis-server here")
    path = found[0] if request.param == "first" else found[-1]
    monkeypatch.setattr("mpiabc.schedulers.redis.program._paths", lambda: [path])
    return path


@pytest.fixture
def started(tmp_path):
    """Starts brokers, which end with the test."""
    files = []

    def start(bind="127.0.0.1", file="broker.json", **options):
        files.append(tmp_path / file)
        broker.start(bind, None, files[-1], **options)
        return wire.find_server(file=files[-1])

    yield start
    for file in filter(Path.exists, files):
        broker.stop(file, now=True)


@pytest.fixture
def with_tls():
    with suppress(mpiabc.SchedulerError):
        return program(with_tls=True)
    return missing("no redis-server here knows TLS")


def worker_of(file, *arguments):
    nothing = {"MPIABC_SECRET": "", "MPIABC_REDIS_PASSWORD": ""}
    return bridge.Worker("--broker", file, "--processes", 1, *arguments, **nothing)


def digests(folder):
    """Of a run on a broker in the folder, with a worker of it."""
    worker = worker_of(folder / "broker.json", "--once")
    try:
        found = Leader(slow_sampler(), folder / "run.db", str(folder / "broker.json")).digests()
        status, said = worker.ends()
        assert status == 0, said
        assert "does not let" not in said
    finally:
        worker.kill()
    return found


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return problems.digests(slow_sampler().run(tmp_path_factory.mktemp("quiet") / "a.db", scheduler="serial"))


def test_clients_may_do_what_runs_need_and_nothing_else(server_program, started):
    server = started()
    allowed = []
    with server.connect() as client:
        for line in _FORBIDDEN.splitlines():
            try:
                allowed.append((line, client.execute_command(*line.split())))
            except redis.exceptions.ResponseError as error:
                if not _is_refused(error):
                    allowed.append((line, error))
    assert allowed == []


def _is_refused(error):
    """For want of permission, or because this version does not know the command, or lets nobody give it."""
    words = ("unknown command", "command not allowed")
    return isinstance(error, redis.exceptions.NoPermissionError) or any(word in str(error) for word in words)


def test_nobody_gets_in_without_a_name_nor_as_the_owner_without_the_secret(server_program, started):
    server = started()
    place = server.url.rpartition("@")[2]
    for names in ("", "default@", f"{OWNER}@"):
        other = wire.Server(f"redis://{names}{place}", server.password).connect()
        with other, pytest.raises(redis.exceptions.AuthenticationError):
            other.ping()


@pytest.mark.long
def test_run_goes_with_what_clients_may_do(server_program, started, quiet, tmp_path):
    started()
    assert digests(tmp_path) == quiet


@pytest.mark.long
def test_nothing_that_runs_do_is_refused(quiet, tmp_path):
    """Not even what they would do without: a server keeps a list of what it has refused."""
    server = bridge.RedisServer(tmp_path, program(with_tls=False).user(CLIENT, bridge.PASSWORD))
    url = f"redis://{CLIENT}@127.0.0.1:{server.port}"
    with server.workers(1, "--once", url=url):
        assert Leader(slow_sampler(), tmp_path / "run.db", server.scheduler(url)).digests() == quiet
    as_client = wire.find_server(url, password=bridge.PASSWORD, secret=bridge.SECRET)
    broker.info(as_client)
    broker.reset(as_client)
    refused = [entry["object"] for entry in server.client.acl_log()]
    server.kill()
    assert [name for name in refused if "setinfo" not in name] == []  # which redis-py does without


def test_chapter_on_redis_says_what_clients_may_do():
    rules = Program("", (7, 0)).user(CLIENT, "").split()[4:]
    chapter = " ".join((ROOT / "examples" / "redis.md").read_text().split())
    assert " ".join(["ACL SETUSER mpiabc on >PASSWORD", *rules, "```"]) in chapter


@pytest.mark.long
def test_beyond_this_machine_it_speaks_tls(with_tls, started, quiet, tmp_path):
    server = started("0.0.0.0")
    assert server.url.startswith(f"rediss://{CLIENT}@")
    assert digests(tmp_path) == quiet
    plain = wire.Server(server.url.replace("rediss", "redis"), server.password).connect()
    with plain, pytest.raises(redis.exceptions.ConnectionError):
        plain.ping()
    assert "PRIVATE KEY" not in "".join(path.read_text() for path in tmp_path.glob("broker*"))


def test_nobody_else_learns_the_password(with_tls, started, tmp_path):
    """Another certificate, even for the same name and from an authority that is trusted, is none of ours."""
    server, file = started("0.0.0.0"), tmp_path / "broker.json"
    known = json.loads(file.read_text())
    names = [tmp_path / "certificate.pem", tmp_path / "key.pem"]
    for path, content in zip(names, certificate.made(socket.gethostname()), strict=True):
        path.write_text(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*names)
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def impersonate():
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secured, suppress(OSError):
                heard.append(secured.recv(1000))

        thread = threading.Thread(target=impersonate)
        thread.start()
        url = f"rediss://{CLIENT}@127.0.0.1:{listener.getsockname()[1]}"
        other = tmp_path / "other.json"
        other.touch(0o600)
        other.write_text(json.dumps(known | {"url": url}))
        with pytest.raises(
            mpiabc.SchedulerError, match="has another certificate than the broker's file says"
        ):
            wire.find_server(file=other).checked()
        thread.join()
    assert heard in ([], [b""])
    server.checked().close()


def _fake(folder, text):
    """A server program that only says this."""
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\ncat >/dev/null\ncat <<'END'\n{text}\nEND\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def test_program_without_tls_serves_this_machine_or_those_who_say_insecure(started, tmp_path, monkeypatch):
    without = [path for path in bridge.programs() if not _knows_tls(path)]
    if not without:
        missing("no redis-server here is without TLS")
    monkeypatch.setattr("mpiabc.schedulers.redis.program._paths", lambda: without)
    with pytest.raises(mpiabc.SchedulerError, match=r"\(Redis \d+\.\d+\) was built without TLS.*--insecure"):
        started("0.0.0.0")
    assert not (tmp_path / "broker.json").exists()
    assert started("0.0.0.0", is_insecure=True).url.startswith("redis://")


def _knows_tls(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpiabc.schedulers.redis.program._paths", lambda: [path])
        return program(with_tls=False).knows_tls()


def test_program_that_knows_no_users_is_too_old(started, tmp_path, monkeypatch):
    old = _fake(tmp_path, "*** FATAL CONFIG FILE ERROR ***\nReading the configuration file, at line 1")
    monkeypatch.setattr("mpiabc.schedulers.redis.program._paths", lambda: [old])
    with pytest.raises(mpiabc.SchedulerError, match=r"before 6.* is too old, it knows no users"):
        started()


def test_certificates_want_a_library(with_tls, started, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(mpiabc.SchedulerError, match=r"install `mpiabc\[broker\]`"):
        started("0.0.0.0")


@pytest.mark.parametrize("bind", ["10.0.0.1\nrequirepass x", "no such host", ""])
def test_address_that_is_none_is_refused(bind, started):
    with pytest.raises(mpiabc.SchedulerError, match="is no address: give one of this machine"):
        started(bind)


@pytest.mark.parametrize("file", ["broker.json", "broker.log", "broker"])
def test_file_and_log_are_two_and_read_by_nobody_else(file, started, tmp_path):
    """Whatever stood there."""
    (tmp_path / f"{file}.log").symlink_to(tmp_path / file)
    server = started(file=file)
    assert server == wire.find_server(file=tmp_path / file)
    found = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.iterdir()}
    assert found == {file: 0o600, f"{file}.log": 0o600}
    assert "Ready to accept connections" in (tmp_path / f"{file}.log").read_text()


def test_log_never_takes_the_place_of_another_broker_s_file(started):
    started(file="broker.log")
    with pytest.raises(
        mpiabc.SchedulerError, match=r"the log would be .*broker\.log, which is the file of a broker"
    ):
        started(file="broker")


def test_file_that_cannot_be_written_is_reported_and_nothing_is_left_running(started, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(broker, "_write", _refusing(ended))
    with pytest.raises(mpiabc.SchedulerError, match=r"cannot write .*full.*give another --file"):
        started()
    with pytest.raises(ProcessLookupError):
        os.kill(ended[0], 0)


def _refusing(ended):
    def write(path, server, process):
        ended.append(process)
        raise OSError(28, "the disk is full", str(path))

    return write


def test_broker_of_before_is_stopped(tmp_path):
    """Its clients are whoever has the password, and may end it."""
    server = bridge.RedisServer(tmp_path)
    file = tmp_path / "broker.json"
    file.touch(0o600)
    file.write_text(json.dumps({"url": server.url, "password": bridge.PASSWORD, "secret": bridge.SECRET}))
    assert "has ended" in broker.stop(file, now=True)
    server.process.wait()
    assert not file.exists()


def test_what_is_shown_steers_no_terminal():
    kinds = {unicodedata.category(char) for code in range(0x3000) for char in shown(chr(code))}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert shown("μ = 3\N{NO-BREAK SPACE}m") == "μ = 3\N{NO-BREAK SPACE}m"
    assert shown("a\x1b[2J\n\udc80") == r"a\x1b[2J\n\udc80"


EVIL = "\x1b]0;owned\x07 name\nmpiabc: all is well"


@pytest.mark.long
def test_names_and_errors_of_others_steer_no_terminal(server, tmp_path, capfd, caplog):
    """On its command line, whoever wrote the file; on the server, whoever is there."""

    def simulate(theta, rng):
        raise ValueError(EVIL)

    sampler = mpiabc.ABCSMC(
        problems.problem(problems.gaussian, name=EVIL), 20, threshold=mpiabc.Listed([3]), seed=1
    )
    with server.workers(1) as (worker,):
        Leader(sampler, tmp_path / "run.db", server.scheduler()).digests()
        assert worker.says("is over")
    failing = problems.sampler(simulate=simulate, on_error=3)
    with pytest.raises(mpiabc.SimulatorError):
        failing.run(tmp_path / "failed.db", scheduler="serial")
    for name in ("run.db", "failed.db"):
        assert main(["show", str(tmp_path / name), "--failures"]) == 0
    assert main(["show", str(tmp_path / f"{EVIL.splitlines()[0]}.db")]) == 1
    said = "".join(capfd.readouterr()) + worker.said()
    assert r"\x1b]0;owned\x07 name\nmpiabc: all is well" in said
    assert "\x1b" not in said
    assert "\nmpiabc: all is well" not in said.replace(f"ValueError: {EVIL}", "")


@pytest.fixture
def server(tmp_path):
    started = bridge.RedisServer(tmp_path)
    yield started
    started.kill()


@pytest.mark.parametrize("file", ["broker.json", None])
def test_run_without_workers_says_how_to_start_one_of_its_broker(
    file, started, tmp_path, monkeypatch, caplog
):
    """By its file, as a URL says neither password nor certificate."""
    monkeypatch.setattr("mpiabc.schedulers.redis.solitude._ALONE", 0.0)
    server, path = started(), tmp_path / "broker.json"
    if file is None:
        monkeypatch.setattr(wire, "default_file", lambda: path)
    engine = mpiabc.schedulers.Redis(broker=file and path).open(problems.problem())
    engine.poll(0.1)
    engine.close(0)
    words = f"mpiabc worker --broker {path}" if file else "mpiabc worker "
    assert f"on any machine that reaches {server}: {words}" in caplog.text


def test_line_of_a_run_is_one_line():
    fields = dict.fromkeys(("process", "workers", "places", "hosts", "leases"), 1) | {
        "name": EVIL,
        "host": EVIL,
    }
    lines = [broker._line(fields | {"state": state}) for state in ("", EVIL, {"told": EVIL})]
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith("not begun")
    assert lines[1] == lines[2]
