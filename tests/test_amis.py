"""ABCAMIS: a budget in batches, all of whose simulations are weighted together (Cornuet et al. 2012)."""

import multiprocessing
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import amis, cli
from mpiabc.actions import Done, Open
from mpiabc.analysis.gathered import of_population
from mpiabc.analysis.pooled import pooled
from mpiabc.defended import Defended
from mpiabc.ledger import BatchLedger
from mpiabc.pooling import PoolingPlanner
from mpiabc.records import Records, Status
from mpiabc.run import Run
from mpiabc.schedulers import Map
from mpiabc.stopping import Stopping
from tests import problems
from tests.cluster import Simulated, random_time


def rows_of(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(theta["mu"].shape)}


def far(simulated, observed):
    return abs(simulated["y"] - observed["y"])


def sampler(simulations=400, batches=4, population_size=30, seed=1, simulate=problems.gaussian, **options):
    problem = problems.problem(simulate, **options)
    return mpiabc.ABCAMIS(problem, simulations, batches=batches, population_size=population_size, seed=seed)


def played(abc, seed=1, proposals=(), planner=None):
    """The past after each batch of a run without a file; with these proposals, if they are given."""
    planner = planner or abc._planner({"seed": seed})
    planner = Given(**vars(planner), proposals=proposals) if proposals else planner
    run = Run(abc.problem, planner, Stopping())
    actions, pasts = run.advance(), []
    while not any(isinstance(action, Done) for action in actions):
        order = [action for action in actions if isinstance(action, Open)][-1].order
        end = -(-(order.first + order.size) // planner.step) * planner.step
        run.advance([order.evaluator(abc.problem)(order.first, end)])
        pasts.append(run._past)
        actions = run.advance()
    return pasts


@dataclass(frozen=True)
class Given(PoolingPlanner):
    """A planner whose proposals do not depend on what was drawn."""

    proposals: tuple = ()

    def next(self, past):
        decided = super().next(past)
        if decided is None or not past.level:
            return decided
        return decided._replace(order=replace(decided.order, proposal=self.proposals[past.level - 1]))


# Two implementations.


def reference(theta, distances, drawn, log_prior, size):
    """What is nearest, its weights, and the next proposal: centres and covariance, after each batch.

    theta (n, d), distances (n,), of each batch, so many ids drawn in it; as `amis` has it, without care.
    """
    q = [lambda x: np.exp(log_prior(x))]
    for t in range(len(theta)):
        x, n = np.concatenate(theta[: t + 1]), drawn[: t + 1]
        w = np.exp(log_prior(x)) / sum(m * density(x) for m, density in zip(n, q, strict=True))
        nearest = np.argsort(distances[t])
        ess = np.cumsum(w[nearest]) ** 2 / np.cumsum(w[nearest] ** 2)
        k = np.sort(nearest[: np.argmax(ess >= (1 - 1e-9) * min(size, ess[-1] / 2)) + 1])
        v, ess, d = w[k] / w[k].sum(), w[k].sum() ** 2 / (w[k] ** 2).sum(), x.shape[1]
        m, c = v @ x[k], np.cov(x[k].T, aweights=v, ddof=0).reshape(d, d)
        h, j = min(0.95, 1.3 * (ess / 2) ** (-1 / (d + 4))), min(800, len(k))
        chosen = np.searchsorted(np.cumsum(v), (np.arange(j) + 0.5) / j)
        centres = m + np.sqrt(1 - h**2) * (x[k][chosen] - m)
        q.append(mixture(centres, 1.2 * h**2 * c, log_prior))
        yield k, v, centres, 1.2 * h**2 * c


def mixture(centres, covariance, log_prior):
    def density(x):
        of_each = [stats.multivariate_normal(centre, covariance).pdf(x) for centre in centres]
        return 0.9 * np.mean(of_each, axis=0).reshape(len(x)) + 0.1 * np.exp(log_prior(x))

    return density


def two_of(theta, rng):
    a, b = theta["a"], theta["b"]
    return {"x": a + b + rng.standard_normal(a.shape), "y": 10 * (a - b) + rng.standard_normal(a.shape)}


def in_two_dimensions(simulations=603, batches=4, **options):
    """At the edge of a prior, where ids fall outside; with scales that change from batch to batch."""
    prior = mpiabc.Prior(a=mpiabc.Uniform(0, 3), b=mpiabc.Normal(0, 1))
    problem = mpiabc.Problem(prior, two_of, {"x": 0.1, "y": 0.0}, vectorized=True)
    return mpiabc.ABCAMIS(problem, simulations, batches=batches, population_size=40, seed=3, **options)


def test_whether_units_differ_is_asked_once_a_run(monkeypatch):
    looked = []
    monkeypatch.setattr("mpiabc.pooling.scales", lambda *given: looked.append(given) or mad(given[1]))
    played(in_two_dimensions())
    assert len(looked) == 1


@pytest.mark.parametrize(("unit", "has_scales"), [(2.0, False), (10.0, True)])
def test_a_plain_norm_has_scales_where_units_differ(unit, has_scales):
    """A statistic in another unit counts as much as ever; in one unit, distances are the user's own."""

    def simulate(theta, rng):
        return {"x": theta["a"] + rng.standard_normal(), "y": unit * (theta["a"] + rng.standard_normal())}

    problem = mpiabc.Problem(mpiabc.Prior(a=mpiabc.Normal(0, 3)), simulate, {"x": 0.1, "y": 0.0})
    pool = played(mpiabc.ABCAMIS(problem, 800, batches=4, population_size=40, seed=3))[-1].pool
    rows = np.concatenate([part.summaries for part in pool.parts]) - [0.1, 0.0]
    scales = mad(pool.parts[-1].summaries) if has_scales else 1.0
    np.testing.assert_allclose(pool.distances, np.linalg.norm(rows / scales, axis=1))


def compare(abc):
    """What ships with the reference, batch by batch; raises AssertionError where they differ."""
    pasts, log_prior = played(abc), abc.problem.prior.logpdf
    drawn, parts = [abc._planner({"seed": 1}).drawn(t) for t in range(4)], pasts[-1].pool.parts
    scales, observed = [mad(part.summaries) for part in parts], np.array([0.1, 0.0])
    distances = [
        np.concatenate([np.linalg.norm((p.summaries - observed) / scale, axis=1) for p in parts[: t + 1]])
        for t, scale in enumerate(scales)
    ]
    theta = np.concatenate([part.theta for part in parts])
    found = reference([part.theta for part in parts], distances, drawn, log_prior, abc.population_size)
    for past, measured, (k, weights, centres, covariance) in zip(pasts, distances, found, strict=True):
        population = past.last
        np.testing.assert_array_equal(population.theta, theta[k])
        np.testing.assert_allclose(population.weights, weights, rtol=1e-9)
        np.testing.assert_allclose(population.distances, measured[k], rtol=1e-12)
        next_one = amis.proposal(population.theta, population.weights, abc.problem.prior).proposal
        np.testing.assert_allclose(next_one.centres, centres, rtol=1e-9)
        np.testing.assert_allclose(next_one.cholesky @ next_one.cholesky.T, covariance, rtol=1e-9)
    assert pasts[-1].last.simulations < drawn[-1] == 151  # some lie outside of the support
    assert pasts[-1].last.epsilon == pasts[-1].last.distances.max()


def test_the_reference_agrees_to_rounding():
    compare(in_two_dimensions())


def alone(self, rows, drawn):
    """A mutant: what counts is the proposal that a simulation was drawn from."""
    return BATCHES(self, replace(rows, log_densities=rows.log_densities[:, [0, -1]]), (1, drawn[-1]))


def without_share(self, log_density, log_prior):
    """A mutant: the prior draws a share, of which the density knows nothing."""
    return np.log(1 - self.share) + log_density


BATCHES = amis.Pool.with_batch
MUTANTS = {
    "own proposal alone": (amis.Pool, "with_batch", alone),
    "no prior's share": (Defended, "mixed", without_share),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_reference_notices(mutant, monkeypatch):
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(AssertionError):
        compare(in_two_dimensions())


def test_the_reference_notices_that_ids_outside_of_the_support_are_left_out(monkeypatch):
    monkeypatch.setattr(PoolingPlanner, "drawn", lambda self, level: 120 + 10 * level)
    with pytest.raises(AssertionError):
        compare(in_two_dimensions())


def mad(values):
    return np.median(np.abs(values - np.median(values, axis=0)), axis=0)


def test_of_equal_distances_all_count():
    """Else those of the first batches would be taken, which the prior has drawn."""
    distances = np.array([0.0, 1.0, 0.0, 2.0, 1.0, 0.0])
    assert amis.nearest(distances, np.zeros(6), 2).tolist() == [0, 2, 5]
    assert amis.nearest(distances, np.zeros(6), 5).tolist() == [0, 2, 5]  # half of six are enough


def test_a_proposal_is_systematic_has_at_most_800_centres_and_a_tenth_of_the_prior():
    theta = np.random.default_rng(1).standard_normal((2000, 2))
    weights = np.full(2000, 1 / 2000)
    prior = problems.problem().prior
    proposal = amis.proposal(theta, weights, prior)
    assert proposal.proposal.centres.shape == (800, 2)
    assert (proposal.share, proposal.prior) == (0.1, prior)
    assert amis.systematic(np.array([0.5, 0.25, 0.25]), 4).tolist() == [0, 0, 1, 2]


def test_a_singular_covariance_gives_way_to_its_diagonal_and_no_spread_is_refused():
    theta = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    assert amis.proposal(theta, np.full(3, 1 / 3), None).proposal.is_diagonal
    with pytest.raises(mpiabc.ProblemError, match="the same value of a parameter"):
        amis.proposal(theta * [1, 0], np.full(3, 1 / 3), None)


# The truth.


def conjugate():
    """mu ~ N(0, 4), y ~ N(mu, 1), y = 1: N(.8, .8), almost, where epsilon is small."""
    return with_prior(rows_of, mpiabc.Normal(0, 2), 1.0), 0.8, 0.8, stats.norm(0, 5**0.5).pdf(1.0)


def at_an_edge():
    """mu ~ U(0, 6), y ~ N(mu, 1), y = 0: a half-normal; much of what is proposed lies outside."""
    mean = np.sqrt(2 / np.pi)
    return with_prior(rows_of, mpiabc.Uniform(0, 6), 0.0), mean, 1 - mean**2, 1 / 12


def with_two_modes():
    """|mu| is seen, with noise .3, and is 2: modes at -2 and 2, of the same weight and sd .3."""
    return with_prior(folded, mpiabc.Uniform(-6, 6), 2.0), 0.0, 4.09, 1 / 6


def folded(theta, rng):
    return {"y": np.abs(theta["mu"]) + 0.3 * rng.standard_normal(theta["mu"].shape)}


def with_prior(simulate, marginal, observed):
    prior = mpiabc.Prior(mu=marginal)
    distance = mpiabc.PNorm(scale={"y": 1.0})
    problem = mpiabc.Problem(prior, simulate, {"y": observed}, distance=distance, vectorized=True)
    return mpiabc.ABCAMIS(problem, 1000, batches=4, population_size=60, seed=1)


TARGETS = {"conjugate": conjugate, "edge": at_an_edge, "two modes": with_two_modes}


def errors(target, seeds, is_adaptive):
    """Errors over seeds (n, 3): of the mean, of the second moment, and of the evidence, relative.

    Not adaptive: with the proposals of another run, which do not depend on what is drawn; estimates are
    unbiased then, but for that of epsilon.
    """
    abc, mean, variance, density = TARGETS[target]()
    proposals = () if is_adaptive else played(abc, 10**6)[-1].proposals
    found = []
    for seed in range(seeds):
        p = played(abc, seed, proposals)[-1].last
        second = p.weights @ np.square(p.theta[:, 0] - mean)
        evidence = np.exp(p.log_evidence) / (2 * p.epsilon * density)
        found.append((p.mean()[0] - mean, second - variance, evidence - 1))
    return np.array(found)


def z(values):
    return values.mean(axis=0) / values.std(axis=0, ddof=1) * np.sqrt(len(values))


@pytest.mark.parametrize("target", TARGETS)
def test_with_given_proposals_estimates_are_unbiased(target):
    """Mean, second moment, evidence."""
    assert np.all(np.abs(z(errors(target, 30, is_adaptive=False))) < 4)


@pytest.mark.parametrize("target", TARGETS)
def test_with_its_own_proposals_the_bias_is_a_part_of_the_spread(target):
    """Of one estimate, with an effective size of 60; where earlier draws are, proposals are, too."""
    found = errors(target, 30, is_adaptive=True)
    spread = found.std(axis=0, ddof=1)
    assert np.all(np.abs(found.mean(axis=0)) < 0.6 * spread)
    assert np.all(spread[:2] < [0.4, 0.3])


def test_the_truth_notices_where_earlier_simulations_do_not_know_of_later_proposals(monkeypatch):
    monkeypatch.setattr(amis.Pool, "seen_by", lambda self, log_density, n: self)
    assert np.abs(z(errors("edge", 30, is_adaptive=False))).max() > 4


@pytest.mark.parametrize("is_honest", [True, False])
def test_a_mode_that_proposals_miss_has_what_the_prior_draws(is_honest, monkeypatch):
    """All seven are around 2; the mutant leaves the prior's share out of their densities."""
    abc = replace_batches(with_two_modes()[0])
    theta = np.array([[1.7], [2.0], [2.3]])
    proposals = (amis.proposal(theta, np.full(3, 1 / 3), abc.problem.prior),) * 7
    if not is_honest:
        monkeypatch.setattr(Defended, "mixed", without_share)
    last = [played(abc, seed, proposals)[-1].last for seed in range(15)]
    errors = z(np.array([(p.mean()[0], 3 * np.exp(p.log_evidence) / p.epsilon - 1) for p in last]))
    assert (np.abs(errors).max() < 4) == is_honest


def replace_batches(abc):
    return mpiabc.ABCAMIS(abc.problem, 4000, batches=8, population_size=240, seed=1)


# Runs.


def test_a_ledger_of_a_batch_hands_out_whole_steps_up_to_its_end():
    ledger = BatchLedger(3, 500, first=512, step=256)
    assert [ledger.lease(100), ledger.lease(1000), ledger.lease(1)] == [(3, 512, 768), (3, 768, 1024), None]
    assert (ledger.cut, ledger.expected, ledger.accepted, ledger.complete) == (1012, 0, 0, False)
    ledger.give_back(768, 1024)
    assert ledger.lease(1000) == (3, 768, 1024)
    statuses = np.full(256, Status.OUTSIDE, np.uint8)
    assert [ledger.tell(Records(3, start, start + 256, statuses)) for start in (768, 512)] == [True, True]
    assert (ledger.accepted, ledger.complete, ledger.counts()) == (500, True, (500, 0))
    assert len(ledger.population()) == 0


def test_a_run_of_some_batches_goes_on_to_all_of_them(tmp_path):
    quiet = sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert (len(quiet), quiet.reason) == (4, "simulations")
    first = sampler().run(tmp_path / "run.db", 2, scheduler="serial")
    assert (len(first), first.reason) == (2, "generations")
    again = sampler().run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(again) == problems.digests(quiet)
    assert again.reason == "simulations"
    more = sampler().run(tmp_path / "run.db", generations=9, scheduler="serial")
    assert problems.digests(more) == problems.digests(quiet)


@pytest.mark.parametrize(
    "other", [{"batches": 5}, {"simulations": 500}, {"population_size": 31}, {"seed": 2}]
)
def test_another_budget_is_another_run(other, tmp_path):
    sampler().run(tmp_path / "run.db", 2, scheduler="serial")
    with pytest.raises(mpiabc.StoreError, match=f"other settings \\({next(iter(other))}"):
        sampler(**other).run(tmp_path / "run.db", scheduler="serial")


def test_a_run_of_another_sampler_is_another_run(tmp_path):
    problems.sampler().run(tmp_path / "run.db", scheduler="serial", generations=1)
    with pytest.raises(mpiabc.StoreError, match="sampler: None there, 'ABCAMIS' here"):
        sampler().run(tmp_path / "run.db", scheduler="serial")


@pytest.mark.parametrize("distance", [mpiabc.PNorm(), far], ids=["scales", "callable"])
def test_whatever_stops_inside_a_batch_the_run_goes_on_from_there(distance, tmp_path):
    """The simulator breaks once; what was simulated of the batch before is not simulated again."""
    seen, is_broken = [], [True]

    def simulate(theta, rng, *, id):
        seen.append(tuple(id))
        if tuple(id) == (2, 260) and is_broken.pop():
            raise RuntimeError("the pump broke")
        return problems.gaussian(theta, rng)

    abc = sampler(simulate=simulate, distance=distance)
    with pytest.raises(mpiabc.SimulatorError, match="evaluation 2:260 failed"):
        abc.run(tmp_path / "run.db", scheduler="serial")
    is_broken.append(False)
    n = len(seen)
    history = abc.run(tmp_path / "run.db", scheduler="serial")
    assert len(seen) - n <= 400 - 255
    quiet = sampler(distance=distance).run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)


def test_a_run_that_is_killed_inside_a_batch_goes_on(tmp_path):
    abc = sampler(simulate=problems.killed_once(tmp_path / "killed", (2, 270)))
    run = {"args": (tmp_path / "run.db",), "kwargs": {"scheduler": "serial"}}
    child = multiprocessing.get_context("fork").Process(target=abc.run, **run)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(mpiabc.open(tmp_path / "run.db")) == 2
    history = abc.run(tmp_path / "run.db", scheduler="serial")
    quiet = sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)
    found, expected = history.simulations.rows(), quiet.simulations.rows()
    assert found.summaries.tobytes() == expected.summaries.tobytes()


FAULTS = {
    "no faults": {},
    "losses": {"loss": 0.1, "duplicate": 0.1},
    "doubts": {"doubt": 0.05},
}


@pytest.mark.parametrize("faults", FAULTS)
def test_neither_workers_nor_faults_change_a_run(faults, tmp_path):
    def run(name, scheduler):
        options = {"vectorized": True, "on_error": "reject"} if "doubts" in faults else {}
        abc = sampler(**({"simulate": rows_of} | options if options else {}))
        return problems.digests(abc.run(tmp_path / f"{name}.db", scheduler=scheduler))

    assert run("one", Simulated(9, random_time, seed=2, **FAULTS[faults])) == run("other", "serial")


def test_failures_are_never_near_and_are_counted(tmp_path):
    def simulate(theta, rng, *, id):
        if id.index % 7 == 0:
            raise RuntimeError("the pump broke")
        return problems.gaussian(theta, rng)

    history = sampler(simulate=simulate, on_error="reject").run(tmp_path / "run.db", scheduler="serial")
    assert [p.evaluations for p in history] == [100] * 4
    assert sum(p.failures for p in history) == 58
    assert not any((p.ids % 7 == 0).any() for p in history)
    assert len(history.simulations) == 400 - 58


def test_infinite_distances_are_the_last_to_be_taken(tmp_path):
    def far_below(simulated, observed):
        return abs(simulated["y"] - observed["y"]) if simulated["y"] > 0 else np.inf

    history = sampler(distance=far_below).run(tmp_path / "run.db", scheduler="serial")
    assert all(np.isfinite(p.distances).all() for p in history)
    assert np.isinf(history.simulations.distances).any()


def test_all_simulations_are_there_and_what_they_weigh(tmp_path):
    history = sampler().run(tmp_path / "run.db", scheduler="serial")
    rows = history.simulations.rows()
    assert rows.ids.tolist() == list(range(400))
    found = pooled(history, sampler().problem)
    last = history[-1]
    chosen = np.searchsorted(rows.ids, last.ids)
    np.testing.assert_array_equal(found.distances[chosen], last.distances)
    weights = np.exp(found.log_weights[chosen])
    np.testing.assert_allclose(weights / weights.sum(), last.weights, rtol=1e-12)
    assert set(last.level.tolist()) <= {0, 1, 2, 3}
    assert np.sort(found.distances)[len(last) - 1] == last.epsilon


def test_a_posterior_is_made_of_all_simulations_and_asks_for_no_problem(tmp_path):
    sampler().run(tmp_path / "run.db", scheduler="serial")
    history = mpiabc.open(tmp_path / "run.db")
    last, second = history.simulations.weighted(), of_population(history, 1, None)
    assert (len(last.theta), last.size, len(second.theta)) == (400, 30, 200)
    assert np.count_nonzero(last.distances <= history[-1].epsilon) == len(history[-1])
    assert np.count_nonzero(second.distances <= history[1].epsilon) == len(history[1])
    posterior = history.posterior()
    assert abs(posterior.mean()["mu"] - 0.8) < 0.4
    draws = [history.posterior().sample(9, np.random.default_rng(1)) for _ in range(2)]
    assert draws[0].tobytes() == draws[1].tobytes()


def test_sample_yields_each_batch(tmp_path):
    populations = list(sampler().sample(tmp_path / "run.db", scheduler="serial"))
    assert [p.generation for p in populations] == [0, 1, 2, 3]


def test_evaluations_are_replayed_and_a_run_is_shown(tmp_path, capsys):
    history = in_two_dimensions().run(tmp_path / "run.db", scheduler="serial")
    id = int(history[-1].ids[-1])
    assert cli.main(["replay", str(tmp_path / "run.db"), str(id), "--trust"]) == 0
    output = capsys.readouterr().out
    assert f"evaluation  {history[-1].level[-1]}:{id}" in output
    assert cli.main(["show", str(tmp_path / "run.db")]) == 0
    assert "ABCAMIS" in capsys.readouterr().out


def test_densities_of_many_simulations_are_computed_by_workers(tmp_path, monkeypatch):
    quiet = in_two_dimensions().run(tmp_path / "quiet.db", scheduler="serial")
    monkeypatch.setattr(amis, "_MOST_PAIRS", 1000)
    jobs, opened = [], Run._open_densities
    monkeypatch.setattr(Run, "_open_densities", lambda self, level: jobs.append(level) or opened(self, level))
    history = in_two_dimensions().run(tmp_path / "run.db", scheduler=Simulated(3, lambda *_: 1.0, loss=0.1))
    assert problems.digests(history) == problems.digests(quiet)
    assert len(jobs) == 3


def rejecting(theta, rng):
    return mpiabc.REJECT


MIXED = mpiabc.Prior(mu=mpiabc.Normal(0, 2), k=mpiabc.Integer(0, 3))
WRONG = {
    "several models": (lambda: mpiabc.ABCAMIS([problems.problem()], 100), "ABCAMIS with .* one problem"),
    "too few": (lambda: sampler(simulations=3), "simulations=3: give a whole number of at least"),
    "no batches": (lambda: sampler(batches=0), "batches=0: give a whole number of at least 1"),
    "half a particle": (lambda: sampler(population_size=0.5), "population_size=0.5: give a whole number"),
    "a seed below 0": (lambda: sampler(seed=-1), "seed=-1: give a whole number of at least 0"),
    "integers": (
        lambda: mpiabc.ABCAMIS(mpiabc.Problem(MIXED, problems.gaussian, {"y": 1.0}), 100),
        "ABCAMIS with prior=.* has integers, choices or shares",
    ),
    "a prior of one's own": (
        lambda: mpiabc.ABCAMIS(mpiabc.Problem(problems.Flat(), problems.gaussian, {"y": 1.0}), 100),
        "ABCAMIS with prior=Flat, which does not say that its densities are normalised",
    ),
    "epsilon": (
        lambda: sampler(simulate=lambda theta, rng, *, epsilon: None),
        "ABCAMIS with a simulator that takes epsilon",
    ),
    "a batch that does not fit": (
        lambda: sampler(simulate=rows_of, vectorized=True, batch=512),
        "simulations=400 in batches=4, .*batch=512 at once: give a multiple of 512",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_refused_in_a_sentence(wrong):
    make, said = WRONG[wrong]
    with pytest.raises(mpiabc.ProblemError, match=said):
        make()


def nowhere(theta, rng):
    raise RuntimeError("the pump broke")


def two_numbers(simulated, observed):
    return {"y": abs(simulated["y"] - observed["y"]), "more": 0.0}


LATE = {
    "static": ({}, {"scheduler": Map(map)}, "ABCAMIS with static scheduling"),
    "REJECT": ({"simulate": rejecting}, {}, "REJECT, and ABCAMIS weighs all that is simulated"),
    "several distances": ({"distance": two_numbers}, {}, "the distance gave 2 numbers, and ABCAMIS"),
    "no rule": ({}, {"generations": 0}, "generations=0: give a whole number of at least 1"),
    "nothing inside": ({"simulate": nowhere, "on_error": "reject"}, {}, "none of the 100 ids"),
}


@pytest.mark.parametrize("wrong", LATE)
def test_what_cannot_run_is_refused_and_leaves_no_file(wrong, tmp_path):
    of_problem, options, said = LATE[wrong]
    with pytest.raises(mpiabc.ProblemError, match=said):
        sampler(**of_problem).run(tmp_path / "run.db", **({"scheduler": "serial"} | options))
    assert not list(tmp_path.iterdir())


TOGETHER = {
    "vectorised": {"simulate": rows_of, "vectorized": True},
    "in batches": {"simulate": rows_of, "vectorized": True, "batch": 256, "simulations": 1024},
    "a callable distance": {"distance": far},
    "numbers as the scale": {"distance": mpiabc.PNorm(scale={"y": 2.0})},
    "another scale": {"distance": mpiabc.PNorm(p=1, scale="std")},
    "failures rejected": {"on_error": "reject"},
    "timeout": {"timeout": 60.0},
}


@pytest.mark.long
@pytest.mark.parametrize("setting", TOGETHER)
def test_what_goes_with_it(setting, tmp_path):
    def run(name, scheduler):
        return problems.digests(
            sampler(**TOGETHER[setting]).run(tmp_path / f"{name}.db", 3, scheduler=scheduler)
        )

    one, other = run("one", "serial"), run("other", Simulated(7, random_time))
    assert one == other
    assert len(one) == 3


def test_a_simulator_may_return_its_distance(tmp_path):
    def simulate(theta, rng):
        return abs(theta["mu"] - 1.0 + rng.standard_normal())

    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate)
    abc = mpiabc.ABCAMIS(problem, 400, batches=4, population_size=30, seed=1)
    history = abc.run(tmp_path / "run.db", 3, scheduler="serial")
    again = abc.run(tmp_path / "run.db", scheduler="serial")
    assert (len(history), len(again)) == (4, 4)
    assert again[-1].distances.max() == again[-1].epsilon < 0.5


def test_a_constrained_prior_gives_the_evidence_of_what_it_leaves():
    """where mu > 0 is a half-normal prior: its evidence is that of the problem written so."""
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2), where=lambda theta: theta["mu"] > 0)
    problem = mpiabc.Problem(
        prior, rows_of, {"y": 1.0}, distance=mpiabc.PNorm(scale={"y": 1.0}), vectorized=True
    )
    abc = mpiabc.ABCAMIS(problem, 1000, batches=4, population_size=60)
    found = []
    for seed in range(12):
        run = replace(abc._planner({"seed": seed}), inside=0.5)
        p = played(abc, seed, planner=run)[-1].last
        found.append(np.exp(p.log_evidence) / (2 * p.epsilon) - 1)
        assert (p.theta > 0).all()
    exact = 2 * stats.norm(0, 5**0.5).pdf(1.0) * stats.norm.cdf(0.8 / 0.8**0.5)
    assert abs(np.mean(found) + 1 - exact) < 4 * np.std(found) / 12**0.5
