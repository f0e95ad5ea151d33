"""Mixtures of Gaussians, one on each particle: draws, and densities that depend on their row alone.

No density goes through BLAS, whose sums depend on shapes and threads: what is computed for a row is computed
element by element, and summed over blocks of components whose bounds depend on their number only. So a row
has the same bits, whoever computes it with whom. Blocks fit into the cache, however many components are.

In one dimension the kernels overlap so much that their sum is a smooth curve, which `curve` has piecewise.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc import threads
from mpiabc.guard import quiet
from mpiabc.kernels.curve import Curve

_CHUNK = 15_000  # numbers in a block: 120 KB, from 128 KB on malloc asks the system
_COLUMNS = 2_000  # most components in a block
_PAIRS = 5_000_000  # of rows and components, some 40 ms, that are worth a thread
_GUIDED = 4096  # draws from which on a table of where to begin is worth making
_CURVE = 500  # components from which on a curve costs less than their sum


class Mixture:
    """A distribution around each particle; what is abstract here says which. A dataclass."""

    is_rowwise = True  # a row's density does not depend on the rows beside it

    centres: np.ndarray  # (N, d)
    weights: np.ndarray  # (N,)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of it when it is needed: that does not travel."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @quiet
    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (m, d), (m,)."""
        return self._log_sums(theta)

    @quiet
    def log_others(self, rows: np.ndarray) -> np.ndarray:
        """Log density at the centres of an index (k,), without the component that stands there."""
        return self._log_sums(self.centres[rows], rows) - np.log1p(-self.weights[rows])

    def _prepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the exponents of rows are computed of, and a part of them that all components share."""
        raise NotImplementedError

    def _fill(self, exponents: np.ndarray, prepared: np.ndarray, columns: slice) -> None:
        """The exponents of rows and components, but for what is shared."""
        raise NotImplementedError

    @quiet
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d)."""
        return self._placed(*self._drawn(n, rng))

    @quiet
    def sample_each(self, n: int, rngs: Iterable[np.random.Generator]) -> np.ndarray:
        """`n` draws from each of these generators, (len(rngs) * n, d): what `sample` gives, joined."""
        numbers, z = zip(*(self._drawn(n, rng) for rng in rngs), strict=True)
        return self._placed(np.concatenate(numbers), np.concatenate(z))

    def _drawn(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What `n` draws are made of: numbers in [0, 1), which choose particles, and normal ones (n, d)."""
        return rng.random(n), rng.standard_normal((n, self.centres.shape[1]))

    def _placed(self, numbers: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The draws that are made of these."""
        return self.moved(self._parents(numbers), z)

    def moved(self, parents: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Draws around these particles, made of these numbers (n, d)."""
        raise NotImplementedError

    def _parents(self, numbers: np.ndarray) -> np.ndarray:
        """Indices of particles, chosen by numbers in [0, 1) with their weights."""
        places = numbers * self._cumulative[-1]
        if len(places) < _GUIDED:
            return np.searchsorted(self._cumulative, places, side="right")
        return self._guided(numbers, places)

    def _guided(self, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The same by a table of where to begin (Chen and Asau, 1974), which is quicker for many."""
        cumulative, guide = self._cumulative, self._guide
        found = guide.take((numbers * (len(guide) - 1)).astype(np.intp))
        rest = np.flatnonzero(cumulative.take(found) <= places)
        while rest.size:
            found[rest] += 1
            rest = rest[cumulative.take(found[rest], mode="clip") <= places[rest]]
            rest = rest[found[rest] < len(cumulative)]
        return found

    def _log_sums(self, theta: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Log of the sum over all components, for each row; `own`: one component that a row leaves out.

        Rows near the centres, that is nearly all, need no care; only where the plain sum overflows or
        nearly vanishes is the maximum taken out first.
        """
        n, m = len(self.centres), len(theta)
        prepared, shared = self._prepared(theta)
        totals = np.zeros(m)

        def add(rows: slice) -> None:
            self._add(totals[rows], prepared[rows], None if own is None else own[rows])

        threads.each(add, m, n * m // _PAIRS)
        out = np.log(totals)
        for r in np.flatnonzero(~((totals > 1e-250) & (totals < np.inf))):
            out[r] = self._log_sum(prepared[r : r + 1], None if own is None else own[r : r + 1])
        return shared + out

    def _add(self, totals: np.ndarray, prepared: np.ndarray, own: np.ndarray | None) -> None:
        """Add all components to the totals of these rows."""
        n, m = len(self.centres), len(totals)
        width = -(-n // -(-n // _COLUMNS))
        height = max(1, _CHUNK // width)
        block = np.empty((min(height, m), width))
        for i in range(0, m, height):
            rows = slice(i, min(m, i + height))
            for j in range(0, n, width):
                columns = slice(j, min(n, j + width))
                exponents = block[: rows.stop - i, : columns.stop - j]
                self._fill(exponents, prepared[rows], columns)
                if own is not None:
                    _leave_out(exponents, own[rows] - j)
                np.exp(exponents, out=exponents)
                totals[rows] += np.add.reduce(exponents, axis=1)

    def _log_sum(self, prepared: np.ndarray, own: np.ndarray | None) -> float:
        """The same for one row, with care."""
        exponents = np.empty((1, len(self.centres)))
        self._fill(exponents, prepared, slice(0, len(self.centres)))
        if own is not None:
            _leave_out(exponents, own)
        highest = exponents.max()
        if highest == -np.inf:
            return -math.inf
        return float(highest + np.log(np.exp(exponents - highest).sum()))

    @cached_property
    def _guide(self) -> np.ndarray:
        """For each of the equal parts of [0, 1) the first particle that a number in it may choose."""
        parts = 4 * len(self.centres)
        starts = np.arange(parts + 1) / parts * (1 - 1e-12) * self._cumulative[-1]
        return np.searchsorted(self._cumulative, starts, side="right")

    @cached_property
    def _cumulative(self) -> np.ndarray:
        return np.cumsum(self.weights)

    @cached_property
    def _log_weights(self) -> np.ndarray:
        return np.log(self.weights)


def _leave_out(exponents: np.ndarray, columns: np.ndarray) -> None:
    """Of each row, one component, if it is among these."""
    rows = np.flatnonzero((columns >= 0) & (columns < exponents.shape[1]))
    exponents[rows, columns[rows]] = -np.inf


@dataclass(frozen=True, eq=False)
class _Gaussians(Mixture):
    """Normal distributions around the particles."""

    centres: np.ndarray
    weights: np.ndarray
    cholesky: np.ndarray
    inverse: np.ndarray = None  # type: ignore[assignment]  # of the factor, computed if not given
    is_diagonal: bool = False  # there were too few particles for a full covariance

    def __post_init__(self) -> None:
        if self.inverse is None:
            object.__setattr__(self, "inverse", np.linalg.inv(self.cholesky))


class GaussianMixture(_Gaussians):
    """sum_j W_j N(theta; centre_j, L L^T), with one Cholesky factor L (d, d)."""

    def moved(self, parents: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Draws around these particles, made of normal numbers (n, d)."""
        return self.centres.take(parents, axis=0) + np.einsum("nk,dk->nd", z, self.cholesky)

    def _log_sums(self, theta: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """By the curve, if there is one, where it is sure."""
        if self._curve is None:
            return super()._log_sums(theta, own)
        out = self._log_norm + self._curve.log(self._whiten(theta)[:, 0])
        if own is not None:
            share = np.exp(self._log_weights[own] + self._log_norm - out)
            out += np.where(share < 0.999, np.log1p(-share), np.nan)
        rest = np.flatnonzero(np.isnan(out))
        if rest.size:
            out[rest] = super()._log_sums(theta[rest], None if own is None else own[rest])
        return out

    def _prepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = self._whiten(theta)
        prepared = np.ones((len(u), u.shape[1] + 1))
        prepared[:, :-1] = u
        return prepared, self._log_norm - 0.5 * np.square(u).sum(axis=1)

    def _fill(self, exponents: np.ndarray, prepared: np.ndarray, columns: slice) -> None:
        np.einsum("rk,kj->rj", prepared, self._table[:, columns], out=exponents)

    def _whiten(self, theta: np.ndarray) -> np.ndarray:
        return np.einsum("nk,dk->nd", theta - self._origin, self.inverse)

    @cached_property
    def _curve(self) -> Curve | None:
        n, d = self.centres.shape
        return Curve(self._whiten(self.centres)[:, 0], self._log_weights) if d == 1 and n >= _CURVE else None

    @cached_property
    def _origin(self) -> np.ndarray:
        return np.einsum("n,nd->d", self.weights, self.centres)

    @cached_property
    def _log_norm(self) -> float:
        d = len(self.cholesky)
        return float(-np.log(np.diagonal(self.cholesky)).sum() - 0.5 * d * math.log(2 * math.pi))

    @cached_property
    def _table(self) -> np.ndarray:
        """(d + 1, N): [u, 1] @ table - |u|^2 / 2 = log W_j - |u - v_j|^2 / 2, v_j the white centres."""
        v = self._whiten(self.centres)
        return np.ascontiguousarray(np.vstack([v.T, self._log_weights - 0.5 * np.square(v).sum(axis=1)]))


class LocalGaussianMixture(_Gaussians):
    """sum_j W_j N(theta; centre_j, L_j L_j^T), with Cholesky factors L (N, d, d)."""

    def moved(self, parents: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Draws around these particles, made of normal numbers (n, d)."""
        return self.centres[parents] + np.einsum("nk,ndk->nd", z, self.cholesky[parents])

    def _prepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return theta, np.zeros(len(theta))

    def _fill(self, exponents: np.ndarray, prepared: np.ndarray, columns: slice) -> None:
        """Row by row of the factors' inverses, each a sum over components side by side."""
        delta = prepared[:, :, None] - self._table[0][:, columns]  # (r, d, j)
        exponents[:] = 0.0
        for i, inverse in enumerate(self._table[1]):
            z = np.einsum("kj,rkj->rj", inverse[: i + 1, columns], delta[:, : i + 1])
            exponents += np.square(z, out=z)
        exponents *= -0.5
        exponents += self._constant[columns]

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres (d, N) and inverse factors (d, d, N), components side by side."""
        return np.ascontiguousarray(self.centres.T), np.ascontiguousarray(self.inverse.transpose(1, 2, 0))

    @cached_property
    def _constant(self) -> np.ndarray:
        """log W_j - log det L_j - d/2 log 2 pi, (N,)."""
        d = self.centres.shape[1]
        log_det = np.log(np.diagonal(self.cholesky, axis1=1, axis2=2)).sum(axis=1)
        return self._log_weights - log_det - 0.5 * d * math.log(2 * math.pi)
