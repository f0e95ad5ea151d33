"""The parts of the Redis tests: a real server, real workers, and a line between them that can be cut."""

import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from mpiabc import schedulers
from tests.conftest import HANGS, environment, missing

PASSWORD, SECRET = "open sesame", "between you and me"


def programs():
    """The server programs: those of the PATH, and the one that a wheel brought here, which knows no TLS."""
    folders = [*os.get_exec_path(), str(Path(sys.executable).parent)]
    found = [shutil.which("redis-server", path=folder) for folder in folders]
    return list(filter(None, dict.fromkeys(found))) or missing("there is no redis-server")


def free_port():
    """A port below those that the system gives to connections: nobody takes it before the server does."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(20000, 32768)))
            return probe.getsockname()[1]


class RedisServer:
    """A server of our own, with a password; `lines` go into its configuration."""

    def __init__(self, folder, *lines, port=None, **variables):
        self.folder, self.lines, self.variables = folder, lines, variables
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        """By the first program that knows what is asked for."""
        if not any(map(self._comes_up, programs())):
            raise AssertionError(f"the server does not come up; status {self.process.poll()}")

    def _comes_up(self, program):
        lines = [f"port {self.port}", "bind 127.0.0.1", f'requirepass "{PASSWORD}"', 'save ""', *self.lines]
        self.process = subprocess.Popen(
            [program, "-"],
            cwd=self.folder,
            env=os.environ | self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.process.stdin.write("\n".join(lines).encode())
        self.process.stdin.close()
        self.client = redis.Redis(port=self.port, password=PASSWORD)
        end = time.monotonic() + HANGS
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(redis.RedisError):
                return self.client.ping()
            time.sleep(0.01)
        return False

    def kill(self):
        self.client.close()
        self.process.kill()
        self.process.wait()

    def names(self):
        """All keys on the server."""
        return sorted(key.decode() for key in self.client.keys("*"))

    def scheduler(self, url=None, **options):
        return schedulers.Redis(url or self.url, password=PASSWORD, secret=SECRET, **options)

    def worker(self, *arguments, url=None, **variables):
        """A worker of this server."""
        return Worker(url or self.url, *arguments, **variables)

    @contextmanager
    def workers(self, n, *arguments, **options):
        """`n` workers of one process each, killed at the end."""
        started = [self.worker("--processes", 1, *arguments, **options) for _ in range(n)]
        try:
            yield started
        finally:
            for worker in started:
                worker.kill()


class Worker:
    """`mpiabc worker` with these arguments, and what it says."""

    def __init__(self, *arguments, **variables):
        secrets = {"MPIABC_SECRET": SECRET, "MPIABC_REDIS_PASSWORD": PASSWORD}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mpiabc", "worker", *map(str, arguments)],
            env=environment(**(secrets | variables)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.append(line)

    def says(self, words, within=HANGS, times=1):
        """Whether it has said this so often, or will within so many seconds."""
        end = time.monotonic() + within
        while "".join(self._lines).count(words) < times:
            if time.monotonic() > end or not self._reader.is_alive():
                return "".join(self._lines).count(words) >= times
            time.sleep(0.02)
        return True

    def said(self):
        """All that it has said by now."""
        return "".join(self._lines)

    def send_signal(self, number, to_all=False):
        (os.killpg if to_all else os.kill)(self._process.pid, number)

    def ends(self, within=HANGS):
        """Its exit status, and all that it has said."""
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker does not end; it said:\n{''.join(self._lines)}")
        self._reader.join(within)
        return status, "".join(self._lines)

    def kill(self):
        """End it as a power cut would: all of its processes at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()


class Line:
    """Passes connections on to a server, until it is cut: then nothing arrives, and nobody learns of it.

    breaks: how many pieces are passed on, on average, before a connection ends in the middle of one.
    pause: seconds for each piece, of up to 64 KB.
    """

    breaks = None

    def __init__(self, port, pause=0.0):
        self._target, self._pause = port, pause
        self._random = random.Random(1)
        self.broken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.is_cut = False
        self._is_open = True
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self):
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        others = {}
        while self._is_open:
            if self.is_cut:
                time.sleep(0.02)
                continue
            for key, _ in selector.select(0.05):
                end = key.fileobj
                if end is self._listener:
                    ours, _ = self._listener.accept()
                    theirs = socket.create_connection(("127.0.0.1", self._target))
                    others |= {ours: theirs, theirs: ours}
                    selector.register(ours, selectors.EVENT_READ)
                    selector.register(theirs, selectors.EVENT_READ)
                    continue
                if end not in others:
                    continue
                content = b""
                with suppress(OSError):
                    content = end.recv(65536)
                    breaks = bool(content and self.breaks and not self._random.randrange(self.breaks))
                    time.sleep(self._pause)
                    others[end].sendall(content[: len(content) // 2] if breaks else content)
                    self.broken += breaks
                    content = b"" if breaks else content
                if not content:
                    for each in (end, others.pop(end)):
                        others.pop(each, None)
                        with suppress(KeyError):
                            selector.unregister(each)
                        each.close()
        for each in others:
            each.close()

    def close(self):
        self._is_open = False
        self._thread.join()
        self._listener.close()


def make_certificate(folder):
    """A certificate of our own, for 127.0.0.1."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    if shutil.which("openssl") is None:
        missing("there is no openssl to make a certificate")
    subprocess.run([*command, *files], cwd=folder, check=True, capture_output=True)
