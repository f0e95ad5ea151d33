"""Recycling beside plain ABC-SMC at the same N and seeds: bias of mean and evidence, and what is saved.

    python -m tests.recycled [--replicates 1000] [--sizes 64 256] [--targets line ...]

A row for each way of weighting, the wrong ones too: bias of the mean in standard deviations of the exact
posterior, of the deviation and of the evidence relative to the exact ones, each with its standard error, and
beside that of plain; then the mean effective sample size, simulations, and what simulations an effective
particle takes beside plain.
"""

import argparse
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
from scipy import stats

import mpiabc
from mpiabc import recycling
from mpiabc.actions import Commit, Done, Open
from mpiabc.cli.words import table
from mpiabc.evaluate import Evaluator
from mpiabc.kernels.gaussian import default_scale
from mpiabc.planner import Planner
from mpiabc.run import Run
from mpiabc.stopping import Stopping
from mpiabc.streams import stream_key
from tests import problems


@dataclass(frozen=True)
class Target:
    """A problem with an exact answer for each of its parameters, and thresholds for it."""

    d: int
    prior: Any  # of each parameter
    observed: float
    noise: float
    thresholds: tuple

    def problem(self):
        """Distances by the largest difference, so that the posterior is a product."""
        prior = mpiabc.Prior(**{f"x{i}": self.prior for i in range(self.d)})

        def simulate(theta, rng):
            y = np.stack(list(theta.values()), axis=1)
            return y + self.noise * rng.standard_normal(y.shape)

        data = np.full(self.d, self.observed)
        return mpiabc.Problem(prior, simulate, data, vectorized=True, distance=mpiabc.PNorm(p=np.inf))

    def sampler(self, n, weights=None):
        """Plain if no weights are given."""
        options = {"recycle": True, "weights": weights} if weights else {}
        kernel = mpiabc.Gaussian(scale=default_scale(self.d))  # what is measured stands with it
        options = {"kernel": kernel, "threshold": mpiabc.Listed(self.thresholds), "seed": 0} | options
        return mpiabc.ABCSMC(self.problem(), n, **options)

    def exact(self):
        """Mean and deviation of each parameter, and the evidence."""
        posterior = problems.Posterior(self.prior, self.observed, self.thresholds[-1], self.noise)
        mean = posterior.expect(lambda x: x)
        return mean, np.sqrt(posterior.expect(np.square) - mean**2), posterior.evidence**self.d


TARGETS = {
    "line": Target(1, stats.norm(0, 2), 4.0, 1.0, (8, 5, 3, 2, 1.2, 0.7, 0.4)),
    "edge": Target(1, stats.uniform(-2, 3), 1.0, 0.5, (3, 2, 1.2, 0.8, 0.5, 0.3)),
    "box of 2": Target(2, stats.norm(0, 1), 1.0, 0.5, (2.5, 1.7, 1.2, 0.8, 0.5, 0.3)),
    "box of 5": Target(5, stats.norm(0, 1), 1.0, 1.0, (3.2, 2.5, 2, 1.6, 1.3)),
    "box of 10": Target(10, stats.norm(0, 1), 1.0, 1.0, (3.5, 2.8, 2.3, 1.9, 1.6)),
}


def populations(sampler, seed, generations=None, lookahead=False):
    """The populations of a run, by its pure loop alone."""
    problem = sampler.problem
    key, size = stream_key(seed), sampler.population_size
    parts = sampler.kernel, sampler.threshold
    planner = Planner(problem.prior, *parts, key, size, False, sampler.weights, problem.step)
    planner = replace(planner, lookahead=lookahead)
    run = Run(problem, planner, Stopping(generations=generations))
    found, actions = [], run.advance()
    while True:
        for action in actions:
            if isinstance(action, Open):
                ledger, evaluate = action.ledger, Evaluator(problem, action.order)
                if lookahead:  # chains that the run has followed are not followed twice
                    evaluate._coupled = run._settler.coupled
            elif isinstance(action, Commit):
                found.append(action.population)
        if any(isinstance(action, Done) for action in actions):
            return found
        if isinstance(actions[-1], Commit) or (not isinstance(actions[-1], Open) and ledger.complete):
            actions = run.advance()
            continue
        lease = ledger.lease(max(1, int(1.1 * ledger.expected)))
        actions = run.advance([evaluate(lease.start, lease.stop)])


# The wrong ways, each switched on for a while.


def _own_kept(proposal, theta, centres):
    return proposal.logpdf(theta[centres])


def _by_ess(rows, tried, how):
    log_weights = rows.log_weights.copy()
    for level in np.unique(rows.level):
        own = rows.level == level
        weights = np.exp(log_weights[own] - log_weights[own].max())
        log_weights[own] += np.log(weights.sum() / np.square(weights).sum()) - log_weights[own].max()
    return log_weights


def _full_evidence(log_weights, tried, is_static):
    return float(np.log(np.exp(log_weights).sum() / tried))


WAYS = {
    "plain": (None, {}),
    "balance": ("balance", {}),
    "levels": ("levels", {}),
    "own kernel kept": ("balance", {"log_others": _own_kept}),
    "masses by ESS": ("levels", {"log_weights": _by_ess}),
    "full m_l in the evidence": ("balance", {"_log_evidence": _full_evidence}),
}


def switched(wrong):
    """These functions of recycling instead of its own, for a while."""
    return mock.patch.multiple(recycling, **wrong) if wrong else nullcontext()


def measured(n, way, replicates, target="line"):
    """Errors of mean, deviation and evidence, effective sample size, simulations: (replicates, 5)."""
    weights, wrong = WAYS[way]
    mean, deviation, evidence = TARGETS[target].exact()
    sampler, found = TARGETS[target].sampler(n, weights), []
    with switched(wrong):
        for seed in range(replicates):
            all_of_them = populations(sampler, seed)
            last = all_of_them[-1]
            errors = [np.mean((last.mean() - mean) / deviation), np.mean(last.std() / deviation) - 1]
            simulations = sum(population.simulations for population in all_of_them)
            found.append([*errors, np.exp(last.log_evidence) / evidence - 1, last.ess, simulations])
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--targets", choices=TARGETS, nargs="+", default=["line"])
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=[way for way in WAYS if way != "plain"])
    options = parser.parse_args()
    heads = ["target", "N", "weights", "mean", "beside plain", "deviation", "evidence", "ess", "simulations"]
    rows = [[*heads, "for each"]]
    for target, n in product(options.targets, options.sizes):
        plain = measured(n, "plain", options.replicates, target)
        for way in ("plain", *options.ways):
            found = plain if way == "plain" else measured(n, way, options.replicates, target)
            cells = [_with_error(found[:, 0]), _with_error(found[:, 0] - plain[:, 0])]
            cells += [_with_error(found[:, 1]), _with_error(found[:, 2])]
            ess, simulations = found[:, 3].mean(), found[:, 4].mean()
            share = simulations / ess / (plain[:, 4].mean() / plain[:, 3].mean())
            rows.append([target, str(n), way, *cells, f"{ess:.1f}", f"{simulations:.0f}", f"{share:.2f}"])
    print(table(rows))


def _with_error(values):
    return f"{values.mean():+.4f} +- {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


if __name__ == "__main__":
    main()
