"""Temperatures of a noise model: how hard the next generation accepts.

    T_t = T_0^(1 - t / steps), never above what the target rate asks for, exactly 1 from t = steps on

How many of the next generation's ids would be accepted is estimated from the accepted ones of the last:
theta of the next proposal q' instead of q weighs q' / q, and who was accepted with probability a at T stands
for 1 / a ids, of which a' are accepted at T' < T,

    rate(T') = 1 / ids  sum_i q'(theta_i) / q(theta_i) a'_i / a_i,      a' / a = (p / c)^(1/T' - 1/T) <= 1

so that rejected ids need not be known. They cannot have had the largest density either: what is larger than c
is accepted.
"""

import math
from collections.abc import Callable

import numpy as np

from mpiabc.acceptors import Tempered
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.noise import Noise
from mpiabc.population import Population

_HALVINGS = 60
_HOTTEST = 1e12
MOST_ROWS = 1000  # that a rate is estimated from


def begun(log_c: float | None) -> Tempered:
    """The acceptor of generation 0, which accepts all; log_c: of the model's maximum, if that is known."""
    return Tempered() if log_c is None else Tempered(log_c, is_sure=True)


def rows_of(last: Population) -> np.ndarray:
    """An index of the particles that a rate is estimated from."""
    return np.unique(np.linspace(0, len(last) - 1, MOST_ROWS).astype(int))


@quiet
def cooled(
    noise: Noise,
    before: Tempered,
    last: Population,
    log_rate: float,
    log_ratios: Callable[[np.ndarray], np.ndarray],
) -> tuple[Tempered, float]:
    """The acceptor of the generation after `last`, and its temperature.

    log_rate: of its particles by the ids that they came of. log_ratios: of the densities q' / q of the next
    proposal and of that which they were drawn from, at rows.
    """
    log_c = before.log_c
    if not before.is_sure:
        largest = float((-last.distances).max())
        log_c = max(largest, log_c) if last.generation else largest
    if log_c == -math.inf or not np.isfinite(last.distances).any():
        raise ProblemError(
            "the density of the observed data is 0 for all that generation 0 has simulated: give noise that "
            "the observed data can come of, or a larger population"
        )
    first = before.first
    if not last.generation:
        first = _first(noise, -last.distances - log_c)
    now = Tempered(log_c, before.is_sure, first)
    t = last.generation + 1
    scheduled = min(last.epsilon, first ** max(0.0, 1.0 - t / noise.steps))
    if scheduled <= 1.0:
        return now, 1.0
    rows = rows_of(last)
    log_a = before.log_ratios(last.distances[rows], last.epsilon)
    log_r = log_ratios(rows) + log_rate - np.minimum(0.0, log_a)
    log_p = -last.distances[rows] - log_c

    def rate(temperature: float) -> float:
        return float(np.mean(np.exp(log_r + np.minimum(0.0, log_p / temperature))))

    return now, _coolest(rate, noise.rate, scheduled)


def _first(noise: Noise, log_p: np.ndarray) -> float:
    """The temperature at which `rate` of the prior's sample, or half of what has a density, is accepted."""
    aim = min(noise.rate, 0.5 * float(np.mean(np.isfinite(log_p))))
    return _coolest(lambda temperature: float(np.mean(np.exp(log_p / temperature))), aim, _HOTTEST)


def _coolest(rate: Callable[[float], float], aim: float, hottest: float) -> float:
    """The least temperature in [1, hottest] at which at least `aim` are accepted, else the hottest."""
    if rate(1.0) >= aim:
        return 1.0
    if rate(hottest) <= aim:
        return hottest
    low, high = 0.0, math.log(hottest)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if rate(math.exp(middle)) >= aim else (middle, high)
    return min(hottest, math.exp(high))
