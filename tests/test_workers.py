"""The table of workers: its quick answers are those of counting."""

import random

import pytest

from mpiabc.records import Lease
from mpiabc.schedulers.shared.workers import Workers


class Counted:
    """The same by counting all workers each time."""

    def __init__(self):
        self.generation, self.workers = 0, {}

    def room(self, prefetch):
        return sum(self._room(*one, prefetch) for one in self.workers.values())

    def _room(self, slots, leases, prefetch):
        is_late = any(lease.job != self.generation for lease in leases)
        depth = 2 * slots if prefetch and not is_late else slots
        return max(0, depth - len(leases))


@pytest.mark.parametrize("seed", range(20))
def test_room_and_leases_are_those_of_counting(seed):
    """Through a thousand comings, goings, leases, answers and generations."""
    rng = random.Random(seed)
    workers, counted, next_id = Workers(), Counted(), 0
    workers.begin(0)
    for _ in range(1000):
        worker = rng.randrange(8)
        what = rng.choice(["join", "leave", "give", "give", "give", "take", "answer", "begin"])
        if what == "join":
            slots = rng.randrange(4)
            workers.join(worker, slots)
            counted.workers[worker] = (slots, counted.workers.get(worker, (0, []))[1])
        elif what == "leave" and worker in workers:
            assert workers.leave(worker) == counted.workers.pop(worker)[1]
        elif what == "give" and workers.capacity(True):
            lease = Lease(counted.generation, next_id, next_id + 1)
            next_id += 1
            slots, leases = counted.workers[workers.assign(lease)]
            is_free = len(leases) < slots
            assert is_free or not counted.room(False)
            assert is_free or counted._room(slots, leases, True)
            leases.append(lease)
        elif what == "take" and worker in workers:
            _, leases = counted.workers[worker]
            assert not workers.complete(worker, Lease(9, 9, 9))
            if leases:
                lease = leases.pop(rng.randrange(len(leases)))
                assert workers.complete(worker, lease)
        elif what == "answer" and worker in workers and counted.workers[worker][1]:
            _, leases = counted.workers[worker]
            lease = leases.pop(rng.randrange(len(leases)))
            assert workers.answered(worker, lease.job, -1) is None
            assert workers.answered(worker, lease.job, lease.start) == lease
        elif what == "begin" and rng.random() < 0.1:
            counted.generation += 1
            workers.begin(counted.generation)
        for prefetch in (False, True):
            assert workers.capacity(prefetch) == counted.room(prefetch)
        assert workers.slots == sum(slots for slots, _ in counted.workers.values())
        assert workers.busy() == sum(min(slots, len(leases)) for slots, leases in counted.workers.values())
        assert sorted(workers.queued()) == sorted(
            lease for slots, leases in counted.workers.values() for lease in leases[slots:]
        )


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_finds_the_workers_that_hold_what_is_not_wanted_and_each_lease_once(seed):
    """As all workers are found by looking at each, without those to whom the same lease was sent."""
    rng, workers, reported = random.Random(seed), Workers(), set()
    workers.begin(0)
    for worker in range(20):
        workers.join(worker, 1)
    for id in range(40):
        workers.assign(Lease(0, id, id + 1))
    for worker in rng.sample(range(20), 6):
        workers.complete(worker, workers.leases(worker)[0])
    assert workers.above(0, job=1) == []
    for cut in sorted((rng.randrange(41) for _ in range(6)), reverse=True):
        each = {
            worker: [x for x in workers.ahead(worker) if x.start >= cut and x not in reported]
            for worker in workers
        }
        assert sorted(workers.above(cut, 0)) == sorted(worker for worker, leases in each.items() if leases)
        reported |= {lease for leases in each.values() for lease in leases}


def test_a_worker_with_fewer_places_hears_of_what_waits_now():
    """It was in work, for all that is known, and is behind another lease from then on."""
    workers = Workers()
    workers.begin(0)
    workers.join("a", 2)
    for id in range(2):
        workers.assign(Lease(0, id, id + 1))
    assert workers.above(0, 0) == []
    workers.join("a", 1)
    assert workers.above(1, 0) == ["a"]
