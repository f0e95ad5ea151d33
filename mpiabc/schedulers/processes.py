"""Evaluation in processes of this machine: the leading side, and below it the child's.

A child is forked where that is safe, which is instant and takes any simulator. Elsewhere (threads,
MPI, JAX, macOS) it is a new interpreter that gets the problem through cloudpickle, functions of a
script or notebook by value; it never imports the script again.
"""

import contextlib
import ctypes
import math
import mmap
import os
import platform
import resource
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any, NamedTuple

import cloudpickle

from mpiabc import guard, machine, mapped, programs, team, threads, voice
from mpiabc.errors import Error, ProblemError, SchedulerError
from mpiabc.records import Lease, Records
from mpiabc.schedulers import parcels
from mpiabc.schedulers.alone import ALONE
from mpiabc.schedulers.base import Doubted, Job, Lost, OneLeads, Recent, Report, Said, count
from mpiabc.schedulers.crew import Crew
from mpiabc.schedulers.reaper import Reaper
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, Order, answer_of, encoded, order_of
from mpiabc.schedulers.shared.worker import Evaluator, Worker
from mpiabc.schedulers.silence import Awaited
from mpiabc.signals import leave_to_leader, that_ask_to_stop, were_left_since

#: A child is alone in a world of its own; Open MPI leaves the memory of such a one behind if it may share it.
_MPI_OF_ITS_OWN = {"OMPI_MCA_btl": "^sm"}
_ENDING = 2.0  # seconds in which children that have begun an MPI may end it, lest it leaves shared memory
_TRIES = 2  # starts of each child, while none comes up
_SEEN = 0.5  # seconds between two polls that count as a simulation's time: in longer gaps we were suspended
_DESCRIPTORS_OF_A_CHILD = 4  # pipe, pidfd, the file of its watch and that of its memory
_DESCRIPTORS = 20  # for the store, and for what else comes
_UNSAFE_TO_FORK = ("jax", "torch", "tensorflow")


class Processes(OneLeads):
    """`n` processes of this machine; all its cores by default."""

    def __init__(self, n: int | None = None, *, start: str | None = None, renew: int | None = None) -> None:
        """start: "fork", "spawn", or None for fork where that is safe.

        renew: simulations after which a process makes room for a new one, for simulators that lose memory.
        """
        self.n = n
        self.start = start
        self.renew = renew

    def __repr__(self) -> str:
        return f"Processes({'' if self.n is None else self.n})"

    def open(self, problem: Any) -> "ProcessesEngine":
        """Start the processes. Raises SchedulerError if that cannot be."""
        n = machine.cores() if self.n is None else count(self.n, f"Processes({self.n!r})")
        if self.start not in (None, "fork", "spawn"):
            raise SchedulerError(f'Processes(start={self.start!r}): give "fork", "spawn", or None')
        return ProcessesEngine(problem, n, start=self.start, renew=self.renew)


def fork_is_safe() -> bool:
    """No thread, no MPI and no library in this process that a fork would break."""
    return (
        sys.platform == "linux"
        and threading.active_count() == 1
        and not any(name in sys.modules for name in _UNSAFE_TO_FORK)
        and not _has_mpi()
    )


def _has_mpi() -> bool:
    """Whether MPI has begun in this process."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized()


class ProcessesEngine:
    """Children, each on its own pipe; a child that dies is replaced, its lease reported as lost.

    A simulation that takes longer than the problem's timeout is ended with its child, whatever it does
    to the interpreter lock: each child notes in shared memory what it evaluates since when, which costs
    less than a microsecond a simulation. `cores` are for all children together. A child that has done `renew`
    simulations is replaced when it holds no lease: it gets none any more.
    """

    def __init__(
        self,
        problem: Any,
        n: int,
        *,
        start: str | None = None,
        where: str | None = None,
        cores: int | None = None,
        renew: int | None = None,
        who: team.Worker | None = None,
    ) -> None:
        """who: as which worker the children evaluate; by default each has its number as local rank."""
        self._renew = math.inf if renew is None else count(renew, f"renew={renew!r}")
        is_forked = fork_is_safe() if start is None else start == "fork"
        self.workers = n
        self._timeout = problem.timeout
        self._where, self._who = where, who
        share = max(1, (machine.cores() if cores is None else cores) // n)
        self._start = (_Forked if is_forked else _Spawned)(problem, where, share)
        self._selector = selectors.DefaultSelector()
        self._jobs = Jobs()
        self._crew: Crew[_Child] = Crew()  # those that have come up
        self._polled = time.monotonic()
        self._births = 0  # since a child has come up
        self._reaper = Reaper()
        self._children: list[_Child] = []
        self._start_all(n)

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start on a job; each child hears of it with its first lease."""
        self._jobs.begin(job, beside)
        self._crew.begin(job.number, beside)

    def is_ready(self) -> bool:
        """Whether any child has come up."""
        return len(self._crew) > 0

    def capacity(self, prefetch: bool) -> int:
        """Free places of the children that are up."""
        return self._crew.room(prefetch)

    def submit(self, lease: Lease) -> None:
        """Give the lease to the child with the fewest."""
        child = self._crew.give(lease)
        if lease.job not in child.jobs:
            self._describe(child, lease.job)
        child.send(lease)

    def _describe(self, child: "_Child", number: int) -> None:
        """Let a child have an open job; those that are closed it lets go."""
        child.send(self._jobs.sent_by(child.parcels, number))
        child.jobs = {job for job in child.jobs if job in self._jobs} | {number}

    def poll(self, timeout: float) -> list[Report]:
        """Records and lost leases; returns early when there are any."""
        reports: list[Report] = []
        events = self._selector.select(timeout)
        for child in {key.data.child for key, _ in events if isinstance(key.data, _Death)}:
            _kill_group(child.process.pid)  # its programs may hold the pipe open
            if not child.connection.poll():
                reports += self._bury(child)
        for key, _ in events:
            child = key.data
            if not isinstance(child, _Child) or child not in self._children:
                continue
            try:
                kind, content = _received(child.connection)
            except (EOFError, OSError):
                reports += self._bury(child)
                continue
            reports += self._heard(child, kind, content)
            if self._is_due(child) and not self._held_by(child):
                self._bury(child)
        return reports + self._overdue()

    def _heard(self, child: "_Child", kind: int, content: memoryview) -> list[Report]:
        """What a child has said. Raises ProblemError, SchedulerError where it cannot work."""
        if kind in (Kind.BROKEN, Kind.REFUSED):
            error = ProblemError if kind == Kind.REFUSED else SchedulerError
            raise error(f"process {child.process.pid} cannot work: {bytes(content).decode()}")
        if kind == Kind.HELLO:
            self._welcome(child, has_mpi=bool(content[0]))
            return []
        answer: Answer = answer_of(kind, content, self._name(child))
        match answer:
            case Records():
                self._note_home(child, answer)
            case Lost():
                self._crew.take(child, answer.lease)
            case Doubted():
                return [child.recent.doubted()]
            case Missing():
                child.send(self._jobs.whole(answer.job))
                return []
        return [answer]

    def _welcome(self, child: "_Child", has_mpi: bool) -> None:
        """A child has come up."""
        self._births, child.has_mpi = 0, has_mpi
        if child not in self._crew:
            self._crew.join(child, 1)

    def _note_home(self, child: "_Child", records: Records) -> None:
        lease = self._crew.answered(child, records.job, records.start)
        if lease is not None:
            child.recent.add(lease)
        child.simulations += records.simulations
        if self._is_due(child):
            self._crew.retire(child)

    def _overdue(self) -> list[Lost]:
        """The leases of children whose simulation has taken too long."""
        now, before = time.monotonic(), self._polled
        self._polled = now
        if self._timeout is None:
            return []
        lost: list[Lost] = []
        for child in list(self._children):
            index = child.spend(min(now - before, _SEEN))
            if index is not None and self._held_by(child) and child.spent > self._timeout:
                first, *others = self._bury(child)
                why = f"the simulation took longer than timeout={self._timeout} s"
                lost += [Lost(first.lease, first.worker, why, culprit=index, kind="timeout"), *others]
        return lost

    def wake_on(self, before: int | None, fd: int | None) -> None:
        """Let something to read on `fd` end the wait of `poll` from now on, instead of `before`."""
        with contextlib.suppress(KeyError, ValueError):
            if before is not None:
                self._selector.unregister(before)
        if fd is not None:
            self._selector.register(fd, selectors.EVENT_READ)

    def held(self) -> list[Lease]:
        """All leases that children have not answered."""
        return [lease for child in self._crew for lease in self._crew.leases(child)]

    def _held_by(self, child: "_Child") -> list[Lease]:
        """What a child has not answered, if it has come up; the oldest is in work."""
        return self._crew.leases(child) if child in self._crew else []

    def waiting(self) -> list[Lease]:
        """Second leases of busy children."""
        return self._crew.waiting()

    def waits_for(self) -> list[Awaited]:
        """Children at work, each with its evaluation, and those that have not come up."""
        return [
            child.awaited(self._name(child), held)
            for child in self._children
            if (held := self._held_by(child)) or child not in self._crew
        ]

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Children skip leases above the cut that they have not begun."""
        order, is_for_all = self._jobs.cancel(cut, job)
        for child in self._crew:
            if is_for_all or self._crew.ahead(child):
                child.send(order)

    def busy(self) -> int:
        """Children that hold a lease."""
        return self._crew.busy()

    def close(self, status: int) -> None:
        """End the children: nothing of theirs is wanted any more."""
        for child in self._children:
            child.connection.close()
        polite = [child for child in self._children if child.has_mpi or not self._held_by(child)]
        _await([child.death.fd for child in polite if child.death], _ENDING)
        for child in self._children:
            child.process.end()
            self._reaper.remove(child.process.pid)
            child.close()
        self._reaper.end()
        self._start.close()
        self._selector.close()

    def _start_all(self, n: int) -> None:
        """Start n children, or leave none. Raises SchedulerError."""
        try:
            _check_descriptors(n)
            while len(self._children) < n:
                self._children.append(self._new_child())
        except SchedulerError:
            self.close(1)
            raise

    def _new_child(self) -> "_Child":
        """Start a child; the pipe ends of its siblings are not for it."""
        self._births += 1
        if self._births > _TRIES * self.workers:
            raise SchedulerError("worker processes die as soon as they start; see their messages above")
        siblings = [child.connection for child in self._children]
        number = min(set(range(self.workers)) - {child.number for child in self._children})
        who = self._who or team.Worker(platform.node(), local_rank=number)
        try:
            with contextlib.ExitStack() as opened:
                watch = Watch()
                opened.callback(watch.close)
                process, connection = self._start([*siblings, self._reaper], watch, who)
                opened.pop_all()
        except OSError as error:
            there = len(self._children)
            raise SchedulerError(
                f"worker process {there + 1} of {self.workers} cannot be started ({error.strerror}): take "
                f"fewer, as in scheduler=Processes({max(1, there)}), or raise the limit (ulimit -u for "
                "processes, -n for open files)"
            ) from None
        self._reaper.add(process.pid)
        child = _Child(process, connection, watch, number)
        if isinstance(process, _ForkedProcess):
            self._crew.join(child, 1)
        self._selector.register(connection, selectors.EVENT_READ, child)
        if child.death is not None:
            self._selector.register(child.death.fd, selectors.EVENT_READ, child.death)
        return child

    def _is_due(self, child: "_Child") -> bool:
        """Whether it is to be replaced."""
        return child.simulations >= self._renew

    def _bury(self, child: "_Child") -> list[Lost]:
        self._selector.unregister(child.connection)
        if child.death is not None:
            self._selector.unregister(child.death.fd)
        held = self._crew.leave(child) if child in self._crew else []
        if child.has_mpi and child.death is not None and not held:
            child.connection.close()  # it ends by itself, and what it has begun of MPI with it
            _await([child.death.fd], _ENDING)
        ending = child.process.end()
        self._reaper.remove(child.process.pid)
        culprit, (suspect, _) = child.watch.exited(), child.watch.read()
        child.close()
        self._children.remove(child)
        self._children.append(self._new_child())
        where = self._name(child)
        why = f"the process {ending}"
        lost = [Lost(lease, where, why, is_returned=True) for lease in held]
        if culprit is not None and lost:
            lost[0] = Lost(lost[0].lease, where, guard.EXITED, culprit=culprit, kind="exit")
        elif lost:  # those behind it had not begun
            lost[0] = Lost(lost[0].lease, where, why, suspect=suspect if suspect >= 0 else None)
        return lost

    def _name(self, child: "_Child") -> str:
        return self._where or f"process {child.process.pid} on {platform.node()}"


def _check_descriptors(n: int) -> None:
    """Raise SchedulerError if this process may not open as many files as n children need."""
    try:
        most, used = resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(os.listdir("/dev/fd"))
    except OSError:
        return
    room = (most - used - _DESCRIPTORS) // _DESCRIPTORS_OF_A_CHILD
    if most != resource.RLIM_INFINITY and n > room:
        raise SchedulerError(
            f"{n} worker processes need {n * _DESCRIPTORS_OF_A_CHILD} open files, and this process may have "
            f"{most}, of which {used} are in use (ulimit -n): raise the limit, or take fewer, as in "
            f"scheduler=Processes({max(1, room)})"
        )


class _Child:
    """A worker process as its leader sees it."""

    def __init__(self, process: "_Process", connection: Connection, watch: "Watch", number: int) -> None:
        self.watch = watch
        self.number = number  # of those that it was started with
        self.process = process
        self.death = _Death.awaited(self)
        self.connection = connection
        self.recent = Recent()
        self.simulations = 0
        self.born = time.monotonic()
        self.spent = 0.0  # seconds that its simulation has taken, as far as we were there to see
        self._since: tuple[int, float] = (-1, 0.0)
        self.jobs: set[int] = set()  # that it has
        self.parcels = parcels.Sender()
        self.has_mpi = False  # of its own

    def spend(self, seconds: float) -> int | None:
        """Add to what the simulation in work has taken; its id, if there is one."""
        noted = self.watch.read()
        if noted != self._since:
            self._since = noted
            self.spent = max(0.0, min(seconds, time.monotonic() - noted[1]))
        else:
            self.spent += seconds
        return noted[0] if noted[0] >= 0 else None

    def awaited(self, name: str, held: list[Lease]) -> Awaited:
        """What it is at, as somebody waits for it; one that holds nothing has not come up."""
        (index, since), now = self.watch.read(), time.monotonic()
        if not held:
            return Awaited(name, "its start", now - self.born)
        if index < 0:
            return Awaited(name, str(held[0]))
        return Awaited(name, str(Lease(held[0].job, index, index + 1)), now - since)

    def close(self) -> None:
        """Close our ends."""
        self.connection.close()
        self.watch.close()
        if self.death is not None:
            os.close(self.death.fd)

    def send(self, order: Order) -> None:
        """Send, if it lives; that it died is seen by the next poll."""
        with contextlib.suppress(OSError):
            _send(self.connection, *encoded(order))


class _Death(NamedTuple):
    """A descriptor that can be read when a child has died, whoever else holds its pipe open."""

    child: _Child
    fd: int

    @classmethod
    def awaited(cls, child: _Child) -> "_Death | None":
        """None where the system has no such descriptors: the end of the pipe must do there."""
        try:
            return cls(child, os.pidfd_open(child.process.pid))
        except (AttributeError, OSError):
            return None


def _await(fds: list[int], seconds: float) -> None:
    """Wait until all of these can be read, at most so long."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fd)


_NEVER = -1.0


class Watch:
    """What a child evaluates since when, in memory that it shares with its leader."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
            self.file.write(struct.pack("<qd", -1, 0.0))
            self.file.flush()
        else:
            self.file = open(fd, "r+b", closefd=False)  # noqa: SIM115
        self._memory = mmap.mmap(self.file.fileno(), 16)

    def __call__(self, index: int) -> None:
        """Note an id, -1 for none; the time goes first, so that an id is never seen with an older one."""
        struct.pack_into("<d", self._memory, 8, time.monotonic())
        struct.pack_into("<q", self._memory, 0, index)

    def read(self) -> tuple[int, float]:
        """The id, and since when (of the monotonic clock)."""
        return struct.unpack_from("<qd", self._memory)

    def exit(self) -> None:
        """Note that the evaluation in work has ended its process."""
        struct.pack_into("<d", self._memory, 8, _NEVER)

    def exited(self) -> int | None:
        """The id that has ended its process, if one has."""
        index, since = self.read()
        return index if since == _NEVER else None

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        self.file.close()


def _kill_group(pid: int) -> None:
    """Kill the programs that a child has started, and the child if it has got to a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _ForkedProcess:
    """A process without an image of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def end(self) -> str:
        """Kill it, if it lives, and say how it ended."""
        _kill_group(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            return "ended"
        return _ending(os.waitstatus_to_exitcode(status))


class _SpawnedProcess:
    """A new interpreter."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen

    def end(self) -> str:
        """Kill it, if it lives, and say how it ended."""
        _kill_group(self.pid)  # nobody has waited for it yet, so that is its number still
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return _ending(self._popen.wait())


_Process = _ForkedProcess | _SpawnedProcess


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def fork() -> int:
    """A fork. Python's advice against it, where a library has threads, is none of the user's errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class _Forked:
    """Starts children by fork: they have the problem already, and the leader's limit of threads."""

    def __init__(self, problem: Any, where: str | None, cores: int) -> None:
        self._problem, self._where = problem, where
        self.close = threads.limit(cores)

    def __call__(
        self, not_its: list[Any], watch: Watch, who: team.Worker
    ) -> tuple[_ForkedProcess, Connection]:
        ours, theirs = _pipe()
        voice.flush()
        pid = fork()
        if pid:
            theirs.close()
            return _ForkedProcess(pid), ours
        try:
            for name in set(os.environ) - programs.environment().keys():
                del os.environ[name]
            os.environ.update(_MPI_OF_ITS_OWN)
            for end in [ours, *not_its]:
                end.close()
            _serve(theirs, watch, who, lambda: (self._problem, self._where))
        finally:
            os._exit(0)


class _Spawned:
    """Starts children as new interpreters; they get the problem as their first message."""

    def __init__(self, problem: Any, where: str | None, cores: int) -> None:
        self._problem = travelling((problem, where))
        own = programs.environment() | _MPI_OF_ITS_OWN
        self._environment = own | threads.environment(cores)

    def __call__(
        self, not_its: list[Any], watch: Watch, who: team.Worker
    ) -> tuple[_SpawnedProcess, Connection]:
        ours, theirs = _pipe()
        fds = theirs.fileno(), watch.file.fileno()
        numbers = list(map(int, that_ask_to_stop()))
        program = (
            "import signal, sys\n"
            f"for number in {numbers}: signal.signal(number, lambda number, frame: None)\n"
            f"sys.path[:] = {sys.path!r}\nsys.argv[:] = {sys.argv!r}\n"
            f"from mpiabc.schedulers.processes import main; main{fds}"
        )
        popen = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            env=self._environment,
        )
        theirs.close()
        ours.send_bytes(cloudpickle.dumps(who))
        ours.send_bytes(self._problem)
        return _SpawnedProcess(popen), ours

    def close(self) -> None:
        """Nothing was changed in this process."""


def travelling(problem: Any) -> bytes:
    """The problem as bytes. Raises SchedulerError if it cannot be sent to another process."""
    try:
        return mapped.dumps(problem)
    except Exception as error:
        raise SchedulerError(
            f"the problem cannot be sent to another process: {type(error).__name__}: {error}; "
            'make what the simulator uses picklable, or use scheduler="serial" or "mpi"'
        ) from error


def _pipe() -> tuple[Connection, Connection]:
    return tuple(Connection(end.detach()) for end in socketpair())  # type: ignore[return-value]


_HEAD = struct.Struct("<q")  # the kind of a message, so wide that arrays behind it are aligned


def _send(connection: Connection, kind: int, content: bytes) -> None:
    connection.send_bytes(_HEAD.pack(kind) + content)


def _received(connection: Connection) -> tuple[int, memoryview]:
    """The kind of the next message, and its content. Raises EOFError, OSError where none will come."""
    message = connection.recv_bytes()
    return _HEAD.unpack_from(message)[0], memoryview(message)[_HEAD.size :]


# The child's side.


def main(fd: int, watch_fd: int) -> None:
    """A spawned child: who it is and the problem, then orders until the leader closes the pipe."""
    connection = Connection(fd)
    try:
        who = cloudpickle.loads(connection.recv_bytes())
    except EOFError:
        return
    _serve(connection, Watch(watch_fd), who, lambda: _arrived(connection.recv_bytes()))


def _arrived(content: bytes) -> tuple[Any, str | None]:
    problem, where = cloudpickle.loads(content)
    return problem.arrived(), where


def _serve(
    connection: Connection,
    watch: Watch,
    who: team.Worker,
    get_problem: Callable[[], tuple[Any, str | None]],
) -> None:
    """Evaluate leases in order until the pipe closes."""
    _follow_parent()
    with (
        team.being(who, ALONE),
        voice.heard_by(lambda piece: _send(connection, *encoded(Said("", piece)))),
    ):
        _serve_heard(connection, watch, get_problem)


def _serve_heard(
    connection: Connection, watch: Watch, get_problem: Callable[[], tuple[Any, str | None]]
) -> None:
    is_forked_with_mpi = _has_mpi()
    try:
        with voice.listening():  # imports of its modules may say something
            problem, where = get_problem()
    except EOFError:
        return
    except ProblemError as error:
        _refuse(connection, Kind.REFUSED, str(error))
        return
    except Error as error:
        _refuse(connection, Kind.BROKEN, str(error))
        return
    except BaseException:
        _refuse(connection, Kind.BROKEN, traceback.format_exc())
        return
    with contextlib.suppress(EOFError, OSError), guard.last_words_to(lambda failure: watch.exit()):
        has_mpi = _has_mpi() and not is_forked_with_mpi
        _send(connection, Kind.HELLO, bytes([has_mpi]))
        try:
            _work(connection, lambda job: job.evaluator(problem, where, watch))
        except (EOFError, OSError):
            raise
        except ProblemError as error:  # of a job that cannot be had here
            _refuse(connection, Kind.REFUSED, str(error))
        except Exception:
            _refuse(connection, Kind.BROKEN, traceback.format_exc())
    if _has_mpi() and not is_forked_with_mpi:
        sys.modules["mpi4py.MPI"].Finalize()


def _refuse(connection: Connection, kind: Kind, why: str) -> None:
    """Say why no lease is taken here: the problem cannot be had, or another reason.

    A leader that has heard it from another child may have closed the pipe.
    """
    with contextlib.suppress(OSError):
        _send(connection, kind, why.encode())


def _work(connection: Connection, load: Callable[[Job], Evaluator]) -> None:
    worker = Worker(load)
    while True:
        while worker.is_idle or connection.poll():
            worker.obey(order_of(*_received(connection)))
        began = time.monotonic()
        for answer in worker.step():
            for each in _trusted(answer, began):
                _send(connection, *encoded(each))


def _trusted(answer: Answer, began: float) -> list[Answer]:
    """The answer; what a simulator makes of a program that a signal has ended since then is taken back."""
    if not (isinstance(answer, Records) and were_left_since(began)):
        return [answer]
    return [Lost(answer.lease, "", "a signal came meanwhile", is_returned=True), Doubted(())]


def _follow_parent() -> None:
    """Leave signals to the leader, and die with it, even in the middle of a simulation.

    A group of its own keeps a terminal's Ctrl-C from the programs that a simulator starts; these cannot read
    from the terminal then, and find nothing to read.
    """
    with contextlib.suppress(OSError), open(os.devnull) as nothing:
        os.setpgid(0, 0)
        os.dup2(nothing.fileno(), 0)
    guard.reseed_process()
    leave_to_leader()
    die_with_parent()


def die_with_parent() -> None:
    """Let this process be killed when the one that started it ends, however that may be."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
