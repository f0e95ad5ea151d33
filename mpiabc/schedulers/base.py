"""What every scheduler is: a description that opens an engine, and the engine that carries leases.

A scheduler decides *where* evaluations run, never which, and never whether one counts. Who has

- a `map` gives `Map(map)`: static scheduling, each generation one call of it;
- `submit` gives `Futures(executor)`;
- a queue of tasks with an executor's interface, or one that is easily given it, has `Futures`, too;
- a transport of their own writes an `Engine`, nine short methods that carry leases out and records home, and
  a scheduler that opens it: `examples/extending/scheduler.py` is one of forty lines;

and a class of three lines that inherits `mpiabc.testing.SchedulerTests` says whether it holds.
"""

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Protocol

from mpiabc.arguments import whole
from mpiabc.errors import SchedulerError
from mpiabc.records import Lease, Records
from mpiabc.schedulers.silence import Awaited
from mpiabc.signals import DOUBT
from mpiabc.voice import Piece

if TYPE_CHECKING:
    from mpiabc.fingerprint import Fingerprint


@dataclass(frozen=True)
class Lost:
    """A lease that will bring no records: its worker died, with the evaluations unfinished.

    `culprit` is the id of the evaluation that is sure to be the cause, `kind` what it did: "timeout" or
    "exit". `suspect` is the id that was in work when the worker died. `is_returned`: nothing died; the worker
    left, never got or never began the lease, or brings it back.
    """

    lease: Lease
    worker: str
    why: str
    culprit: int | None = None
    is_returned: bool = False
    kind: str = "death"
    suspect: int | None = None


@dataclass(frozen=True)
class Doubted:
    """Leases that came home shortly before their worker was asked to stop: they count for nothing."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True)
class Said:
    """What a user's function has written, in a worker."""

    worker: str
    piece: Piece


Report = Records | Lost | Doubted | Said


class Recent:
    """The leases that a worker has brought home within the last seconds."""

    def __init__(self, seconds: float = DOUBT) -> None:
        self._seconds = seconds
        self._leases: deque[tuple[float, Lease]] = deque()

    def add(self, lease: Lease, now: float | None = None) -> None:
        """It has come home now."""
        now = time.monotonic() if now is None else now
        self._leases.append((now, lease))
        self._forget_old(now)

    def doubted(self, now: float | None = None) -> Doubted:
        """All of them."""
        self._forget_old(time.monotonic() if now is None else now)
        return Doubted(tuple(lease for _, lease in self._leases))

    def _forget_old(self, now: float) -> None:
        while self._leases and self._leases[0][0] < now - self._seconds:
            self._leases.popleft()


class Away(SchedulerError):  # noqa: N818 (a state, as Interrupted is)
    """Raised by `poll` of an engine that has lost touch with its workers for long, and holds no lease.

    It tries on whenever it is polled: where others work too, they can go on without it.
    """


def notices_within(engine: "Engine") -> float:
    """Seconds after which it is known whether a worker was asked to stop."""
    return getattr(engine, "notices_within", DOUBT)


def count(workers: object, asked: str) -> int:
    """How many workers a user asks for. Raises SchedulerError, which begins with what is `asked`."""
    n = whole(workers)
    if n is None or n < 1:
        raise SchedulerError(f"{asked}: give a whole number of at least 1")
    return n


def target(engine: "Engine") -> float:
    """Seconds of work in a lease that suit an engine: what it names as `target`, or a twentieth."""
    return getattr(engine, "target", 0.05)


def awaited(engine: "Engine") -> list[Awaited]:
    """Whom a run waits for, as far as the engine can say: what its `waits_for` gives, if it has one."""
    return getattr(engine, "waits_for", list)()


def at_work(engine: "Engine") -> list[Awaited]:
    """Who holds leases, without a question to anybody: what `at_work` gives, or `waits_for` without that."""
    ask = getattr(engine, "at_work", None)
    return awaited(engine) if ask is None else ask()


def has_several_open(engine: "Engine") -> bool:
    """Whether an engine can work on several jobs at once: its `begin` takes `beside`."""
    return len(signature(engine.begin).parameters) > 1


def begin(engine: "Engine", job: "Job", beside: Collection[int] = ()) -> None:
    """Have an engine work on a job, and on with those beside it; engines that know one at a time may do."""
    if beside:
        engine.begin(job, beside)
    else:
        engine.begin(job)


def cancel(engine: "Engine", cut: float, job: int | None = None) -> None:
    """Have an engine cancel what lies above a job's cut; the newest job's, as all engines can."""
    if job is None:
        engine.cancel(cut)
    else:
        engine.cancel(cut, job)


class Shared(Protocol):
    """What an engine is opened for, and all its jobs share: a Problem, or what stands in its place.

    It travels to workers by cloudpickle; ranks of a job have built their own.
    """

    @property
    def timeout(self) -> float | None:
        """Seconds that one simulation may take."""
        ...

    @property
    def step(self) -> int:
        """Ids that leases are multiples of."""
        ...

    @property
    def on_error(self) -> str | int:
        """What is to become of failures; "raise" ends the run at the first one."""
        ...

    @property
    def fingerprint(self) -> "Fingerprint":
        """Its code and values."""
        ...

    def parts(self) -> dict[str, str]:
        """What ranks must have alike, as texts by name."""
        ...

    def arrived(self) -> "Shared":
        """This, in a process that it has travelled to. Raises ProblemError where it cannot be used."""
        ...


class Job(Protocol):
    """What leases belong to: a level of a run, a map. It travels to workers by cloudpickle, once.

    `str(job)` is a line for the worker's log.
    """

    @property
    def number(self) -> int:
        """What leases and records know it by; of two that an engine has had, no two are equal."""
        ...

    def evaluator(
        self, shared: Shared, where: str | None = None, watch: Callable[[int], None] | None = None
    ) -> Callable[[int, int], Records]:
        """What turns the addresses [start, stop) of a lease into records, in the worker.

        `shared`: what the engine was opened for, such as a Problem. `where` the worker is, for failures;
        `watch` is to hear of each address before it is begun, and -1 at the end.
        """
        ...


class Engine(Protocol):
    """Workers that are up: they take leases of the jobs that are open, of one after another if not several.

    One whose messages are dear may name, as its `target`, the seconds of work that a lease should have;
    one that notices late that a worker was asked to stop names, as `notices_within`, how late. One whose
    workers end the run with themselves may have `note_beside(store)`: called once, before `begin`, it has
    them note what they evaluate (`whereabouts`), beside the file of the run. One that knows its workers says
    by `waits_for() -> list[Awaited]` who is at what, when nothing has come home for long; one that has to ask
    somebody for that says by `at_work()`, which is called every second, what it knows without.

    All methods return at once but `poll`, which waits for a report at most `timeout` seconds.
    """

    @property
    def workers(self) -> int:
        """How many evaluate at once, as far as known."""
        ...

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Work on this job from now on, and on with those of the numbers `beside`; all others are over.

        Busy workers join when they are free. `beside` is given only where several jobs are open at once, and
        to engines that take it: what others drop with an older job is handed out again when nobody works.
        """
        ...

    def capacity(self, prefetch: bool) -> int:
        """Leases it would take now; with `prefetch`, one more for each worker than it can work on."""
        ...

    def submit(self, lease: Lease) -> None:
        """Give a lease to the worker that will be free first."""
        ...

    def poll(self, timeout: float) -> list[Report]:
        """What has come in: records, of any job, lost leases, those in doubt now, and what was written."""
        ...

    def waiting(self) -> list[Lease]:
        """Leases that were submitted and have not begun: they wait behind another one."""
        ...

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Addresses from `cut` on are not wanted any more; what has not begun need not begin.

        `job`: of which one; by default, and if one is open, the newest. A later `cut` may be larger: then all
        workers are informed.
        """
        ...

    def busy(self) -> int:
        """Workers that hold a lease."""
        ...

    def close(self, status: int) -> None:
        """End all workers: 0 after success, 1 after an error, another status if the run can go on."""
        ...


class Scheduler(Protocol):
    """A description of where to run."""

    is_static: bool

    def leads(self) -> bool:
        """Whether this process runs the algorithm; the others `serve`."""
        ...

    def open(self, problem: Shared) -> Engine:
        """Start, or greet, the workers."""
        ...

    def serve(self, problem: Shared) -> None:
        """Work for the process that leads until it says that the run is over."""
        ...


class OneLeads:
    """A scheduler whose workers are no ranks of the job: the process that has it leads, and nobody serves."""

    is_static = False

    def leads(self) -> bool:
        """Always."""
        return True

    def serve(self, problem: Shared) -> None:
        """Never called."""


# What a scheduler may have besides.


def works_in_threads(scheduler: Scheduler) -> bool:
    """Whether its workers are threads of one process, which share what a process has only one of."""
    return getattr(scheduler, "works_in_threads", lambda: False)()


def hold(scheduler: Scheduler) -> bool:
    """Whether this process leads; others serve all that the leading one opens, until it releases them."""
    by_itself = getattr(scheduler, "hold", None)
    if by_itself is not None:
        return by_itself()
    if not scheduler.leads():
        raise SchedulerError(f"{scheduler} cannot hold its other processes for one engine after another")
    return True


def are_gone(scheduler: Scheduler) -> bool:
    """Whether the processes that it held have been released."""
    return getattr(scheduler, "are_gone", lambda: False)()
