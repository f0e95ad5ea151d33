"""Acceptors: which measured evaluations count.

What an acceptor has to decide by chance it decides by one number of each evaluation's own, which is the same
at every temperature: what is accepted at one is accepted at every higher one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpiabc.particles import Particles
from mpiabc.streams import Purpose, Stream

Uniform = Callable[[Particles], np.ndarray]


class Acceptor(Protocol):
    """Decides about rows that have their distances.

    A row's decision must not depend on the rows beside it: these depend on how ids were leased. One with
    `log_weights(rows, epsilon) -> (m,)` too says what accepted rows weigh besides prior / proposal, and with
    `log_constant(epsilon)` what the evidence is to be multiplied by; both are 0 for the others.
    """

    def accept(self, measured: Particles, epsilon: float, uniform: Uniform) -> np.ndarray:
        """Which of the rows (m,) count, as booleans; `uniform` gives rows numbers in [0, 1) of their own."""
        ...


@dataclass(frozen=True)
class Within:
    """Accepts what is at most epsilon away from the observed data: ABC with a uniform kernel."""

    def accept(self, measured: Particles, epsilon: float, uniform: Uniform | None = None) -> np.ndarray:
        """Where the distance is at most epsilon."""
        return measured.distances <= epsilon


@dataclass(frozen=True)
class Tempered:
    """Accepts with probability min(1, (p / c)^(1 / T)): data have noise of density p (Wilkinson 2013).

    A row's distance is -log p, epsilon is T; at T = inf all is accepted. Where c was a guess, and p larger,
    (p / c)^(1 / T) is the weight of the row (Schaelte and Hasenauer 2020).
    """

    wants_all = True  # that is simulated: a simulator may not reject by itself

    log_c: float = 0.0
    is_sure: bool = False  # that p is nowhere larger than c
    first: float = math.inf  # the temperature that cooling has begun with

    def accept(self, measured: Particles, epsilon: float, uniform: Uniform) -> np.ndarray:
        """Where u <= (p / c)^(1 / T), u the row's own number."""
        exponents = self.log_ratios(measured.distances, epsilon)
        is_accepted = exponents >= 0.0
        unsure = np.flatnonzero(~is_accepted & (exponents > -np.inf))
        if unsure.size:
            log_u = [math.log1p(-u) for u in uniform(measured.take(unsure)).tolist()]
            is_accepted[unsure] = np.array(log_u) <= exponents[unsure]
        return is_accepted

    def log_weights(self, rows: Particles, epsilon: float) -> np.ndarray:
        """Of accepted rows: max(0, log(p / c) / T)."""
        return np.maximum(0.0, self.log_ratios(rows.distances, epsilon))

    def log_constant(self, epsilon: float) -> float:
        """log c / T, which the acceptance was divided by."""
        return self.log_c / epsilon

    def log_ratios(self, distances: np.ndarray, epsilon: float) -> np.ndarray:
        """log(p / c) / T."""
        return np.zeros(len(distances)) if epsilon == math.inf else (-distances - self.log_c) / epsilon


class Uniforms:
    """One number in [0, 1) for each evaluation, addressed by its level and id alone."""

    def __init__(self, key: tuple[int, int]) -> None:
        self._stream = Stream(key, Purpose.ACCEPTANCE)

    def __call__(self, rows: Particles) -> np.ndarray:
        """Those of the rows, (m,)."""
        addresses = zip(rows.level.tolist(), rows.ids.tolist(), strict=True)
        return np.array([self._stream.at(level, id).random() for level, id in addresses])


def log_weights(acceptor: Any, rows: Particles, epsilon: float) -> np.ndarray | None:
    """What accepted rows weigh besides prior / proposal, (m,); None if nothing."""
    weights = getattr(acceptor, "log_weights", None)
    return None if weights is None else weights(rows, epsilon)


def log_constant(acceptor: Any, epsilon: float) -> float:
    """What the log evidence lacks."""
    constant = getattr(acceptor, "log_constant", None)
    return 0.0 if constant is None else constant(epsilon)
