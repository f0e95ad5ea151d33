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
