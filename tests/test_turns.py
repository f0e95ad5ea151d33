"""Rank 0 with a thousand ranks: in a turn it does a bounded part of what there is, and all in the end."""

import json
import zlib
from collections import Counter, deque
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from mpiabc.errors import ProblemError
from mpiabc.records import Lease, Records, Status
from mpiabc.schedulers.base import Lost
from mpiabc.schedulers.mpi import leader, nearby, sending
from mpiabc.schedulers.mpi.greeting import hello
from mpiabc.schedulers.mpi.outgoing import TURN, Outgoing
from mpiabc.schedulers.shared.messages import Cancel, Kind, Missing, encoded, order_of
from mpiabc.schedulers.together import Together
from mpiabc.schedulers.wire import _FRAME
from tests import problems
from tests.heard import Heard

TURNS = 4
RANKS = TURNS * TURN


class Library:
    """What is asked of mpi4py.MPI."""

    BYTE, ANY_SOURCE, ANY_TAG = 0, -1, -1
    Exception = OSError

    class Status(SimpleNamespace):
        def Get_count(self, _):
            return self.length


class Communicator(Heard):
    """Keeps what is sent, by rank; what the ranks say is put into `coming`."""

    rank, size = 0, RANKS + 1

    def __init__(self):
        self.sent, self.coming = {rank: [] for rank in range(1, self.size)}, deque()

    def Isend(self, buffer, dest, tag):
        self.sent[dest].append((Kind(tag), bytes(buffer[0][_FRAME.size :])))
        return SimpleNamespace(Test=lambda: True)

    def kinds(self):
        """How many of each have been sent, WELCOMEs aside."""
        return Counter(kind for sent in self.sent.values() for kind, _ in sent if kind != Kind.WELCOME)


@dataclass(frozen=True)
class Job:
    number: int
    content: bytes = b""


class Leading:
    """Rank 0's engine, and what ranks say to it."""

    def __init__(self):
        self.comm, self.problem = Communicator(), problems.sampler().problem
        self.engine = leader.Ranks(self.comm, self.problem)
        self.greeting = hello("a rank", self.problem)

    def greets(self, rank):
        """The rank has come."""
        self.says(rank, Kind.HELLO, self.greeting)

    def says(self, rank, kind, content):
        """The rank has sent this."""
        head = _FRAME.pack(self.engine.number, zlib.crc32(content))
        self.comm.coming.append((rank, kind, head + content))

    def all_greet(self):
        """All ranks have come."""
        for rank in range(1, RANKS + 1):
            self.greets(rank)
        while self.comm.coming:
            self.engine.poll(0)

    def gives(self, job, n):
        """So many leases of a job have gone out."""
        for id in range(n):
            self.engine.submit(Lease(job, id, id + 1))

    def news(self):
        """Kinds and counts of messages of this turn."""
        before = self.comm.kinds()
        self.engine.poll(0)
        return self.comm.kinds() - before


@pytest.fixture
def leading(monkeypatch, tmp_path):
    monkeypatch.setattr(leader, "load_mpi", lambda: Library)
    monkeypatch.setattr(nearby, "_memory", lambda: tmp_path)
    return Leading()


def test_a_flood_of_greetings_is_read_a_part_in_each_turn(leading):
    """All ranks have come in the end."""
    for rank in range(1, RANKS + 1):
        leading.greets(rank)
    for turn in range(1, TURNS + 1):
        assert leading.engine.poll(0) == []
        assert len(leading.engine._workers) == turn * TURN


def test_a_flood_of_reports_is_read_a_part_in_each_turn(leading):
    """Each comes home once."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    leading.gives(0, RANKS)
    for rank in leading.engine._workers:
        ((_, start, stop),) = leading.engine._workers.leases(rank)
        leading.says(rank, *encoded(Records(0, start, stop, np.full(1, Status.REJECTED, np.uint8))))
    came = [leading.engine.poll(0) for _ in range(TURNS + 1)]
    assert [len(reports) for reports in came] == [TURN] * TURNS + [0]
    assert sorted(report.start for reports in came for report in reports) == list(range(RANKS))
    assert leading.engine.busy() == 0


def test_leases_go_out_a_part_in_each_turn(leading):
    """An engine says what it would take before it is polled again."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    for turn in range(TURNS):
        assert leading.engine.capacity(False) == TURN, turn
        leading.gives(0, TURN)
        assert leading.engine.capacity(False) == leading.engine.capacity(True) == 0
        leading.engine.poll(0)
    assert (leading.engine.capacity(False), leading.engine.capacity(True)) == (0, TURN)


def test_an_order_goes_out_a_part_in_each_turn_and_before_its_leases(leading):
    """A rank that is given a lease meanwhile has the order first, and each rank has it once."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    assert leading.comm.kinds() == {Kind.JOB: TURN}
    leading.gives(0, 50)
    assert leading.comm.kinds() == {Kind.JOB: TURN, Kind.LEASE: 50}
    leading.engine.poll(0)
    leading.gives(0, RANKS - 50)  # which nobody waits for a turn with
    while leading.news():
        pass
    kinds = [[kind for kind, _ in sent] for sent in leading.comm.sent.values()]
    assert kinds == [[Kind.WELCOME, Kind.JOB, Kind.LEASE]] * RANKS


def test_a_cut_goes_to_those_that_hold_what_lies_above_a_part_in_each_turn(leading):
    """All have heard of it in the end, once, and nobody else has."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    leading.gives(0, 2 * RANKS)  # the second half waits behind the first one
    while leading.news():
        pass
    before = leading.comm.kinds()
    above = RANKS + 2 * TURN
    leading.engine.cancel(above)
    counts = [(leading.comm.kinds() - before)[Kind.CANCEL]]
    while counts[-1] and len(counts) < 10:
        counts.append(leading.news()[Kind.CANCEL])
    assert max(counts) <= TURN
    assert sum(counts) == 2 * TURN
    for sent in leading.comm.sent.values():
        held = [order_of(kind, content) for kind, content in sent if kind == Kind.LEASE]
        heard = [order_of(kind, content) for kind, content in sent if kind == Kind.CANCEL]
        assert heard == [Cancel(0, above)] * any(lease.start >= above for lease in held)


def test_what_is_closed_needs_no_cut(leading):
    """The next order says it as well, to each rank, and nothing is sent twice."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    leading.gives(0, 2 * RANKS)
    leading.engine.poll(0)
    leading.engine.cancel(0)
    leading.engine.begin(Job(1))
    while leading.news():
        pass
    assert leading.comm.kinds() == {Kind.JOB: 2 * RANKS, Kind.LEASE: 2 * RANKS, Kind.CANCEL: TURN}


def test_what_is_closed_by_an_order_that_is_asked_for_is_cut(leading, monkeypatch):
    """Ranks whose leases wait would begin them else: nothing is sent to them with the order."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    leading.gives(0, 2 * RANKS)
    while leading.news():
        pass
    leading.engine.cancel(0)
    monkeypatch.setattr(sending, "_AT_ONCE", 0)
    leading.engine.begin(Job(1))
    while leading.news():
        pass
    cut = {rank for rank, sent in leading.comm.sent.items() if encoded(Cancel(0, 0)) in sent}
    assert cut == set(leading.comm.sent)
    assert leading.comm.kinds()[Kind.JOB] == RANKS


def test_a_cut_that_rises_goes_to_all_a_part_in_each_turn(leading):
    """What lay above it before may be given out again."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    while leading.news():
        pass
    leading.engine.cancel(10)
    assert leading.comm.kinds()[Kind.CANCEL] == 0
    leading.engine.cancel(20)
    assert leading.comm.kinds()[Kind.CANCEL] == TURN
    assert [leading.news()[Kind.CANCEL] for _ in range(TURNS)] == [TURN] * (TURNS - 1) + [0]
    assert all(sent[-1] == encoded(Cancel(0, 20)) for sent in leading.comm.sent.values())


def test_ranks_that_failed_are_answered_by_the_next_cut(leading):
    """They wait for it, wherever it lies."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    while leading.news():
        pass
    leading.engine._sending.unanswered |= {3, 5, RANKS + 9}
    leading.engine.cancel(7)
    leading.engine.poll(0)
    heard = [rank for rank, sent in leading.comm.sent.items() if sent[-1] == encoded(Cancel(0, 7))]
    assert heard == [3, 5]


def test_a_job_that_is_kept_beside_a_newer_one_is_sent_to_who_lacks_it(leading, monkeypatch):
    """It names, and is given by, those that are open now: an order older than the newest stays to be had."""
    monkeypatch.setattr(sending, "_AT_ONCE", 0)
    leading.all_greet()
    for number, beside in ((0, ()), (1, (0,)), (2, (1,))):
        leading.engine.begin(Job(number, b"%d" % number), beside)
    shelf = leading.engine._sending._shelf
    for asked, gets, others in ((1, 1, (2,)), (2, 2, (1,)), (0, 2, (1,))):
        leading.says(4, *encoded(Missing(asked)))
        leading.engine.poll(0)
        parcel = order_of(*leading.comm.sent[4][-1])
        assert (parcel.number, parcel.beside) == (gets, others)
        assert set(parcel.names) == set(parcel.new)
    kept = {number: shelf.get(number) for number in range(3)}
    assert kept[0] is None
    assert order_of(Kind.JOB, kept[1])[:2] == (1, (0,))  # as it was when it was put there
    assert order_of(Kind.JOB, kept[2])[:2] == (2, (1,))


def test_the_end_comes_at_once_and_last(leading):
    """What ranks have not got yet, they do not need."""
    leading.all_greet()
    leading.engine.begin(Job(0))
    leading.engine.close(0)
    assert all(sent[-1] == (Kind.STOP, b"\0") for sent in leading.comm.sent.values())
    assert leading.comm.kinds() == {Kind.JOB: TURN, Kind.STOP: RANKS}


def test_who_says_what_rank_0_would_say_is_let_in_and_others_are_looked_at(leading):
    """As nearly all do; a part that differs is named."""
    mine = json.loads(hello("rank 3 of 9 on n", leading.problem))
    expected = leading.engine._expected
    assert expected.checked(json.dumps(mine).encode(), 3) == mine["where"]
    other = mine | {"parts": mine["parts"] | {"prior": "another"}}
    with pytest.raises(ProblemError, match="built another problem than rank 0: its prior differ"):
        expected.checked(json.dumps(other).encode(), 3)


def test_each_rank_that_dies_is_one_worker_less(leading):
    """Whether it had greeted or not."""
    leading.all_greet()
    assert leading.engine.workers == RANKS
    leading.engine._attendance.bury(4)
    leading.engine._attendance.bury(4)
    assert leading.engine.workers == RANKS - 1


def test_newer_messages_to_a_rank_come_after_older_ones():
    """Whatever waits for later turns."""
    posted = []
    wire = SimpleNamespace(
        framed=bytes,
        post=lambda rank, kind, framed: posted.append((rank, framed)),
        send=lambda rank, kind, content: posted.append((rank, content)),
    )
    outgoing = Outgoing(wire)
    for content in (b"first", b"second"):
        outgoing.spread(range(RANKS), Kind.JOB, content)
    outgoing.send(RANKS - 1, Kind.LEASE, b"lease")
    while outgoing.left < TURN:
        outgoing.turn()
    for rank in range(RANKS):
        lease = [b"lease"] * (rank == RANKS - 1)
        assert [content for to, content in posted if to == rank] == [b"first", b"second", *lease]


class Roomy:
    """An engine that takes a lease ahead after it was polled."""

    workers = ahead = 0

    def capacity(self, prefetch):
        return self.ahead * prefetch

    def poll(self, timeout):
        self.ahead = 1
        return []


def test_who_would_take_more_leases_ahead_is_given_them_at_once():
    """Rather than when a report comes, which may be long after."""
    roomy, late = Roomy(), SimpleNamespace(capacity=lambda prefetch: 0, poll=lambda timeout: [Lost])
    assert Together([roomy, late]).poll(10.0) == []
    assert Together([roomy, late]).poll(10.0) == [Lost]
