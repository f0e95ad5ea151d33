"""Looks at parts of users' own as a run comes to them: before the first order, and when one was first fitted.

What cannot be used is a ProblemError, before any work that it would spoil. What only breaks a promise, or
seems to, is reported, once. Parts of this package are not looked at. Asked is a copy, as a part may keep what
it was asked, and rightly so; what takes long is not asked again.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mpiabc import checks, guard, promises
from mpiabc.actions import Tell
from mpiabc.calls import is_ours, name_of
from mpiabc.checks import unless_it_raises
from mpiabc.copied import copied
from mpiabc.distances import measures_rows, of_data
from mpiabc.evaluate import Level
from mpiabc.models import AnyProblem
from mpiabc.order import is_kept_whole
from mpiabc.planner import Asking, Planner
from mpiabc.pooling import PoolingPlanner
from mpiabc.population import Past, Population
from mpiabc.priors.joint import ModelPrior, ModelProposal
from mpiabc.problem import Problem
from mpiabc.streams import BLOCK, Purpose, Stream

AnyPlanner = Planner | PoolingPlanner
_MOST = 1 << 16  # numbers of a simulation, beyond which a distance is not asked for rows that are made up
_FEW = 8  # rows by which two fits are compared
_LONG = 2.0  # seconds of a fit, from which on it is not asked for again
_ROWS = 1.0  # seconds for rows that are asked for together
_RAISED = object()


def of_problem(problem: AnyProblem, planner: AnyPlanner) -> list[Tell]:
    """Priors, observed data and a distance of rows, before anything is drawn."""
    key = planner.key
    with guard.at_work(Asking("the prior")):
        for model in problem.models:
            _check_shapes("the prior", model.prior, len(model.names), key)
        priors = (_asked(partial(checks.of_prior, model.prior, key)) for model in problem.models)
        of_prior = next(filter(None, priors), "")
    of_data = checks.of_data(problem.observed_row, problem.structure)
    found = {
        "prior": of_prior,
        "observed": of_data,
        "distance's rows": _of_distance(problem.models[0], planner),
    }
    return _reports(found)


class Stopwatch:
    """How long parts took to decide: of these looks alone, nothing else depends on it."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def is_long(self) -> bool:
        """Whether they would take too long once more."""
        return time.perf_counter() - self._began > _LONG


def of_decided(
    planner: AnyPlanner, past: Past, order: Level, base: Population | None, *, is_long: bool
) -> list[Tell]:
    """Kernel, fitted distance, threshold and size, once each of them was asked with a population.

    is_long: that took so long that nothing is fitted again.
    """
    found = {"distance's fit": "" if is_long else _of_fitted_distance(planner, past, order)}
    if base is not None and isinstance(planner, Planner):
        found["proposal"] = _of_kernel(planner, order, base, is_long)
        found |= {} if is_long else _of_rules(planner, past, order)
    return _reports(found)


def of_distances(problem: AnyProblem, population: Population, order: Level) -> list[Tell]:
    """Whether a callable gives an array where one number may be meant: names would say that it is not."""
    distances, is_first = population.distances, order.level == 0 and not np.ndim(order.epsilon)
    is_meant = population.columns_of_distances or measures_rows(problem.models[0].distance)
    if distances.ndim == 1 or is_meant or not is_first:
        return []
    note = (
        f"the distance gives {distances.shape[1]} numbers: each has a threshold of its own, and accepted is "
        "what meets all of them; if one is meant, give their sum or norm, if several, a dict of names"
    )
    return [Tell("distances", note)]


def _reports(found: dict[str, str]) -> list[Tell]:
    return [Tell(topic, said) for topic, said in found.items() if said]


def _asked(look: Callable[[], str]) -> str:
    return unless_it_raises(look, "")


def _check_shapes(what: str, part: Any, d: int, key: tuple[int, int]) -> None:
    """Raise ProblemError for draws, and densities, of other shapes than are wanted."""
    if is_ours(part):
        return
    what = promises.of_name(what, part)
    rng = Stream(key, Purpose.CHECK).at(0, 0)
    drawn = unless_it_raises(lambda: part.sample(BLOCK, rng), _RAISED)
    if drawn is _RAISED:
        return
    promises.check_draws(what, drawn, BLOCK, d)
    theta = np.array(drawn, np.float64)
    found = unless_it_raises(lambda: part.logpdf(theta), _RAISED)
    if found is not _RAISED:
        promises.check_densities(what, found, BLOCK)


def _of_distance(problem: Problem, planner: AnyPlanner) -> str:
    """Whether a distance of rows stays the same, by rows that are made up."""
    distance, observed = of_data(problem.distance, problem.observed), problem.observed_row
    if is_ours(distance) or not measures_rows(distance) or len(observed) > _MOST:
        return ""
    rows, what = promises.rows_like(observed, planner.key), promises.of_name("rows of the distance", distance)
    with planner.asking("the distance", distance):
        return _asked(lambda: _of_rows(what, copied(distance), rows, observed))


def _of_rows(what: str, distance: Any, rows: np.ndarray, observed: np.ndarray) -> str:
    """Whether as many rows as can be asked for in a moment stay the same, and stand alone."""
    began = time.perf_counter()
    with guard.GlobalRandom((0, 0)).restored():
        distance.rows(rows[:1].copy(), observed.copy())
    n = int(_ROWS / max(1e-9, time.perf_counter() - began))
    return promises.of_distance(what, distance, rows[:n], observed) if n else ""


def _of_fitted_distance(planner: AnyPlanner, past: Past, order: Level) -> str:
    """Whether the distance is fitted to one sample as before, and its rows stand alone if it says so."""
    distance, measure = order.distance, planner.measure
    if distance is None or measure is None or is_kept_whole(distance):
        return ""
    observed, what = measure.observed, f"the distance {name_of(measure.distance)}"
    sample = past.sample if past.pool is None else past.pool.parts[-1]
    if sample is None:
        return ""
    rows = np.asarray(sample.summaries[:BLOCK], np.float64)

    def look() -> str:
        own = replace(planner, measure=replace(measure, distance=copied(measure.distance)))
        fits = promises.of_fitted_rows(what, lambda: own.distance_after(past), rows[:_FEW], observed)
        return fits or _of_rows(f"rows of {what}, as fitted,", copied(distance), rows, observed)

    with planner.asking("the distance", distance):
        return _asked(look)


def _of_kernel(planner: Planner, order: Level, base: Population, is_long: bool) -> str:
    """Whether a kernel is fitted to one population as before, and what its proposal is."""
    kernel = planner.kernel
    if is_ours(kernel):
        return ""
    what = promises.of_name("the kernel", kernel)
    with planner.asking("the kernel", kernel):
        for part, d in zip(checks.parts_of(order.proposal), _widths(planner, order), strict=True):
            _check_shapes(f"{what}'s proposal", part, d, order.key)
        said = _asked(lambda: checks.of_proposal(order.proposal, order.key, what))
        return said if said or is_long else _asked(lambda: _of_fit(what, planner, order, base))


def _of_fit(what: str, planner: Planner, order: Level, base: Population) -> str:
    own = replace(planner, kernel=copied(planner.kernel))
    return promises.of_fit(what, lambda: own.proposal_for(base, order.epsilon), order.key)


def _widths(planner: Planner, order: Level) -> Iterator[int]:
    """The parameters that each fitted proposal is of."""
    prior, proposal = planner.prior, order.proposal
    if not (isinstance(prior, ModelPrior) and isinstance(proposal, ModelProposal)):
        return iter((len(prior.names),))
    pairs = zip(prior.widths, proposal.proposals, strict=True)
    return (d for d, part in pairs if part is not None)


def _of_rules(planner: Planner, past: Past, order: Level) -> dict[str, str]:
    """Whether threshold and size say the same when they are asked again."""
    of_threshold = of_size = ""
    if not is_ours(planner.threshold) and planner.noise is None:
        what = f"epsilon of {promises.of_name('the threshold', planner.threshold)}"
        seen = planner.seen_by(past, order.distance)
        of_threshold = _asked(lambda: _of_threshold(what, planner, seen))
    if not (isinstance(planner.size, int) or is_ours(planner.size)):
        what = f"size of {promises.of_name('the rule', planner.size)}"
        of_size = _asked(lambda: _of_size(what, planner, past))
    return {"threshold": of_threshold, "size": of_size}


def _of_threshold(what: str, planner: Planner, past: Past) -> str:
    own = replace(planner, threshold=copied(planner.threshold))
    return promises.of_answer(what, lambda: own.epsilon_after(past), _RULE)


def _of_size(what: str, planner: Planner, past: Past) -> str:
    own = replace(planner, size=copied(planner.size))
    return promises.of_answer(what, lambda: own.sized(past), _RULE)


_RULE = (
    "a run that goes on asks again, and the populations differ; let it be a function of the generation and "
    "the population before"
)
