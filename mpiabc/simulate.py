"""The one act of an evaluation that is impure and expensive: the user's simulator and summary are called.

`guard` notices what simulators do to the process, and a lease in which a global random state or the
floating-point environment was seen to move is evaluated once more, each evaluation from a state of its own.
Users' callables get copies and read-only arrays of what others need.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import repeat
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from mpiabc import guard, team
from mpiabc.calls import is_ours
from mpiabc.distances import Returned
from mpiabc.layout import Layout, layout_of
from mpiabc.models import AnyProblem, Models
from mpiabc.order import Order
from mpiabc.outcome import CensoredError, Outcome
from mpiabc.problem import REJECT, EvaluationId, Problem, signature, summary_of
from mpiabc.protection import protected
from mpiabc.signals import is_asked_to_stop
from mpiabc.streams import Purpose, Stream
from mpiabc.structure import DistanceError, StructureMismatchError, description_of, numbers

LANE = 1 << 48  # of a model's calls in a block, whose streams lie so far apart
_UNFINISHED = object()  # what a call that has not returned gave
_PROPOSAL_SEEDS = 1 << 63  # added to a block's number: addresses that no evaluation has

_GLOBAL_RANDOM = (
    "the simulator, its summary or its distance draws NumPy's or Python's global random numbers: they are "
    "seeded for every evaluation, which costs 20 us; draw from rng instead"
)
_OWN_RANDOM = (
    "a simulation that was repeated is another one, and it drew nothing from rng: the simulator has random "
    "numbers of its own, or seeds them itself, so the run cannot be reproduced; draw from rng, or seed them "
    "from it"
)
_NOT_KEPT = (
    "simulated data have not the structure of the observed data: the distance takes them as they are, and "
    'what does not fit is kept as nan; let summarize give them that structure, or keep="theta"'
)
_OF_SUMMARY = (
    "the distance compares what summarize returns with observed: give observed=summarize(data), not the data"
)
NOT_OBSERVED = (
    "there are no observed data, so that what simulate returns is its distance: give observed= if it is data"
)
_FLOATS = (
    "the simulator leaves another rounding mode, or flush to zero, behind: the floating-point environment is "
    "put back for every evaluation, and does not reach our arithmetic"
)


class Block(NamedTuple):
    """An aligned block, or batch, of n proposals: theta (n, d) and log prior density (n,)."""

    number: int  # its first id is this number times n
    theta: np.ndarray
    log_prior: np.ndarray
    born: np.ndarray | None = None  # (n,) of coupled proposals: the level at which each was drawn

    @property
    def first(self) -> int:
        """The id of its first row."""
        return self.number * len(self.theta)

    def has(self, id: int) -> bool:
        """Whether the id is one of its."""
        return self.first <= id < self.first + len(self.theta)

    def born_at(self, row: int, level: int) -> int:
        """The level in the address of a row's simulation, where an order has this level."""
        return level if self.born is None else int(self.born[row])

    @property
    def inside(self) -> np.ndarray:
        """Which rows lie in the prior's support, (n,)."""
        return self.log_prior > -np.inf


class Simulated(NamedTuple):
    """Rows of a block that were simulated to the end, n of them."""

    rows: np.ndarray  # (n,)
    summaries: np.ndarray  # (n, k)
    distances: np.ndarray | None  # (n,), where a callable has measured what `simulate` returned


class States:
    """Global generators and floating-point environment of this process, as evaluations find them."""

    def __init__(self, problem: AnyProblem, order: Order) -> None:
        self._problem, self.level = problem, order.level  # in the addresses of what is simulated
        self._random, self._floats = guard.GlobalRandom(order.key), guard.FloatingPoint()
        signatures = [signature(model.simulate) for model in problem.models]
        takes_rng = all(found.takes_rng for found in signatures)
        is_of_team = "comm" in signatures[0].extras  # whose ranks would have to notice the same
        if not takes_rng or is_of_team or self._random.has_half_a_pair():
            _seeded.add(problem)

    def steady(self) -> AbstractContextManager[None]:
        """Compute in the default floating-point environment, and leave the one that was there."""
        return self._floats.steady()

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Watch the evaluations of a lease; the list tells afterwards what one has left to the next."""
        seeds, resets = self._problem in _seeded, self._problem in _reset
        reached: list[str] = []
        look = None if seeds else self._random.look()
        with _one_at_a_time(self._random) if seeds else nullcontext():
            yield reached
        if look is not None and self._random.look() != look:
            self._random.put_back(look)
            _seeded.add(self._problem)
            reached.append(_GLOBAL_RANDOM)
        if not resets and self._problem in _reset:
            reached.append(_FLOATS)

    @contextmanager
    def beside(self, part: Any) -> Iterator[None]:
        """A part of the user's own is asked between simulations: what it draws is not the simulator's."""
        look = None if is_ours(part) or self._problem in _seeded else self._random.look()
        yield
        if look is not None and self._random.look() != look:
            self._random.put_back(look)

    def preparation(self) -> Callable[[int], None] | None:
        """What gives an evaluation states of its own, where simulators were seen to need it."""
        seeds, resets = self._problem in _seeded, self._problem in _reset
        if not (seeds or resets):
            return None

        def prepare(index: int) -> None:
            if resets:
                self._floats.reset()
            if seeds:
                self._random.seed(self.level, index)

        return prepare

    def prepare_proposals(self, block: int) -> None:
        """The same for the proposals of a block, which a prior may draw from global generators."""
        if self._problem in _seeded:
            self._random.seed(self.level, block + _PROPOSAL_SEEDS)

    def reset_floats(self) -> None:
        """Begin in the default floating-point environment, whatever a simulation has left."""
        self._floats.reset()

    def look_at_floats(self, outcome: Outcome) -> None:
        """Let no rounding mode of a simulator's reach what follows."""
        if not self._floats.is_default():
            self._floats.reset()
            _reset.add(self._problem)
            outcome.notes.add(_FLOATS)


@contextmanager
def _one_at_a_time(random: guard.GlobalRandom) -> Iterator[None]:
    """Of the threads of a process, one at a time has the global generators, and puts them back."""
    with _has_generators, random.restored():
        yield


_has_generators = threading.Lock()
_seeded: WeakSet[AnyProblem] = WeakSet()  # whose evaluations get global random states of their own here
_reset: WeakSet[AnyProblem] = WeakSet()  # whose simulators leave the floating-point environment changed


class _Model(NamedTuple):
    """One model of a problem, of which there mostly is one."""

    names: tuple[str, ...]
    layout: Layout
    width: int  # numbers of a row that are its own
    call: Callable[..., Any]  # (theta, rng)
    summarize: Callable[..., Any] | None
    draws_summary: bool  # summarize is given an rng, too
    takes_rng: bool
    may_return_none: bool


class Simulator:
    """The simulator of a problem under one order, with what can be prepared once.

    `distance`: a callable (simulated, observed) that measures each row at once; None if rows are measured
    together, later. `watch` hears each id before its simulation.
    """

    def __init__(
        self,
        problem: AnyProblem,
        order: Order,
        states: States,
        distance: Callable[..., Any] | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        self.at = -1  # the id in work
        self.ids: Any = None  # those of a vectorised simulator
        self.lane = 0  # of a vectorised call, by its model
        self.is_first = False  # the next block is the run's first one
        self.columns: tuple[str, ...] = ()  # names of several distances
        self._width: int | None = None  # how many they are, once one was measured
        self._keys: tuple[str, ...] = ()  # what it names them
        self._problem, self._order, self._states = problem, order, states
        self._distance, self._watch = distance, watch
        self._structure: Any = problem.structure
        self._observed = protected(problem.observed)
        self._models = [_model(model, order, self) for model in problem.models]
        self._stream = Stream(order.key, Purpose.SIMULATION)

    @property
    def level(self) -> int:
        """That of the evaluation in work, as its streams are addressed."""
        return self._states.level

    def __call__(self, block: Block, rows: np.ndarray, outcome: Outcome) -> Simulated:
        """Simulate these rows, which lie in the prior's support.

        Ends early, with what there is, at a failure that ends the run.
        """
        return (self._together if self._problem.vectorized else self._one_by_one)(block, rows, outcome)

    def simulated(self, block: Block, rows: Any) -> tuple[Any, "_Model"]:
        """Simulated data of one row, or, vectorised, of several, None if rejected; and whose they are."""
        data, model = self._data(block, rows)
        if data is None or data is REJECT:
            self._check_rejection(data, model)
            return None, model
        return data, model

    def summarised(self, data: Any, model: "_Model") -> Any:
        """What is made of what was just simulated; data themselves, if nothing is."""
        if model.summarize is None:
            return data
        return model.summarize(data, self._stream.here) if model.draws_summary else model.summarize(data)

    def measured(self, data: Any, model: "_Model", outcome: Outcome) -> tuple[Any, Any]:
        """What is kept of simulated data, as a row, and their distance by a callable."""
        if not self._problem.is_raw:
            return self._compared(self.summarised(data, model), outcome)
        if isinstance(self._problem.distance, Returned):
            return [], self._number(self.summarised(data, model))
        return self._kept(data, model), self._number(self._measure(data))

    def _number(self, value: Any) -> float | tuple[float, ...]:
        """What a distance gave, one number or several, as many as ever."""
        if type(value) is float and self._width == 1 and not self._keys:
            return value
        found = numbers(value)
        width = len(found) if isinstance(found, tuple) else 1
        names = tuple(map(str, value)) if isinstance(value, Mapping) else ()
        if self._width is None:
            self._width, self._keys, self.columns = width, names, names if width > 1 else ()
        if (width, names) != (self._width, self._keys):
            raise DistanceError(
                f"the distance gave {description_of(value)}, and {self._width} {self._keys or 'numbers'} "
                "before: it gives as many, of the same names in the same order, in every evaluation"
            )
        return found

    def _measure(self, data: Any) -> Any:
        """What the callable says."""
        assert self._distance is not None
        return self._distance(data, self._observed())

    def _kept(self, data: Any, model: "_Model") -> Any:
        """What is kept of simulated data where the distance gets these, as a row."""
        return self._structure.flatten(
            data if self._problem.example is None else self.summarised(data, model)
        )

    def _compared(self, data: Any, outcome: Outcome) -> tuple[Any, Any]:
        """The same for summarised data, which may have more than the observed ones, or another form."""
        mismatch: StructureMismatchError | None = None
        row: Any
        try:
            row = self._structure.flatten(data)
        except StructureMismatchError as error:
            mismatch = error
        try:
            distance = self._number(self._measure(data))
        except Exception as error:
            if mismatch is None or is_asked_to_stop(error):
                raise
            raise mismatch from None  # which says more
        if mismatch is not None:
            row, is_whole = self._structure.fitting(data)
            if not is_whole:
                outcome.notes.add(_NOT_KEPT)
        return row, distance

    def take_part(self, block: Block, row: int, model: int) -> None:
        """Simulate this row, or, vectorised, a model's of its block, for a team whose first rank has it."""
        self._states.reset_floats()
        self._data(block, self.rows_of_call(block, model) if self._problem.vectorized else row)

    def _data(self, block: Block, rows: Any) -> tuple[Any, _Model]:
        """What the simulator returns, and whose it is: rows of one call are of one model."""
        at: int
        m = int(self.models_of(block, np.atleast_1d(rows)[:1])[0])
        model = self._models[m]
        if self._problem.vectorized:
            self.lane = m * LANE
            values = block.theta.take(rows, axis=0)
            theta, at = model.layout.columns(values[:, : model.width]), block.number + self.lane
            self.ids = block.first + rows
        else:
            (values,) = self._values(block, np.array([rows]))
            theta, self.at = model.layout.row(values), block.first + rows
            at = self.at
            self._states.level = block.born_at(int(rows), self._order.level)
        if prepare := self._states.preparation():
            prepare(at)
        return model.call(theta, self._stream.at(self._states.level, at)), model

    def models_of(self, block: Block, rows: np.ndarray) -> np.ndarray:
        """The indices of the models (n,) that rows are of."""
        if isinstance(self._problem, Models):
            return self._problem.model_of(block.theta[rows])
        return np.zeros(len(rows), int)

    def _each_model(self, block: Block, rows: np.ndarray) -> Iterable[_Model]:
        """Whose each of these rows is."""
        if len(self._models) == 1:
            return repeat(self._models[0])
        return map(self._models.__getitem__, self.models_of(block, rows).tolist())

    def _values(self, block: Block, rows: np.ndarray) -> list[list[float]]:
        """The parameters of each row, without what other models have."""
        values = block.theta[rows].tolist()
        if len(self._models) == 1:
            return values
        return [row[: self._models[int(row[-1])].width] for row in values]

    def _one_by_one(self, block: Block, rows: np.ndarray, outcome: Outcome) -> Simulated:
        """One simulation for each of the rows, each from the stream of its own id."""
        flatten, stream, t = self._structure.flatten, self._stream.at, self._order.level
        is_measured_here = self._distance is not None
        watch, prepare = self._watch, self._states.preparation()
        done, summaries, distances = [], [], []
        ids = (block.first + rows).tolist()
        models, current = self._each_model(block, rows), None
        for index, values, model in zip(ids, self._values(block, rows), models, strict=False):
            self.at = index
            if model is not current:
                given, simulate, summarize, current = model.layout.row, model.call, model.summarize, model
            theta, data = given(values), _UNFINISHED
            if block.born is not None:
                t = self._states.level = block.born_at(index - block.first, t)
            if watch:
                watch(index)
            try:
                if prepare:
                    prepare(index)
                data = simulate(theta, stream(t, index))
                if data is None or data is REJECT:
                    self._check_rejection(data, model)
                    continue
                if is_measured_here:
                    summary, distance = self.measured(data, model, outcome)
                    distances.append(distance)
                else:
                    summary = flatten(data if summarize is None else self.summarised(data, model))
            except BaseException as error:
                hint = self._hint(error, model, data)
                outcome.fail(index, block.theta[index - block.first], error, hint=hint)
                if outcome.is_ended:
                    break
                continue
            done.append(index)
            summaries.append(summary)
        self._states.look_at_floats(outcome)
        if self.is_first and done and done[-1] == ids[-1]:
            self._check_own_randomness(block, done[-1] - block.first, summaries[-1], outcome)
        return self._simulated(np.array(done, int) - block.first, summaries, distances)

    def rows_of_call(self, block: Block, model: int = 0) -> np.ndarray:
        """The rows that one call gets: those of a model inside the support.

        A batch has as many as ever: rows outside, or of others, repeat the first one inside, if there is one.
        """
        is_inside = block.inside
        if len(self._models) > 1:
            is_inside = is_inside & (self.models_of(block, np.arange(len(is_inside))) == model)
        if self._problem.batch is None or is_inside.all() or not is_inside.any():
            return np.flatnonzero(is_inside)
        return np.where(is_inside, np.arange(len(is_inside)), np.argmax(is_inside))

    def _together(self, block: Block, rows: np.ndarray, outcome: Outcome) -> Simulated:
        """One call for each model that these rows are of, one after another."""
        if len(self._models) == 1:
            return self._called(block, rows, 0, outcome)
        models = self.models_of(block, rows)
        parts = []
        for m in np.unique(models).tolist():
            if not outcome.is_ended:
                parts.append(self._called(block, rows[models == m], m, outcome))
        parts = [part for part in parts if len(part.rows)]  # without rows there is no number of distances
        return _in_line(parts) if parts else self._simulated([], [], [])

    def _called(self, block: Block, rows: np.ndarray, model: int, outcome: Outcome) -> Simulated:
        """One call for all of a model's rows inside the support, wanted or not: its shape is fixed."""
        called = self.rows_of_call(block, model)
        if not called.size:
            return self._simulated([], [], [])
        self.at = block.first
        if self._watch:
            self._watch(block.first)
        data: Any = _UNFINISHED
        summaries: Any = None
        try:
            data, whose = self.simulated(block, called)
            if data is not None:
                summaries = self._structure.rows(self.summarised(data, whose), len(called))
        except BaseException as error:
            hint = self._hint(error, self._models[model], data)
            self._fail(block, rows, error, outcome, hint)
            summaries = None
        self._states.look_at_floats(outcome)
        if summaries is None:
            return self._simulated([], [], [])
        if self.is_first:
            self._check_own_randomness(block, called, summaries, outcome)
        at = rows if len(called) == len(block.theta) else np.searchsorted(called, rows)
        wanted = summaries.take(at, axis=0)
        if self._distance is None:
            return Simulated(rows, wanted, None)
        return self._each_measured(block, rows, wanted, outcome)

    def _hint(self, error: BaseException, model: _Model, data: Any) -> str:
        """How the simulator was called, where it may not have expected that; or what `observed` is."""
        if isinstance(error, StructureMismatchError) and isinstance(self._problem.distance, Returned):
            return NOT_OBSERVED
        if data is not _UNFINISHED:
            is_of_summary = model.summarize is not None and data is not None
            return _OF_SUMMARY if is_of_summary and type(error) is StructureMismatchError else ""
        if not isinstance(error, TypeError | KeyError | AttributeError):
            return ""
        keys = ", ".join(map(repr, model.names))
        values = "arrays" if self._problem.vectorized else "floats"
        rng = ", rng a numpy.random.Generator" if model.takes_rng else ""
        call = "simulate(theta, rng)" if model.takes_rng else "simulate(theta)"
        return f"it was called as {call}, theta a dict of {values} with the keys {keys}{rng}"

    def _fail(
        self, block: Block, rows: np.ndarray, error: BaseException, outcome: Outcome, hint: str
    ) -> None:
        """A call has failed, and with it these rows: one failure each, or one of the batch."""
        if self._problem.batch is not None and rows.size:
            outcome.fail_together(block.first, rows, block.theta, error, hint)
            return
        for row in rows:
            outcome.fail(block.first + int(row), block.theta[row], error, hint=hint)
            if outcome.is_ended:
                break

    def _each_measured(
        self, block: Block, rows: np.ndarray, summaries: np.ndarray, outcome: Outcome
    ) -> Simulated:
        """Distances of a vectorised simulator's rows, by a callable that takes one simulation."""
        assert self._distance is not None
        done, distances = [], []
        for row, summary in zip(rows.tolist(), summaries, strict=True):
            self.at = block.first + row
            try:
                data = self._structure.unflatten(summary)
                distances.append(self._number(self._distance(data, self._observed())))
                done.append(row)
            except BaseException as error:
                outcome.fail(block.first + row, block.theta[row], error)
                if outcome.is_ended:
                    break
        return self._simulated(done, summaries[np.searchsorted(rows, np.array(done, int))], distances)

    def _simulated(self, rows: Any, summaries: Any, distances: list[Any]) -> Simulated:
        table = np.asarray(summaries, np.float64).reshape(len(rows), self._structure.size)
        measured = None if self._distance is None else np.array(distances, np.float64)
        return Simulated(np.array(rows, int), table, measured)

    def _check_rejection(self, data: Any, model: _Model) -> None:
        """Raise for a None that may be a forgotten `return`, and where all simulations must be known."""
        if data is REJECT and self._order.is_batch:
            raise CensoredError(
                "the simulator returned mpiabc.REJECT, and ABCAMIS weighs all that is simulated: return the "
                "data, or, where the simulator returns its distance, math.inf"
            )
        if data is REJECT and self._order.sample:
            raise CensoredError(
                "the simulator returned mpiabc.REJECT, and a part of the run is fitted to all simulations, "
                "such as the scale of the distance: return the data, or give numbers as the scale"
            )
        if data is None and isinstance(self._problem.distance, Returned) and not model.may_return_none:
            raise DistanceError(
                "the simulator returned None, expected its distance, one real number, as there are no "
                "observed data; return mpiabc.REJECT to reject"
            )
        if data is None and not model.may_return_none:
            raise StructureMismatchError(
                f"the simulator returned None, expected {self._structure}; return mpiabc.REJECT to reject"
            )

    def _check_own_randomness(self, block: Block, rows: Any, summaries: Any, outcome: Outcome) -> None:
        """Simulate once more, unless it drew from rng: is it the same?

        `rows`: one row, or those of the whole block for a vectorised simulator.
        """
        self.is_first = False
        model = self._models[self.models_of(block, np.atleast_1d(rows)[:1])[0]]
        if model.takes_rng and not self._stream.is_untouched():
            return
        if self._watch:
            self._watch(self.at)
        try:
            again = self._again(block, rows)
        except BaseException as error:
            if is_asked_to_stop(error):
                raise
            again = None
        self._states.look_at_floats(outcome)
        if again is None or not np.array_equal(again, summaries, equal_nan=True):
            outcome.notes.add(_OWN_RANDOM)

    def _again(self, block: Block, rows: Any) -> np.ndarray | None:
        """What is kept of a simulation that is repeated."""
        data, model = self.simulated(block, rows)
        if data is None:
            return None
        if self._problem.is_raw:
            return np.asarray(self._kept(data, model), np.float64)
        data = self.summarised(data, model)
        if self._problem.vectorized:
            return self._structure.rows(data, len(rows))
        return self._structure.row(data) if self._distance is None else self._structure.fitting(data)[0]


def _in_line(parts: list[Simulated]) -> Simulated:
    """The rows of several calls, in the order of their addresses."""
    rows, summaries, distances = zip(*parts, strict=True)
    order = np.argsort(np.concatenate(rows))
    measured = None if distances[0] is None else np.concatenate(distances)[order]
    return Simulated(np.concatenate(rows)[order], np.concatenate(summaries)[order], measured)


def _model(problem: Problem, order: Order, simulator: Simulator) -> _Model:
    """One of the models, ready to be called."""
    takes_rng, extras = signature(problem.simulate)
    call = _caller(problem, order, simulator)
    names, summarize = problem.names, summary_of(problem.summarize)
    draws = summarize is not problem.summarize
    may_return_none = "epsilon" in extras
    return _Model(
        names, layout_of(problem.prior), len(names), call, summarize, draws, takes_rng, may_return_none
    )


def _caller(problem: Problem, order: Order, simulator: Simulator) -> Callable[..., Any]:
    """The problem's simulator as a callable of (theta, rng)."""
    simulate, (takes_rng, extras) = problem.simulate, signature(problem.simulate)
    if not extras:
        return simulate if takes_rng else lambda theta, rng: simulate(theta)

    def call(theta: dict[str, Any], rng: np.random.Generator, comm: Any = None) -> object:
        index = simulator.ids if problem.vectorized else simulator.at
        known = {"epsilon": order.epsilon, "id": EvaluationId(simulator.level, index), "comm": comm}
        return simulate(theta, *([rng] if takes_rng else []), **{name: known[name] for name in extras})

    def call_together(theta: dict[str, Any], rng: np.random.Generator) -> object:
        with team.here().simulating(order.number, simulator.at + simulator.lane) as comm:
            return call(theta, rng, comm)

    return call_together if "comm" in extras else call
