"""The Mahalanobis distance, with a covariance that is given, or that of simulations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.distances.norm import without_scale
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.particles import Particles
from mpiabc.structure import Data, Structure


@dataclass(frozen=True)
class Mahalanobis:
    """sqrt((x - y)^T C^-1 (x - y)) with a covariance C (k, k) of the data's numbers, in their order.

    Without one, C is fitted after each generation to its first simulations, accepted or not; directions in
    which these do not differ are left out.
    """

    is_rowwise = True

    covariance: Any = None

    def __post_init__(self) -> None:
        if self.covariance is None:
            return
        c = np.asarray(self.covariance)
        is_square = c.ndim == 2 and c.shape[0] == c.shape[1] and c.dtype.kind in "biuf"
        if not (
            is_square and np.isfinite(c).all() and np.allclose(c, c.T) and (np.linalg.eigvalsh(c) > 0).all()
        ):
            raise ProblemError(
                f"Mahalanobis has a covariance of shape {c.shape}, expected a symmetric matrix (k, k) that "
                "is positive definite"
            )

    @property
    def is_adaptive(self) -> bool:
        """Whether its covariance is fitted to simulations."""
        return self.covariance is None

    @quiet
    def __call__(self, simulated: Data, observed: Data) -> float:
        """The distance of two data of the same structure; a covariance that is fitted is the identity."""
        structure = Structure(observed)
        return float(self.of(observed).rows(structure.row(simulated)[None], structure.row(observed))[0])

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        k = len(observed)
        precision = (
            np.eye(k) if self.covariance is None else _inverse(np.asarray(self.covariance, np.float64))
        )
        return Whitened(precision).rows(simulated, observed)

    def fit(self, sample: Particles, observed: np.ndarray) -> "Whitened":
        """The distance with the covariance of this sample."""
        simulated = np.asarray(sample.summaries, np.float64)
        simulated = simulated[np.isfinite(simulated).all(axis=1)]
        if len(simulated) < 2:
            return Whitened(np.eye(len(observed)))
        return Whitened(_inverse(np.atleast_2d(np.cov(simulated, rowvar=False))))

    def doubts(self, sample: Particles, observed: np.ndarray) -> str | None:
        """Which statistics say nothing, as they are always the same, though not as observed."""
        simulated = np.asarray(sample.summaries, np.float64)
        is_constant = (simulated == simulated[:1]).all(axis=0) & (simulated[:1] != observed).all(axis=0)
        names = [f"statistic {i}" for i in np.flatnonzero(is_constant)]
        return without_scale(names) if names and self.covariance is None else None

    def of(self, observed: Data) -> Any:
        """What measures rows of data like these."""
        self.check(observed)
        if self.covariance is None:
            return self
        return Whitened(_inverse(np.asarray(self.covariance, np.float64)))

    def check(self, observed: Data) -> None:
        """Raise ProblemError for a covariance of other data."""
        size = Structure(observed).size
        if self.covariance is not None and len(self.covariance) != size:
            raise ProblemError(
                f"Mahalanobis has a covariance of {len(self.covariance)} numbers for data of {size}: give "
                "one (k, k), in the order of the observed data"
            )


@dataclass(frozen=True, eq=False)
class Whitened:
    """sqrt((x - y)^T P (x - y)) with a precision P (k, k)."""

    is_rowwise = True

    precision: np.ndarray

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        from scipy.spatial.distance import cdist  # which goes from row to row

        return cdist(simulated, observed[None], "mahalanobis", VI=self.precision)[:, 0]


def _inverse(covariance: np.ndarray) -> np.ndarray:
    """Of statistics of whatever units: scaled to a correlation, and back."""
    deviations = np.sqrt(np.diag(covariance))
    weights = np.divide(1.0, deviations, out=np.zeros(len(deviations)), where=deviations > 0)
    correlation = weights[:, None] * covariance * weights
    return weights[:, None] * np.linalg.pinv(correlation, rcond=1e-10, hermitian=True) * weights
