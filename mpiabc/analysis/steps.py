"""A run's course in numbers: what tables and findings need of generations, without their particles."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mpiabc.population import Population
from mpiabc.store import History

MOST = 100  # generations that are read


@dataclass(frozen=True, eq=False)
class Step:
    """The numbers of one generation.

    epsilon: a float, or one for each of several distances. largest: the largest weight of a particle. models:
    the probability of each of several models.
    """

    generation: int
    epsilon: Any
    size: int
    ess: float
    accepted: int
    acceptance_rate: float
    evaluations: int
    simulations: int
    failures: int
    dispatched: int
    seconds: float
    largest: float
    models: tuple[float, ...]
    digest: str


def spread(n: int, most: int) -> list[int]:
    """At most so many of n, evenly chosen, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, most)).tolist()})


def step_of(population: Population) -> Step:
    """Those of a population."""
    probabilities = population.model_probabilities().tolist() if population.models else ()
    return Step(
        population.generation,
        population.epsilon,
        len(population),
        population.ess,
        population.accepted,
        population.acceptance_rate,
        population.evaluations,
        population.simulations,
        population.failures,
        population.dispatched,
        population.seconds,
        float(population.weights.max()),
        tuple(probabilities),
        population.digest(),
    )


def steps(history: History, most: int = MOST, known: Mapping[int, Step] | None = None) -> list[Step]:
    """Of at most so many generations, evenly chosen, the first and the last two among them.

    One population is in memory at a time. known: what is known of generations already, as who looks at a run
    again and again has it.
    """
    n, known = len(history), known or {}
    wanted = sorted({*spread(n, most), *range(max(0, n - 2), n)}) if n else []
    return [known[t] if t in known else step_of(history[t]) for t in wanted]


class Totals(NamedTuple):
    """Sums over all generations."""

    evaluations: int
    simulations: int
    failures: int
    seconds: float


def totals(history: History) -> Totals:
    """Those of the committed generations, whose particles are not read."""
    query = (
        "SELECT total(evaluations), total(simulations), total(failures), total(seconds) FROM population "
        "WHERE generation < ?"
    )
    ((evaluations, simulations, failures, seconds),) = history.read(query, len(history))
    return Totals(int(evaluations), int(simulations), int(failures), seconds)


def fall(steps: list[Step]) -> float | None:
    """How much epsilon has fallen over these, relatively, of several distances the most; None if unknown."""
    if len(steps) < 2:
        return None
    first, last = np.ravel(steps[0].epsilon), np.ravel(steps[-1].epsilon)
    if not (np.isfinite(first).all() and np.isfinite(last).all() and (first > 0).all()):
        return None
    found = float(np.max(1 - last / first))
    return found if math.isfinite(found) else None
