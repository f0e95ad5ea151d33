"""What plots see of a run, a population or a posterior: parameters, with their bounds and priors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpiabc.analysis import priors
from mpiabc.analysis.plots import density
from mpiabc.analysis.steps import spread
from mpiabc.errors import ProblemError
from mpiabc.population import Population, weighted_quantile
from mpiabc.priors.prior import Prior
from mpiabc.problem import Problem
from mpiabc.store import History

_DRAWS = 5000  # from what has no particles
_MOST_BARS = 60  # values of an integer that are bars
_DECADES = 2.0  # of a positive parameter, from where on its axis is logarithmic
_GRID = 256

Points = tuple[np.ndarray, np.ndarray]  # values (n,) and weights (n,)


@dataclass(frozen=True, eq=False)
class Parameter:
    """One parameter, and how its axis is.

    bars: each value has a bar of its own. values: of a choice, by index.
    """

    name: str
    column: int
    ends: density.Ends
    bars: bool = False
    is_log: bool = False
    values: tuple[str, ...] = ()
    prior: Any = None  # a `priors.Marginal`, if known
    sample: Points | None = field(default=None, repr=False)  # of the prior, if that is all that is known

    def of(self, population: Any) -> Points:
        """The particles' values, on a logarithmic axis their decimal logarithms, with weights; no nan."""
        return self.shown(population.theta[:, self.column], population.weights)

    def shown(self, x: np.ndarray, w: np.ndarray) -> Points:
        """The same of any values."""
        with np.errstate(all="ignore"):
            z = np.log10(x) if self.is_log else x
        is_one = np.isfinite(z) & (w > 0)
        return z[is_one], w[is_one]

    @property
    def shown_ends(self) -> density.Ends:
        """The ends of the support as they are drawn."""
        if not self.is_log:
            return self.ends
        low, high = (math.log10(end) if end > 0 else -math.inf for end in self.ends)
        return low, high

    def back(self, z: np.ndarray) -> np.ndarray:
        """What is drawn as values."""
        return 10.0**z if self.is_log else z

    def span(self, points: Sequence[Points]) -> density.Ends:
        """What of the axis is drawn, for all of these."""
        if self.values:
            return -0.5, len(self.values) - 0.5
        found = [density.span(z, w, self.shown_ends) for z, w in points if len(z)]
        if not found:
            return 0.0, 1.0
        low, high = min(a for a, _ in found), max(b for _, b in found)
        if self.bars:
            return math.floor(low) - 0.5, math.ceil(high) + 0.5
        return low, high

    def grid(self, span: density.Ends) -> np.ndarray:
        """Where its density is drawn."""
        return np.linspace(*span, _GRID)

    def at(self, span: density.Ends) -> np.ndarray:
        """The values that have bars."""
        return np.arange(math.ceil(span[0]), math.floor(span[1]) + 1)

    def prior_at(self, z: np.ndarray, span: density.Ends) -> np.ndarray | None:
        """The prior's density, as drawn, or its mass; None if it is not known."""
        if self.prior is not None:
            x = (
                np.rint(z) if self.prior.is_discrete and not self.bars else self.back(z)
            )  # whole numbers: a step
            found = self.prior.density(x)
            return found * x * math.log(10) if self.is_log else found
        if self.sample is None:
            return None
        if self.bars:
            return masses(self.sample, z)
        return density.curve(*self.shown(*self.sample), self.shown_ends, z)


def masses(points: Points, at: np.ndarray) -> np.ndarray:
    """The share of the weights at each of these values."""
    x, w = points
    return np.array([w[x == value].sum() for value in at]) / (w.sum() or 1.0)


@dataclass(frozen=True, eq=False)
class Seen:
    """A run, or less, as plots see it."""

    source: Any
    parameters: tuple[Parameter, ...]
    problem: Any = None

    def population(self, t: int = -1) -> Any:
        """A generation's particles, of one model; a population alone is what it is."""
        return of_model(self.source[t] if isinstance(self.source, History) else self.source, self.problem)

    def named(self, text: str) -> str:
        """A title, with the model's name behind it if there are several."""
        last = self.source[-1] if isinstance(self.source, History) else self.source
        models = getattr(last, "models", ())
        return f"{text}, {models[last.index_of(self.problem)].name}" if models else text

    def generations(self, most: int) -> list[Population]:
        """At most so many generations, evenly chosen, the first and the last among them."""
        return [of_model(p, self.problem) for p in chosen(self.source, most)]


def chosen(source: Any, most: int) -> list[Population]:
    """At most so many populations of a run, evenly chosen, the first and the last among them."""
    if not isinstance(source, History):
        return [source]
    return [source[t] for t in spread(len(source), most)]


def of_model(population: Any, problem: Any) -> Any:
    """The particles of one model, if models are several. Raises ProblemError if it is not said which."""
    if getattr(population, "models", ()):
        if problem is None:
            population.check_one("a picture")
        return population.of(problem)
    return population


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws from a posterior that has no particles, as particles."""

    names: tuple[str, ...]
    theta: np.ndarray
    weights: np.ndarray


def seen(
    source: Any, names: Sequence[str] | None = None, prior: Any = None, problem: Any = None, t: int = -1
) -> Seen:
    """What a plot of parameters sees. Raises ProblemError for what is none of these."""
    history = source if isinstance(source, History) else None
    if history is not None and not len(history):
        raise ProblemError(f"{history.path} has no complete generation yet: there is nothing to draw")
    if history is None and not isinstance(source, Population):
        source = _draws(source)
    population = of_model(source[t] if history is not None else source, problem)
    known = _known(history, population, None if prior is False else prior, problem)
    sample = None
    if prior is None and history is not None and any(name not in known for name in population.names):
        sample = _sample(history, problem)
    ends = _ends(history, population)
    choices = {} if history is None else _choices(history, problem)
    found = []
    for name in _wanted(names, population.names):
        column = population.names.index(name)
        points = None if sample is None else (sample.theta[:, column], sample.weights)
        parameter = Parameter(name, column, ends[column], prior=known.get(name), sample=points)
        parameter = _as_it_is(parameter, population, choices)
        found.append(replace(parameter, prior=None) if prior is False else parameter)
    return Seen(source, tuple(found), problem)


def _draws(source: Any) -> Drawn:
    """Draws of what can be drawn from, such as `history.posterior()`. Raises ProblemError."""
    if not (hasattr(source, "sample") and hasattr(source, "names")):
        raise ProblemError(f"{source!r}: give a History, as mpiabc.open(...) gives it, or a Population")
    theta = np.asarray(source.sample(_DRAWS, np.random.default_rng(0)))
    return Drawn(tuple(source.names), theta, np.full(len(theta), 1 / len(theta)))


def _wanted(names: Sequence[str] | None, known: tuple[str, ...]) -> Sequence[str]:
    if names is None:
        return known
    names = [names] if isinstance(names, str) else list(names)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise ProblemError(
            f"names={names!r}: {wrong[0] if wrong else 'nothing'!r} is no parameter; give some of "
            f"{', '.join(known)}"
        )
    return names


def _known(history: History | None, population: Any, prior: Any, problem: Any) -> dict[str, Any]:
    """The priors that are known as functions."""
    if prior is None and isinstance(problem, Problem):
        prior = problem
    prior = prior.prior if isinstance(prior, Problem) else prior
    if isinstance(prior, Prior):
        return priors.given(prior)
    if prior is not None:
        raise ProblemError(f"prior={prior!r}: give an mpiabc.Prior, a Problem, or False for none")
    if history is None:
        return {}
    return priors.described(history, population.names, _model(history, problem))


def _model(history: History, problem: Any) -> str | None:
    """The name of one of several models, if they are several."""
    population = history[-1]
    return population.models[population.index_of(problem)].name if population.models else None


def _choices(history: History, problem: Any) -> dict[str, Sequence[str]]:
    """The values of each choice, as text."""
    model = _model(history, problem)
    found = history.settings.get("choices", {})
    return found if model is None else {k.removesuffix(f" of {model}"): v for k, v in found.items()}


def _sample(history: History, problem: Any) -> Any:
    first = priors.sampled(history)
    return None if first is None else of_model(first, problem)


def _ends(history: History | None, population: Any) -> list[density.Ends]:
    known = None if history is None else history.bounds
    if known is None or len(known) != len(population.names):
        return [(-math.inf, math.inf)] * len(population.names)
    return [(-math.inf, math.inf) if pair is None else (float(pair[0]), float(pair[1])) for pair in known]


def _as_it_is(parameter: Parameter, population: Any, choices: Mapping[str, Sequence[str]]) -> Parameter:
    """With what its values say of its axis."""
    prior, x = parameter.prior, population.theta[:, parameter.column]
    values = tuple(choices.get(parameter.name, ())) or (prior.values if prior is not None else ())
    if (
        prior is not None
        and prior.support is not None
        and not math.isfinite(parameter.ends[0] + parameter.ends[1])
    ):
        parameter = replace(parameter, ends=prior.support)
    is_whole = bool(np.all(x == np.floor(x))) and np.ptp(x) < _MOST_BARS
    if values or (is_whole and (prior is None or prior.is_discrete)):
        return replace(parameter, bars=True, values=values)
    return replace(parameter, is_log=_is_log(x, population.weights, prior))


def _is_log(x: np.ndarray, w: np.ndarray, prior: Any) -> bool:
    """Whether a parameter is drawn on a logarithmic axis: its prior is one of logarithms, and it is wide."""
    if not np.all(x > 0) or not (prior is None or prior.is_log):
        return False
    low, high = weighted_quantile(x, w, [0.01, 0.99])
    return math.log10(high / low) > (_DECADES if prior is None else 1.0)


def references(given: Any, parameters: Sequence[Parameter]) -> dict[str, float]:
    """The reference value of each parameter that has one, as theta has it. Raises ProblemError."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = dict(zip((p.name for p in parameters), np.ravel(given).tolist(), strict=False))
    by_name = {p.name: p for p in parameters}
    for name in given:
        if name not in by_name:
            raise ProblemError(
                f"reference has {name!r}, which is not drawn: give values of {', '.join(by_name)}"
            )
    return {name: _index_of(by_name[name], value) for name, value in given.items()}


def _index_of(parameter: Parameter, value: Any) -> float:
    """A value, of a choice its index."""
    if parameter.values and str(value) in parameter.values:
        return float(parameter.values.index(str(value)))
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ProblemError(f"reference of {parameter.name!r} is {value!r}, expected a number") from None
