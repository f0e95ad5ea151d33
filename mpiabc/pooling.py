"""What next, where a budget is spent in batches, all of which count: see `amis`.

The twin of `planner`: a batch of ids, a proposal that is fitted to what is nearest of all before it, and a
distance that is fitted to the batch before it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from mpiabc import amis, guard
from mpiabc.actions import Open
from mpiabc.adaptive import Measure
from mpiabc.distances import PNorm
from mpiabc.distances.scales import scales
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Level
from mpiabc.ledger import Ledger
from mpiabc.order import Arrays, distance_of, has_foreign_distance, restored
from mpiabc.particles import Particles
from mpiabc.planner import Asking, Decided
from mpiabc.population import Past, Population
from mpiabc.problem import Problem

_UNLIKE = 3.0  # scales that differ by more than this are of other units
_alike: WeakKeyDictionary[Particles, bool] = WeakKeyDictionary()  # whether units of a prior's batch are


@dataclass(frozen=True)
class PoolingPlanner:
    """A budget of ids in batches, and what is fitted between them."""

    prior: Any
    key: tuple[int, int]  # of the streams
    size: int  # effective, of a population
    simulations: int  # ids
    batches: int
    step: int = 1  # batches begin at multiples of it
    measure: Measure | None = None  # of a distance that is fitted to simulations
    is_plain: bool = False  # it is the problem's norm, of whose scales nothing was said
    errors: Mapping[str, Any] = field(default_factory=np.geterr)  # what the user has set, also for workers
    inside: float = 1.0  # the share of the prior that its constraint leaves
    weights: None = None  # by which a `Planner` says how recycled evaluations are weighted

    def drawn(self, level: int) -> int:
        """The ids of a batch."""
        return self.simulations * (level + 1) // self.batches - self.simulations * level // self.batches

    def next(self, past: Past) -> Decided | None:
        """The order after this past, None if the budget is spent."""
        if past.level >= self.batches:
            return None
        distance = None if past.pool is None else self._fitted(past.pool)
        doubt = None if past.pool is None else self._doubt(past.pool)
        size = self.drawn(past.level)
        order = Level(
            past.level,
            self.key,
            math.inf,
            self._proposal(past.last),
            size,
            distance=distance,
            errors=self.errors,
            keep="all",
            is_batch=True,
        )
        return Decided(self._in_line(order, past), past.last, doubt)

    def again(self, kept: tuple[str, Arrays], past: Past) -> Decided:
        """An order that was kept; a distance that is not ours is fitted once more."""
        text, arrays = kept
        is_foreign = has_foreign_distance(text) and past.pool is not None
        distance = self._fitted(past.pool) if is_foreign else distance_of(text, arrays)
        parts = restored(text, arrays, past.last, self.prior) | {"distance": distance}
        found = parts.pop("proposal")
        proposal = self._proposal(past.last) if found is None else found
        order = Level(key=self.key, proposal=proposal, errors=self.errors, **parts)
        return Decided(self._in_line(order, past), past.last)

    def distance_after(self, past: Past) -> Any:
        """The distance that comes after this past; None is the problem's own."""
        return self._fitted(past.pool)

    def calibration(self, past: Past) -> None:
        """Nothing comes before the first batch."""

    def end(self, past: Past) -> str:
        """Why there is no order after this past."""
        return "simulations"

    def gathered(self, opened: Open, names: tuple[str, ...]) -> tuple[Past, Population]:
        """The past with one more batch, the simulations of which are all known, and its population.

        Its population is what is nearest of all simulations so far. Raises ProblemError if there are none.
        """
        order, ledger, past = opened.order, opened.ledger, opened.past
        assert isinstance(ledger, Ledger)
        before, rows = past.pool or amis.Pool(), ledger.population()
        drawn = tuple(map(self.drawn, range(order.level + 1)))
        if rows.distances.ndim > 1:
            raise ProblemError(
                f"the distance gave {rows.distances.shape[1]} numbers, and ABCAMIS takes what is nearest by "
                "one: give a distance of one number, such as their largest"
            )
        pool = self._measured(before.with_batch(rows, drawn))
        if not len(pool):
            raise ProblemError(
                f"none of the {pool.drawn} ids of the first batches could be simulated, as they lie outside "
                "of the prior's support, or fail: give more simulations, or fewer batches"
            )
        population = self._population(opened, pool, names)
        proposals = (*past.proposals, order.proposal) if order.level else ()
        return replace(past.after(population, proposals), pool=pool), population

    def past_of(
        self, populations: list[Population], orders: list[tuple[str, Arrays] | None], pool: amis.Pool
    ) -> Past:
        """The past that a file has: its populations, what it has of their orders, all simulations."""
        past = Past()
        for population, order in zip(populations, orders, strict=True):
            is_lost = order is None and past.last is not None
            found = self._proposal(past.last) if is_lost else self._kept(order, past)
            past = past.after(population, (*past.proposals, found) if past.last is not None else ())
        return replace(past, pool=pool)

    @contextmanager
    def asking(self, what: str, part: Any) -> Iterator[None]:
        """As `Planner.asking`."""
        with guard.at_work(Asking(what)), guard.errors_of(self.errors, part):
            yield

    def _kept(self, order: tuple[str, Arrays] | None, past: Past) -> Any:
        """The proposal of an order that was kept; the prior of the first one."""
        if past.last is None or order is None:
            return self.prior
        found = restored(*order, past.last, self.prior)["proposal"]
        return self._proposal(past.last) if found is None else found

    def _proposal(self, last: Population | None) -> Any:
        return self.prior if last is None else amis.proposal(last.theta, last.weights, self.prior)

    def _in_line(self, order: Level, past: Past) -> Level:
        """With the place of its ids in the line of all of them, and the proposals of all batches before."""
        ids = 0 if past.last is None else past.last.first + past.last.evaluations
        return replace(order, first=-(-ids // self.step) * self.step, earlier=past.proposals)

    def _fitted(self, pool: amis.Pool | None) -> Any:
        """The distance that is fitted to the last batch; None is the problem's own.

        A norm of which nothing was said has scales only where those of the prior's batch lie far apart.
        """
        if self.measure is None or pool is None or not pool.parts:
            return None
        with self.asking("the distance", self.measure.distance):
            if self._is_of_one_unit(pool):
                return self.measure.distance.unscaled()  # type: ignore[attr-defined]
            return self.measure.fitted(_last(pool))

    def _doubt(self, pool: amis.Pool) -> str | None:
        """What the user should know of the fit of the distance."""
        if self.measure is None or self._is_of_one_unit(pool):
            return None
        return self.measure.doubts(_last(pool))

    def _is_of_one_unit(self, pool: amis.Pool) -> bool:
        """Whether a plain norm needs no scales: none of the prior's batch is a multiple of another."""
        if not (self.is_plain and self.measure is not None and pool.parts):
            return False
        first = pool.parts[0]  # the same for all batches, and medians of many statistics take long
        if first not in _alike:
            found = scales("mad", np.asarray(first.summaries, np.float64), self.measure.observed)
            _alike[first] = not found.size or bool(found.max() <= _UNLIKE * found.min())
        return _alike[first]

    def _measured(self, pool: amis.Pool) -> amis.Pool:
        """All simulations as the next batch's distance measures them: no number is infinitely far."""
        if self.measure is None or not pool.parts:
            return pool
        distance, observed = self._fitted(pool), self.measure.observed
        with self.asking("the distance", distance):
            found = [
                np.array(distance.rows(np.asarray(part.summaries, np.float64), observed), np.float64)
                for part in pool.parts
            ]
        if any(column.shape != (len(part),) for column, part in zip(found, pool.parts, strict=True)):
            raise ProblemError(
                f"rows of the fitted distance gave shape {found[0].shape} for {len(pool.parts[0])} "
                "simulations, expected one number for each"
            )
        return replace(pool, distances=np.nan_to_num(np.concatenate(found), nan=np.inf, posinf=np.inf))

    def _population(self, opened: Open, pool: amis.Pool, names: tuple[str, ...]) -> Population:
        """What is nearest of the pool."""
        order, ledger = opened.order, opened.ledger
        rows = pool.take(amis.nearest(pool.distances, pool.log_weights, self.size))
        weights = np.exp(rows.log_weights - rows.log_weights.max())
        columns: dict[str, Any] = rows.columns()
        evaluations, simulations = ledger.counts()
        nearer = np.delete(rows.log_weights, np.argmax(rows.distances))  # the farthest has chosen epsilon
        evidence = np.logaddexp.reduce(nearer, initial=-np.inf) - math.log(pool.drawn * self.inside)
        return Population(
            names=names,
            weights=weights / weights.sum(),
            first=order.first,
            generation=order.level,
            epsilon=float(rows.distances.max()),
            evaluations=evaluations,
            simulations=simulations,
            failures=len(ledger.failures_below_cut()),
            log_evidence=float(evidence),
            seconds=0.0,
            dispatched=ledger.dispatched,
            **columns,
        )


def plain_norm(problem: Problem) -> PNorm | None:
    """Its distance, if that is a norm of whose scales nothing was said."""
    norm = problem.distance
    if isinstance(norm, PNorm) and norm.scale is None and problem.observed is not None:
        return norm
    return None


def with_scales(problem: Problem) -> Problem:
    """A problem whose norm has scales, if they are needed: those of the median absolute deviation."""
    norm = plain_norm(problem)
    return problem if norm is None else problem.measured_by(replace(norm, scale="mad"))


def _last(pool: amis.Pool) -> Past:
    """What a distance is fitted to."""
    return Past(sample=pool.parts[-1] if pool.parts else None)
