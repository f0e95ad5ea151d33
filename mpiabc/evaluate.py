"""What an evaluation is: propose, simulate, measure, accept, weigh.

`evaluate(problem, order, start, stop)` is a pure function. Its randomness is addressed by
`(seed, purpose, level, index)`, and nothing that enters a record is computed in an array whose shape
depends on how ids were leased. So any worker computes the same records, at any time. Only `simulate` calls
what is impure and takes long; all that follows is arithmetic, which can be done again.

Under static scheduling the unit is a slot: slot s tries the ids s, s + stride, s + 2 stride, ... until
one is accepted (Klinger et al. 2018, doi:10.1007/978-3-319-99429-1_22).
"""

import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mpiabc import acceptors, guard, programs, team
from mpiabc.defended import mixed, undefended
from mpiabc.distances import Returned, measures_rows, of_data
from mpiabc.errors import ProblemError
from mpiabc.kept import Nothing, is_narrow
from mpiabc.kernels.coupling import Coupled, Share, base_of
from mpiabc.layout import layout_of
from mpiabc.masked import is_masked
from mpiabc.models import AnyProblem
from mpiabc.order import Order
from mpiabc.outcome import NanDistanceError, Outcome, described
from mpiabc.particles import Particles, none
from mpiabc.population import short
from mpiabc.records import CALIBRATION, Failure, Records, Status
from mpiabc.signals import is_asked_to_stop
from mpiabc.simulate import LANE, NOT_OBSERVED, Block, Simulated, Simulator, States
from mpiabc.streams import BLOCK, Purpose, Stream, block_of, stride_of
from mpiabc.structure import DistanceError

_ROUNDING = 1e-9  # by which a distance that should be 0, such as 1 - a correlation, may lie below it


def evaluate(problem: AnyProblem, order: Order, start: int, stop: int) -> Records:
    """The records of the ids [start, stop), or of these slots if the order is static.

    A pure function, as far as the simulator is one. Where `problem.on_error` says "raise", a failure
    leaves its own status and the later ones UNKNOWN.
    """
    return Evaluator(problem, order)(start, stop)


def theta_of(problem: AnyProblem, order: Order, id: int) -> dict[str, Any]:
    """The proposal of an evaluation; of the first one of a slot, if static."""
    block = Evaluator(problem, order).block_with(id)
    return problem.named(block.theta[id - block.first])


@dataclass(frozen=True, eq=False)
class Level(Order):
    """One level of a run as a job: what turns its leases into records."""

    def __str__(self) -> str:
        return f"generation {self.level}: epsilon {short(self.epsilon)}"

    def evaluator(
        self, problem: AnyProblem, where: str | None = None, watch: Callable[[int], None] | None = None
    ) -> "Evaluator":
        """What evaluates its ids, or slots; `watch` hears of each id."""
        return Evaluator(problem, self, where, watch)


def coupled_of(problem: AnyProblem, order: Order, before: Coupled | None = None) -> Coupled | None:
    """What carries ids to an order's level, if proposals are coupled; `before`: to the level before."""
    if order.chain is None:
        return None
    base = base_of(order.level)
    own = None if order.level == 0 else order.proposal
    proposals = (*([None] if base == 0 < order.level else []), *order.chain, own)
    return Coupled(order.key, problem.prior, base, proposals, before)


@dataclass(frozen=True, eq=False)
class Calibration(Level):
    """Simulations of the prior before generation 0, by which its distance is fitted.

    They are made once a start, and kept nowhere: the order that comes of them is. Their addresses are those
    of other streams than generation 0 has.
    """

    def __str__(self) -> str:
        return "calibration of the distance"

    @property
    def number(self) -> int:
        """One that no generation has."""
        return super().number | CALIBRATION


class Evaluator:
    """`evaluate` for one order, with what can be prepared once kept between leases."""

    def __init__(
        self,
        problem: AnyProblem,
        order: Order,
        where: str | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """`where` goes with failures; `watch` hears each id before its simulation, then -1."""
        self.watch = watch
        self.problem = problem
        self.order = order
        self.where = f"process {os.getpid()} on {platform.node()}" if where is None else where
        own = of_data(problem.distance, problem.observed)
        self._distance: Any = own if order.distance is None else order.distance
        self._observed = problem.observed_row
        self._observed.flags.writeable = False
        self._keeps_none = order.keep == "theta" or problem.observed is None
        brings_all = order.keep == "all" or order.is_undecided
        self._rejected_end = math.inf if brings_all else order.sample_end if order.sample else -math.inf
        self._is_narrow = is_narrow(problem.example if problem.is_raw else problem.observed)
        self._is_rounded = self._is_narrow and order.is_undecided and order.sample > 0  # to be measured again
        self._nothing = self.kept(none(d=problem.width, k=problem.structure.size))
        self._states = States(problem, order)
        self._theirs = partial(guard.errors_of, guard.errors_here(order.errors))
        self._layout = layout_of(problem.models[0].prior)  # of a distance that looks at theta
        self._wants_all = getattr(order.acceptor, "wants_all", False)
        self._least = -math.inf if self._wants_all else -_ROUNDING  # of what is no distance but a density
        self._takes_theta = getattr(self._distance, "takes_theta", False)
        called: Any = self._distance if problem.is_raw or not measures_rows(self._distance) else None
        if called is not None and self._takes_theta:
            called = self._of_theta
        self._uniform = acceptors.Uniforms(order.key)
        self.simulator = Simulator(problem, order, self._states, called, watch)
        self._proposals = Stream(order.key, Purpose.PROPOSAL)
        self._block: Block | None = None
        self._width: int | None = None  # how many distances a row has
        self.length = block_of(problem.step)  # ids in a block
        self._drawn_width = problem.width + (len(problem.models) > 1)  # the model's index comes last
        self._coupled, self._share = coupled_of(problem, order), Share()

    def __call__(self, start: int, stop: int) -> Records:
        """The records of the ids, or slots, [start, stop)."""
        began = time.perf_counter()
        watched = programs.Programs()
        try:
            with guard.at_work(self), self._states.steady():
                outcome = self._outcome(start, stop)
                outcome.is_exposed |= watched.were_run() or team.has_exposed()
                weighed = self._weigh(outcome.rows(), outcome)
                records = outcome.records(weighed, began, self._sampled(outcome))
                return replace(records, columns=columns) if (columns := self.simulator.columns) else records
        except KeyboardInterrupt:  # a stop, in the middle of it
            watched.end()
            raise
        finally:
            self.simulator.at = -1
            if self.watch:
                self.watch(-1)

    def take_part(self, at: int) -> team.Description | None:
        """Simulate this id, or the block that begins with it, beside the first rank of a team.

        Returns what was raised, if anything was; what was simulated is that one's to return.
        """
        model, at = divmod(at, LANE)
        try:
            with guard.at_work(self), self._states.steady(), self._states.watched():
                block = self.block_with(at)
                self.simulator.at = at
                with self._theirs():
                    self.simulator.take_part(block, at - block.first, model)
        except BaseException as error:
            if is_asked_to_stop(error):
                raise
            return described(error, self.where)
        finally:
            self.simulator.at = -1
        return None

    def last_words(self, how: str) -> Failure | None:
        """The failure of the evaluation in work, if one is."""
        at, theta = self.simulator.at, {}
        if at < 0:
            return None
        if self._block and self._block.has(at):  # else its proposals were being drawn
            theta = self.problem.named(self._block.theta[at - self._block.first])
        return Failure(self.order.level, at, theta, how, "", self.where, "exit")

    def _outcome(self, start: int, stop: int) -> Outcome:
        """The lease's outcome; once more, with states of each evaluation's own, if one reached the next."""
        notes: set[str] = set()
        while True:
            outcome = Outcome(self.problem, self.order, self.where, start, stop)
            outcome.notes |= notes
            self.simulator.is_first = start == self.order.level == 0
            with self._states.watched() as reached:
                (self._slots if self.order.is_static else self._ids)(outcome)
            if not reached:
                return outcome
            notes.update(reached)
            self._block = None

    def _ids(self, outcome: Outcome) -> None:
        most = math.inf if self.problem.batch is None else self.order.size
        for block, ids in _by_block(outcome.start, outcome.stop, self.length):
            outcome.add(ids, *self._evaluate(block, ids - block * self.length, outcome))
            if outcome.accepted >= most:
                outcome.end_with(self.order.size)
                return
            if outcome.is_ended:
                return

    def _slots(self, outcome: Outcome) -> None:
        """Rounds over the slots of each block; a slot leaves when one of its ids is accepted."""
        n = self.length
        blocks = stride_of(self.order.size, self.problem.step) // n
        for part, slots in _by_block(outcome.start, outcome.stop, n):
            tries = 0
            while slots.size and tries != self.order.most_tries and not outcome.is_ended:
                status, accepted = self._evaluate(tries * blocks + part, slots - part * n, outcome)
                outcome.add(slots, status, accepted)
                slots = slots[status != Status.ACCEPTED]
                tries += 1

    def _evaluate(self, number: int, rows: np.ndarray, outcome: Outcome) -> tuple[np.ndarray, Particles]:
        """The status of these rows of a block, and the accepted ones, not yet weighed."""
        self.simulator.at = at = number * self.length + int(rows[0])
        try:
            block = self.propose(number, rows)
        except BaseException as error:
            outcome.fail(at, None, error, "proposal")
            return np.zeros(len(rows), np.uint8), self._nothing
        is_inside = block.inside[rows]
        with self._theirs():
            simulated = self.simulator(block, rows[is_inside], outcome)
        if self._wants_all and not outcome.is_ended:
            self._refuse_rejections(block, rows[is_inside], simulated, outcome)
        measured, accepted = self.measure(block, simulated, outcome), self._nothing
        is_accepted = self.order.acceptor.accept(measured, self.order.epsilon, self._uniform)
        status = np.where(is_inside, Status.REJECTED, Status.OUTSIDE).astype(np.uint8)
        if self._rejected_end > block.first:
            is_wanted = measured.ids < self._rejected_end
            outcome.reject(self.kept(measured.take(~is_accepted & is_wanted)))
        if is_accepted.any():
            accepted = self.kept(measured.take(is_accepted))
            status[np.searchsorted(rows, accepted.ids - block.first)] = Status.ACCEPTED
        if outcome.failures:
            status[np.searchsorted(rows, outcome.failed(block.first, self.length))] = Status.FAILED
        return status, accepted

    def kept(self, rows: Particles) -> Particles:
        """Rows with what is kept of their data, in the precision of the observed ones."""
        if self._keeps_none:
            return replace(rows, summaries=rows.summaries[:, :0])
        if self._is_narrow:
            with np.errstate(all="ignore"):
                return replace(rows, summaries=rows.summaries.astype(np.float32))
        return rows

    def _refuse_rejections(
        self, block: Block, rows: np.ndarray, simulated: Simulated, outcome: Outcome
    ) -> None:
        """Fail for a row that the simulator has rejected by itself, although all that it simulates counts."""
        failed = outcome.failed(block.first, self.length)
        rejected = np.setdiff1d(rows, [*simulated.rows.tolist(), *failed])
        if rejected.size:
            at = int(rejected[0])
            error = ProblemError(
                "the simulator returned mpiabc.REJECT, or None, with acceptor=Noise(...): whatever is "
                "simulated has a density; return data that are unlikely to be observed instead"
            )
            outcome.fail(block.first + at, block.theta[at], error, "proposal")

    def block_with(self, id: int) -> Block:
        """The proposals of the block, or batch, that an id is in."""
        return self.propose(id // self.length, np.array([id % self.length]))

    def propose(self, number: int, rows: np.ndarray | None = None) -> Block:
        """Proposals of a whole aligned block, or batch, of ids; the last one is kept for the next lease.

        Of coupled ones only these rows, by default all, are what the order proposes.
        """
        if self._coupled is not None:
            rows = np.arange(self.length) if rows is None else rows
            self._block = self._carried(self._coupled, number, rows)
        elif self._block is None or self._block.number != number:
            self._block = Block(number, *self.begun(self.order.proposal, self.order.level, number))
        return self._block

    def _carried(self, coupled: Coupled, number: int, rows: np.ndarray) -> Block:
        """A block, these rows of which have come to the order's level."""
        coupled.forget(-math.inf, (number - 1) * self.length)
        base = (
            self.problem.prior if coupled.proposal(coupled.base) is None else coupled.proposal(coupled.base)
        )
        rows = self._share.with_neighbours(number, rows, self.length)
        with self._theirs(base):
            found = coupled.block(number, rows, lambda n: self.begun(base, coupled.base, n))
        return Block(number, found.theta, found.log_prior, found.born)

    def begun(self, proposal: Any, level: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """What this level's proposal gives for a block, and its log prior."""
        prior = self.problem.prior
        with self._theirs(proposal):
            theta = self._drawn(proposal, level, number)
        theta.flags.writeable = False
        with self._theirs(prior):
            log_prior = _floats("logpdf of the prior", prior.logpdf(theta))
        _check_densities(self.order, theta, log_prior, getattr(prior, "where", None) is not None)
        return theta, log_prior

    def _drawn(self, proposal: Any, level: int, number: int) -> np.ndarray:
        """Draws for a block; for a batch, those of the blocks that it consists of, one after another."""
        n = self.length // BLOCK
        blocks = range(number * n, (number + 1) * n)
        if n > 1 and hasattr(proposal, "sample_each"):
            return proposal.sample_each(BLOCK, (self._proposals.at(level, i) for i in blocks))
        parts = [self._block_drawn(proposal, level, block) for block in blocks]
        return parts[0] if n == 1 else np.concatenate(parts)

    def _block_drawn(self, proposal: Any, level: int, block: int) -> np.ndarray:
        self._states.prepare_proposals(block)
        theta = proposal.sample(BLOCK, self._proposals.at(level, block))
        theta, expected = _floats("sample of the proposal", theta), (BLOCK, self._drawn_width)
        if theta.shape != expected:
            raise ProblemError(
                f"sample({BLOCK}, rng) of the proposal gave shape {theta.shape}, expected {expected}"
            )
        return theta

    def measure(self, block: Block, simulated: Simulated, outcome: Outcome) -> Particles:
        """The simulated rows with their distances and their log prior; nan is a failure, and no row."""
        rows, summaries, distances = simulated
        if self._is_rounded:
            with np.errstate(all="ignore"):
                summaries = summaries.astype(np.float32).astype(np.float64)
        if distances is None:
            with self._theirs(self._distance), self._states.beside(self._distance):
                rows, summaries, distances = self._measured(block, rows, summaries, outcome)
        is_one = distances >= self._least
        if distances.ndim > 1:
            distances, is_one = distances.reshape(len(rows), -1), is_one.all(axis=1)
        if np.ndim(self.order.epsilon) and distances.shape[1:] != np.shape(self.order.epsilon):
            for row in rows.tolist():
                outcome.fail(
                    block.first + row, block.theta[row], _another_number(self.order.epsilon, distances)
                )
            rows, summaries, distances, is_one = rows[:0], summaries[:0], distances[:0], is_one[:0]
        if not is_one.all():
            for i in np.flatnonzero(~is_one).tolist():
                error = self._no_distance(float(np.min(distances[i])), summaries[i])
                outcome.fail(block.first + int(rows[i]), block.theta[rows[i]], error)
            rows, summaries, distances = rows[is_one], summaries[is_one], distances[is_one]
        ids, level = block.first + rows, np.full(len(rows), self.order.level)
        drawn = self.problem.split(block.theta.take(rows, axis=0))
        return Particles(
            ids=ids,
            distances=distances,
            log_weights=block.log_prior[rows],
            summaries=summaries,
            level=level,
            **drawn,
        )

    def _no_distance(self, value: float, summary: np.ndarray) -> ValueError:
        """What is wrong with a number that is no distance, or no log density, of a row."""
        if self._wants_all:
            text = "the log density of the observed data, if the simulated are true, is no number"
            return NanDistanceError(text + self._culprit(summary))
        if math.isnan(value):
            text = "the distance of the simulated from the observed data is nan"
            return NanDistanceError(text + self._culprit(summary))
        more = f"; {NOT_OBSERVED}" if isinstance(self.problem.distance, Returned) else ""
        return DistanceError(
            f"the distance gave {value!r}, expected a number >= 0: the smaller it is, the nearer are the data"
            + more
        )

    def _culprit(self, summary: np.ndarray) -> str:
        """Which simulated number has made a distance nan, as far as that is seen."""
        structure = self.problem.structure
        if isinstance(structure, Nothing) or isinstance(self.problem.distance, Returned):
            return ""
        is_new = np.isnan(summary) & ~np.isnan(self._observed)  # holes of the observed data may be left out
        bad = np.flatnonzero(is_new if is_new.any() else ~np.isfinite(summary))
        if not bad.size:
            return ", although the simulated data are finite"
        more = f", and {len(bad) - 1} more are not finite" if len(bad) > 1 else ""
        return f": of the simulated data {structure.label(int(bad[0]))} is {summary[bad[0]]}{more}"

    def _of_theta(self, simulated: Any, observed: Any) -> Any:
        """The distance of the row in work by a callable that looks at its theta, too."""
        assert self._block is not None
        row = self._block.theta[self.simulator.at - self._block.first]
        return self._distance(simulated, observed, self._layout.row(row.tolist()))

    def _asked(self, block: Block, rows: np.ndarray, summaries: np.ndarray) -> Any:
        """What the distance says of these rows of a block."""
        if not self._takes_theta:
            return self._distance.rows(summaries, self._observed)
        theta = self._layout.columns(block.theta.take(rows, axis=0))
        return self._distance.rows(summaries, self._observed, theta)

    def _measured(self, block: Block, rows: np.ndarray, summaries: np.ndarray, outcome: Outcome) -> Any:
        """Rows, summaries and distances, without those whose distance raises.

        How many rows there are depends on how ids were leased, so only distances that promise rows
        independent of their companions get all of them at once; what then goes wrong has an address, too.
        """
        summaries.flags.writeable = False
        if getattr(self._distance, "is_rowwise", False):
            try:
                return rows, summaries, self._as_wide(_column(self._asked(block, rows, summaries), len(rows)))
            except BaseException as error:
                if is_asked_to_stop(error):
                    raise
        done, distances = [], []
        for i, row in enumerate(rows.tolist()):
            self.simulator.at = block.first + row
            try:
                found = _column(self._asked(block, rows[i : i + 1], summaries[i : i + 1]), 1)
                distances.append(self._as_wide(found)[0])
                done.append(i)
            except BaseException as error:
                outcome.fail(block.first + row, block.theta[row], error)
                if outcome.is_ended:
                    break
        return rows[done], summaries[done], np.array(distances, np.float64)

    def _as_wide(self, distances: np.ndarray) -> np.ndarray:
        """Distances of rows, as many of each as of the observed data. Raises DistanceError."""
        width = math.prod(distances.shape[1:])
        if self._width is None:
            self._width = self._width_observed() or width
        if width != self._width:
            raise DistanceError(
                f"rows of the distance gave {width} numbers a row, and {self._width} for the observed data: "
                "it gives as many in every evaluation"
            )
        return distances

    def _width_observed(self) -> int | None:
        """How many distances the observed data have from themselves, if that can be asked.

        Rows that were measured before would depend on how ids were leased.
        """
        if self._takes_theta:
            return 1
        with suppress(Exception):
            found = self._distance.rows(self._observed[None].copy(), self._observed)
            return math.prod(_column(found, 1).shape[1:])
        return None

    def _sampled(self, outcome: Outcome) -> Particles | None:
        """The rejected rows that may be of the sample, or are all kept, without weights."""
        rejected = outcome.rejected()
        if rejected is None:
            return None
        return rejected.weighed(np.full(len(rejected), np.nan), rejected.log_densities)

    def _weigh(self, rows: Particles | None, outcome: Outcome) -> Particles:
        """These rows with log prior - log proposal, and the densities of all levels if they count."""
        order = self.order
        if rows is None:
            return self._nothing
        log_prior = log_proposal = rows.log_weights
        if order.level:
            log_proposal = self._log_density(order.proposal, rows, outcome, is_own=True)
        log_densities = rows.log_densities
        if order.earlier is not None:
            before = [log_prior, *(self._log_density(part, rows, outcome) for part in order.earlier)]
            log_densities = np.stack([*before, log_proposal][: order.level + 1], axis=1)
        log_weights = log_prior - log_proposal
        more = acceptors.log_weights(order.acceptor, rows, order.epsilon)
        return rows.weighed(log_weights if more is None else log_weights + more, log_densities)

    def _log_density(
        self, proposal: Any, rows: Particles, outcome: Outcome, is_own: bool = False
    ) -> np.ndarray:
        """Log density of a proposal at these rows, its own draws or not; one that gives none has failed.

        The rows have the prior's log density in place of weights.
        """
        found, x = np.full(len(rows), np.nan), self.problem.joint(rows)
        x.flags.writeable = False
        where = "where it has drawn" if is_own else "at a draw of a later generation, as recycling asks it"
        error: BaseException = ProblemError(f"logpdf of the kernel's proposal is nan or infinite {where}")
        try:
            with self._theirs(proposal):
                for i, value in _log_density(undefended(proposal), x):
                    found[i] = value
                found = mixed(proposal, found, rows.log_weights)
        except BaseException as raised:
            error = raised
        is_bad = ~(found < math.inf) | (is_own & (found == -math.inf))
        if is_bad.any():
            at = int(np.argmax(is_bad))
            outcome.fail(int(rows.ids[at]), x[at], error, "proposal")
        return found


def _another_number(epsilon: Any, distances: np.ndarray) -> ValueError:
    """What is wrong with as many distances as there are no thresholds."""
    m = distances.shape[1] if distances.ndim > 1 else 1
    return DistanceError(
        f"the distance gave {m} numbers, and there are {np.size(epsilon)} thresholds: give one for each"
    )


def _column(distances: Any, n: int) -> np.ndarray:
    """The distances of n rows. Raises ProblemError for what are none."""
    found = np.asarray(distances)
    is_table = found.ndim == 2 and len(found) == n and found.shape[1] > 1
    if not (found.shape == (n,) or is_table) or found.dtype.kind not in "biuf":
        raise ProblemError(
            f"rows of the distance gave {found.dtype} of shape {found.shape}, expected one real number a "
            f"row: shape ({n},), or several: shape ({n}, m)"
        )
    return found.astype(np.float64, copy=False)


def _floats(what: str, values: Any) -> np.ndarray:
    """What a prior or proposal gave, as an array of its own. Raises ProblemError for what is not real."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or is_masked(values):
        raise ProblemError(f"{what} gave {array.dtype} (a {type(values).__name__}), expected real numbers")
    return np.array(array, np.float64, order="C")


def _check_densities(order: Order, theta: np.ndarray, log_prior: np.ndarray, is_narrowed: bool) -> None:
    """Raise ProblemError for a prior that would never give a usable proposal.

    One that is narrowed by a constraint may do so in another block.
    """
    if log_prior.shape != (len(theta),):
        raise ProblemError(f"logpdf of the prior gave shape {log_prior.shape}, expected ({len(theta)},)")
    is_bad = np.isnan(log_prior) | (log_prior == np.inf)
    if is_bad.any():
        raise ProblemError(
            f"logpdf of the prior is {log_prior[is_bad][0]} for theta = {theta[is_bad][0].tolist()}"
        )
    if order.level == 0 and not (is_narrowed or (log_prior > -np.inf).any()):
        raise ProblemError("all draws of the prior lie outside its own support: sample and logpdf disagree")


def _by_block(start: int, stop: int, n: int) -> Iterator[tuple[int, np.ndarray]]:
    """The addresses [start, stop) in the parts that lie in one block of n each."""
    for block in range(start // n, -(-stop // n)):
        yield block, np.arange(max(start, block * n), min(stop, (block + 1) * n))


def _log_density(proposal: Any, theta: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """Which rows of theta (m, d), and the log density of the proposal there.

    m depends on how ids were leased, so only proposals that promise rows independent of their companions
    get all of them at once; others are asked row by row.
    """
    logpdf = proposal.logpdf
    if getattr(proposal, "is_rowwise", False):
        yield slice(None), _densities(logpdf(theta), len(theta))
    else:
        yield from ((i, _densities(logpdf(row[None]), 1)[0]) for i, row in enumerate(theta))


def _densities(found: Any, n: int) -> np.ndarray:
    """What a proposal says of n rows. Raises ProblemError for what is no number for each."""
    values = _floats("logpdf of the proposal", found)
    if values.shape != (n,):
        raise ProblemError(f"logpdf of the proposal gave shape {values.shape}, expected ({n},)")
    return values
