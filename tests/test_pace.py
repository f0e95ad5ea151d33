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
