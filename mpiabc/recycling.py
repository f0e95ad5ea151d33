"""Recycling: an earlier acceptance that also meets the new threshold is kept, not simulated again.

Ids go on from level to level. A population is the survivors of the one before and the first new acceptances
in id order, so its rows come from several levels, each with a proposal q_l of its own. They are weighted as
draws from the mixture of all levels (the balance heuristic: Veach and Guibas 1995; deterministic mixtures:
Owen and Zhou 2000, doi:10.1080/01621459.2000.10473909),

    w_i = prior(theta_i) / sum_l (n_l / n) q_l(theta_i),        n_l the ids tried at level l, n all of them

with the kernel that stands on a particle itself left out of q_l: it was put there because of the particle.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpiabc.errors import ProblemError
from mpiabc.particles import Particles, nearness, within
from mpiabc.population import Population

BALANCE, LEVELS = WEIGHTS = ("balance", "levels")
_MOST_PAIRS = 3_000_000  # that one process goes through: some 50 ms
_LEAST_CENTRES = 10  # times d: fewer survivors are no base for a kernel


def base(population: Population, epsilon: Any, is_near: np.ndarray | None = None) -> Population:
    """What the next proposal is fitted to: the survivors, or the nearest particles if these are too few.

    is_near: which of them survive, if that is not said by their distances alone.
    """
    n, d = population.theta.shape
    is_near = within(population.distances, epsilon) if is_near is None else is_near
    if np.count_nonzero(is_near) < min(n, _LEAST_CENTRES * d):
        is_near = np.zeros(n, bool)
        nearest = np.lexsort((population.ids, nearness(population.distances, epsilon)))
        is_near[nearest[: _LEAST_CENTRES * d]] = True
    return population.taken(is_near)


def with_density(rows: Particles, log_density: np.ndarray) -> Particles:
    """Rows that one more level knows of, with its density."""
    log_densities = np.column_stack([rows.log_densities, log_density])
    return rows.weighed(rows.log_weights, log_densities)


def are_dear(proposal: Any, theta: np.ndarray, centres: np.ndarray) -> bool:
    """Whether what `log_others` computes should be shared among workers, which get the same bits."""
    is_shareable = getattr(proposal, "is_rowwise", False) and hasattr(proposal, "log_others")
    return is_shareable and theta.shape[1] > 1 and len(centres) * len(theta) > _MOST_PAIRS


def log_others(proposal: Any, theta: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Log density (k,) of a proposal at some of the particles (N, d) that it was fitted to.

    A mixture with a kernel on each of them leaves the particle's own one out.
    """
    others = getattr(proposal, "log_others", None)
    found = np.asarray(proposal.logpdf(theta[centres]) if others is None else others(centres), np.float64)
    if found.shape != (len(centres),) or not (found < math.inf).all():
        raise ProblemError(
            f"the kernel's proposal gave {'log_others' if others else 'logpdf'} of shape {found.shape}, or "
            f"nan or infinite, at {len(centres)} particles that it was fitted to, expected a finite number "
            "each: recycling weighs them by it"
        )
    return found


def log_weights(rows: Particles, tried: Sequence[int], how: str | None) -> np.ndarray:
    """Log weights (m,) of rows from several levels, of which so many ids were tried each.

    Rows of one level have those that they came with.
    """
    levels = np.unique(rows.level)
    if len(levels) == 1:
        return rows.log_weights
    if how == LEVELS:
        shares = np.zeros(len(tried))
        for level in levels:
            own = rows.log_weights[rows.level == level]
            shares[level] = math.log(len(own)) - _log_sum(own)
        return rows.log_weights + shares[rows.level]
    with np.errstate(divide="ignore"):
        shares = np.log(np.array(tried, float) / sum(tried))
    return rows.log_densities[:, 0] - _log_sum(rows.log_densities + shares)


def log_evidence(rows: Particles, tried: Sequence[int], stop: str = "cut") -> float:
    """Log evidence: the mean of the levels' own estimates, by how many rows each has brought.

    stop: what the last level's ids ended with, "cut", "slots", or a "budget"; those before with their cuts.
    """
    parts = []
    for level in np.unique(rows.level):
        own = rows.log_weights[rows.level == level]
        ended = stop if level == len(tried) - 1 else "cut"
        parts.append(math.log(len(own) / len(rows)) + _log_evidence(own, tried[level], ended))
    return parts[0] if len(parts) == 1 else float(_log_sum(np.array(parts)))


def _log_evidence(log_weights: np.ndarray, tried: int, stop: str) -> float:
    """Of the first m - 1 weights and ids: an acceptance has chosen the last id, so m / tried is too large.

    A budget has chosen none.
    """
    m, highest = len(log_weights), log_weights.max()
    weights = np.exp(log_weights - highest)
    if stop == "budget":
        return float(highest + np.log(weights.mean()) + math.log(m / tried))
    if m == 1:
        return -math.inf
    mean = weights.mean() if stop == "slots" else weights[:-1].mean()
    with np.errstate(divide="ignore"):
        return float(highest + np.log(mean) + math.log((m - 1) / max(1, tried - 1)))


def _log_sum(exponents: np.ndarray) -> np.ndarray:
    """log sum exp over the last axis."""
    highest = exponents.max(axis=-1, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(exponents - highest).sum(axis=-1)) + highest[..., 0]
