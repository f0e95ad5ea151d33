"""Rank 0's own core."""

import logging
import math
import time
from collections.abc import Collection
from functools import partial

from mpiabc import team, voice
from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.records import Lease
from mpiabc.schedulers.base import Job, Report, Said, Shared
from mpiabc.schedulers.mpi.leader import Ranks
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.schedulers.serial import SerialEngine
from mpiabc.schedulers.silence import Awaited

_log = logging.getLogger(__name__)


_SLICE = 0.01  # seconds of work of rank 0 between two looks at what the others have sent
_SLOW = 0.005  # seconds a simulation: from here on rank 0 simulates in a child process,
_TOO_SLOW = 0.1  # and from here on not even until the child is up
_SILENT = 0.05  # seconds without a report that tell rank 0 that simulations are slow


class Home:
    """Rank 0's own core.

    Quick evaluations run here, between probes: nothing is started or sent for them. Those that take
    longer than a few milliseconds go to a child process, so that the other ranks never wait for an
    answer, whatever the simulator does to this process's interpreter lock. What they take is learnt from
    the other ranks; if these are silent for a while, they are slow.
    """

    workers = 1

    def __init__(
        self, problem: Shared, where: str, cores: int, ranks: "Ranks | None", who: team.Worker
    ) -> None:
        self._ranks, self._where = ranks, where
        self._since = math.inf
        self._inline = SerialEngine(problem, where, _SLICE, who)
        self._make_child = partial(
            ProcessesEngine, problem, 1, start="spawn", where=where, cores=cores, who=who
        )
        self._has_timeout = problem.timeout is not None
        self._may_have_child = True
        self._child = self._make_child() if self._has_timeout else None
        self._jobs: list[Job] = []  # that are open

    def note_beside(self, store: str) -> None:
        """Note, beside this file, what is evaluated in this process."""
        if not self._has_timeout:
            self._inline.note_beside(store)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start on a job."""
        self._jobs = [*(old for old in self._jobs if old.number in beside), job]
        self._since = min(self._since, time.monotonic())
        self._inline.begin(job, beside)
        if self._child:
            self._child.begin(job, beside)

    def capacity(self, prefetch: bool) -> int:
        """The child's room, or one lease if evaluations are quick enough to run between probes."""
        if self._is_childs_turn():
            return self._child.capacity(prefetch) if self._child else 0
        cost = self._cost
        return self._inline.capacity(prefetch) if cost is not None and cost < _TOO_SLOW else 0

    def submit(self, lease: Lease) -> None:
        """Keep the lease, or pass it to the child."""
        if self._child and self._is_childs_turn():
            self._child.submit(lease)
        else:
            self._inline.submit(lease)

    def poll(self, timeout: float) -> list[Report]:
        """Evaluate here, or hear from the child."""
        pieces: list[voice.Piece] = []
        with voice.heard_by(pieces.append if self._ranks else None):  # else as in any process
            reports = self._inline.poll(0)
        reports += [Said(self._where, piece) for piece in pieces]
        if self._child is None and self._may_have_child and (self._cost or 0.0) > _SLOW:
            self._start_child()
        return reports + self._heard(timeout) if self._child else reports

    def _heard(self, timeout: float) -> list[Report]:
        """What the child says; one that cannot even start is given up, if there is a choice."""
        assert self._child is not None
        try:
            return self._child.poll(timeout)
        except (ProblemError, SchedulerError) as error:
            if self._has_timeout or self._child.is_ready():
                raise
            _log.warning(
                "%s; simulations of rank 0 run between its messages, which may keep others waiting", error
            )
            self._child.close(1)
            self._child, self._may_have_child = None, False
            return []

    def waiting(self) -> list[Lease]:
        """The child's second lease."""
        return self._child.waiting() if self._child else []

    def waits_for(self) -> list[Awaited]:
        """The child."""
        return self._child.waits_for() if self._child else []

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Pass it on."""
        self._inline.cancel(cut, job)
        if self._child:
            self._child.cancel(cut, job)

    def busy(self) -> int:
        """Whether this core works."""
        return self._inline.busy() + (self._child.busy() if self._child else 0)

    def close(self, status: int) -> None:
        """End the child."""
        self._inline.close(status)
        if self._child:
            self._child.close(status)

    def _is_childs_turn(self) -> bool:
        return self._child is not None and (self._has_timeout or self._child.is_ready())

    @property
    def _cost(self) -> float | None:
        """Seconds for one evaluation, as far as heard; the time of silence, if that is long."""
        if self._ranks is None or not self._may_have_child:
            return 0.0  # nobody waits for an answer, or there is no choice
        if self._ranks.cost is not None:
            return self._ranks.cost
        silence = time.monotonic() - self._since
        return max(silence, _TOO_SLOW) if silence > _SILENT else None

    def _start_child(self) -> None:
        try:
            self._child = self._make_child()
        except SchedulerError:  # the problem cannot travel: this process simulates between probes
            self._may_have_child = False
            return
        for i, job in enumerate(self._jobs):
            self._child.begin(job, [other.number for other in self._jobs[:i]])
