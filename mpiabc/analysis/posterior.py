"""A posterior with a density: what weighted simulations say, adjusted and smoothed.

`fit` moves the nearest simulations to where they would be, had they given the observed data (`adjust`), if
simulations that were held out say that this is nearer to the truth, and makes a density of them (`smooth`),
which lies inside of the prior's support and integrates to 1.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc import threads
from mpiabc.analysis import adjust, smooth
from mpiabc.analysis.support import Support, support_of
from mpiabc.analysis.weighted import Weighted
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.layout import Layout
from mpiabc.population import Named, effective_sample_size, weighted_quantile

_WIDEST = max(adjust.WINDOWS)
_DRAWS = 1 << 15  # spread evenly over the density, of which its mass and moments are made


@dataclass(frozen=True, eq=False)
class Cell:
    """A part of a density that has these values of the discrete parameters, (q,)."""

    values: np.ndarray
    share: float
    mixture: Any  # of the real parameters; None where there are none


@dataclass(frozen=True, eq=False)
class Posterior:
    """A density of parameters; made by `history.posterior()`, and the same in every process for one seed.

    names: of the parameters, d of them. method: what was done to the simulations, in words. score: the mean
    log density of simulations that were held out; scores: of all variants that were tried. It lies inside of
    the prior's support, a constraint included. Discrete parameters have the values that simulations had.

    It is a prior, too: of the next study, as `mpiabc.Prior(posterior)`.
    """

    is_normalised = True

    support: Support
    cells: tuple[Cell, ...]
    log_mass: float  # of what the cells' densities have inside of the support
    method: str
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return self.support.names

    @property
    def layout(self) -> Layout:
        """What the columns of theta are."""
        return self.support.layout

    def bounds(self) -> list[tuple[float, float]]:
        """The ends of each parameter's support."""
        return list(zip(self.support.low.tolist(), self.support.high.tolist(), strict=True))

    def __repr__(self) -> str:
        said = f"<Posterior of {', '.join(self.names)}: {self.method}"
        return f"{said}>" if math.isnan(self.score) else f"{said}; score {self.score:.4g}>"

    @quiet
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d); what lies outside of the support is drawn again."""
        found: list[np.ndarray] = [np.empty((0, len(self.names)))]
        left = n
        while left:
            theta = self._drawn(math.ceil(1.1 * left * math.exp(-self.log_mass)) + 8, rng)
            found.append(theta[self.support.holds(theta)][:left])
            left -= len(found[-1])
        return np.concatenate(found)

    @quiet
    def logpdf(self, theta: Any) -> np.ndarray:
        """Log density of theta (n, d), (n,), or of one row (d,); -inf outside of the support.

        Of discrete parameters it is their mass.
        """
        given, d = np.asarray(theta, np.float64), len(self.names)
        if given.shape[-1:] != (d,) and not (d == 1 and given.ndim == 1):
            raise ValueError(f"theta of shape {given.shape}, expected (n, {d}) for {', '.join(self.names)}")
        rows = given.reshape(-1, d)
        out = np.full(len(rows), -np.inf)
        inside = np.flatnonzero(self.support.holds(rows))
        if inside.size:
            out[inside] = self._log_cells(rows[inside]) - self.log_mass
        return out if given.ndim == 2 or given.shape != (d,) else out[0]

    def mean(self) -> Named:
        """The mean, (d,)."""
        return Named(self._spread.mean(axis=0), self.names)

    def std(self) -> Named:
        """The standard deviation, (d,)."""
        return Named(self._spread.std(axis=0), self.names)

    def quantile(self, q: Any) -> Named:
        """Quantiles of each parameter: (d,) for a number q, (m, d) for m of them."""
        if not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
            raise ValueError(f"quantile of {q}, expected numbers from 0 to 1")
        equal = np.ones(len(self._spread))
        columns = [weighted_quantile(column, equal, q) for column in self._spread.T]
        return Named(np.stack(columns, axis=-1), self.names)

    def digest(self) -> str:
        """Hex SHA-256 of the density: equal digests, equal densities."""
        sha = hashlib.sha256(repr((self.names, self.log_mass)).encode())
        for cell in self.cells:
            for array in (cell.values, np.float64(cell.share), *_arrays(cell.mixture)):
                sha.update(array.tobytes())
        return sha.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of it when it is needed."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def _drawn(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws of the cells, wherever they lie."""
        moving = np.empty((n, len(self.support.columns)))
        at = np.zeros(n, np.intp)
        if len(self.cells) > 1:
            ends = np.cumsum([cell.share for cell in self.cells])
            at = np.minimum(np.searchsorted(ends, rng.random(n) * ends[-1], side="right"), len(ends) - 1)
        discrete = np.array([cell.values for cell in self.cells])[at]
        for i in np.unique(at) if self.support.columns else ():
            rows = np.flatnonzero(at == i)
            moving[rows] = self.cells[i].mixture.sample(len(rows), rng)
        return self.support.completed(moving, discrete)

    def _log_cells(self, theta: np.ndarray) -> np.ndarray:
        out = np.full(len(theta), -np.inf)
        for cell in self.cells:
            rows = np.flatnonzero((theta[:, self.support.discrete] == cell.values).all(axis=1))
            if rows.size:
                found = np.full(rows.size, math.log(cell.share))
                if cell.mixture is not None:
                    found += cell.mixture.logpdf(theta[rows][:, self.support.columns])
                out[rows] = np.logaddexp(out[rows], found)
        return out

    @cached_property
    def _spread(self) -> np.ndarray:
        """Draws inside of the support, spread evenly over the density."""
        theta = _evenly(self.cells, self.support)
        return theta[self.support.holds(theta)]


def fit(weighted: Weighted, seed: int = 0) -> Posterior:
    """The posterior of weighted simulations; equal for equal simulations and seeds, in every process.

    Raises ProblemError for simulations that have no density.
    """
    with threads.single(), np.errstate(all="ignore"):
        return _fitted(weighted, np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))))


def _fitted(weighted: Weighted, rng: np.random.Generator) -> Posterior:
    support = support_of(weighted.prior)
    rows, distances, why = _nearest(weighted, support)
    _check_spread(rows.theta[rows.weights > 0], support)
    tried: dict[adjust.Variant, float] = {}
    if why:
        points = smooth.Points(rows.theta, rows.discrete, rows.weights, np.ones(len(rows.weights), bool))
        method = f"not adjusted ({why})"
    else:
        windows = list(adjust.windows_of(rows, distances, weighted.size, is_tapered=True))
        tried = adjust.scores(windows, support, rng)
        best = max(tried, key=lambda variant: tried[variant])
        points = _adjusted(best, windows[best.window], support)
        method = f"{best} ({len(windows[best.window].weights)} simulations)"
    posterior = _smoothed(points, support, method, rng)
    if not tried:
        return posterior
    said = {str(variant): score for variant, score in tried.items()}
    return replace(posterior, score=tried[best], scores=said)


def _nearest(weighted: Weighted, support: Support) -> tuple[adjust.Rows, np.ndarray, str]:
    """The rows that may count, by their distance, these distances, and why they are not to be adjusted."""
    distances = _one(np.asarray(weighted.distances, np.float64))
    is_there = weighted.log_weights > -np.inf
    if (is_there & (distances < np.inf)).any():
        is_there &= distances < np.inf
    index = np.flatnonzero(is_there)
    if not index.size:
        raise ProblemError("no simulation has a weight: there is nothing to make a posterior of")
    index = index[np.argsort(distances[index], kind="stable")]
    weights = np.exp(weighted.log_weights[index] - weighted.log_weights[index].max())
    why = weighted.unadjusted or _why_not(weighted, support)
    count = len(index) if weighted.unadjusted else _last(weights, weighted.size, 1 if why else _WIDEST)
    index, weights = index[:count], weights[:count] / weights[:count].sum()
    if not why and effective_sample_size(weights) < adjust.LEAST:
        why = f"{effective_sample_size(weights):.1f} effective simulations are too few to choose by"
    theta = np.asarray(weighted.theta[index], np.float64)
    statistics = np.empty((len(index), 0))
    if not why:
        statistics = adjust.standardised(
            np.asarray(weighted.summaries[index], np.float64), np.asarray(weighted.observed), weights
        )
        why = "" if statistics.shape[1] else "the statistics are all the same"
    rows = adjust.Rows(theta[:, support.columns], statistics, weights, theta[:, support.discrete])
    return rows, distances[index], why


def _why_not(weighted: Weighted, support: Support) -> str:
    """Why simulations are not to be adjusted; empty if they may be."""
    if support.discrete:
        names = ", ".join(support.names[i] for i in support.discrete)
        return f"{names} {'is' if len(support.discrete) == 1 else 'are'} discrete"
    if weighted.observed is None or not weighted.summaries.shape[1]:
        return "no statistics were kept"
    return ""


def _one(distances: np.ndarray) -> np.ndarray:
    """One number (n,) that says what is nearer: of several distances the largest, each over its median."""
    if distances.ndim == 1:
        return distances
    middle = np.median(np.where(np.isfinite(distances), distances, 0), axis=0)
    return (distances / np.where(middle > 0, middle, 1)).max(axis=1)


def _last(weights: np.ndarray, size: int, factor: float) -> int:
    """How many of the nearest a window has, which is so many times as large as the population."""
    ess = np.square(np.cumsum(weights)) / np.cumsum(np.square(weights))
    enough = np.flatnonzero(ess >= factor * size)
    return int(enough[0]) + 1 if enough.size else len(weights)


def _adjusted(variant: adjust.Variant, rows: adjust.Rows, support: Support) -> smooth.Points:
    """The simulations, moved to the observed statistics."""
    fitted = adjust.fitted(variant, rows, support)
    rows = rows.take(rows.weights > 0)
    theta = fitted.bound(fitted.moved(fitted.free(rows.theta), rows.statistics))
    inside = support.holds(support.completed(theta))
    return smooth.Points(theta, rows.discrete, rows.weights, inside)


def _smoothed(points: smooth.Points, support: Support, method: str, rng: np.random.Generator) -> Posterior:
    """The density of points."""
    if not support.columns:
        return Posterior(support, _cells(None, points), 0.0, f"{method}, not smoothed", math.nan)
    _check_spread(points.theta[points.inside], support)
    pool, score = {smooth.USUAL: 1.0}, math.nan
    if effective_sample_size(points.weights[points.inside]) >= adjust.LEAST:
        pool, score = smooth.chosen(points, support, rng)
    cells: list[Cell] = []
    shares: dict[str, float] = {}  # of what lies inside of the support
    for kernels, share in pool.items():
        own = _cells(*smooth.smoothed(points, support, kernels))
        mass = support.holds(_evenly(own, support)).mean()
        if mass > 0:
            cells += [replace(cell, share=cell.share * share / mass) for cell in own]
            shares[str(kernels)] = share
    if not cells:
        raise ProblemError(
            f"none of {_DRAWS} draws of the density lies in the prior's support, whose constraints leave too "
            "little room: give a larger population"
        )
    total = sum(cell.share for cell in cells)
    cells = [replace(cell, share=cell.share / total) for cell in cells]
    said = ", and ".join(f"{share:.0%} {how}" if len(shares) > 1 else how for how, share in shares.items())
    log_mass = math.log(sum(shares.values()) / total)
    return Posterior(support, tuple(cells), log_mass, f"{method}; smoothed: {said}", score)


def _check_spread(theta: np.ndarray, support: Support) -> None:
    """Raise ProblemError where a real parameter has one value only."""
    for column, i in enumerate(support.columns):
        if not len(theta) or np.ptp(theta[:, column]) == 0:
            raise ProblemError(
                f"all {len(theta)} simulations that count have one value of {support.names[i]!r}: there is "
                "no density of it; give a larger population"
            )


def _cells(density: Any, points: smooth.Points) -> tuple[Cell, ...]:
    """A density, taken apart by the values of the discrete parameters."""
    if not points.discrete.shape[1]:
        return (Cell(np.empty(0), 1.0, density),)
    values, cell = np.unique(points.discrete, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    shares = np.bincount(cell, points.weights)
    return tuple(
        Cell(value, float(shares[i]), _part(density, np.flatnonzero(cell == i)))
        for i, value in enumerate(values)
        if shares[i] > 0
    )


def _part(density: Any, rows: np.ndarray) -> Any:
    """Some components of a mixture, as a mixture."""
    if density is None:
        return None
    mixture = getattr(density, "mixture", density)
    weights = mixture.weights[rows] / mixture.weights[rows].sum()
    own = {"centres": mixture.centres[rows], "weights": weights}
    if mixture.cholesky.ndim == 3:
        own |= {"cholesky": mixture.cholesky[rows], "inverse": mixture.inverse[rows]}
    part = replace(mixture, **own)
    return part if mixture is density else replace(density, mixture=part)


def _evenly(cells: Sequence[Cell], support: Support) -> np.ndarray:
    """Draws of cells, spread evenly over them, and over the components of each."""
    rng = np.random.Generator(np.random.Philox(0))
    numbers = rng.permuted((np.arange(_DRAWS)[:, None] + rng.random((_DRAWS, len(support.columns)))), axis=0)
    normal = _normal(numbers / _DRAWS)
    ends = np.cumsum([cell.share for cell in cells])
    last = np.rint(ends / ends[-1] * _DRAWS).astype(int)
    moving, first = np.empty((_DRAWS, len(support.columns))), 0
    for cell, end in zip(cells, last, strict=True):
        if support.columns and end > first:
            moving[first:end] = _spread(cell.mixture, normal[first:end])
        first = end
    values = np.array([cell.values for cell in cells])
    return support.completed(moving, np.repeat(values, np.diff(last, prepend=0), axis=0))


def _normal(numbers: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return ndtri(numbers)


def _spread(density: Any, numbers: np.ndarray) -> np.ndarray:
    mixture = getattr(density, "mixture", density)
    z, _ = smooth.spread(mixture, numbers)
    return z if mixture is density else density._coordinates.bound(z)


def _arrays(density: Any) -> list[np.ndarray]:
    """What a density is made of."""
    if density is None:
        return []
    if not hasattr(density, "mixture"):
        return [density.centres, density.weights, density.cholesky]
    return [density.low, density.high, *_arrays(density.mixture)]
