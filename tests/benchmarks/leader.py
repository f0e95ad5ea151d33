"""Leader: what rank 0 does for each message, lease, order and cut, with a thousand or ten thousand ranks.

    python -m tests.benchmarks.leader [--ranks 1000 10000] [--bytes 1000000]

The leading rank's own engine and wire, over a communicator that carries nothing: processor time, without
what MPI itself takes (1-7 us a message), on one core. `beside` is what messages a second would be if these
ranks simulated for a second each, and what share of the core that takes.
"""

import argparse
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from mpiabc.cli.words import table
from mpiabc.records import Lease, Records, Status
from mpiabc.schedulers.mpi import leader
from mpiabc.schedulers.mpi.greeting import hello
from mpiabc.schedulers.mpi.nearby import Shelf
from mpiabc.schedulers.shared.messages import Kind, encoded
from mpiabc.schedulers.wire import _FRAME, zlib
from tests.benchmarks.wide import problem


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
class Nobody:
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

    def Iprobe(self, source, tag, status):
        if self.coming:
            status.source, status.tag, content = self.coming[0]
            status.length = len(content)
        return bool(self.coming)

    def Recv(self, buffer, source, tag):
        buffer[0][:] = self.coming.popleft()[2]


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

    def greet(self):
        """All ranks come."""
        content = hello("rank 1 of many on node1", self.problem)
        ranks = range(1, self.comm.size)
        with self.spent("greeting of a rank", len(ranks)):
            for rank in ranks:
                self.says(rank, Kind.HELLO, content)
            self.engine.poll(0)

    def work(self, job, rounds):
        """Every rank has two leases, then brings one and gets another, `rounds` times."""
        ranks, next_id = self.comm.size - 1, 0
        with self.spent("a lease", 2 * ranks):
            for next_id in range(2 * ranks):
                self.engine.submit(Lease(job, next_id, next_id + 1))
        held = self.engine._crew
        answers = []
        for _ in range(rounds):
            for rank in range(1, ranks + 1):
                first = held.leases(rank)[0]
                answers.append((rank, encoded(Records(*first, np.full(1, Status.REJECTED, np.uint8)))))
            with self.spent("a report", ranks):
                for rank, (kind, content) in answers:
                    self.says(rank, kind, content)
                self.engine.poll(0)
            answers.clear()
            with self.spent("a lease anew", ranks):
                for _ in range(ranks):
                    next_id += 1
                    self.engine.submit(Lease(job, next_id, next_id + 1))
        cuts = np.linspace(next_id, next_id - ranks, 201)[1:].astype(int).tolist()
        with self.spent("a cut that falls", len(cuts)):
            for cut in cuts:
                self.engine.cancel(cut)

    def order(self, number, size):
        """An order of so many bytes, to whoever asks; each hundredth rank does so, as of a node."""
        nodes = range(1, self.comm.size, 100)
        job = Weighty(number, np.random.default_rng(number).integers(256, size=size, dtype=np.uint8))
        with self.spent(f"an order of {size / 1e6:g} MB", 1):
            self.engine.begin(job)
            for rank in nodes if size > 1000 else ():
                self.says(rank, Kind.MISSING, b"[%d, []]" % number)
            self.engine.poll(0)

    def close(self):
        with self.spent("the end", 1):
            self.engine.close(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--bytes", type=int, default=1_000_000)
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


if __name__ == "__main__":
    main()
