"""keep="all": every simulation below the cuts stays, a budget leaves a partial one, all weigh together."""

import signal
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.analysis import pooled
from mpiabc.analysis.pooled import base_of, proposal_of
from mpiabc.ledger import Ledger
from mpiabc.priors.joint import drawn
from mpiabc.schedulers import Map
from mpiabc.simulations import COLUMNS
from mpiabc.store import database, schema, simulations
from tests import disks, problems
from tests.cluster import Simulated, random_time
from tests.conftest import environment
from tests.programs import digests, foreign

POOLED = "all simulations of a budget"  # keeps them anyway, and accepts all
NOT_KEPT = ("random delays", "looking ahead", "looking ahead, recycled", POOLED)
VARIANTS = [variant for variant in digests.VARIANTS if variant not in NOT_KEPT]


def keeping(variant):
    """A sampler of the programs that compare digests, which keeps all."""
    sampler = digests.VARIANTS[variant]()
    sampler.keep = "all"
    return sampler


def run(path, keep="all", scheduler="serial", n=100, **options):
    return problems.sampler(n=n, keep=keep).run(path, scheduler=scheduler, **options)


def contents(history):
    """All simulations, as bytes."""
    rows = history.simulations.rows()
    return {name: getattr(rows, name).tobytes() for name in COLUMNS}


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_populations_are_the_same_and_so_are_the_simulations_on_every_scheduler(variant, tmp_path):
    plain = digests.VARIANTS[variant]().run(tmp_path / "plain.db", scheduler="serial", generations=3)
    here = keeping(variant).run(tmp_path / "here.db", scheduler="serial", generations=3)
    there = keeping(variant).run(tmp_path / "there.db", scheduler=Simulated(7, random_time), generations=3)
    assert problems.digests(here) == problems.digests(there) == problems.digests(plain)
    assert contents(here) == contents(there)
    rows = here.simulations.rows()
    assert len(rows) == len(here.simulations) == sum(p.simulations for p in here)
    for population in here:
        new = population.ids >= population.first
        mine = rows.take((rows.level == population.generation) & rows.accepted)
        order = np.argsort(mine.ids)
        by_id = np.argsort(population.ids[new])
        assert np.array_equal(mine.ids[order], population.ids[new][by_id])
        assert np.array_equal(mine.theta[order], population.theta[new][by_id], equal_nan=True)
        assert np.array_equal(mine.summaries[order], population.summaries[new][by_id], equal_nan=True)


@pytest.mark.long
@pytest.mark.parametrize("variant", ["scalar", "batches", "scales", "integers and choices"])
def test_slots_keep_their_tries_up_to_the_acceptance(variant, tmp_path):
    one = keeping(variant).run(tmp_path / "one.db", scheduler=Map(map), generations=2)
    other = keeping(variant).run(
        tmp_path / "other.db", scheduler=Simulated(5, random_time, is_static=True), generations=2
    )
    assert contents(one) == contents(other)
    assert len(one.simulations) == sum(p.simulations for p in one)
    plain = digests.VARIANTS[variant]().run(tmp_path / "plain.db", scheduler=Map(map), generations=2)
    assert problems.digests(one) == problems.digests(plain)


def test_simulations_are_read_by_generation_by_column_and_as_a_table(tmp_path):
    history = run(tmp_path / "run.db", generations=2)
    kept = history.simulations
    assert [set(rows.level) for rows in kept] == [{0}, {1}]
    assert kept.tried == tuple(p.evaluations for p in history)
    assert np.array_equal(kept.theta, np.concatenate([rows.theta for rows in kept]))
    assert np.array_equal(kept[-1].ids, np.sort(kept[1].ids))
    assert np.array_equal(kept.distances, np.abs(kept.summaries[:, 0] - 1))
    assert np.array_equal(kept.accepted, kept.distances <= np.where(kept.level == 0, 3, 1.5))
    table = kept.to_dataframe()
    assert list(table) == ["mu", "distance", "generation", "id", "accepted"]
    assert np.array_equal(table["mu"], kept.theta[:, 0])
    with pytest.raises(IndexError, match="there are those of 2 generations"):
        kept[2]


@pytest.mark.parametrize(("most", "times"), [(1 << 28, 1), (0, 3)], ids=["once", "too many to keep"])
def test_columns_are_read_from_the_file_once_and_anew_where_that_has_changed(
    tmp_path, monkeypatch, most, times
):
    monkeypatch.setattr(simulations, "_MOST_KEPT", most)
    read, whole = [], simulations.whole_chunk
    monkeypatch.setattr(simulations, "whole_chunk", lambda t, *row: read.append(t) or whole(t, *row))
    kept = run(tmp_path / "run.db", generations=2).simulations
    theta, distances, _ = kept.theta, kept.distances, kept.summaries
    assert sorted(read) == sorted([0, 1] * times)
    assert np.array_equal(distances, np.concatenate([rows.distances for rows in kept]))
    assert np.array_equal(theta, np.concatenate([rows.theta for rows in kept]))
    run(tmp_path / "run.db", generations=3)
    assert set(kept.level) == {0, 1, 2}
    few = kept[2].take(np.arange(3))
    with closing(sqlite3.connect(kept.history.path)) as db, db:
        db.execute("DELETE FROM simulation WHERE generation = 2")
        schema.insert_simulations(db, 2, few)
    assert len(kept.theta) == len(theta) + 3


def test_simulations_are_read_while_the_run_goes_on(tmp_path):
    sampler, expected = problems.sampler(keep="all"), 0
    for population in sampler.sample(tmp_path / "run.db", scheduler="serial", generations=3):
        expected += population.simulations
        assert len(mpiabc.open(tmp_path / "run.db").simulations) == expected


def test_simulations_of_a_failed_run_are_there_when_it_has_gone_on(tmp_path):
    """The journal has rejected rows, too."""
    broken = []

    def simulate(theta, rng, *, id):
        if id in ((0, 120), (1, 120)) and id not in broken:
            broken.append(id)
            raise RuntimeError("the pump broke")
        return problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=simulate, keep="all")
    for _ in range(2):
        with pytest.raises(mpiabc.SimulatorError, match="the pump broke"):
            sampler.run(tmp_path / "run.db", scheduler="serial", generations=3)
        assert mpiabc.open(tmp_path / "run.db").partial is None  # its end depends on time
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=3)
    assert contents(history) == contents(run(tmp_path / "quiet.db", generations=3))


def test_a_kill_within_a_commit_leaves_the_simulations_of_the_generations_before_it(tmp_path):
    killed = disks.killed_in_commit('problems.sampler(keep="all")')
    job = disks.program(killed, environment(), tmp_path / "run.db")
    assert job.returncode == -signal.SIGKILL
    whole = run(tmp_path / "quiet.db")
    left = mpiabc.open(tmp_path / "run.db").simulations
    assert np.array_equal(left.ids, np.concatenate([whole.simulations[t].ids for t in (0, 1)]))
    assert contents(run(tmp_path / "run.db")) == contents(whole)


def test_what_lies_above_the_cut_would_depend_on_time(tmp_path, monkeypatch):
    """A mutant: all that came home."""
    monkeypatch.setattr(Ledger, "end", float("inf"))
    one, other = (
        run(tmp_path / f"{i}.db", scheduler=scheduler, generations=2)
        for i, scheduler in enumerate(["serial", Simulated(7, random_time)])
    )
    assert problems.digests(one) == problems.digests(other)
    assert contents(one) != contents(other)
    assert len(other.simulations) > sum(p.simulations for p in other)


def test_failures_and_rejections_without_data_are_ids_and_no_rows(tmp_path):
    def simulate(theta, rng):
        if rng.random() < 0.1:
            raise RuntimeError("the pump broke")
        return mpiabc.REJECT if rng.random() < 0.1 else problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=simulate, on_error="reject", keep="all")
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=2)
    population, rows = history[1], history.simulations[1]
    assert population.simulations - population.failures > len(rows) > 0.7 * population.simulations


def test_a_run_goes_on_with_what_it_keeps_and_with_nothing_else(tmp_path):
    run(tmp_path / "run.db", generations=1)
    with pytest.raises(mpiabc.StoreError, match="keep: 'all' there, None here"):
        run(tmp_path / "run.db", keep="accepted", generations=2)
    longer = run(tmp_path / "run.db", generations=2)
    assert contents(longer) == contents(run(tmp_path / "once.db", generations=2))
    bare = run(tmp_path / "run.db", keep="accepted", generations=1, overwrite=True)
    with pytest.raises(mpiabc.StoreError, match=r'keep=\'accepted\': a run with keep="all" keeps all'):
        _ = bare.simulations


def test_what_is_kept_is_said_beforehand(tmp_path, caplog):
    with caplog.at_level("INFO", logger="mpiabc"):
        history = run(tmp_path / "run.db", generations=1, simulations=5000)
    assert 'keep="all" takes 33 bytes a simulation: 5000 of them 0.165 MB' in caplog.text
    with closing(sqlite3.connect(history.path)) as db, db:
        ((size,),) = db.execute("SELECT sum(length(rows)) FROM simulation").fetchall()
    assert size == 33 * len(history.simulations)


def test_a_damaged_or_missing_chunk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mpiabc.simulations._CHUNK", 33 * 50)
    history = run(tmp_path / "run.db", generations=2)
    assert len(history.simulations[1]) == history[1].simulations > 100
    with closing(sqlite3.connect(history.path)) as db, db:
        db.execute("UPDATE simulation SET rows = zeroblob(33 * 50) WHERE generation = 1 AND chunk = 1")
    with pytest.raises(mpiabc.StoreError, match="chunk 1 of the simulations of generation 1"):
        history.simulations.rows()
    assert len(history.simulations[0]) == history[0].simulations
    with closing(sqlite3.connect(history.path)) as db, db:
        db.execute("DELETE FROM simulation WHERE generation = 1 AND chunk = 1")
    with pytest.raises(mpiabc.StoreError, match="chunk 1 of the simulations of generation 1 is missing"):
        history.simulations.rows()


def test_a_generation_and_its_simulations_are_written_together(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no space left")

    monkeypatch.setattr(database, "insert_simulations", fail)
    with pytest.raises(ValueError, match="no space left"):
        run(tmp_path / "run.db", generations=1)
    monkeypatch.undo()
    assert len(mpiabc.open(tmp_path / "run.db")) == 0
    again = run(tmp_path / "run.db", generations=1)
    assert contents(again) == contents(run(tmp_path / "quiet.db", generations=1))


def test_files_of_before_have_neither_and_go_on(tmp_path):
    run(tmp_path / "run.db", keep="accepted", generations=1)
    with closing(sqlite3.connect(tmp_path / "run.db")) as db, db:
        for table in ("simulation", "partial"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 6")
    old = mpiabc.open(tmp_path / "run.db")
    assert old.partial is None
    with pytest.raises(mpiabc.StoreError, match='a run with keep="all" keeps all'):
        _ = old.simulations
    longer = run(tmp_path / "run.db", keep="accepted", generations=3)
    assert problems.digests(longer) == problems.digests(run(tmp_path / "quiet.db", generations=3))


# What a budget has ended.


@pytest.mark.long
@pytest.mark.parametrize("variant", ["scalar", "batches", "recycled", "several models", "noise", "predictor"])
def test_what_a_budget_ends_inside_of_a_generation_is_the_same_everywhere(variant, tmp_path):
    whole = keeping(variant).run(tmp_path / "whole.db", scheduler="serial", generations=3)
    budget = whole[0].simulations + whole[1].simulations + whole[2].simulations // 2
    found = [
        keeping(variant).run(tmp_path / f"{i}.db", scheduler=scheduler, simulations=budget)
        for i, scheduler in enumerate(["serial", Simulated(7, random_time)])
    ]
    one, other = found
    partial, complete = one.partial, whole[2]
    assert partial.digest() == other.partial.digest()
    assert contents(one) == contents(other)
    assert len(one.simulations) == budget
    assert one.reason == "simulations"
    assert len(one) == partial.generation == 2
    assert partial.simulations == budget - whole[0].simulations - whole[1].simulations
    assert 1 <= len(partial) < len(complete)
    assert np.isclose(partial.weights.sum(), 1)
    assert set(zip(partial.level, partial.ids, strict=True)) < set(
        zip(complete.level, complete.ids, strict=True)
    )
    assert np.array_equal(partial.epsilon, complete.epsilon)
    again = keeping(variant).run(tmp_path / "0.db", scheduler="serial", generations=3)
    assert problems.digests(again) == problems.digests(whole)
    assert again.partial is None
    assert contents(again) == contents(whole)


def test_what_is_partial_is_kept_without_all_simulations_and_by_another_budget(tmp_path):
    history = run(tmp_path / "run.db", keep="accepted", simulations=600)
    partial = history.partial
    assert partial.first + partial.evaluations <= 600
    exact = problems.Posterior(stats.norm(0, 2), 1.0, partial.epsilon).evidence
    assert abs(partial.log_evidence - np.log(exact)) < 0.25
    fewer = run(tmp_path / "run.db", keep="accepted", simulations=500).partial
    assert fewer.simulations == 500 - sum(p.simulations for p in history)
    assert set(fewer.ids) < set(partial.ids)
    assert mpiabc.open(tmp_path / "run.db").partial.digest() == fewer.digest()


def test_an_acceptance_rate_that_is_not_met_leaves_what_was_accepted(tmp_path):
    found = [
        run(tmp_path / f"{i}.db", scheduler=scheduler, acceptance_rate=0.4)
        for i, scheduler in enumerate(["serial", Simulated(7, random_time)])
    ]
    assert [history.reason for history in found] == ["acceptance_rate"] * 2
    assert found[0].partial.digest() == found[1].partial.digest()
    assert found[0].partial.evaluations == 250


def test_slots_leave_nothing_partial(tmp_path):
    history = run(tmp_path / "run.db", scheduler=Map(map), simulations=600)
    assert history.reason == "simulations"
    assert history.partial is None


# All weigh together.


def edge(n=60, **options):
    """Target 2: mu ~ U(0, 4), y ~ N(mu, 1), y0 at the edge: many proposals lie outside of the support."""
    prior = mpiabc.Prior(mu=mpiabc.Uniform(0, 4))
    problem = mpiabc.Problem(prior, problems.gaussian_vectorized, {"y": 0.0}, vectorized=True)
    return mpiabc.ABCSMC(problem, n, threshold=mpiabc.Listed([3, 1.5, 0.8, 0.4]), seed=1, **options)


def test_weights_of_all_simulations_are_those_of_one_mixture(tmp_path):
    """Their sum is 1, and that of those within epsilon its evidence, for fixed proposals without bias."""
    sampler = edge(200, keep="all")
    history = sampler.run(tmp_path / "run.db", scheduler="serial")
    found = pooled.pooled(history, sampler.problem)
    weights, x = np.exp(found.log_weights), found.rows.theta
    q = [np.full(len(x), 0.25)]
    q += [np.exp(proposal_of(history, sampler.problem, t, base_of(history, t)).logpdf(x)) for t in (1, 2, 3)]
    expected = 0.25 / np.einsum("t,tn->n", history.simulations.tried, q)
    # But for the component that a row has brought:
    assert np.quantile(np.abs(weights / expected - 1), 0.95) < 0.05
    assert abs(weights.sum() - 1) < 0.05
    evidence = stats.norm.cdf(0.4 - np.linspace(0, 4, 4001)) - stats.norm.cdf(-0.4 - np.linspace(0, 4, 4001))
    near = found.distances <= 0.4
    assert abs(weights[near].sum() / evidence.mean() - 1) < 0.15
    # Mutants: without the prior's share; without the ids outside of the support.
    tried = history.simulations.tried
    no_prior = 0.25 / np.einsum("t,tn->n", tried[1:], q[1:])
    assert no_prior.sum() > 1.1
    inside = 0.25 / np.einsum("t,tn->n", [p.simulations for p in history], q)
    assert inside.sum() > 1.1


def test_a_row_leaves_out_the_component_that_it_has_brought(tmp_path, monkeypatch):
    """In eight dimensions that is what makes the evidence right: with it, it is 8 % too small."""
    d, names = 8, [f"x{i}" for i in range(8)]

    def simulate(theta, rng):
        return {name: theta[name] + rng.standard_normal(theta[name].shape) for name in names}

    problem = mpiabc.Problem(
        mpiabc.Prior(**{name: mpiabc.Normal(0, 2) for name in names}),
        simulate,
        dict.fromkeys(names, 1.0),
        distance=mpiabc.PNorm(p=np.inf),
        vectorized=True,
    )
    sampler = mpiabc.ABCSMC(problem, 200, threshold=mpiabc.Quantile(0.5), seed=0, keep="all")
    history = sampler.run(tmp_path / "run.db", scheduler="serial", simulations=6000)
    own = pooled._centres

    def evidence():
        found = pooled.pooled(history, problem)
        near = found.distances <= 3
        exact = stats.norm.cdf(4 / 5**0.5) - stats.norm.cdf(-2 / 5**0.5)
        return np.exp(found.log_weights).sum(), np.exp(found.log_weights[near]).sum() / exact**d

    assert np.allclose(evidence(), 1, atol=[0.01, 0.06])
    monkeypatch.setattr(pooled, "_centres", lambda rows, base: tuple(part[:0] for part in own(rows, base)))
    total, near = evidence()
    assert total < 0.99
    assert near < 0.97


@pytest.mark.parametrize(
    "variant",
    [
        "vectorized",
        "several models",
        "integers and choices",
        "recycled",
        "recycled, several models",
        "sizes",
        "scales",
        "several distances",
    ],
)
def test_all_kinds_of_proposals_are_weighted_together(variant, tmp_path):
    sampler = keeping(variant)
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=4)
    found = pooled.pooled(history, sampler.problem)
    assert abs(np.exp(found.log_weights).sum() - 1) < 0.1
    last = history[-1]
    new = last.ids >= last.first
    at = np.flatnonzero(found.rows.accepted & (found.rows.level == last.generation))
    log_prior = sampler.problem.prior.logpdf(drawn(sampler.problem.prior, found.rows.take(at)))
    order = np.argsort(found.rows.ids[at]), np.argsort(last.ids[new])
    mixture = (log_prior - found.log_weights[at])[order[0]]
    own = (log_prior[order[0]] - last.log_weights[new][order[1]]) + np.log(last.evaluations)
    assert (mixture >= own - 1e-9).all()  # the mixture has the own level's proposal, and others


def test_noise_weighs_all_by_the_density_at_temperature_1(tmp_path):
    """Target 3: the posterior is conjugate, with noise of both."""
    problem = problems.problem(problems.gaussian_vectorized, vectorized=True)
    noise = mpiabc.Noise(mpiabc.noise.Normal(sd=0.5), steps=3)
    sampler = mpiabc.ABCSMC(problem, 200, acceptor=noise, seed=1, keep="all")
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=3)
    found = pooled.pooled(history, problem)
    weights = np.exp(found.log_weights)
    evidence = stats.norm.pdf(1.0, 0, np.sqrt(4 + 1 + 0.25))
    assert abs(weights.sum() / evidence - 1) < 0.06
    mean = weights @ found.rows.theta[:, 0] / weights.sum()
    assert abs(mean - 4 / 5.25) < 0.12


def test_an_adaptive_distance_measures_all_by_its_last_scale(tmp_path):
    sampler = keeping("scales")
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=3)
    found = pooled.pooled(history, sampler.problem)
    last = found.rows.level == 2
    assert np.array_equal(found.distances[last], found.rows.distances[last])
    assert not np.array_equal(found.distances[~last], found.rows.distances[~last])


def test_what_a_budget_ended_weighs_with_the_others(tmp_path):
    sampler = edge(200, keep="all")
    whole = sampler.run(tmp_path / "whole.db", scheduler="serial", generations=3)
    budget = sum(p.simulations for p in whole) + 150
    history = sampler.run(tmp_path / "run.db", scheduler="serial", simulations=budget)
    found = pooled.pooled(history, sampler.problem)
    assert len(found.rows) == budget
    assert history.simulations.tried[-1] == history.partial.evaluations > 150
    assert abs(np.exp(found.log_weights).sum() - 1) < 0.05


def two_of_them(theta, rng):
    return {name: theta[name] + rng.standard_normal(theta[name].shape) for name in ("mu", "nu")}


def conjugate(**options):
    """mu, nu ~ N(0, 2^2), and a number N(mu, 1), N(nu, 1) of each: means of .8, deviations of .894."""
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2), nu=mpiabc.Normal(0, 2))
    problem = mpiabc.Problem(prior, two_of_them, {"mu": 1.0, "nu": 1.0}, vectorized=True)
    return mpiabc.ABCSMC(problem, 100, seed=1, keep="all", **options)


def test_a_posterior_is_made_of_all_simulations_and_the_same_everywhere(tmp_path):
    here = conjugate().run(tmp_path / "here.db", scheduler="serial", simulations=3000)
    posterior = here.posterior()
    assert np.allclose(posterior.mean(), 0.8, atol=0.12)
    assert np.allclose(posterior.std(), 0.8**0.5, atol=0.12)
    assert here.partial is not None
    there = conjugate().run(tmp_path / "there.db", scheduler=Simulated(3, random_time), generations=1)
    there = conjugate().run(there.path, scheduler="serial", simulations=3000)
    one, other = here.simulations.weighted(), there.simulations.weighted()
    for name in ("theta", "log_weights", "distances", "summaries"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert len(one.log_weights) == 3000


def test_a_file_alone_has_no_prior_to_weigh_by(tmp_path):
    sampler = conjugate()
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=2)
    alone = mpiabc.open(history.path)
    with pytest.raises(mpiabc.ProblemError, match=r"need the prior's density: give problem=problem, or"):
        alone.posterior()
    found = alone.simulations.weighted(sampler.problem)
    assert np.array_equal(found.log_weights, history.simulations.weighted().log_weights)
    assert alone.posterior(1).names == ("mu", "nu")


def test_simulations_that_are_not_adjusted_are_as_many_as_a_population_needs(tmp_path):
    """Of integers, too: what is far from the data is left out."""
    history = keeping("integers and choices").run(tmp_path / "run.db", scheduler="serial", generations=3)
    found, posterior = history.simulations.weighted(), history.posterior()
    assert len(found.log_weights) > 150
    prior_of_k = np.full(4, 0.25)
    shares = {int(cell.values[0]): 0.0 for cell in posterior.cells}
    for cell in posterior.cells:
        shares[int(cell.values[0])] += cell.share
    weights = np.exp(found.log_weights - found.log_weights.max())
    order = np.argsort(found.distances, kind="stable")
    ess = np.cumsum(weights[order]) ** 2 / np.cumsum(weights[order] ** 2)
    near = order[: int(np.argmax(ess >= 40)) + 1]
    expected = np.bincount(found.theta[near, 1].astype(int), weights[near], minlength=4)
    assert np.allclose([shares.get(k, 0.0) for k in range(4)], expected / expected.sum())
    assert not np.allclose(expected / expected.sum(), prior_of_k, atol=0.02)


class Flat(mpiabc.Prior):
    """A prior that promises nothing."""

    is_normalised = False


def test_densities_that_may_not_be_normalised_are_not_pooled(tmp_path):
    sampler = problems.sampler(kernel=foreign.Student(), keep="all")
    history = sampler.run(tmp_path / "kernel.db", scheduler="serial", generations=2)
    with pytest.raises(mpiabc.ProblemError, match=r"kernel=.*Student.* is not of mpiabc"):
        pooled.pooled(history, sampler.problem)
    problem = replace(problems.problem(), prior=Flat(mu=mpiabc.Normal(0, 2)))
    sampler = mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Listed([3, 2]), seed=1, keep="all")
    history = sampler.run(tmp_path / "prior.db", scheduler="serial", generations=2)
    with pytest.raises(mpiabc.ProblemError, match=r"prior=Prior.* does not say"):
        pooled.pooled(history, problem)
