"""Leader: what rank 0 does for each message, lease, order and cut, with a thousand or ten thousand ranks.

    python -m tests.benchmarks.leader [--ranks 1000 10000] [--bytes 1000000] [--particles 1024]

The leading rank's own engine and wire, over a communicator that carries nothing: processor time, without
what MPI itself takes (1-7 us a message), on one core.

Then a run of two thresholds: the real driver, with ranks that answer whatever they are sent before rank 0
looks again, so that all that can come at once does. Of each turn, from one look at the ranks to the next, it
says what the longest took, by the heaviest thing that happened in it: the rule is 50 ms.
"""

import argparse
import gc
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

import mpiabc
from mpiabc.cli.words import table
from mpiabc.driver import Driver
from mpiabc.planner import Planner
from mpiabc.records import Lease, Records, Status
from mpiabc.run import Run, reproducible
from mpiabc.schedulers.mpi import leader
from mpiabc.schedulers.mpi.greeting import hello
from mpiabc.schedulers.mpi.nearby import Shelf
from mpiabc.schedulers.shared.messages import Kind, Missing, encoded, order_of
from mpiabc.schedulers.wire import _FRAME, zlib
from mpiabc.stopping import Stopping
from mpiabc.streams import stream_key
from tests.benchmarks.wide import Blockwise, problem
from tests.heard import Heard


@dataclass
class Status_:  # noqa: N801 (as mpi4py's)
    """Of the message that was seen last."""

    source: int = 0
    tag: int = 0
    length: int = 0

    def Get_count(self, _):
        return self.length


class Library:
    """What is asked of mpi4py.MPI."""

    BYTE, ANY_SOURCE, ANY_TAG = 0, -1, -1
    Status, Exception = Status_, OSError


class Sent:
    def Test(self):
        return True


@dataclass
class Nobody(Heard):
    """A communicator whose ranks say what is put into `coming`."""

    size: int
    coming: deque = field(default_factory=deque)
    messages: int = 0
    bytes: int = 0
    rank = 0

    def Isend(self, buffer, dest, tag):
        self.messages += 1
        self.bytes += len(buffer[0])
        return Sent()


@dataclass(frozen=True)
class Weighty:
    """A job of so many bytes."""

    number: int
    content: np.ndarray


class Measured:
    """An engine with all its ranks, and what was spent on each kind of thing."""

    def __init__(self, ranks):
        leader.load_mpi = lambda: Library
        self.problem = problem()
        self.comm = Nobody(ranks + 1)
        self.engine = leader.Ranks(self.comm, self.problem)
        self.rows = []

    @contextmanager
    def spent(self, what, times):
        """A row: what it was, microseconds each, messages and bytes sent."""
        messages, sent, began = self.comm.messages, self.comm.bytes, time.process_time()
        yield
        seconds = time.process_time() - began
        each = 1e6 * seconds / times
        row = what, f"{each:.1f}", f"{1e3 * seconds:.0f}", self.comm.messages - messages
        self.rows.append([*map(str, row), f"{(self.comm.bytes - sent) / 1e6:.3g}"])

    def says(self, rank, kind, content):
        """The rank has sent this."""
        head = _FRAME.pack(self.engine.number, zlib.crc32(content))
        self.comm.coming.append((rank, kind, head + content))

    def poll(self):
        """Take turns until all is read that has come, and all is sent that waits."""
        messages = -1
        while self.comm.coming or messages < self.comm.messages:
            messages = self.comm.messages
            self.engine.poll(0)

    def greet(self):
        """All ranks come."""
        content = hello("rank 1 of many on node1", self.problem)
        ranks = range(1, self.comm.size)
        with self.spent("greeting of a rank", len(ranks)):
            for rank in ranks:
                self.says(rank, Kind.HELLO, content)
            self.poll()

    def work(self, job, rounds):
        """Every rank has two leases, then brings one and gets another, `rounds` times."""
        ranks, next_id = self.comm.size - 1, 0
        with self.spent("a lease", 2 * ranks):
            for next_id in range(2 * ranks):
                self.engine.submit(Lease(job, next_id, next_id + 1))
        held = self.engine._workers
        answers = []
        for _ in range(rounds):
            for rank in range(1, ranks + 1):
                first = held.leases(rank)[0]
                answers.append((rank, encoded(Records(*first, np.full(1, Status.REJECTED, np.uint8)))))
            with self.spent("a report", ranks):
                for rank, (kind, content) in answers:
                    self.says(rank, kind, content)
                self.poll()
            answers.clear()
            with self.spent("a lease anew", ranks):
                for _ in range(ranks):
                    next_id += 1
                    self.engine.submit(Lease(job, next_id, next_id + 1))
        cuts = np.linspace(next_id, next_id - ranks, 201)[1:].astype(int).tolist()
        with self.spent("a cut that falls", len(cuts)):
            for cut in cuts:
                self.engine.cancel(cut)
            self.poll()

    def order(self, number, size):
        """An order of so many bytes, to whoever asks; each hundredth rank does so, as of a node."""
        nodes = range(1, self.comm.size, 100)
        job = Weighty(number, np.random.default_rng(number).integers(256, size=size, dtype=np.uint8))
        with self.spent(f"an order of {size / 1e6:g} MB", 1):
            self.engine.begin(job)
            for rank in nodes if size > 1000 else ():
                self.says(rank, Kind.MISSING, b"[%d, []]" % number)
            self.poll()

    def close(self):
        with self.spent("the end", 1):
            self.engine.close(0)


NODE = 100  # ranks of one, of which the first asks for an order that it lacks
ORDER = "greetings", "leases and reports", "a cut", "an order"  # what may happen in a turn, the heaviest last


class Collector:
    """Python's own, of garbage: its time is kept apart, as most that it looks at belongs to these ranks."""

    def __init__(self):
        self.seconds = self.longest = self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase, info):
        if phase == "start":
            self._began = time.process_time()
        else:
            took = time.process_time() - self._began
            self.seconds, self.longest = self.seconds + took, max(self.longest, took)


class Answering(Nobody):
    """Ranks that answer at once; what that takes is not rank 0's time."""

    def __init__(self, size, greeting):
        super().__init__(size)
        self.aside = 0.0  # seconds
        self.collector = Collector()
        self.greeting, self.evaluators, self._have = greeting, {}, set()

    def now(self):
        """Seconds of rank 0."""
        return time.process_time() - self.aside - self.collector.seconds

    def Isend(self, buffer, dest, tag):
        began = time.process_time() - self.collector.seconds
        number, content = _FRAME.unpack_from(buffer[0])[0], memoryview(buffer[0])[_FRAME.size :]
        for kind, answer in self._answers(dest, tag, content):
            self.coming.append((dest, kind, _FRAME.pack(number, zlib.crc32(answer)) + answer))
        self.aside += time.process_time() - self.collector.seconds - began
        return super().Isend(buffer, dest, tag)

    def _answers(self, rank, kind, content):
        if kind == Kind.WELCOME:
            yield Kind.HELLO, self.greeting
        if kind == Kind.JOB:
            self._have.add((rank, order_of(kind, content).number))
        if kind == Kind.LEASE:
            job, start, stop = lease = order_of(kind, content)
            if rank % NODE == 1 and (rank, job) not in self._have:
                yield encoded(Missing(job))
            yield encoded(replace(self.evaluators[lease.job](start, stop), seconds=1.0 * (stop - start)))


class Watched:
    """The engine; of the turns of whoever drives it, the longest."""

    def __init__(self, engine, comm):
        self._engine, self._comm = engine, comm
        self._began, self._what = comm.now(), ORDER[0]
        self.longest = dict.fromkeys(ORDER, 0.0)
        self.turns = dict.fromkeys(ORDER, 0)

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def begin(self, job, beside=()):
        self._note("an order")
        began = self._comm.now()
        self._comm.evaluators[job.number] = Blockwise(job.evaluator(problem()))
        self._comm.aside += self._comm.now() - began
        self._engine.begin(job, beside)

    def submit(self, lease):
        self._note("leases and reports")
        self._engine.submit(lease)

    def cancel(self, cut, job=None):
        self._note("a cut")
        self._engine.cancel(cut, job)

    def poll(self, timeout):
        now = self._comm.now()
        self.longest[self._what] = max(self.longest[self._what], now - self._began)
        self.turns[self._what] += 1
        self._began, self._what = now, ORDER[0]
        reports = self._engine.poll(timeout)
        if reports:
            self._note("leases and reports")
        return reports

    def _note(self, what):
        self._what = max(self._what, what, key=ORDER.index)


def turns(ranks, particles):
    """A table: what happened in a turn, how many such there were, and what the longest took."""
    leader.load_mpi = lambda: Library
    listed = mpiabc.Listed((1.635, 0.998))
    sampler = mpiabc.ABCSMC(problem(), particles, threshold=listed, seed=1)
    parts = sampler.problem.prior, sampler.kernel, sampler.threshold
    planner = Planner(*parts, stream_key(1), particles, False, sampler.weights)
    comm = Answering(ranks + 1, hello("rank 1 of many on node1", sampler.problem))
    watched = Watched(leader.Ranks(comm, sampler.problem), comm)
    began = comm.now()
    with reproducible():
        list(Driver(watched).run(Run(sampler.problem, planner, Stopping())))
    seconds, sent = comm.now() - began, comm.messages
    watched.close(0)
    rows = [[what, str(watched.turns[what]), f"{1e3 * watched.longest[what]:.0f}"] for what in ORDER]
    rows.append(["Python's collector of garbage", "", f"{1e3 * comm.collector.longest:.0f}"])
    rows.append([f"all: {sent} messages sent, {comm.bytes / 1e6:.3g} MB", "", f"{1e3 * seconds:.0f}"])
    return table([["in a turn", "turns", "ms, the longest"], *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--particles", type=int, default=1024)
    arguments = parser.parse_args()
    Shelf.put = lambda *content: None  # rank 0 is on a node of its own
    for ranks in arguments.ranks:
        measured = Measured(ranks)
        measured.greet()
        measured.order(0, 1000)
        measured.work(0, 1)
        measured.order(1, arguments.bytes)
        measured.close()
        print(f"\n{ranks} ranks")
        print(table([["what", "us each", "ms in all", "messages sent", "MB sent"], *measured.rows]))
        print(turns(ranks, arguments.particles))


if __name__ == "__main__":
    main()
