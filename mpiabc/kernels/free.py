"""Free coordinates: bounded parameters are proposed where they have no bounds, and come back inside of them.

    z = log(x - a),   -log(b - x),   log((x - a) / (b - x)),   x        with bounds below, above, both, none
    q(x) = q0(z) |dz / dx|

A parameter that stands at its very bound, to which rounding may bring it, is taken for the next number
inside.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc.guard import quiet


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Of parameters with these bounds, (d,) each, infinite where there is none."""

    low: np.ndarray
    high: np.ndarray

    @quiet
    def free(self, x: np.ndarray) -> np.ndarray:
        """z of x (m, d), which lie within their bounds."""
        x = np.clip(x, self._lowest, self._highest)
        z = np.array(x)
        for i in self._bounded:
            if self._has_low[i] and self._has_high[i]:
                z[:, i] = np.log(x[:, i] - self.low[i]) - np.log(self.high[i] - x[:, i])
            elif self._has_low[i]:
                z[:, i] = np.log(x[:, i] - self.low[i])
            else:
                z[:, i] = -np.log(self.high[i] - x[:, i])
        return z

    @quiet
    def bound(self, z: np.ndarray) -> np.ndarray:
        """x of z (m, d), the inverse of `free`: always inside."""
        x = np.array(z)
        for i in self._bounded:
            low, high, at = self.low[i], self.high[i], z[:, i]
            if self._has_low[i] and self._has_high[i]:
                share = np.exp(-np.abs(at))
                step = (high - low) * (share / (1 + share))
                x[:, i] = np.where(at < 0, low + step, high - step)
            else:
                x[:, i] = low + np.exp(at) if self._has_low[i] else high - np.exp(-at)
        return np.clip(x, self._lowest, self._highest)

    @quiet
    def log_jacobian(self, z: np.ndarray) -> np.ndarray:
        """log |dz / dx| at z (m, d), (m,)."""
        total = np.zeros(len(z))
        for i in self._bounded:
            at = z[:, i]
            if self._has_low[i] and self._has_high[i]:
                far = np.abs(at)
                total += far + 2 * np.log1p(np.exp(-far)) - np.log(self.high[i] - self.low[i])
            else:
                total += -at if self._has_low[i] else at
        return total

    @quiet
    def holds(self, x: np.ndarray) -> np.ndarray:
        """Which x (m, d) lie within their bounds, (m,)."""
        return np.all((x >= self.low) & (x <= self.high), axis=1)

    @cached_property
    def _has_low(self) -> np.ndarray:
        return np.isfinite(self.low)

    @cached_property
    def _has_high(self) -> np.ndarray:
        return np.isfinite(self.high)

    @cached_property
    def _bounded(self) -> list[int]:
        return np.flatnonzero(self._has_low | self._has_high).tolist()

    @cached_property
    def _lowest(self) -> np.ndarray:
        largest = np.where(self._has_high, np.finfo(float).max, np.inf)  # of what exp() may give
        return np.where(self._has_low, np.nextafter(self.low, np.inf), -largest)

    @cached_property
    def _highest(self) -> np.ndarray:
        largest = np.where(self._has_low, np.finfo(float).max, np.inf)
        return np.where(self._has_high, np.nextafter(self.high, -np.inf), largest)


@dataclass(frozen=True, eq=False)
class Freed:
    """A mixture in free coordinates, as a proposal of parameters with these bounds."""

    is_rowwise = True  # as the mixture is

    mixture: Any
    low: np.ndarray
    high: np.ndarray

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of it when it is needed."""
        return {"mixture": self.mixture, "low": self.low, "high": self.high}

    @quiet
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d)."""
        return self._coordinates.bound(self.mixture.sample(n, rng))

    @quiet
    def sample_each(self, n: int, rngs: Iterable[np.random.Generator]) -> np.ndarray:
        """`n` draws from each of these generators, joined."""
        return self._coordinates.bound(self.mixture.sample_each(n, rngs))

    @quiet
    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (m, d), (m,); -inf outside of the bounds."""
        out = np.full(len(theta), -np.inf)
        inside = np.flatnonzero(self._coordinates.holds(theta))
        if inside.size:
            z = self._coordinates.free(theta[inside])
            out[inside] = self.mixture.logpdf(z) + self._coordinates.log_jacobian(z)
        return out

    @quiet
    def log_others(self, rows: np.ndarray) -> np.ndarray:
        """Log density at the centres of an index (k,), without the component that stands there."""
        z = self.mixture.centres[rows]
        return self.mixture.log_others(rows) + self._coordinates.log_jacobian(z)

    # As the part of a mixture that has other parameters, too.

    def moved(self, parents: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Draws around these particles, made of these numbers (n, d)."""
        return self._coordinates.bound(self.mixture.moved(parents, z))

    def _prepared(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the exponents of rows are computed of, and a part of them that all components share."""
        z = self._coordinates.free(theta)
        prepared, shared = self.mixture._prepared(z)
        inside = self._coordinates.holds(theta)
        return prepared, np.where(inside, shared + self._coordinates.log_jacobian(z), -np.inf)

    def _fill(self, exponents: np.ndarray, prepared: np.ndarray, columns: slice) -> None:
        """The exponents of rows and components, but for what is shared."""
        self.mixture._fill(exponents, prepared, columns)

    @property
    def is_diagonal(self) -> bool:
        """Whether there were too few particles for a full covariance."""
        return bool(self.mixture.is_diagonal)

    @cached_property
    def _coordinates(self) -> Coordinates:
        return Coordinates(self.low, self.high)
