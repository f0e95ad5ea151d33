"""What a rank says to rank 0, and what it may say of doubtful things."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mpiabc import voice
from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.records import Failure, Lease, Records
from mpiabc.schedulers import teams
from mpiabc.schedulers.base import Lost, Report, Said
from mpiabc.schedulers.mpi.nearby import Nearby
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing
from mpiabc.schedulers.shared.worker import UNWANTED
from mpiabc.schedulers.wire import SECONDS_BODY, Wire
from mpiabc.signals import Signals

_SILENCE = 10.0  # seconds after which a rank that failed takes rank 0 for stuck, and ends the job


class Speech:
    """The words of one rank. Before rank 0 has greeted, what it must hear of the rank itself is kept."""

    def __init__(self, wire: Wire, where: str, signals: Signals, nearby: Nearby) -> None:
        """nearby: has the jobs that another rank of the node has asked for."""
        self._wire, self._where, self._signals, self._nearby = wire, where, signals, nearby
        self.on_error: str | int = "raise"  # the problem's, as soon as there is one
        self.failure = ""  # not answered yet
        self._give_up_at = math.inf
        self.is_refused = False  # no lease is taken here
        self._refusal: tuple[int, bytes] | None = None  # until rank 0 has heard it
        self._is_signalled = False

    def tell(self, answer: Answer | Report) -> None:
        """Say it; of records, whether a signal came meanwhile is reported first."""
        if isinstance(answer, Missing) and not self._nearby.must_ask(answer.job, self._wire.run):
            return
        if not isinstance(answer, Records):
            self._wire.tell(0, answer)
            return
        self._pass_signal_on()
        if self._signals.seen:
            self.give_back(answer.lease)
            return
        self._wire.tell(0, answer)
        if answer.failures and self._ends_run(answer.failures[0]):
            self.failure = str(answer.failures[0])
            self._give_up_at = time.monotonic() + _SILENCE

    @property
    def is_overdue(self) -> bool:
        """Whether rank 0 should have answered a failure long ago."""
        return bool(self.failure) and time.monotonic() > self._give_up_at

    def say(self, piece: voice.Piece) -> None:
        """Pass on what a user's function has written."""
        self._wire.tell(0, Said(self._where, piece))

    def give_back(self, lease: Lease) -> None:
        """What came of the lease is no outcome."""
        self._wire.tell(0, Lost(lease, self._where, UNWANTED, is_returned=True))

    def give_up(self, lost: Lost) -> None:
        """The team will not come back from this evaluation: rank 0 is to end the job."""
        self._wire.tell(0, lost)
        if self.on_error != "raise":
            self.broken(teams.last_words(lost))

    def exits(self, lease: Lease, failure: Failure) -> None:
        """The evaluation in work has called C's exit."""
        lost = Lost(lease, self._where, failure.error, culprit=failure.index, kind="exit")
        self._wire.tell(0, lost)
        if self.on_error != "raise":
            self.broken(f"{failure}\nrun the same command again to go on without it")

    def broken(self, why: str) -> None:
        """This rank cannot go on, and ends the run."""
        self._wire.send(0, Kind.BROKEN, why.encode())

    @contextmanager
    def refusal_noted(self) -> Iterator[None]:
        """Note that the problem, or its job, cannot be had here or in the child: it ends the run."""
        try:
            yield
        except (ProblemError, SchedulerError) as error:
            kind = Kind.REFUSED if isinstance(error, ProblemError) else Kind.BROKEN
            self.is_refused = True
            self._refusal = kind, f"{self._where} cannot work: {error}".encode()

    def pass_on(self) -> None:
        """Say what has waited until rank 0 greeted: that a signal came, that this rank cannot work."""
        self._pass_signal_on()
        if self._refusal and self._wire.run:
            self._wire.send(0, *self._refusal)
            self._refusal = None

    def _pass_signal_on(self) -> None:
        """Tell rank 0, once, of a signal, and how long ago it came: what was sent since then is doubtful."""
        if self._signals.seen and self._wire.run and not self._is_signalled:
            self._is_signalled = True
            self._wire.send(0, Kind.SIGNALLED, SECONDS_BODY.pack(time.monotonic() - self._signals.at))

    def _ends_run(self, failure: Failure) -> bool:
        return self.on_error == "raise" or failure.ends_every_run
