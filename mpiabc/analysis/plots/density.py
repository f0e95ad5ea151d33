"""Densities of weighted particles, which end where the prior's support ends.

Kernel estimates, whose mass beyond a bound is reflected. Particles are counted in fine bins first, so that
ten thousand of them cost no more than a hundred.
"""

import numpy as np

from mpiabc.population import effective_sample_size, weighted_quantile

_BINS = 400
_BINS_2D = 120
_REACH = 4.0  # bandwidths

Ends = tuple[float, float]


def bandwidth(x: np.ndarray, w: np.ndarray) -> float:
    """Silverman's rule for the effective sample size, robust against two peaks."""
    mean = np.average(x, weights=w)
    spread = float(np.sqrt(np.average((x - mean) ** 2, weights=w)))
    low, high = weighted_quantile(x, w, [0.25, 0.75])
    if high > low:
        spread = min(spread, (high - low) / 1.349)
    if not spread > 1e-12 * abs(mean):  # all are equal
        return 0.01 * (abs(mean) or 1.0)
    return 0.9 * spread * max(1.0, effective_sample_size(w)) ** -0.2


def span(x: np.ndarray, w: np.ndarray, ends: Ends) -> Ends:
    """Where nearly all of it lies, with some room, within the ends of the support."""
    low, high = weighted_quantile(x, w, [0.005, 0.995])
    room = max(0.1 * (high - low), 2 * bandwidth(x, w))
    return max(low - room, ends[0]), min(high + room, ends[1])


def curve(x: np.ndarray, w: np.ndarray, ends: Ends, grid: np.ndarray) -> np.ndarray:
    """The density at the grid (g,)."""
    h = bandwidth(x, w)
    mass, middles = _counted(x, w, h, ends, grid, _BINS)
    return _smoother(grid, middles, h, ends) @ mass


def surface(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, ends: tuple[Ends, Ends], grids: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """The density of two parameters on a grid (gx, gy)."""
    h = [bandwidth(values, w) * max(1.0, effective_sample_size(w)) ** (1 / 5 - 1 / 6) for values in (x, y)]
    edges = [_edges(hi, end, grid, _BINS_2D) for hi, end, grid in zip(h, ends, grids, strict=True)]
    mass, *_ = np.histogram2d(x, y, bins=edges, weights=w / w.sum())
    smooth = [
        _smoother(grid, (edge[1:] + edge[:-1]) / 2, hi, end)
        for grid, edge, hi, end in zip(grids, edges, h, ends, strict=True)
    ]
    return smooth[0] @ mass @ smooth[1].T


def levels(density: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """The heights above which so much of the mass lies, lowest first; heights that coincide once."""
    ordered = np.sort(density.ravel())[::-1]
    mass = np.cumsum(ordered)
    if not mass[-1] > 0:
        return []
    at = [min(int(np.searchsorted(mass, share * mass[-1])), len(ordered) - 1) for share in shares]
    return sorted({float(ordered[i]) for i in at if ordered[i] > 0})


def _edges(h: float, ends: Ends, grid: np.ndarray, bins: int) -> np.ndarray:
    low, high = max(grid[0] - _REACH * h, ends[0]), min(grid[-1] + _REACH * h, ends[1])
    return np.linspace(low, high, bins + 1)


def _counted(
    x: np.ndarray, w: np.ndarray, h: float, ends: Ends, grid: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    edges = _edges(h, ends, grid, bins)
    mass, _ = np.histogram(x, bins=edges, weights=w / w.sum())
    return mass, (edges[1:] + edges[:-1]) / 2


def _smoother(grid: np.ndarray, middles: np.ndarray, h: float, ends: Ends) -> np.ndarray:
    """(g, b): the kernel at the grid of each bin, and of its images beyond the ends."""
    out = _kernel(grid[:, None] - middles, h)
    for end in ends:
        if np.isfinite(end):
            out += _kernel(grid[:, None] - (2 * end - middles), h)
    out[(grid < ends[0]) | (grid > ends[1])] = 0.0
    return out


def _kernel(difference: np.ndarray, h: float) -> np.ndarray:
    return np.exp(-0.5 * np.square(difference / h)) / (h * np.sqrt(2 * np.pi))
