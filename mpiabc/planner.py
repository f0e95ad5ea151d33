"""What next: from the last population to the next order. The one place that fits anything."""

import math
import os
from dataclasses import dataclass
from typing import Any

from mpiabc import guard
from mpiabc.arguments import real
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Level
from mpiabc.order import Arrays, restored
from mpiabc.population import Population
from mpiabc.problem import told
from mpiabc.records import Failure


@dataclass(frozen=True)
class Asking:
    """Work outside of evaluations: a part of the user's is asked by the process that leads."""

    what: str

    def last_words(self, how: str) -> Failure:
        """The failure of the part."""
        said = how.replace("the simulator", self.what)
        return Failure(0, 0, {}, said, "", f"process {os.getpid()}", "proposal")


@dataclass(frozen=True)
class Planner:
    """The adaptive parts of a run, and what they are fitted for."""

    prior: Any
    kernel: Any
    threshold: Any
    key: tuple[int, int]  # of the streams
    size: int
    is_static: bool

    def next(self, last: Population | None) -> Level | None:
        """The order after this population, None if the threshold has no more."""
        level = 0 if last is None else last.generation + 1
        with guard.at_work(Asking("the threshold")):
            epsilon = _epsilon(self.threshold, level, last)
        if epsilon is None:
            return None
        return Level(level, self.key, epsilon, self.fitted(last), self.size, self.is_static)

    def fitted(self, last: Population | None) -> Any:
        """The proposal after this population."""
        if last is None:
            return self.prior
        with guard.at_work(Asking("the kernel")):
            return self.kernel.fit(last)

    def again(self, text: str, arrays: Arrays, last: Population | None) -> Level:
        """An order that was kept; a proposal that is not ours is fitted once more."""
        parts = restored(text, arrays, last)
        proposal = parts.pop("proposal")
        return Level(key=self.key, proposal=self.fitted(last) if proposal is None else proposal, **parts)


def _epsilon(threshold: Any, level: int, last: Population | None) -> float | None:
    """What a threshold says for a level; None if it has no more.

    Raises ProblemError for what is no real number, and for one above that of the last population.
    """
    given = threshold.epsilon(level, last)
    if given is None:
        return None
    epsilon = real(given)
    said = f"{told(threshold)} gives {told(given)} as the epsilon of generation {level}"
    if epsilon is None or math.isnan(epsilon):
        raise ProblemError(f"{said}: a threshold gives a real number, or None when it has no more")
    if last is not None and epsilon > last.epsilon:
        raise ProblemError(f"{said}: it rises from {last.epsilon!r}, and must not")
    return float(epsilon)
