"""The ledger comes to the same population whatever happens to leases."""

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mpiabc.evaluate import Level, evaluate
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.mapping import Batch
from mpiabc.records import Status, pack, unpack
from mpiabc.streams import BLOCK, stream_key, stride_of
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import quick


def generation(problem, size=20, epsilon=1.0, **options):
    return Level(0, stream_key(7), epsilon, problem.prior, size, **options)


def fill(ledger, problem, order, start, stop):
    ledger.tell(evaluate(problem, order, start, stop))


def test_cut_is_one_past_the_nth_acceptance_in_id_order():
    problem = problems.problem()
    order = generation(problem)
    ledger = Ledger(0, 20)
    fill(ledger, problem, order, 100, 300)
    assert not ledger.complete
    assert ledger.frontier == 0
    fill(ledger, problem, order, 0, 100)
    status = evaluate(problem, order, 0, 300).status
    assert ledger.cut == np.flatnonzero(status == Status.ACCEPTED)[19] + 1
    assert ledger.complete
    assert ledger.population().ids.max() == ledger.cut - 1


def test_cut_only_falls_and_nothing_new_is_issued_once_n_acceptances_are_known():
    problem = problems.problem()
    order = generation(problem)
    ledger = Ledger(0, 20)
    leases = [ledger.lease(50) for _ in range(8)]
    cuts = []
    for lease in reversed(leases):
        fill(ledger, problem, order, lease.start, lease.stop)
        cuts.append(ledger.cut)
        assert (ledger.lease(10) is None) == (ledger.cut < np.inf)
    assert cuts == sorted(cuts, reverse=True)


def test_records_that_come_twice_or_in_overlapping_pieces_count_once():
    problem = problems.problem()
    order = generation(problem)
    once, often = Ledger(0, 20), Ledger(0, 20)
    fill(once, problem, order, 0, 300)
    for start, stop in [(0, 100), (50, 200), (0, 100), (150, 300), (0, 300)]:
        fill(often, problem, order, start, stop)
    assert once.counts() == often.counts()
    assert once.known == often.known == 300
    assert once.population().pack() == often.population().pack()


def _evaluated(is_static):
    """A ledger, and what gives it records: of ids, or of slots."""
    problem = problems.problem()
    order = generation(problem, 30, is_static=is_static)
    return (SlotLedger if is_static else Ledger)(0, 30), lambda start, stop: evaluate(
        problem, order, start, stop
    )


def _mapped():
    """A ledger of the map of a pool, and what gives it records, which have no rows."""
    function, items = (np.frombuffer(cloudpickle.dumps(it), np.uint8) for it in (abs, [(-1,)] * 30))
    return SlotLedger(0, 30), Batch(0, function, items, 30).evaluator()


_KINDS = {"ids": lambda: _evaluated(False), "slots": lambda: _evaluated(True), "map": _mapped}
_PIECES = some.lists(some.tuples(some.integers(0, 29), some.integers(1, 30)), max_size=8)


@pytest.mark.long
@pytest.mark.parametrize("kind", _KINDS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(pieces=_PIECES)
def test_of_overlapping_copies_of_a_lease_exactly_what_is_new_is_kept(kind, pieces):
    """Copies come home whole or in pieces, in any order: the rows are those of one report, in its order."""
    once, records = _KINDS[kind]()
    often, _ = _KINDS[kind]()
    once.tell(records(0, 30))
    known = np.zeros(30, bool)
    for start, length in [*pieces, (0, 30)]:
        stop = min(30, start + length)
        assert often.tell(records(start, stop)) == (not known[start:stop].all())
        known[start:stop] = True
        assert often.known == known.sum()
    assert often.complete == once.complete
    assert often.counts() == once.counts() if kind != "ids" else often.simulations == once.simulations
    if kind != "map":
        assert once.population().pack() == often.population().pack()


def test_records_of_another_generation_are_ignored():
    ledger = Ledger(1, 20)
    assert not ledger.tell(evaluate(problems.problem(), generation(problems.problem()), 0, 10))
    assert ledger.known == 0


def test_lost_leases_go_out_again_and_only_what_is_unknown():
    problem = problems.problem()
    order = generation(problem)
    ledger = Ledger(0, 20)
    lease = ledger.lease(50)
    fill(ledger, problem, order, 10, 20)
    ledger.give_back(lease.start, lease.stop)
    assert ledger.in_flight == 0
    assert [ledger.lease(100)[1:] for _ in range(2)] == [(0, 10), (20, 50)]


@pytest.mark.parametrize("vectorized", [False, True])
def test_simulation_budget_is_exhausted_at_the_same_place_on_every_schedule(vectorized):
    simulate = problems.gaussian_vectorized if vectorized else problems.gaussian
    problem = problems.problem(simulate, vectorized=vectorized)
    step = BLOCK if vectorized else 1
    needed = Ledger(0, 100, step=step)
    while not needed.complete:
        fill(needed, problem, generation(problem, 100), *needed.lease(64)[1:])
    used = needed.counts()[1]
    for budget, expected in [(used, None), (used - 1, "simulations")]:
        ledger = Ledger(0, 100, step=step, most_simulations=budget)
        while not ledger.complete and not ledger.exhausted:
            fill(ledger, problem, generation(problem, 100), *ledger.lease(7)[1:])
        assert ledger.exhausted == expected


def test_slots_are_complete_when_each_has_its_acceptance():
    problem = problems.problem()
    order = generation(problem, 300, is_static=True)
    whole, pieces = SlotLedger(0, 300), SlotLedger(0, 300)
    fill(whole, problem, order, 0, 300)
    for start, stop in [(200, 300), (0, 7), (7, 200), (100, 220)]:
        assert not pieces.complete or start == 100
        fill(pieces, problem, order, start, stop)
    assert whole.complete
    assert pieces.complete
    assert whole.counts() == pieces.counts()
    np.testing.assert_array_equal(whole.population().ids, pieces.population().ids)
    np.testing.assert_array_equal(np.sort(whole.population().ids % stride_of(300, 1)), np.arange(300))


def test_records_survive_the_wire():
    problem = problems.problem(on_error="reject", simulate=lambda theta, rng: 1 / 0)
    for records in (
        evaluate(problems.problem(), generation(problems.problem()), 3, 400),
        evaluate(problem, generation(problem), 0, 3),
        evaluate(problems.problem(), generation(problems.problem(), is_static=True), 5, 20),
    ):
        again = unpack(pack(records))
        assert again.lease == records.lease
        assert again.failures == records.failures
        assert again.rows.pack() == records.rows.pack()
        for name in ("status", "tries"):
            np.testing.assert_array_equal(getattr(again, name), getattr(records, name))
    with pytest.raises(ValueError, match="does not fit"):
        unpack(pack(records)[:-1])


@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("vectorized", quick([False, True], False))
def test_population_does_not_depend_on_completion_order_losses_or_duplicates(tmp_path, is_static, vectorized):
    """Hundreds of schedules of 1 to 40 workers in all: the first N acceptances by id win."""
    simulate = problems.gaussian_vectorized if vectorized else problems.gaussian
    sampler = problems.sampler(8, (3, 1.5), simulate=simulate, vectorized=vectorized)
    expected = None
    for seed in range(80):
        scheduler = Simulated(
            1 + seed % 40, random_time, is_static=is_static, seed=seed, loss=0.2, duplicate=0.2
        )
        history = sampler.run(tmp_path / "run.db", scheduler=scheduler, overwrite=True)
        expected = expected or problems.digests(history)
        assert problems.digests(history) == expected
