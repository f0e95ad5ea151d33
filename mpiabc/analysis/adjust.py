"""Regression adjustment: simulations are moved to where they would be, had they given the observed data.

    z = m(s) + sigma(s) e,        z* = m(x) + sigma(x) e

Beaumont et al. (2002, doi:10.1093/genetics/162.4.2025) with m linear in the statistics and sigma constant;
Blum and François (2010, doi:10.1007/s11222-009-9116-0) with log sigma linear, too. z is theta, or its
logarithm or logit. Which of these, with how many simulations, and whether any, is chosen by what simulations
that were held out say: each has a density under its own statistics, normalised within the prior's support.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mpiabc.amis import systematic
from mpiabc.analysis.support import Support
from mpiabc.kernels.covariance import covariance, shrunk
from mpiabc.kernels.free import Coordinates
from mpiabc.population import effective_sample_size

WINDOWS = (1, 3, 6, 12)  # effective simulations, in units of the population's size
_RIDGE, _RIDGE_OF_SPREAD = 1e-3, 0.02  # on standardised statistics
_MOST_RATIO = 1.5  # of log spreads
_INNER, _FOLDS = 400, 5  # simulations that are held out, a fifth at a time
_WIDTHS = (1.0, 0.6, 0.35, 0.2, 0.1)  # of kernels, in units of ESS^(-1 / (d + 4))
_DRAWS = 128  # that say how much of a density lies in the support, for each held-out simulation others
_MOST_STATISTICS = 200  # of longer rows the leading principal components
LEAST = 20  # effective simulations, below which nothing can be chosen


@dataclass(frozen=True, eq=False)
class Rows:
    """The nearest simulations: real parameters (n, c), statistics less the observed ones (n, k), weights."""

    theta: np.ndarray
    statistics: np.ndarray
    weights: np.ndarray  # (n,), which sum to 1
    discrete: np.ndarray  # (n, q), the parameters that are none

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of them."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    @property
    def ess(self) -> float:
        """Effective sample size."""
        return effective_sample_size(self.weights)


@dataclass(frozen=True)
class Variant:
    """One way to adjust: in free coordinates or as they are, by a line or not, of varying spread or not."""

    window: int
    is_free: bool
    is_moved: bool
    is_scaled: bool

    def __str__(self) -> str:
        how = "none" if not self.is_moved else "heteroscedastic" if self.is_scaled else "linear"
        return f"{how}, {'free' if self.is_free else 'raw'}, window {self.window}"


def variants(support: Support, windows: int) -> list[Variant]:
    """All that are tried, the simplest first: of equals the first is chosen."""
    bounds = support.low[support.columns], support.high[support.columns]
    has_bounds = np.isfinite(bounds).any()
    ways = [(False, False), (True, False), (True, True)]
    return [
        Variant(window, is_free, *way)
        for way in ways
        for is_free in ((False, True) if has_bounds else (False,))
        for window in range(windows)
    ]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A variant fitted to simulations."""

    coordinates: Coordinates | None
    centre: np.ndarray  # (c,), m at the observed statistics
    slope: np.ndarray  # (k, c), of m
    spread: np.ndarray  # (k, c), of log sigma; 0 where it is constant

    def free(self, theta: np.ndarray) -> np.ndarray:
        """z of theta."""
        return theta if self.coordinates is None else self.coordinates.free(theta)

    def bound(self, z: np.ndarray) -> np.ndarray:
        """theta of z."""
        return z if self.coordinates is None else self.coordinates.bound(z)

    def log_ratio(self, statistics: np.ndarray) -> np.ndarray:
        """log sigma(x) / sigma(s), (n, c)."""
        return np.clip(-(statistics @ self.spread), -_MOST_RATIO, _MOST_RATIO)

    def moved(self, z: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """z* of z."""
        residuals = z - self.centre - statistics @ self.slope
        return self.centre + residuals * np.exp(self.log_ratio(statistics))

    def returned(self, z: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """z (m, n, c) that z* (m, n, c) would be at statistics (n, k)."""
        residuals = (z - self.centre) * np.exp(-self.log_ratio(statistics))
        return self.centre + statistics @ self.slope + residuals

    def log_jacobian(self, theta: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """log |dz* / dtheta|, (n,)."""
        total = self.log_ratio(statistics).sum(axis=1)
        if self.coordinates is None:
            return total
        return total + self.coordinates.log_jacobian(self.coordinates.free(theta))


def fitted(variant: Variant, rows: Rows, support: Support) -> Fitted:
    """A variant's regressions, with the rows' weights."""
    coordinates = coordinates_of(support) if variant.is_free else None
    z = rows.theta if coordinates is None else coordinates.free(rows.theta)
    shape = rows.statistics.shape[1], z.shape[1]
    centre, slope, spread = rows.weights @ z, np.zeros(shape), np.zeros(shape)
    if variant.is_moved:
        centre, slope = _line(rows.statistics, z, rows.weights, _RIDGE)
        if variant.is_scaled:
            squares = np.square(z - centre - rows.statistics @ slope)
            least = 1e-9 * (rows.weights @ squares) + np.finfo(float).tiny
            _, spread = _line(rows.statistics, 0.5 * np.log(squares + least), rows.weights, _RIDGE_OF_SPREAD)
    return Fitted(coordinates, centre, slope, spread)


def coordinates_of(support: Support) -> Coordinates:
    """Those in which the real parameters have no bounds."""
    return Coordinates(support.low[support.columns], support.high[support.columns])


def _line(s: np.ndarray, z: np.ndarray, w: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weighted ridge regression z = a + s B: a (c,) and B (k, c). The intercept is not drawn to 0."""
    s_mean, z_mean = w @ s, w @ z
    ds, dz = s - s_mean, z - z_mean
    matrix = (ds * w[:, None]).T @ ds
    matrix[np.diag_indices_from(matrix)] += ridge
    slope = np.linalg.solve(matrix, (ds * w[:, None]).T @ dz)
    return z_mean - s_mean @ slope, slope


# What is held out.


def scores(windows: list[Rows], support: Support, rng: np.random.Generator) -> dict[Variant, float]:
    """The mean log density of held-out simulations under each variant.

    windows: the nearest simulations, more and more of them, in the order of their distance.
    """
    inner = np.flatnonzero(windows[0].weights > 0)[:_INNER]
    parts = [
        (part, rng.standard_normal((_DRAWS, len(part), windows[0].theta.shape[1])))
        for part in np.array_split(rng.permutation(inner), _FOLDS)
    ]
    return {variant: _score(variant, windows, support, parts) for variant in variants(support, len(windows))}


def _score(
    variant: Variant, windows: list[Rows], support: Support, parts: list[tuple[np.ndarray, np.ndarray]]
) -> float:
    """The weighted mean over the parts, each of which is held out once, with the width that suits best."""
    rows, totals, weight = windows[variant.window], np.zeros(len(_WIDTHS)), 0.0
    for part, numbers in parts:
        held, rest = windows[0].take(part), _without(rows, part)
        found = _log_densities(fitted(variant, rest, support), rest, held, support, numbers)
        totals += found @ held.weights
        weight += held.weights.sum()
    return float(totals.max() / weight)


def _without(rows: Rows, part: np.ndarray) -> Rows:
    is_left = np.ones(len(rows.weights), bool)
    is_left[part] = False
    left = rows.take(is_left)
    return replace(left, weights=left.weights / left.weights.sum())


def _log_densities(fit: Fitted, rest: Rows, held: Rows, support: Support, numbers: np.ndarray) -> np.ndarray:
    """Log density of held-out simulations, each under its own statistics, for each of `_WIDTHS` (w, n)."""
    centres = fit.moved(fit.free(rest.theta), rest.statistics)
    at = fit.moved(fit.free(held.theta), held.statistics)
    shift = fit.log_jacobian(held.theta, held.statistics)
    estimate = Smooth.of(centres, rest.weights)
    distances = estimate.squares(at)
    found = []
    for width in _WIDTHS:
        density = replace(estimate, factor=width * estimate.factor)
        found.append(density.log(distances / width**2) + shift)
        if fit.coordinates is None or support.prior is not None or support.layout.rests:
            draws = fit.returned(density.draws(numbers), held.statistics)
            found[-1] -= _log_mass(fit.bound(draws.reshape(-1, draws.shape[-1])), held, support)
    return np.array(found)


def _log_mass(theta: np.ndarray, held: Rows, support: Support) -> np.ndarray:
    """Log of the share of each one's draws that lies in the support; one that it stands for is among them."""
    if support.is_everywhere:
        return np.zeros(len(held.weights))
    discrete = np.tile(held.discrete, (_DRAWS, 1))
    inside = support.holds(support.completed(theta, discrete)).reshape(_DRAWS, -1)
    return np.log((inside.sum(axis=0) + 1) / (_DRAWS + 1))


@dataclass(frozen=True, eq=False)
class Smooth:
    """A kernel density estimate with one covariance, for comparisons."""

    centres: np.ndarray  # (n, c)
    weights: np.ndarray
    factor: np.ndarray  # (c, c)

    @classmethod
    def of(cls, centres: np.ndarray, weights: np.ndarray) -> "Smooth":
        """With the bandwidth that is usual."""
        d, ess = centres.shape[1], effective_sample_size(weights)
        return cls(centres, weights, ess ** (-1 / (d + 4)) * factor_of(centres, weights))

    def squares(self, z: np.ndarray) -> np.ndarray:
        """Squared distances (m, n) of z (m, c) from the centres, in the covariance."""
        inverse = np.linalg.inv(self.factor)
        return squares(z @ inverse.T, self.centres @ inverse.T)

    def log(self, distances: np.ndarray) -> np.ndarray:
        """Log density (m,) where squared distances (m, n) are these."""
        norm = -np.log(np.diagonal(self.factor)).sum() - 0.5 * len(self.factor) * np.log(2 * np.pi)
        return norm + log_sum(-0.5 * distances, self.weights)

    def draws(self, numbers: np.ndarray) -> np.ndarray:
        """m for each of n rows, by normal numbers (m, n, c): evenly over the centres, those of a row, too."""
        parents = systematic(self.weights, numbers.shape[0] * numbers.shape[1]).reshape(numbers.shape[:2])
        return self.centres[parents] + numbers @ self.factor.T


def squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances (m, n) of rows (m, c) and (n, c)."""
    middle = other.mean(axis=0)
    a, b = one - middle, other - middle
    found = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.maximum(found, 0, out=found)


def log_sum(exponents: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log sum_j w_j exp(e_ij), (m,)."""
    highest = exponents.max(axis=1)
    highest[~np.isfinite(highest)] = 0
    return highest + np.log(np.exp(exponents - highest[:, None]) @ weights)


def factor_of(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The Cholesky factor of the weighted covariance, drawn to its diagonal as far as it must be."""
    delta = z - weights @ z
    matrix = covariance(delta, weights) / max(1e-12, 1 - float(np.square(weights).sum()))
    least = 1e-18 * (np.square(z).max(axis=0) + np.finfo(float).tiny)
    np.fill_diagonal(matrix, np.maximum(np.diagonal(matrix), least))
    try:
        return np.linalg.cholesky(shrunk(matrix, delta, weights) if len(matrix) > 1 else matrix)
    except np.linalg.LinAlgError:  # parameters of which one follows from others
        return np.diag(np.sqrt(np.diagonal(matrix)))


def windows_of(rows: Rows, distances: np.ndarray, size: int, is_tapered: bool) -> Iterator[Rows]:
    """The nearest rows for each of `WINDOWS`, weighted by 1 - (d / delta)²; rows are sorted by distance."""
    sums, squared = np.cumsum(rows.weights), np.cumsum(np.square(rows.weights))
    ess, known = np.square(sums) / squared, 0
    for factor in WINDOWS:
        enough = np.flatnonzero(ess >= factor * size)
        count = int(enough[0]) + 1 if enough.size else len(ess)
        if count > known:
            known = count
            yield _tapered(rows.take(np.arange(count)), distances[:count] if is_tapered else None)


def _tapered(rows: Rows, distances: np.ndarray | None) -> Rows:
    weights = rows.weights
    if distances is not None and distances[0] >= 0 and distances[-1] > distances[0]:
        weights = weights * (1 - np.square(distances / distances[-1]))
    return replace(rows, weights=weights / weights.sum())


def standardised(summaries: np.ndarray, observed: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Statistics less the observed ones in units of their spread (n, k'); what says nothing is left out.

    A hole is the mean of its column. Of more than some the leading principal components are taken.
    """
    s = np.where(np.isfinite(summaries), summaries, np.nan)
    is_known, w = np.isfinite(s), weights[:, None]
    seen = np.sum(w * is_known, axis=0)
    mean = np.sum(np.where(is_known, s, 0) * w, axis=0) / seen
    s = np.where(is_known, s, mean) - mean
    sd = np.sqrt(np.sum(w * np.square(s), axis=0))
    said = (seen > 0.5) & (sd > 1e-12 * np.abs(mean)) & np.isfinite(sd) & np.isfinite(observed)
    s, at = s[:, said] / sd[said], (observed[said] - mean[said]) / sd[said]
    if s.shape[1] > _MOST_STATISTICS:
        leading = _leading(s * np.sqrt(w))
        s, at = s @ leading, at @ leading
    return s - at


def _leading(matrix: np.ndarray) -> np.ndarray:
    """The leading directions (k, l) of the rows of a matrix (n, k), whatever their number.

    Halko et al. (2011, doi:10.1137/090771806), from a range that is drawn with one seed.
    """
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], _MOST_STATISTICS + 10))
    range_, _ = np.linalg.qr(matrix @ start)
    range_, _ = np.linalg.qr(matrix @ (matrix.T @ range_))
    return np.linalg.svd(range_.T @ matrix, full_matrices=False)[2][:_MOST_STATISTICS].T
