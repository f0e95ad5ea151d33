"""What next: from the last population to the next order. The one place that fits anything."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mpiabc import guard, recycling
from mpiabc.acceptors import Acceptor, Tempered, Uniforms, Within
from mpiabc.arguments import real, whole
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Level
from mpiabc.noise import Noise
from mpiabc.order import Arrays, acceptor_of, epsilon_of, restored
from mpiabc.particles import Particles
from mpiabc.population import Past, Population
from mpiabc.problem import told
from mpiabc.records import Failure
from mpiabc.sizes import LEAST
from mpiabc.streams import stride_of
from mpiabc.temperatures import begun, cooled

LEAST_SAMPLE = 1000  # simulations that parts are fitted to, if there are as many


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
    size: Any  # of all generations, or a rule: see `sizes`
    is_static: bool
    weights: str | None = None  # how recycled evaluations are weighted; None: nothing is recycled
    step: int = 1  # levels begin at multiples of it
    noise: Noise | None = None  # whose temperatures take the place of thresholds
    log_c: float | None = None  # of the largest density that noise can have, if that is known
    is_sampling: bool = False  # whether a part is fitted to simulations, accepted or not
    is_sample_weighed: bool = False  # and wants their weights, too
    errors: Mapping[str, Any] = field(default_factory=np.geterr)  # what the user has set, also for workers

    def next(self, past: Past) -> Decided | None:
        """The order after this past, None if the threshold has no more."""
        if self.noise is not None:
            is_cold = self.weights and past.last and past.last.epsilon == 1.0
            return None if is_cold else self.decided(past)
        with self.asking("the threshold", self.threshold):
            epsilon = _epsilon(self.threshold, past.level, past.last)
        if epsilon is None or (self.weights and past.last and epsilon == past.last.epsilon):
            return None  # at the same threshold all particles would be recycled
        return self.decided(past, epsilon)

    def decided(self, past: Past, epsilon: float = math.inf) -> Decided:
        """The order after this past with this epsilon, or with the temperature that is next."""
        acceptor: Acceptor = Within()
        if self.noise is not None:
            acceptor, epsilon = self._cooled(past, self.noise)
        base = self._base(past.last, acceptor, epsilon)
        proposal = self._fitted(base)
        decided = past.level, self.key, epsilon, proposal, self._sized(past), self.is_static
        order = Level(*decided, acceptor=acceptor, errors=self.errors)
        return Decided(self._sampling(self._in_line(order, past), past), base)

    def _base(self, last: Population | None, acceptor: Acceptor, epsilon: float) -> Population | None:
        """What the proposal for an epsilon is fitted to."""
        if last is None or self.weights is None:
            return last
        return recycling.base(last, epsilon, acceptor.accept(last, epsilon, Uniforms(self.key)))

    def _cooled(self, past: Past, noise: Noise) -> tuple[Tempered, float]:
        """The acceptor that comes next, and its temperature."""
        last, before = past.last, past.acceptor
        if last is None or before is None:
            return begun(self.log_c), math.inf
        proposal = self._fitted(last)
        log_weights = recycling.log_weights(last, past.tried, self.weights)

        def log_ratios(rows: np.ndarray) -> np.ndarray:
            log_q = self.prior.logpdf(last.theta[rows]) - log_weights[rows]
            log_q += before.log_weights(last.take(rows), last.epsilon)
            return recycling.log_others(proposal, last.theta, rows) - log_q

        ids = last.evaluations if self.weights is None else sum(past.tried)
        with self.asking("the kernel", proposal):
            return cooled(noise, before, last, math.log(len(last) / ids), log_ratios)

    def _fitted(self, base: Population | None) -> Any:
        """The proposal of this population; the prior if there is none."""
        if base is None:
            return self.prior
        with self.asking("the kernel", self.kernel):
            return self.kernel.fit(base)

    def _sized(self, past: Past) -> int:
        """How many particles come next. Raises ProblemError for what is no number of them."""
        if isinstance(self.size, int):
            return self.size
        with self.asking("the size", self.size):
            given = self.size.size(past.level, past.last)
        size = whole(given)
        if size is None or size < LEAST:
            raise ProblemError(
                f"{told(self.size)} gives {told(given)} as the size of generation {past.level}: a size is a "
                f"whole number of at least {LEAST}"
            )
        return size

    @contextmanager
    def asking(self, what: str, part: Any) -> Iterator[None]:
        """A part is asked: the user's settings hold, unless it is ours; an end of this process is named."""
        with guard.at_work(Asking(what)), guard.errors_of(self.errors, part):
            yield

    def again(self, kept: tuple[str, Arrays], past: Past) -> Decided:
        """An order that was kept; a proposal that is not ours is fitted once more."""
        text, arrays = kept
        base = self._base(past.last, acceptor_of(text), epsilon_of(text))
        parts = restored(text, arrays, base)
        proposal = parts.pop("proposal")
        proposal = self._fitted(base) if proposal is None else proposal
        order = Level(key=self.key, proposal=proposal, errors=self.errors, **parts)
        return Decided(self._in_line(order, past), base)

    def after(
        self, past: Past, order: Level | None, population: Population, sample: Particles | None = None
    ) -> Past:
        """The past with one more generation, which came of this order, None if it is not needed."""
        is_needed = self._needs_densities and past.last is not None
        proposals = (*past.proposals, order.proposal) if is_needed and order else ()
        acceptor = order.acceptor if order else None
        return past.after(population, proposals, sample, acceptor)

    def past(self, populations: Iterable[Population], kept: Callable[[int], Any]) -> Past:
        """The past that a file has; `kept`: what it has of the order of a level."""
        past = Past()
        for population in populations:
            is_needed = self._needs_densities or self.noise is not None
            order = self._order_of(past, population, kept) if is_needed else None
            past = self.after(past, order, population)
        return past

    def _order_of(self, past: Past, population: Population, kept: Callable[[int], Any]) -> Level:
        """What a committed population came of, decided again if the file has lost it."""
        order = kept(past.level)
        decided = self.decided(past, population.epsilon) if order is None else self.again(order, past)
        return decided.order

    @property
    def _needs_densities(self) -> bool:
        """Whether weights need those of all levels."""
        return self.weights == recycling.BALANCE

    def _sampling(self, order: Level, past: Past) -> Level:
        """With the sample that parts are fitted to: the first M simulated ids, accepted or not.

        Four times as many are asked for as should be needed, as some fail, and as proposals lie inside of
        the prior's support more or less often than those of the generation before.
        """
        if not self.is_sampling:
            return order
        m, last = max(order.size, LEAST_SAMPLE), past.last
        share = 1.0 if last is None or not last.evaluations else last.simulations / last.evaluations
        ids, end = math.ceil(4 * m / share), math.inf
        if order.epsilon < math.inf:  # else what was simulated is accepted
            tries = -(-ids // order.size)
            end = tries * stride_of(order.size, self.step) if self.is_static else order.first + ids
        weighed = self.is_sample_weighed
        return replace(order, sample=m, sample_end=end, is_sample_weighed=weighed)

    def _in_line(self, order: Level, past: Past) -> Level:
        """With what weights need of the levels before, if their ids are those of one line."""
        if self.weights is None:
            return order
        end = 0 if past.last is None else past.last.first + past.last.evaluations
        first = -(-end // self.step) * self.step
        earlier = past.proposals if self._needs_densities else None
        return replace(order, first=first, earlier=earlier)


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
