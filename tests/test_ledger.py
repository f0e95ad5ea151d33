"""The ledger comes to the same population whatever happens to leases."""

from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from mpiabc.evaluate import Level, evaluate
from mpiabc.ledger import BatchLedger, Ledger, SlotLedger, fatal
from mpiabc.mapping import Batch
from mpiabc.records import Failure, Lease, Records, Status, failed, pack, unpack
from mpiabc.streams import BLOCK, stream_key, stride_of
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import quick
from tests.test_torn_down import records as records_of


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


def test_leases_of_several_ids_of_which_parts_come_home_cover_each_id_once():
    """Their rest goes out again, and nothing that is out or known does; the first N acceptances win."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        accepted = set(np.flatnonzero(rng.random(1000) < 0.3).tolist())
        ledger, out = Ledger(0, 20), []
        held = np.zeros(1000, bool)  # out or known
        for _ in range(500):
            lease = ledger.lease(int(rng.integers(1, 12)))
            if lease is not None:
                assert not held[lease.start : lease.stop].any()
                held[lease.start : lease.stop] = True
                out.append(lease)
            if out and (lease is None or rng.random() < 0.6):
                lease = out.pop(int(rng.integers(len(out))))
                start, stop = np.sort(rng.integers(lease.start, lease.stop + 1, 2)).tolist()
                ledger.tell(records_of(start, stop, accepted))
                held[lease.start : start] = held[stop : lease.stop] = False
                ledger.give_back(lease.start, lease.stop)
            if ledger.complete:
                break
        assert ledger.population().ids.tolist() == sorted(accepted)[:20]
        assert ledger.counts() == (sorted(accepted)[19] + 1,) * 2


def test_what_goes_out_again_is_counted_as_often_as_it_goes_out():
    ledger = Ledger(0, 20)
    ledger.lease(50)
    ledger.give_back(0, 50)
    assert [ledger.lease(20)[1:], ledger.lease(40)[1:], ledger.lease(1)[1:]] == [(0, 20), (20, 50), (50, 51)]
    assert ledger.dispatched == 101


def test_one_id_that_is_known_is_left_out_of_what_goes_out_again():
    ledger = Ledger(0, 20)
    ledger.lease(20)
    ledger.tell(records_of(10, 11, set()))
    ledger.give_back(0, 20)
    assert [ledger.lease(100)[1:] for _ in range(2)] == [(0, 10), (11, 20)]


def test_what_comes_home_after_all_leaves_the_range_around_it_to_go_out():
    ledger = Ledger(0, 20)
    ledger.lease(50)
    ledger.give_back(0, 50)
    ledger.tell(records_of(10, 20, set()))
    ledger.tell(records_of(30, 40, set()))
    assert [ledger.lease(100)[1:] for _ in range(3)] == [(0, 10), (20, 30), (40, 50)]


def test_what_is_given_back_of_one_worker_leaves_the_leases_of_others_alone():
    ledger = Ledger(0, 20)
    leases = [ledger.lease(10) for _ in range(3)]
    ledger.give_back(leases[1].start, leases[1].stop)
    assert [ledger.lease(10)[1:] for _ in range(2)] == [(10, 20), (30, 40)]
    assert ledger.in_flight == 40


def test_steps_go_out_again_whole():
    ledger = Ledger(0, 20, step=8)
    ledger.lease(32)
    ledger.tell(records_of(0, 10, set()))
    ledger.give_back(0, 32)
    assert [ledger.lease(8)[1:] for _ in range(4)] == [(8, 16), (16, 24), (24, 32), (32, 40)]


def test_range_that_begins_at_a_failure_that_may_end_the_run_waits():
    ledger = Ledger(0, 20)
    ledger.lease(20)
    ledger.give_back(0, 20)
    assert ledger.lease(10, 10)[1:] == (0, 10)
    assert ledger.lease(10, 10) is None


def test_what_is_forgotten_goes_out_again_with_what_was_given_up_and_counts_once():
    """As do its failures."""
    ledger = Ledger(0, 3)
    for _ in range(3):
        ledger.lease(4)
    ledger.tell(records_of(0, 4, {1}))
    ledger.tell(failed(Failure(0, 4, {}, "it broke", ""), 5, 0))
    ledger.tell(records_of(5, 8, {5, 6}))
    assert (ledger.complete, ledger.cut, ledger.failed) == (True, 7, 1)
    ledger.forget(4, 8)
    assert (ledger.complete, ledger.cut, ledger.failed) == (False, np.inf, 0)
    assert (ledger.known, ledger.frontier) == (4, 4)
    assert ledger.lease(100)[1:] == (4, 12)
    ledger.tell(records_of(4, 8, {5, 6}))
    assert ledger.complete
    assert ledger.population().ids.tolist() == [1, 5, 6]


def test_what_is_forgotten_before_it_was_ever_handed_out_goes_out_once():
    ledger = Ledger(0, 3)
    ledger.lease(8)
    ledger.forget(4, 100)
    assert [ledger.lease(100)[1:] for _ in range(2)] == [(4, 8), (8, 108)]


def test_slots_that_are_forgotten_count_their_tries_once():
    ledger = SlotLedger(0, 4)
    ledger.lease(4)
    told = replace(records_of(0, 4, {0, 1, 2, 3}), tries=np.full((4, 2), 3))
    ledger.tell(told)
    ledger.forget(1, 2)
    assert ledger.counts() == (9, 9)
    ledger.tell(told)
    assert ledger.counts() == (12, 12)
    assert ledger.complete


def test_order_that_is_opened_again_has_both_numbers_and_hands_out_what_was_out():
    """Once, whether or not it was given back before."""
    ledger = Ledger(0, 20)
    for _ in range(2):
        ledger.lease(10)
    ledger.give_back(0, 10)
    ledger.reopen(7)
    assert [ledger.lease(100) for _ in range(2)] == [Lease(7, 0, 20), Lease(7, 20, 120)]
    assert all(ledger.has(Lease(number, 0, 10)) for number in (0, 7))


def test_no_id_goes_out_beyond_a_bound_and_one_outside_of_the_prior_is_no_simulation():
    ids, simulations = Ledger(0, 20, most_ids=10), Ledger(0, 20, most_simulations=10)
    for ledger in (ids, simulations):
        assert [ledger.lease(7), ledger.lease(7), ledger.lease(7)] == [Lease(0, 0, 7), Lease(0, 7, 10), None]
        ledger.tell(Records(0, 0, 4, np.full(4, Status.OUTSIDE, np.uint8)))
        ledger.tell(records_of(4, 10, {5}))
    assert (ids.exhausted, ids.end, ids.lease(7)) == ("acceptance_rate", 10, None)
    assert (simulations.exhausted, simulations.lease(7)) == (None, Lease(0, 10, 14))


def test_part_of_a_generation_ends_at_its_bound():
    ledger = Ledger(0, 20, most_ids=8)
    ledger.tell(records_of(0, 16, {1, 7, 8, 9}))
    assert ledger.exhausted == "acceptance_rate"
    assert ledger.partial().ids.tolist() == [1, 7]


def test_what_is_out_is_not_expected_to_be_needed_again():
    ledger = Ledger(0, 20)
    ledger.lease(10)
    ledger.tell(records_of(0, 10, {1, 3, 5, 7, 9}))
    assert ledger.expected == 15 / (6 / 12)
    ledger.lease(8)
    assert ledger.expected == 15 / (6 / 12) - 8


def test_failures_are_part_of_the_result_up_to_the_first_unknown_id_and_below_the_cut():
    ledger = Ledger(0, 1)
    broken = [Failure(0, index, {}, "it broke", "") for index in (1, 3)]
    for failure in broken:
        ledger.tell(failed(failure, failure.index + 1, 0))
    assert ledger.failures_below_cut() == []
    ledger.tell(records_of(0, 1, set()))
    assert ledger.failures_below_cut() == broken[:1]
    ledger.tell(records_of(2, 3, {2}))
    assert ledger.cut == 3
    assert ledger.failures_below_cut() == broken[:1]


@pytest.mark.parametrize(("allowed", "before", "last"), [(2, 0, 2), (2, 1, 1), (3, 0, None), (1, 5, 1)])
def test_the_failure_that_is_one_too_many_ends_the_run(allowed, before, last):
    ledger = Ledger(0, 20)
    broken = {index: Failure(0, index, {}, "it broke", "") for index in (1, 2)}
    ledger.tell(records_of(0, 1, set()))
    for failure in broken.values():
        ledger.tell(failed(failure, failure.index + 1, 0))
    assert fatal(ledger, allowed, before) == broken.get(last)


def test_sample_ends_at_the_cut():
    ledger = Ledger(0, 2, sample=10)
    ledger.tell(records_of(0, 8, {1, 3, 5}))
    assert ledger.sample().ids.tolist() == [1, 3]


@pytest.mark.parametrize("kind", [BatchLedger, SlotLedger])
def test_no_lease_goes_beyond_the_last_address_where_all_are_needed(kind):
    ledger = kind(0, 30)
    assert [ledger.lease(20), ledger.lease(20), ledger.lease(20)] == [Lease(0, 0, 20), Lease(0, 20, 30), None]
    assert (ledger.expected, ledger.dispatched) == (0, 30)


def test_slots_are_in_the_population_in_their_order_and_not_by_the_ids_of_their_tries():
    ledger = SlotLedger(0, 3)
    told = records_of(0, 3, {0, 1, 2})
    ids = np.array([0, 1, 2]) + stride_of(3, 1) * np.array([2, 0, 1])
    ledger.tell(replace(told, rows=replace(told.rows, ids=ids)))
    assert ledger.population().ids.tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("accepted", "most", "why"), [(4, 12, None), (4, 11, "simulations"), (3, 12, "simulations")]
)
def test_slots_may_use_as_many_simulations_as_are_allowed_and_none_may_give_up(accepted, most, why):
    ledger = SlotLedger(0, 4, most_simulations=most)
    ledger.tell(replace(records_of(0, 4, set(range(accepted))), tries=np.full((4, 2), 3)))
    assert ledger.exhausted == why
    assert ledger.complete == (why is None)


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
