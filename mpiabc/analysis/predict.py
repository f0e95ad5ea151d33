"""Simulations from a population: the posterior predictive distribution, on any scheduler.

Draw i of a prediction is a particle of the population and a simulation of it. Their random numbers have a key
of their own, which is drawn for (generation, seed) by a purpose of its own: they are the same on any
scheduler, and no evaluation of the run has them.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc import models, team
from mpiabc.arguments import whole_of
from mpiabc.distances import Returned
from mpiabc.errors import ProblemError
from mpiabc.kept import Nothing
from mpiabc.models import AnyProblem
from mpiabc.named import UNNAMED, Shapes, by_name, shapes_of
from mpiabc.order import Order
from mpiabc.outcome import Outcome
from mpiabc.pool import Pool
from mpiabc.population import Named, Population
from mpiabc.schedulers.alone import ALONE
from mpiabc.signals import is_asked_to_stop
from mpiabc.simulate import Block, Simulator, States
from mpiabc.store import History
from mpiabc.streams import Purpose, Stream, block_of, stream_key
from mpiabc.structure import Structure

Data = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Prediction(Mapping[str, np.ndarray]):
    """Simulations from a population, by name: `prediction["y"]` is (n, ...), nan where a simulation failed.

    theta: the parameters of each (n, d). observed: the data by the same names, empty where these do not have
    them.
    """

    data: Data
    theta: np.ndarray
    generation: int
    observed: Data = field(default_factory=dict)
    model: np.ndarray | None = None  # (n,), the index of each one's, if models are several

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} {array.shape}" for name, array in self.data.items())
        return f"<Prediction of generation {self.generation}: {listed}>"

    def digest(self) -> str:
        """Hex SHA-256 over names, numbers and parameters: equal digests are equal simulations."""
        sha = hashlib.sha256(np.ascontiguousarray(self.theta).tobytes())
        for name, array in self.data.items():
            sha.update(name.encode())
            sha.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
        return sha.hexdigest()


def predicted(
    history: History,
    n: int = 1000,
    *,
    t: int = -1,
    theta: Any = None,
    problem: Any = None,
    trust: bool = False,
    scheduler: Any = "auto",
    seed: int = 0,
    raw: bool = False,
) -> Prediction | None:
    """`History.predict`."""
    n, seed = whole_of("n", n, 1), whole_of("seed", seed, 0)
    asked, population = _problem(history, problem, trust), history[t]
    _check_kept(asked, raw)
    key, x = _drawn(history, asked, population, n, theta, seed)
    order = Order(population.generation, key, math.inf, asked.prior, len(x))
    step = block_of(asked.step) if asked.vectorized else 1
    with Pool(scheduler) as pool:
        if pool is None:  # a process that has served
            return None
        parts = pool.map(Simulation(asked, order, x, raw), range(-(-len(x) // step)))
    data = _together([row for part in parts for row in part][: len(x)], None if raw else asked.structure)
    return _prediction(asked, population, x, data, raw)


def _prediction(
    asked: AnyProblem, population: Population, x: np.ndarray, data: Data, raw: bool
) -> Prediction:
    columns, observed = asked.split(x), {}
    if not raw:
        observed = {name: part[0] for name, part in by_name(asked.observed_row[None], _shapes(asked)).items()}
    return Prediction(
        data,
        Named(columns["theta"], asked.names) if asked.names else columns["theta"],
        population.generation,
        observed,
        columns.get("model"),
    )


def _shapes(problem: AnyProblem) -> Shapes:
    return shapes_of(problem.structure)


def _problem(history: History, given: Any, trust: bool) -> AnyProblem:
    """The problem, or models, that simulate. Raises ProblemError for others than the run's parameters."""
    if given is None:
        return history.part("problem", trust=trust, instead="problem=problem, the one that was run")
    settings = history.settings
    several = settings.get("models") or []
    is_as_many = isinstance(given, list | tuple) and len(given) == len(several)
    mine = models.of(given, [share for _, _, share in several] if is_as_many else None)
    wanted = [names for _, names, _ in several] or [settings["names"]]
    found = [list(model.names) for model in mine.models]
    if found != wanted:
        raise ProblemError(
            f"the problem has the parameters {found}, and {history.path} is of {wanted}: give the problem of "
            "that run, or one with other simulations of the same parameters"
        )
    return mine


def _check_kept(problem: AnyProblem, raw: bool) -> None:
    """Raise ProblemError where nothing is kept of simulated data."""
    is_distance = problem.observed is None and isinstance(problem.distance, Returned)
    if not raw and (is_distance or isinstance(problem.structure, Nothing)):
        raise ProblemError(
            "no numbers are kept of what this problem simulates: give raw=True, for what simulate returns"
        )


def _drawn(
    history: History, problem: AnyProblem, population: Population, n: int, theta: Any, seed: int
) -> tuple[tuple[int, int], np.ndarray]:
    """The key of the simulations, and rows of parameters, with their models behind them if several."""
    stream = Stream(stream_key(history.settings["seed"]), Purpose.PREDICTION)
    rng = stream.at(population.generation, seed)
    first, second = rng.bit_generator.random_raw(2)
    if theta is None:
        rows = rng.choice(len(population), size=n, p=population.weights)
        return (int(first), int(second)), problem.joint(population.take(rows))
    x = np.array(theta, np.float64, ndmin=2)
    if len(problem.models) > 1 or x.shape[1:] != (problem.width,) or not len(x):
        raise ProblemError(
            f"theta of shape {np.shape(theta)}: give (n, {problem.width}), of a problem that is one model"
        )
    return (int(first), int(second)), x


# In a worker.


@dataclass(frozen=True, eq=False)
class Simulation:
    """Simulates a row of x, or, vectorised, a block of rows: a pure function of which one."""

    problem: AnyProblem
    order: Order
    x: np.ndarray
    raw: bool

    def __call__(self, number: int) -> list[Any]:
        """What each row of this block comes to: a row of numbers, or data; None where it came to nothing."""
        states = self._states
        while True:
            with team.being(team.worker(), ALONE), states.steady(), states.watched() as reached:
                found = self._block(number)
            if not reached:
                return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("problem", "order", "x", "raw")}

    @cached_property
    def _states(self) -> States:
        return States(self.problem, self.order)

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.problem, self.order, self._states)

    def _block(self, number: int) -> list[Any]:
        if not self.problem.vectorized:
            return [self._row(Block(number, self.x[number : number + 1], np.zeros(1)))]
        block = self._filled(number)
        is_here = block.inside
        found: list[Any] = [None] * int(is_here.sum())
        of = self._simulator.models_of(block, np.arange(len(is_here)))
        for m in np.unique(of[is_here]).tolist():
            for row, data in self._called(block, m, np.flatnonzero(is_here & (of == m))):
                found[row] = data
        return found

    def _filled(self, number: int) -> Block:
        """A whole block, or batch: what it lacks of rows is outside."""
        length = block_of(self.problem.step)
        rows = np.arange(number * length, (number + 1) * length)
        is_here = rows < len(self.x)
        theta = self.x[np.where(is_here, rows, rows[0])]
        return Block(number, theta, np.where(is_here, 0.0, -np.inf))

    def _row(self, block: Block) -> Any:
        """What is kept of one simulation."""
        simulator, problem = self._simulator, self.problem
        try:
            data, model = simulator.simulated(block, 0)
            if data is None or self.raw:
                return data
            if problem.is_raw:
                return np.asarray(problem.structure.flatten(simulator.summarised(data, model)), np.float64)
            return problem.structure.row(simulator.summarised(data, model))
        except BaseException as error:
            self._raise(error, block)
            return None
        finally:
            self._states.look_at_floats(self._notes(block))

    def _called(self, block: Block, m: int, rows: np.ndarray) -> Iterator[tuple[int, Any]]:
        """The rows of one call, each with what is kept of it."""
        simulator = self._simulator
        try:
            called = simulator.rows_of_call(block, m)
            data, model = simulator.simulated(block, called)
            at = rows if len(called) == len(block.theta) else np.searchsorted(called, rows)
            parts: Any = [None] * len(rows)
            if data is not None and self.raw:
                parts = [_row_of(data, i) for i in at.tolist()]
            elif data is not None:
                structure: Any = self.problem.structure
                table = structure.rows(simulator.summarised(data, model), len(called))
                parts = table.take(at, axis=0)
        except BaseException as error:
            self._raise(error, block)
            parts = [None] * len(rows)
        finally:
            self._states.look_at_floats(self._notes(block))
        yield from zip(rows.tolist(), parts, strict=True)

    def _raise(self, error: BaseException, block: Block) -> None:
        """Raise what was raised, unless failures are rejections."""
        if is_asked_to_stop(error) or self.problem.on_error == "raise":
            if not is_asked_to_stop(error):
                theta = self.problem.named(block.theta[0])
                error.add_note(f"in prediction {block.first}, theta: {theta}")
            raise error

    def _notes(self, block: Block) -> Outcome:
        return Outcome(self.problem, self.order, "", block.first, block.first + 1)


def _row_of(data: Any, i: int) -> Any:
    """One of the simulations of a vectorised call."""
    return {name: part[i] for name, part in data.items()} if isinstance(data, Mapping) else data[i]


# At home.


def _together(rows: Sequence[Any], structure: Structure | Nothing | None) -> Data:
    """The simulations by name. Raises ProblemError if there is none."""
    found = [row for row in rows if row is not None]
    if not found:
        raise ProblemError(f"none of {len(rows)} simulations came to anything: each was rejected, or failed")
    if structure is None:
        try:
            structure = Structure(found[0])
            table = [None if row is None else structure.row(row) for row in rows]
        except (ProblemError, ValueError):  # no numbers, or of different lengths
            array = np.empty(len(rows), object)
            array[:] = rows
            return {UNNAMED: array}
    else:
        table = list(rows)
    nothing = np.full(structure.size, np.nan)
    return by_name(np.array([nothing if row is None else row for row in table]), shapes_of(structure))
