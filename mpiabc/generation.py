"""What an evaluation is: one proposal, one simulation, one distance, one decision.

`evaluate(problem, generation, start, stop)` is a pure function. Its randomness is addressed by
`(seed, purpose, generation, index)`, and nothing that enters a record is computed in an array whose
shape depends on how ids were leased. So any worker computes the same records, at any time.

Simulators are not pure: `guard` notices what they do to the process, and a lease in which a global random
state or the floating-point environment was seen to move is evaluated once more, each evaluation from a
state of its own. Users' callables get copies and read-only arrays of what others need.

Under static scheduling the unit is a slot: slot s tries the ids s, s + stride, s + 2 stride, ... until
one is accepted (Klinger et al. 2018, doi:10.1007/978-3-319-99429-1_22).
"""

import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from mpiabc import guard
from mpiabc.distance import PNorm
from mpiabc.errors import ProblemError
from mpiabc.kernel import Proposal
from mpiabc.particles import Particles, joined, none
from mpiabc.problem import REJECT, EvaluationId, Problem, signature
from mpiabc.protection import protected
from mpiabc.records import Failure, Records, Status, order_number
from mpiabc.streams import BLOCK, Purpose, Stream
from mpiabc.structure import Structure, StructureMismatchError, number

_PROPOSAL_SEEDS = 1 << 63  # added to a block's number: addresses that no evaluation has


@dataclass(frozen=True, eq=False)
class Generation:
    """The order that produces one population."""

    index: int
    key: tuple[int, int]  # of the streams, from the run's seed
    epsilon: float
    proposal: Proposal
    size: int
    is_static: bool = False
    most_tries: int | None = None  # after which a slot gives up
    attempt: int = 0  # how often the generation was taken back

    @property
    def number(self) -> int:
        """What leases and records know the order by."""
        return order_number(self.index, self.attempt)

    @property
    def stride(self) -> int:
        """Distance between the ids that one slot tries: the size in whole blocks."""
        return -(-self.size // BLOCK) * BLOCK


def evaluate(problem: Problem, generation: Generation, start: int, stop: int) -> Records:
    """The records of the ids [start, stop), or of these slots if the generation is static.

    A pure function, as far as the simulator is one. Where `problem.on_error` says "raise", a failure
    leaves its own status and the later ones UNKNOWN.
    """
    return Evaluator(problem, generation)(start, stop)


def theta_of(problem: Problem, generation: Generation, id: int) -> dict[str, float]:
    """The proposal of an evaluation; of the first one of a slot, if static."""
    theta = Evaluator(problem, generation).proposed(id // BLOCK).theta[id % BLOCK]
    return dict(zip(problem.prior.names, theta.tolist(), strict=True))


def evaluator(
    problem: Any,
    generation: Any,
    where: str | None = None,
    watch: Callable[[int], None] | None = None,
) -> Any:
    """What turns leases of a generation into records: what the generation brings for it, or an Evaluator.

    An order of another kind, as `Pool` gives, has a method `evaluator(where, watch)`.
    """
    make = getattr(generation, "evaluator", None)
    return Evaluator(problem, generation, where, watch) if make is None else make(where, watch)


class Evaluator:
    """`evaluate` for one generation, with what can be prepared once kept between leases."""

    def __init__(
        self,
        problem: Problem,
        generation: Generation,
        where: str | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """`where` is told with failures; `watch` hears each id before its simulation, then -1."""
        self.watch = watch
        self.problem = problem
        self.generation = generation
        self.where = f"process {os.getpid()} on {platform.node()}" if where is None else where
        self._structure = Structure(problem.observed)
        self._observed = self._structure.row(problem.observed)
        self._observed_for_user = protected(problem.observed)
        self._distance_of_rows = problem.distance.rows if isinstance(problem.distance, PNorm) else None
        self._simulator = _simulator(problem, generation)
        self._takes_rng, extras = signature(problem.simulate)
        self._may_return_none = "epsilon" in extras
        self._proposals = Stream(generation.key, Purpose.PROPOSAL)
        self._simulations = Stream(generation.key, Purpose.SIMULATION)
        self._block = _Block(-1, np.empty(0), np.empty(0))
        self._nothing = none(d=len(problem.prior.names), k=self._structure.size)
        self._random = guard.GlobalRandom(generation.key)
        self._floats = guard.FloatingPoint()
        self._is_first = False  # the lease has the run's first id
        self._at = -1  # the id in work
        if not self._takes_rng or self._random.has_half_a_pair():
            _seeded.add(problem)

    def __call__(self, start: int, stop: int) -> Records:
        """The records of the ids, or slots, [start, stop)."""
        began = time.perf_counter()
        programs = guard.Programs()
        try:
            with guard.at_work(self), self._floats.steady():
                outcome = self._outcome(start, stop)
                outcome.is_exposed |= programs.were_run()
                return outcome.records(began)
        finally:
            self._at = -1
            if self.watch:
                self.watch(-1)

    def _outcome(self, start: int, stop: int) -> "_Outcome":
        """The lease's outcome; once more, with states of each evaluation's own, if one reached the next."""
        notes: set[str] = set()
        while True:
            outcome = _Outcome(self, start, stop)
            outcome.notes |= notes
            self._is_first = start == self.generation.index == 0
            seeds, resets = self.problem in _seeded, self.problem in _reset
            before = None if seeds else self._random.look()
            with _one_at_a_time(self._random) if seeds else nullcontext():
                (self._slots if self.generation.is_static else self._ids)(outcome)
            notes |= {_FLOATS} & outcome.notes
            if before is not None and self._random.look() != before:
                self._random.put_back(before)
                self._block = _Block(-1, np.empty(0), np.empty(0))
                _seeded.add(self.problem)
                notes.add(_GLOBAL_RANDOM)
            elif resets or self.problem not in _reset:
                return outcome

    def last_words(self, how: str) -> Failure | None:
        """The failure of the evaluation in work, if one is."""
        if self._at < 0:
            return None
        theta: dict[str, float] = {}
        if self._block.number == self._at // BLOCK:  # else its proposals were being drawn
            row, names = self._block.theta[self._at % BLOCK], self.problem.prior.names
            theta = dict(zip(names, row.tolist(), strict=True))
        return Failure(self.generation.index, self._at, theta, how, "", self.where, "exit")

    def _ids(self, outcome: "_Outcome") -> None:
        for block, ids in _by_block(outcome.start, outcome.stop):
            outcome.add(self._evaluate(block, ids - block * BLOCK, outcome), ids)
            if outcome.is_ended:
                return

    def _slots(self, outcome: "_Outcome") -> None:
        """Rounds over the slots of each block; a slot leaves when one of its ids is accepted."""
        blocks = self.generation.stride // BLOCK
        for part, slots in _by_block(outcome.start, outcome.stop):
            tries = 0
            while slots.size and tries != self.generation.most_tries and not outcome.is_ended:
                done = self._evaluate(tries * blocks + part, slots - part * BLOCK, outcome)
                outcome.add(done, slots)
                slots = slots[done.status != Status.ACCEPTED]
                tries += 1

    def proposed(self, block: int) -> "_Block":
        """Proposals of a whole aligned block of ids; the last one is kept for the next lease."""
        if self._block.number != block:
            if self.problem in _seeded:
                self._random.seed(self.generation.index, block + _PROPOSAL_SEEDS)
            rng = self._proposals.at(self.generation.index, block)
            theta = _floats("sample of the proposal", self.generation.proposal.sample(BLOCK, rng))
            theta.flags.writeable = False
            log_prior = _floats("logpdf of the prior", self.problem.prior.logpdf(theta))
            _check_proposals(self.problem, self.generation, theta, log_prior)
            self._block = _Block(block, theta, log_prior)
        return self._block

    def _evaluate(self, index: int, rows: np.ndarray, outcome: "_Outcome") -> "_Evaluated":
        """Evaluate `rows` of block `index`."""
        self._at = index * BLOCK + int(rows[0])
        try:
            block = self.proposed(index)
        except Exception as error:
            outcome.fail(index * BLOCK + int(rows[0]), None, error, "proposal")
            return _Evaluated(np.zeros(len(rows), np.uint8), self._nothing)
        inside = block.log_prior > -np.inf
        is_inside = inside[rows]
        status = np.where(is_inside, Status.REJECTED, Status.OUTSIDE).astype(np.uint8)
        simulate = self._simulate_block if self.problem.vectorized else self._simulate_rows
        simulated = simulate(block, inside, rows[is_inside], outcome)
        is_accepted = simulated.distances <= self.generation.epsilon
        accepted = simulated.rows[is_accepted]
        status[np.searchsorted(rows, accepted)] = Status.ACCEPTED
        if outcome.failures:
            first = index * BLOCK
            failed = [f.index - first for f in outcome.failures if first <= f.index < first + BLOCK]
            status[np.searchsorted(rows, failed)] = Status.FAILED
        kept = Particles(
            ids=index * BLOCK + accepted,
            theta=block.theta[accepted],
            distances=simulated.distances[is_accepted],
            log_weights=block.log_prior[accepted],
            summaries=simulated.summaries[is_accepted],
        )
        return _Evaluated(status, kept)

    def _simulate_rows(
        self, block: "_Block", inside: np.ndarray, rows: np.ndarray, outcome: "_Outcome"
    ) -> "_Simulated":
        """One simulation for each of the rows, each from the stream of its own id."""
        names, flatten, summarize = self.problem.prior.names, self._structure.flatten, self.problem.summarize
        distance = None if self._distance_of_rows else self.problem.distance
        simulate, stream, t = self._simulator, self._simulations.at, self.generation.index
        watch, prepare = self.watch, self._preparation()
        done, summaries, distances = [], [], []
        for row, values in zip(rows.tolist(), block.theta[rows].tolist(), strict=True):
            self._at = index = block.number * BLOCK + row
            theta = dict(zip(names, values, strict=True))
            if watch:
                watch(index)
            try:
                if prepare:
                    prepare(index)
                data = simulate(theta, stream(t, index), index)
                if data is None or data is REJECT:
                    self._check_rejection(data)
                    continue
                if summarize is not None:
                    data = summarize(data)
                summary = flatten(data)
                if distance is not None:
                    distances.append(number(distance(data, self._observed_for_user())))
            except (Exception, SystemExit) as error:
                outcome.fail(index, block.theta[row], error)
                if outcome.is_ended:
                    break
                continue
            done.append(row)
            summaries.append(summary)
        self._look_at_floats(outcome)
        if self._is_first and done and done[-1] == rows[-1]:
            self._check_own_randomness(block, done[-1], summaries[-1], outcome)
        return self._measured(block, np.array(done, int), summaries, distances, outcome)

    def _simulate_block(
        self, block: "_Block", inside: np.ndarray, rows: np.ndarray, outcome: "_Outcome"
    ) -> "_Simulated":
        """One call for all rows of the block inside the support, wanted or not: its shape is fixed."""
        everything = np.flatnonzero(inside)
        self._at = first = block.number * BLOCK
        if not everything.size:
            return self._measured(block, rows[:0], [], [], outcome)
        if self.watch:
            self.watch(first)
        try:
            data = self.data_of(block, everything)
            summaries = None if data is None else self._structure.rows(data, len(everything))
        except (Exception, SystemExit) as error:
            for row in rows:
                outcome.fail(first + int(row), block.theta[row], error)
                if outcome.is_ended:
                    break
            summaries = None
        self._look_at_floats(outcome)
        if summaries is None:
            return self._measured(block, rows[:0], [], [], outcome)
        if self._is_first:
            self._check_own_randomness(block, everything, summaries, outcome)
        wanted = summaries[np.searchsorted(everything, rows)]
        if self._distance_of_rows:
            return self._measured(block, rows, wanted, [], outcome)
        return self._one_by_one(block, rows, wanted, outcome)

    def data_of(self, block: "_Block", rows: Any) -> Any:
        """Simulated and summarised data of one row, or, vectorised, of several; None if rejected."""
        values = block.theta[rows].T.copy() if self.problem.vectorized else block.theta[rows].tolist()
        index = block.number * BLOCK + rows
        at = block.number if self.problem.vectorized else index
        if prepare := self._preparation():
            prepare(at)
        theta = dict(zip(self.problem.prior.names, values, strict=True))
        data = self._simulator(theta, self._simulations.at(self.generation.index, at), index)
        if data is None or data is REJECT:
            self._check_rejection(data)
            return None
        return data if self.problem.summarize is None else self.problem.summarize(data)

    def _one_by_one(
        self, block: "_Block", rows: np.ndarray, summaries: np.ndarray, outcome: "_Outcome"
    ) -> "_Simulated":
        """Distances of a vectorised simulator's rows, by a callable that takes one simulation."""
        distance = self.problem.distance
        assert distance is not None  # Problem gives one
        done, distances = [], []
        for row, summary in zip(rows.tolist(), summaries, strict=True):
            self._at = block.number * BLOCK + row
            try:
                data = self._structure.unflatten(summary)
                distances.append(number(distance(data, self._observed_for_user())))
                done.append(row)
            except (Exception, SystemExit) as error:
                outcome.fail(block.number * BLOCK + row, block.theta[row], error)
                if outcome.is_ended:
                    break
        kept = summaries[np.searchsorted(rows, np.array(done, int))]
        return self._measured(block, np.array(done, int), kept, distances, outcome)

    def _measured(
        self,
        block: "_Block",
        rows: np.ndarray,
        summaries: "np.ndarray | list",
        distances: list[float],
        outcome: "_Outcome",
    ) -> "_Simulated":
        """The simulated rows with their distances; one that is nan is a failure."""
        table = np.asarray(summaries, np.float64).reshape(len(rows), self._structure.size)
        if self._distance_of_rows:
            measured = self._distance_of_rows(table, self._observed)
        else:
            measured = np.array(distances, np.float64)
        for row in rows[np.isnan(measured)].tolist():
            error = NanDistanceError("the distance of the simulated from the observed data is nan")
            outcome.fail(block.number * BLOCK + row, block.theta[row], error)
        return _Simulated(rows, table, measured)

    def _check_rejection(self, data: Any) -> None:
        """Raise for a None that may be a forgotten `return`."""
        if data is None and not self._may_return_none:
            raise StructureMismatchError(
                f"the simulator returned None, expected {self._structure}; return mpiabc.REJECT to reject"
            )

    def _preparation(self) -> Callable[[int], None] | None:
        """What gives an evaluation states of its own, where simulators were seen to need it."""
        seeds, resets = self.problem in _seeded, self.problem in _reset
        if not (seeds or resets):
            return None

        def prepare(index: int) -> None:
            if resets:
                self._floats.reset()
            if seeds:
                self._random.seed(self.generation.index, index)

        return prepare

    def _look_at_floats(self, outcome: "_Outcome") -> None:
        """Let no rounding mode of a simulator's reach what follows."""
        if not self._floats.is_default():
            self._floats.reset()
            _reset.add(self.problem)
            outcome.notes.add(_FLOATS)

    def _check_own_randomness(self, block: "_Block", rows: Any, summaries: Any, outcome: "_Outcome") -> None:
        """Simulate once more, unless it drew from rng: is it the same?

        `rows`: one row, or those of the whole block for a vectorised simulator.
        """
        self._is_first = False
        if self._takes_rng and not self._simulations.is_untouched():
            return
        if self.watch:
            self.watch(self._at)
        try:
            data = self.data_of(block, rows)
            again = (
                self._structure.rows(data, len(rows))
                if self.problem.vectorized
                else self._structure.row(data)
            )
        except (Exception, SystemExit):
            again = None
        self._look_at_floats(outcome)
        if again is None or not np.array_equal(again, summaries, equal_nan=True):
            outcome.notes.add(_OWN_RANDOM)


@contextmanager
def _one_at_a_time(random: guard.GlobalRandom) -> Iterator[None]:
    """Of the threads of a process, one at a time has the global generators, and puts them back."""
    with _has_generators, random.restored():
        yield


_has_generators = threading.Lock()
_seeded: WeakSet[Problem] = WeakSet()  # whose evaluations get global random states of their own here
_reset: WeakSet[Problem] = WeakSet()  # whose simulators leave the floating-point environment changed

_GLOBAL_RANDOM = (
    "the simulator draws NumPy's or Python's global random numbers: they are seeded for every evaluation, "
    "which costs 20 us; draw from rng instead"
)
_OWN_RANDOM = (
    "a simulation that was repeated is another one, and it drew nothing from rng: the simulator has random "
    "numbers of its own, or seeds them itself, so the run cannot be reproduced; draw from rng, or seed them "
    "from it"
)
_FLOATS = (
    "the simulator leaves another rounding mode, or flush to zero, behind: the floating-point environment is "
    "put back for every evaluation, and does not reach our arithmetic"
)


class _Block(NamedTuple):
    """An aligned block of proposals: theta (BLOCK, d) and log prior density (BLOCK,)."""

    number: int
    theta: np.ndarray
    log_prior: np.ndarray


class _Simulated(NamedTuple):
    """Rows of a block that were simulated to the end, n of them; nan distances are failures."""

    rows: np.ndarray  # (n,)
    summaries: np.ndarray  # (n, k)
    distances: np.ndarray  # (n,)


class _Evaluated(NamedTuple):
    """The wanted rows' statuses, and the accepted ones, with the log prior as their weight."""

    status: np.ndarray
    accepted: Particles


class NanDistanceError(ValueError):
    """A distance that is not a number."""


_KINDS: dict[type, str] = {StructureMismatchError: "structure", NanDistanceError: "nan"}


class _Outcome:
    """What the evaluations of one lease have come to so far."""

    def __init__(self, evaluator: Evaluator, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.failures: list[Failure] = []
        self.notes: set[str] = set()
        self.is_exposed = False
        self.is_ended = False  # by a failure that ends the run
        self._evaluator = evaluator
        self._status = np.zeros(stop - start, np.uint8)
        is_static = evaluator.generation.is_static
        self._tries = np.zeros((stop - start, 2), np.int64) if is_static else None
        self._parts: list[Particles] = []
        self._addresses: list[np.ndarray] = []

    def add(self, part: _Evaluated, addresses: np.ndarray) -> None:
        """Take the evaluation of these ids or slots."""
        at = addresses - self.start
        self._status[at] = part.status
        if self._tries is not None:
            self._tries[at, 0] += 1
            self._tries[at, 1] += part.status != Status.OUTSIDE
        if len(part.accepted):
            self._parts.append(part.accepted)
            self._addresses.append(addresses[part.status == Status.ACCEPTED])

    def fail(self, index: int, theta: np.ndarray | None, error: BaseException, kind: str = "") -> None:
        """Note a failed evaluation, and whether it ends the run."""
        problem, generation = self._evaluator.problem, self._evaluator.generation
        values = {} if theta is None else dict(zip(problem.prior.names, theta.tolist(), strict=True))
        kind = kind or _KINDS.get(type(error), "exception")
        told, where = _in_words(error), self._evaluator.where
        failure = Failure(generation.index, index, values, told, _remote_traceback(error), where, kind)
        self.failures.append(failure)
        self.is_exposed |= _is_of_the_outside(error)
        self.is_ended |= problem.on_error == "raise" or failure.ends_every_run

    def records(self, began: float) -> Records:
        """All of it, the accepted rows in the order of their addresses."""
        rows = self._weighed(self._rows())
        records = Records(
            self._evaluator.generation.number,
            self.start,
            self.stop,
            self._status,
            rows,
            self._tries,
            tuple(self.failures),
            time.perf_counter() - began,
            notes=tuple(sorted(self.notes)),
            is_exposed=self.is_exposed,
        )
        return records.only(self._is_below_failure()) if self.is_ended else records

    def _is_below_failure(self) -> np.ndarray:
        """Which addresses lie below the failure that ends the run; under static scheduling, none."""
        if self._tries is not None:
            return np.zeros(self.stop - self.start, bool)
        step = BLOCK if self._evaluator.problem.vectorized else 1
        first = min(failure.index for failure in self.failures) // step * step
        return np.arange(self.start, self.stop) < first

    def _rows(self) -> Particles:
        """The accepted rows of all parts."""
        if not self._parts:
            return self._evaluator._nothing
        rows = joined(self._parts)
        return rows if self._tries is None else rows.take(np.argsort(np.concatenate(self._addresses)))

    def _weighed(self, rows: Particles) -> Particles:
        """With log prior - log proposal; what the proposal cannot say is a failure, and nan here."""
        generation = self._evaluator.generation
        if not generation.index:
            return replace(rows, log_weights=np.zeros(len(rows)))
        rows.theta.flags.writeable = False
        log_proposal = np.full(len(rows), np.nan)
        error: Exception = ProblemError(
            "logpdf of the kernel's proposal is nan or infinite where it has drawn"
        )
        try:
            for i, value in _log_proposal(generation, rows.theta):
                log_proposal[i] = value
        except Exception as raised:
            error = raised
        is_bad = ~np.isfinite(log_proposal)
        if is_bad.any():
            at = int(np.argmax(is_bad))
            self.fail(int(rows.ids[at]), rows.theta[at], error, "proposal")
        return replace(rows, log_weights=rows.log_weights - log_proposal)


def _is_of_the_outside(error: BaseException | None) -> bool:
    """Whether something outside of this process may have failed: a program, a file, a connection."""
    while error is not None:
        if isinstance(error, OSError | EOFError) or type(error).__module__ == "subprocess":
            return True
        error = error.__cause__ or error.__context__
    return False


def _floats(what: str, values: Any) -> np.ndarray:
    """What a prior or proposal gave, as an array of its own. Raises ProblemError for what is not real."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or isinstance(values, np.ma.MaskedArray):
        raise ProblemError(f"{what} gave {array.dtype} (a {type(values).__name__}), expected real numbers")
    return np.array(array, np.float64, order="C")


def _check_proposals(
    problem: Problem, generation: Generation, theta: np.ndarray, log_prior: np.ndarray
) -> None:
    """Raise ProblemError for a prior or kernel that would never give a usable proposal."""
    expected = (BLOCK, len(problem.prior.names))
    if theta.shape != expected:
        raise ProblemError(
            f"sample({BLOCK}, rng) of the proposal gave shape {theta.shape}, expected {expected}"
        )
    if log_prior.shape != (BLOCK,):
        raise ProblemError(f"logpdf of the prior gave shape {log_prior.shape}, expected ({BLOCK},)")
    is_bad = np.isnan(log_prior) | (log_prior == np.inf)
    if is_bad.any():
        raise ProblemError(
            f"logpdf of the prior is {log_prior[is_bad][0]} for theta = {theta[is_bad][0].tolist()}"
        )
    if generation.index == 0 and not (log_prior > -np.inf).any():
        raise ProblemError("all draws of the prior lie outside its own support: sample and logpdf disagree")


def _by_block(start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """The addresses [start, stop) in the parts that lie in one block each."""
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        yield block, np.arange(max(start, block * BLOCK), min(stop, (block + 1) * BLOCK))


def _log_proposal(generation: Generation, theta: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """Which rows of theta (m, d), and the log density of the proposal there.

    m depends on how ids were leased, so only proposals that promise rows independent of their companions
    get all of them at once; others are asked row by row.
    """
    logpdf = generation.proposal.logpdf
    if getattr(generation.proposal, "is_rowwise", False):
        yield slice(None), logpdf(theta)
    else:
        yield from (
            (i, _floats("logpdf of the proposal", logpdf(row[None]))[0]) for i, row in enumerate(theta)
        )


def _simulator(problem: Problem, generation: Generation) -> Callable:
    """The simulator as a callable of (theta, rng, index)."""
    simulate, (takes_rng, extras) = problem.simulate, signature(problem.simulate)
    if not extras:
        return (
            (lambda theta, rng, index: simulate(theta, rng))
            if takes_rng
            else (lambda theta, rng, index: simulate(theta))
        )

    def call(theta: dict, rng: np.random.Generator, index: object) -> object:
        known = {"epsilon": generation.epsilon, "id": EvaluationId(generation.index, index)}
        return simulate(theta, *([rng] if takes_rng else []), **{name: known[name] for name in extras})

    return call


def _in_words(error: BaseException) -> str:
    if isinstance(error, StructureMismatchError):
        return f"the simulated data have not the structure of the observed data: {error}"
    if isinstance(error, NanDistanceError | ProblemError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _remote_traceback(error: BaseException) -> str:
    """The simulator's part of the traceback; empty for an error of our own finding."""
    inner = error.__traceback__
    while inner and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    if inner is None or isinstance(error, StructureMismatchError):
        return ""
    return "".join(traceback.format_exception(type(error), error, inner))
