"""What failures and deaths lead to: pure verdicts, which are given the time.

A failure ends the run only if it is part of the result: if it lies below the cut. So the same failure is
raised, or none, on every schedule, unless the evaluations below it take seconds.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mpiabc.actions import Open
from mpiabc.errors import ProblemError, SimulatorError
from mpiabc.ledger import fatal
from mpiabc.records import Failure, Records, failed
from mpiabc.schedulers.base import Lost

_MOST_DEATHS = 10  # of workers on the same single evaluation, before it counts as failed
_HURRY = 3.0  # seconds that a failure waits for the evaluations below it
_ALL_MALFORMED = 8  # evaluations, all of the wrong structure, after which the problem is wrong
_ALL_FAIL = 1000  # evaluations, all failed, after which going on is hopeless


class Failures:
    """Those of one open order."""

    def __init__(
        self, opened: Open, on_error: str | int, theta_of: Callable[[Any, int], dict[str, Any]]
    ) -> None:
        self._order, self._ledger, self._on_error = opened.order, opened.ledger, on_error
        self._before, self._theta_of = opened.past.failures, theta_of
        self._lowest = self._known()  # of those that may end the run
        self._raise_at = math.inf
        self._since: dict[str, float] = {}  # when what may end the run became so
        self._deaths: Counter[int] = Counter()  # of workers, by evaluation

    @property
    def cut(self) -> float:
        """From here on evaluations can wait, as the run may end before."""
        if self._lowest is None or self._order.is_static:
            return math.inf
        return self._lowest.index // self._ledger.step * self._ledger.step

    def note(self, failure: Failure, now: float) -> None:
        """Take a failure in, which may end the run."""
        if self._ends_run(failure) and (self._lowest is None or failure.index < self._lowest.index):
            self._lowest = failure
            self._raise_at = min(self._raise_at, now + _HURRY)

    def forget(self, start: int, stop: int) -> None:
        """The ledger has forgotten evaluations; if they had the failure that may end the run, it goes on."""
        if self._lowest is not None and start <= self._ledger.address_of(self._lowest) < stop:
            self._forgive()
            self._lowest = self._known()
            self._ledger.recover()  # what lies above it was given up

    def error(self, now: float, *, is_exposed: bool, notices: float) -> Exception | None:
        """What ends the run now, if anything does.

        is_exposed: a signal that is not seen yet may have been behind what came home; after `notices`
        seconds it would have been.
        """
        lowest, known, ledger = self._lowest, self._ledger.failed, self._ledger
        if lowest is not None and lowest.index >= ledger.cut:
            self._forgive()
            lowest = None
        is_sure = self._is_sure("failure", lowest is not None, now, is_exposed, notices)
        if lowest is not None and is_sure:
            is_known = ledger.frontier >= lowest.index or self._order.is_static  # all below it is
            if is_known or (now >= self._raise_at and not ledger.goes_on):
                return self._of(lowest)
        are_many = isinstance(self._on_error, int) and self._before + known >= self._on_error
        if self._is_sure("many", are_many, now, is_exposed, notices):
            last = fatal(ledger, self._on_error, self._before)
            if last is not None:
                many = f"{self._on_error} evaluations failed, as many as on_error allows; last\n{last}"
                return SimulatorError(many, last)
        known = max(known, ledger.failed_ids())
        are_all = known >= ledger.known > 0 and lowest is None
        if self._is_sure("all", are_all, now, is_exposed, notices):
            return self._of_all(known)
        return None

    def lose(self, lost: Lost) -> Records | None:
        """A worker died: its evaluations go out again, in halves, as one of them may be the cause.

        The record of the evaluation that is the cause, if it is sure. Raises SimulatorError where a slot of
        static scheduling cannot go on without it.
        """
        lease, ledger, step = lost.lease, self._ledger, self._ledger.step
        if lost.culprit is not None and not ledger.counts_now(lease, lost.culprit):
            lost = replace(lost, culprit=None, is_returned=True)
        if lost.culprit is not None:
            return self._condemned(lost, lost.culprit // step * step)
        if lost.is_returned:
            ledger.give_back(lease.start, lease.stop)
            return None
        if lost.suspect is not None and not self._order.is_static:
            start = lost.suspect // step * step
            ledger.give_back(lease.start, start)
            ledger.give_back(start + step, lease.stop)
            lease = lease._replace(start=start, stop=start + step)
        if lease.stop - lease.start > step:
            middle = lease.start + max(step, (lease.stop - lease.start) // 2 // step * step)
            ledger.give_back(lease.start, middle)
            ledger.give_back(middle, lease.stop)
            return None
        self._deaths[lease.start] += 1
        if self._deaths[lease.start] >= _MOST_DEATHS:
            return self._condemned(lost, lease.start)
        ledger.give_back(lease.start, lease.stop)
        return None

    def _condemned(self, lost: Lost, address: int) -> Records:
        """An evaluation counts as failed without a record; the rest of its lease goes out again."""
        why = lost.why if lost.culprit is not None else f"its worker died {_MOST_DEATHS} times: {lost.why}"
        theta = self._theta_of(self._order, address)
        failure = Failure(self._order.level, address, theta, why, "", lost.worker, lost.kind)
        if self._order.is_static and self._on_error != "raise":
            text = f"a slot cannot go on after this, use dynamic scheduling\n{failure}"
            raise SimulatorError(text, failure)
        stop = address + self._ledger.step
        if not self._order.is_static:
            self._ledger.give_back(lost.lease.start, address)
            self._ledger.give_back(stop, lost.lease.stop)
        return failed(failure, stop, self._order.number)

    def _ends_run(self, failure: Failure) -> bool:
        return self._on_error == "raise" or failure.ends_every_run

    def _known(self) -> Failure | None:
        """The lowest failure that the ledger knows and that may end the run."""
        known = filter(self._ends_run, self._ledger.failures)
        return min(known, key=lambda failure: failure.index, default=None)

    def _forgive(self) -> None:
        self._lowest, self._raise_at = None, math.inf
        self._since.pop("failure", None)

    def _is_sure(self, what: str, holds: bool, now: float, is_exposed: bool, notices: float) -> bool:
        """Whether it holds, for so long that a signal which is behind it would have been seen."""
        if not holds:
            self._since.pop(what, None)
            return False
        since = self._since.setdefault(what, now if is_exposed else -math.inf)
        return now >= since + notices

    def _of(self, failure: Failure) -> Exception:
        if failure.kind == "structure" and self._order.level == failure.index == 0:
            return _found(failure)
        if failure.ends_every_run and not failure.traceback:  # it was not raised, but found
            return _found(failure)
        return SimulatorError(str(failure), failure)

    def _of_all(self, known: int) -> Exception | None:
        """The error where nothing will ever come of this."""
        failures = self._ledger.failures_below_cut()
        count = max(len(failures), self._ledger.frontier - self._ledger.first) if failures else 0
        if count >= _ALL_MALFORMED and all(f.kind == "structure" for f in failures):
            return _found(failures[0])
        if count >= _ALL_FAIL:
            last = failures[-1]
            return SimulatorError(f"all of the first {known} evaluations failed; last\n{last}", last)
        return None


def _found(failure: Failure) -> ProblemError:
    """The error of what was not raised, but found, with its evaluation."""
    return ProblemError(f"{failure.error} (evaluation {failure.address}, theta: {failure.values})")
