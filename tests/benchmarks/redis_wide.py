"""Hundreds of worker connections, all played by one process: python -m tests.benchmarks.redis_wide [WORKERS]

A played worker hears the real protocol on a connection of its own, evaluates for real, and reports when a
lognormal time (mean `SCALE` seconds, variance mean^2) has passed for each simulation; reports of all go out
together. Printed: the share of a core that the leader and the player take, leases and server commands a
second, and the parallel efficiency (run times below the cuts / workers / wall time), beside that of as many
workers on paper, without server, messages and wake-ups.
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

from mpiabc.evaluate import Evaluator
from mpiabc.records import pack
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.worker import announcements
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.messages import Kind, order_of
from mpiabc.version import versions
from tests import bridge
from tests.benchmarks import toy
from tests.cluster import Simulated

SCALE = 0.2
SIGMA = math.sqrt(math.log(2))


def duration(generation, start, stop):
    """Seconds of these evaluations, the same whoever does them."""
    rng = np.random.default_rng((generation, start))
    return SCALE * rng.lognormal(-(SIGMA**2) / 2, SIGMA, stop - start).sum()


class Played:
    """A worker of one place that computes nothing in its own time."""

    def __init__(self, server):
        self.client = server.connect(wire.WORKER)
        self.client.ping()  # the connection is there before the run
        self.name = wire.new_name()
        self.signer = server.signer
        self.serial = self.ack = 0
        self.leases = []
        self.free_at = 0.0

    def join(self, run):
        """Greet the leader; returns the message."""
        self.reports, self.orders = wire.key(run, "reports"), wire.key(run, "to", self.name)
        self.inbox = wire.Inbox(self.client, self.orders)
        described = {"host": "played", "process": os.getpid(), "places": 1, "versions": versions()}
        return self.report(Kind.HELLO, json.dumps(described).encode())

    def report(self, kind, content):
        """A signed message for the leader."""
        self.serial += 1
        head = wire.REPORT.pack(kind, self.name.encode(), self.serial, self.ack)
        return self.signer.sign(self.reports, head + content)

    def hear(self):
        """The orders that have come, as (kind, content)."""
        for message in self.inbox.take(0):
            body = self.signer.open(self.orders, message)
            kind, self.ack = wire.ORDER.unpack_from(body)
            yield kind, body[wire.ORDER.size :]


class Players:
    """All played workers, in one loop."""

    def __init__(self, server, n):
        self.server = server
        self.client = server.connect()
        self.workers = [Played(server) for _ in range(n)]
        self.selector = selectors.DefaultSelector()
        self.due = []
        self.evaluator = self.problem = None
        self.leases, self.is_over = 0, False

    def join(self, run):
        self.run = run
        self.outbox = [worker.join(run) for worker in self.workers]
        for worker in self.workers:
            self.obey(worker)
            self.selector.register(worker.inbox.fileno(), selectors.EVENT_READ, worker)

    def play(self):
        beat = time.monotonic()
        while not self.is_over:
            self.flush()
            wait = min(self.due[0][0] - time.monotonic(), 0.1) if self.due else 0.1
            for key, _ in self.selector.select(max(0.0, wait)):
                self.obey(key.data)
            while self.due and self.due[0][0] <= time.monotonic():
                self.finish(*heapq.heappop(self.due)[2:])
            if time.monotonic() > beat:
                beat += wire.BEAT_PERIOD
                for worker in self.workers:
                    self.outbox.append(worker.report(Kind.BEAT, json.dumps([1, worker.leases]).encode()))

    def flush(self):
        if self.outbox:
            self.client.rpush(wire.key(self.run, "reports"), *self.outbox)
            self.outbox.clear()

    def obey(self, worker):
        for kind, content in worker.hear():
            if kind == Kind.LEASE:
                lease = order_of(kind, content)
                worker.leases.append(lease)
                worker.free_at = max(worker.free_at, time.monotonic()) + duration(*lease)
                heapq.heappush(self.due, (worker.free_at, id(lease), worker, lease))
            elif kind == Kind.WELCOME and self.problem is None:
                self.problem = cloudpickle.loads(self.fetch("problem"))
            elif kind == Kind.JOB:
                self.begin(order_of(kind, content))
            elif kind == Kind.CANCEL:
                self.cancel(worker, *order_of(kind, content))
            elif kind == Kind.STOP:
                self.is_over = True

    def begin(self, parcel):
        if self.evaluator is None or self.evaluator.order.number != parcel.number:
            job = transfer.joined(*(self.fetch(f"part:{name}") for name in parcel.names))
            self.evaluator = Evaluator(self.problem, job, "played")

    def cancel(self, worker, generation, cut):
        """What waits behind the lease in work is dropped."""
        kept = worker.leases[:1] + [lease for lease in worker.leases[1:] if lease.start < cut]
        worker.leases[:] = kept

    def fetch(self, part):
        name = wire.key(self.run, part)
        return self.server.signer.open(name, self.client.get(name))

    def finish(self, worker, lease):
        if lease not in worker.leases:
            return
        worker.leases.remove(lease)
        self.leases += 1
        if lease.job == self.evaluator.order.level:
            records = self.evaluator(lease.start, lease.stop)
            object.__setattr__(records, "seconds", duration(*lease))
            self.outbox.append(worker.report(Kind.RECORDS, pack(records)))


def play(port, n):
    """The process of the players: waits for a run, plays until it is over; prints leases and its own time."""
    server = wire.Server(f"redis://127.0.0.1:{port}", bridge.PASSWORD, bridge.SECRET.encode())
    players = Players(server, n)
    print("ready", flush=True)
    while not (runs := announcements(players.client, server).runs):
        time.sleep(0.01)
    players.join(runs[0].run)
    began = time.process_time()
    players.play()
    print(players.leases, time.process_time() - began)


def measure(server, n, size):
    """One run; a row of the table."""
    command = [sys.executable, "-m", "tests.benchmarks.redis_wide", "play", str(server.port), str(n)]
    player = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    player.stdout.readline()
    with tempfile.TemporaryDirectory() as folder:
        before, began, processor = calls(server), time.perf_counter(), time.process_time()
        history = toy.sampler(toy.trivial, size).run(Path(folder) / "run.db", scheduler=server.scheduler())
        wall, share = time.perf_counter() - began, time.process_time() - processor
        worked = sum(p.evaluations * SCALE for p in history)
        leases, played = map(float, player.communicate(timeout=10)[0].split())
        commands, paper = (calls(server) - before) / wall, on_paper(n, size)
        print(
            f"{n:8}{size:8}{wall:10.1f}{share / wall:16.2f}{played / wall:16.2f}{leases / wall:12.0f}"
            f"{commands:14.0f}{worked / n / wall:12.2f}{worked / n / paper:12.2f}",
            flush=True,
        )


def on_paper(n, size):
    """Seconds of the same run on a cluster that is made of code."""
    cluster = Simulated(n, lambda evaluator, id, rng: duration(evaluator.order.level, id, id + 1))
    with tempfile.TemporaryDirectory() as folder:
        toy.sampler(toy.trivial, size).run(Path(folder) / "run.db", scheduler=cluster)
    return cluster.cluster.now


def calls(server):
    """Commands that the server has carried out so far."""
    return sum(stats["calls"] for stats in server.client.info("commandstats").values())


def main(n):
    """Print the table."""
    logging.disable(logging.WARNING)
    heads = f"{'wall s':>10}{'leader cores':>16}{'player cores':>16}{'leases/s':>12}{'commands/s':>14}"
    print(f"{'workers':>8}{'N':>8}{heads}{'efficiency':>12}{'on paper':>12}")
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
