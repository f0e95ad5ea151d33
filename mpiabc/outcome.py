"""What the evaluations of one lease have come to: rows, statuses, failures with their addresses."""

import time
import traceback

import numpy as np

from mpiabc.errors import ProblemError, shortened, text_of
from mpiabc.order import Order
from mpiabc.particles import Particles, joined
from mpiabc.problem import Problem
from mpiabc.records import Failure, Records, Status
from mpiabc.signals import is_asked_to_stop
from mpiabc.streams import BLOCK, step_of
from mpiabc.structure import StructureMismatchError


class NanDistanceError(ValueError):
    """A distance that is not a number."""


_KINDS: dict[type, str] = {StructureMismatchError: "structure", NanDistanceError: "nan"}


class Outcome:
    """The evaluations of the ids, or slots, [start, stop) so far."""

    def __init__(self, problem: Problem, order: Order, where: str, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.failures: list[Failure] = []
        self.notes: set[str] = set()
        self.is_exposed = False
        self.is_ended = False  # by a failure that ends the run
        self._problem, self._order, self._where = problem, order, where
        self._status = np.zeros(stop - start, np.uint8)
        self._tries = np.zeros((stop - start, 2), np.int64) if order.is_static else None
        self._parts: list[Particles] = []
        self._addresses: list[np.ndarray] = []

    def add(self, addresses: np.ndarray, status: np.ndarray, accepted: Particles) -> None:
        """Take what became of some addresses, and the rows of the accepted ones."""
        at = addresses - self.start
        self._status[at] = status
        if self._tries is not None:
            self._tries[at, 0] += 1
            self._tries[at, 1] += status != Status.OUTSIDE
        if len(accepted):
            self._parts.append(accepted)
            self._addresses.append(addresses[status == Status.ACCEPTED])

    def fail(self, index: int, theta: np.ndarray | None, error: BaseException, kind: str = "") -> None:
        """Note a failed evaluation, and whether it ends the run. Raises what is no failure but a stop."""
        if is_asked_to_stop(error):
            raise error
        values = {} if theta is None else dict(zip(self._problem.prior.names, theta.tolist(), strict=True))
        kind = kind or _KINDS.get(type(error), "exception")
        failure = Failure(
            self._order.level, index, values, _in_words(error), _remote_traceback(error), self._where, kind
        )
        self.failures.append(failure)
        self.is_exposed |= is_of_the_outside(error)
        self.is_ended |= self._problem.on_error == "raise" or failure.ends_every_run

    def failed(self, number: int) -> list[int]:
        """The rows of a block that have failed."""
        first = number * BLOCK
        return [f.index - first for f in self.failures if first <= f.index < first + BLOCK]

    def rows(self) -> Particles | None:
        """The accepted rows, in the order of their addresses, if there are any."""
        if not self._parts:
            return None
        rows = joined(self._parts)
        return rows if self._tries is None else rows.take(np.argsort(np.concatenate(self._addresses)))

    def records(self, rows: Particles, began: float) -> Records:
        """All of it; of what lies above a failure that ends the run, nothing."""
        records = Records(
            self._order.number,
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
        step = step_of(self._problem.vectorized)
        first = min(failure.index for failure in self.failures) // step * step
        return np.arange(self.start, self.stop) < first


def is_of_the_outside(error: BaseException | None) -> bool:
    """Whether something outside of this process may have failed: a program, a file, a connection."""
    while error is not None:
        if isinstance(error, OSError | EOFError) or type(error).__module__ == "subprocess":
            return True
        error = error.__cause__ or error.__context__
    return False


def _in_words(error: BaseException) -> str:
    text = text_of(error)
    if isinstance(error, StructureMismatchError):
        return f"the simulated data have not the structure of the observed data: {text}"
    if isinstance(error, NanDistanceError | ProblemError):
        return text
    return f"{type(error).__name__}: {text}"


_ACTS = ("mpiabc.evaluate", "mpiabc.simulate")  # who calls the user's functions


def _remote_traceback(error: BaseException) -> str:
    """The user's part of the traceback; empty for an error of our own finding."""
    inner = error.__traceback__
    while inner and inner.tb_frame.f_globals.get("__name__") in _ACTS:
        inner = inner.tb_next
    if inner is None or isinstance(error, StructureMismatchError):
        return ""
    lines = traceback.TracebackException(type(error), error, inner).format()
    return "".join(map(shortened, lines))
