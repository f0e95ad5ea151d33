"""Messages and the worker that obeys them: no transport, no clock."""

from dataclasses import dataclass

import numpy as np
import pytest

from mpiabc.records import Lease, Records, brought
from mpiabc.schedulers.base import Doubted, Lost, Said
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Cancel, Kind, Missing, answer_of, encoded, order_of
from mpiabc.schedulers.shared.worker import UNWANTED, Worker
from mpiabc.voice import Piece

LARGE = np.arange(5000.0)


@dataclass(frozen=True)
class Numbered:
    """A job whose records say who made them."""

    number: int
    data: np.ndarray = None
    text: str = ""

    def evaluator(self, shared=None, where=None, watch=None):
        payload = f"{self.number}{self.text}".encode()
        return lambda start, stop: brought(self.number, start, stop, payload, 0.0)


class Leader:
    """What an engine does about one worker that gets all of its parcels."""

    def __init__(self):
        self.jobs, self.sender = Jobs(), transfer.Sender()
        self.worker = Worker(lambda job: job.evaluator(), "here")

    def begin(self, number, beside=()):
        self.jobs.begin(Numbered(number, LARGE), beside)
        self.tell(self.jobs.sent_by(self.sender, number))

    def tell(self, order):
        self.worker.obey(order_of(*encoded(order)))


def returned(*lease):
    return Lost(Lease(*lease), "here", UNWANTED, is_returned=True)


def done(answers):
    return [(answer.lease, answer.payload) for answer in answers]


@pytest.mark.parametrize(
    "order", [Lease(1, 2, 3), Cancel(4, float("inf")), transfer.parcel(3, [("a", b"b")], [2])]
)
def test_orders_arrive_as_they_were_sent(order):
    assert order_of(*encoded(order)) == order


@pytest.mark.parametrize(
    "answer",
    [
        Lost(Lease(1, 2, 3), "rank 4", "it \udc80 died", culprit=2, kind="timeout", suspect=7),
        Doubted((Lease(1, 2, 3), Lease(1, 5, 6))),
        Missing(4),
        Missing(4, ("a part", "another")),
    ],
)
def test_answers_arrive_as_they_were_sent(answer):
    assert answer_of(*encoded(answer)) == answer


def test_records_and_words_arrive_and_are_of_who_is_known_to_the_leader():
    records = answer_of(*encoded(brought(1, 2, 4, b"it", 0.0)))
    assert (records.lease, records.payload) == (Lease(1, 2, 4), b"it")
    said = Said("a child", Piece("hello", False))
    assert answer_of(*encoded(said), "rank 3") == Said("rank 3", said.piece)
    assert answer_of(*encoded(returned(1, 2, 3)), "rank 3").worker == "rank 3"


def test_messages_of_another_kind_are_reported():
    for read in (order_of, answer_of):
        with pytest.raises(ValueError, match="of kind 21 is no"):
            read(Kind.BYE, b"")


def test_leases_are_evaluated_in_turn_and_what_is_not_wanted_comes_back_unevaluated():
    leader = Leader()
    leader.begin(5)
    for start in (0, 2, 4, 6):
        leader.tell(Lease(5, start, start + 2))
    worker = leader.worker
    assert done(worker.step()) == [(Lease(5, 0, 2), b"5")]
    leader.tell(Cancel(5, 4))
    assert worker.held == (Lease(5, 2, 4),)
    assert worker.step() == [returned(5, 4, 6), returned(5, 6, 8)]
    assert done(worker.step()) == [(Lease(5, 2, 4), b"5")]
    assert worker.is_idle
    assert worker.step() == []
    leader.tell(Cancel(5, 9))
    leader.tell(Lease(5, 4, 6))
    assert done(worker.step()) == [(Lease(5, 4, 6), b"5")]


def test_a_new_job_ends_the_old_ones_but_those_beside_it():
    leader = Leader()
    leader.begin(1)
    leader.tell(Lease(1, 0, 1))
    leader.begin(2, beside=[1])
    leader.tell(Lease(2, 7, 8))
    leader.tell(Cancel(2, 3))
    assert leader.worker.step() == [returned(2, 7, 8)]
    assert leader.worker.jobs == (1, 2)
    leader.tell(Lease(2, 2, 3))
    assert done(leader.worker.step()) == [(Lease(1, 0, 1), b"1")]
    leader.tell(Lease(1, 1, 2))
    leader.begin(3, beside=[2])
    assert leader.worker.step() == [returned(1, 1, 2)]
    assert done(leader.worker.step()) == [(Lease(2, 2, 3), b"2")]
    assert leader.worker.jobs == (2, 3)


def test_a_job_that_is_missing_is_asked_for_once_and_its_leases_wait():
    leader = Leader()
    leader.jobs.begin(Numbered(1, LARGE))
    for lease in (Lease(1, 0, 1), Lease(1, 1, 2)):
        leader.tell(lease)
    worker = leader.worker
    assert worker.step() == [Missing(1)]
    assert worker.is_idle
    assert worker.held == (Lease(1, 0, 1), Lease(1, 1, 2))
    leader.tell(leader.jobs.whole(1))
    assert done(worker.step() + worker.step()) == [(Lease(1, 0, 1), b"1"), (Lease(1, 1, 2), b"1")]


def test_leases_of_a_job_that_is_over_before_it_came_go_back():
    leader = Leader()
    leader.tell(Lease(1, 0, 1))
    assert leader.worker.step() == [Missing(1)]
    leader.jobs.begin(Numbered(2, LARGE))
    leader.tell(leader.jobs.whole(1))  # the newest one, in its place
    assert leader.worker.step() == [returned(1, 0, 1)]
    assert leader.worker.jobs == (2,)


def test_a_job_that_is_begun_again_has_no_cut_any_more():
    leader = Leader()
    leader.begin(1)
    leader.tell(Cancel(1, 0))
    leader.begin(1)
    leader.tell(Lease(1, 0, 1))
    assert done(leader.worker.step()) == [(Lease(1, 0, 1), b"1")]


def test_another_job_of_the_same_number_is_another_one():
    worker = Worker(lambda job: job.evaluator())
    for text in ("of one run", "of another"):
        job = Numbered(0, text=text)
        worker.obey(transfer.parcel(0, transfer.parts(job)))
        worker.obey(Lease(0, 0, 1))
        assert done(worker.step()) == [(Lease(0, 0, 1), f"0{text}".encode())]


def test_who_leaves_gives_all_back_and_takes_nothing():
    leader = Leader()
    leader.begin(1)
    leader.tell(Lease(1, 0, 1))
    leader.worker.leave()
    leader.tell(Lease(1, 1, 2))
    assert leader.worker.step() == [returned(1, 0, 1), returned(1, 1, 2)]
    assert leader.worker.next() is None


def test_large_parts_travel_once_to_who_has_them_of_any_open_job():
    sender, jobs = transfer.Sender(), Jobs()
    sizes = []
    for number, beside in [(0, []), (1, [0]), (2, [1]), (3, [])]:
        jobs.begin(Numbered(number, LARGE if number != 2 else None), beside)
        sizes.append(sum(map(len, jobs.sent_by(sender, number).new.values())))
    assert sizes[0] > LARGE.nbytes > 1000 > max(sizes[1:])
    assert sum(map(len, jobs.whole(3).new.values())) > LARGE.nbytes


def test_a_lease_is_wanted_below_the_cut_of_its_open_job():
    jobs = Jobs()
    assert not jobs.is_wanted(Lease(0, 0, 1))
    jobs.begin(Numbered(0))
    jobs.begin(Numbered(1), beside=[0])
    assert jobs.cancel(3, job=0) == (Cancel(0, 3), False)
    assert jobs.cancel(5, job=0) == (Cancel(0, 5), True)
    assert jobs.cancel(2) == (Cancel(1, 2), False)
    assert [jobs.is_wanted(Lease(*lease)) for lease in [(0, 4, 5), (0, 5, 6), (1, 1, 2), (1, 2, 3)]] == [
        True,
        False,
        True,
        False,
    ]


def test_evaluation_that_raises_leaves_the_others():
    def load(job):
        def evaluate(start, stop):
            if start == 0:
                raise RuntimeError("the pump broke")
            return brought(1, start, stop, b"", 0.0)

        return evaluate

    worker = Worker(load)
    worker.obey(transfer.parcel(1, transfer.parts(Numbered(1))))
    worker.obey(Lease(1, 0, 1))
    worker.obey(Lease(1, 1, 2))
    with pytest.raises(RuntimeError, match="pump"):
        worker.step()
    (records,) = worker.step()
    assert isinstance(records, Records)
    assert records.lease == Lease(1, 1, 2)
