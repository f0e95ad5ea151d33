"""Perturbation kernels (Toni et al. 2009; Beaumont et al. 2009): population in, proposal out.

A kernel is anything with `fit(population) -> proposal`, or `fit(population, prior)`; a proposal has
`sample(n, rng)` and `logpdf(theta)`. Both proposals here are mixtures of Gaussians, one component for each
particle (`mixture`). Factors and inverses are computed once, by `fit` in the leading process, on one thread,
and travel.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpiabc.arguments import added, real, whole
from mpiabc.defended import Defended
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.mixture import GaussianMixture, LocalGaussianMixture
from mpiabc.population import Population


class Proposal(Protocol):
    """A distribution of parameters to try."""

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d)."""
        ...

    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (m, d), (m,)."""
        ...


class Kernel(Protocol):
    """Fits a proposal to a population; one that needs the prior is written fit(population, prior).

    Recycling compares the densities of generations: it asks for `is_normalised = True`. A proposal with a
    component on each particle offers `log_others(rows)` too: its log density (k,) at the particles of an
    index, without the component that stands there.
    """

    def fit(self, population: Population) -> Proposal:
        """The proposal of the next generation."""
        ...


def default_scale(d: int) -> float:
    """Factor on the population's covariance: 1 up to d = 3, falling to 0.5 at d = 10.

    The textbook's 2 is optimal in the limit of a kernel-independent acceptance rate; measured per
    simulation, the effective sample size at d = 10 is 17.3 for 0.5, 11.5 for 1.0, 3.6 for 2.0.
    """
    return 1.0 if d <= 3 else max(0.5, 1.0 - 0.5 * (d - 3) / 7)


@dataclass(frozen=True)
class Gaussian:
    """Gaussian with the full weighted covariance of the population, times `scale`.

    `scale=None` chooses by dimension, see `default_scale`. `defensive`: the share of proposals that the
    prior draws, which bounds every weight by its inverse.
    """

    is_normalised = True

    scale: float | None = None
    defensive: float = added(0.0)

    def __post_init__(self) -> None:
        _check(self)

    def fit(self, population: Population, prior: Any = None) -> Proposal:
        """The mixture of equal Gaussians around the particles."""
        return _defended(self, self.mixture(population), prior)

    @quiet
    def mixture(self, population: Population) -> GaussianMixture:
        """The same without the prior's share."""
        theta, weights = population.theta, population.weights
        delta = theta - np.einsum("n,nd->d", weights, theta)
        covariance = np.einsum("n,ni,nj->ij", weights, delta, delta)
        covariance /= max(1e-12, 1.0 - np.square(weights).sum())
        scale = default_scale(theta.shape[1]) if self.scale is None else self.scale
        factor, is_diagonal = _cholesky(scale * covariance, population)
        return GaussianMixture(theta, weights, factor, is_diagonal=is_diagonal)


@dataclass(frozen=True)
class LocalGaussian:
    """Around each particle a Gaussian with the covariance of its k nearest neighbours.

    Filippi et al. (2013), section 3.3, "multivariate normal kernel with M nearest neighbours", with
    neighbours found in units of the population's standard deviation. `k=None` takes N / 4. `defensive` as in
    `Gaussian`.
    """

    is_normalised = True

    k: int | None = None
    scale: float | None = None
    defensive: float = added(0.0)

    def __post_init__(self) -> None:
        _check(self)
        if self.k is None:
            return
        k = whole(self.k)
        if k is None or k < 2:
            raise ProblemError(f"LocalGaussian(k={self.k!r}): give a whole number of at least 2 neighbours")
        object.__setattr__(self, "k", k)

    def fit(self, population: Population, prior: Any = None) -> Proposal:
        """The mixture of Gaussians, each with the covariance of its neighbourhood."""
        return _defended(self, self.mixture(population), prior)

    @quiet
    def mixture(self, population: Population) -> LocalGaussianMixture:
        """The same without the prior's share."""
        from scipy.spatial import cKDTree  # 25 MB that only this kernel needs

        theta, weights = population.theta, population.weights
        n, d = theta.shape
        k = min(n, max(d + 1, n // 4 if self.k is None else self.k))
        whole = Gaussian(scale=1.0).mixture(population)
        overall = whole.cholesky
        _, near = cKDTree(theta / np.sqrt(np.diagonal(overall @ overall.T))).query(theta, k)  # (n, k)
        scale = default_scale(d) if self.scale is None else self.scale
        factors = np.empty((n, d, d))
        for j in range(n):
            delta = theta[near[j]] - theta[j]  # (k, d)
            local = weights[near[j]] / weights[near[j]].sum()
            covariance = scale * np.einsum("k,ki,kj->ij", local, delta, delta)
            # A share of the overall covariance keeps a neighbourhood of twins from collapsing.
            factors[j], _ = _cholesky(covariance + 1e-3 * scale * overall @ overall.T, population)
        return LocalGaussianMixture(theta, weights, factors, is_diagonal=whole.is_diagonal)


def _defended(kernel: "Gaussian | LocalGaussian", proposal: Proposal, prior: Any) -> Proposal:
    """The proposal with the share of the prior that the kernel says."""
    if not kernel.defensive:
        return proposal
    if prior is None:
        raise ProblemError(f"{kernel} proposes from the prior too: give it, fit(population, prior)")
    return Defended(proposal, prior, kernel.defensive)


def _check(kernel: "Gaussian | LocalGaussian") -> None:
    share = real(kernel.defensive)
    if share is None or not 0 <= share < 1:
        raise ProblemError(f"{kernel}: give a defensive share from 0 to below 1")
    object.__setattr__(kernel, "defensive", float(share))
    if kernel.scale is None:
        return
    scale = real(kernel.scale)
    if scale is None or not 0 < scale < math.inf:
        raise ProblemError(f"{kernel}: give a scale > 0, or None to choose by dimension")
    object.__setattr__(kernel, "scale", scale)


def _cholesky(covariance: np.ndarray, population: Population) -> tuple[np.ndarray, bool]:
    """Cholesky factor; where there are too few particles for a full covariance, of its diagonal, and True."""
    constant = np.flatnonzero(np.ptp(population.theta, axis=0) == 0)
    if constant.size:
        raise ProblemError(
            f"parameter {population.names[constant[0]]!r} has the same value in all particles of generation "
            f"{population.generation}, so no kernel fits: use a larger population or a gentler threshold"
        )
    variance = np.diagonal(covariance)
    try:
        factor = np.linalg.cholesky(covariance)
        if np.all(np.square(np.diagonal(factor)) > 1e-10 * variance):
            return factor, False
    except np.linalg.LinAlgError:
        pass
    return np.diag(np.sqrt(variance)), True
