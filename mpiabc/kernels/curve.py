"""The sum of many equal bells on a line as a curve: a series for each piece of the line, exact to rounding.

With u = c + x in the piece around c, and centres v_j = c + s_j,

    sum_j W_j exp(-(u - v_j)^2 / 2) = exp(-x^2 / 2) sum_j A_j exp(x s_j),        A_j = W_j exp(-s_j^2 / 2)
                                    = exp(m x - x^2 / 2) sum_k x^k / k! sum_j A_j (s_j - m)^k

for any m; with the mean of the s_j, few terms are needed (the idea of the fast Gauss transform: Greengard and
Strain 1991, doi:10.1137/0912004). A piece is made when a row first lies in it, and depends on nothing else.
"""

import math

import numpy as np

_WIDTH = 0.5  # of a piece, in standard deviations of a bell
_TERMS = 28
_MARGIN = 9.0  # how far the pieces reach beyond the centres
_MOST_PIECES = 10_000
_FAR = 14.0  # a bell that counts may be so far from the mean of those that count
_COUNTS = 1e-18  # what adds less changes no digit


class Curve:
    """log sum_j W_j exp(-(u - v_j)^2 / 2) as a function of u."""

    def __init__(self, centres: np.ndarray, log_weights: np.ndarray) -> None:
        """centres: v (N,). log_weights: log W (N,)."""
        self._centres, self._log_weights = centres, log_weights
        self._first = math.floor((centres.min() - _MARGIN) / _WIDTH)
        pieces = math.floor((centres.max() + _MARGIN) / _WIDTH) - self._first + 1
        self._pieces = np.full((min(pieces, _MOST_PIECES), 2 + _TERMS), np.nan)
        self._is_made = np.zeros(len(self._pieces), bool)

    def log(self, u: np.ndarray) -> np.ndarray:
        """The logarithm at u (m,); nan where the series is not sure: far from most bells."""
        cells = np.floor(u / _WIDTH)
        at = cells - self._first
        at = np.where((at >= 0) & (at < len(self._pieces)), at, 0).astype(np.intp)
        if not self._is_made[at].all():
            for piece in np.unique(at[~self._is_made[at]]).tolist():
                self._make(piece)
        x, pieces = u - (cells + 0.5) * _WIDTH, self._pieces[at]
        powers = np.empty((len(u), _TERMS))
        powers[:, 0], powers[:, 1:] = 1.0, x[:, None]
        np.multiply.accumulate(powers, axis=1, out=powers)
        series = np.einsum("mk,mk->m", powers, pieces[:, 2:])
        is_there = at == cells - self._first
        return np.where(is_there, np.log(series) + pieces[:, 0] + x * (pieces[:, 1] - 0.5 * x), np.nan)

    def _make(self, piece: int) -> None:
        """The logarithm's constant, the slope, and the coefficients; nothing where the terms are too few.

        Threads that need it make it both, of the same bits.
        """
        s = self._centres - (self._first + piece + 0.5) * _WIDTH
        exponents = self._log_weights - 0.5 * np.square(s)
        highest = exponents.max()
        terms = np.exp(exponents - highest)
        total = terms.sum()
        slope = (terms * s).sum() / total
        s -= slope
        if np.abs(s[terms > _COUNTS * total]).max() <= _FAR:
            coefficients = [highest, slope]
            for k in range(_TERMS):
                coefficients.append(terms.sum() / math.factorial(k))
                terms *= s
            self._pieces[piece] = coefficients
        self._is_made[piece] = True
