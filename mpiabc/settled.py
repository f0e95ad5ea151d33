"""What was begun at an earlier level is looked at again: its proposals, decisions and weights."""

from dataclasses import replace

import numpy as np

from mpiabc.acceptors import Uniforms
from mpiabc.coupling import Block, Coupled, log_density
from mpiabc.evaluate import Evaluator, Level, coupled_of
from mpiabc.models import AnyProblem
from mpiabc.particles import Particles
from mpiabc.records import Failure, Records, Status


class Settler:
    """Settles work on ids for one level; what its predecessor has computed of them is taken over."""

    def __init__(self, problem: AnyProblem, order: Level, before: "Settler | None" = None) -> None:
        self._problem, self._order = problem, order
        self._evaluator = Evaluator(problem, order)
        found = coupled_of(problem, order, None if before is None else before.coupled)
        assert found is not None
        self.coupled: Coupled = found
        self.coupled.forget(order.first)

    def kept(self, ids: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Which ids have kept the proposal that they had at these levels."""
        return self._at(ids).born <= levels

    def settled(self, records: Records, level: int) -> Records:
        """Records of an earlier level as this one has them; what does not count is UNKNOWN."""
        ids = np.arange(records.start, records.stop)
        failing = np.array([failure.index for failure in records.failures], int)
        looked_at = np.union1d(ids[records.status != Status.UNKNOWN], failing)
        at = self._at(looked_at)
        counting = looked_at[at.born <= level]
        part = records.only(np.isin(ids, counting))
        rows, status = (
            self._weighed(part.rows, at.take(np.searchsorted(looked_at, part.rows.ids)), level),
            part.status,
        )
        is_near = self._order.acceptor.accept(rows, self._order.epsilon, Uniforms(self._order.key))
        status[rows.ids[~is_near] - records.start] = Status.REJECTED
        failures = tuple(self._renamed(f) for f in records.failures if f.index in set(counting.tolist()))
        return replace(part, rows=rows.take(is_near), status=status, failures=failures)

    def _weighed(self, rows: Particles, at: Block, level: int) -> Particles:
        """Rows of an earlier level with the weights that they have as draws of this one's proposal."""
        order, log_densities = self._order, rows.log_densities
        if order.earlier is not None:
            steps = range(level + 1, order.level)
            more = [log_density(order.earlier[s - 1], at.theta, at.log_prior) for s in steps]
            log_densities = np.column_stack([log_densities, *more, at.log_q])
        weighed = rows.weighed(at.log_prior - at.log_q, log_densities)
        return replace(weighed, level=np.full(len(rows), order.level))

    def _renamed(self, failure: Failure) -> Failure:
        return replace(failure, generation=self._order.level)

    def _at(self, ids: np.ndarray) -> Block:
        """What the ids have at this level."""
        base = self.coupled.proposal(self.coupled.base)
        base = self._problem.prior if base is None else base
        n, parts = self._evaluator.length, []
        for number in np.unique(ids // n).tolist():
            rows = ids[ids // n == number] - number * n
            block = self.coupled.block(
                number, rows, lambda i: self._evaluator.begun(base, self.coupled.base, i)
            )
            parts.append(block.take(rows))
        return _joined(parts) if parts else _nothing(self._problem.width)


def _joined(parts: list[Block]) -> Block:
    names = "theta", "log_prior", "log_q", "born", "level"
    return Block(0, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _nothing(d: int) -> Block:
    return Block(0, np.empty((0, d)), np.empty(0), np.empty(0), np.empty(0, int), np.empty(0, int))
