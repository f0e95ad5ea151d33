"""What next: from the last population to the next order. The one place that fits anything."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mpiabc import guard, joint, recycling
from mpiabc.arguments import real
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Level
from mpiabc.joint import ModelPrior, ModelProposal
from mpiabc.order import Arrays, epsilon_of, restored
from mpiabc.population import Past, Population
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


class Decided(NamedTuple):
    """An order, and the population that its proposal was fitted to, if there is one."""

    order: Level
    base: Population | None


@dataclass(frozen=True)
class Planner:
    """The adaptive parts of a run, and what they are fitted for."""

    prior: Any
    kernel: Any
    threshold: Any
    key: tuple[int, int]  # of the streams
    size: int
    is_static: bool
    weights: str | None = None  # how recycled evaluations are weighted; None: nothing is recycled
    step: int = 1  # levels begin at multiples of it
    errors: Mapping[str, Any] = field(default_factory=np.geterr)  # what the user has set, also for workers

    def next(self, past: Past) -> Decided | None:
        """The order after this past, None if the threshold has no more."""
        with self.asking("the threshold", self.threshold):
            epsilon = _epsilon(self.threshold, past.level, past.last)
        if epsilon is None or (self.weights and past.last and epsilon == past.last.epsilon):
            return None  # at the same threshold all particles would be recycled
        return self.decided(past, epsilon)

    def decided(self, past: Past, epsilon: float) -> Decided:
        """The order after this past with this epsilon."""
        base = self._base(past.last, epsilon)
        proposal = self._fitted(base)
        order = Level(past.level, self.key, epsilon, proposal, self.size, self.is_static, errors=self.errors)
        return Decided(self._in_line(order, past), base)

    def _base(self, last: Population | None, epsilon: float) -> Population | None:
        """What the proposal for an epsilon is fitted to."""
        return last if last is None or self.weights is None else recycling.base(last, epsilon)

    def _fitted(self, base: Population | None) -> Any:
        """The proposal of this population; the prior if there is none."""
        if base is None:
            return self.prior
        with self.asking("the kernel", self.kernel):
            if isinstance(self.prior, ModelPrior):
                return joint.fitted(lambda *part: fitted(self.kernel, *part), base, self.prior)
            return fitted(self.kernel, base, self.prior)

    @contextmanager
    def asking(self, what: str, part: Any) -> Iterator[None]:
        """A part is asked: the user's settings hold, unless it is ours; an end of this process is named."""
        with guard.at_work(Asking(what)), guard.errors_of(self.errors, part):
            yield

    def again(self, kept: tuple[str, Arrays], past: Past) -> Decided:
        """An order that was kept; a proposal that is not ours is fitted once more."""
        text, arrays = kept
        base = self._base(past.last, epsilon_of(text))
        parts = restored(text, arrays, base)
        proposal = parts.pop("proposal")
        proposal = self._fitted(base) if proposal is None else proposal
        if isinstance(proposal, ModelProposal):
            proposal = proposal.with_prior(self.prior)
        order = Level(key=self.key, proposal=proposal, errors=self.errors, **parts)
        return Decided(self._in_line(order, past), base)

    def after(self, past: Past, proposal: Any, population: Population) -> Past:
        """The past with one more generation, which came of this proposal."""
        is_needed = self._needs_densities and past.last is not None
        return past.after(population, (*past.proposals, proposal) if is_needed else ())

    def past(self, populations: Iterable[Population], kept: Callable[[int], Any]) -> Past:
        """The past that a file has; `kept`: what it has of the order of a level."""
        past = Past()
        for population in populations:
            proposal = self._proposal(past, population, kept) if self._needs_densities else None
            past = self.after(past, proposal, population)
        return past

    def _proposal(self, past: Past, population: Population, kept: Callable[[int], Any]) -> Any:
        """What a committed population was proposed by, fitted again if the file has lost it."""
        order = kept(past.level)
        decided = self.decided(past, population.epsilon) if order is None else self.again(order, past)
        return decided.order.proposal

    @property
    def _needs_densities(self) -> bool:
        """Whether weights need those of all levels."""
        return self.weights == recycling.BALANCE

    def _in_line(self, order: Level, past: Past) -> Level:
        """With what weights need of the levels before, if their ids are those of one line."""
        if self.weights is None:
            return order
        end = 0 if past.last is None else past.last.first + past.last.evaluations
        first = -(-end // self.step) * self.step
        earlier = past.proposals if self._needs_densities else None
        return replace(order, first=first, earlier=earlier)


def fitted(kernel: Any, population: Population, prior: Any) -> Any:
    """The proposal that a kernel fits to a population of one model, of which this is the prior."""
    return kernel.fit(population)


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
