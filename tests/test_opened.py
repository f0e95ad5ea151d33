"""An order that is open gives out what is needed, where there is room, and no more."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mpiabc.driver.opened import Opened
from mpiabc.driver.pace import Pace
from mpiabc.ledger import Ledger
from mpiabc.records import Failure, Lease
from tests.test_messages import Numbered
from tests.test_torn_down import records as records_of


class Waiting:
    """An engine one of whose workers is at a straggler, with leases that wait behind it; another idles."""

    workers = 2

    def __init__(self, *waiting):
        self.leases, self.submitted, self.cuts = waiting, [], []

    def capacity(self, prefetch):
        return 1

    def submit(self, lease):
        self.submitted.append(lease)

    def waiting(self):
        return self.leases

    def cancel(self, cut):
        self.cuts.append(cut)


def opened(ledger, seconds=0.001, ends_at=np.inf):
    """An order with this ledger, whose evaluations take so long, and what feeds it."""
    pace = Pace()
    pace.learn(replace(records_of(0, 1, set()), seconds=seconds))
    return Opened(Numbered(0), ledger, SimpleNamespace(cut=ends_at), 0.0), pace


def test_what_a_lease_was_brought_back_without_goes_out_again_unless_a_failure_says_why():
    ledger = Ledger(0, 20)
    order, _ = opened(ledger)
    ledger.lease(10)
    told = records_of(0, 10, set()).only(np.arange(10) < 4)
    ledger.tell(told)
    order.take_back(replace(told, failures=(Failure(0, 4, {}, "it broke", ""),)))
    assert ledger.in_flight == 6
    order.take_back(told)
    assert ledger.lease(10)[1:] == (4, 10)


def test_lease_that_waits_is_copied_once_if_it_is_wanted_and_what_is_copied_is_counted():
    ledger = Ledger(0, 1)
    ledger.lease(12)
    ledger.tell(records_of(8, 9, {8}))
    order, pace = opened(ledger)
    engine = Waiting(Lease(0, 5, 8), Lease(0, 9, 10))
    for _ in range(3):
        order.feed(engine, pace)
    assert engine.submitted == [Lease(0, 5, 8)]
    assert ledger.dispatched == 12 + 3


def test_workers_learn_once_that_the_cut_has_fallen_and_that_a_failure_may_end_the_run():
    ledger, engine = Ledger(0, 1), Waiting()
    order, _ = opened(ledger)
    ledger.tell(records_of(8, 9, {8}))
    for order.failures.cut in (np.inf, np.inf, 5, np.inf):
        order.pass_cut_on(engine)
    assert engine.cuts == [9, 5, 9]


def test_nothing_goes_out_above_a_failure_that_may_end_the_run():
    ledger, engine = Ledger(0, 20), Waiting()
    order, pace = opened(ledger, ends_at=5)
    ledger.tell(records_of(5, 6, set()))
    ledger.give_back(0, 5)
    for _ in range(4):
        order.feed(engine, pace)
    assert all(lease.stop <= 5 for lease in engine.submitted)
    assert [lease.start for lease in engine.submitted] == sorted({lease.start for lease in engine.submitted})


@pytest.mark.parametrize(("seconds", "looks"), [(0.001, False), (0.1, True)])
def test_workers_look_ahead_where_evaluations_are_worth_it(seconds, looks):
    ledger = Ledger(0, 20)
    reaches = []
    ledger.look_ahead = reaches.append
    order, pace = opened(ledger, seconds)
    order.feed(Waiting(), pace)
    assert [reach > 0 for reach in reaches] == [looks]


def test_worker_that_idles_beside_the_one_of_this_process_has_not_come_late():
    """One of the two may be the core of this process, which waits for none."""
    order, pace = opened(Ledger(0, 1000))
    size = pace.size(1e9, 2)
    for _ in range(100):
        order.feed(engine := Waiting(), pace)
        assert engine.submitted
    assert pace.size(1e9, 2) == size
