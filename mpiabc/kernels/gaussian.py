"""Perturbation kernels (Toni et al. 2009; Beaumont et al. 2009): population in, proposal out.

A kernel is anything with `fit(population) -> proposal`, or `fit(population, prior)`; one that declares a
keyword-only `epsilon` gets the next threshold. A proposal has `sample(n, rng)` and `logpdf(theta)`. Those
here are mixtures of Gaussians, one component for each particle (`mixture`). Factors and inverses are computed
once, by `fit` in the leading process, on one thread, and travel.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mpiabc.arguments import added, real, whole
from mpiabc.defended import Defended
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.kernels import discrete
from mpiabc.kernels.covariance import covariance, extended, factored, shrunk
from mpiabc.kernels.free import Coordinates, Freed
from mpiabc.kernels.mixture import GaussianMixture, LocalGaussianMixture, Mixture
from mpiabc.layout import Layout, layout_of
from mpiabc.particles import nearness, within
from mpiabc.population import Population

SCALE = "scale of the kernel"  # the setting of a run that says how it is chosen
_LEAST = 10  # times d: fewer particles are no measure of a covariance


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

    Where it declares a keyword-only `epsilon` it gets the threshold that the proposal is for.

    Recycling compares the densities of generations: it asks for `is_normalised = True`. A proposal with a
    component on each particle offers `log_others(rows)` too: its log density (k,) at the particles of an
    index, without the component that stands there.
    """

    def fit(self, population: Population) -> Proposal:
        """The proposal of the next generation."""
        ...


def default_scale(d: int) -> float:
    """Factor on covariances: 1 up to d = 3, falling to 0.5 at d = 10.

    Of `LocalGaussian`, of discrete parameters, and of `Gaussian` in older files.
    """
    return 1.0 if d <= 3 else max(0.5, 1.0 - 0.5 * (d - 3) / 7)


def chosen_scale(d: int, ess: float) -> float:
    """Factor on the population's covariance: 1 up to d = 3, above it (20 d / ess)^(2 / d) from 0.5 to 1.

    Kernels must overlap: with half the scale a kernel has 2^(-d / 2) times the others in it. The textbook's 2
    is optimal in the limit of an acceptance rate that does not depend on the kernel. Effective particles of
    1000 simulations (`python -m tests.benchmarks.kernels`) for 0.5, this, 1 and 2 are at d = 10 with N = 200
    2.0, 5.6, 5.6, 2.0; with N = 1000 6.5, 9.1, 7.0, 2.1; for the first three with N = 5000 11.5, 11.6, 7.2;
    and at d = 20 with N = 1000 0.2, 1.5, 1.4, where the variance for 0.5 is a tenth of what it should be.
    """
    return 1.0 if d <= 3 else min(1.0, max(0.5, (20 * d / ess) ** (2 / d)))


@dataclass(frozen=True)
class Gaussian:
    """Gaussian with the full weighted covariance of the population, times `scale`.

    `scale=None` chooses by dimension and effective size, see `chosen_scale`. `defensive`: the share of
    proposals that the prior draws, which bounds every weight by its inverse. `shrink`: the covariance is
    drawn towards its diagonal as far as its errors suggest, for populations that are small for their
    dimension, see `covariance.shrunk`. `free`: parameters with bounds are proposed in coordinates without
    any, see `free`.
    """

    is_normalised = True

    scale: float | None = None
    defensive: float = added(0.0)
    shrink: bool = added(False)
    free: bool = added(False)

    def __post_init__(self) -> None:
        _check(self)

    def fit(self, population: Population, prior: Any = None) -> Proposal:
        """The mixture of equal Gaussians around the particles."""
        return proposal_of(self, population, prior)

    def check(self, prior: Any) -> None:
        """Raise ProblemError for a prior that it is not for."""
        _bounds(self, prior)

    @quiet
    def mixture(self, population: Population) -> GaussianMixture:
        """The same without the prior's share."""
        theta, weights = population.theta, population.weights
        delta = theta - np.einsum("n,nd->d", weights, theta)
        matrix = covariance(delta, weights)
        matrix /= max(1e-12, 1.0 - np.square(weights).sum())
        if self.shrink:
            matrix = shrunk(matrix, delta, weights)
        scale = chosen_scale(theta.shape[1], population.ess) if self.scale is None else self.scale
        factor, is_diagonal = _cholesky(scale * matrix, population)
        return GaussianMixture(theta, weights, factor, is_diagonal=is_diagonal)


@dataclass(frozen=True)
class LocalGaussian:
    """Around each particle a Gaussian with the covariance of its k nearest neighbours.

    Filippi et al. (2013), section 3.3, "multivariate normal kernel with M nearest neighbours", with
    neighbours found in units of the population's standard deviation. `k=None` takes N / 4. `defensive`,
    `shrink` and `free` as in `Gaussian`.
    """

    is_normalised = True

    k: int | None = None
    scale: float | None = None
    defensive: float = added(0.0)
    shrink: bool = added(False)
    free: bool = added(False)

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
        return proposal_of(self, population, prior)

    def check(self, prior: Any) -> None:
        """Raise ProblemError for a prior that it is not for."""
        _bounds(self, prior)

    @quiet
    def mixture(self, population: Population) -> LocalGaussianMixture:
        """The same without the prior's share."""
        from scipy.spatial import cKDTree  # 25 MB that only this kernel needs

        theta, weights = population.theta, population.weights
        n, d = theta.shape
        k = min(n, max(d + 1, n // 4 if self.k is None else self.k))
        whole = Gaussian(scale=1.0, shrink=self.shrink).mixture(population)
        overall = whole.cholesky
        _, near = cKDTree(theta / np.sqrt(np.diagonal(overall @ overall.T))).query(theta, k)  # (n, k)
        scale = default_scale(d) if self.scale is None else self.scale
        factors = np.empty((n, d, d))
        for j in range(n):
            delta = theta[near[j]] - theta[j]  # (k, d)
            local = weights[near[j]] / weights[near[j]].sum()
            matrix = covariance(delta, local)
            if self.shrink:
                matrix = shrunk(matrix, delta, local)
            # A share of the overall covariance keeps a neighbourhood of twins from collapsing.
            factors[j], _ = _cholesky(scale * matrix + 1e-3 * scale * overall @ overall.T, population)
        return LocalGaussianMixture(theta, weights, factors, is_diagonal=whole.is_diagonal)


@dataclass(frozen=True)
class OLCM:
    """Around each particle a Gaussian with the covariance that is optimal there, times `scale`.

    Filippi et al. (2013, doi:10.1515/sagmb-2012-0069), "optimal local covariance matrix": that of the
    particles which meet the next threshold, about the particle itself,

        C_i = sum_k w_k (theta_k - theta_i)(theta_k - theta_i)^T.

    At least 10 d particles count, the nearest, where fewer meet it. `defensive`, `shrink` and `free` as in
    `Gaussian`.
    """

    is_normalised = True

    scale: float = 1.0
    defensive: float = 0.0
    shrink: bool = False
    free: bool = False

    def __post_init__(self) -> None:
        if self.scale is None:
            raise ProblemError(f"{self}: give a scale > 0")
        _check(self)

    def fit(self, population: Population, prior: Any = None, *, epsilon: float | None = None) -> Proposal:
        """The mixture of Gaussians for the next threshold `epsilon`; None: all particles meet it."""
        here = _Aimed(self, math.inf if epsilon is None else epsilon)
        return proposal_of(here, population, prior)

    def check(self, prior: Any) -> None:
        """Raise ProblemError for a prior that it is not for."""
        _bounds(self, prior)


@dataclass(frozen=True)
class _Aimed:
    """OLCM for a threshold."""

    kernel: OLCM
    epsilon: float

    @property
    def free(self) -> bool:
        """Whether parameters with bounds are proposed in coordinates without any."""
        return self.kernel.free

    @property
    def defensive(self) -> float:
        """The share of proposals that the prior draws."""
        return self.kernel.defensive

    @property
    def scale(self) -> float:
        """The factor on covariances."""
        return self.kernel.scale

    def __str__(self) -> str:
        return str(self.kernel)

    @quiet
    def mixture(self, population: Population) -> LocalGaussianMixture:
        """The mixture around all particles."""
        theta, rows = population.theta, _nearest(population, self.epsilon)
        weights = population.weights[rows] / population.weights[rows].sum()
        mean = np.einsum("n,nd->d", weights, theta[rows])
        delta = theta[rows] - mean
        matrix = covariance(delta, weights)
        if self.kernel.shrink:
            matrix = shrunk(matrix, delta, weights)
        factor, is_diagonal = _cholesky(matrix, population)
        factors = math.sqrt(self.kernel.scale) * extended(factor, theta - mean)
        return LocalGaussianMixture(theta, population.weights, factors, is_diagonal=is_diagonal)


def _nearest(population: Population, epsilon: Any) -> np.ndarray:
    """An index of the particles that meet a threshold, at least of ten times d, in their order."""
    n, d = population.theta.shape
    near = np.flatnonzero(within(population.distances, epsilon))
    if len(near) >= min(n, _LEAST * d):
        return near
    nearest = np.lexsort((population.ids, nearness(population.distances, epsilon)))
    return np.sort(nearest[: _LEAST * d])


class Mixing(Protocol):
    """A kernel of ours: it makes a mixture of the parameters that are real numbers."""

    @property
    def defensive(self) -> float:
        """The share of proposals that the prior draws."""
        ...

    @property
    def free(self) -> bool:
        """Whether parameters with bounds are proposed in coordinates without any."""
        ...

    @property
    def scale(self) -> float | None:
        """The factor on covariances; None chooses by dimension."""
        ...

    def mixture(self, population: Population) -> Mixture:
        """The mixture around the particles."""
        ...


def _proposed(kernel: Mixing, population: Population, prior: Any) -> Mixture | Freed:
    """A kernel's mixture of real numbers, in free coordinates if it says so."""
    bounds = _bounds(kernel, prior)
    if bounds is None:
        return kernel.mixture(population)
    theta = Coordinates(*bounds).free(population.theta)
    return Freed(kernel.mixture(replace(population, theta=theta)), *bounds)


def _bounds(kernel: Any, prior: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Lower and upper ends of the free columns, (d,) each, if the kernel needs them. Raises ProblemError."""
    if not kernel.free:
        return None
    ask = getattr(prior, "bounds", None)
    if not callable(ask):
        raise ProblemError(
            f"{kernel} proposes in free coordinates, and the prior, a {type(prior).__name__}, does not say "
            "between which bounds: let it have bounds(), (low, high) for each parameter, or leave free out"
        )
    every, free = list(ask()), layout_of(prior).free
    pairs = [every[i] for i in free]
    for i, pair in zip(free, pairs, strict=True):
        if pair is None:
            name = prior.names[i]
            raise ProblemError(
                f"{kernel} proposes in free coordinates, and the bounds of parameter {name!r} are not known: "
                "let its distribution have support(), which gives (low, high), or leave free out"
            )
    low, high = np.array(pairs, np.float64).reshape(-1, 2).T.copy()
    return low, high


def proposal_of(kernel: Mixing, population: Population, prior: Any) -> Proposal:
    """What a kernel proposes for all parameters, discrete ones too, with the prior's share in it."""
    layout = Layout(population.names) if prior is None else layout_of(prior)
    is_free = layout.is_free
    proposal = _proposed(kernel, population, prior) if is_free else _mixed(kernel, population, prior, layout)
    share = kernel.defensive or (discrete.SHARE if layout.is_discrete else 0.0)
    if not share:
        return proposal
    if prior is None:
        raise ProblemError(f"{kernel} proposes from the prior too: give it, fit(population, prior)")
    return Defended(proposal, prior, share)


@quiet
def _mixed(kernel: Mixing, population: Population, prior: Any, layout: Layout) -> discrete.MixedMixture:
    """The kernel's mixture of the free columns, and moves of the others."""
    theta, weights, free = population.theta, population.weights, layout.free
    moves = None
    if free:
        names = tuple(population.names[i] for i in free)
        moves = _proposed(kernel, replace(population, names=names, theta=theta[:, free]), prior)
    scale = kernel.scale or default_scale(len(free) + len(layout.integers))
    spreads = discrete.spreads(theta, weights, layout, scale)
    return discrete.MixedMixture(theta, weights, layout, moves, spreads)


def scale_rule(kernel: Any) -> str | None:
    """How a kernel of ours chooses its scale, if it does; older files say nothing of that."""
    return "by dimension and size" if isinstance(kernel, Gaussian) and kernel.scale is None else None


def as_before(kernel: Any, d: int) -> Any:
    """The kernel as older files know it: its scale is chosen by the number d of parameters alone."""
    return kernel if scale_rule(kernel) is None else replace(kernel, scale=default_scale(d))


def _check(kernel: "Gaussian | LocalGaussian | OLCM") -> None:
    for name in ("shrink", "free"):
        if not isinstance(getattr(kernel, name), bool):
            raise ProblemError(f"{kernel}: {name} is True or False")
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
    return factored(covariance)
