"""Rules for epsilon, the largest accepted distance.

A rule is anything with `epsilon(generation, previous) -> float | None`: `previous` is the population
before, None for generation 0; None as the answer means that no smaller threshold is left.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from mpiabc.errors import ProblemError
from mpiabc.population import Population, weighted_quantile


class Threshold(Protocol):
    """Gives each generation its epsilon."""

    def epsilon(self, generation: int, previous: Population | None) -> float | None:
        """The epsilon of `generation`, or None if there is none."""
        ...


@dataclass(frozen=True)
class Quantile:
    """The weighted `alpha`-quantile of the previous population's distances; `start` for generation 0.

    With the default start, generation 0 is a sample of the prior. Where many distances are equal the
    quantile may not fall; then the next smaller distance is taken.
    """

    alpha: float = 0.5
    start: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ProblemError(f"Quantile({self.alpha}): give a number between 0 and 1")
        if not self.start > 0:
            raise ProblemError(f"Quantile(start={self.start}): give a threshold > 0")

    def epsilon(self, generation: int, previous: Population | None) -> float | None:
        """The quantile, or None if all distances are equal to the last epsilon."""
        if previous is None:
            return self.start
        epsilon = float(weighted_quantile(previous.distances, previous.weights, self.alpha))
        if epsilon < previous.epsilon:
            return epsilon
        smaller = previous.distances[previous.distances < previous.epsilon]
        return float(smaller.max()) if smaller.size else None


@dataclass(frozen=True)
class Listed:
    """The thresholds given, one a generation, falling."""

    thresholds: tuple[float, ...]

    def __init__(self, thresholds: "list[float] | tuple[float, ...] | np.ndarray") -> None:
        values = tuple(float(value) for value in thresholds)
        if not values:
            raise ProblemError("Listed([]) is empty: give at least one threshold")
        if not all(value >= 0 for value in values):
            raise ProblemError(f"Listed({list(values)}): thresholds are distances, give numbers >= 0")
        if any(later >= earlier for earlier, later in pairwise(values)):
            raise ProblemError(f"Listed({list(values)}) does not fall: give each threshold below the last")
        object.__setattr__(self, "thresholds", values)

    def epsilon(self, generation: int, previous: Population | None) -> float | None:
        """The threshold of that place in the list, None after the last."""
        return self.thresholds[generation] if generation < len(self.thresholds) else None


@dataclass(frozen=True)
class Constant:
    """The same threshold in every generation."""

    value: float

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise ProblemError(f"Constant({self.value}): give a distance >= 0")

    def epsilon(self, generation: int, previous: Population | None) -> float | None:
        """The threshold."""
        return float(self.value)
