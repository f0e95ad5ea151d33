"""Sizes of populations, and the stops and thresholds that a run may be given later."""

import json
import math
from datetime import timedelta

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import sizes, stopping
from mpiabc.cli.settings import read_settings
from mpiabc.order import kept, restored
from mpiabc.planner import Planner
from mpiabc.population import Past
from mpiabc.streams import stream_key
from tests import problems
from tests.cluster import Simulated, random_time
from tests.test_parts import population

FALLING = mpiabc.Listed([3, 1.5, 0.8, 0.4])


class Halves:
    """A size of one's own."""

    def __init__(self, first=80):
        self.first = first

    def size(self, generation, previous):
        return self.first if previous is None else max(10, len(previous) // 2)


def ran(path, size, scheduler="serial", threshold=FALLING, recycle=None, **rules):
    abc = mpiabc.ABCSMC(problems.problem(), size, threshold=threshold, seed=1, recycle=recycle)
    return abc.run(path, scheduler=scheduler, **rules)


def lengths(history):
    return [len(p) for p in history]


def test_sizes_are_listed_and_the_last_one_goes_on(tmp_path):
    history = ran(tmp_path / "run.db", [60, 40, np.int64(30)])
    assert lengths(history) == [60, 40, 30, 30]
    assert history.settings["population_size"] == [60, 40, 30]


def test_list_of_one_size_is_that_size(tmp_path):
    """Bit for bit: a size enters nothing but where a generation ends."""
    one, other = ran(tmp_path / "a.db", [50]), ran(tmp_path / "b.db", 50)
    assert problems.digests(one) == problems.digests(other)


def test_size_by_ess_is_n_times_aim_over_ess_within_bounds():
    rule = sizes.ESS(100, low=50, high=180)
    weights = np.r_[np.full(50, 0.018), np.full(50, 0.002)]
    before = population(100, 1)
    before = problems.population(before.theta, weights, before.distances, before.summaries)
    assert before.ess == pytest.approx(1 / (50 * 0.018**2 + 50 * 0.002**2)) == pytest.approx(60.97, abs=0.01)
    assert rule.size(0, None) == 100
    assert rule.size(1, before) == 164  # 100 * 100 / 60.97 = 164.0 - 1e-14
    assert sizes.ESS(200, high=180).size(1, before) == 180
    assert sizes.ESS(20, low=50).size(1, before) == 50


def test_effective_sample_sizes_come_out_as_aimed_at(tmp_path):
    history = ran(tmp_path / "run.db", sizes.ESS(200))
    assert all(
        abs(p.ess - 200) < 30 for p in history
    )  # the last generations lose more of it than those before


def test_variation_of_a_density_estimate_is_what_bootstraps_come_to():
    """Of counts that are drawn, as in the paper, with the same kernels: 4000 draws, so within 3 %."""
    before = population(60, 2)
    rng, n = np.random.default_rng(1), 150
    mixture = mpiabc.Gaussian().fit(before)
    delta = (before.theta[:, None] - before.theta) @ mixture.inverse.T
    densities = np.exp(-0.5 * np.square(delta).sum(axis=2))
    counts = rng.multinomial(n, before.weights, size=4000)
    estimates = counts @ densities / n
    drawn = before.weights @ (estimates.std(axis=0) / estimates.mean(axis=0))
    assert sizes.variation_of_one(before) / np.sqrt(n) == pytest.approx(drawn, rel=0.03)
    rule = sizes.CV(drawn, low=2)
    assert rule.size(1, before) == pytest.approx(n, rel=0.06)
    assert sizes.CV(drawn / 2, low=2).size(1, before) == pytest.approx(4 * n, rel=0.06)
    assert (rule.size(0, None), sizes.CV(start=20, low=30).size(0, None)) == (1000, 30)


def test_variation_is_of_the_particles_weights_not_of_their_number():
    """A mutant with equal weights is noticed: twins that share a weight change nothing."""
    before = population(40, 1)
    twins = problems.population(
        np.repeat(before.theta, 2, axis=0),
        np.repeat(before.weights / 2, 2),
        np.repeat(before.distances, 2),
        np.repeat(before.summaries, 2, axis=0),
    )
    # The covariance has another factor for the number of particles, at most a share of its inverse.
    assert sizes.variation_of_one(twins) == pytest.approx(sizes.variation_of_one(before), rel=0.02)
    is_odd = np.arange(80) % 2 == 1
    uneven = problems.population(
        twins.theta, np.where(is_odd, 0.0, 2 * twins.weights), twins.distances, twins.summaries
    )
    assert sizes.variation_of_one(uneven) == pytest.approx(sizes.variation_of_one(before), rel=0.02)


@pytest.mark.long
@pytest.mark.parametrize(
    "size",
    [[60, 40, 30], sizes.ESS(50), sizes.CV(0.1, start=60), Halves()],
    ids=lambda size: type(size).__name__,
)
@pytest.mark.parametrize("recycle", [None, True])
def test_sizes_do_not_depend_on_the_schedule_and_are_not_asked_again(size, recycle, tmp_path, monkeypatch):
    """Serial, shuffled, and stopped inside generations: one digest."""
    expected = ran(tmp_path / "quiet.db", size, recycle=recycle)
    shuffled = ran(tmp_path / "a.db", size, Simulated(7, random_time, loss=0.1), recycle=recycle)
    assert problems.digests(shuffled) == problems.digests(expected)
    for budget in (90, 160):
        ran(tmp_path / "b.db", size, recycle=recycle, simulations=budget)
    t = len(mpiabc.open(tmp_path / "b.db"))
    if isinstance(size, sizes.ESS | sizes.CV):  # a function of one's own would be other code
        asked = type(size).size
        monkeypatch.setattr(
            type(size),
            "size",
            lambda self, at, last: asked(self, at, last) if at > t else pytest.fail("again"),
        )
    assert problems.digests(ran(tmp_path / "b.db", size, recycle=recycle)) == problems.digests(expected)


def test_parameters_that_do_not_vary_say_nothing_of_the_size():
    """Such as an integer that all particles have come to, or what another model has not."""
    before = population(60, 2)
    theta = np.column_stack([before.theta, np.full(60, 3.0), np.r_[np.full(30, np.nan), np.ones(30)]])
    more = problems.population(theta, before.weights, before.distances, before.summaries)
    assert sizes.variation_of_one(more) == sizes.variation_of_one(before)
    same = problems.population(theta[:, 2:3], before.weights, before.distances, before.summaries)
    assert sizes.CV(low=10).size(1, same) == 10


def test_static_scheduling_has_as_many_slots_as_the_generation_particles(tmp_path):
    one, other = (
        ran(tmp_path / f"{n}.db", [60, 40, 30], Simulated(n, random_time, is_static=True)) for n in (1, 7)
    )
    assert lengths(one) == [60, 40, 30, 30]
    assert problems.digests(one) == problems.digests(other)


def test_population_that_shrinks_is_the_first_of_the_recycled_and_counts_the_ids_up_to_them(tmp_path):
    """The first N in id order, as if the run had ended there: evidence and weights know of no id above."""
    history = ran(tmp_path / "run.db", [400, 100, 50, 200], recycle=True)
    assert lengths(history) == [400, 100, 50, 200]
    assert [p.evaluations > 0 for p in history] == [True, False, False, True]
    first = history[0].ids[history[0].distances <= 1.5][:100]
    assert history[1].ids.tolist() == first.tolist()
    small = ran(tmp_path / "small.db", 100, threshold=mpiabc.Listed([1.5]))
    assert small[0].ids.tolist() == first.tolist()
    assert history[1].log_evidence == pytest.approx(small[0].log_evidence, rel=1e-12)
    exact = problems.Posterior(stats.norm(0, 2), 1.0, 0.4)
    assert history[3].log_evidence == pytest.approx(np.log(exact.evidence), abs=0.25)
    assert history[3].mean()["mu"] == pytest.approx(exact.expect(lambda x: x), abs=0.2)


def test_ids_that_a_shrunken_population_did_not_need_are_counted_at_no_level():
    past = Past(tried=(500, 300), firsts=(0, 512))
    assert past.tried_at(1024, 0, np.array([3, 499, 599])) == (500, 88, 0)
    assert past.tried_at(1024, 0, np.array([3, 99])) == (100, 0, 0)
    assert past.tried_at(1024, 40, np.array([3, 1063])) == (500, 300, 40)


def test_size_is_in_the_order_that_is_kept():
    planner = Planner(
        problems.problem().prior, mpiabc.Gaussian(), FALLING, stream_key(1), sizes.ESS(70), False
    )
    order = planner.next(Past()).order
    assert json.loads(kept(order, None)[0])["size"] == order.size == 70
    assert restored(*kept(order, None), None)["size"] == 70


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ([], r"population_size=\[\] is empty"),
        ([100, 1.5], "whole numbers of at least 2, one a generation"),
        ("100", "a list of them, or a rule"),
        (sizes.ESS, "population_size=ESS is a class: give an object of it"),
    ],
)
def test_sizes_that_are_none_are_refused(size, sentence):
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        mpiabc.ABCSMC(problems.problem(), size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sizes.ESS(1),
        lambda: sizes.ESS("many"),
        lambda: sizes.ESS(100, low=1),
        lambda: sizes.ESS(100, low=200, high=150),
        lambda: sizes.CV(0),
        lambda: sizes.CV(start=1),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(make):
    with pytest.raises(mpiabc.ProblemError, match=r"sizes\.|ESS\(|CV\("):
        make()


def test_size_of_ones_own_that_gives_no_number_is_refused_by_name(tmp_path):
    with pytest.raises(mpiabc.ProblemError, match=r"Halves gives 1 as the size of generation 0"):
        ran(tmp_path / "run.db", Halves(first=1))


def test_run_of_other_sizes_is_refused(tmp_path):
    ran(tmp_path / "run.db", sizes.ESS(50), generations=1)
    with pytest.raises(mpiabc.StoreError, match=r"ESS\(aim=50, low=2, high=500\)' there.*aim=60"):
        ran(tmp_path / "run.db", sizes.ESS(60), generations=2)
    ran(tmp_path / "own.db", Halves(80), generations=1)
    with pytest.raises(mpiabc.StoreError, match=r"other code or values .*size.first: 80 there, 60 here"):
        ran(tmp_path / "own.db", Halves(60), generations=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("2000,1000,500", [2000, 1000, 500]),
        ("ess:500", sizes.ESS(500)),
        ("cv:.1:100:5000", sizes.CV(0.1, low=100, high=5000)),
    ],
)
def test_sizes_on_the_command_line(text, expected):
    assert read_settings({"population_size": text}) == {"population_size": expected}


# Stopping.


def test_run_stops_where_epsilon_stalls(tmp_path):
    """From 1 to .9 is a tenth: less than a fifth, not less than a twentieth."""
    stalling = mpiabc.Listed([3, 1.5, 1, 0.9, 0.5])
    history = ran(tmp_path / "run.db", 30, threshold=stalling, min_epsilon_change=0.2)
    assert ([p.epsilon for p in history], history.reason) == ([3, 1.5, 1, 0.9], "min_epsilon_change")
    history = ran(tmp_path / "run.db", 30, threshold=stalling, min_epsilon_change=0.05)
    assert (len(history), history.reason) == (5, "threshold")


def test_fall_from_infinity_is_a_fall(tmp_path):
    history = ran(
        tmp_path / "run.db", 30, threshold=mpiabc.Quantile(), min_epsilon_change=0.01, generations=2
    )
    assert history.reason == "generations"


def test_run_stops_where_the_effective_sample_size_is_too_small(tmp_path):
    history = ran(tmp_path / "run.db", 60, ess=58)
    assert history.reason == "ess"
    assert history[-1].ess < 58 <= min(p.ess for p in list(history)[:-1])


def test_equal_weights_have_the_effective_sample_size_of_their_number(tmp_path):
    assert ran(tmp_path / "run.db", 100, ess=100, generations=1).reason == "generations"


def test_walltime_may_be_a_timedelta():
    assert stopping.seconds(timedelta(hours=1, seconds=30)) == 3630
    with pytest.raises(mpiabc.ProblemError, match="walltime=datetime"):
        stopping.seconds(timedelta(0))


@pytest.mark.parametrize(
    "rule", [{"min_epsilon_change": 0}, {"min_epsilon_change": 1}, {"ess": 0}, {"ess": "all"}]
)
def test_rules_that_could_never_end_a_run_are_refused(rule, tmp_path):
    with pytest.raises(mpiabc.ProblemError, match=next(iter(rule))):
        ran(tmp_path / "run.db", 30, **rule)


# Another threshold for what is not decided.


def stopped(path, threshold, size=60, **rules):
    """A run that has stopped inside of a generation, or before one."""
    return ran(path, size, threshold=threshold, **rules)


def test_list_that_goes_on_extends_a_finished_run(tmp_path):
    expected = ran(tmp_path / "quiet.db", 60)
    assert stopped(tmp_path / "run.db", mpiabc.Listed([3, 1.5])).reason == "threshold"
    history = ran(tmp_path / "run.db", 60)
    assert problems.digests(history) == problems.digests(expected)
    assert history.settings["threshold"] == "Listed(thresholds=(3.0, 1.5, 0.8, 0.4))"
    assert history.part("threshold", trust=True) == FALLING
    assert history.warnings == [
        "from generation 2 on the threshold is Listed(thresholds=(3.0, 1.5, 0.8, 0.4)), before "
        "Listed(thresholds=(3.0, 1.5))"
    ]


def test_list_that_is_changed_where_nothing_is_decided_gives_the_run_that_it_would_have_given(tmp_path):
    """Inside generation 1: its threshold stays, that of generation 2 may be another one."""
    expected = ran(tmp_path / "quiet.db", 60, threshold=mpiabc.Listed([3, 1.5, 1.2]))
    assert len(stopped(tmp_path / "run.db", FALLING, simulations=120)) == 1
    before = (tmp_path / "run.db").read_bytes()
    with pytest.raises(mpiabc.StoreError, match=r"other settings \(threshold.*accept_changes=True"):
        ran(tmp_path / "run.db", 60, threshold=mpiabc.Listed([3, 1.4, 1.2]))
    assert (tmp_path / "run.db").read_bytes() == before
    history = ran(tmp_path / "run.db", 60, threshold=mpiabc.Listed([3, 1.5, 1.2]))
    assert problems.digests(history) == problems.digests(expected)


def test_gentler_quantile_holds_from_the_first_generation_that_is_not_decided(tmp_path):
    gentle = mpiabc.Quantile(0.8)
    ran(tmp_path / "run.db", 60, threshold=mpiabc.Quantile(), generations=2)
    history = ran(tmp_path / "run.db", 60, threshold=gentle, generations=3)
    assert history[2].epsilon == gentle.epsilon(2, history[1])
    assert "from generation 2 on the threshold is Quantile(alpha=0.8" in history.warnings[-1]
    again = ran(tmp_path / "run.db", 60, threshold=gentle, generations=3)
    assert (again.warnings, problems.digests(again)) == (history.warnings, problems.digests(history))


def test_sharper_quantile_must_be_meant(tmp_path):
    ran(tmp_path / "run.db", 60, threshold=mpiabc.Quantile(), generations=2)
    sharp = {"threshold": mpiabc.Quantile(0.2), "generations": 3}
    with pytest.raises(
        mpiabc.StoreError, match=r"alpha=0.5.* there, .*alpha=0.2.* here.*accept_changes=True"
    ):
        ran(tmp_path / "run.db", 60, **sharp)
    history = ran(tmp_path / "run.db", 60, accept_changes=True, **sharp)
    assert history[2].epsilon == mpiabc.Quantile(0.2).epsilon(2, history[1])


def test_order_of_which_nothing_is_known_is_decided_again(tmp_path, monkeypatch):
    """Its run was stopped between the order and its first evaluation."""
    path, quiet = tmp_path / "run.db", tmp_path / "quiet.db"
    ran(quiet, 60, threshold=mpiabc.Quantile(), generations=2)
    ran(quiet, 60, threshold=mpiabc.Quantile(0.8), generations=4)
    ran(path, 60, threshold=mpiabc.Quantile(), simulations=mpiabc.open(quiet)[1].simulations + 60 + 1)
    with mpiabc.store.Store(path) as file, file.transaction() as db:
        db.execute("DELETE FROM journal WHERE generation = 2")
    assert mpiabc.open(path).order(2) is not None
    history = ran(path, 60, threshold=mpiabc.Quantile(0.8), generations=4)
    assert problems.digests(history) == problems.digests(mpiabc.open(quiet))


def test_order_of_which_something_is_known_stays(tmp_path):
    path = tmp_path / "run.db"
    first = ran(path, 60, threshold=mpiabc.Quantile(), generations=2)
    used = sum(p.simulations for p in first)
    ran(path, 60, threshold=mpiabc.Quantile(), simulations=used + 20)
    history = ran(path, 60, threshold=mpiabc.Quantile(0.8), generations=4)
    assert history[2].epsilon == mpiabc.Quantile().epsilon(2, history[1])
    assert history[3].epsilon == mpiabc.Quantile(0.8).epsilon(3, history[2])
    assert "from generation 3 on" in history.warnings[-1]


def test_same_command_again_changes_nothing_in_the_file(tmp_path):
    ran(tmp_path / "run.db", 60, generations=2)
    before = mpiabc.open(tmp_path / "run.db")
    found = before.settings, before.notes, problems.digests(before)
    ran(tmp_path / "run.db", 60, generations=2)
    after = mpiabc.open(tmp_path / "run.db")
    assert (after.settings, after.notes, problems.digests(after)) == found


# pyABC's own tests of adaptive sizes, as native problems with its tolerances.


def test_gaussian_of_several_populations_of_adaptive_size(tmp_path):
    """x ~ N(0, 1), y ~ N(x, .5^2), y = 2: test_gaussian_multiple_populations_adpative_population_size."""

    def simulate(theta, rng):
        return {"y": theta["x"] + 0.5 * rng.standard_normal(theta["x"].shape)}

    problem = mpiabc.Problem(mpiabc.Prior(x=mpiabc.Normal(0, 1)), simulate, {"y": 2.0}, vectorized=True)
    abc = mpiabc.ABCSMC(problem, sizes.CV(0.02, start=600), threshold=mpiabc.Quantile(0.5, 0.2), seed=1)
    history = abc.run(tmp_path / "run.db", generations=4, scheduler="serial")
    assert len(history) == 4
    sd = 1 / math.sqrt(1 + 1 / 0.5**2)
    mean, last = sd**2 * 2 / 0.5**2, history[-1]
    grid = np.linspace(-8, 8, 50)
    empirical = np.array([last.weights[last["x"] <= x].sum() for x in grid])
    assert np.max(np.abs(empirical - stats.norm.cdf(grid, mean, sd))) < 0.08  # there .15
    assert abs(last.mean()["x"] - mean) < 0.07
    assert abs(last.std()["x"] - sd) < 0.12


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_size_that_is_adapted_does_not_depend_on_the_size_before(n):
    """Of the same distribution: test_adapt_single_model, which looks at the size that is adapted to."""
    theta = np.random.default_rng(5).standard_normal((n, 1))
    before = problems.population(theta, np.full(n, 1 / n), np.zeros(n), theta)
    rule = sizes.CV(0.05, low=2)
    assert rule.size(1, before) == pytest.approx(130, rel=0.3)
    assert sizes.CV(0.05, low=2).size(2, before) == rule.size(1, before)


def test_sizes_leave_what_they_look_at_as_it_is():
    """test_transitions_not_modified."""
    before = population(40, 2)
    digest = before.digest()
    for rule in (sizes.CV(), sizes.ESS(100), sizes.Listed([10])):
        rule.size(1, before)
    assert before.digest() == digest


def test_two_competing_gaussians_of_adaptive_size(tmp_path):
    """test_two_competing_gaussians_multiple_population_adaptive_populatin_size; as tight as there, .07."""

    def simulate(theta, rng):
        return {"y": theta["x"] + 0.5 * rng.standard_normal(theta["x"].shape)}

    models = [
        mpiabc.Problem(
            mpiabc.Prior(x=mpiabc.Normal(mu, 0.5)), simulate, {"y": 1.0}, vectorized=True, name=f"mean {mu}"
        )
        for mu in (0, 1)
    ]
    rule = sizes.CV(0.02, start=400, high=1000)
    abc = mpiabc.ABCSMC(models, rule, threshold=mpiabc.Quantile(0.5, 0.2), seed=1)
    history = abc.run(tmp_path / "run.db", generations=3, epsilon=0.05, scheduler="serial")
    assert len(history) == 3
    exact = stats.norm.pdf(1.0, [0, 1], math.sqrt(0.5))
    assert np.abs(history[-1].model_probabilities() - exact / exact.sum()).sum() < 0.07
    assert all(len(p) <= 1000 for p in history)
