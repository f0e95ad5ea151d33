"""What a leader and its workers share: the server's address, signatures, frames, and lists to wait on.

Everything on the server lies under these keys, all of which expire:

    mpiabc:runs                    set of the runs that have a leader (channel mpiabc:news: a new one)
    mpiabc:{run}:announcement      JSON, signed: name, versions, how far it is
    mpiabc:{run}:problem           cloudpickle (`mapped`), signed; its SHA-256 comes with the welcome
    mpiabc:{run}:part:{SHA-256}    a part of a job, cloudpickle or a large buffer, signed: there as long as an
                                   open job has it; the order has the names of all
    mpiabc:{run}:reports           list, workers to leader: frames of `REPORT`
    mpiabc:{run}:to:{worker}       list, leader to one worker: frames of `ORDER`

A list for each worker, rather than a stream with a consumer group: the leader decides who gets what, as it
does for MPI ranks, so nothing has to be acknowledged, claimed or trimmed on the server, and a lost message is
found by what workers say of themselves. A lease costs six commands, three for each side.

A signature (HMAC-SHA256) covers the key, which names run and worker, and the content, which holds a
serial number that only rises: nothing can be altered, moved, or played again. Runs and workers
draw their names at random.
"""

import hashlib
import hmac
import json
import os
import secrets
import shlex
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NotRequired, TypedDict, TypeGuard, TypeVar, TypeVarTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from mpiabc import environment
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.foreign import RedisClient, RedisConnection
from mpiabc.schedulers.redis import troubles

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ORDER = struct.Struct("<BQ")  # kind, serial
REPORT = struct.Struct("<B16sQQ")  # kind, worker, serial, serial of the last order it has read

RUNS = "mpiabc:runs"
NEWS = "mpiabc:news"  # the channel on which leaders say that they are there
WORKER = "mpiabc-worker"  # what the server knows the connections of workers by
STOPPED = "mpiabc:stopped"  # "now" or "soon", signed: the broker is being stopped
TTL = 60  # seconds that anything stays on the server when nobody renews it
ALIVE = 8  # seconds that an announcement stays: how long a leader may be silent
BEAT_PERIOD = 1.0  # seconds between two signs of life of a worker; longer with very many workers
DEAD_AFTER = 6  # missed ones after which a worker is taken for dead
BATCH = 1000  # messages that are taken off a list at once
LARGEST = 512 * 2**20 - 1024  # bytes that a server takes in one piece, with what we put around them

_OLDEST = (6, 0)  # version of the server
_TIMEOUT = 5.0  # seconds that the server has to answer
_SMALL = 2**20  # bytes that go there within that time, on any line that is of use
_CONNECT = 2.0  # seconds to reach it
_WAIT = 2  # seconds that it lets a list be waited for, before it says that there is nothing
_TRIES = 5  # of a call whose connection is cut
_INSECURE = b"insecure"


class Greeting(TypedDict):
    """Who a worker is, as it says."""

    host: str
    process: int
    places: int
    versions: dict[str, str]


def key(run: str, *parts: str) -> str:
    """The key of a part of a run."""
    return ":".join(("mpiabc", run, *parts))


def new_name() -> str:
    """A name that nobody else has."""
    return secrets.token_hex(8)


class Signer:
    """Signs content for a key with the secret that a leader and its workers share."""

    SIZE = 32

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, key: str, body: bytes) -> bytes:
        """The signature, then the content."""
        return self._signature(key, body) + body

    def open(self, key: str, message: bytes | None) -> bytes | None:
        """The content of a message, None if it was not signed for this key with this secret."""
        if message is None or len(message) < self.SIZE:
            return None
        body = message[self.SIZE :]
        return body if hmac.compare_digest(message[: self.SIZE], self._signature(key, body)) else None

    def _signature(self, key: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, key.encode() + b"\0" + body, "sha256")


def too_large(size: int) -> str:
    """How large a piece is that no server takes."""
    return f"{size / 2**20:.0f} MB, pickled, and a Redis server takes {LARGEST / 2**20:.0f} MB in one piece"


def sha256(content: bytes) -> str:
    """The digest by which a problem or job is known to be the right one."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Server:
    """Where the server is, and how to get in: what stands here is shown nowhere."""

    url: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    secret: bytes = field(default=_INSECURE, repr=False)
    certificate: str | None = field(default=None, repr=False)  # the only one that it may have, in PEM
    file: Path | None = None  # in which all of this stands, of a broker

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"

    @property
    def words(self) -> str:
        """What `mpiabc worker` is to know of it."""
        if self.file is None:
            return str(self)
        return "" if self.file == default_file() else f"--broker {shlex.quote(os.path.abspath(self.file))}"

    @property
    def signer(self) -> Signer:
        """What signs with the secret."""
        return Signer(self.secret)

    def connect(self, name: str = "mpiabc", timeout: float | None = None) -> RedisClient:
        """A client whose calls answer or raise within seconds. Raises SchedulerError without redis-py."""
        redis = _library()
        return redis.Redis.from_url(
            self.url,
            protocol=2,
            client_name=name,
            socket_timeout=_TIMEOUT if timeout is None else timeout,
            socket_connect_timeout=_CONNECT,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            **({} if self.password is None else {"password": self.password}),
            **({} if self.certificate is None else self._pinned(self.certificate)),
        )

    @contextmanager
    def carrying(self, client: RedisClient, size: int) -> Iterator[RedisClient]:
        """A client for so many bytes: this one, or another, which is patient, if they are many."""
        if size <= _SMALL:
            yield client
        else:
            with self.connect(timeout=_TIMEOUT * size / _SMALL) as patient:
                yield patient

    def _pinned(self, certificate: str) -> dict[str, object]:
        """Options of a client that talks to the owner of this certificate, and to nobody else.

        No authority is asked, as any of them could vouch for others; so names and dates do not matter either.
        """
        import ssl  # 30 ms that only a broker with a certificate needs

        wanted = ssl.PEM_cert_to_DER_cert(certificate)

        def greet(connection: RedisConnection) -> None:
            if connection._sock.getpeercert(binary_form=True) != wanted:
                raise _library().exceptions.AuthenticationError("another certificate")
            connection.on_connect()  # only here the password is sent

        return {"redis_connect_func": greet, "ssl_cert_reqs": "none", "ssl_check_hostname": False}

    def checked(self, name: str = "mpiabc") -> RedisClient:
        """A client of a server that can be used. Raises SchedulerError, in one sentence, if it cannot."""
        client = self.connect(name)
        try:
            with self.errors_reported():
                tried(self.check_version, client)
        except BaseException:
            client.close()
            raise
        return client

    def check_version(self, client: RedisClient) -> None:
        """Raises SchedulerError for a server that is too old."""
        version = str(client.info("server").get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            raise SchedulerError(
                f"the server at {self} is Redis {version}: it must be {'.'.join(map(str, _OLDEST))} or later"
            )

    @contextmanager
    def errors_reported(self) -> Iterator[None]:
        """Errors of the connection as SchedulerError, with what to do; no password is in them."""
        try:
            yield
        except _library().exceptions.RedisError as error:
            raise SchedulerError(self.trouble(error)) from None
        except (OSError, ValueError, TypeError) as error:
            raise SchedulerError(f"cannot use {self}: {error}") from None

    def trouble(self, error: Exception) -> str:
        """What is wrong with the server, in a sentence."""
        return troubles.sentence(error, str(self))

    def refusal(self, error: Exception) -> str | None:
        """What is wrong with a server that has answered; None for a connection that broke."""
        return troubles.refusal(error, str(self))


def _library() -> ModuleType:
    try:
        import redis
        import redis.backoff
        import redis.retry
    except ImportError:
        raise SchedulerError("the Redis client is not installed: install `mpiabc[redis]`") from None
    return redis


def refusals() -> tuple[type[Exception], ...]:
    """What a server answers that cannot do what it was asked: it is full, or a key is of the wrong type."""
    return (_library().exceptions.ResponseError,)


def tried(call: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """What a call gives; it is made again where its connection is cut."""
    for _ in range(_TRIES - 1):
        try:
            return call(*arguments)
        except connection_errors() as error:
            if not troubles.is_cut(error):
                raise
    return call(*arguments)


def connection_errors() -> tuple[type[Exception], ...]:
    """What a connection that breaks, or a server that is starting or full, raises."""
    return (_library().exceptions.RedisError, OSError)


# What a user gives: a URL or a broker's file, and secrets from the environment.


def find_server(
    url: str | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    password: str | None = None,
    secret: bytes | str | None = None,
    is_insecure: bool = False,
) -> Server:
    """The server that a URL, or the file of `mpiabc broker start`, names. Raises SchedulerError."""
    password = password if password is not None else environment.given(environment.REDIS_PASSWORD)
    secret = secret.encode() if isinstance(secret, str) else secret or _secret_of_environment()
    if url is None:
        path = default_file() if file is None else Path(file)
        known = read_broker(path)
        own = secret or known["secret"].encode()
        return Server(known["url"], known["password"], own, known.get("certificate"), path)
    url, inside = _without_password(url)
    if secret is None and not is_insecure:
        raise SchedulerError(
            "a leader and its workers need a secret that they share: set MPIABC_SECRET or MPIABC_SECRET_FILE "
            "on both sides, use a broker of `mpiabc broker start`, or, where all who reach the server may "
            "run code as you, say insecure=True (--insecure)"
        )
    return Server(url, inside if password is None else password, secret or _INSECURE)


def _without_password(url: str) -> tuple[str, str | None]:
    """The URL that may be shown, and its password."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == -1:
        raise SchedulerError(
            f"what was given ({parts.scheme}://...) is no address of a Redis server: give redis://host:6379 "
            "(rediss:// for TLS)"
        )
    user = f"{parts.username}@" if parts.username else ""
    place = f"{user}{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=place)), parts.password and unquote(parts.password)


def _secret_of_environment() -> bytes | None:
    text, file = environment.given(environment.SECRET), environment.given(environment.SECRET_FILE)
    if file and not text:
        text = read_private(Path(file), environment.SECRET_FILE).strip()
    return text.encode() if text else None


def read_private(path: Path, what: str) -> str:
    """The text of a file with a password or secret in it. Raises SchedulerError if there is none."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o022:
            raise SchedulerError(f"others may write {path}, which {what} names: `chmod 600 {path}`")
        text = path.read_text()
    except OSError as error:
        raise SchedulerError(f"cannot read {path} ({error.strerror}), which {what} names") from None
    if not text.strip():
        raise SchedulerError(f"{path}, which {what} names, is empty")
    return text


class Broker(TypedDict):
    """What stands in a broker's file, of what is used of it."""

    url: str
    password: str
    secret: str
    certificate: NotRequired[str]


def default_file() -> Path:
    """Where `mpiabc broker start` leaves its address unless another is named."""
    return Path.home() / ".mpiabc" / "broker.json"


def read_broker(path: Path) -> Broker:
    """What `mpiabc broker start` has written. Raises SchedulerError."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SchedulerError(f"others may read {path}, which holds a password: `chmod 600 {path}`")
        known = json.loads(path.read_text())
    except FileNotFoundError:
        raise SchedulerError(
            f"there is no broker's file {path}: run `mpiabc broker start`, or give the server's URL"
        ) from None
    except (OSError, ValueError) as error:
        raise SchedulerError(f"cannot read the broker's file {path}: {error}") from None
    if not _is_broker(known):
        raise SchedulerError(f"{path} is not a file of `mpiabc broker start`")
    return known


def _is_broker(known: object) -> TypeGuard[Broker]:
    keys = ("url", "password", "secret")
    if not isinstance(known, dict):
        return False
    return all(isinstance(known.get(key), str) for key in keys) and isinstance(
        known.get("certificate", ""), str
    )


def is_broker_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of `mpiabc broker start`; it may be anything, or not be there."""
    try:
        return _is_broker(json.loads(Path(path).read_text()))
    except (OSError, ValueError):
        return False


class Inbox:
    """A list on the server, waited for on a connection of its own.

    A request to wait is always out, so that asking whether there is anything costs no message, and
    `fileno` can be waited for together with others. The server answers at least every few seconds.
    """

    def __init__(self, client: RedisClient, key: str) -> None:
        self._client, self._key = client, key
        self._connection: RedisConnection = None
        self._asked = 0.0
        self._takes_many = True  # BLMPOP, from Redis 7 on

    def fileno(self) -> int | None:
        """The socket, None while there is no connection."""
        socket = getattr(self._connection, "_sock", None)
        return None if socket is None else socket.fileno()

    def take(self, timeout: float) -> list[bytes]:
        """What has come in, in order; waits at most `timeout` seconds. Raises if the connection breaks."""
        try:
            self._ask()
            if not self._connection.can_read(timeout=timeout):
                if time.monotonic() - self._asked > _WAIT + _TIMEOUT:
                    raise TimeoutError("the server does not answer")
                return []
            messages = self._answer()
            self._ask()
        except BaseException:
            self.close()
            raise
        return messages

    def _ask(self) -> None:
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
            self._asked = 0.0
        if not self._asked:
            many = ("BLMPOP", _WAIT, 1, self._key, "LEFT", "COUNT", BATCH)
            one = ("BLPOP", self._key, _WAIT)
            self._connection.send_command(*(many if self._takes_many else one))
            self._asked = time.monotonic()

    def _answer(self) -> list[bytes]:
        """What the server has sent for our request."""
        self._asked = 0.0
        try:
            answer = self._connection.read_response()
        except refusals() as error:
            if troubles.is_of_another_kind(error):  # it would stop everything
                self._client.delete(self._key)
            elif self._takes_many and _is_unknown(error):
                self._takes_many = False
            else:
                raise
            return []
        if not answer:
            return []
        return answer[1] if self._takes_many else [answer[1], *self._more()]

    def _more(self) -> list[bytes]:
        with self._client.pipeline() as pipe:
            pipe.lrange(self._key, 0, BATCH - 1)
            pipe.ltrim(self._key, BATCH, -1)
            return pipe.execute()[0]

    def close(self) -> None:
        """Give the connection up: an answer may still be under way on it."""
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
        self._connection = None


def _is_unknown(error: Exception) -> bool:
    """Whether a command is none of the server's, or of those that its user may give."""
    return "unknown command" in str(error) or isinstance(error, _library().exceptions.NoPermissionError)


def members(client: RedisClient, name: str) -> set[bytes]:
    """The members of a set; something of another kind under its name goes."""
    try:
        return client.smembers(name)
    except refusals() as error:
        if not troubles.is_of_another_kind(error):
            raise
        client.delete(name)
        return set()


def read(client: RedisClient, name: str) -> bytes | None:
    """What is under a name; None also for something of another kind, where GET would be refused."""
    return client.mget(name)[0]


def wait_for_news(client: RedisClient, seconds: float) -> None:
    """Wait until a leader says that it is there, at most so long."""
    with client.pubsub(ignore_subscribe_messages=True) as news:
        news.subscribe(NEWS)
        news.get_message(timeout=seconds)  # of the subscription
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and news.get_message(timeout=left) is None:
            pass


class Timer:
    """Says when something is due again."""

    def __init__(self, period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.period, self._clock = period, clock
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether it is time; if so, the next time is a period away."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self.period
        return True

    def hurry(self) -> None:
        """Be due at once."""
        self._next = 0.0
