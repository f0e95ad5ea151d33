"""Rules for epsilon, the largest accepted distance.

A rule is anything with `epsilon(generation, previous) -> float | None`: `previous` is the population
before, None for generation 0; None as the answer means that no smaller threshold is left. `end`, a text, may
say why; it follows "threshold: " as the reason of the run's end. `goes_on(before, decided) -> bool`, if there
is one, says whether it may take the place of the rule `before` (as it is described in a run's settings) in a
run that has used the epsilons `decided`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from mpiabc.arguments import real
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

    end = "no distance is smaller"  # why there is no next one

    alpha: float = 0.5
    start: float = math.inf

    def __post_init__(self) -> None:
        alpha, start = real(self.alpha), real(self.start)
        if alpha is None or not 0 < alpha < 1:
            raise ProblemError(f"Quantile({self.alpha!r}): give a number between 0 and 1")
        if start is None or not start > 0:
            raise ProblemError(f"Quantile(start={self.start!r}): give a threshold > 0")
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "start", start)

    def goes_on(self, before: str, decided: Sequence[float]) -> bool:
        """Whether it is a gentler quantile."""
        match = re.fullmatch(rf"Quantile\(alpha=(\S+), start={self.start!r}\)", before)
        return match is not None and float(match[1]) <= self.alpha

    def epsilon(self, generation: int, previous: Population | None) -> Any:
        """The quantile, or None if all distances are equal to the last epsilon.

        Of several distances, that of each; one stays as it was where no distance is smaller.
        """
        if previous is None:
            return float(self.start)
        if previous.distances.ndim > 1:
            return self._of_several(previous)
        epsilon = float(weighted_quantile(previous.distances, previous.weights, self.alpha))
        if epsilon < previous.epsilon:
            return epsilon
        smaller = previous.distances[previous.distances < previous.epsilon]
        return float(smaller.max()) if smaller.size else None

    def _of_several(self, previous: Population) -> np.ndarray | None:
        columns = previous.distances.T
        last = np.broadcast_to(np.asarray(previous.epsilon, np.float64), len(columns))
        found = np.array([weighted_quantile(column, previous.weights, self.alpha) for column in columns])
        for i in np.flatnonzero(found >= last):
            smaller = columns[i][columns[i] < last[i]]
            found[i] = smaller.max() if smaller.size else last[i]
        return found if (found < last).any() else None


@dataclass(frozen=True)
class Listed:
    """The thresholds given, one a generation, falling; of several distances, a row of one for each."""

    thresholds: tuple[Any, ...]

    def __init__(self, thresholds: Any) -> None:
        if np.iterable(thresholds) and any(np.ndim(row) == 1 for row in thresholds):
            object.__setattr__(self, "thresholds", _rows(thresholds))
            return
        given = list(thresholds) if np.iterable(thresholds) else [None]
        values = tuple(float(value) for value in map(real, given) if value is not None)
        if not given:
            raise ProblemError("Listed([]) is empty: give at least one threshold")
        if len(values) < len(given) or not all(value >= 0 for value in values):
            raise ProblemError(
                f"Listed({thresholds!r}): thresholds are distances, give a list of numbers >= 0"
            )
        if any(later >= earlier for earlier, later in pairwise(values)):
            raise ProblemError(f"Listed({list(values)}) does not fall: give each threshold below the last")
        object.__setattr__(self, "thresholds", values)

    def goes_on(self, before: str, decided: Sequence[float]) -> bool:
        """Whether it is a list that begins with the thresholds that were used."""
        return before.startswith("Listed(") and _same(self.thresholds[: len(decided)], decided)

    def epsilon(self, generation: int, previous: Population | None) -> Any:
        """The threshold of that place in the list, None after the last."""
        return self.thresholds[generation] if generation < len(self.thresholds) else None


def _same(thresholds: Sequence[Any], decided: Sequence[Any]) -> bool:
    """Whether these are the thresholds that were decided, of one distance or of several."""
    pairs = zip(thresholds, decided, strict=False)
    return len(thresholds) == len(decided) and all(np.array_equal(a, b) for a, b in pairs)


def _rows(thresholds: Any) -> tuple[tuple[float, ...], ...]:
    """Rows of thresholds, one for each of several distances. Raises ProblemError."""
    rows = [[real(value) for value in row] if np.ndim(row) == 1 else [] for row in thresholds]
    numbers = [tuple(float(value) for value in row if value is not None) for row in rows]
    is_whole = all(len(a) == len(b) == len(rows[0]) > 0 for a, b in zip(rows, numbers, strict=True))
    if not is_whole or not all(value >= 0 for row in numbers for value in row):
        raise ProblemError(
            f"Listed({thresholds!r}): give a list of numbers >= 0, or of rows of one for each distance"
        )
    for before, after in pairwise(numbers):
        pairs = list(zip(before, after, strict=True))
        if any(later > earlier for earlier, later in pairs) or before == after:
            raise ProblemError(
                f"Listed({numbers}) does not fall: no number may rise from row to row, and one must fall"
            )
    return tuple(numbers)


@dataclass(frozen=True)
class Constant:
    """The same threshold in every generation."""

    value: float

    def __post_init__(self) -> None:
        value = real(self.value)
        if value is None or not value >= 0:
            raise ProblemError(f"Constant({self.value!r}): give a distance >= 0")
        object.__setattr__(self, "value", value)

    def epsilon(self, generation: int, previous: Population | None) -> float | None:
        """The threshold."""
        return float(self.value)
