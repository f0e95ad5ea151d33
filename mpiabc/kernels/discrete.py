"""Mixtures on particles that have integers, choices and shares among their parameters.

    sum_j W_j K(x; x_j) prod_i K_i(k_i; k_ij)

K is a Gaussian of the real parameters, or what else a kernel makes of them; each discrete parameter moves on
its own. An ordered integer is a rounded Gaussian,

    K(k; k0) = Phi((k + 1/2 - k0) / s) - Phi((k - 1/2 - k0) / s),        s at least 1/2,

a choice stays, or is drawn anew with its prior's probabilities: (1 - r) [c = c0] + r p(c). Density and mass
multiply. Of shares that add up to 1 the last is what the others leave: no density knows it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc.kernels.mixture import Mixture
from mpiabc.layout import Layout

SHARE = 0.05  # of the prior in proposals of discrete parameters
_LEAST_SPREAD = 0.5
_ANEW = 0.3  # how often a choice is drawn anew
_NEAR = 4096  # distances whose masses are kept
_MOST = 4_000_000  # masses around particles that are kept: 32 MB


@dataclass(frozen=True, eq=False)
class MixedMixture(Mixture):
    """Around each particle a distribution of real numbers, integers, choices and shares."""

    centres: np.ndarray  # (N, d)
    weights: np.ndarray  # (N,)
    layout: Layout
    moves: Any  # the mixture of the free columns; None if there are none
    spreads: np.ndarray  # of the integers

    @property
    def is_diagonal(self) -> bool:
        """Whether there were too few particles for a full covariance of the free columns."""
        return getattr(self.moves, "is_diagonal", False)

    def _drawn(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Numbers that choose particles; normal ones for real columns and integers, others for choices."""
        layout = self.layout
        numbers = rng.random(n)
        normal = rng.standard_normal((n, len(layout.free) + len(layout.integers)))
        return numbers, np.column_stack([normal, rng.random((n, len(layout.choices)))])

    def moved(self, parents: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Draws around these particles, made of these numbers (n, ·)."""
        layout, free = self.layout, len(self.layout.free)
        theta = self.centres.take(parents, axis=0)
        if self.moves is not None:
            theta[:, layout.free] = self.moves.moved(parents, np.ascontiguousarray(z[:, :free]))
        for column, s, x in zip(layout.integers, self.spreads.tolist(), z.T[free:], strict=False):
            theta[:, column] = np.floor(theta[:, column] + s * x + 0.5)
        for choice, u in zip(layout.choices, z.T[free + len(layout.integers) :], strict=True):
            anew = np.searchsorted(np.cumsum(choice.chances)[:-1], u / _ANEW, side="right")
            theta[:, choice.column] = np.where(u < _ANEW, anew, theta[:, choice.column])
        return layout.complete(theta)

    def _prepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        discrete = theta[:, self.layout.discrete]
        if self.moves is None:
            return discrete, np.zeros(len(theta))
        prepared, shared = self.moves._prepared(np.ascontiguousarray(theta[:, self.layout.free]))
        return np.column_stack([prepared, discrete]), shared

    def _fill(self, exponents: np.ndarray, prepared: np.ndarray, columns: slice) -> None:
        width = prepared.shape[1] - len(self.layout.discrete)
        if self.moves is None:
            exponents[:] = self._log_weights[columns]
        else:
            self.moves._fill(exponents, np.ascontiguousarray(prepared[:, :width]), columns)
        for row, values in zip(exponents, prepared[:, width:].tolist(), strict=True):
            row += self._log_mass(tuple(values))[columns]

    def _log_mass(self, values: tuple[float, ...]) -> np.ndarray:
        """Log mass of these discrete values around each particle, (N,); few values are met, and often."""
        found = self._known.get(values)
        if found is None:
            found = self._computed(values)
            if len(self._known) < _MOST // len(self.weights):
                self._known[values] = found
        return found

    def _computed(self, values: tuple[float, ...]) -> np.ndarray:
        total, centres, n = np.zeros(len(self.weights)), self._discrete, len(self.layout.integers)
        for i, s in enumerate(self.spreads.tolist()):
            total += self._log_masses(i, s, np.abs(values[i] - centres[i]).astype(np.int64))
        for i, choice in enumerate(self.layout.choices, n):
            drawn = _ANEW * choice.chances[int(values[i])]
            total += np.where(values[i] == centres[i], np.log(1 - _ANEW + drawn), np.log(drawn))
        return total

    @cached_property
    def _known(self) -> dict[tuple[float, ...], np.ndarray]:
        return {}

    def _log_masses(self, i: int, s: float, offsets: np.ndarray) -> np.ndarray:
        """Those of the i-th integer at such distances from its particles."""
        near = self._near[i]
        return near.take(offsets) if offsets.max(initial=0) < len(near) else log_mass(offsets, s)

    @cached_property
    def _near(self) -> list[np.ndarray]:
        """Log masses by distance."""
        return [log_mass(np.arange(_NEAR), s) for s in self.spreads.tolist()]

    @cached_property
    def _discrete(self) -> np.ndarray:
        """The discrete columns of the particles, side by side."""
        return np.ascontiguousarray(self.centres[:, self.layout.discrete].T)


def log_mass(offsets: np.ndarray, s: float) -> np.ndarray:
    """Log mass of a rounded Gaussian at such distances, whole numbers, from its centre."""
    from scipy.special import ndtr  # which only such parameters need

    with np.errstate(divide="ignore"):
        return np.log(ndtr((0.5 - offsets) / s) - ndtr((-0.5 - offsets) / s))


def spreads(theta: np.ndarray, weights: np.ndarray, layout: Layout, scale: float) -> np.ndarray:
    """Standard deviations of the integers' moves."""
    delta = theta[:, layout.integers]
    delta = delta - np.einsum("n,nd->d", weights, delta)
    variance = np.einsum("n,nd->d", weights, np.square(delta))
    variance /= max(1e-12, 1.0 - np.square(weights).sum())
    return np.maximum(_LEAST_SPREAD, np.sqrt(scale * variance))
