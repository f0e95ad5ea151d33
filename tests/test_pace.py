"""How large leases are."""

import numpy as np
import pytest

from mpiabc.driver.pace import Pace
from mpiabc.records import Records, Status


def paced(cost):
    """A pace that has learnt what an evaluation costs."""
    pace = Pace()
    pace.learn(Records(0, 0, 10, np.full(10, Status.REJECTED, np.uint8), seconds=10 * cost))
    return pace


@pytest.mark.parametrize(("workers", "size"), [(1, 50), (100, 50), (1000, 500), (10_000, 5000)])
def test_leases_grow_with_workers_so_that_the_leader_is_not_flooded(workers, size):
    """A twentieth of a second of work, or more where all of them together would say so too often."""
    assert paced(0.001).size(1e9, workers) == size


def test_leases_shrink_where_few_evaluations_are_needed():
    """Each worker has two of them then, and none is less than a twentieth of what it might be."""
    assert paced(0.001).size(1e6, 10_000) == 250
    assert paced(0.001).size(2000, 100) == 10
    assert paced(1.0).size(1e9, 1000) == 1


@pytest.mark.parametrize(("late", "size"), [(100, 800), (30, 800), (20, 50), (0, 50)])
def test_leases_grow_while_many_find_their_worker_without_any(late, size):
    """Up to sixteen times, and so does the time up to which workers hold one ahead; none shrinks again."""
    pace = paced(0.001)
    for _ in range(40):
        pace.give(late, 100, 50)
    for _ in range(40):
        pace.give(0, 100, 50)
    assert pace.size(1e9, 50) == size
    assert pace.is_quick(5 * size - 1)
    assert not pace.is_quick(5 * size)
    assert pace.size(0, 50) == 2  # the end has leases as short as ever
    assert pace.size(1e9, 400) == (1000 if size == 800 else 200)  # none grows beyond a second


@pytest.mark.parametrize(
    ("rounds", "size"), [([(7, 7)], 50), ([(8, 8)], 100), ([(-9, 4), (4, 4)], 100), ([(99, 1), (0, 7)], 50)]
)
def test_leases_grow_after_four_a_worker_and_no_round_counts_for_more_than_it_gave(rounds, size):
    pace = paced(0.001)
    for late, leases in rounds:
        pace.give(late, leases, 2)
    assert pace.size(1e9, 2) == size


def test_cost_follows_what_is_new_and_the_longest_lease_is_forgotten_slowly():
    pace = Pace()
    assert not pace.is_quick(1)
    for seconds in [10.0] + 200 * [0.1]:
        pace.learn(Records(0, 0, 1, np.full(1, Status.REJECTED, np.uint8), seconds=seconds))
    assert pace.cost == pytest.approx(0.1, rel=0.01)
    assert 1.0 < pace.longest < 2.0
