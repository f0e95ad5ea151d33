"""Coupled proposals: each id carries a candidate from level to level, and keeps it as often as can be.

    theta^(0) ~ q_0
    step s -> s + 1, with u ~ U(0, 1):
        keep theta^(s)  if  u q_s(theta^(s)) <= q_{s+1}(theta^(s))
        else repeat  c ~ q_{s+1}, v ~ U(0, 1)  until  v > q_s(c) / q_{s+1}(c);  theta^(s+1) = c

So theta^(s) is a draw from q_s at every level s, and changes at a step with the least probability that there
is, the total variation distance of the two (maximal coupling: Thorisson 2000). What was simulated for an id
at an earlier level counts if no step since has changed its theta. Nothing here looks at what ids bring.

Densities are compared inside of the prior's support alone: a theta outside is never kept, a candidate outside
always taken. That keeps the law where the prior's constraint narrows its support and does not rescale it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.defended import mixed, undefended
from mpiabc.errors import ProblemError
from mpiabc.streams import Purpose, Stream

EVERY = 8  # levels at which all is drawn anew, so that chains stay short
_FEW, _MANY = 8, 256  # candidates that an id draws at once, first and at most
_MOST = 10_000_000  # candidates after which a redraw has no end

Drawn = tuple[np.ndarray, np.ndarray]  # theta (n, d) and log prior (n,)


def base_of(level: int) -> int:
    """The level, not above this one, at which theta was last drawn anew."""
    return level // EVERY * EVERY


def log_density(proposal: Any, theta: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """Log density of a proposal at rows (m,), the same bits whatever rows are beside them.

    proposal: None for the prior, whose density is known.
    """
    if proposal is None:
        return log_prior
    own = undefended(proposal)
    if getattr(own, "is_rowwise", False):
        found = own.logpdf(theta)
    else:
        found = [np.asarray(own.logpdf(row[None]))[0] for row in theta]
    return mixed(proposal, np.asarray(found, np.float64), log_prior)


@dataclass(frozen=True, eq=False)
class Block:
    """Candidates of an aligned block of ids, each row as far on its way as was asked for."""

    first: int  # id
    theta: np.ndarray  # (n, d)
    log_prior: np.ndarray  # (n,)
    log_q: np.ndarray  # (n,) by the proposal of the level that the row is at
    born: np.ndarray  # (n,) the level at which its theta was drawn
    level: np.ndarray  # (n,)

    def take(self, rows: np.ndarray) -> "Block":
        """Some of the rows, in arrays of their own."""
        columns = self.theta, self.log_prior, self.log_q, self.born, self.level
        return Block(self.first, *(column[rows] for column in columns))


class Coupled:
    """theta at one level of a run, as ids have carried it there from the last level that was drawn anew.

    proposals: those of the levels from `base` on; None stands for the prior. `before`: the same of the level
    before, whose candidates go on from there.
    """

    def __init__(
        self,
        key: tuple[int, int],
        prior: Any,
        base: int,
        proposals: tuple[Any, ...],
        before: "Coupled | None" = None,
    ) -> None:
        self._stream = Stream(key, Purpose.COUPLING)
        self._prior, self.base, self._proposals = prior, base, proposals
        self._blocks: dict[int, Block] = {}
        if before is not None and before.base == base:
            self._blocks, before._blocks = before._blocks, {}

    @property
    def level(self) -> int:
        """The level that it brings ids to."""
        return self.base + len(self._proposals) - 1

    def proposal(self, level: int) -> Any:
        """That of a level from the base on."""
        return self._proposals[level - self.base]

    def block(self, number: int, rows: np.ndarray, draw: Callable[[int], Drawn]) -> Block:
        """A block, of which these rows are at this level; `draw` gives all of it as the base proposed it."""
        if number not in self._blocks:
            self._blocks[number] = self._begun(number, *draw(number))
        block = self._blocks[number]
        for level in range(self.base, self.level):
            self._step(block, rows[block.level[rows] == level], level)
        return block

    def forget(self, end: float, least: float = -math.inf) -> None:
        """Drop the blocks that end at this id or before, and those that begin before `least`."""
        kept = {n: block for n, block in self._blocks.items() if block.first + len(block.theta) > end}
        self._blocks = {n: block for n, block in kept.items() if block.first >= least}

    def _begun(self, number: int, theta: np.ndarray, log_prior: np.ndarray) -> Block:
        n = len(theta)
        log_q = np.array(log_density(self.proposal(self.base), theta, log_prior))
        born, level = np.full(n, self.base), np.full(n, self.base)
        return Block(number * n, np.array(theta), np.array(log_prior), log_q, born, level)

    def _step(self, block: Block, rows: np.ndarray, level: int) -> None:
        """Bring rows from this level to the next."""
        if not rows.size:
            return
        now = block.take(rows)
        log_next = log_density(self.proposal(level + 1), now.theta, now.log_prior)
        u = [self._stream.at(level + 1, id).random() for id in (block.first + rows).tolist()]
        with np.errstate(all="ignore"):
            is_kept = (now.log_prior > -math.inf) & (np.log(u) + now.log_q <= log_next)
        block.log_q[rows], block.level[rows] = log_next, level + 1
        self._redraw(block, rows[~is_kept], level)

    def _redraw(self, block: Block, rows: np.ndarray, level: int) -> None:
        """Give rows other candidates: the first few of all rows are looked at together."""
        if not rows.size:
            return
        ids = (block.first + rows).tolist()
        each = [self._candidates(self._begin(level, id), level, _FEW) for id in ids]
        theta, log_prior, log_v = (np.concatenate(part) for part in zip(*each, strict=True))
        log_q, is_taken = self._judged(theta, log_prior, log_v, level)
        is_taken = is_taken.reshape(len(rows), _FEW)
        chosen = np.argmax(is_taken, axis=1) + _FEW * np.arange(len(rows))
        block.theta[rows], block.log_prior[rows] = theta[chosen], log_prior[chosen]
        block.log_q[rows], block.born[rows] = log_q[chosen], level + 1
        for row in rows[~is_taken.any(axis=1)].tolist():
            self._redraw_one(block, row, level)

    def _redraw_one(self, block: Block, row: int, level: int) -> None:
        """Go on with one for which the first few were not enough."""
        rng, n, drawn = self._begin(level, block.first + row), _FEW, _FEW
        self._candidates(rng, level, n)  # which were seen
        while drawn < _MOST:
            n = min(2 * n, _MANY)
            theta, log_prior, log_v = self._candidates(rng, level, n)
            log_q, is_taken = self._judged(theta, log_prior, log_v, level)
            if is_taken.any():
                at = int(np.argmax(is_taken))
                block.theta[row], block.log_prior[row], block.log_q[row] = theta[at], log_prior[at], log_q[at]
                return
            drawn += n
        raise ProblemError(
            f"none of {drawn} draws of the proposal of level {level + 1} could take the place of one of "
            f"level {level}: densities of the kernel or the prior are not normalised; correct them, or leave "
            "lookahead out"
        )

    def _begin(self, level: int, id: int) -> np.random.Generator:
        """The stream of a step, behind the number that decides whether theta is kept."""
        rng = self._stream.at(level + 1, id)
        rng.random()
        return rng

    def _candidates(
        self, rng: np.random.Generator, level: int, n: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """So many draws, their log prior, and the logarithms of as many uniform numbers."""
        theta = np.array(self.proposal(level + 1).sample(n, rng), np.float64)
        log_v = np.log1p(-rng.random(n))
        log_prior = np.array(self._prior.logpdf(theta), np.float64)
        if log_prior.shape != (n,) or (np.isnan(log_prior) | (log_prior == np.inf)).any():
            raise ProblemError(
                f"logpdf of the prior gave {log_prior.tolist()[:3]}, ... for {n} draws of a proposal: "
                "expected one number each, and -inf outside of the support"
            )
        return theta, log_prior, log_v

    def _judged(
        self, theta: np.ndarray, log_prior: np.ndarray, log_v: np.ndarray, level: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The log density of the next level's proposal, and which of the candidates may be taken."""
        log_q = log_density(self.proposal(level + 1), theta, log_prior)
        log_before = log_density(self.proposal(level), theta, log_prior)
        with np.errstate(all="ignore"):
            return log_q, (log_prior == -math.inf) | (log_v > log_before - log_q)
