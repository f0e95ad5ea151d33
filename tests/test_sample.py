"""The sample: the first simulated ids of a generation, accepted or not, whoever evaluates them."""

import math
from dataclasses import replace

import numpy as np
import pytest

import mpiabc
from mpiabc.adaptive import measure_of
from mpiabc.driver import Driver
from mpiabc.evaluate import Level, evaluate
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.particles import joined
from mpiabc.planner import Planner
from mpiabc.population import Past
from mpiabc.records import _LAYOUT, Status, pack, unpack
from mpiabc.store import Store
from mpiabc.streams import stream_key, stride_of
from tests import problems
from tests.cluster import Cluster, random_time

N, M, END = 12, 70, 150


def narrow(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal()}


PROBLEM = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), narrow, {"y": 1.0})


class Wide:
    """A proposal of which one draw in three lies outside of a prior on [-3, 3]."""

    def sample(self, n, rng):
        return rng.uniform(-4.5, 4.5, (n, 1))

    def logpdf(self, theta):
        return np.full(len(theta), -np.log(9))


INSIDE = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Uniform(-3, 3)), narrow, {"y": 1.0})


def order(is_static=False, epsilon=0.3, **options):
    given = {"sample": M, "sample_end": END} | options
    return Level(1, stream_key(3), epsilon, Wide(), N, is_static, **given)


def ledger(level):
    kind = SlotLedger if level.is_static else Ledger
    return kind(level.number, level.size, sample=level.sample, sample_end=level.sample_end)


def sampled(level, workers, **faults):
    """The sample of a level after a scripted schedule, and how many were accepted."""
    known = ledger(level)
    cluster = Cluster(workers, random_time, lambda job: job.evaluator(INSIDE), **faults)
    list(Driver(cluster, clock=cluster.clock).run(problems.OneOrder(level, known)))
    return known.sample(), known


def everything(stop):
    """All simulations of the ids below `stop`, as they are measured."""
    rows = evaluate(INSIDE, order(epsilon=math.inf, sample=0), 0, stop).rows
    return {int(id): (rows.theta[i, 0], rows.distances[i]) for i, id in enumerate(rows.ids)}


FAULTS = {"loss": 0.2, "duplicate": 0.3, "doubt": 0.1}


@pytest.mark.parametrize("workers", [1, 5, 40])
def test_the_sample_is_that_of_the_first_simulated_ids_whoever_evaluates_them(workers):
    sample, known = sampled(order(), workers, seed=workers, **FAULTS)
    all_of_them = everything(int(min(known.cut, END)))
    expected = sorted(all_of_them)[:M]
    assert sample.ids.tolist() == expected
    assert sample.theta[:, 0].tolist() == [all_of_them[id][0] for id in expected]
    assert sample.distances.tolist() == [all_of_them[id][1] for id in expected]
    assert (sample.distances > 0.3).any()


@pytest.mark.parametrize("workers", [1, 5])
def test_under_static_scheduling_it_is_that_of_the_first_slots(workers):
    stride = stride_of(N, 1)
    level = order(is_static=True, sample_end=9 * stride)
    sample, known = sampled(level, workers, seed=workers, **FAULTS)
    tries = {int(id % stride): int(id // stride) for id in known.population().ids}
    all_of_them = everything((max(tries.values()) + 1) * stride)
    turns = [(s, i) for s in sorted(tries) for i in range(min(tries[s] + 1, 9))]
    expected = [i * stride + s for s, i in turns if i * stride + s in all_of_them][:M]
    assert sample.ids.tolist() == expected


def test_a_sample_of_the_accepted_or_of_the_first_to_finish_would_be_noticed():
    sample, known = sampled(order(), 40, seed=1)
    accepted = known.population().ids
    by_arrival = joined([r.rejected for r in known._records if len(r.rejected)]).ids[:M]
    assert set(sample.ids.tolist()) not in (set(accepted.tolist()), set(by_arrival.tolist()))


def test_a_generation_that_is_smaller_than_the_sample_has_all_its_simulations():
    sample, known = sampled(order(epsilon=6.0), 3)
    assert len(sample) == known.simulations_below(known.cut) < M


def test_rows_of_rejected_ids_travel_only_where_they_are_wanted():
    plain, with_sample = (evaluate(INSIDE, order(sample=m), 0, 60) for m in (0, M))
    assert not len(plain.rejected)
    assert pack(plain)[:8] == _LAYOUT.to_bytes(8, "little", signed=True)
    assert pack(replace(with_sample, rejected=plain.rejected, seconds=plain.seconds)) == pack(plain)
    assert len(evaluate(INSIDE, order(), END, END + 60).rejected) == 0


@pytest.mark.parametrize("is_static", [False, True])
def test_they_are_packed_and_cut_like_all_rows(is_static):
    records = evaluate(INSIDE, order(is_static=is_static, sample_end=math.inf), 2, 12)
    again = unpack(pack(records))
    for name, column in records.rejected.columns().items():
        np.testing.assert_array_equal(getattr(again.rejected, name), column)
    some = again.only(np.arange(10) < 4)
    addresses = some.rejected.ids % records.stride if is_static else some.rejected.ids
    assert set(addresses.tolist()) <= {2, 3, 4, 5}
    assert len(some.rejected) < len(records.rejected)
    with pytest.raises(ValueError, match="does not fit"):
        unpack(pack(records)[:-8])


def test_a_ledger_that_forgets_a_range_forgets_its_rejected_rows():
    level = order()
    known = ledger(level)
    known.tell(evaluate(INSIDE, level, 0, 300))
    before = known.sample()
    known.forget(10, 30)
    assert not set(known.sample().ids.tolist()) & set(range(10, 30))
    known.tell(evaluate(INSIDE, level, 10, 30))
    assert known.sample().ids.tolist() == before.ids.tolist()
    assert (evaluate(INSIDE, level, 10, 30).status != Status.UNKNOWN).all()


def test_as_many_ids_are_asked_as_hold_the_sample():
    """Where one draw in fifty lies inside of the prior, fifty times as many."""
    problem = replace(PROBLEM, distance=mpiabc.PNorm(scale="std"))
    parts = problem.prior, mpiabc.Gaussian(), mpiabc.Listed([1.0, 0.5])
    planner = Planner(*parts, (1, 2), 100, False, measure=measure_of(problem))
    assert planner.next(Past()).order.sample_end == 4000
    rng = np.random.default_rng(1)
    last = problems.population(
        rng.normal(size=(100, 1)), np.full(100, 0.01), rng.random(100), rng.random((100, 1))
    )
    last = replace(last, evaluations=5000, simulations=100)
    assert planner.next(Past(last, sample=last)).order.sample_end == 200_000


def test_a_sample_stays_in_the_file_until_it_is_not_needed(tmp_path):
    sample = evaluate(INSIDE, order(), 0, 100).rejected
    with Store(tmp_path / "a.db") as store:
        store.start({"names": ["mu"]}, "")
        for t in range(3):
            population = replace(problems.population(*arrays(sample)), generation=t)
            store.commit(population, [], None, sample)
        assert [store.history().sample(t) is None for t in range(3)] == [True, False, False]
        kept = store.history().sample(2)
        assert kept.ids.tolist() == sample.ids.tolist()
        assert kept.summaries.tolist() == sample.summaries.tolist()
        store.take_back(2)
        assert store.history().sample(2) is None
        with store.transaction() as db:
            db.execute("UPDATE sample SET rows = substr(rows, 1, 80)")
        with pytest.raises(mpiabc.StoreError, match="the sample of generation 1"):
            store.history().sample(1)


def arrays(rows):
    return rows.theta, np.full(len(rows), 1 / len(rows)), rows.distances, rows.summaries
