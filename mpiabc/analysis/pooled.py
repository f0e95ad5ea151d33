"""All simulations weighted together, as draws from the mixture of all proposals (Cornuet et al. 2012).

    w(theta) = prior(theta) / sum_t n_t q_t(theta),    n_t the ids drawn in generation t, outside of the
                                                       prior's support too; q_0 is the prior

Whatever was simulated counts, at whatever level: a threshold is chosen afterwards, by distance. As in
`recycling`, the component of q_t that stands on a simulation itself is left out of it: it was put there
because of that simulation. Proposals are those of kept orders, and nothing that a file holds is executed.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mpiabc import recycling
from mpiabc.acceptors import Uniforms
from mpiabc.analysis import gathered
from mpiabc.analysis.weighted import Weighted
from mpiabc.defended import mixed, undefended
from mpiabc.errors import ProblemError, StoreError
from mpiabc.models import AnyProblem
from mpiabc.order import acceptor_of, distance_of, epsilon_of, has_foreign_distance, restored
from mpiabc.population import Population
from mpiabc.priors.joint import drawn
from mpiabc.problem import Problem, described
from mpiabc.simulations import Simulations
from mpiabc.store import History
from mpiabc.streams import stream_key

_BLOCK = 65_536  # rows whose densities are computed at once


class Pooled(NamedTuple):
    """All simulations of a run, what each weighs, and how far it is by the last distance."""

    rows: Simulations
    log_prior: np.ndarray  # (n,)
    log_weights: np.ndarray  # (n,): log prior - log of the mixture's density, times nothing else
    distances: np.ndarray  # (n,), or (n, m) of several, all measured by one distance


def pooled(history: History, problem: AnyProblem) -> Pooled:
    """All simulations of a run with keep="all", weighted as one mixture; `problem`: the run's own.

    Where a distance is fitted to simulations all are measured anew by the last one; of a noise model the
    weights have the data's density at temperature 1. It takes the time of n N T kernels, N particles in each
    of T generations. Raises ProblemError for priors and kernels whose densities may not be normalised.
    """
    check(history, problem)
    rows = history.simulations.rows()
    if (found := history.pool(len(history) - 1)) is not None:  # of `ABCAMIS`, which has weighted them
        log_prior, log_mixture, distances = found
        return Pooled(rows, log_prior, log_prior - log_mixture, distances)
    log_prior = _by_block(problem.prior.logpdf, drawn(problem.prior, rows))
    log_q = _log_mixture(history, problem, rows, log_prior)
    distances = _measured(history, problem, rows)
    log_weights = log_prior - log_q
    if history.settings.get("acceptor") is not None:
        log_weights = log_weights - distances  # -log p(observed | simulated)
    return Pooled(rows, log_prior, log_weights, distances)


def check(history: History, problem: AnyProblem) -> None:
    """Raise ProblemError for a run whose simulations cannot be weighted together."""
    if not getattr(problem.prior, "is_normalised", False):
        raise ProblemError(
            f"the simulations of {history.path} cannot be pooled: prior={described(problem.prior)} does not "
            "say that its densities are normalised; set its is_normalised = True if they are, or take the "
            f"last population alone, history.posterior({len(history) - 1})"
        )


def _log_mixture(
    history: History, problem: AnyProblem, rows: Simulations, log_prior: np.ndarray
) -> np.ndarray:
    """Log of sum_t n_t q_t at all rows, (n,)."""
    x = drawn(problem.prior, rows)
    found = np.full(len(rows), -math.inf)
    for level, n in enumerate(history.simulations.tried):
        if n:
            log_q = log_prior if level == 0 else _log_density(history, problem, level, rows, x, log_prior)
            found = np.logaddexp(found, math.log(n) + log_q)
    return found


def _log_density(
    history: History,
    problem: AnyProblem,
    level: int,
    rows: Simulations,
    x: np.ndarray,
    log_prior: np.ndarray,
) -> np.ndarray:
    """Log density of a level's proposal at all rows, without the component that stands on a row itself."""
    base = base_of(history, level)
    proposal = proposal_of(history, problem, level, base)
    kernel = undefended(proposal)
    log_q = mixed(proposal, _by_block(kernel.logpdf, x), log_prior)
    own, centres = _centres(rows, base)
    if own.size and hasattr(kernel, "log_others"):
        others = recycling.log_others(kernel, base.theta, centres)
        log_q[own] = mixed(proposal, others, log_prior[own])
    return log_q


def _centres(rows: Simulations, base: Population) -> tuple[np.ndarray, np.ndarray]:
    """Which rows a proposal was fitted to, and which particles of its population they are."""
    place = {address: i for i, address in enumerate(zip(base.level.tolist(), base.ids.tolist(), strict=True))}
    near = np.flatnonzero(rows.accepted)
    pairs = zip(rows.level[near].tolist(), rows.ids[near].tolist(), strict=True)
    found = np.array([place.get(address, -1) for address in pairs], np.int64)
    return near[found >= 0], found[found >= 0]


def base_of(history: History, level: int) -> Population:
    """The population that a level's proposal was fitted to."""
    last, (text, _) = history[level - 1], _order(history, level)
    if history.settings.get("recycle") is None:
        return last
    key = stream_key(history.settings["seed"])
    epsilon = epsilon_of(text)
    return recycling.base(last, epsilon, acceptor_of(text).accept(last, epsilon, Uniforms(key)))


def proposal_of(history: History, problem: AnyProblem, level: int, base: Population) -> Any:
    """The proposal of a level from 1 on, as it was kept; base: the population that it was fitted to.

    Raises ProblemError for one that is not ours.
    """
    text, arrays = _order(history, level)
    if json.loads(text)["proposal"] is None:
        raise ProblemError(
            f"the simulations of {history.path} cannot be pooled: kernel={history.settings['kernel']} is not "
            "of mpiabc, so that the file does not hold its proposals; take the last population alone, "
            f"history.posterior({len(history) - 1}), or one of mpiabc's kernels in a new run"
        )
    return restored(text, arrays, base, problem.prior)["proposal"]


def _order(history: History, level: int) -> tuple[str, list[np.ndarray]]:
    found = history.order(level)
    if found is None:
        raise StoreError(f"{history.path} has lost what was decided for generation {level}, as it is damaged")
    return found


def _measured(history: History, problem: AnyProblem, rows: Simulations) -> np.ndarray:
    """Distances of all rows by the last distance; those that they came with, if it was one from the start."""
    text, arrays = _order(history, history.simulations.levels - 1)
    if has_foreign_distance(text):
        raise ProblemError(
            f"the simulations of {history.path} cannot be pooled: what "
            f"distance={described(problem.distance)} was fitted to is not of mpiabc, so that the file does "
            f"not hold it; take the last population alone, history.posterior({len(history) - 1})"
        )
    distance = distance_of(text, arrays)
    if distance is None:
        return rows.distances
    observed = problem.observed_row
    return np.concatenate([distance.rows(part, observed) for part in _blocks(rows.summaries)])


def _by_block(ask: Any, x: np.ndarray) -> np.ndarray:
    """What is said of rows, some thousands at a time."""
    return np.concatenate([np.asarray(ask(part), np.float64) for part in _blocks(x)])


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, max(1, len(x)), _BLOCK):
        yield np.asarray(x[start : start + _BLOCK], np.float64)


def weighted(history: History, problem: Any = None) -> Weighted:
    """All simulations of a run, of several models those of one, as what a posterior is made of.

    problem: as `History.posterior` takes it. What is near is chosen by distance, at whatever level a
    simulation was made; of a noise model all count. Raises ProblemError where the prior's density is not at
    hand; a file of `ABCAMIS` has it.
    """
    if history.pool(len(history) - 1) is not None:
        return gathered.of_population(history, len(history) - 1, problem)
    whole = _run_of(history, problem)
    found, (text, _) = pooled(history, whole), _order(history, history.simulations.levels - 1)
    names, rows = found.rows.names, np.arange(len(found.rows))
    if found.rows.models:
        m = gathered.index_of(history, problem)
        names, rows = found.rows.models[m].names, np.flatnonzero(found.rows.model == m)
    summaries = found.rows.summaries[rows]
    return Weighted(
        tuple(names),
        found.rows.theta[rows, : len(names)],
        found.log_weights[rows],
        found.distances[rows],
        summaries,
        gathered.observed_of(history, summaries),
        gathered.prior_of(history, problem, tuple(names)),
        int(json.loads(text)["size"]),
        gathered.unadjusted(history),
    )


def _run_of(history: History, problem: Any) -> AnyProblem:
    """The run's problem, or all its models. Raises ProblemError where neither is at hand."""
    if history.problem is not None:
        return history.problem
    models = history.settings.get("models")
    if isinstance(problem, Problem) and not models:
        return problem
    give = "let the process that has run it ask" if models else "give problem=problem"
    raise ProblemError(
        f"{history.path} has all simulations, whose weights need the prior's density: {give}, or take the "
        f"last population alone, history.posterior({len(history) - 1})"
    )
