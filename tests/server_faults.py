"""Faults of Redis servers, of the lines to them, and of who else is there: each held, or reported.

    python -m tests.server_faults [WORD ...]        those with one of these words in their names

Held: the run ends with the digests of a quiet one. Reported: leader or worker, or both, say what is wrong.
"""

import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.program import CLIENT, Program
from tests import bridge, problems
from tests.conftest import missing
from tests.test_redis import FakeServer, Leader, slow, slow_sampler

DAY = 86400
_HASH = hashlib.sha256(bridge.PASSWORD.encode()).hexdigest()


class Fault(NamedTuple):
    """What happens, and words that are said by all who should; none where it is held."""

    play: object
    words: str

    @property
    def outcome(self):
        return "reported" if self.words else "held"


FAULTS = {}


def held(play):
    """It makes no difference to the run whose digests are returned."""
    return _registered(play, "")


def reported(words):
    """These words are in each of the texts that are returned."""
    return lambda play: _registered(play, words)


def _registered(play, words):
    FAULTS[play.__name__.replace("_", " ")] = Fault(play, words)
    return play


class Scene:
    """A server with a run and a worker of it, all gone at the end."""

    def __init__(self, folder):
        self.folder = folder
        self._stack = ExitStack()
        self._stores = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def server(self, *lines, **options):
        started = bridge.RedisServer(self.folder, *lines, **options)
        self._stack.callback(started.kill)
        return started

    def line(self, server, **options):
        opened = bridge.Line(server.port, **options)
        self._stack.callback(opened.close)
        return opened

    def worker(self, server, *arguments, **options):
        started = server.worker("--processes", 1, *arguments, **options)
        self._stack.callback(started.kill)
        return started

    def leader(self, server, url=None, simulate=slow, **options):
        self._stores += 1
        store = self.folder / f"{self._stores}.db"
        return Leader(slow_sampler(simulate), store, server.scheduler(url, **options))

    def at_work(self, server, url=None, **options):
        """A run with one worker, in the middle of it."""
        worker = self.worker(server, url=url)
        leader = self.leader(server, url, **options)
        assert worker.says("generation 1"), "there is no second generation"
        assert leader.is_running
        return leader, worker

    def refused(self, server, url=None):
        """What leader and worker say of a server that cannot be used."""
        worker = self.worker(server, "--wait", "1s", url=url)
        leader = self.leader(server, url)
        status, said = worker.ends()
        assert status == 1, said
        return str(leader.digests()), said

    def ended(self, server, **options):
        """What a leader says."""
        return str(self.leader(server, **options).digests())


# The server.


@held
def killed_and_started_again_empty(scene):
    server = scene.server()
    leader, _ = scene.at_work(server)
    server.kill()
    server.start()
    return leader.digests()


@held
def killed_and_started_again_with_its_data(scene):
    server = scene.server("appendonly yes", "appendfsync always")
    leader, _ = scene.at_work(server)
    server.kill()
    server.start()
    return leader.digests()


@held
def emptied(scene):
    server = scene.server()
    leader, _ = scene.at_work(server)
    for _ in range(5):
        server.client.flushall()
        time.sleep(0.1)
    return leader.digests()


@held
def suspended(scene):
    server = scene.server()
    leader, _ = scene.at_work(server)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(wire.DEAD_AFTER * wire.BEAT_PERIOD + 2)
    server.process.send_signal(signal.SIGCONT)
    return leader.digests()


@held
def held_up_by_a_script(scene):
    server = scene.server("lua-time-limit 10")
    leader, worker = scene.at_work(server)
    other = bridge.redis.Redis(port=server.port, password=bridge.PASSWORD, socket_timeout=0.1)
    with other, suppress(bridge.redis.RedisError):
        other.eval("while true do end", 0)
    assert worker.says("is held up by somebody's script")
    server.client.script_kill()
    return leader.digests()


@held
def its_clock_jumps_forward(scene):
    """All that expires has expired."""
    return _with_jump(scene, DAY)


@held
def its_clock_jumps_back(scene):
    """What waits on the server waits for a day."""
    return _with_jump(scene, -DAY)


def _with_jump(scene, seconds):
    clock = scene.folder / "clock"
    clock.write_text("0")
    server = scene.server(LD_PRELOAD=str(_clock_library()), TEST_CLOCK=str(clock))
    leader, _ = scene.at_work(server)
    before = server.client.time()[0]
    clock.write_text(str(seconds))
    assert abs(server.client.time()[0] - before - seconds) < 60, "the clock has not jumped"
    return leader.digests()


# What a server refuses.


@reported("is full: raise its `maxmemory`")
def full_from_the_beginning(scene):
    server = scene.server("maxmemory 1kb")
    return (scene.ended(server),)


@held
def full_for_a_while(scene):
    server = scene.server()
    leader, worker = scene.at_work(server)
    server.client.config_set("maxmemory", "1kb")
    assert worker.says("is full: raise its `maxmemory`")
    server.client.config_set("maxmemory", 0)
    return leader.digests()


@reported("is full: raise its `maxmemory`")
def full_for_long(scene):
    server = scene.server()
    leader, worker = scene.at_work(server, patience=1)
    server.client.config_set("maxmemory", "1kb")
    return str(leader.digests()), worker.said()


@held
def throws_keys_away_as_it_is_full(scene):
    """As a cache does. A reply that was thrown away is missed, and what it said is done again."""
    server = scene.server("maxmemory-policy allkeys-random")
    leader, _ = scene.at_work(server)
    for _ in range(10):
        server.client.config_set("maxmemory", "1kb")
        time.sleep(0.02)
        server.client.config_set("maxmemory", 0)
        time.sleep(0.2)
    return leader.digests()


@reported("is a replica, which can only be read: give its primary")
def a_replica(scene):
    primary = scene.server()
    (scene.folder / "replica").mkdir()
    lines = f"replicaof 127.0.0.1 {primary.port}", f'masterauth "{bridge.PASSWORD}"'
    replica = bridge.RedisServer(scene.folder / "replica", *lines)
    try:
        return (scene.ended(replica),)
    finally:
        replica.kill()


@held
def a_replica_for_a_while(scene):
    server = scene.server()
    leader, worker = scene.at_work(server)
    server.client.replicaof("127.0.0.1", bridge.free_port())
    assert worker.says("is a replica, which can only be read")
    server.client.replicaof("NO", "ONE")
    return leader.digests()


@reported("cannot write to its disk")
def its_disk_is_gone(scene):
    folder = scene.folder / "disk"
    folder.mkdir()
    server = scene.server("save 3600 1", f"dir {folder}")
    folder.rmdir()
    server.client.bgsave()
    while server.client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.01)
    return (scene.ended(server),)


@held
def something_else_is_under_our_keys(scene):
    server = scene.server()
    server.client.set(wire.RUNS, "a text")
    server.client.rpush(wire.STOPPED, "a list")
    return scene.at_work(server)[0].digests()


@held
def our_keys_become_something_else(scene):
    server = scene.server()
    leader, _ = scene.at_work(server)
    for name in server.names():
        server.client.delete(name)
        server.client.hset(name, "a", "table")
    return leader.digests()


@reported("is still reading its data from its disk")
def not_ready_yet(scene):
    loading = FakeServer(b"-LOADING Redis is loading the dataset in memory\r\n")
    return (scene.ended(scene.server(), url=loading.url),)


@reported("is one of a Redis Cluster")
def one_of_a_cluster(scene):
    server = scene.server("cluster-enabled yes")
    return (scene.ended(server),)


@reported("takes no more connections")
def takes_no_more_connections(scene):
    server = scene.server("maxclients 1")
    return scene.refused(server)


@reported("has no database of that number")
def has_not_so_many_databases(scene):
    server = scene.server()
    return scene.refused(server, f"{server.url}/99")


@reported("does not accept the password")
def has_another_password(scene):
    server = scene.server()
    server.client.config_set("requirepass", "another")
    return scene.refused(server)


@reported("does not accept the password")
def has_another_password_now(scene):
    server = scene.server()
    leader, worker = scene.at_work(server, patience=1)
    server.client.config_set("requirepass", "another")
    server.client.client_kill_filter(_type="normal", skipme=True)
    return str(leader.digests()), worker.ends()[1]


@reported("does not let its user do what is needed")
def its_user_may_too_little(scene):
    server = scene.server(f"user {CLIENT} on #{_HASH} ~mpiabc:* &* +ping +info +client")
    return scene.refused(server, f"redis://{CLIENT}@127.0.0.1:{server.port}")


@reported("does not let its user do what is needed")
def its_user_may_less_than_before(scene):
    server = scene.server(f"user {CLIENT} on #{_HASH} ~* &* +@all")
    leader, worker = scene.at_work(server, f"redis://{CLIENT}@127.0.0.1:{server.port}")
    server.client.execute_command("ACL", "SETUSER", CLIENT, "-@write")
    assert worker.says("cannot work for")
    return str(leader.digests()), worker.said()


@held
def its_user_may_not_do_what_is_new(scene):
    """Rights that were given for Redis 6.2 do for later ones."""
    server = scene.server(Program("", (6, 2)).user(CLIENT, bridge.PASSWORD))
    return scene.at_work(server, f"redis://{CLIENT}@127.0.0.1:{server.port}")[0].digests()


@reported("is Redis 5.0.14: it must be 6.0 or later")
def too_old(scene):
    info = b"redis_version:5.0.14\r\n"
    old = FakeServer(b"$%d\r\n%s\r\n" % (len(info), info))
    return scene.refused(scene.server(), old.url)


@reported("is no Redis server: check host and port")
def something_else_than_redis(scene):
    return scene.refused(scene.server(), FakeServer(b"HTTP/1.1 400 Bad Request\r\n\r\n").url)


# The line.


@held
def connections_end_in_the_middle_of_messages(scene):
    server = scene.server()
    line = scene.line(server)
    leader, _ = scene.at_work(server, line.url)
    line.breaks = 20
    digests = leader.digests()
    assert line.broken, "none has"
    return digests


@held
def the_line_is_mute_for_a_while(scene):
    server = scene.server()
    line = scene.line(server)
    leader, _ = scene.at_work(server, line.url)
    line.is_cut = True
    time.sleep(wire.DEAD_AFTER * wire.BEAT_PERIOD + 2)
    line.is_cut = False
    return leader.digests()


@held
def the_line_is_slow(scene):
    """A problem takes longer than any answer may, and a fifth of what it may take itself."""
    server = scene.server()
    line = scene.line(server, pause=0.01)
    limit, wire._TIMEOUT = wire._TIMEOUT, 0.8
    try:
        worker = scene.worker(server, url=line.url)
        assert worker.says("waiting for a run")  # a process that starts would keep the leader from answers
        leader = scene.leader(server, line.url, simulate=Large(8 * 2**20))
        assert worker.says("generation 0"), worker.said()
    finally:
        wire._TIMEOUT = limit
    return leader.digests()


# What is sent, and who else is there.


class Large:
    """A simulator with much in it."""

    def __init__(self, size=2**20):
        self.table = bytes(size)

    def __call__(self, theta, rng):
        return problems.gaussian(theta, rng)


@reported(
    "is 1 MB, pickled, and a Redis server takes 0 MB in one piece: let workers read large data from a file"
)
def a_problem_larger_than_a_server_takes(scene):
    """The limit is 512 MB; here it is lower."""
    server, limit = scene.server(), wire.LARGEST
    wire.LARGEST = 2**18
    try:
        return (scene.ended(server, simulate=Large()),)
    finally:
        wire.LARGEST = limit


@held
def two_runs_of_one_name(scene):
    server = scene.server()
    runs = [scene.leader(server, name="both") for _ in range(2)]
    for _ in runs:
        scene.worker(server, "--run", "both")
    first, second = [run.digests() for run in runs]
    assert first == second
    return first


@reported("1 there with another secret than ours")
def a_worker_with_another_secret(scene):
    server = scene.server()
    other = scene.worker(server, MPIABC_SECRET="another")
    leader = scene.at_work(server)[0]
    assert other.says("another secret")
    assert leader.digests() == quiet()
    return (other.said(),)


@held
def a_worker_comes_and_is_killed_again_and_again(scene):
    server = scene.server()
    leader, _ = scene.at_work(server)
    for _ in range(3):
        late = scene.worker(server)
        late.says("working for")
        late.kill()
    return leader.digests()


@cache
def _clock_library():
    """A library in front of the C library whose clock is as many seconds off as a file says."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        missing("no C compiler for the library whose clock jumps")
    folder = Path(tempfile.mkdtemp())
    (folder / "clock.c").write_text(_CLOCK)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c", "-ldl"], check=True
    )
    return folder / "clock.so"


_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset(void) {
    char text[32] = {0};
    int file = open(getenv("TEST_CLOCK"), O_RDONLY);
    if (file >= 0) { if (read(file, text, 31) < 0) text[0] = 0; close(file); }
    return atol(text);
}
int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    now->tv_sec += offset();
    return result;
}
time_t time(time_t *where) {
    struct timeval now;
    gettimeofday(&now, 0);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""


@cache
def quiet():
    """The digests of a run without any of this."""
    with tempfile.TemporaryDirectory() as folder:
        return problems.digests(
            slow_sampler().run(Path(folder) / "run.db", scheduler="serial", progress=False)
        )


def play(name, folder):
    """What became of it, in a word, and how it differs from what was expected, if it does."""
    fault = FAULTS[name]
    with Scene(folder) as scene:
        found = fault.play(scene)
    if not fault.words:
        return fault.outcome, None if found == quiet() else f"not the digests of a quiet run: {found}"
    silent = [text for text in found if fault.words not in text]
    return fault.outcome, f"not reported: {silent[0]}" if silent else None


def main(words):
    failures = 0
    for name in FAULTS:
        if words and not any(word in name for word in words):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome, trouble = play(name, Path(folder))
            except Exception as error:
                outcome, trouble = "FAILED", f"{type(error).__name__}: {error}"
        failures += trouble is not None
        print(f"{name:<50}{'BAD' if trouble else outcome:<6}{time.monotonic() - began:5.1f} s", flush=True)
        if trouble:
            print(f"    {trouble}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
