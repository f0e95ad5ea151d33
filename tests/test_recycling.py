"""Recycling: what meets the next threshold is kept, and weighted as a draw from all levels."""

import functools
import math
import signal
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import threadpoolctl
from scipy import special, stats

import mpiabc
from mpiabc import recycling, run
from mpiabc.cli import main
from mpiabc.densities import Densities
from mpiabc.kernels.curve import Curve
from tests import problems, recycled
from tests.cluster import Simulated, random_time
from tests.programs import foreign

THRESHOLDS = (4, 2.5, 1.5, 0.8)


def counted(calls):
    def simulate(theta, rng, *, id):
        calls.append(tuple(id))
        return problems.gaussian(theta, rng)

    return simulate


@pytest.fixture
def history(tmp_path):
    calls = []
    sampler = problems.sampler(thresholds=THRESHOLDS, simulate=counted(calls), recycle=True)
    history = sampler.run(tmp_path / "run.db", scheduler="serial")
    history.calls = calls
    return history


def cut(population):
    return population.first + population.evaluations


def test_survivors_are_not_simulated_again(history):
    plain = problems.sampler(thresholds=THRESHOLDS)
    populations = list(history)
    assert len(history.calls) == len(set(history.calls))
    of_plain = sum(p.simulations for p in recycled.populations(plain, 1))
    assert sum(p.simulations for p in populations) < 0.7 * of_plain
    for before, after in pairwise(populations):
        kept = before.ids[before.distances <= after.epsilon]
        assert 0 < len(kept) < len(after)
        assert after.ids[: len(kept)].tolist() == kept.tolist()
        assert np.all(after.ids[len(kept) :] >= cut(before))
        assert after.first == cut(before)
        assert after.acceptance_rate == (len(after) - len(kept)) / after.evaluations


def test_a_population_is_the_first_of_all_ids_that_meet_its_threshold(history):
    """Each id as it was tried, at the level of its place on the line."""
    edges = [cut(p) for p in history]
    for t, population in enumerate(history):
        assert population.ids.tolist() == sorted(set(population.ids.tolist()))
        assert population.ids[-1] == edges[t] - 1
        assert population.level.tolist() == np.searchsorted(edges, population.ids, side="right").tolist()
        assert np.all(population.distances <= population.epsilon)
        assert population.log_densities.shape == (len(population), t + 1)


def test_weights_are_those_of_the_mixture_of_all_levels_without_the_own_kernel(history):
    populations, prior = list(history), history.part("problem", trust=True).prior
    last = populations[-1]
    tried = np.array([p.evaluations for p in populations])
    density = np.zeros((len(last), len(tried)))
    density[:, 0] = np.exp(prior.logpdf(last.theta))
    for level in range(1, len(tried)):
        base = recycling.base(populations[level - 1], populations[level].epsilon)
        proposal = mpiabc.Gaussian().fit(base)
        sd = float(proposal.cholesky[0, 0])
        for i, (id, theta) in enumerate(zip(last.ids, last.theta[:, 0], strict=True)):
            others = base.ids != id
            heights = stats.norm.pdf(theta, base.theta[others, 0], sd)
            density[i, level] = base.weights[others] @ heights / base.weights[others].sum()
    weights = np.exp(prior.logpdf(last.theta)) / (density @ (tried / tried.sum()))
    np.testing.assert_allclose(last.weights, weights / weights.sum(), rtol=1e-9)


def test_run_that_is_extended_is_as_one_that_was_not_stopped(tmp_path):
    sampler = problems.sampler(thresholds=THRESHOLDS, recycle=True)
    whole = problems.digests(sampler.run(tmp_path / "whole.db", scheduler="serial"))
    for generations in (1, 3, 4):
        history = sampler.run(tmp_path / "parts.db", scheduler="serial", generations=generations)
    assert problems.digests(history) == whole


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2, 7, 48])
@pytest.mark.parametrize("is_vectorized", [False, True])
def test_digest_does_not_depend_on_who_finishes_first(workers, is_vectorized, tmp_path):
    options = {"simulate": problems.gaussian_vectorized, "vectorized": True} if is_vectorized else {}
    sampler = problems.sampler(n=300, thresholds=THRESHOLDS, recycle=True, **options)
    quiet = [p.digest() for p in recycled.populations(sampler, 1)]
    history = sampler.run(tmp_path / "run.db", scheduler=Simulated(workers, random_time))
    assert problems.digests(history) == quiet


@pytest.mark.long
@pytest.mark.parametrize("scheduler", ["serial", "processes", "simulated"])
def test_densities_that_workers_share_are_those_of_one_process(scheduler, tmp_path, monkeypatch):
    thresholds = (3.2, 2.5, 2.0, 1.6)
    sampler = replace(recycled.TARGETS["box of 5"], thresholds=thresholds).sampler(100, "balance")
    sampler.seed = 1
    quiet = [p.digest() for p in recycled.populations(sampler, 1)]
    shared = []
    monkeypatch.setattr(recycling, "are_dear", lambda *_: shared.append(1) or True)
    where = Simulated(7, random_time) if scheduler == "simulated" else scheduler
    history = sampler.run(tmp_path / "run.db", scheduler=where)
    assert problems.digests(history) == quiet
    assert len(shared) == len(thresholds) - 1


def test_run_that_is_stopped_while_densities_are_shared_goes_on(tmp_path, monkeypatch):
    """What a worker brings home then is no evaluation, and does not get into the journal."""
    sampler = recycled.TARGETS["box of 5"].sampler(100, "balance")
    sampler.seed = 1
    quiet = [p.digest() for p in recycled.populations(sampler, 1)]
    monkeypatch.setattr(recycling, "are_dear", lambda *_: True)
    stopped = []

    class Stops(Densities):
        def evaluator(self, shared=None, where=None, watch=None):
            evaluate = super().evaluator(shared, where, watch)

            def evaluate_and_stop(start, stop):
                if self.level == 2 and not stopped:
                    stopped.append(start)
                    signal.raise_signal(signal.SIGTERM)
                return evaluate(start, stop)

            return evaluate_and_stop

    monkeypatch.setattr(run, "Densities", Stops)
    with pytest.raises(mpiabc.Interrupted, match="in generation"):
        sampler.run(tmp_path / "run.db", scheduler="serial")
    history = sampler.run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(history) == quiet


def test_levels_of_vectorised_simulators_begin_at_a_blocks_edge(tmp_path):
    options = {"simulate": problems.gaussian_vectorized, "vectorized": True, "recycle": True}
    populations = recycled.populations(problems.sampler(thresholds=THRESHOLDS, **options), 1)
    for before, after in pairwise(populations):
        assert after.first == -(-cut(before) // 256) * 256
        assert not np.any((after.ids >= cut(before)) & (after.ids < after.first))


def test_generation_that_all_survive_needs_no_evaluation(tmp_path):
    sampler = problems.sampler(n=20, thresholds=(3, 2.9999999, 1.5), recycle=True)
    history = sampler.run(tmp_path / "run.db", scheduler="serial")
    first, second, third = history
    assert second.ids.tolist() == first.ids.tolist()
    assert (second.evaluations, second.acceptance_rate, third.first) == (0, 1.0, cut(first))
    assert np.isfinite(third.weights).all()


def test_signal_is_heard_between_generations_that_need_no_evaluation(tmp_path):
    class Creeping:
        asked = 0

        def epsilon(self, generation, previous):
            self.asked = generation
            if generation == 5 and previous is not None:
                signal.raise_signal(signal.SIGTERM)
            return 3 - 1e-9 * generation

    threshold = Creeping()
    sampler = mpiabc.ABCSMC(problems.problem(), 20, threshold=threshold, seed=1, recycle=True)
    with pytest.raises(mpiabc.Interrupted):
        sampler.run(tmp_path / "run.db", scheduler="serial", generations=1000)
    assert threshold.asked <= 6


def test_too_few_survivors_are_no_base_for_a_kernel():
    population = recycled.populations(problems.sampler(thresholds=(3.0,)), 1)[0]
    epsilon = np.sort(population.distances)[4]
    base = recycling.base(population, epsilon)
    assert len(base) == 10
    assert np.sort(base.distances).tolist() == np.sort(population.distances)[:10].tolist()
    assert len(recycling.base(population, np.sort(population.distances)[49])) == 50


REFUSED = {
    "static": ({"scheduler": Simulated(2, random_time, is_static=True)}, {}, "static scheduling"),
    "constant": ({}, {"threshold": mpiabc.Constant(1.0)}, "recycle=True with threshold=Constant"),
    "foreign": ({}, {"kernel": foreign.Student()}, "is_normalised = True"),
    "not asked for": ({}, {"recycle": False, "weights": "levels"}, "give recycle=True too"),
    "unknown": ({}, {"weights": "ess"}, "give 'balance' or 'levels'"),
    "no switch": ({}, {"recycle": "yes"}, "recycle='yes': give True or False"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_together_is_refused_before_any_work(what, tmp_path):
    running, options, sentence = REFUSED[what]
    settings = {"recycle": True, "threshold": mpiabc.Listed([2, 1]), "seed": 1} | options
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        mpiabc.ABCSMC(problems.problem(), 20, **settings).run(
            tmp_path / "run.db", generations=2, **({"scheduler": "serial"} | running)
        )
    assert not (tmp_path / "run.db").exists()


def test_foreign_kernel_that_is_normalised_recycles(tmp_path):
    class Normalised(foreign.Student):
        is_normalised = True

    sampler = problems.sampler(thresholds=THRESHOLDS, recycle=True, kernel=Normalised())
    history = sampler.run(tmp_path / "run.db", scheduler="serial")
    assert history[-1].ess > 50


def test_other_choice_does_not_go_on_with_the_same_file(tmp_path):
    problems.sampler(n=20).run(tmp_path / "run.db", scheduler="serial", generations=1)
    with pytest.raises(mpiabc.StoreError, match="recycle: None there, 'balance' here"):
        problems.sampler(n=20, recycle=True).run(tmp_path / "run.db", scheduler="serial")


def test_command_line_recycles_and_replays_by_the_id_alone(tmp_path, capsys):
    file = tmp_path / "fit.py"
    file.write_text(
        "import mpiabc\n"
        "def simulate(theta, rng):\n    return theta['mu'] + rng.standard_normal()\n"
        "problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, 1.0)\n"
    )
    store = tmp_path / "run.db"
    options = ["--population-size", "50", "--generations", "3", "--seed", "1", "--scheduler", "serial"]
    assert main(["run", str(file), "--store", str(store), "--recycle", "--weights", "levels", *options]) == 0
    last = mpiabc.open(store)[-1]
    assert mpiabc.open(store).settings["recycle"] == "levels"
    assert len(set(last.level.tolist())) > 1
    capsys.readouterr()
    for id, level in ((int(last.ids[0]), int(last.level[0])), (int(last.ids[-1]), int(last.level[-1]))):
        for address in (str(id), f"{level}:{id}"):
            assert main(["replay", str(store), address, "--trust"]) == 0
            output = capsys.readouterr().out
            assert f"{level}:{id}" in output
            assert "equal, bit for bit" in output
    assert main(["replay", str(store), f"{last.level[0] + 1}:{last.ids[0]}"]) == 1
    assert f"is one of generation {last.level[0]}" in capsys.readouterr().err


def test_replay_knows_which_ids_no_population_was_made_of(tmp_path, capsys):
    options = {"simulate": problems.gaussian_vectorized, "vectorized": True, "recycle": True}
    problems.sampler(n=40, **options).run(tmp_path / "run.db", scheduler="serial")
    first, second, _ = mpiabc.open(tmp_path / "run.db")
    assert cut(first) < second.first
    assert main(["replay", str(tmp_path / "run.db"), str(cut(first))]) == 1
    assert "the last block of generation 0 ends with it" in capsys.readouterr().err


def test_threshold_that_does_not_fall_ends_the_run(tmp_path):
    """Else generations without an evaluation would follow for ever."""

    class Floor(mpiabc.Quantile):
        def epsilon(self, generation, previous):
            found = super().epsilon(generation, previous)
            return found if previous is None else max(1.0, found)

    abc = mpiabc.ABCSMC(problems.problem(), 50, threshold=Floor(), seed=1, recycle=True)
    history = abc.run(tmp_path / "run.db", scheduler="serial", simulations=10**6)
    assert history.reason == "threshold: all particles meet the next one"
    assert history[-1].epsilon == 1.0


def test_changed_code_does_not_go_on_with_particles_of_the_old_one(tmp_path):
    def sampler(width):
        def simulate(theta, rng):
            return {"y": theta["mu"] + width * rng.standard_normal()}

        return problems.sampler(n=20, simulate=simulate, recycle=True)

    sampler(1.0).run(tmp_path / "run.db", scheduler="serial", generations=1)
    with pytest.raises(mpiabc.StoreError, match="particles of both would be in one population"):
        sampler(2.0).run(tmp_path / "run.db", scheduler="serial", accept_changes=True)


@pytest.mark.parametrize("n", [2, 3])
def test_smallest_populations_have_an_evidence_that_can_be_kept(n, tmp_path):
    sampler = problems.sampler(n=n, thresholds=THRESHOLDS, recycle=True)
    assert len(sampler.run(tmp_path / "run.db", scheduler="serial")) == len(THRESHOLDS)


def test_kernels_are_fitted_again_as_they_were_fitted_first(tmp_path):
    """On one thread of BLAS, whose sums would be others on two."""
    seen = []

    class Normalised(foreign.Student):
        is_normalised = True

        def fit(self, population):
            seen.append([library["num_threads"] for library in threadpoolctl.threadpool_info()])
            return super().fit(population)

    sampler = problems.sampler(thresholds=THRESHOLDS, recycle=True, kernel=Normalised())
    for generations in (2, 4):
        sampler.run(tmp_path / "run.db", scheduler="serial", generations=generations)
    assert len(seen) == 4 + 2 * 2  # generations 1, then 1, 2 and 3; and twice a call, as parts are looked at
    assert all(set(threads) == {1} for threads in seen)


def mixture(kernel, n, d, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.random(n) ** 3
    theta = rng.standard_normal((n, d)) @ (np.eye(d) + 0.2 * rng.standard_normal((d, d)))
    parents = problems.population(theta, weights / weights.sum(), rng.random(n), np.zeros((n, 1)))
    return kernel.fit(parents)


@pytest.mark.parametrize("kernel", [mpiabc.Gaussian(), mpiabc.LocalGaussian()], ids=repr)
@pytest.mark.parametrize(("n", "d"), [(30, 1), (700, 1), (60, 2), (2100, 3)])
def test_density_of_the_others_is_that_of_a_mixture_without_one(kernel, n, d):
    proposal = mixture(kernel, n, d)
    rows = np.array([0, 7, n - 1])
    for row, found in zip(rows, proposal.log_others(rows), strict=True):
        others = np.arange(n) != row
        factor = proposal.cholesky if proposal.cholesky.ndim == 2 else proposal.cholesky[others]
        weights = proposal.weights[others] / proposal.weights[others].sum()
        apart = type(proposal)(proposal.centres[others], weights, factor)
        np.testing.assert_allclose(found, apart.logpdf(proposal.centres[row][None])[0], rtol=1e-9)


CENTRES = {
    "one mode": lambda rng: rng.standard_normal(2000),
    "far modes": lambda rng: np.where(rng.random(2000) < 0.5, -9.0, 9.0) + rng.standard_normal(2000),
    "heavy tails": lambda rng: 3 * rng.standard_t(1.5, 2000),
    "almost a point": lambda rng: 1e-9 * rng.standard_normal(2000),
}


@pytest.mark.parametrize("what", CENTRES)
def test_curve_is_the_sum_of_its_bells_to_rounding(what):
    """Relative to the sum: nan, where the curve is not sure, only where no row is ever drawn."""
    rng = np.random.default_rng(3)
    centres, log_weights = CENTRES[what](rng), np.log(rng.random(2000) ** 4)
    drawn = centres[rng.integers(2000, size=1000)] + rng.standard_normal(1000)
    between = np.linspace(centres.min() - 20, centres.max() + 20, 500)
    curve = Curve(centres, log_weights)
    for u, share in ((drawn, 0.99), (between, 0.0)):
        exact = special.logsumexp(log_weights - 0.5 * np.square(u[:, None] - centres), axis=1)
        found = curve.log(u)
        is_sure = np.isfinite(found)
        assert is_sure.mean() >= share
        np.testing.assert_allclose(found[is_sure], exact[is_sure], rtol=2e-15, atol=2e-13)
        assert np.array_equal(found, [curve.log(x[None])[0] for x in u], equal_nan=True)


def test_curve_leaves_the_rows_that_it_is_not_sure_of_to_the_sum():
    proposal = mixture(mpiabc.Gaussian(), 600, 1)
    far = np.array([[-1e6], [0.1], [1e6]])
    found = proposal.logpdf(far)
    assert np.isfinite(found).all()
    z = (far[0, 0] - proposal.centres[:, 0]) / proposal.cholesky[0, 0]
    exact = special.logsumexp(np.log(proposal.weights) - 0.5 * z**2) - np.log(proposal.cholesky[0, 0])
    np.testing.assert_allclose(found[0], exact - 0.5 * math.log(2 * math.pi), rtol=1e-9)


@functools.cache
def measured(way):
    return recycled.measured(64, way, 300)


def beside_plain(way, column):
    """How far a way is from plain ABC-SMC with the same seeds, in what, and its standard error."""
    return difference(measured(way), measured("plain"), column)


def difference(found, plain, column):
    apart = found[:, column] - plain[:, column]
    return apart.mean(), apart.std(ddof=1) / np.sqrt(len(apart))


@pytest.mark.long
def test_recycled_posterior_is_that_of_plain():
    """In deviations of the posterior, at N = 64; `python -m tests.recycled` has more replicates."""
    mean, error = beside_plain("balance", 0)
    assert abs(mean) < 0.02 + 2 * error
    evidence = measured("balance")[:, 2]
    assert abs(evidence.mean()) < 0.01 + 3 * evidence.std() / np.sqrt(len(evidence))
    assert measured("balance")[:, 4].mean() < 0.5 * measured("plain")[:, 4].mean()


@pytest.mark.parametrize("way", ["levels", "masses by ESS"])
@pytest.mark.long
def test_weights_by_how_many_a_level_has_brought_would_be_noticed(way):
    mean, error = beside_plain(way, 0)
    assert mean > max(3 * error, 0.04)


@pytest.mark.long
def test_evidence_of_all_acceptances_would_be_noticed():
    evidence = measured("full m_l in the evidence")[:, 2]
    assert evidence.mean() > 0.03 + 3 * evidence.std() / np.sqrt(len(evidence))


@pytest.mark.long
def test_a_particles_own_kernel_would_be_noticed():
    """In ten dimensions it is most of the density at a particle: deviations come out a tenth too small."""
    found = {
        way: recycled.measured(200, way, 20, "box of 10") for way in ("plain", "balance", "own kernel kept")
    }
    for way, is_right in (("balance", True), ("own kernel kept", False)):
        mean, error = difference(found[way], found["plain"], 1)
        assert (mean > -3 * error) == is_right
