"""The broker: a Redis server that a user starts without being its administrator.

Its clients may do what runs need, and nothing else; only its owner, whose password is made
from the secret, may end it.
"""

import hmac
import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from mpiabc.errors import SchedulerError
from mpiabc.schedulers.foreign import RedisClient
from mpiabc.schedulers.redis import certificate, wire
from mpiabc.schedulers.redis.program import CLIENT, OWNER, Process, Program, program
from mpiabc.schedulers.redis.runs import Announced, announcements
from mpiabc.schedulers.redis.wire import Server, find_server, key
from mpiabc.text import shown

_START = 10.0  # seconds that the server has to come up
_QUIET = 5  # looks, a tenth of a second apart, at which nobody is there any more
_LEAVE = 5.0  # seconds that workers have to hear that they should leave


def start(
    bind: str = "127.0.0.1", port: int | None = None, file: Path | None = None, *, is_insecure: bool = False
) -> Server:
    """Start a server in the background, and write its address and secrets to `file` (mode 600).

    `bind` is the address that it listens on. Where other machines reach that it speaks TLS, unless
    `is_insecure`. Raises SchedulerError if there is no such program, or if a broker is running already.
    """
    path = Path(os.path.realpath(wire.default_file() if file is None else file))
    log = _log_of(path)
    _refuse_second(path, log)
    host = _host(bind)
    with_tls = not (is_insecure or ip_address(_address(bind)).is_loopback)
    chosen = program(with_tls=with_tls)
    proof, private = certificate.made(host) if with_tls else (None, "")
    url = f"redis{'s' * with_tls}://{CLIENT}@{f'[{host}]' if ':' in host else host}:{port or _free_port()}"
    server = Server(url, secrets.token_urlsafe(24), secrets.token_urlsafe(32).encode(), proof)
    with _writing(path), tempfile.TemporaryDirectory(prefix="mpiabc-") as folder:  # which is ours alone
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [*_lines(bind, server, chosen), *_tls_lines(server, private, Path(folder))]
        process = chosen.start("\n".join(lines), log)
        try:
            _wait_until_up(server, process, log)
            _write(path, server, process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = 0  # it outlives us on purpose
    return server


def _log_of(path: Path) -> Path:
    """Where the server's log is; never the file itself."""
    return path.with_name(f"{path.name}.log")


def _refuse_second(path: Path, log: Path) -> None:
    if wire.is_broker_file(log):
        raise SchedulerError(f"the log would be {log}, which is the file of a broker: give another --file")
    if not path.exists():
        return
    server = find_server(file=path)
    with server.connect() as client:
        try:
            client.ping()
        except wire.connection_errors():
            return
    raise SchedulerError(f"a broker is running at {server} ({path}): use it, or `mpiabc broker stop` first")


def _address(bind: str) -> str:
    """What is listened on, as a number. Raises SchedulerError if it is none."""
    if bind == "*":
        return "::"
    try:
        return str(socket.getaddrinfo(bind, None)[0][4][0]).partition("%")[0]
    except (OSError, UnicodeError):
        raise SchedulerError(
            f"--bind {shown(bind)} is no address: give one of this machine, or 0.0.0.0 for all of them"
        ) from None


def _host(bind: str) -> str:
    """By what others find it."""
    return socket.gethostname() if ip_address(_address(bind)).is_unspecified else bind


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _lines(bind: str, server: Server, chosen: Program) -> list[str]:
    """The server's configuration; clients that give no user's name are `default`."""
    assert server.password is not None
    is_plain = server.certificate is None
    return [
        f"bind {'* -::*' if bind == '*' else bind}",
        f"port {_port(server) if is_plain else 0}",
        "user default off",
        chosen.user(CLIENT, server.password),
        chosen.user(OWNER, _owner_password(server.secret.decode())),
        'save ""',
        "appendonly no",
        "tcp-backlog 4096",
    ]


def _tls_lines(server: Server, private: str, folder: Path) -> list[str]:
    """More of it, for TLS; the files are read when the server starts, and need not stay."""
    if server.certificate is None:
        return []
    (folder / "certificate.pem").write_text(server.certificate)
    (folder / "key.pem").write_text(private)
    return [
        f"tls-port {_port(server)}",
        f'tls-cert-file "{folder}/certificate.pem"',
        f'tls-key-file "{folder}/key.pem"',
        "tls-auth-clients no",  # they have a password
    ]


def _port(server: Server) -> int | None:
    return urlsplit(server.url).port


def _owner_password(secret: str) -> str:
    """Of the secret, so that one who only has the clients' password cannot end the server."""
    return hmac.digest(secret.encode(), OWNER.encode(), "sha256").hex()


def _owner(server: Server, secret: str) -> Server:
    """The server for its owner; older brokers have none."""
    if f"//{CLIENT}@" not in server.url:
        return server
    url = server.url.replace(f"//{CLIENT}@", f"//{OWNER}@")
    return replace(server, url=url, password=_owner_password(secret))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the files beside `path` as SchedulerError."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise SchedulerError(f"cannot write {where} ({error.strerror}): give another --file") from None


def _write(path: Path, server: Server, process: int) -> None:
    """Whole or not at all, as workers may be reading; mode 600, whatever stood there."""
    known = {
        "url": server.url,
        "password": server.password,
        "secret": server.secret.decode(),
        "process": process,
        "host": socket.gethostname(),
    }
    if server.certificate is not None:
        known["certificate"] = server.certificate
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        json.dump(known, file)
    os.replace(name, path)


def _wait_until_up(server: Server, process: Process, log: Path) -> None:
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
    raise SchedulerError(f"the Redis server did not come up at {server}: {shown(last)} (see {log})")


def info(server: Server) -> list[str]:
    """A line for each run: how far it is, and who works for it."""
    with server.checked() as client, server.errors_reported():
        seen = announcements(client, server)
    lines = [_line(run.fields) for run in seen.runs] or [f"{server}: no runs"]
    return lines + ([f"{seen.foreign} runs with another secret than ours"] if seen.foreign else [])


def _line(fields: Announced) -> str:
    return shown(
        f"{fields['name']} (of process {fields['process']} on {fields['host']}): {fields['workers']} workers "
        f"with {fields['places']} processes on {fields['hosts']} hosts, {fields['leases']} leases out; "
        f"{_state(fields).get('told', 'not begun')}"
    )


def _state(fields: Announced) -> dict[str, object]:
    """How far a run is; one of an older mpiabc says it in words alone."""
    state = fields["state"] or {}
    return state if isinstance(state, dict) else {"told": state}


def announced(server: Server) -> list[Announced]:
    """What each run on the server says of itself; `state` is empty until it has begun."""
    with server.checked() as client, server.errors_reported():
        return [run.fields | {"state": _state(run.fields)} for run in announcements(client, server).runs]


def stop(file: Path | None = None, *, now: bool = False) -> str:
    """Let the workers go, after what they have in work or `now`, and end the server. Says what was done."""
    path = Path(os.path.realpath(wire.default_file() if file is None else file))
    server = find_server(file=path)
    owner = _owner(server, wire.read_broker(path)["secret"])
    try:
        with server.connect() as client, owner.connect() as owners:
            client.set(
                wire.STOPPED, server.signer.sign(wire.STOPPED, b"now" if now else b"soon"), ex=wire.TTL
            )
            _wait_for_leave(client, owners, server, _LEAVE if now else wire.TTL)
            owners.shutdown(nosave=True)
        message = f"the broker at {server} has ended"
    except wire.connection_errors() as error:
        if "refused" not in str(error):
            raise SchedulerError(server.trouble(error)) from None
        message = f"no broker is at {server} any more: its file is removed"
    path.unlink(missing_ok=True)
    _log_of(path).unlink(missing_ok=True)
    return message


def _wait_for_leave(client: RedisClient, owners: RedisClient, server: Server, most: float) -> None:
    """Wait until leaders and workers have heard of it, at most so many seconds."""
    end, quiet = time.monotonic() + most, 0
    while quiet < _QUIET and time.monotonic() < end:  # a worker is nowhere for a moment between two looks
        is_quiet = not announcements(client, server).runs and not _workers(owners)
        quiet = quiet + 1 if is_quiet else 0
        time.sleep(0.1)


def _workers(owners: RedisClient) -> int:
    return sum(connection.get("name") == wire.WORKER for connection in owners.client_list())


def reset(server: Server) -> int:
    """Delete what runs without a leader have left; how many keys that were."""
    with server.checked() as client, server.errors_reported():
        names = [name for name in client.scan_iter(match=key("*"), count=1000) if name.count(b":") > 1]
        living = {name.split(b":")[1] for name in names if name.endswith(b":announcement")}
        dead = [name for name in names if name.split(b":")[1] not in living]
        announcements(client, server)  # which takes dead runs off the list
        return client.delete(*dead) if dead else 0
