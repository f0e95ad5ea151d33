"""Posteriors against closed forms, and proof that the checks would notice a wrong algorithm."""

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import run
from mpiabc.evaluate import Evaluator
from mpiabc.kernels.mixture import GaussianMixture
from mpiabc.ledger import Ledger
from mpiabc.particles import joined
from tests import problems
from tests.cluster import Simulated

SEEDS = 200
MOMENTS = {"mean": lambda x: x, "second moment": np.square, "probability": lambda x: x > 0.5}


def edge(theta, rng):
    return {"y": theta["mu"] + 0.5 * rng.standard_normal()}


TARGETS = {
    "Gaussian mean, hard threshold": (
        problems.problem(),
        problems.Posterior(stats.norm(0, 2), 1.0, 0.8),
    ),
    "uniform prior, data at the edge": (
        mpiabc.Problem(mpiabc.Prior(mu=stats.uniform(-2, 3)), edge, {"y": 1.0}),
        problems.Posterior(stats.uniform(-2, 3), 1.0, 0.8, 0.5),
    ),
}


def replicates(problem, folder, seeds=SEEDS, kernel=None, n=100):
    """The last populations of many short runs."""
    last = []
    for seed in range(seeds):
        abc = mpiabc.ABCSMC(problem, n, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=seed, kernel=kernel)
        last.append(abc.run(folder / "run.db", scheduler="serial", overwrite=True)[-1])
    return last


def z_scores(populations, exact):
    """Of each moment: how many standard errors the mean over replicates is from the truth."""
    scores = {}
    for name, f in MOMENTS.items():
        found = np.array([p.weights @ f(p["mu"]) for p in populations])
        scores[name] = (found.mean() - exact.expect(f)) / (found.std(ddof=1) / np.sqrt(len(found)))
    return scores


@pytest.mark.long
@pytest.mark.parametrize("kernel", [mpiabc.Gaussian(), mpiabc.LocalGaussian()], ids=repr)
@pytest.mark.parametrize("target", TARGETS)
def test_posterior_is_exact(tmp_path, target, kernel):
    """|z| < 4 for each moment (self-normalised weights are biased by O(1/N), here below 1 sigma)."""
    problem, exact = TARGETS[target]
    seeds = SEEDS if isinstance(kernel, mpiabc.Gaussian) else 60
    populations = replicates(problem, tmp_path, seeds, kernel)
    scores = z_scores(populations, exact)
    assert all(abs(z) < 4 for z in scores.values()), scores
    theta = np.concatenate([p["mu"] for p in populations])
    weights = np.concatenate([p.weights for p in populations]) / len(populations)
    order = np.argsort(theta)
    distance = np.abs(np.cumsum(weights[order]) - exact.cdf(theta[order])).max()
    assert distance < 2.0 / np.sqrt(sum(p.ess for p in populations))  # a KS test would reject at 1.6


@pytest.mark.long
@pytest.mark.parametrize("scheduling", ["serial", "static"])
def test_evidence_is_unbiased(tmp_path, scheduling):
    """At N = 20 the usual N / cut would be 5 % too large."""
    problem, exact = TARGETS["Gaussian mean, hard threshold"]
    scheduler = "serial" if scheduling == "serial" else mpiabc.schedulers.Map(map)
    found = []
    for seed in range(600):
        abc = mpiabc.ABCSMC(problem, 20, threshold=mpiabc.Listed([3, 0.8]), seed=seed)
        found.append(abc.run(tmp_path / "run.db", scheduler=scheduler, overwrite=True)[-1].log_evidence)
    evidence = np.exp(found)
    z = (evidence.mean() - exact.evidence) / (evidence.std() / np.sqrt(len(evidence)))
    assert abs(z) < 4
    naive = evidence * 20 / 19
    assert (naive.mean() - exact.evidence) / (naive.std() / np.sqrt(len(naive))) > 1


def slow_where_large(evaluator, id, rng):
    """Run time exp(2 theta)."""
    return float(np.exp(2 * evaluator.propose(id // 256).theta[id % 256, 0]))


def prior_means(folder, seeds=60):
    """64 workers, 64 particles, all accepted: the mean must be the prior's, 0."""
    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 1)), problems.gaussian, {"y": 0.0})
    means = []
    for seed in range(seeds):
        abc = mpiabc.ABCSMC(problem, 64, threshold=mpiabc.Constant(np.inf), seed=seed)
        scheduler = Simulated(64, slow_where_large)
        history = abc.run(folder / "run.db", generations=1, scheduler=scheduler, overwrite=True)
        means.append(float(history[-1].mean()["mu"]))
    return np.array(means)


@pytest.mark.long
def test_run_times_that_depend_on_theta_leave_no_bias(tmp_path):
    means = prior_means(tmp_path)
    assert abs(means.mean()) < 4 / np.sqrt(64 * len(means))


# The checks above can fail: each wrong algorithm is switched on and must be noticed.


@pytest.mark.long
def test_finish_order_would_be_noticed(tmp_path, monkeypatch):
    class FinishOrder(Ledger):
        complete = property(lambda self: self.accepted == self.size)

        def population(self):
            parts = [records.rows for records in self._records]
            return joined(parts).take(np.arange(self.size))

        def counts(self):
            return self.known, self.known

    monkeypatch.setattr(run, "Ledger", FinishOrder)
    means = prior_means(tmp_path, 20)
    assert means.mean() < -4 / np.sqrt(64 * len(means))


@pytest.mark.long
def test_weights_without_the_prior_would_be_noticed(tmp_path, monkeypatch):
    problem, exact = TARGETS["Gaussian mean, hard threshold"]
    right = Evaluator._weigh

    def wrong(self, accepted, outcome):
        rows = right(self, accepted, outcome)
        if not self.order.level:
            return rows
        return rows.weighed(rows.log_weights - problem.prior.logpdf(rows.theta), rows.log_densities)

    monkeypatch.setattr(Evaluator, "_weigh", wrong)
    assert any(abs(z) > 4 for z in z_scores(replicates(problem, tmp_path, 60), exact).values())


@pytest.mark.long
def test_redrawing_the_perturbation_alone_would_be_noticed(tmp_path, monkeypatch):
    """Keeping the parent until its child is inside the support gives edge parents too many children."""
    problem, exact = TARGETS["uniform prior, data at the edge"]

    def redraw(self, n, rng):
        parents = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        theta = self.centres[parents] + rng.standard_normal((n, 1)) * self.cholesky[0, 0]
        while (out := np.flatnonzero(problem.prior.logpdf(theta) == -np.inf)).size:
            theta[out] = self.centres[parents[out]] + rng.standard_normal((out.size, 1)) * self.cholesky[0, 0]
        return theta

    monkeypatch.setattr(GaussianMixture, "sample", redraw)
    assert any(abs(z) > 4 for z in z_scores(replicates(problem, tmp_path), exact).values())
