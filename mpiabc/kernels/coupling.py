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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.defended import mixed, undefended
from mpiabc.errors import ProblemError
from mpiabc.streams import Purpose, Stream

EVERY = 8  # levels at which all is drawn anew, so that chains stay short
_FEW, _MANY = 8, 256  # candidates that an id draws at once, first and at most
_SEEN = 8  # ids after which it is known how many of them a worker has
_WASTE = 6  # times as many may be carried as are needed: alone each costs eight times as much
_NEAR = 64  # ids that are carried together
_AT_ONCE = 32  # of all ids whose densities are computed together: a call costs as much as a few
_MOST = 10_000_000  # candidates after which a redraw has no end
_OF_BLOCKS = 1 << 63  # in addresses of streams: no id is as large
_CHUNKS = 1 << 44  # between the chunks of candidates of an id

Drawn = tuple[np.ndarray, np.ndarray]  # theta (n, d) and log prior (n,)
Drawn3 = tuple[np.ndarray, np.ndarray, np.ndarray]


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
        self._log_u: dict[tuple[int, int], np.ndarray] = {}  # of a block, and the level that it comes to
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
        levels = block.level[rows]
        for level in range(int(levels.min(initial=self.level)), self.level):
            self._step(block, number, rows[levels <= level], level)
        return block

    def forget(self, end: float, least: float = -math.inf) -> None:
        """Drop the blocks that end at this id or before, and those that begin before `least`."""
        kept = {n: block for n, block in self._blocks.items() if block.first + len(block.theta) > end}
        self._blocks = {n: block for n, block in kept.items() if block.first >= least}
        self._log_u = {at: log_u for at, log_u in self._log_u.items() if at[0] in self._blocks}

    def _begun(self, number: int, theta: np.ndarray, log_prior: np.ndarray) -> Block:
        n = len(theta)
        log_q = np.array(log_density(self.proposal(self.base), theta, log_prior))
        born, level = np.full(n, self.base), np.full(n, self.base)
        return Block(number * n, np.array(theta), np.array(log_prior), log_q, born, level)

    def _step(self, block: Block, number: int, rows: np.ndarray, level: int) -> None:
        """Bring rows from this level to the next."""
        theta, log_prior = block.theta[rows], block.log_prior[rows]
        log_next = log_density(self.proposal(level + 1), theta, log_prior)
        log_u = self._decisive(number, level, len(block.theta))[rows]
        with np.errstate(all="ignore"):
            is_kept = (log_prior > -math.inf) & (log_u + block.log_q[rows] <= log_next)
        block.log_q[rows], block.level[rows] = log_next, level + 1
        if not is_kept.all():
            self._redraw(block, rows[~is_kept], level)

    def _decisive(self, number: int, level: int, n: int) -> np.ndarray:
        """The logarithms of the numbers that decide whether the ids of a block keep their theta, (n,)."""
        found = self._log_u.get((number, level))
        if found is None:
            u = self._stream.at(level + 1, number + _OF_BLOCKS).random(n)
            with np.errstate(divide="ignore"):
                found = self._log_u[number, level] = np.log(u)
        return found

    def _redraw(self, block: Block, rows: np.ndarray, level: int) -> None:
        """Give rows other candidates, of which each id has chunks of its own, the first one small."""
        n, drawn, chunk = _FEW, 0, 0
        while rows.size:
            if drawn >= _MOST:
                raise ProblemError(
                    f"none of {drawn} draws of the proposal of level {level + 1} could take the place of one "
                    f"of level {level}: densities of the kernel or the prior are not normalised; correct "
                    "them, or leave lookahead out"
                )
            rows = self._redraw_from(chunk, n, block, rows, level)
            n, drawn, chunk = min(2 * n, _MANY), drawn + n, chunk + 1

    def _redraw_from(self, chunk: int, n: int, block: Block, rows: np.ndarray, level: int) -> np.ndarray:
        """The same of one chunk of each row; returns the rows for which it was not enough.

        Those of many rows are looked at together, a few of each at a time.
        """
        theta, log_prior, log_v = self._drawn((block.first + rows).tolist(), level, chunk, n)
        left, start = np.arange(len(rows)), 0
        while left.size and start < n:
            each = min(max(1, _AT_ONCE // len(left)), n - start)
            at = (left[:, None] * n + np.arange(start, start + each)).ravel()
            log_q, is_taken = self._judged(theta[at], log_prior[at], log_v[at], level)
            is_taken = is_taken.reshape(len(left), each)
            done = np.flatnonzero(is_taken.any(axis=1))
            if done.size:
                first = np.argmax(is_taken[done], axis=1) + done * each
                taken, to = at[first], rows[left[done]]
                block.theta[to], block.log_prior[to] = theta[taken], log_prior[taken]
                block.log_q[to], block.born[to] = log_q[first], level + 1
                left = np.delete(left, done)
            start += each
        return rows[left]

    def _drawn(self, ids: list[int], level: int, chunk: int, n: int) -> Drawn3:
        """`n` candidates of each id, one id after another: theta, log prior, logs of uniform numbers."""
        proposal, log_v = self.proposal(level + 1), np.empty((len(ids), n))

        def streams() -> Iterator[np.random.Generator]:
            for i, id in enumerate(ids):
                rng = self._stream.at(level + 1, id + chunk * _CHUNKS)
                rng.random(out=log_v[i])
                yield rng

        if hasattr(proposal, "sample_each"):
            theta = proposal.sample_each(n, streams())
        else:
            theta = np.concatenate([np.array(proposal.sample(n, rng), np.float64) for rng in streams()])
        return theta, self._log_prior(theta, n), np.log1p(-log_v).ravel()

    def _log_prior(self, theta: np.ndarray, n: int) -> np.ndarray:
        """That of candidates; a prior that does not promise more is asked for those of one id at a time."""
        step = len(theta) if getattr(self._prior, "is_elementwise", False) else n
        parts = [
            np.array(self._prior.logpdf(theta[i : i + step]), np.float64) for i in range(0, len(theta), step)
        ]
        log_prior = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if log_prior.shape != (len(theta),) or (np.isnan(log_prior) | (log_prior == np.inf)).any():
            raise ProblemError(
                f"logpdf of the prior gave {log_prior.tolist()[:3]}, ... for {n} draws of a proposal: "
                "expected one number each, and -inf outside of the support"
            )
        return log_prior

    def _judged(
        self, theta: np.ndarray, log_prior: np.ndarray, log_v: np.ndarray, level: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The log density of the next level's proposal, and which of the candidates may be taken."""
        log_q = log_density(self.proposal(level + 1), theta, log_prior)
        log_before = log_density(self.proposal(level), theta, log_prior)
        with np.errstate(all="ignore"):
            return log_q, (log_prior == -math.inf) | (log_v > log_before - log_q)


class Share:
    """Which of the next ids are worth carrying together: a worker that has many of them has most of a few.

    This is about time alone: what an id comes to does not depend on who came along.
    """

    def __init__(self) -> None:
        self._first, self._count = -1, 0

    def with_neighbours(self, number: int, rows: np.ndarray, n: int) -> np.ndarray:
        """These rows of a block of n, and those that are probably asked for soon."""
        least, most = int(rows.min(initial=n)), int(rows.max(initial=-1))
        if most < 0:
            return rows
        if self._first < 0:
            self._first = number * n + least
        self._count += len(rows)
        span = number * n + most + 1 - self._first
        if self._count < _SEEN or self._count * _WASTE < span:
            return rows
        return np.union1d(rows, np.arange(least, min(n, most // _NEAR * _NEAR + _NEAR)))
