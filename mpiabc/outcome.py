"""What the evaluations of one lease have come to: rows, statuses, failures with their addresses."""

import time
import traceback
from dataclasses import replace

import numpy as np

from mpiabc.errors import ProblemError, shortened, text_of
from mpiabc.models import AnyProblem
from mpiabc.order import Order
from mpiabc.particles import Particles, joined
from mpiabc.records import Failure, Records, Status
from mpiabc.signals import is_asked_to_stop
from mpiabc.streams import stride_of
from mpiabc.structure import DistanceError, StructureMismatchError
from mpiabc.team import Description, OfAnotherError


class NanDistanceError(ValueError):
    """A distance that is not a number."""


class CensoredError(ProblemError):
    """A rejection without data, where parts are fitted to what was simulated."""


_KINDS: dict[type, str] = {
    StructureMismatchError: "structure",
    DistanceError: "distance",
    NanDistanceError: "nan",
    CensoredError: "censored",
}


class Outcome:
    """The evaluations of the ids, or slots, [start, stop) so far."""

    def __init__(self, problem: AnyProblem, order: Order, where: str, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.failures: list[Failure] = []
        self.notes: set[str] = set()
        self.is_exposed = False
        self.is_ended = False  # by a failure that ends the run
        self._problem, self._order, self._where = problem, order, where
        self._status = np.zeros(stop - start, np.uint8)
        self._tries = np.zeros((stop - start, 2), np.int64) if order.is_static else None
        self._parts: list[Particles] = []
        self._rejected: list[Particles] = []
        self._addresses: list[np.ndarray] = []
        self._failed: dict[int, list[int]] = {}  # by the first id of a batch: its rows, with one failure

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

    def reject(self, rows: Particles) -> None:
        """Take simulated rows that were not accepted, and may be of the sample, or are kept."""
        if len(rows):
            self._rejected.append(rows)

    def fail(
        self, index: int, theta: np.ndarray | None, error: BaseException, kind: str = "", hint: str = ""
    ) -> None:
        """Note a failed evaluation, and whether it ends the run; `hint`: what may help to mend it.

        Raises what is no failure but a stop.
        """
        if is_asked_to_stop(error):
            raise error
        values = {} if theta is None else self._problem.named(theta)
        kind = kind or _KINDS.get(type(error), "exception")
        words, remote, where, is_exposed = described(error, self._where)
        if hint:
            words, remote = f"{words}; {hint}", f"{remote.rstrip()}\n{hint}\n" if remote else ""
        failure = Failure(self._order.level, index, values, words, remote, where, kind)
        self.failures.append(failure)
        self.is_exposed |= is_exposed
        self.is_ended |= self._problem.on_error == "raise" or failure.ends_every_run

    def end_with(self, size: int) -> None:
        """Leave out what lies above the acceptance of this number: a population is complete without it."""
        if self.accepted < size:
            return
        rows = joined(self._parts).take(np.arange(size))
        end = int(rows.ids[-1]) + 1
        self._parts, self._status[end - self.start :] = [rows], Status.UNKNOWN
        self._rejected = [part.take(part.ids < end) for part in self._rejected]
        self.failures = [failure for failure in self.failures if failure.index < end]
        self.is_ended &= bool(self.failures)

    @property
    def accepted(self) -> int:
        """How many rows were accepted."""
        return sum(map(len, self._parts))

    def fail_together(
        self, first: int, rows: np.ndarray, theta: np.ndarray, error: BaseException, hint: str = ""
    ) -> None:
        """Note that these rows of a batch have failed together, as the first one's failure."""
        self.fail(first + int(rows[0]), theta[rows[0]], error, hint=hint)
        self._failed.setdefault(first, []).extend(rows.tolist())

    def failed(self, first: int, n: int) -> list[int]:
        """The rows that have failed of the block of n that begins at this id."""
        alone = [f.index - first for f in self.failures if first <= f.index < first + n]
        return sorted({*alone, *self._failed.get(first, ())})

    def rows(self) -> Particles | None:
        """The accepted rows, in the order of their addresses, if there are any."""
        if not self._parts:
            return None
        rows = joined(self._parts)
        return rows if self._tries is None else rows.take(np.argsort(np.concatenate(self._addresses)))

    def rejected(self) -> Particles | None:
        """The rejected rows, if there are any."""
        return joined(self._rejected) if self._rejected else None

    def records(self, rows: Particles, began: float, rejected: Particles | None = None) -> Records:
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
        if rejected is not None:
            stride = stride_of(self._order.size, self._problem.step) if self._order.is_static else 0
            records = replace(records, rejected=rejected, stride=stride)
        return records.only(self._is_below_failure()) if self.is_ended else records

    def _is_below_failure(self) -> np.ndarray:
        """Which addresses lie below the failure that ends the run; under static scheduling, none."""
        if self._tries is not None:
            return np.zeros(self.stop - self.start, bool)
        step = self._problem.step
        first = min(failure.index for failure in self.failures) // step * step
        return np.arange(self.start, self.stop) < first


def described(error: BaseException, where: str) -> Description:
    """What was raised here, or on another rank of the team, as a failure tells it."""
    if isinstance(error, OfAnotherError):
        return error.description
    return Description(_in_words(error), _remote_traceback(error), where, is_of_the_outside(error))


def is_of_the_outside(error: BaseException | None) -> bool:
    """Whether something outside of this process may have failed: a program, a file, a connection."""
    while error is not None:
        if isinstance(error, OSError | EOFError) or type(error).__module__ == "subprocess":
            return True
        error = error.__cause__ or error.__context__
    return False


def _in_words(error: BaseException) -> str:
    text = text_of(error)
    if isinstance(error, DistanceError):
        return text
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
