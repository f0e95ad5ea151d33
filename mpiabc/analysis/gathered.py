"""What a run's file has for a posterior: weighted simulations, and the support of the prior."""

from typing import Any

import numpy as np

from mpiabc.analysis.support import Support, support_from, support_of
from mpiabc.analysis.weighted import Weighted
from mpiabc.errors import ProblemError
from mpiabc.problem import Problem
from mpiabc.simulations import joined


def of_population(history: Any, t: int, problem: Any) -> Weighted:
    """The particles of generation `t`; of several models those of one, by its problem, name or index.

    Of `ABCAMIS` all simulations up to that batch. Raises ProblemError for a problem that is not the run's,
    and where it is needed and not given.
    """
    population, names = history[t], None
    if (pool := history.pool(population.generation)) is not None:
        return _of_pool(history, population.generation, pool, problem)
    if problem is not None:
        population = population.of(problem)
        names = population.names
    support = prior_of(history, problem, names or population.names)
    with np.errstate(all="ignore"):
        return Weighted(
            tuple(population.names),
            population.theta,
            np.log(population.weights),
            np.asarray(population.distances),
            population.summaries,
            observed_of(history, population.summaries),
            support,
            len(population),
            unadjusted(history),
        )


def _of_pool(history: Any, t: int, pool: list[np.ndarray], problem: Any) -> Weighted:
    """All simulations up to a batch, as draws from the mixture of all proposals."""
    rows = joined([history.simulations[batch] for batch in range(t + 1)])
    log_prior, log_mixture, distances = pool
    settings, observed = history.settings, observed_of(history, rows.summaries)
    names, support = tuple(settings["names"]), prior_of(history, problem, tuple(settings["names"]))
    size = settings["population_size"]
    weighted = log_prior - log_mixture, distances, rows.summaries, observed, support, size
    return Weighted(names, rows.theta, *weighted)


def observed_of(history: Any, summaries: np.ndarray) -> np.ndarray | None:
    """The observed statistics (k,) of which these are the simulated ones (n, k); None where none are kept."""
    observed = history.observed
    return None if observed is None or len(observed) != summaries.shape[1] else observed


def unadjusted(history: Any) -> str:
    """Why a run's statistics are not to be moved to the observed ones; empty if they may be."""
    if history.settings.get("acceptor") is not None:
        return "a noise model accepts statistics that differ from the observed ones by that noise"
    return ""


def prior_of(history: Any, problem: Any, names: tuple[str, ...]) -> Support:
    """The support of the run's prior, or of one of its models': of the file, or of the problem at hand."""
    given = problem if isinstance(problem, Problem) else _at_hand(history, problem, names)
    if given is not None:
        _check(given, history, names)
        return support_of(given.prior)
    supports, at = history.supports, index_of(history, problem)
    if supports is None or supports[at] is None:
        raise ProblemError(
            f"{history.path} does not say by itself where the prior's support ends (it has a constraint, a "
            "choice, or a distribution that is not plain, or the file is older): give "
            "history.posterior(problem=problem)"
        )
    return support_from(names, supports[at])


def _at_hand(history: Any, problem: Any, names: tuple[str, ...]) -> Problem | None:
    """The problem, if this process has run it."""
    models = () if history.problem is None else history.problem.models
    return models[index_of(history, problem)] if models else None


def index_of(history: Any, problem: Any) -> int:
    """Of a model by its problem, name or index, which is known to be one."""
    models = history.settings.get("models") or ()
    name = problem if isinstance(problem, str) else getattr(problem, "name", None)
    if name is None or not models:
        return (int(problem) if models and problem is not None else 0) % max(1, len(models))
    return [model[0] for model in models].index(name)


def _check(problem: Problem, history: Any, names: tuple[str, ...]) -> None:
    """Raise ProblemError for a problem that has another prior than the run."""
    mine = problem.parts()["prior"]
    settings = history.settings
    theirs = settings.get("prior", settings.get(f"prior of {problem.name}", mine))
    if problem.names != tuple(names) or mine != theirs:
        raise ProblemError(
            f"problem has the prior {mine}, and {history.path} is of a run with {theirs}: give the problem "
            "that was run"
        )
