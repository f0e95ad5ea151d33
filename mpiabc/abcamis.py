"""ABC by adaptive multiple importance sampling: a budget in batches, all of whose simulations count.

for each batch t of M ids:
    proposal    = prior if t = 0, else a mixture around what is nearest of all simulations so far
    weights     = prior / sum of all proposals, of every simulation, anew
    population  = the nearest simulations, of an effective size of N
"""

from datetime import timedelta
from typing import Any

import numpy as np

from mpiabc import amis
from mpiabc.adaptive import measure_of
from mpiabc.arguments import whole_of
from mpiabc.errors import ProblemError, StoreError
from mpiabc.layout import layout_of
from mpiabc.particles import Particles
from mpiabc.pooling import PoolingPlanner, plain_norm, with_scales
from mpiabc.population import Past
from mpiabc.problem import Problem, described, signature
from mpiabc.sampler import INSIDE, MOST_BYTES, Path, Sampler
from mpiabc.simulations import Simulations, bytes_of_row
from mpiabc.sizes import LEAST
from mpiabc.stopping import Stopping
from mpiabc.store import History
from mpiabc.streams import stream_key


class ABCAMIS(Sampler):
    """A sampler that spends so many simulations in batches, and uses all of them (Cornuet et al. 2012).

        abc = mpiabc.ABCAMIS(problem, 10_000, seed=1)
        history = abc.run("fit.db")

    simulations: ids in all, those outside of the prior's support among them. batches: of equal size, fixed
    beforehand; the first one is drawn from the prior, each other one around the nearest simulations of all
    before it. population_size: the effective size of these. seed: a non-negative integer; without one it is
    drawn, and kept in the store.

    Every simulation is weighted as a draw from the mixture of all proposals, again after each batch.
    `history[t]` is what is nearest then: the least number of all simulations so far, by distance, whose
    effective size is population_size, or half of what all have. Its epsilon is the largest of their
    distances, `level` the batch of each, and ids go on from batch to batch. Estimates are consistent, not
    unbiased.

    A `PNorm` without a scale has those of the median absolute deviation where those of the prior's batch
    differ by more than three: its statistics are of other units. Scales that are fitted are those of the last
    batch, by which all simulations are measured again; a callable distance is fixed. What fails, or is
    infinitely far, is never near. One model, whose parameters are real numbers. Raises ProblemError for
    what does not go together.
    """

    def __init__(
        self,
        problem: Problem,
        simulations: int,
        *,
        batches: int = 20,
        population_size: int = 200,
        seed: int | None = None,
    ) -> None:
        if not isinstance(problem, Problem):
            raise ProblemError(
                f"ABCAMIS with {described(problem)}, expected one problem: for several models take ABCSMC"
            )
        _check(problem)
        self._is_plain = plain_norm(problem) is not None
        self.problem: Problem = with_scales(problem)
        self.batches = whole_of("batches", batches, 1)
        self.simulations = whole_of("simulations", simulations, LEAST * self.batches)
        self.population_size = whole_of("population_size", population_size, LEAST)
        self.seed = None if seed is None else whole_of("seed", seed, 0)
        self._check_size()

    def run(
        self,
        store: Path,
        generations: int | None = None,
        *,
        walltime: float | str | timedelta | None = None,
        scheduler: Any = "auto",
        progress: bool | None = None,
        overwrite: bool = False,
        accept_changes: bool = False,
    ) -> History | None:
        """Start the run in the file `store`, or continue it; returns its History, None on other ranks.

        It ends when the budget is spent, or after so many `generations`, which are batches, or `walltime`,
        and the same call without them goes on. All else is as for `ABCSMC.run`, but that a run with another
        budget, or other batches, is another run.
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "store")}
        return self._run(store, options)

    def _check_size(self) -> None:
        """Raise ProblemError for batches that do not fit the problem's, or the store."""
        batch, m, k = self.problem.batch, -(-self.simulations // self.batches), self.problem.structure.size
        if batch is not None and (self.simulations % self.batches or m % batch):
            raise ProblemError(
                f"simulations={self.simulations} in batches={self.batches}, and the problem simulates "
                f"batch={batch} at once: give a multiple of {batch} * {self.batches} = "
                f"{batch * self.batches} simulations"
            )
        if 8 * m * k >= MOST_BYTES or 8 * self.simulations >= MOST_BYTES:
            raise ProblemError(
                f"{m} simulations in a batch with {k} numbers each are more than the {MOST_BYTES:.0e} bytes "
                "that the store takes: reduce the data by summarize=, or give more batches"
            )

    def _checked(self, place: Any, stopping: Stopping, has_rule: bool) -> None:
        """Raise ProblemError for a scheduler, or rules, that it does not go with."""
        if place.is_static:
            raise ProblemError(
                "ABCAMIS with static scheduling: each slot tries until one is accepted, and all that is "
                "simulated is wanted here; take a dynamic scheduler"
            )

    def _size_kept(self, stopping: Stopping) -> str:
        """What all simulations will take in the file, in words."""
        problem, n = self.problem, self.simulations
        k = 0 if problem.observed is None else problem.structure.size
        size = bytes_of_row(problem.width, k) + 12 * (self.batches + 1)  # their weights after each batch
        return f"all simulations are kept: {n} of them take {size * n / 1e6:.3g} MB"

    def _own_settings(self) -> dict[str, Any]:
        """What the file says of it, besides the problem."""
        return {
            "sampler": "ABCAMIS",
            "simulations": self.simulations,
            "batches": self.batches,
            "population_size": self.population_size,
            "seed": self.seed,
            "keep": "all",
            "scales": "where units differ" if self._is_plain else None,
        }

    def _planner(self, settings: dict[str, Any]) -> PoolingPlanner:
        """What decides what comes next, for these settings of the file."""
        return PoolingPlanner(
            self.problem.prior,
            stream_key(settings["seed"]),
            self.population_size,
            self.simulations,
            self.batches,
            self.problem.step,
            measure_of(self.problem),
            self._is_plain,
            inside=settings.get(INSIDE, 1.0),
        )

    def _past(self, planner: Any, history: History) -> Past:
        """What is committed already."""
        populations = list(history)
        if not populations:
            return Past()
        orders = [history.order(t) for t in range(len(populations))]
        return planner.past_of(populations, orders, _pool(history, len(populations)))


def _pool(history: History, n: int) -> amis.Pool:
    """All simulations of so many batches. Raises StoreError if the file lacks some."""
    found, drawn = history.pool(n - 1), sum(history[t].evaluations for t in range(n))
    batches = [history.simulations[t] for t in range(n)]
    if found is None or len(found[0]) != sum(map(len, batches)):
        raise StoreError(
            f"{history.path} does not hold all simulations of its {n} batches: start again from a copy, or "
            "with overwrite=True"
        )
    log_prior, log_mixture, distances = found
    log_priors = np.split(log_prior, np.cumsum(list(map(len, batches)))[:-1])
    parts = [_part(rows, of) for rows, of in zip(batches, log_priors, strict=True) if len(rows)]
    return amis.Pool(tuple(parts), log_mixture, distances, drawn)


def _part(rows: Simulations, log_prior: np.ndarray) -> Particles:
    """The simulations of a batch as a pool has them."""
    weights = np.full(len(rows), np.nan)  # which change, and are computed when they are needed
    columns = rows.ids, rows.theta, rows.distances, weights, rows.summaries, rows.level
    return Particles(*columns, log_prior[:, None], rows.model)


def _check(problem: Problem) -> None:
    """Raise ProblemError for a problem that batches are not for."""
    prior = problem.prior
    if not getattr(prior, "is_normalised", False):
        raise ProblemError(
            f"ABCAMIS with prior={described(prior)}, which does not say that its densities are normalised: "
            "set its is_normalised = True if they are, or take ABCSMC"
        )
    if not layout_of(prior).is_free:
        raise ProblemError(
            f"ABCAMIS with prior={described(prior)}, which has integers, choices or shares: its proposals "
            "are for real numbers that move freely; take ABCSMC"
        )
    if "epsilon" in signature(problem.simulate).extras:
        raise ProblemError(
            "ABCAMIS with a simulator that takes epsilon, to reject by it: all that is simulated is wanted; "
            "leave epsilon out"
        )
