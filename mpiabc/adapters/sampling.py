"""Evaluating one function until so many of its results are accepted: a job, as a generation of a run is one.

Its randomness is addressed as ours is. What it gives is any object with `accepted`; the first n accepted ones
in the order of their ids are the result, however many were evaluated, by whom, and in which order.
"""

import math
import os
import pickle
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np

from mpiabc import guard
from mpiabc.actions import Action, Commit, Done, Open
from mpiabc.adapters.carried import Addressed, Carried
from mpiabc.errors import text_of
from mpiabc.ledger import Ledger
from mpiabc.outcome import is_of_the_outside
from mpiabc.programs import Programs
from mpiabc.raised import Raised
from mpiabc.records import Failure, Records, Status
from mpiabc.signals import is_asked_to_stop


@dataclass(frozen=True, eq=False)
class Sampling:
    """The order to evaluate a function until `size` are accepted, in place of a generation."""

    number: int
    level: int  # as messages name it
    size: int
    key: tuple[int, int]  # of its streams,
    address: int  # and the level of these
    function: Carried
    keeps_rejected: bool = False
    on_error: str | int = "raise"
    errors: Mapping[str, Any] | None = None  # what the user's `np.seterr` says where this is led
    epsilon: float = math.nan
    is_static: bool = False

    def __str__(self) -> str:
        return f"{self.size} particles of generation {self.level}"

    def evaluator(
        self, shared: Any = None, where: str | None = None, watch: Callable[[int], None] | None = None
    ) -> "_Evaluator":
        """What evaluates its ids; `watch` hears of each."""
        return _Evaluator(self, where, watch)


@dataclass(frozen=True)
class Sampled:
    """What came of it."""

    particles: list[Any]  # accepted ones, and rejected ones if they are kept, in the order of their ids
    evaluations: int
    is_complete: bool


class Call:
    """An order as its driver sees it. Leases may come in pieces, and overlap: a particle's id counts."""

    def __init__(self, order: Sampling, most_evaluations: float = math.inf) -> None:
        self.raised: dict[int, Raised] = {}  # by id
        self._order = order
        self._ledger = Ledger(order.number, order.size, most_ids=most_evaluations)
        self._particles: dict[int, Any] = {}  # by id
        self._is_open = False

    @property
    def on_error(self) -> str | int:
        """What is said of failures."""
        return self._order.on_error

    def advance(self, records: Iterable[Records] = ()) -> list[Action]:
        """Take records in."""
        for part in records:
            if self._ledger.tell(part) or part.failures:
                self._take(part)
        if self._ledger.complete or self._ledger.exhausted:
            return [Done("all particles")]
        was_open, self._is_open = self._is_open, True
        return [] if was_open else [Open(self._order, self._ledger)]

    def reopen(self, commit: Commit) -> list[Action]:
        """It commits nothing."""
        return []

    def theta_of(self, order: Any, address: int) -> dict[str, Any]:
        """What is drawn inside the function is not known here."""
        return {}

    def sampled(self) -> Sampled:
        """What is below the cut, or the bound on evaluations."""
        end = int(min(self._ledger.cut, self._ledger.frontier))
        ids = sorted(id for id in self._particles if id < end)
        return Sampled([self._particles[id] for id in ids], end, self._ledger.complete)

    def _take(self, records: Records) -> None:
        """Take particles; what was known of these ids and is in doubt has been forgotten."""
        if not records.payload:
            return
        particles, raised = pickle.loads(records.payload)
        for id in (np.flatnonzero(records.status != Status.UNKNOWN) + records.start).tolist():
            self._particles.pop(id, None)
        self._particles.update(particles)
        self.raised.update(raised)


# The workers' side.


class _Found:
    """What came of the ids of a lease, so far."""

    def __init__(self, order: Sampling, where: str, start: int, stop: int) -> None:
        self.is_exposed = False
        self.is_ended = False  # by a failure that ends the call
        self._order, self._where, self._start, self._stop = order, where, start, stop
        self._status = np.zeros(stop - start, np.uint8)
        self._particles: list[tuple[int, Any]] = []
        self._raised: dict[int, Raised] = {}
        self._failures: list[Failure] = []

    def add(self, id: int, particle: Any) -> None:
        """Take a particle, if it is wanted."""
        is_accepted = bool(particle.accepted)
        self._status[id - self._start] = Status.ACCEPTED if is_accepted else Status.REJECTED
        if is_accepted or self._order.keeps_rejected:
            self._particles.append((id, particle))

    def fail(self, id: int, error: BaseException) -> None:
        """Note a failed evaluation. Raises what is no failure but a stop."""
        if is_asked_to_stop(error):
            raise error
        raised, text = Raised.by(error), f"{type(error).__name__}: {text_of(error)}"
        self._raised[id] = raised
        self._failures.append(Failure(self._order.level, id, {}, text, raised.text, self._where))
        self.is_exposed |= is_of_the_outside(error)
        self.is_ended |= self._order.on_error == "raise"
        self._status[id - self._start] = Status.UNKNOWN if self.is_ended else Status.FAILED

    def records(self, began: float) -> Records:
        """All of it; of what lies above a failure that ends the call, nothing."""
        payload = self._packed()
        return Records(
            self._order.number,
            self._start,
            self._stop,
            self._status,
            failures=tuple(self._failures),
            seconds=time.perf_counter() - began,
            payload=payload,
            is_exposed=self.is_exposed,
        )

    def _packed(self) -> bytes:
        """Particles and what was raised; one that cannot travel is a failure."""
        try:
            return _pickled((self._particles, self._raised))
        except Exception:
            self._let_go_of_what_cannot_travel()
            return _pickled((self._particles, self._raised))

    def _let_go_of_what_cannot_travel(self) -> None:
        particles, self._particles = self._particles, []
        for id, particle in particles:
            try:
                _pickled(particle)
            except Exception as error:
                self.fail(id, error)
                if self.is_ended:
                    self._status[id - self._start :] = Status.UNKNOWN
                    return
            else:
                self._particles.append((id, particle))


def _pickled(value: Any) -> bytes:
    """As bytes, quickly if the classes can be imported."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return cloudpickle.dumps(value)


@dataclass
class _Evaluator:
    """Evaluates the ids of leases, each with random generators put to its own address."""

    order: Sampling
    where: str | None
    watch: Callable[[int], None] | None
    _at: int = field(default=-1, init=False)  # the id in work

    def __post_init__(self) -> None:
        if self.where is None:
            self.where = f"process {os.getpid()} on {platform.node()}"
        self._function, generators = self.order.function.opened()
        self._own = Addressed(generators, self.order.key)
        self._random = guard.GlobalRandom(self.order.key)
        self._floats = guard.FloatingPoint()

    def __call__(self, start: int, stop: int) -> Records:
        """The records of the ids [start, stop)."""
        assert self.where is not None
        began, watched = time.perf_counter(), Programs()
        found = _Found(self.order, self.where, start, stop)
        try:
            with guard.at_work(self), self._floats.steady(), np.errstate(**self._errors()):
                self._evaluate(start, stop, found)
            found.is_exposed |= watched.were_run()
            return found.records(began)
        except KeyboardInterrupt:  # a stop, in the middle of it
            watched.end()
            raise
        finally:
            self._at = -1
            if self.watch:
                self.watch(-1)

    def last_words(self, how: str) -> Failure | None:
        """The failure of the evaluation in work, if one is."""
        if self._at < 0:
            return None
        return Failure(self.order.level, self._at, {}, how, "", self.where or "", "exit")

    def _evaluate(self, start: int, stop: int, found: _Found) -> None:
        function, watch, floats, level = self._function, self.watch, self._floats, self.order.address
        fill, move = self._random.fill, self._own.move
        for id in range(start, stop):
            self._at = id
            if watch:
                watch(id)
            fill(level, id)
            move(level, id)
            try:
                found.add(id, function())
            except BaseException as error:
                found.fail(id, error)
            if not floats.is_default():
                floats.reset()
            if found.is_ended:
                return

    def _errors(self) -> dict[str, Any]:
        return dict(guard.errors_here(self.order.errors))
