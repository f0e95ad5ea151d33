"""Smoothing: a density of weighted points, which is a mixture of Gaussians truncated to the prior's support.

What is chosen, by the density of points that were held out, a quarter at a time: the width of kernels;
whether centres are drawn to the mean, so that the covariance stays what it was (West 1993); and whether each
kernel has the covariance of its neighbours. The best in coordinates as they are and the best in coordinates
free of bounds are pooled: near a bound one of them may be far off where the other is not (Smyth and Wolpert
1999, doi:10.1023/A:1007511322260).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpiabc.amis import systematic
from mpiabc.analysis.adjust import coordinates_of, factor_of, log_sum, squares
from mpiabc.analysis.support import Support
from mpiabc.kernels.free import Coordinates, Freed
from mpiabc.kernels.mixture import GaussianMixture, LocalGaussianMixture
from mpiabc.population import effective_sample_size

_WIDTHS = (0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4)  # in units of ESS^(-1 / (d + 4))
_LOCAL = (0.35, 0.5, 0.7, 1.0)  # of what neighbours' covariances are multiplied by
_NEIGHBOURS = (5, 15)  # in units of d
_LARGEST = 0.95
_FOLDS, _POINTS = 4, 1000  # so many points are enough to choose by
_STEPS = 50  # of expectation and maximisation; with more of them what is hardly worse has no share at all
_LEAST = -1e3  # beside the largest log density of all, which stands for none and for what is no number
_DRAWS = 512  # that say how much of a density lies in the support


@dataclass(frozen=True, eq=False)
class Points:
    """Weighted points: real parameters (n, c), discrete ones (n, q), weights (n,) which sum to 1.

    Some may lie outside of the prior's support: `inside` (n,).
    """

    theta: np.ndarray
    discrete: np.ndarray
    weights: np.ndarray
    inside: np.ndarray

    def take(self, rows: np.ndarray) -> "Points":
        """Some of them, with weights that sum to 1."""
        weights = self.weights[rows] / self.weights[rows].sum()
        return Points(self.theta[rows], self.discrete[rows], weights, self.inside[rows])


@dataclass(frozen=True)
class Kernels:
    """One way to smooth."""

    is_free: bool  # coordinates
    with_outside: bool  # points outside of the support have kernels, too: what reaches inside counts
    width: float
    is_shrunk: bool = False
    neighbours: int = 0  # in units of d; 0: one covariance for all

    def __str__(self) -> str:
        where = "free" if self.is_free else "raw, truncated" if self.with_outside else "raw"
        what = f"covariance of {self.neighbours} d neighbours" if self.neighbours else "one covariance"
        return f"{where}, {what}, width {self.width:g}{', shrunk' if self.is_shrunk else ''}"


USUAL = Kernels(False, False, 1.0, True)


def chosen(points: Points, support: Support, rng: np.random.Generator) -> tuple[dict[Kernels, float], float]:
    """The best ways to smooth and their shares of a pool, and the mean log density of points held out."""
    few = _thinned(points, rng)
    parts = np.array_split(rng.permutation(len(few.weights)), _FOLDS)
    numbers = rng.standard_normal((_DRAWS, points.theta.shape[1]))
    found: dict[Kernels, list[np.ndarray]] = {}
    weights: list[np.ndarray] = []
    for part in parts:
        is_held = np.zeros(len(few.weights), bool)
        is_held[part] = True
        is_asked = is_held & few.inside
        if few.weights[is_asked].sum() > 0 and few.weights[~is_held & few.inside].sum() > 0:
            weights.append(few.weights[is_asked])
            held, rest = few.take(is_asked), few.take(~is_held)
            for kernels, densities in _log_densities(held, rest, support, numbers):
                found.setdefault(kernels, []).append(densities)
    if not weights:
        return {USUAL: 1.0}, math.nan
    whole = {  # a way that some parts did not ask for is not compared
        kernels: np.concatenate(densities)
        for kernels, densities in found.items()
        if len(densities) == len(weights)
    }
    return _pooled(whole, np.concatenate(weights))


def _pooled(densities: dict[Kernels, np.ndarray], weights: np.ndarray) -> tuple[dict[Kernels, float], float]:
    """The best in either coordinates, their shares of a pool, and its mean, by densities of points (m,)."""
    weights = weights / weights.sum()
    least = np.nanmax(np.stack(list(densities.values()))) + _LEAST
    densities = {kernels: np.fmax(found, least) for kernels, found in densities.items()}
    means = {kernels: float(weights @ found) for kernels, found in densities.items()}
    grounds = sorted({kernels.is_free for kernels in means})
    best = [max((k for k in means if k.is_free == ground), key=lambda k: means[k]) for ground in grounds]
    logs = np.stack([densities[kernels] for kernels in best], axis=1)
    relative, shares = np.exp(logs - logs.max(axis=1, keepdims=True)), np.full(len(best), 1 / len(best))
    for _ in range(_STEPS):
        found = shares * relative
        shares = weights @ (found / found.sum(axis=1, keepdims=True))
    shares = np.round(shares, 2)
    pool = {kernels: float(share) for kernels, share in zip(best, shares, strict=True) if share}
    return pool, float(weights @ log_sum(logs[:, shares > 0], shares[shares > 0]))


def _thinned(points: Points, rng: np.random.Generator) -> Points:
    """So many points that every pair can be looked at, chosen evenly by weight where they are more."""
    if len(points.weights) <= _POINTS:
        return points
    order = rng.permutation(len(points.weights))  # neighbours in the order of distances are alike
    ends = np.cumsum(points.weights[order])
    at = np.searchsorted(ends, (np.arange(_POINTS) + rng.random()) / _POINTS * ends[-1])
    few = points.take(order[np.unique(at)])
    counts = np.bincount(np.unique(at, return_inverse=True)[1])
    return replace(few, weights=counts / counts.sum())


def _log_densities(
    held: Points, rest: Points, support: Support, numbers: np.ndarray
) -> Iterator[tuple[Kernels, np.ndarray]]:
    """The log density of held-out points (m,) under each way to smooth the others."""
    for is_free, with_outside in _grounds(rest, support):
        centres = rest if with_outside else rest.take(rest.inside)
        coordinates = coordinates_of(support) if is_free else None
        z = centres.theta if coordinates is None else coordinates.free(centres.theta)
        at = held.theta if coordinates is None else coordinates.free(held.theta)
        shift = 0.0 if coordinates is None else coordinates.log_jacobian(at)
        for kernels, mixture, found in _tried(z, centres.weights, at):
            kernels = replace(kernels, is_free=is_free, with_outside=with_outside)
            mass = log_mass(mixture, coordinates, centres, support, numbers)
            yield kernels, found + shift - mass


def _grounds(points: Points, support: Support) -> Iterator[tuple[bool, bool]]:
    """Coordinates, and whether points outside have kernels."""
    yield False, False
    if not points.inside.all():
        yield False, True
    ends = np.concatenate([support.low[support.columns], support.high[support.columns]])
    if np.isfinite(ends).any():
        yield True, False


def _tried(z: np.ndarray, weights: np.ndarray, at: np.ndarray) -> Iterator[tuple[Kernels, Any, np.ndarray]]:
    """Each way to smooth points z (n, c), its mixture, and that one's log density at others (m, c)."""
    factor, (n, d) = factor_of(z, weights), z.shape
    for width in _WIDTHS:
        for is_shrunk in (True, False):
            kernels = Kernels(False, False, width, is_shrunk)
            mixture = mixture_of(z, weights, kernels, factor)
            whole = mixture.inverse.T
            exponents = -0.5 * squares(at @ whole, mixture.centres @ whole)
            yield kernels, mixture, log_sum(exponents, weights) + _log_norms(mixture.cholesky)
    for neighbours in _NEIGHBOURS:
        if 2 * neighbours * d >= n:
            continue
        base = _local(z, weights, neighbours * d, factor)
        q, norms = _local_squares(base, at), _log_norms(base.cholesky)
        for width in _LOCAL:
            found = log_sum(norms - 0.5 / width**2 * q, weights) - d * math.log(width)
            yield Kernels(False, False, width, False, neighbours), _widened(base, width), found


def _log_norms(factors: np.ndarray) -> np.ndarray:
    """Of Gaussians with these Cholesky factors (..., d, d), (...)."""
    log_det = np.log(np.diagonal(factors, axis1=-2, axis2=-1)).sum(axis=-1)
    return -log_det - 0.5 * factors.shape[-1] * math.log(2 * math.pi)


def mixture_of(z: np.ndarray, weights: np.ndarray, kernels: Kernels, factor: np.ndarray) -> Any:
    """The mixture of kernels around points (n, c), whose covariance has this factor."""
    d = z.shape[1]
    if kernels.neighbours:
        return _widened(_local(z, weights, kernels.neighbours * d, factor), kernels.width)
    h = kernels.width * effective_sample_size(weights) ** (-1 / (d + 4))
    if not kernels.is_shrunk:
        return GaussianMixture(z, weights, h * factor)
    h = min(h, _LARGEST)
    mean = weights @ z
    return GaussianMixture(mean + math.sqrt(1 - h**2) * (z - mean), weights, h * factor)


def _widened(mixture: Any, width: float) -> Any:
    return replace(mixture, cholesky=width * mixture.cholesky, inverse=mixture.inverse / width)


def _local(z: np.ndarray, weights: np.ndarray, k: int, factor: np.ndarray) -> Any:
    """Each kernel with the covariance of its k neighbours, found where all have the covariance 1."""
    from scipy.spatial import cKDTree

    d = z.shape[1]
    white = z @ np.linalg.inv(factor).T
    _, near = cKDTree(white).query(white, k)
    near = near.reshape(len(z), k)
    shares = weights[near] / weights[near].sum(axis=1, keepdims=True)
    factors = np.empty((len(z), d, d))
    for i in range(0, len(z), 256):  # of neighbours' rows there are k times as many as points
        rows = slice(i, i + 256)
        share, there = shares[rows][:, :, None], white[near[rows]]
        delta = there - (share * there).sum(axis=1, keepdims=True)
        matrix = (share * delta).transpose(0, 2, 1) @ delta
        matrix[:, np.arange(d), np.arange(d)] += 1e-6 + 0.01 * np.trace(matrix, axis1=1, axis2=2)[:, None] / d
        factors[rows] = np.linalg.cholesky(matrix)
    return LocalGaussianMixture(z, weights, factor @ factors)


def _local_squares(mixture: Any, z: np.ndarray) -> np.ndarray:
    """Squared distances (m, n) of rows z (m, c) from all centres, each in its own covariance."""
    found = np.empty((len(z), len(mixture.centres)))
    for i in range(0, len(mixture.centres), 128):
        rows = slice(i, i + 128)
        delta = z.T[None] - mixture.centres[rows][:, :, None]  # (n, c, m)
        found[:, rows] = np.square(mixture.inverse[rows] @ delta).sum(axis=1).T
    return found


def spread(mixture: Any, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many draws as rows of normal numbers (m, c), evenly over the components, and which these are."""
    parents = systematic(mixture.weights, len(numbers))
    return mixture.moved(parents, numbers), parents


def log_mass(
    mixture: Any, coordinates: Coordinates | None, centres: Points, support: Support, numbers: np.ndarray
) -> float:
    """Log of how much of a mixture lies in the support."""
    if support.is_everywhere or (
        coordinates is not None and support.prior is None and not support.layout.rests
    ):
        return 0.0
    z, parents = spread(mixture, numbers)
    theta = z if coordinates is None else coordinates.bound(z)
    inside = support.holds(support.completed(theta, centres.discrete[parents]))
    return math.log((inside.sum() + 1) / (len(inside) + 1))


def smoothed(points: Points, support: Support, kernels: Kernels) -> tuple[Any, Points]:
    """The density of the real parameters, but for what is outside of the support, and its points."""
    centres = points if kernels.with_outside else points.take(points.inside)
    coordinates = coordinates_of(support) if kernels.is_free else None
    z = centres.theta if coordinates is None else coordinates.free(centres.theta)
    mixture = mixture_of(z, centres.weights, kernels, factor_of(z, centres.weights))
    return mixture if coordinates is None else Freed(mixture, coordinates.low, coordinates.high), centres
