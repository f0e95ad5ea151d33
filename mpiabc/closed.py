"""A level that has come to its end as a population: its rows with normalised weights, and what was counted.

Sums over particles are made here, in id order, by the process that leads.
"""

import math
from typing import Any

import numpy as np

from mpiabc import recycling
from mpiabc.acceptors import log_constant
from mpiabc.actions import Open
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Level
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.models import AnyProblem
from mpiabc.named import shapes_of
from mpiabc.particles import Particles, joined
from mpiabc.planner import Planner
from mpiabc.population import Population
from mpiabc.problem import EvaluationId


def committed(problem: AnyProblem, opened: Open, how: str | None, inside: Any = 1.0) -> Population:
    """The survivors and the ledger's rows, with normalised weights; `inside`: what `where` leaves."""
    ledger = opened.ledger
    rows = joined([*_survivors(opened), *([ledger.population()] if ledger.size else [])])
    failures, stop = len(ledger.failures_below_cut()), "slots" if isinstance(ledger, SlotLedger) else "cut"
    return _weighted(problem, opened, rows, (*ledger.counts(), failures), stop, how, inside)


def partial(problem: AnyProblem, opened: Open, ledger: Ledger, planner: Planner) -> Population | None:
    """The survivors and what was accepted below a budget's end, with normalised weights; None if nothing."""
    new, end = ledger.partial(), int(ledger.end)
    parts = [*_survivors(opened), *([] if new is None or not len(new) else [new])]
    if not parts or not np.isfinite((rows := joined(parts)).log_weights).all():
        return None
    failures = sum(ledger.address_of(failure) < end for failure in ledger.failures)
    counts = end - ledger.first, ledger.simulations_below(end), failures
    return _weighted(problem, opened, rows, counts, "budget", planner.weights, planner.inside)


def _survivors(opened: Open) -> list[Particles]:
    return [opened.survivors] if opened.survivors is not None and len(opened.survivors) else []


def _weighted(
    problem: AnyProblem,
    opened: Open,
    rows: Particles,
    counts: tuple[int, int, int],
    stop: str,
    how: str | None,
    inside: Any,
) -> Population:
    """Rows as a population: of so many ids, simulations and failures; `stop`: what the ids ended with."""
    order, ledger, (evaluations, simulations, failures) = opened.order, opened.ledger, counts
    tried = opened.past.tried_at(order.first, evaluations, rows.ids)
    log_inside = np.log(np.atleast_1d(inside))  # of each model
    log_weights, own = recycling.log_weights(rows, tried, how), rows
    if len(log_inside) > 1:
        log_weights = log_weights - log_inside[rows.model]
        own = rows.weighed(rows.log_weights - log_inside[rows.model], rows.log_densities)
        log_inside = np.zeros(1)
    weightless = ~np.isfinite(log_weights)
    if weightless.any():
        first = int(np.argmax(weightless))
        at = EvaluationId(int(rows.level[first]), int(rows.ids[first]))
        raise _weightless(problem, order, at, problem.joint(rows)[first], log_weights[first])
    evidence = recycling.log_evidence(own, tried, stop) - log_inside[0]
    weights = np.exp(log_weights - log_weights.max())  # at most 1, and one of them is
    return Population(
        names=problem.names,
        models=problem.named_models,
        weights=weights / weights.sum(),
        first=order.first,
        generation=order.level,
        epsilon=order.epsilon,
        evaluations=evaluations,
        simulations=simulations,
        failures=failures,
        log_evidence=float(evidence) + log_constant(order.acceptor, order.epsilon),
        seconds=0.0,
        dispatched=ledger.dispatched if isinstance(ledger, Ledger) else evaluations,
        columns_of_distances=ledger.columns,
        shapes=shapes_of(problem.structure),
        **rows.columns(),
    )


def _weightless(
    problem: AnyProblem, order: Level, id: EvaluationId, theta: np.ndarray, log_weight: float
) -> ProblemError:
    """Whose density leaves an accepted evaluation without a weight; both are asked again."""
    asked = {"prior": problem.prior, "kernel's proposal": order.proposal}
    said = {name: float(np.asarray(part.logpdf(theta[None]))[0]) for name, part in asked.items()}
    values = problem.named(theta).items()
    where = (
        f"in evaluation {id.generation}:{id.index}, theta: {', '.join(f'{name}={x!r}' for name, x in values)}"
    )
    for name, density in said.items():
        if not math.isfinite(density):
            return ProblemError(
                f"logpdf of the {name} is {density} {where}: a density must be finite wherever it is sampled"
            )
    both = " and ".join(f"{density:.6g} for the {name}" for name, density in said.items())
    return ProblemError(
        f"the log weight is {log_weight} {where}, although logpdf asked again gives {both}: it must "
        "give the same in every process, and at any time"
    )
