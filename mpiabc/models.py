"""Several problems as one: models of the same data, of which a run says how probable each is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc.arguments import real
from mpiabc.distances import Predicted
from mpiabc.errors import ProblemError
from mpiabc.fingerprint import Fingerprint, fingerprint
from mpiabc.kept import holds_numbers
from mpiabc.particles import Particles
from mpiabc.population import Model
from mpiabc.priors.joint import ModelPrior, drawn
from mpiabc.problem import Problem, arrived, described, signature
from mpiabc.structure import Structure

_SHARED = ("on_error", "timeout", "vectorized", "batch")  # settings that all models must have in common
_OWN = ("parameter names", "prior", "simulator", "summary")  # what a file has of each model


@dataclass(frozen=True, eq=False)
class Models:
    """Problems that differ in prior, simulator and summary, and in nothing else, as one problem.

    What is proposed is a row (D + 1,): the parameters of a model, nan up to D, and the model's index.
    Raises ProblemError for problems that cannot be compared.
    """

    models: tuple[Problem, ...]
    model_prior: tuple[float, ...]
    on_error: str | int = "raise"
    fingerprint: Fingerprint = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", self.fingerprint_here())

    @property
    def name(self) -> str:
        """The names of all."""
        return " or ".join(str(model.name) for model in self.models)

    @property
    def names(self) -> tuple[str, ...]:
        """Of parameters: none that the models have in common."""
        return ()

    @cached_property
    def prior(self) -> ModelPrior:
        """That of (theta, m)."""
        return ModelPrior(tuple(model.prior for model in self.models), np.array(self.model_prior))

    @property
    def observed(self) -> Any:
        """What all of them are to explain."""
        return self.models[0].observed

    @property
    def distance(self) -> Any:
        """What measures all of them."""
        return self.models[0].distance

    @property
    def structure(self) -> Any:
        """That of what is kept of simulated data."""
        return self.models[0].structure

    @property
    def observed_row(self) -> np.ndarray:
        """The observed data as a row (k,)."""
        return self.models[0].observed_row

    @property
    def is_raw(self) -> bool:
        """Whether the distance gets what simulators returned."""
        return self.models[0].is_raw

    @property
    def example(self) -> Any:
        """Of what is kept, then."""
        return self.models[0].example

    @property
    def vectorized(self) -> bool:
        """Whether simulators take many rows."""
        return self.models[0].vectorized

    @property
    def batch(self) -> int | None:
        """How many rows each call has."""
        return self.models[0].batch

    @property
    def timeout(self) -> float | None:
        """Seconds for one simulation."""
        return self.models[0].timeout

    @property
    def step(self) -> int:
        """Ids that leases are multiples of: one call for each model evaluates them."""
        return self.models[0].step

    @property
    def width(self) -> int:
        """Parameters of the largest model."""
        return max(len(model.prior.names) for model in self.models)

    @property
    def named_models(self) -> tuple[Model, ...]:
        """What populations know of the models."""
        pairs = zip(self.models, self.model_prior, strict=True)
        return tuple(Model(str(model.name), tuple(model.prior.names), p) for model, p in pairs)

    def model_of(self, x: np.ndarray) -> np.ndarray:
        """The models' indices (n,) of drawn rows (n, D + 1)."""
        return x[:, -1].astype(np.int64)

    def split(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Drawn rows as columns of particles."""
        return {"theta": x[:, :-1].copy(), "model": self.model_of(x)}

    def joint(self, rows: Particles) -> np.ndarray:
        """Particles as rows that were drawn (n, D + 1)."""
        return drawn(self.prior, rows)

    def named(self, x: np.ndarray) -> dict[str, Any]:
        """The model of a drawn row, and its parameters, by name."""
        model = self.models[int(x[-1])]
        return {"model": model.name, **model.named(x[: model.width])}

    def measured_by(self, distance: Any) -> "Models":
        """These models with another distance."""
        return replace(self, models=tuple(model.measured_by(distance) for model in self.models))

    def fingerprint_here(self) -> Fingerprint:
        """Code and values of all parts as they are in this process, now."""
        roles = ("simulate", "summarize", "prior")
        parts = {f"{role} of {m.name}": getattr(m, role) for m in self.models for role in roles}
        more = {} if holds_numbers(self.observed) else {"observed": self.observed}
        return fingerprint(**parts, distance=self.distance, **more)

    def arrived(self) -> "Models":
        """These models, which have come from another process; raises ProblemError for other code here."""
        arrived(self)
        return self

    def plain(self) -> dict[str, Any]:
        """What a file says of them as plain data; bounds of parameters are not among it."""
        supports = [model.plain()["support"][0] for model in self.models]
        return self.models[0].plain() | {"bounds": None, "support": supports}

    def parts(self) -> dict[str, str]:
        """Each part as text that is the same in every process; the rest is `fingerprint`."""
        parts = [model.parts() for model in self.models]
        shared = {name: text for name, text in parts[0].items() if name not in _OWN}
        own = {
            f"{name} of {model.name}": part[name]
            for model, part in zip(self.models, parts, strict=True)
            for name in _OWN
        }
        return own | shared | {"model prior": ", ".join(map(repr, self.model_prior))}


AnyProblem = Problem | Models


def of(problem: Any, model_prior: Any = None) -> AnyProblem:
    """The problem, or the models, that a sampler is given. Raises ProblemError."""
    problems = tuple(problem) if isinstance(problem, list | tuple) else (problem,)
    for part in problems:
        if not isinstance(part, Problem):
            raise ProblemError(f"the problem is {part!r}, expected an mpiabc.Problem")
    if not problems:
        raise ProblemError("the list of problems is empty: give at least one")
    probabilities = _probabilities(model_prior, len(problems))
    if len(problems) == 1:
        return problems[0]
    for part in problems[1:]:
        _check_alike(problems[0], part)
    _check_names(problems)
    if isinstance(problems[0].distance, Predicted):
        raise ProblemError(
            f"distance={described(problems[0].distance)} with several models, which have no parameters in "
            "common to be predicted: give a distance of statistics"
        )
    return Models(problems, probabilities, problems[0].on_error)


def _probabilities(given: Any, n: int) -> tuple[float, ...]:
    """The models' prior, whose sum is 1. Raises ProblemError."""
    if given is None:
        return (1 / n,) * n
    values = [real(value) for value in given] if np.iterable(given) and not isinstance(given, str) else []
    if len(values) != n or not all(value is not None and 0 < value < np.inf for value in values):
        counted = f"{n} problems" if n > 1 else "one problem"
        raise ProblemError(
            f"model_prior={given!r} with {counted}: give a probability > 0 for each, in their order"
        )
    floats = [float(value) for value in values if value is not None]
    if abs(sum(floats) - 1) > 1e-6:
        raise ProblemError(f"model_prior={given!r} has the sum {sum(floats):.6g}, expected 1")
    return tuple(value / sum(floats) for value in floats)


def _check_alike(one: Problem, other: Problem) -> None:
    """Raise ProblemError for problems whose evaluations cannot be compared."""
    pair = f"the problems {one.name!r} and {other.name!r}"
    for name in _SHARED:
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            raise ProblemError(f"{pair} have {name}={mine!r} and {name}={theirs!r}: give both the same")
    if not _have_one_structure(one, other):
        raise ProblemError(
            f"{pair} have observed data of different structure, {one.structure} and {other.structure}: "
            "models are compared by the same data"
        )
    is_same = np.array_equal(one.observed_row, other.observed_row, equal_nan=True)
    if not is_same or fingerprint(data=one.observed) != fingerprint(data=other.observed):
        raise ProblemError(f"{pair} have other observed data: models are compared by the same data")
    if fingerprint(distance=one.distance) != fingerprint(distance=other.distance):
        raise ProblemError(
            f"{pair} have the distances {described(one.distance)} and {described(other.distance)}, or ones "
            "with other values: models are compared by the same distance"
        )
    if len({"comm" in signature(problem.simulate).extras for problem in (one, other)}) > 1:
        raise ProblemError(f"of {pair} one simulator takes comm: let both take it, or none")


def _have_one_structure(one: Problem, other: Problem) -> bool:
    """Whether what is kept of both has the same parts in the same places."""
    mine, theirs = one.structure, other.structure
    if not (isinstance(mine, Structure) and isinstance(theirs, Structure)):
        return type(mine) is type(theirs) and one.is_raw == other.is_raw
    return one.is_raw == other.is_raw and mine.shapes == theirs.shapes and mine.agrees(theirs)


def _check_names(problems: Sequence[Problem]) -> None:
    """Raise ProblemError where a name would not say which model, or which parameter, is meant."""
    names = [problem.name for problem in problems]
    for problem in problems:
        if names.count(problem.name) > 1:
            raise ProblemError(f"two problems are named {problem.name!r}: give each a name of its own, name=")
        if "model" in problem.prior.names:
            raise ProblemError(
                f"the problem {problem.name!r} has a parameter 'model', which is where results have the "
                "model's name: rename it"
            )
