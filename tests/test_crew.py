"""The crew: its quick answers are those of counting."""

import random

import pytest

from mpiabc.records import Lease
from mpiabc.schedulers.crew import Crew


class Counted:
    """The same by counting all members each time."""

    def __init__(self):
        self.generation, self.members = 0, {}

    def room(self, prefetch):
        return sum(self._room(*member, prefetch) for member in self.members.values())

    def _room(self, places, leases, prefetch):
        is_late = any(lease.job != self.generation for lease in leases)
        depth = 2 * places if prefetch and not is_late else places
        return max(0, depth - len(leases))


@pytest.mark.parametrize("seed", range(20))
def test_room_and_leases_are_those_of_counting(seed):
    """Through a thousand comings, goings, leases, answers and generations."""
    rng = random.Random(seed)
    crew, counted, next_id = Crew(), Counted(), 0
    crew.begin(0)
    for _ in range(1000):
        worker = rng.randrange(8)
        what = rng.choice(["join", "leave", "give", "give", "give", "take", "answer", "begin"])
        if what == "join":
            places = rng.randrange(4)
            crew.join(worker, places)
            counted.members[worker] = (places, counted.members.get(worker, (0, []))[1])
        elif what == "leave" and worker in crew:
            assert crew.leave(worker) == counted.members.pop(worker)[1]
        elif what == "give" and crew.room(True):
            lease = Lease(counted.generation, next_id, next_id + 1)
            next_id += 1
            places, leases = counted.members[crew.give(lease)]
            is_free = len(leases) < places
            assert is_free or not counted.room(False)
            assert is_free or counted._room(places, leases, True)
            leases.append(lease)
        elif what == "take" and worker in crew:
            _, leases = counted.members[worker]
            assert not crew.take(worker, Lease(9, 9, 9))
            if leases:
                lease = leases.pop(rng.randrange(len(leases)))
                assert crew.take(worker, lease)
        elif what == "answer" and worker in crew and counted.members[worker][1]:
            _, leases = counted.members[worker]
            lease = leases.pop(rng.randrange(len(leases)))
            assert crew.answered(worker, lease.job, -1) is None
            assert crew.answered(worker, lease.job, lease.start) == lease
        elif what == "begin" and rng.random() < 0.1:
            counted.generation += 1
            crew.begin(counted.generation)
        for prefetch in (False, True):
            assert crew.room(prefetch) == counted.room(prefetch)
        assert crew.places == sum(places for places, _ in counted.members.values())
        assert crew.busy() == sum(min(places, len(leases)) for places, leases in counted.members.values())
        assert sorted(crew.waiting()) == sorted(
            lease for places, leases in counted.members.values() for lease in leases[places:]
        )


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_finds_the_workers_that_hold_what_is_not_wanted_and_each_lease_once(seed):
    """As all members are found by looking at each, with those left out that were told of the same lease."""
    rng, crew, told = random.Random(seed), Crew(), set()
    crew.begin(0)
    for worker in range(20):
        crew.join(worker, 1)
    for id in range(40):
        crew.give(Lease(0, id, id + 1))
    for worker in rng.sample(range(20), 6):
        crew.take(worker, crew.leases(worker)[0])
    assert crew.above(0, job=1) == []
    for cut in sorted((rng.randrange(41) for _ in range(6)), reverse=True):
        each = {
            worker: [x for x in crew.ahead(worker) if x.start >= cut and x not in told] for worker in crew
        }
        assert sorted(crew.above(cut, 0)) == sorted(worker for worker, leases in each.items() if leases)
        told |= {lease for leases in each.values() for lease in leases}


def test_a_worker_with_fewer_places_hears_of_what_waits_now():
    """It was in work, for all that is known, and is behind another lease from then on."""
    crew = Crew()
    crew.begin(0)
    crew.join("a", 2)
    for id in range(2):
        crew.give(Lease(0, id, id + 1))
    assert crew.above(0, 0) == []
    crew.join("a", 1)
    assert crew.above(1, 0) == ["a"]
