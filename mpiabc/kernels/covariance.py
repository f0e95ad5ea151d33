"""Covariances of weighted particles, shrunk where these are few for their dimension."""

import numpy as np

_SINGULAR = 1e-10  # of a variance: what is left of it by the other parameters


def covariance(delta: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_i w_i delta_i delta_i^T of deviations (n, d), (d, d)."""
    return np.einsum("n,ni,nj->ij", weights, delta, delta)


def factored(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """The Cholesky factor of a covariance (d, d); where that is singular of its diagonal, and True."""
    variance = np.diagonal(matrix)
    try:
        factor = np.linalg.cholesky(matrix)
        if np.all(np.square(np.diagonal(factor)) > _SINGULAR * variance):
            return factor, False
    except np.linalg.LinAlgError:
        pass
    return np.diag(np.sqrt(variance)), True


def shrunk(matrix: np.ndarray, delta: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A covariance (d, d), drawn towards its diagonal as far as its own errors suggest.

    Ledoit and Wolf (2004, doi:10.1016/S0047-259X(03)00096-4) for standardised parameters, so that units do
    not matter: (1 - b²/d²) C + b²/d² I of correlations C, with d² = |C - I|² and b², at most d², the sum
    over i of w_i² |z_i z_i^T - C|².
    """
    sd = np.sqrt(np.diagonal(matrix))
    z, correlation = delta / sd, matrix / np.outer(sd, sd)
    square = np.square(correlation).sum()
    of_row = np.square(np.square(z).sum(axis=1)) - 2 * np.einsum("ni,ij,nj->n", z, correlation, z) + square
    error, spread = float(np.square(weights) @ of_row), float(square - len(sd))
    share = min(1.0, error / spread) if spread > 0 else 1.0
    out = (1 - share) * matrix
    np.fill_diagonal(out, np.diagonal(matrix))
    return out


def extended(factor: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Cholesky factors (N, d, d) of F F^T + delta delta^T, for a factor F (d, d) and deltas (N, d).

    F times the factor of I + u u^T with u = F^-1 delta, which is known: with s_j = 1 + u_1² + ... + u_j² its
    diagonal is sqrt(s_j / s_j-1), and below stands u_i u_j / sqrt(s_j s_j-1). However far a delta is, nothing
    cancels.
    """
    d = len(factor)
    u = np.einsum("ij,nj->ni", np.linalg.inv(factor), deltas)
    s = np.cumsum(np.column_stack([np.ones(len(u)), np.square(u)]), axis=1)  # (N, d + 1)
    inner = np.tril(u[:, :, None] * (u / np.sqrt(s[:, 1:] * s[:, :-1]))[:, None, :], -1)
    inner[:, np.arange(d), np.arange(d)] = np.sqrt(s[:, 1:] / s[:, :-1])
    return np.einsum("ij,njk->nik", factor, inner)
