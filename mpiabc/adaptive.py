"""Distances that are fitted to simulations: what was learnt of a generation gives that of the next one.

distance   = fit(the first simulations of generation t, accepted or not)
distances  = those of population t, measured again
epsilon    = what the threshold says of these, for generation t + 1

A run fits in the process that leads, and orders carry what came of it.
"""

from dataclasses import dataclass, replace

import numpy as np

from mpiabc import calls
from mpiabc.distances import Adaptive, RowDistance, is_adaptive, of_data
from mpiabc.errors import ProblemError
from mpiabc.models import AnyProblem
from mpiabc.population import Past, Population
from mpiabc.problem import described


@dataclass(frozen=True)
class Measure:
    """An adaptive distance, as it is for the observed data (k,)."""

    distance: Adaptive
    observed: np.ndarray

    def fitted(self, past: Past) -> RowDistance | None:
        """The distance of the next generation; None before the first one: what it is unfitted.

        Raises ProblemError if the simulations that it is fitted to are gone, or if it cannot measure.
        """
        if past.last is None and past.sample is None:
            return None
        if past.sample is None:
            raise ProblemError(
                f"the distance {described(self.distance)} is fitted to simulations, and the file does not "
                f"hold those of generation {past.level - 1}: start again from a copy, or with overwrite=True"
            )
        found = self.distance.fit(past.sample, self.observed)
        if not callable(getattr(found, "rows", None)):
            raise ProblemError(
                f"fit of the distance {described(self.distance)} gave {described(found)}, expected something "
                "with rows(simulated, observed)"
            )
        if not calls.is_ours(found):
            calls.check("fitted distance", found, "rows", "simulated, observed")
        return found

    def doubts(self, past: Past) -> str | None:
        """What the user should know of the fit."""
        doubts = getattr(self.distance, "doubts", None)
        return doubts(past.sample, self.observed) if callable(doubts) and past.sample is not None else None

    def seen(self, past: Past, distance: RowDistance | None) -> Past:
        """The past with its population measured by this distance; its epsilon is the largest distance."""
        if past.last is None or distance is None:
            return past
        return replace(past, last=_measured(past.last, distance, self.observed))


def measure_of(problem: AnyProblem) -> Measure | None:
    """What fits the distance of a problem; None if it is fixed."""
    distance = of_data(problem.distance, problem.observed) if is_adaptive(problem.distance) else None
    return None if distance is None else Measure(distance, problem.observed_row)


def _measured(population: Population, distance: RowDistance, observed: np.ndarray) -> Population:
    summaries = np.asarray(population.summaries, np.float64)
    distances = np.array(distance.rows(summaries, observed), np.float64)
    if len(distances) != len(population) or distances.ndim not in (1, 2) or np.isnan(distances).any():
        raise ProblemError(
            f"the distance {described(distance)}, fitted to generation {population.generation}, measures its "
            f"{len(population)} particles as {distances.tolist()[:3]}, ...: expected one real number for each"
        )
    epsilon = distances.max(axis=0)
    epsilon = epsilon if epsilon.ndim else float(epsilon)
    return population.with_values(distances=distances, epsilon=epsilon)
