"""What an evaluation is: one proposal, one simulation, one distance, one decision.

`evaluate(problem, generation, start, stop)` is a pure function. Its randomness is addressed by
`(seed, purpose, generation, index)`, and nothing that enters a record is computed in an array whose
shape depends on how ids were leased. So any worker computes the same records, at any time.

Under static scheduling the unit is a slot: slot s tries the ids s, s + stride, s + 2 stride, ... until
one is accepted (Klinger et al. 2018, doi:10.1007/978-3-319-99429-1_22).
"""

import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mpiabc.distance import PNorm
from mpiabc.errors import ProblemError
from mpiabc.kernel import Proposal
from mpiabc.problem import EvaluationId, Problem, accepted_extras
from mpiabc.records import Failure, Records, Status
from mpiabc.streams import BLOCK, Purpose, Stream
from mpiabc.structure import Structure, StructureMismatchError


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
        self._distance_of_rows = problem.distance.rows if isinstance(problem.distance, PNorm) else None
        self._simulator = _with_extras(problem, generation)
        self._proposals = Stream(generation.key, Purpose.PROPOSAL)
        self._simulations = Stream(generation.key, Purpose.SIMULATION)
        self._block = _Block(-1, np.empty(0), np.empty(0))

    def __call__(self, start: int, stop: int) -> Records:
        """The records of the ids, or slots, [start, stop)."""
        began = time.perf_counter()
        outcome = _Outcome(self, start, stop)
        try:
            with exits_caught():
                (self._slots if self.generation.is_static else self._ids)(outcome)
        except _FailureEndsRunError:
            return self._up_to_failure(outcome, began)
        finally:
            if self.watch:
                self.watch(-1)
        return outcome.records(began)

    def _up_to_failure(self, outcome: "_Outcome", began: float) -> Records:
        """The records below the failed evaluation, computed again; from there on nothing is known."""
        below = _Outcome(self, outcome.start, outcome.stop)
        if not self.generation.is_static:
            step = BLOCK if self.problem.vectorized else 1
            below.stop = max(outcome.start, outcome.failures[0].index // step * step)
            self._ids(below)
            below.stop = outcome.stop
        below.failures += outcome.failures
        return below.records(began)

    def _ids(self, outcome: "_Outcome") -> None:
        for block, ids in _by_block(outcome.start, outcome.stop):
            outcome.add(self._evaluate(block, ids - block * BLOCK, outcome), ids)

    def _slots(self, outcome: "_Outcome") -> None:
        """Rounds over the slots of each block; a slot leaves when one of its ids is accepted."""
        blocks = self.generation.stride // BLOCK
        for part, slots in _by_block(outcome.start, outcome.stop):
            tries = 0
            while slots.size and tries != self.generation.most_tries:
                done = self._evaluate(tries * blocks + part, slots - part * BLOCK, outcome)
                outcome.add(done, slots)
                slots = slots[done.status != Status.ACCEPTED]
                tries += 1

    def proposed(self, block: int) -> "_Block":
        """Proposals of a whole aligned block of ids; the last one is kept for the next lease."""
        if self._block.number != block:
            rng = self._proposals.at(self.generation.index, block)
            theta = np.ascontiguousarray(self.generation.proposal.sample(BLOCK, rng), np.float64)
            log_prior = np.asarray(self.problem.prior.logpdf(theta), np.float64)
            _check_proposals(self.problem, self.generation, theta, log_prior)
            self._block = _Block(block, theta, log_prior)
        return self._block

    def _evaluate(self, index: int, rows: np.ndarray, outcome: "_Outcome") -> "_Evaluated":
        """Evaluate `rows` of block `index`."""
        block = self.proposed(index)
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
        return _Evaluated(
            status,
            index * BLOCK + accepted,
            block.theta[accepted],
            block.log_prior[accepted],
            simulated.distances[is_accepted],
            simulated.summaries[is_accepted],
        )

    def _simulate_rows(
        self, block: "_Block", inside: np.ndarray, rows: np.ndarray, outcome: "_Outcome"
    ) -> "_Simulated":
        """One simulation for each of the rows, each from the stream of its own id."""
        names, flatten, summarize = self.problem.prior.names, self._structure.flatten, self.problem.summarize
        distance = None if self._distance_of_rows else self.problem.distance
        simulate, stream, t = self._simulator, self._simulations.at, self.generation.index
        watch = self.watch
        done, summaries, distances = [], [], []
        for row, values in zip(rows.tolist(), block.theta[rows].tolist(), strict=True):
            index = block.number * BLOCK + row
            theta = dict(zip(names, values, strict=True))
            if watch:
                watch(index)
            try:
                data = simulate(theta, stream(t, index), index)
                if data is None:
                    continue
                if summarize is not None:
                    data = summarize(data)
                summary = flatten(data)
                if distance is not None:
                    distances.append(float(distance(data, self.problem.observed)))
            except (Exception, SystemExit) as error:
                outcome.fail(index, block.theta[row], error)
                continue
            done.append(row)
            summaries.append(summary)
        return self._measured(block, np.array(done, int), summaries, distances, outcome)

    def _simulate_block(
        self, block: "_Block", inside: np.ndarray, rows: np.ndarray, outcome: "_Outcome"
    ) -> "_Simulated":
        """One call for all rows of the block inside the support, wanted or not: its shape is fixed."""
        everything = np.flatnonzero(inside)
        first = block.number * BLOCK
        theta = dict(zip(self.problem.prior.names, block.theta[everything].T.copy(), strict=True))
        if self.watch:
            self.watch(first)
        try:
            rng = self._simulations.at(self.generation.index, block.number)
            data = self._simulator(theta, rng, first + everything) if everything.size else None
            if data is None:
                return self._measured(block, rows[:0], [], [], outcome)
            if self.problem.summarize is not None:
                data = self.problem.summarize(data)
            summaries = self._structure.rows(data, len(everything))
        except (Exception, SystemExit) as error:
            for row in rows:
                outcome.fail(first + int(row), block.theta[row], error)
            return self._measured(block, rows[:0], [], [], outcome)
        wanted = summaries[np.searchsorted(everything, rows)]
        if self._distance_of_rows:
            return self._measured(block, rows, wanted, [], outcome)
        return self._one_by_one(block, rows, wanted, outcome)

    def _one_by_one(
        self, block: "_Block", rows: np.ndarray, summaries: np.ndarray, outcome: "_Outcome"
    ) -> "_Simulated":
        """Distances of a vectorised simulator's rows, by a callable that takes one simulation."""
        distance = self.problem.distance
        assert distance is not None  # Problem gives one
        done, distances = [], []
        for row, summary in zip(rows.tolist(), summaries, strict=True):
            try:
                data = self._structure.unflatten(summary)
                distances.append(float(distance(data, self.problem.observed)))
                done.append(row)
            except (Exception, SystemExit) as error:
                outcome.fail(block.number * BLOCK + row, block.theta[row], error)
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
    """The wanted rows' statuses, and of the accepted ones, m of them, all that is kept."""

    status: np.ndarray
    ids: np.ndarray  # (m,)
    theta: np.ndarray
    log_prior: np.ndarray
    distances: np.ndarray
    summaries: np.ndarray


class NanDistanceError(ValueError):
    """A distance that is not a number."""


_KINDS: dict[type, str] = {StructureMismatchError: "structure", NanDistanceError: "nan"}


class _FailureEndsRunError(Exception):
    """An evaluation failed and the problem says that this ends the run."""


class _Outcome:
    """What the evaluations of one lease have come to so far."""

    def __init__(self, evaluator: Evaluator, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.failures: list[Failure] = []
        self._evaluator = evaluator
        self._status = np.zeros(stop - start, np.uint8)
        is_static = evaluator.generation.is_static
        self._tries = np.zeros((stop - start, 2), np.int64) if is_static else None
        self._parts: list[_Evaluated] = []
        self._addresses: list[np.ndarray] = []

    def add(self, part: _Evaluated, addresses: np.ndarray) -> None:
        """Take the evaluation of these ids or slots."""
        at = addresses - self.start
        self._status[at] = part.status
        if self._tries is not None:
            self._tries[at, 0] += 1
            self._tries[at, 1] += part.status != Status.OUTSIDE
        if part.ids.size:
            self._parts.append(part)
            self._addresses.append(addresses[part.status == Status.ACCEPTED])

    def fail(self, index: int, theta: np.ndarray, error: BaseException) -> None:
        """Note a failed evaluation; raises if it ends the run."""
        problem, generation = self._evaluator.problem, self._evaluator.generation
        self.failures.append(
            Failure(
                generation.index,
                index,
                dict(zip(problem.prior.names, theta.tolist(), strict=True)),
                _in_words(error),
                _remote_traceback(error),
                self._evaluator.where,
                _KINDS.get(type(error), "exception"),
            )
        )
        if problem.on_error == "raise":
            raise _FailureEndsRunError

    def records(self, began: float) -> Records:
        """All of it, the accepted rows in the order of their addresses."""
        generation, problem = self._evaluator.generation, self._evaluator.problem
        d, k = len(problem.prior.names), self._evaluator._structure.size
        none, ids = np.empty(0), np.empty(0, np.int64)
        empty = _Evaluated(ids, ids, none.reshape(0, d), none, none, none.reshape(0, k))
        parts = self._parts or [empty]
        _, ids, theta, log_prior, distances, summaries = (
            columns[0] if len(parts) == 1 else np.concatenate(columns) for columns in zip(*parts, strict=True)
        )
        if generation.is_static and len(ids):
            order = np.argsort(np.concatenate(self._addresses))
            ids, theta, log_prior = ids[order], theta[order], log_prior[order]
            distances, summaries = distances[order], summaries[order]
        log_weights = log_prior - _log_proposal(generation, theta) if generation.index else np.zeros(len(ids))
        return Records(
            generation.index,
            self.start,
            self.stop,
            self._status,
            ids,
            theta,
            distances,
            log_weights,
            summaries,
            self._tries,
            tuple(self.failures),
            time.perf_counter() - began,
        )


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
    if np.isnan(log_prior).any():
        raise ProblemError(f"logpdf of the prior is nan for theta = {theta[np.isnan(log_prior)][0].tolist()}")
    if generation.index == 0 and not (log_prior > -np.inf).any():
        raise ProblemError("all draws of the prior lie outside its own support: sample and logpdf disagree")


def _by_block(start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """The addresses [start, stop) in the parts that lie in one block each."""
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        yield block, np.arange(max(start, block * BLOCK), min(stop, (block + 1) * BLOCK))


def _log_proposal(generation: Generation, theta: np.ndarray) -> np.ndarray:
    """Log density of the proposal at theta (m, d), (m,).

    m depends on how ids were leased, so only proposals that promise rows independent of their companions
    get all of them at once; others are asked row by row.
    """
    logpdf = generation.proposal.logpdf
    if getattr(generation.proposal, "is_rowwise", False):
        return logpdf(theta)
    return np.array([logpdf(row[None])[0] for row in theta], np.float64)


def _with_extras(problem: Problem, generation: Generation) -> Callable:
    """The simulator as a callable of (theta, rng, index)."""
    simulate, extras = problem.simulate, accepted_extras(problem.simulate)
    if not extras:
        return lambda theta, rng, index: simulate(theta, rng)

    def call(theta: dict, rng: np.random.Generator, index: object) -> object:
        known = {"epsilon": generation.epsilon, "id": EvaluationId(generation.index, index)}
        return simulate(theta, rng, **{name: known[name] for name in extras})

    return call


def _in_words(error: BaseException) -> str:
    if isinstance(error, StructureMismatchError):
        return f"the simulated data have not the structure of the observed data: {error}"
    if isinstance(error, NanDistanceError):
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


_real_exit = os._exit
_catching = 0  # threads that are inside of `exits_caught`
_count = threading.Lock()  # for it


@contextmanager
def exits_caught() -> Iterator[None]:
    """Make `os._exit` in a simulator raise SystemExit, so that the evaluation can be named.

    A process that a simulator forks leaves as it always did.
    """
    global _catching
    pid = os.getpid()

    def leave(status: int) -> None:
        if os.getpid() != pid:
            _real_exit(status)
        raise SystemExit(f"the simulator called os._exit({status})")

    with _count:
        _catching += 1
        os._exit = leave  # type: ignore[assignment]
    try:
        yield
    finally:
        with _count:
            _catching -= 1
            if not _catching:
                os._exit = _real_exit
