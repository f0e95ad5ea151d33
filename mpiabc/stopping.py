"""When a run ends. Stopping rules never change a population: a shorter run is a prefix of a longer one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from mpiabc import batch, durations, environment
from mpiabc.arguments import real, whole
from mpiabc.errors import ProblemError


@dataclass(frozen=True)
class Stopping:
    """The rules of one call of `run`; None means: no such rule.

    Raises ProblemError for values that could never, or would at once, end a run.
    """

    generations: int | None = None
    epsilon: Any = None  # a number, or one for each of several distances
    simulations: int | None = None
    acceptance_rate: float | None = None
    walltime: float | None = None  # seconds
    min_epsilon_change: float | None = None  # relative
    ess: float | None = None
    models: int | None = None  # that have particles

    def __post_init__(self) -> None:
        self._take("generations", whole, lambda n: n >= 1, "a whole number of at least 1")
        self._take("models", whole, lambda n: n >= 1, "a whole number of at least 1")
        self._take("simulations", whole, lambda n: n >= 1, "a whole number of at least 1")
        self._take("epsilon", _distances, lambda x: bool(np.all(np.asarray(x) >= 0)), "a distance >= 0")
        self._take("acceptance_rate", real, lambda x: 0 < x <= 1, "a number in (0, 1]")
        self._take(
            "min_epsilon_change", real, lambda x: 0 < x < 1, "a share of epsilon in (0, 1), such as .01"
        )
        self._take("ess", real, lambda x: 0 < x < math.inf, "an effective sample size > 0")

    def _take(
        self, name: str, read: Callable[[Any], Any], holds: Callable[[Any], bool], expected: str
    ) -> None:
        """A rule that is given becomes Python's own number. Raises ProblemError for one that is none."""
        given = getattr(self, name)
        if given is None:
            return
        value = read(given)
        if value is None or not holds(value):
            raise ProblemError(f"{name}={given!r}: give {expected}")
        object.__setattr__(self, name, value)

    @property
    def is_bounded(self) -> bool:
        """Whether any rule is set."""
        return self != Stopping()

    def reason(
        self,
        generations: int,
        epsilon: Any,
        simulations: int,
        *,
        before: Any = math.inf,
        ess: float = math.inf,
        models: int | None = None,
    ) -> str | None:
        """Which rule ends a run of so many committed generations, if one does.

        epsilon, ess: of the last one; `before`: the epsilon of the one before, infinite if there is none.
        models: how many of several have particles.
        """
        if self.generations is not None and generations >= self.generations:
            return "generations"
        if self.epsilon is not None and generations and _is_reached(epsilon, self.epsilon):
            return "epsilon"
        if self.simulations is not None and simulations >= self.simulations:
            return "simulations"
        if self.min_epsilon_change is not None and _stalls(before, epsilon, self.min_epsilon_change):
            return "min_epsilon_change"
        if self.ess is not None and ess < self.ess * (1 - 1e-9):  # equal weights may lack the last bit
            return "ess"
        if self.models is not None and models is not None and models <= self.models:
            return "models"
        return None

    def most_ids(self, size: int) -> float:
        """Ids after which a generation of `size` cannot reach the acceptance rate any more."""
        return math.inf if self.acceptance_rate is None else math.floor(size / self.acceptance_rate)

    def most_simulations(self, used: int) -> float:
        """Simulations that the budget leaves to the open generation."""
        return math.inf if self.simulations is None else self.simulations - used


def _is_reached(epsilon: Any, aim: Any) -> bool:
    """Whether an epsilon, or each of several, is at most this. Raises ProblemError for too many or few."""
    if np.ndim(aim) and np.shape(aim) != np.shape(epsilon) and np.isfinite(epsilon).all():
        raise ProblemError(
            f"epsilon={aim!r}: these are {len(aim)} numbers for {np.size(epsilon)} distances; give one "
            "number, or one for each"
        )
    return bool(np.all(np.asarray(epsilon) <= aim))


def _stalls(before: Any, epsilon: Any, share: float) -> bool:
    """Whether an epsilon, or each of several, fell by less than a share of the one before."""
    before, epsilon = np.asarray(before, np.float64), np.asarray(epsilon, np.float64)
    with np.errstate(invalid="ignore"):  # both may be infinite
        return bool(np.all(before - epsilon < share * before))


def _distances(value: Any) -> Any:
    """A number, or as many as there are distances."""
    if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) != 1:
        return real(value)
    found = [real(each) for each in value]
    return None if not found or None in found else tuple(found)


def chosen(walltime: float | str | timedelta | None) -> float | str | timedelta | None:
    """The walltime that a run is given, else that of the environment."""
    given = environment.given(environment.WALLTIME) if walltime is None else None
    return walltime if given is None else given.strip()


def seconds(walltime: float | str | timedelta | None, name: str = "walltime") -> float | None:
    """A walltime in seconds, from a number, a timedelta, or text such as "90", "30m", "2h", "1:30:00".

    Text below 60 without a unit is noted in the log: batch systems take such a number for minutes.
    "auto" is what the batch system leaves to this job. Raises ProblemError, which calls it by this name.
    """
    if walltime is None:
        return None
    if isinstance(walltime, str):
        return batch.seconds_left() if walltime == "auto" else durations.parsed(walltime.strip(), name)
    number = walltime.total_seconds() if isinstance(walltime, timedelta) else real(walltime)
    if number is None or not number > 0:
        raise ProblemError(f"{name}={walltime!r}: give seconds > 0, a timedelta, or text such as '2h'")
    return float(number)
