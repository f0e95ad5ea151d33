"""What was begun at an earlier level is looked at again: its proposals, distances, decisions and weights.

Of rows that have come home with what was simulated all of this is arithmetic, and comes to what the level
itself would have made of them. What it does not come to by that (a rejection without data whose distance is
another one now, a row that the distance cannot measure) counts as not begun, and goes out again.
"""

import os
from dataclasses import dataclass, field, replace

import numpy as np

from mpiabc import acceptors
from mpiabc.acceptors import Uniforms
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Evaluator, Level, coupled_of
from mpiabc.kernels.coupling import Block, Coupled, log_density
from mpiabc.models import AnyProblem
from mpiabc.outcome import Outcome
from mpiabc.particles import Particles, in_line, joined
from mpiabc.problem import signature
from mpiabc.records import Failure, Records, Status
from mpiabc.simulate import Block as Proposals
from mpiabc.simulate import Simulated

_REPLAYED = 20  # acceptances that were begun early, where the simulator knows epsilon


@dataclass
class _Replays:
    """What is evaluated again of a simulator that takes epsilon: it was accepted by another one."""

    left: int
    rows: dict[int, tuple[Particles, int]] = field(default_factory=dict)  # by id, with the level of each

    def wants(self, id: int) -> bool:
        """Whether this acceptance is to be evaluated again."""
        return id in self.rows or len(self.rows) < self.left

    def compare(self, records: Records) -> None:
        """Raise ProblemError for what is not what it was."""
        for id in [id for id in self.rows if records.start <= id < records.stop]:
            status = records.status[id - records.start]
            if status == Status.UNKNOWN:
                continue
            before, level = self.rows.pop(id)
            self.left -= 1
            now = records.rows.take(records.rows.ids == id)
            if not (len(now) and _is_same(before, now)):
                raise ProblemError(
                    f"evaluation {id} is another one with the epsilon of generation {level}, by which it was "
                    "begun early, than with that of its own: with lookahead=True a simulator may only "
                    "compare with epsilon and return mpiabc.REJECT, and draws from rng alone; let it do so, "
                    "or leave lookahead out"
                )


def _is_same(one: Particles, other: Particles) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("theta", "distances", "summaries")
    )


class Settler:
    """Settles work on ids for one level; what its predecessor has computed of them is taken over."""

    def __init__(self, problem: AnyProblem, order: Level, before: "Settler | None" = None) -> None:
        self._problem, self._order = problem, order
        self._evaluator = Evaluator(problem, order)
        found = coupled_of(problem, order, None if before is None else before.coupled)
        assert found is not None
        self.coupled: Coupled = found
        self.coupled.forget(order.first)
        knows_epsilon = any("epsilon" in signature(model.simulate).extras for model in problem.models)
        left = _REPLAYED if before is None else before.replays.left
        self.replays: _Replays = _Replays(left if knows_epsilon else 0)

    def kept(self, ids: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Which ids have kept the proposal that they had at these levels."""
        return self._at(ids).born <= levels

    def own(self, records: Records) -> Records:
        """Records of this level itself, without rejected rows that nothing will be made of.

        Raises ProblemError for what a simulator has made another one because it knows epsilon.
        """
        self.replays.compare(records)
        return replace(records, rejected=self._wanted(records.rejected))

    def settled(self, records: Records, level: int) -> Records:
        """Records of an earlier level as this one has them; what does not count is UNKNOWN."""
        order, first = self._order, records.start
        failures = () if order.sample else records.failures  # of another distance, perhaps
        failing = np.array([failure.index for failure in failures], int)
        ids = np.arange(first, records.stop)
        looked_at = np.union1d(ids[records.status != Status.UNKNOWN], failing)
        at = self._at(looked_at)
        counting = looked_at[at.born <= level]
        part = records.only(np.isin(ids, counting))
        status = part.status
        if order.sample:
            status[status == Status.FAILED] = Status.UNKNOWN
        if order.is_undecided:
            status[status == Status.REJECTED] = Status.UNKNOWN
        accepted, rejected = [], []
        for rows in (part.rows, part.rejected):
            status[rows.ids - first] = Status.UNKNOWN
            measured = self._measured(rows)
            is_near = order.acceptor.accept(measured, order.epsilon, Uniforms(order.key))
            status[measured.ids - first] = np.where(is_near, Status.ACCEPTED, Status.REJECTED)
            near = measured.take(is_near)
            accepted.append(self._weighed(near, at.take(np.searchsorted(looked_at, near.ids))))
            rejected.append(self._wanted(_weightless(measured.take(~is_near))))
        rows = in_line(accepted)
        if self.replays.left:
            rows = self._replayed(rows, status, records, level)
        among = set(counting.tolist())
        kept = tuple(self._renamed(failure) for failure in failures if failure.index in among)
        return replace(part, rows=rows, rejected=in_line(rejected), status=status, failures=kept)

    def _measured(self, rows: Particles) -> Particles:
        """Rows of an earlier level with the distances that they have at this one."""
        if not len(rows):
            return rows
        if not self._order.sample:
            return replace(rows, level=np.full(len(rows), self._order.level))
        evaluator, parts = self._evaluator, []
        n = evaluator.length
        for number in np.unique(rows.ids // n).tolist():
            own = rows.take(rows.ids // n == number)
            at = own.ids - number * n
            found = self._block(number, at)
            proposals = Proposals(number, found.theta, found.log_prior, found.born)
            simulated = Simulated(at, np.array(own.summaries, np.float64), None)
            outcome = Outcome(
                self._problem, self._order, f"process {os.getpid()}", number * n, number * n + n
            )
            parts.append(evaluator.kept(evaluator.measure(proposals, simulated, outcome)))
        return joined(parts)

    def _weighed(self, rows: Particles, at: Block) -> Particles:
        """Rows with the weights that they have as draws of this level's proposal."""
        order, log_densities = self._order, rows.log_densities
        if order.earlier is not None:
            steps = range(log_densities.shape[1], order.level)
            more = [self._log_density(step, at) for step in steps]
            log_densities = np.column_stack([log_densities, *more, at.log_q])
        log_weights = at.log_prior - at.log_q
        more_weight = acceptors.log_weights(order.acceptor, rows, order.epsilon)
        return rows.weighed(log_weights if more_weight is None else log_weights + more_weight, log_densities)

    def _log_density(self, step: int, at: Block) -> np.ndarray:
        """That of an earlier level at rows."""
        assert self._order.earlier is not None
        proposal = None if step == 0 else self._order.earlier[step - 1]
        return log_density(proposal, at.theta, at.log_prior)

    def _wanted(self, rejected: Particles) -> Particles:
        """The rejected rows that are of the sample, perhaps, or are kept."""
        order = self._order
        if order.keep == "all" or not len(rejected):
            return rejected
        return rejected.take(rejected.ids < (order.sample_end if order.sample else -np.inf))

    def _replayed(self, rows: Particles, status: np.ndarray, records: Records, level: int) -> Particles:
        """The accepted rows but for those that are evaluated again, and compared."""
        is_again = np.array([self.replays.wants(id) for id in rows.ids.tolist()], bool)
        for at in np.flatnonzero(is_again):
            id = int(rows.ids[at])
            if self.replays.wants(id):
                self.replays.rows[id] = rows.take(np.array([at])), level
                status[id - records.start] = Status.UNKNOWN
        return rows.take(status[rows.ids - records.start] != Status.UNKNOWN)

    def _renamed(self, failure: Failure) -> Failure:
        return replace(failure, generation=self._order.level)

    def _at(self, ids: np.ndarray) -> Block:
        """What the ids have at this level."""
        n, parts = self._evaluator.length, []
        for number in np.unique(ids // n).tolist():
            rows = ids[ids // n == number] - number * n
            parts.append(self._block(number, rows).take(rows))
        return _joined(parts) if parts else _nothing(self._problem.width)

    def _block(self, number: int, rows: np.ndarray) -> Block:
        """A block of which these rows are at this level."""
        base = self.coupled.proposal(self.coupled.base)
        base = self._problem.prior if base is None else base
        return self.coupled.block(number, rows, lambda i: self._evaluator.begun(base, self.coupled.base, i))


def _weightless(rows: Particles) -> Particles:
    return rows.weighed(np.full(len(rows), np.nan), np.empty((len(rows), 0)))


def _joined(parts: list[Block]) -> Block:
    names = "theta", "log_prior", "log_q", "born", "level"
    return Block(0, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _nothing(d: int) -> Block:
    return Block(0, np.empty((0, d)), np.empty(0), np.empty(0), np.empty(0, int), np.empty(0, int))
