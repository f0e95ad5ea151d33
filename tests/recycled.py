"""Recycling beside plain ABC-SMC at the same N and seeds: bias of mean and evidence, and what is saved.

    python -m tests.recycled [--replicates 1000] [--sizes 64 256]

A row for each way of weighting, the wrong ones too: bias of the mean in standard deviations of the exact
posterior, of the deviation and of the evidence relative to the exact ones, each with its standard error, and
beside that of plain; then the mean effective sample size, and simulations.
"""

import argparse
from contextlib import nullcontext
from unittest import mock

import numpy as np
from scipy import stats

import mpiabc
from mpiabc import recycling
from mpiabc.actions import Commit, Done, Open
from mpiabc.cli.words import table
from mpiabc.evaluate import Evaluator
from mpiabc.planner import Planner
from mpiabc.run import Run
from mpiabc.stopping import Stopping
from mpiabc.streams import BLOCK, stream_key
from tests import problems

OBSERVED = 4.0  # two deviations from the prior's mean
THRESHOLDS = (8, 5, 3, 2, 1.2, 0.7, 0.4)


def populations(sampler, seed, generations=None):
    """The populations of a run, by its pure loop alone."""
    problem = sampler.problem
    step = BLOCK if problem.vectorized else 1
    key, size = stream_key(seed), sampler.population_size
    parts = sampler.kernel, sampler.threshold
    planner = Planner(problem.prior, *parts, key, size, False, sampler.weights, step)
    run = Run(problem, planner, Stopping(generations=generations))
    found, actions = [], run.advance()
    while True:
        for action in actions:
            if isinstance(action, Open):
                ledger, evaluate = action.ledger, Evaluator(problem, action.order)
            elif isinstance(action, Commit):
                found.append(action.population)
        if any(isinstance(action, Done) for action in actions):
            return found
        if isinstance(actions[-1], Commit) or (not isinstance(actions[-1], Open) and ledger.complete):
            actions = run.advance()
            continue
        lease = ledger.lease(max(1, int(1.1 * ledger.expected)))
        actions = run.advance([evaluate(lease.start, lease.stop)])


def sampler(n, weights=None, thresholds=THRESHOLDS):
    """Target 1 of the statistics with seven thresholds."""
    problem = problems.problem(problems.gaussian_vectorized, observed=OBSERVED, vectorized=True)
    options = {"recycle": True, "weights": weights} if weights else {}
    return mpiabc.ABCSMC(problem, n, threshold=mpiabc.Listed(thresholds), seed=0, **options)


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


def measured(n, way, replicates):
    """Mean, deviation, evidence, effective sample size and simulations of each replicate, (replicates, 5)."""
    weights, wrong = WAYS[way]
    exact = problems.Posterior(stats.norm(0, 2), OBSERVED, THRESHOLDS[-1])
    found = []
    with switched(wrong):
        for seed in range(replicates):
            all_of_them = populations(sampler(n, weights), seed)
            last = all_of_them[-1]
            simulations = sum(population.simulations for population in all_of_them)
            found.append(
                [last.mean()["mu"], last.std()["mu"], np.exp(last.log_evidence), last.ess, simulations]
            )
    mean = exact.expect(lambda x: x)
    deviation = np.sqrt(exact.expect(np.square) - mean**2)
    found = np.array(found)
    found[:, 0] = (found[:, 0] - mean) / deviation
    found[:, 1] = found[:, 1] / deviation - 1
    found[:, 2] = found[:, 2] / exact.evidence - 1
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    options = parser.parse_args()
    rows = [["N", "weights", "mean", "beside plain", "deviation", "evidence", "ess", "simulations"]]
    for n in options.sizes:
        plain = measured(n, "plain", options.replicates)
        for way in WAYS:
            found = plain if way == "plain" else measured(n, way, options.replicates)
            told = [_with_error(found[:, 0]), _with_error(found[:, 0] - plain[:, 0])]
            told += [_with_error(found[:, 1]), _with_error(found[:, 2])]
            rows.append([str(n), way, *told, f"{found[:, 3].mean():.1f}", f"{found[:, 4].mean():.0f}"])
    print(table(rows))


def _with_error(values):
    return f"{values.mean():+.4f} +- {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


if __name__ == "__main__":
    main()
