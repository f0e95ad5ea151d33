"""ABCAMIS: a budget in batches, all of whose simulations are weighted together (Cornuet et al. 2012)."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import amis
from mpiabc.actions import Done, Open
from mpiabc.defended import Defended
from mpiabc.pooling import PoolingPlanner
from mpiabc.run import Run
from mpiabc.stopping import Stopping
from tests import problems


def rows_of(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(theta["mu"].shape)}


def sampler(simulations=400, batches=4, population_size=30, seed=1, simulate=problems.gaussian, **options):
    problem = problems.problem(simulate, **options)
    return mpiabc.ABCAMIS(problem, simulations, batches=batches, population_size=population_size, seed=seed)


def played(abc, seed=1, proposals=()):
    """The past after each batch of a run without a file; with these proposals, if they are given."""
    planner = abc._planner({"seed": seed})
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
