"""Hundreds of worker connections, all played by one process: python -m tests.benchmarks.redis_wide [WORKERS]

A played worker speaks the real protocol on a connection of its own, evaluates for real, and reports when a
lognormal time (mean `SCALE` seconds, variance mean^2) has passed for each simulation. Printed: the share of
a core that the master takes, messages a second, and the parallel efficiency (run times below the cuts /
workers / wall time).
"""

import heapq
import json
import logging
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import numpy as np

import mpiabc
from mpiabc.generation import Evaluator
from mpiabc.records import Lease, pack
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.worker import announcements
from mpiabc.version import versions
from tests import bridge
from tests.benchmarks import toy

SCALE = 0.2
SIGMA = math.sqrt(math.log(2))


def duration(generation, start, stop):
    """Seconds of these evaluations, the same whoever does them."""
    rng = np.random.default_rng((generation, start))
    return SCALE * rng.lognormal(-(SIGMA**2) / 2, SIGMA, stop - start).sum()


class Played:
    """A worker of one place that computes nothing in its own time."""

    def __init__(self, server, run):
        self.server, self.run, self.seal = server, run, server.seal
        self.name = wire.new_name()
        self.client = server.connect(wire.WORKER)
        self.orders = wire.key(run, "to", self.name)
        self.inbox = wire.Inbox(self.client, self.orders)
        self.serial = self.ack = 0
        self.leases = []
        self.free_at = 0.0
        told = {"host": "played", "process": os.getpid(), "places": 1, "versions": versions()}
        self.report(wire.HELLO, json.dumps(told).encode())

    def report(self, kind, content):
        self.serial += 1
        head = wire.REPORT.pack(kind, self.name.encode(), self.serial, self.ack)
        reports = wire.key(self.run, "reports")
        self.client.rpush(reports, self.seal.sign(reports, head + content))

    def hear(self):
        """The orders that have come, as (kind, content)."""
        for message in self.inbox.take(0):
            body = self.seal.open(self.orders, message)
            kind, self.ack = wire.ORDER.unpack_from(body)
            yield kind, body[wire.ORDER.size :]


class Players:
    """All played workers, in one loop."""

    def __init__(self, server, run, n):
        self.server, self.run = server, run
        self.workers = [Played(server, run) for _ in range(n)]
        self.selector = selectors.DefaultSelector()
        self.due = []
        self.evaluator = self.problem = None
        self.is_over = False
        for worker in self.workers:
            self.obey(worker)
            self.selector.register(worker.inbox.fileno(), selectors.EVENT_READ, worker)

    def play(self):
        beat = time.monotonic()
        while not self.is_over:
            wait = min(self.due[0][0] - time.monotonic(), 0.1) if self.due else 0.1
            for key, _ in self.selector.select(max(0.0, wait)):
                self.obey(key.data)
            while self.due and self.due[0][0] <= time.monotonic():
                self.finish(*heapq.heappop(self.due)[2:])
            if time.monotonic() > beat:
                beat += wire.BEAT_PERIOD
                for worker in self.workers:
                    worker.report(wire.BEAT, json.dumps([1, worker.leases]).encode())

    def obey(self, worker):
        for kind, content in worker.hear():
            if kind == wire.LEASE:
                lease = Lease(*wire.LEASE_BODY.unpack(content))
                worker.leases.append(lease)
                worker.free_at = max(worker.free_at, time.monotonic()) + duration(*lease)
                heapq.heappush(self.due, (worker.free_at, id(lease), worker, lease))
            elif kind == wire.WELCOME and self.problem is None:
                self.problem = cloudpickle.loads(self.fetch("problem"))
            elif kind == wire.GENERATION:
                self.begin(json.loads(content)[0])
            elif kind == wire.CANCEL:
                self.cancel(worker, *wire.CUT_BODY.unpack(content))
            elif kind == wire.STOP:
                self.is_over = True

    def begin(self, index):
        if self.evaluator is None or self.evaluator.generation.index != index:
            self.evaluator = Evaluator(self.problem, cloudpickle.loads(self.fetch("generation")), "played")

    def cancel(self, worker, generation, cut):
        """What waits behind the lease in work is dropped."""
        kept = worker.leases[:1] + [lease for lease in worker.leases[1:] if lease.start < cut]
        worker.leases[:] = kept

    def fetch(self, part):
        name = wire.key(self.run, part)
        client = self.workers[0].client
        return self.server.seal.open(name, client.get(name))

    def finish(self, worker, lease):
        if lease not in worker.leases:
            return
        worker.leases.remove(lease)
        if lease.generation == self.evaluator.generation.index:
            records = self.evaluator(lease.start, lease.stop)
            object.__setattr__(records, "seconds", duration(*lease))
            worker.report(wire.RECORDS, pack(records))


def play(port, n):
    """The process of the players: waits for a run, plays until it is over."""
    server = wire.Server(f"redis://127.0.0.1:{port}", bridge.PASSWORD, bridge.SECRET.encode())
    with server.connect() as client:
        while not (runs := announcements(client, server).runs):
            time.sleep(0.05)
    Players(server, runs[0].run, n).play()


def measure(server, n, size):
    """One run; a row of the table."""
    command = [sys.executable, "-m", "tests.benchmarks.redis_wide", "play", str(server.port), str(n)]
    player = subprocess.Popen(command)
    with tempfile.TemporaryDirectory() as folder:
        sampler = mpiabc.ABCSMC(
            toy.problem(toy.trivial), size, threshold=mpiabc.Listed(toy.THRESHOLDS), seed=1
        )
        before, began, processor = calls(server), time.perf_counter(), time.process_time()
        history = sampler.run(Path(folder) / "run.db", scheduler=server.scheduler())
        wall, share = time.perf_counter() - began, time.process_time() - processor
        worked = sum(p.evaluations * SCALE for p in history)
        print(
            f"{n:8}{size:8}{wall:10.1f}{share / wall:16.2f}{(calls(server) - before) / wall:14.0f}"
            f"{worked / n / wall:12.2f}",
            flush=True,
        )
    player.wait(10)


def calls(server):
    """Commands that the server has carried out so far."""
    return sum(stats["calls"] for stats in server.client.info("commandstats").values())


def main(n):
    """Print the table."""
    logging.disable(logging.WARNING)
    print(f"{'workers':>8}{'N':>8}{'wall s':>10}{'master cores':>16}{'commands/s':>14}{'efficiency':>12}")
    with tempfile.TemporaryDirectory() as folder:
        server = bridge.RedisServer(folder)
        for workers, size in ((n // 5, 1024), (n, 1024), (n, 4096)):
            measure(server, workers, size)
        server.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
