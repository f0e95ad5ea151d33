"""Adaptive multiple importance sampling (Cornuet et al. 2012): all simulations of a run, weighted together.

    w_i     = prior(theta_i) / sum_t n_t q_t(theta_i),   n_t the ids drawn in batch t, outside the support too
    nearest = the least number by distance with ESS(w) >= min(N, ESS of all / 2)
    q_t+1   = .9 (1 / J) sum_j N(m + sqrt(1 - h²) (theta_j - m), 1.2 h² C) + .1 prior

with weighted mean m and covariance C of the nearest, J of them, theta_j, by systematic resampling, and
h = min(.95, 1.3 (ESS / 2)^(-1 / (d + 4))). Consistent, not unbiased: a proposal depends on earlier draws.
doi:10.1111/j.1467-9469.2011.00756.x

A batch adds one term to the sums, which are kept as logarithms: nothing is computed twice.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from mpiabc.defended import Defended
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.kernels.covariance import covariance, factored
from mpiabc.kernels.mixture import GaussianMixture
from mpiabc.particles import Particles, joined
from mpiabc.population import effective_sample_size

MOST_CENTRES = 800  # of a proposal
SHARE = 0.1  # of the prior in it, which bounds every weight
_WIDEST, _WIDTH, _WIDENED = 0.95, 1.3, 1.2  # of kernels, in standard deviations; of their covariance
_MOST_PAIRS = 3_000_000  # of rows and centres that one process goes through: some 50 ms


@dataclass(frozen=True, eq=False)
class Pool:
    """All simulations so far, in id order, n of them.

    parts: those of each batch, without any of which nothing came; `log_densities` (m, 1) is the log prior.
    log_mixture (n,): log sum_t n_t q_t. distances (n,): as they were measured last.
    """

    parts: tuple[Particles, ...] = ()
    log_mixture: np.ndarray = field(default_factory=lambda: np.empty(0))
    distances: np.ndarray = field(default_factory=lambda: np.empty(0))
    drawn: int = 0  # ids

    def __len__(self) -> int:
        return len(self.log_mixture)

    @cached_property
    def theta(self) -> np.ndarray:
        """(n, d)."""
        return np.concatenate([part.theta for part in self.parts])

    @cached_property
    def log_prior(self) -> np.ndarray:
        """(n,)."""
        return np.concatenate([part.log_densities[:, 0] for part in self.parts])

    @property
    def log_weights(self) -> np.ndarray:
        """Log weights (n,), which are those of one sum over all that was drawn."""
        return self.log_prior - self.log_mixture

    @quiet
    def seen_by(self, log_density: np.ndarray, n: int) -> "Pool":
        """The pool beside which so many ids are drawn, from a proposal of this log density (n,) at it."""
        return replace(self, log_mixture=np.logaddexp(self.log_mixture, math.log(n) + log_density))

    @quiet
    def with_batch(self, rows: Particles, drawn: tuple[int, ...]) -> "Pool":
        """With the rows of a batch, whose `log_densities` (m, t + 1) are those of all proposals.

        drawn: the ids of all batches; the pool was `seen_by` the last of them.
        """
        if not len(rows):
            return replace(self, drawn=sum(drawn))
        log_mixture = np.logaddexp.reduce(rows.log_densities + np.log(drawn), axis=1)
        part = rows.weighed(rows.log_densities[:, 0] - log_mixture, rows.log_densities[:, :1].copy())
        return Pool(
            (*self.parts, part),
            np.concatenate([self.log_mixture, log_mixture]),
            np.concatenate([self.distances, rows.distances]),
            sum(drawn),
        )

    def arrays(self) -> list[np.ndarray]:
        """What a file has of it, besides the simulations."""
        return [self.log_prior, self.log_mixture, self.distances]

    def take(self, rows: np.ndarray) -> Particles:
        """Those of an index in ascending order, weighted as draws from the mixture of all proposals."""
        ends = np.cumsum([0, *map(len, self.parts)]).tolist()
        bounds = np.searchsorted(rows, ends)
        found = [
            part.take(rows[low:high] - end)
            for part, end, (low, high) in zip(self.parts, ends, pairwise(bounds), strict=False)
            if high > low
        ]
        log_prior, log_mixture = self.log_prior[rows], self.log_mixture[rows] - math.log(self.drawn)
        densities = np.column_stack([log_prior, log_mixture])
        return replace(
            joined(found).weighed(log_prior - log_mixture, densities), distances=self.distances[rows]
        )


@quiet
def nearest(distances: np.ndarray, log_weights: np.ndarray, size: int) -> np.ndarray:
    """An index of the least number by distance with ESS >= min(size, ESS of all / 2), in ascending order.

    Of equal distances all are taken: which of them came first must not matter.
    """
    order = np.argsort(distances, kind="stable")
    w = np.exp(log_weights[order] - log_weights.max())
    ess = np.square(np.cumsum(w)) / np.cumsum(np.square(w))
    is_enough = ess >= min(size, ess[-1] / 2) * (1 - 1e-9)  # equal weights may lack the last bit
    last = order[int(np.argmax(is_enough)) if is_enough.any() else -1]
    return np.flatnonzero(distances <= distances[last])


@quiet
def proposal(theta: np.ndarray, weights: np.ndarray, prior: Any) -> Defended:
    """The next batch's: a mixture of Gaussians around the nearest theta (n, d), and a share of the prior.

    weights (n,) sum to 1. Raises ProblemError for parameters that do not differ.
    """
    (n, d), ess = theta.shape, effective_sample_size(weights)
    mean = np.einsum("n,nd->d", weights, theta)
    delta = theta - mean
    h = min(_WIDEST, _WIDTH * (ess / 2) ** (-1 / (d + 4)))
    if not (np.diagonal(matrix := covariance(delta, weights)) > 0).all():
        raise ProblemError(
            "the nearest simulations have the same value of a parameter, so no proposal fits: give more "
            "simulations, or fewer batches"
        )
    factor, is_diagonal = factored(matrix)
    chosen = systematic(weights, min(MOST_CENTRES, n))
    centres = mean + math.sqrt(1 - h**2) * delta[chosen]
    equal = np.full(len(centres), 1 / len(centres))
    mixture = GaussianMixture(centres, equal, math.sqrt(_WIDENED) * h * factor, is_diagonal=is_diagonal)
    return Defended(mixture, prior, SHARE)


def systematic(weights: np.ndarray, n: int) -> np.ndarray:
    """`n` indices, each about n w_i times, by the middles of n equal parts of the weights' sum."""
    cumulative = np.cumsum(weights)
    places = (np.arange(n) + 0.5) / n * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, places), len(weights) - 1)


def are_dear(part: GaussianMixture, n: int) -> bool:
    """Whether the densities of n rows should be shared among workers, which get the same bits."""
    return part.centres.shape[1] > 1 and n * len(part.centres) > _MOST_PAIRS
