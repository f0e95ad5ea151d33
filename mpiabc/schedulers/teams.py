"""Ranks that simulate together: which they are, and the two sides of a team.

Its first rank has leases as one that works alone has. It begins each simulation on the others, which have the
job too and compute theta and streams themselves, and goes on when it has heard of all how it went.
"""

import contextlib
import pickle
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple, Protocol, runtime_checkable

from mpiabc.programs import Programs
from mpiabc.records import Lease, generation_of
from mpiabc.schedulers.base import Lost
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.shared.messages import Kind
from mpiabc.schedulers.shared.worker import Evaluator
from mpiabc.schedulers.together import Backoff
from mpiabc.schedulers.wire import BEGIN_BODY, Wire
from mpiabc.signals import Stop, is_asked_to_stop
from mpiabc.team import Description, OfAnotherError

_PATIENCE = 10.0  # seconds at least in which the others of a team come back when one has failed
_TIMES = 3.0  # as long as the longest simulation so far took, if that is more
_MOST_RENEWALS = 1000  # of a team's communicator: MPICH has some two thousand of them in a process
_GLANCE = 0.1  # seconds between two looks beside a simulation

GO_ON = "run the same command again to go on without it"


def last_words(lost: Lost) -> str:
    """What ends a job whose policy would have it go on, from an evaluation that was given up."""
    if lost.culprit is None:
        return f"{lost.worker}: {lost.why}"
    address = f"{generation_of(lost.lease.job)}:{lost.culprit}"
    return f"evaluation {address} failed on {lost.worker}\n{lost.why}\n{GO_ON}"


@dataclass(frozen=True)
class Plan:
    """Teams, each with its first rank first, and the ranks that are in none."""

    teams: tuple[tuple[int, ...], ...]
    idle: tuple[int, ...] = ()

    @property
    def has_larger(self) -> bool:
        """Whether ranks simulate together."""
        return any(len(ranks) > 1 for ranks in self.teams)

    def numbers(self) -> dict[int, int]:
        """The team of each rank that has one."""
        return {rank: number for number, ranks in enumerate(self.teams) for rank in ranks}


def planned(nodes: Sequence[int | None], size: int) -> Plan:
    """Teams of so many ranks, node by node; one spans nodes only where it is larger than the largest.

    nodes: that of each rank; None for a rank that is to be in no team.
    """
    by_node: dict[int, list[int]] = defaultdict(list)
    for rank, node in enumerate(nodes):
        if node is not None:
            by_node[node].append(rank)
    parts = list(by_node.values())
    if size > max(map(len, parts), default=0):
        parts = [[rank for part in parts for rank in part]]
    teams = [tuple(part[i : i + size]) for part in parts for i in range(0, len(part) - size + 1, size)]
    busy = {rank for ranks in teams for rank in ranks}
    return Plan(tuple(teams), tuple(rank for rank in range(len(nodes)) if rank not in busy))


def remarks(plan: Plan, *, is_threaded: bool) -> Iterator[str]:
    """What the user learns of ranks that are in no team."""
    if 0 in plan.idle:
        why = "too few ranks share its node" if is_threaded else "its MPI takes calls of one thread at a time"
        yield f"rank 0 leads, and is in no team: {why}"
    if idle := [str(rank) for rank in plan.idle if rank]:
        who = f"rank {idle[0]} fills" if len(idle) == 1 else f"ranks {', '.join(idle)} fill"
        yield f"{who} no team of {len(plan.teams[0])}: idle"


class Group:
    """This rank's team, with communicators of its own; all ranks of a run make theirs together."""

    def __init__(self, plan: Plan, rank: int, comm: Comm, users: Comm) -> None:
        """comm: ours; users: what simulators get. COMM_NULL for a rank that is in no team."""
        self.plan, self.comm, self.users = plan, comm, users
        self.renewals = 0
        self.number = plan.numbers().get(rank)
        self.ranks = () if self.number is None else plan.teams[self.number]
        self.leads = self.ranks[:1] == (rank,)

    def renew(self) -> None:
        """Give the simulators another communicator: what a failed one has left in the old is never read."""
        self.renewals += 1
        self.users = self.comm.Dup()

    def revoke(self) -> None:
        """End the calls of simulators that wait for a dead rank, where MPI can."""
        if hasattr(self.users, "Revoke") and not self.users.Is_revoked():
            self.users.Revoke()


def made(library: ModuleType, own: Comm, size: int) -> Group:
    """The teams of so many ranks of a communicator of our own, where all are."""
    plan = planned(own.allgather(_node(library, own)), size)
    number = plan.numbers().get(own.rank)
    comm = own.Split(library.UNDEFINED if number is None else number, own.rank)
    if number is None:
        return Group(plan, own.rank, comm, comm)
    comm.Set_errhandler(library.ERRORS_RETURN)  # which not every MPI hands down
    return Group(plan, own.rank, comm, comm.Dup())


def _node(library: ModuleType, own: Comm) -> int | None:
    """What all ranks of a node call it; None for a rank 0 that cannot simulate beside what it leads."""
    node = own.Split_type(library.COMM_TYPE_SHARED)
    first = node.bcast(own.rank)
    node.Free()
    return first if own.rank or is_threaded(library) else None


def is_threaded(library: ModuleType) -> bool:
    """Whether several threads may call this MPI at once."""
    return library.Query_thread() == library.THREAD_MULTIPLE


class DisbandedError(Stop):
    """A rank of the team has died: what is in work will never be done."""


# The first rank.


class Lead:
    """The first rank's side, in whichever thread that evaluates; `look` is for another one beside it.

    Large, as both threads need all that is known of the simulation in work, under one lock.
    """

    def __init__(
        self,
        group: Group,
        library: ModuleType,
        where: str,
        timeout: float | None,
        give_up: Callable[[Lost], None],
    ) -> None:
        """give_up: hears, once, of an evaluation whose team will not come back from it."""
        self.wire = Wire(group.comm, library, group.ranks)
        self.is_disbanded = self.is_exposed = False
        self._group, self._where, self._timeout, self._give_up = group, where, timeout, give_up
        self._lock = threading.Lock()  # for what is heard
        self._lease = Lease(-1, 0, 0)
        self._at = -1  # the first address in work
        self._out: set[int] = set()  # who is at it still
        self._raised: dict[int, Description] = {}  # what others have raised
        self._own = Description("", "", where, False)
        self._began = self._failed_at = float("inf")
        self._longest = 0.0  # seconds of a simulation so far
        self._is_given_up = self._is_soiled = False
        self._looked = 0.0

    def take(self, lease: Lease) -> None:
        """What is simulated next is of this lease."""
        self._lease, self.is_exposed = lease, False

    @contextlib.contextmanager
    def simulating(self, number: int, at: int) -> Iterator[Comm]:
        """Simulate with the others, and wait for them."""
        self._begin(at)
        raised: BaseException | None = None
        try:
            yield self._group.users
        except BaseException as error:
            if is_asked_to_stop(error):
                raise
            raised, self._failed_at = error, min(self._failed_at, time.monotonic())
            self._own = Description(
                f"{type(error).__name__}: {error}", _users_part(error), self._where, False
            )
        self._gather()
        self._at = -1
        self._is_soiled = bool(self._raised) or raised is not None
        if raised is not None:
            raise raised
        if self._raised:
            raise OfAnotherError(self._raised[min(self._raised)])
        self._longest = max(self._longest, time.monotonic() - self._began)

    def end(self) -> None:
        """Let the others go: the run is over."""
        for other in range(1, len(self._group.ranks)):
            self.wire.send(other, Kind.END)

    def look(self) -> None:
        """See, beside a simulation, whether it can still come to an end; cheap if done often."""
        now = time.monotonic()
        if self._at >= 0 and now > self._looked + _GLANCE:
            self._looked = now
            self._hear()
            if self.wire.failed:
                self._group.revoke()
            self._check(now)

    def _begin(self, at: int) -> None:
        """Have the others simulate, too."""
        if self.is_disbanded:
            raise DisbandedError
        if self._is_soiled and self._group.renewals >= _MOST_RENEWALS:
            self._run_out()
        self._raised.clear()
        self._out = set(range(1, len(self._group.ranks)))
        self._failed_at, self._began = float("inf"), time.monotonic()
        order = BEGIN_BODY.pack(*self._lease, at, self._is_soiled)
        for other in self._out:
            self.wire.send(other, Kind.BEGIN, order)
        if self._is_soiled:
            self._group.renew()
        self._at = at

    def _run_out(self) -> None:
        """Give up, with nothing to blame. Never returns, but for the death of a rank."""
        why = (
            f"{_MOST_RENEWALS} simulations of its team have failed, each of which takes a communicator of MPI"
        )
        why += ": run the same command again to go on"
        self._is_given_up = True
        self._give_up(Lost(self._lease, self._where, why, is_returned=True))
        self._gather()

    def _gather(self) -> None:
        """Wait until all others are back. Raises DisbandedError if one is dead."""
        backoff = Backoff()
        while self._hear() or self._out or self._is_given_up:
            if self.wire.failed:
                self.is_disbanded = True
                raise DisbandedError
            self._check(time.monotonic())
            backoff.wait()

    def _hear(self) -> bool:
        """Take in how it went; whether anybody had something to say."""
        is_any = False
        with self._lock:
            while message := self.wire.receive():
                other, tag, content = message
                is_any = True
                if tag == Kind.WENT:
                    self.is_exposed |= bool(content[0])
                elif tag == Kind.FAILED:
                    self._raised[other] = pickle.loads(content)
                    self._failed_at = min(self._failed_at, time.monotonic())
                self._out.discard(other)
        return is_any

    def _check(self, now: float) -> None:
        """Give up what cannot come to an end."""
        with self._lock:
            is_due = not self._is_given_up and self._at >= 0 and not self.wire.failed
            lost = self._hopeless(now) if is_due else None
            self._is_given_up |= lost is not None
        if lost is not None:
            self._give_up(lost)

    def _hopeless(self, now: float) -> Lost | None:
        """The lease, if the simulation in work cannot come to an end."""
        patience = max(_PATIENCE, _TIMES * self._longest)
        if now > self._failed_at + patience:
            return self._undone(self._raised[min(self._raised)] if self._raised else self._own, patience)
        if self._timeout is not None and now > self._began + self._timeout:
            why = f"the simulation took longer than timeout={self._timeout} s, which ends the job of a team"
            return Lost(self._lease, self._where, why, culprit=self._at, kind="timeout")
        return None

    def _undone(self, raised: Description, seconds: float) -> Lost:
        """The lease of a simulation that one rank has left while others wait in it."""
        why = (
            f"{raised.error}; other ranks of its team are not back {seconds:.0f} s later, which ends the job"
        )
        why = f"{why}\n{raised.traceback}".rstrip()
        return Lost(self._lease, raised.where, why, culprit=self._at, kind="exception")


def _users_part(error: BaseException) -> str:
    """The traceback, from the first function on that is not ours."""
    inner = error.__traceback__
    while inner and inner.tb_frame.f_globals.get("__name__", "").split(".")[0] == "mpiabc":
        inner = inner.tb_next
    return "".join(traceback.TracebackException(type(error), error, inner).format())


# The others.


class Begun(NamedTuple):
    """What the first rank has begun."""

    lease: Lease
    at: int
    is_fresh: bool  # with another communicator


@runtime_checkable
class TakesPart(Protocol):
    """An evaluator whose simulations several ranks may do together."""

    def take_part(self, at: int) -> Description | None:
        """Simulate what begins at this address beside the first rank; what was raised, if anything was."""
        ...


class Follower:
    """The side of a rank that has no leases: of a team, or of none, which is at its end from the start."""

    is_exposed = False

    def __init__(self, group: Group, library: ModuleType) -> None:
        self._group = group
        self.wire = None if group.number is None else Wire(group.comm, library, group.ranks)
        self.is_ended = group.number is None
        self._jobs: deque[tuple[int, Evaluator]] = deque()  # numbers and evaluators, as they came
        self._begun: Begun | None = None  # by the first rank, which may have had its job before us

    @property
    def is_disbanded(self) -> bool:
        """Whether a rank of the team has died."""
        return self.wire is not None and bool(self.wire.failed)

    @property
    def is_free(self) -> bool:
        """Whether the first rank needs this one no more."""
        return self.is_ended or self.is_disbanded

    def keep(self, number: int, evaluator: Evaluator) -> None:
        """What evaluates a job; the first rank may be at an older one still."""
        self._jobs.append((number, evaluator))

    def next(self) -> Begun | None:
        """What is to be simulated now, if anything."""
        if self.wire is None or not self.wire.run or self.is_disbanded or self.is_ended:
            return None
        if self._begun is None and (message := self.wire.receive()):
            _, tag, content = message
            if tag == Kind.END:
                self.is_ended = True
            else:
                job, start, stop, at, is_fresh = BEGIN_BODY.unpack(content)
                self._begun = Begun(Lease(job, start, stop), at, is_fresh)
        if self._begun is None or all(number != self._begun.lease.job for number, _ in self._jobs):
            return None
        begun, self._begun = self._begun, None
        return begun

    def take_part(self, begun: Begun) -> None:
        """Simulate, and say how it went; unless we were asked to stop meanwhile."""
        assert self.wire is not None
        while self._jobs[0][0] != begun.lease.job:
            self._jobs.popleft()
        if begun.is_fresh:
            self._group.renew()
        watched = Programs()
        evaluator = self._jobs[0][1]
        assert isinstance(evaluator, TakesPart)
        raised = evaluator.take_part(begun.at)
        if raised is None:
            self.wire.send(0, Kind.WENT, bytes([watched.were_run()]))
        else:
            self.wire.send(0, Kind.FAILED, pickle.dumps(raised))

    @contextlib.contextmanager
    def simulating(self, number: int, at: int) -> Iterator[Comm]:
        """The first rank has begun it, and waits for what `take_part` says."""
        yield self._group.users

    def look(self) -> None:
        """See, beside a simulation, whether a rank that it waits for is dead."""
        if self.wire is not None:
            self.wire.is_there(0, Kind.BEGIN)
            if self.wire.failed:
                self._group.revoke()
