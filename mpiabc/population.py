"""Population: N weighted particles, as immutable arrays, rows in id order."""

import hashlib
import inspect
import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mpiabc import html
from mpiabc.arguments import whole
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.named import Shapes, by_name, chosen
from mpiabc.particles import Particles


class Named(np.ndarray):
    """A float array whose last axis has names: `mean["mu"]` as well as `mean[0]`."""

    names: tuple[str, ...]

    def __new__(cls, values: Any, names: tuple[str, ...]) -> "Named":
        """View `values` (..., d) with the `d` names."""
        out = np.asarray(values, dtype=np.float64).view(cls)
        out.names = names
        return out

    def __reduce__(self) -> Any:
        return Named, (np.asarray(self), self.names)

    def __array_finalize__(self, source: Any) -> None:
        self.names = getattr(source, "names", ())

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.names:
                raise KeyError(f"no parameter {key!r}; the parameters are {', '.join(self.names)}")
            return self.view(np.ndarray)[..., self.names.index(key)][()]  # of a row, a number
        return self.view(np.ndarray)[key]

    def keys(self) -> tuple[str, ...]:
        """The names: `dict(population.mean())` has them, and is JSON's."""
        return self.names

    def __repr__(self) -> str:
        if self.shape == (len(self.names),):
            listed = (f"{name}={value:.6g}" for name, value in zip(self.names, self.tolist(), strict=True))
            return f"({', '.join(listed)})"
        return repr(self.view(np.ndarray))

    __str__ = __repr__


def short(epsilon: Any, digits: int = 6) -> str:
    """An epsilon, or one for each of several distances, as people read it."""
    return ", ".join(f"{value:.{digits}g}" for value in np.ravel(epsilon).tolist())


@quiet
def effective_sample_size(weights: np.ndarray) -> float:
    """Kish effective sample size, (sum w)^2 / sum w^2."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


@quiet
def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: Any) -> np.ndarray:
    """The smallest value at which the weighted distribution function reaches `q`."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    at = np.searchsorted(cumulative, np.asarray(q) * cumulative[-1], side="left")
    return values[order[np.minimum(at, len(values) - 1)]]


class Model(NamedTuple):
    """What a population knows of one of several models."""

    name: str
    names: tuple[str, ...]  # of its parameters
    probability: float  # before the data


class Estimate(NamedTuple):
    """A logarithm that was estimated, with its standard error."""

    log: float
    error: float


def width_of(names: tuple[str, ...], models: tuple[Model, ...]) -> int:
    """How many columns theta has: d, or the largest d of several models."""
    return max((len(model.names) for model in models), default=len(names))


class _Names:
    """Names of the parameters; several models have none in common."""

    def __get__(self, population: Any, owner: Any = None) -> tuple[str, ...]:
        if population is None:  # a field without a default
            raise AttributeError("names")
        population.check_one("names")
        return population.__dict__["names"]

    def __set__(self, population: Any, names: tuple[str, ...]) -> None:
        population.__dict__["names"] = names


def unlike(names: Collection[str], name: str) -> str:
    """A name that none of these is: with underscores behind it, if need be."""
    while name in names:
        name += "_"
    return name


def beside(columns: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Columns of a table, and ours, which have other names where a parameter is called so."""
    return columns | {unlike(columns, name): column for name, column in ours.items()}


def theta_by_name(rows: Any) -> dict[str, Any]:
    """A column for each parameter of a Population, or Simulations; of several models of all of theirs.

    One that several have is one column.
    """
    if not rows.models:
        return dict(zip(rows.names, rows.theta.T, strict=True))
    columns: dict[str, Any] = {"model": np.array([model.name for model in rows.models])[rows.model]}
    for m, model in enumerate(rows.models):
        is_of_it = rows.model == m
        for i, name in enumerate(model.names):
            column = columns.setdefault(name, np.full(len(rows), np.nan))
            column[is_of_it] = rows.theta[is_of_it, i]
    return columns


def distances_by_name(distances: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """A column for each of several distances, if they are several."""
    if distances.ndim == 1:
        return {"distance": distances}
    columns = np.asarray(distances).T
    return {f"distance_{name}": x for name, x in zip(names or range(len(columns)), columns, strict=True)}


def _signed(cls: type) -> type:
    """Let `help` show names of what it is made of: columns, as they are declared, fill a screen."""
    made: Any = cls.__init__  # type: ignore[misc]
    own = [p.replace(annotation=p.empty) for p in inspect.signature(made).parameters.values()]
    made.__signature__ = inspect.Signature(own)
    cls.__signature__ = inspect.Signature(own[1:])  # type: ignore[attr-defined]
    return cls


@_signed
@dataclass(frozen=True, eq=False, kw_only=True)
class Population(Particles):
    """The accepted evaluations of one generation: what kernels, thresholds and sizes are given.

    theta (N, d), weights (N,) summing to 1, distances (N,), or (N, m) of several, summaries (N, k), ids (N,)
    int64. log_weights (N,): log prior - log of the density that the particle was drawn from; weights are made
    of these where nothing is recycled. level (N,) int64: the generation whose proposal brought the particle,
    an earlier one if it was recycled. The counts are of ids from `first` up to the cut: `evaluations` all,
    `simulations` those inside the prior's support. `dispatched` depends on timing, and is for information
    only.

    Of several models: `model` (N,) is the index of a particle's, theta (N, max d) has nan beyond that one's
    parameters, and what is said of parameters is said of one model: `of(problem)`.
    """

    names: tuple[str, ...] = _Names()  # type: ignore[assignment]
    models: tuple[Model, ...] = ()  # none, where there is one
    weights: np.ndarray
    log_weights: np.ndarray = None  # type: ignore[assignment]
    first: int = 0
    generation: int
    epsilon: Any  # a float; of several distances, one for each, (m,)
    evaluations: int
    simulations: int
    failures: int
    log_evidence: float
    dispatched: int
    seconds: float
    columns_of_distances: tuple[str, ...] = ()
    shapes: Shapes = ()  # names and shapes of what `summaries` are, as far as known

    def __post_init__(self) -> None:
        if self.columns_of_distances and not isinstance(self.distances, Named):
            object.__setattr__(self, "distances", Named(self.distances, self.columns_of_distances))
        if isinstance(self.epsilon, np.ndarray):
            self.epsilon.flags.writeable = False
        if self.log_weights is None:
            with np.errstate(all="ignore"):
                object.__setattr__(self, "log_weights", np.log(self.weights))
        if self.level is None:
            object.__setattr__(self, "level", np.full(len(self), self.generation))
        super().__post_init__()
        for array in (self.weights, *self.columns().values()):
            array.flags.writeable = False

    def __repr__(self) -> str:
        return (
            f"<Population {self.generation}: {len(self)} particles, epsilon {short(self.epsilon)}, "
            f"ess {self.ess:.0f}, acceptance rate {self.acceptance_rate:.3g}>"
        )

    @cached_property
    def ess(self) -> float:
        """Effective sample size of the weights."""
        return effective_sample_size(self.weights)

    def check_one(self, what: str) -> None:
        """Raise ProblemError where models are several, whose parameters have nothing in common."""
        if self.models:
            listed = ", ".join(repr(model.name) for model in self.models)
            raise ProblemError(
                f"{what} of a population of several models: ask for it of one, by population.of(problem), "
                f"which takes a problem, name or index; there are {listed}"
            )

    def model_probabilities(self) -> np.ndarray:
        """The posterior probability of each model, (M,), in the order of the problems."""
        return np.bincount(self.model, self.weights, minlength=max(1, len(self.models)))

    @property
    def named_models(self) -> str:
        """The models and their probabilities in words; empty where there is one."""
        pairs = zip(self.models, self.model_probabilities(), strict=False)
        return ", ".join(f"{model.name} {share:.3g}" for model, share in pairs)

    def of(self, problem: Any) -> "Population":
        """The particles of one model alone, with weights that sum to 1, by its problem, name or index.

        Its `log_evidence` is that model's. Raises ProblemError for a model that there is not, or that has no
        particle.
        """
        m = self.index_of(problem)
        if not self.models:
            return self
        found = self._of[m]
        if found is None:
            raise ProblemError(
                f"generation {self.generation} has no particle of the model {self.models[m].name!r}"
            )
        return found

    def evidence(self, problem: Any) -> Estimate:
        """Log evidence of a model, by its problem, name or index, at this epsilon; -inf without particles."""
        m, n = self.index_of(problem), self.first + self.evaluations
        share, ess = self._shares[m]
        prior = self.models[m].probability if self.models else 1.0
        if not share:
            return Estimate(-math.inf, math.inf)
        log = self.log_evidence + math.log(share) - math.log(prior)
        return Estimate(log, math.sqrt(max(0.0, 1 / ess - 1 / n)))

    def bayes_factor(self, one: Any, other: Any) -> Estimate:
        """Log Bayes factor of one model against another: how much the data speak for it."""
        found = [self.evidence(problem) for problem in (one, other)]
        errors = [1 / ess if ess else math.inf for _, ess in map(self._share, (one, other))]
        return Estimate(found[0].log - found[1].log, math.sqrt(sum(errors)))

    def each(self) -> "list[Population | None]":
        """The particles of each model, None where there are none; of one model alone, nothing."""
        return self._of

    def _share(self, problem: Any) -> tuple[float, float]:
        return self._shares[self.index_of(problem)]

    @cached_property
    def _shares(self) -> list[tuple[float, float]]:
        """The sum of each model's weights, and their effective sample size."""
        sums = self.model_probabilities()
        squares = np.bincount(self.model, np.square(self.weights), minlength=len(sums))
        return [(float(s), float(s**2 / q) if q else 0.0) for s, q in zip(sums, squares, strict=True)]

    @cached_property
    def _of(self) -> list["Population | None"]:
        """The particles of each model, None where there are none."""
        return [self._only(m) if (self.model == m).any() else None for m in range(len(self.models))]

    def _only(self, m: int) -> "Population":
        names = self.models[m].names
        part = self.taken(self.model == m)
        theta, evidence = part.theta[:, : len(names)].copy(), self.evidence(m).log
        return part.with_values(theta=theta, names=names, models=(), log_evidence=evidence)

    def taken(self, rows: np.ndarray) -> "Population":
        """Some of the particles, those of an index or a mask, with weights that sum to 1."""
        weights = self.weights[rows]
        return self.with_values(**self.take(rows).columns(), weights=weights / weights.sum())

    def with_values(self, **values: Any) -> "Population":
        """The same with other values."""
        return Population(**{field.name: self.__dict__[field.name] for field in fields(self)} | values)

    def index_of(self, problem: Any) -> int:
        """Of a model by its problem, name or index. Raises ProblemError for one that there is not."""
        name = problem if isinstance(problem, str) else getattr(problem, "name", None)
        names = [model.name for model in self.models]
        at = whole(problem) if name is None else names.index(name) if name in names else None
        n = max(1, len(names))
        if not self.models and name is not None:
            return 0  # it does not know its problem's name
        if at is None or not -n <= at < n:
            listed = ", ".join(map(repr, names)) or "one"
            raise ProblemError(
                f"no model {name or problem!r}: there is {listed}; give a problem, name or index"
            )
        return at % n

    @property
    def acceptance_rate(self) -> float:
        """New particles for each evaluation; a proposal outside the support counts as a rejection.

        1 where all particles were recycled.
        """
        return self.accepted / self.evaluations if self.evaluations else 1.0

    @property
    def accepted(self) -> int:
        """New particles: all, if none was recycled."""
        return int(np.count_nonzero(self.ids >= self.first))

    def __getitem__(self, name: str) -> np.ndarray:
        """The column (N,) of one parameter."""
        return Named(self.theta, self.names)[name]

    def data(self, name: str | None = None) -> np.ndarray:
        """The simulated data of this name (N, ...), as they were compared: what `summarize` made of them.

        The name may be left out where there is one. Raises ProblemError for another name, and where no
        statistics were kept.
        """
        if not self.shapes or not self.summaries.shape[1]:
            raise ProblemError(
                f'generation {self.generation} has no simulated data: keep="theta" keeps none, nor are there '
                "any where the distance compares what are no numbers, without summarize"
            )
        return chosen(by_name(self.summaries, self.shapes), name)

    @quiet
    def mean(self) -> Named:
        """Weighted mean, (d,)."""
        self.check_one("mean")
        return Named(self.weights @ self.theta, self.names)

    @quiet
    def std(self) -> Named:
        """Weighted standard deviation, (d,)."""
        self.check_one("std")
        return Named(np.sqrt(self.weights @ np.square(self.theta - self.mean())), self.names)

    def quantile(self, q: Any) -> Named:
        """Weighted quantiles of each parameter: (d,) for a number q, (m, d) for m of them."""
        self.check_one("quantile")
        if not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
            raise ValueError(f"quantile of {q}, expected numbers from 0 to 1")
        columns = [weighted_quantile(column, self.weights, q) for column in self.theta.T]
        return Named(np.stack(columns, axis=-1), self.names)

    @quiet
    def resample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` equally weighted draws from the particles, (n, d)."""
        self.check_one("resample")
        return self.theta[rng.choice(len(self), size=n, p=self.weights)]

    def digest(self) -> str:
        """Hex SHA-256 over ids, theta, weights, distances, epsilon: equal digests, equal populations.

        Of several models the particles' models are among it.
        """
        sha = hashlib.sha256()
        for array in (self.ids, self.theta, self.weights, self.distances, np.float64(self.epsilon)):
            sha.update(array.tobytes())
        if self.models:
            sha.update(self.model.tobytes())
        return sha.hexdigest()

    def to_dataframe(self) -> Any:
        """A pandas data frame: a column a parameter, then weight, distance, id.

        Parameters keep their names: where one is called so itself, ours is `weight_`, `distance_`, or `id_`.
        Of several models: first a column with the name of a particle's, and nan for parameters of others.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_dataframe needs pandas: install `mpiabc[pandas]`") from None
        return pandas.DataFrame(self.table())

    def table(self) -> dict[str, np.ndarray]:
        """The columns of `to_dataframe`, each (N,)."""
        distances = distances_by_name(self.distances, self.columns_of_distances)
        ours = {"weight": self.weights, **distances, "id": self.ids}
        return beside(theta_by_name(self), ours)

    def _repr_html_(self) -> str:
        return html.table(self._heading(), self._parameter_rows(), repr(self))

    def _heading(self) -> list[str]:
        return ["model", "probability"] if self.models else ["", "mean", "sd", "5 %", "median", "95 %"]

    def _parameter_rows(self) -> list[list[str]]:
        """A row for each parameter, or, of several models, each model."""
        if self.models:
            pairs = zip(self.models, self.model_probabilities(), strict=True)
            return [[model.name, f"{share:.3g}"] for model, share in pairs]
        columns = (self.mean(), self.std(), *self.quantile([0.05, 0.5, 0.95]))
        rows = zip(self.names, *(np.asarray(column).tolist() for column in columns), strict=True)
        return [[name, *(f"{value:.4g}" for value in values)] for name, *values in rows]


@dataclass(frozen=True)
class Past:
    """The committed generations of a run, as far as what comes next depends on them."""

    last: Population | None = None
    simulations: int = 0
    failures: int = 0
    tried: tuple[int, ...] = ()  # ids, at each level, below the last population's cut
    firsts: tuple[int, ...] = ()  # the lowest id, at each level
    epsilons: tuple[float, ...] = ()
    proposals: tuple[Any, ...] = ()  # of the levels from 1 on, if evaluations are recycled
    sample: Particles | None = None  # of the last one, or of a calibration, if its order wanted one
    calibrated: int = 0  # simulations of a calibration, before the first generation
    acceptor: Any = None  # of the last one's order, where the next one goes on from it
    pool: Any = None  # all simulations, where all of them are weighted together: see `amis`

    def after(
        self,
        population: Population,
        proposals: tuple[Any, ...] = (),
        sample: Particles | None = None,
        acceptor: Any = None,
    ) -> "Past":
        """The past with one more generation; `proposals`: with that of this one."""
        return Past(
            population,
            self.simulations + population.simulations,
            self.failures + population.failures,
            self.tried_at(population.first, population.evaluations, population.ids),
            (*self.firsts, population.first),
            (*self.epsilons, population.epsilon),
            proposals,
            sample,
            acceptor=acceptor,
        )

    def tried_at(self, first: int, evaluations: int, ids: np.ndarray) -> tuple[int, ...]:
        """Ids below the cut of a population with these ids, at each level.

        One that has shrunk to the first of the recycled particles ends with the last of these: no id above it
        was needed.
        """
        tried = (*self.tried, evaluations)
        if evaluations or not self.tried:
            return tried
        cut, firsts = int(ids.max()) + 1, (*self.firsts, first)
        return tuple(min(n, max(0, cut - low)) for n, low in zip(tried, firsts, strict=True))

    @property
    def models(self) -> int | None:
        """How many models have particles; None where there is but one."""
        return int(np.unique(self.last.model).size) if self.last is not None and self.last.models else None

    @property
    def level(self) -> int:
        """The generation that comes next."""
        return 0 if self.last is None else self.last.generation + 1
