"""Evaluation on the ranks of an MPI job: the leading side, and below it the other ranks' side.

Rank 0 leads and simulates too (`Home`); the others take leases. Everything after the communicator's
duplication is point to point and waits by probing with a growing pause, so that no rank burns a core
while it waits, signals are seen, and no rank is ever stuck in a collective call.
"""

import atexit
import contextlib
import json
import logging
import math
import os
import pickle
import platform
import secrets
import signal
import socket
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NoReturn

from mpiabc import guard, machine, team, threads, voice
from mpiabc.errors import Error, Interrupted, ProblemError, SchedulerError
from mpiabc.fingerprint import Fingerprint, differences, differing_parts
from mpiabc.programs import Programs
from mpiabc.records import Failure, Lease, Records
from mpiabc.schedulers import parcels, teams
from mpiabc.schedulers.alone import ALONE
from mpiabc.schedulers.base import Job, Lost, Report, Said, count
from mpiabc.schedulers.beside import Beside
from mpiabc.schedulers.crew import Crew
from mpiabc.schedulers.processes import ProcessesEngine, die_with_parent, travelling
from mpiabc.schedulers.sentry import Sentry
from mpiabc.schedulers.serial import SerialEngine
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, answer_of, encoded, order_of
from mpiabc.schedulers.shared.worker import UNWANTED, Evaluator, Worker
from mpiabc.schedulers.silence import Awaited, Silence
from mpiabc.schedulers.together import Backoff, Together
from mpiabc.schedulers.wire import SECONDS_BODY, Wire, dead
from mpiabc.signals import Signals, heard, relay
from mpiabc.version import digit_difference, version_difference, versions
from mpiabc.whereabouts import Note

_log = logging.getLogger(__name__)

_SLICE = 0.01  # seconds of work of rank 0 between two looks at what the others have sent
_SLOW = 0.005  # seconds a simulation: from here on rank 0 simulates in a child process,
_TOO_SLOW = 0.1  # and from here on not even until the child is up
_SILENT = 0.05  # seconds without a report that tell rank 0 that simulations are slow
_SILENCE = 10.0  # seconds after which a rank that failed takes rank 0 for stuck, and ends the job
_GLANCE = 0.1  # seconds between two looks at the time while MPI starts
_SPEAKERS = 4  # ranks that then say what they wait for: the last of them after eight minutes
_GRACE = 2.0  # seconds that messages have to go out at the end
_LEAVING = 4.0  # seconds that ranks have to leave before the job is aborted
_SPEAKING = 3.0  # seconds that rank 0 has to say what ended a job, which launchers then end with any rank

#: What a rank says of itself, which it may before it has greeted.
_OF_ITSELF = (Kind.HELLO, Kind.BROKEN, Kind.REFUSED, Kind.SIGNALLED, Kind.BYE)
_NOT_HERE = "a rank that has not come to this run has not called run again, or is held up before it"
_COLLECTIVE = (
    "a simulator that calls a collective of COMM_WORLD waits for ranks that do not: let it use COMM_SELF, or "
    "give the run a communicator of its own, MPI(comm=...)"
)

#: What launchers say about the number of ranks they started.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


def launched_size() -> int:
    """How many ranks the launcher says that it started; 1 without a launcher."""
    told = (os.environ.get(name, "") for name in _SIZE_VARIABLES)
    return max((int(number) for number in told if number.isdigit()), default=1)


def launched_rank() -> int:
    """Which rank this is, as the launcher says; 0 without a launcher."""
    told = (os.environ.get(name, "") for name in _RANK_VARIABLES)
    return next((int(rank) for rank in told if rank.isdigit()), 0)


def load_mpi() -> Any:
    """mpi4py.MPI, initialised. Raises SchedulerError if there is no MPI, or N singletons."""
    try:
        library = _import_mpi()
    except (ImportError, RuntimeError) as error:
        raise SchedulerError(
            f"mpi4py found no MPI library ({str(error).splitlines()[0]}): install `mpiabc[mpich]` or "
            "`mpiabc[openmpi]`, or load your system's MPI"
        ) from None
    size, launched = library.COMM_WORLD.size, launched_size()
    if size == 1 and launched > 1:
        raise _wrong_launcher(library, launched)
    return library


def _import_mpi() -> Any:
    """mpi4py.MPI, initialised unless the launcher is of another MPI, which some answer by an abort."""
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI as library  # noqa: N811

        return library
    import mpi4py

    mpi4py.rc.initialize = mpi4py.rc.finalize = False
    from mpi4py import MPI as library  # noqa: N811

    is_open_mpi = "Open MPI" in library.Get_library_version()
    if "OMPI_COMM_WORLD_SIZE" in os.environ and not is_open_mpi and launched_size() > 1:
        raise _wrong_launcher(library, launched_size())
    if not library.Is_initialized():
        with _waiting_told():
            library.Init_thread()
        atexit.register(_finalize, library)
    if library.COMM_WORLD.size > 1:
        sys.excepthook = partial(_tell_and_abort, library, sys.excepthook)
    return library


@contextlib.contextmanager
def _waiting_told() -> Iterator[None]:
    """While MPI starts, which holds up all ranks until the last one comes, let somebody say so.

    That is a process: mpi4py holds the interpreter lock, and there is no MPI yet that a fork would break.
    """
    rank, size = launched_rank(), launched_size()
    if size == 1 or rank >= _SPEAKERS:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads: this child needs none of their locks but that of logs
        child = os.fork()
    if not child:
        _tell_for_ever(_Missing(rank, size))
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _tell_for_ever(missing: "_Missing") -> NoReturn:
    try:
        die_with_parent()
        while True:
            time.sleep(_GLANCE)
            missing.tell()
    finally:
        os._exit(0)


class _Missing:
    """Says that ranks are missing, if that lasts: rank 0, and if that is missing others, not all at once."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._silence = Silence(time.monotonic(), times=2.0 ** min(rank, 20))

    def tell(self) -> None:
        """Say so, if it is time."""
        if self._silence.is_to_be_told(time.monotonic()):
            _log.warning(
                "rank %d of %d on %s has waited %.0f s for all ranks to call run: where only some do, give "
                "these a communicator of their own, MPI(comm=...); where one has failed, end the job",
                self._rank,
                self._size,
                platform.node(),
                self._silence.seconds,
            )


def _finalize(library: Any) -> None:
    """End MPI with the process, unless ranks have died: with these, it may wait for ever.

    Under fault tolerance the launcher takes the status of a process that leaves so. Launchers wait, too, for
    programs that hold a rank's output open.
    """
    _programs().end()
    if not dead and not library.Is_finalized():
        _end_torn() if _torn else library.Finalize()


def _end_torn() -> None:
    """End without MPI's own end, which waits for ranks that sit in a team's calls; rank 0 speaks first."""
    with _launcher_told():
        time.sleep(0.0 if 0 in _torn else _SPEAKING)


@cache
def _programs() -> Programs:
    """Those that have begun since the first run."""
    return Programs()


def _leave(library: Any, status: int) -> None:
    """End MPI and this process, whatever its main thread is at. Never returns."""
    voice.flush()
    with _launcher_told():
        _finalize(library)
    guard.end_process(status)


@contextlib.contextmanager
def _launcher_told() -> Iterator[None]:
    """Tell MPICH's launcher afterwards that MPI has ended here, rather than died with the process.

    MPICH itself does so when C's exit runs its hooks (PMI 1: `cmd=finalize` on the descriptor PMI_FD), which
    cannot be run beside a simulator. A launcher that is not told kills the other ranks.
    """
    launcher = None
    with contextlib.suppress(KeyError, ValueError, OSError):
        launcher = socket.socket(fileno=os.dup(int(os.environ["PMI_FD"])))  # MPI may close its own
    yield
    if launcher is not None:
        with contextlib.suppress(OSError), launcher:
            launcher.settimeout(_GRACE)
            launcher.sendall(b"cmd=finalize\n")
            launcher.recv(64)


def _tell_and_abort(library: Any, tell: Callable[..., None], *exception: Any) -> None:
    """What ends a rank of a job outside of a run would leave the others waiting: end them too."""
    tell(*exception)
    if (not isinstance(exception[1], Error) or _are_any_held()) and not library.Is_finalized():
        voice.flush()
        library.COMM_WORLD.Abort(1)


def end_job() -> None:
    """End the job from a rank that failed outside of a run, where the others would wait for it."""
    with contextlib.suppress(SchedulerError):
        if launched_size() > 1 and not _left:
            load_mpi().COMM_WORLD.Abort(1)


def _wrong_launcher(library: Any, launched: int) -> SchedulerError:
    name = library.Get_library_version().strip("\0").splitlines()[0].strip()
    return SchedulerError(
        f"the launcher started {launched} ranks but MPI sees only this one, so each would run alone: "
        f"mpirun and mpi4py belong to different MPIs (mpi4py uses {name}); use the mpirun of that one, or "
        "srun with the right --mpi"
    )


class MPI:
    """The ranks of a communicator (COMM_WORLD by default), rank 0 of which leads.

    is_static: `size` slots are dealt out, and each tries until it has its acceptance. team: so many ranks
    simulate together, `simulate(theta, rng, *, comm)`, with the same theta and the same state of rng; what
    the first of them returns counts. Ranks that fill no team idle.
    """

    def __init__(self, comm: Any = None, *, team: int | None = None, is_static: bool = False) -> None:
        self.comm = comm
        self.team = team
        self.is_static = is_static

    def __repr__(self) -> str:
        told = "" if self.team is None else f"team={self.team}"
        return f"MPIStatic({told})" if self.is_static else f"MPI({told})"

    def leads(self) -> bool:
        """Whether this is rank 0. Raises SchedulerError for teams that these ranks cannot make up."""
        size = 1 if self.team is None else count(self.team, f"MPI(team={self.team!r})")
        comm = self._communicator()
        if size > comm.size:
            raise SchedulerError(
                f"MPI(team={self.team}) on {comm.size} rank{'s' * (comm.size > 1)}: start at least as many "
                "ranks as make up a team, or take a smaller one"
            )
        return comm.rank == 0

    def open(self, problem: Any) -> Together:
        """Greet the other ranks and take this rank's own core into service."""
        comm = self._communicator()
        try:
            comm, cores, who = _our_own(comm)
        except KeyboardInterrupt:  # the ranks that are missing can be told nothing
            stopped = Interrupted(f"stopped by {heard()} before all ranks had come")
            _abort(comm, stopped.code, str(stopped))
        if comm.size == 1:
            return Together([Home(problem, _where(comm), cores, None, self._known(who))])
        hold = self.held()
        if self._has_teams():
            if hold:
                raise SchedulerError(
                    f"{self!r}: the other ranks of this script serve a sampler of pyABC, each by itself: run "
                    "simulators that need teams in a script of their own"
                )
            return _opened_teams(problem, comm, who, self._group(comm))
        ranks = Ranks(comm, problem, hold=hold)
        return Together([ranks, Home(problem, _where(comm), cores, ranks, self._known(who))])

    def serve(self, problem: Any) -> None:
        """Work for rank 0. Raises Interrupted or SystemExit if the run ends so there."""
        with Signals() as signals:
            signals.settle()
            comm, cores, who = _our_own(self._communicator())
            group = self._group(comm) if self._has_teams() else None
            status = _Rank(comm, problem, cores, signals, self._known(who), group).run()
        _finish(status)

    def _has_teams(self) -> bool:
        """Whether several ranks simulate together."""
        return self.team is not None and self.team > 1

    def _known(self, who: team.Worker) -> team.Worker:
        """As whom a rank evaluates that is a team of its own, or of none."""
        return replace(who, team=who.rank) if self.team == 1 else who

    def _group(self, comm: Any) -> teams.Group:
        """The teams of a communicator of ours, as this rank sees them; made once for each size."""
        kept: dict[int | None, teams.Group] = comm.Get_attr(_keyval()) or {}
        if self.team not in kept:
            kept[self.team] = teams.made(load_mpi(), _duplicate(comm), self.team or 1)
            comm.Set_attr(_keyval(), kept)
        return kept[self.team]

    # Ranks that are held: whatever rank 0 opens, they serve, and wait for the next.

    def hold(self) -> bool:
        """On rank 0, hold the other ranks from now on, until `release`: true. On these, serve so long: false.

        Raises Interrupted or SystemExit where that ends with another status than 0.
        """
        comm, cores, who = _our_own(self._communicator())
        if comm.rank == 0:
            _hold(comm).depth += 1
            return True
        with Signals() as signals:
            signals.settle()
            status = 0
            while status == 0:
                status = _Rank(comm, None, cores, signals, who).run()
        _finish(status)
        return False

    def held(self) -> "Hold | None":
        """What is known of the ranks that are held now, the same for all that share them; None on others."""
        hold = _holds.get(_our_own(self._communicator())[0].py2f())
        return hold if hold and hold.depth else None

    def are_gone(self) -> bool:
        """Whether nobody holds them any more."""
        return self.held() is None

    def lend(self, give_back: Callable[[], None]) -> None:
        """What is open now is closed by `give_back`, as soon as rank 0 opens anything else for held ranks."""
        if hold := self.held():
            hold.give_back = give_back

    def release(self, status: int = 0) -> None:
        """Let the ranks go when all who hold them have: they end with this status, or go on after 0."""
        if not _left and (hold := self.held()):
            hold.depth -= 1
            if not hold.depth:
                hold.end(status)

    def _communicator(self) -> Any:
        library = load_mpi()
        if _left:
            raise SchedulerError("the other ranks have left after the last run's error: start the job again")
        return library.COMM_WORLD if self.comm is None else _checked(library, self.comm)


def MPIStatic(comm: Any = None, *, team: int | None = None) -> MPI:
    """Static scheduling over MPI: no simulation is wasted, the slowest slot is waited for."""
    return MPI(comm, team=team, is_static=True)


def _checked(library: Any, comm: Any) -> Any:
    """The communicator. Raises SchedulerError for one that no run can have."""
    if not isinstance(comm, library.Comm):
        raise SchedulerError(f"MPI(comm={comm!r}): give a communicator of mpi4py")
    if comm == library.COMM_NULL:
        raise SchedulerError(
            "MPI(comm=COMM_NULL): this rank is in no communicator, as those that gave Split UNDEFINED: let "
            "only the others call run, behind `if comm != MPI.COMM_NULL`"
        )
    if comm.Is_inter():
        raise SchedulerError(
            "MPI(comm=...): an intercommunicator has two groups, and a run one: give comm.Merge(), or a "
            "communicator of one of them"
        )
    return comm


@cache
def _keyval() -> int:
    return load_mpi().Comm.Create_keyval()


def _our_own(comm: Any) -> tuple[Any, int, team.Worker]:
    """A duplicate of the communicator, this rank's cores, and who it is; made once and kept."""
    _programs()
    kept = comm.Get_attr(_keyval())
    if kept is None:
        duplicate = _duplicate(comm)
        kept = duplicate, *_settled(duplicate)
        comm.Set_attr(_keyval(), kept)
    return kept


def _duplicate(comm: Any) -> Any:
    """A communicator of our own; waits for the other ranks without burning a core."""
    duplicate, request = comm.Idup()
    backoff, missing = Backoff(), _Missing(comm.rank, comm.size)
    while not request.Test():
        backoff.wait()
        missing.tell()
    return duplicate


def _where(comm: Any) -> str:
    return f"rank {comm.rank} of {comm.size} on {platform.node()}"


def _settled(comm: Any) -> tuple[int, team.Worker]:
    """Give each rank of a node its share of the cores that it may use; how many that is, and who it is."""
    library = load_mpi()
    node = comm.Split_type(library.COMM_TYPE_SHARED)
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    sharing = node.allgather(mine).count(mine)
    who = team.Worker(platform.node(), comm.rank, node.rank)
    node.Free()
    share = machine.cores(sharing)
    threads.limit(share)
    return share, who


@dataclass
class Hold:
    """Ranks that serve whatever rank 0 opens, one after another, and wait in between."""

    comm: Any
    depth: int = 0  # how many hold them
    opened: "Ranks | None" = None
    give_back: Callable[[], None] | None = None  # closes that

    def make_room(self) -> None:
        """Have closed what is open. Raises SchedulerError where its owner is at work with it."""
        if self.opened and self.give_back:
            self.give_back()
        if self.opened:
            raise SchedulerError(
                "the ranks of this communicator serve a pool or a run that is open: leave its `with` first"
            )
        self.give_back = None

    def end(self, status: int = 0) -> None:
        """Release the ranks."""
        if self.opened and self.give_back:
            self.give_back()
        if _left or self.opened:
            return
        self.depth = 0
        wire = Wire(self.comm, load_mpi())
        wire.run = secrets.randbits(64)
        for rank in range(1, self.comm.size):
            wire.send(rank, Kind.RELEASE, bytes([status]))
        wire.flush(_GRACE)

    def end_if_held(self) -> None:
        """The same at the end of the process."""
        if self.depth:
            self.end()


_holds: dict[int, Hold] = {}  # by communicators of our own


def _hold(comm: Any) -> Hold:
    if comm.py2f() not in _holds:
        _holds[comm.py2f()] = hold = Hold(comm)
        atexit.register(hold.end_if_held)
    return _holds[comm.py2f()]


def _are_any_held() -> bool:
    return any(hold.depth for hold in _holds.values())


def _opened_teams(problem: Any, comm: Any, who: team.Worker, group: teams.Group) -> Together:
    """Greet the other ranks, and lead this rank's team beside them, if it is in one."""
    library, where = load_mpi(), _where(comm)
    ranks = Ranks(comm, problem, group.plan)
    for told in teams.told(group.plan, is_threaded=teams.is_threaded(library)):
        _log.warning(told)
    if group.number is None:
        return Together([ranks])

    def make_lead(give_up: Callable[[Lost], None]) -> teams.Lead:
        lead = teams.Lead(group, library, where, problem.timeout, give_up)
        lead.wire.run = ranks.number
        return lead

    who = replace(who, team=group.number)
    return Together([ranks, Beside(problem, where, who, make_lead, partial(_abort, comm, 1))])


_torn: set[int] = set()  # this rank, after a run with teams that ended in an error
_left: set[int] = set()  # not empty after a run that ended in an error: the other ranks are gone


# Rank 0.


class Home:
    """Rank 0's own core.

    Quick evaluations run here, between probes: nothing is started or sent for them. Those that take
    longer than a few milliseconds go to a child process, so that the other ranks never wait for an
    answer, whatever the simulator does to this process's interpreter lock. What they take is learnt from
    the other ranks; if these are silent for a while, they are slow.
    """

    workers = 1

    def __init__(self, problem: Any, where: str, cores: int, ranks: "Ranks | None", who: team.Worker) -> None:
        self._ranks, self._where = ranks, where
        self._since = math.inf
        self._inline = SerialEngine(problem, where, _SLICE, who)
        self._make_child = lambda: ProcessesEngine(
            problem, 1, start="spawn", where=where, cores=cores, who=who
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


def _cost(records: Records) -> float:
    """Seconds for one simulation."""
    simulations = len(records) if records.tries is None else int(records.tries[:, 1].sum())
    return records.seconds / max(1, simulations)


class Ranks:
    """The other ranks, as rank 0 sees them."""

    def __init__(
        self, comm: Any, problem: Any, plan: teams.Plan | None = None, hold: Hold | None = None
    ) -> None:
        greeting = b""
        self._hold = hold
        if hold:
            greeting = travelling(problem)  # these ranks have not come to where it was made
            hold.make_room()
            hold.opened = self
        self._wire = Wire(comm, load_mpi())
        self._wire.run = self.number = secrets.randbits(64)
        self._plan = teams.planned(range(comm.size), 1) if plan is None else plan
        self._teams = self._plan.numbers()  # of the ranks that simulate
        self._lost: set[int] = set()  # teams that have lost a rank
        self._parts, self._fingerprint = problem.parts(), problem.fingerprint
        self._living = set(range(1, comm.size))
        self._crew: Crew[int] = Crew()  # those that have answered
        self._ended: set[int] = set()
        self._where: dict[int, str] = {}
        self._jobs = Jobs()
        self._parcels = parcels.Sender()  # all ranks get the same
        self._unanswered: set[int] = set()  # ranks that have failed and wait for an answer
        self._costs: deque[float] = deque(maxlen=2)  # seconds for one simulation, of the last reports
        self._broken = ""  # what a rank said that cannot go on
        for rank in self._living:
            self._wire.send(rank, Kind.WELCOME, greeting)

    @property
    def cost(self) -> float | None:
        """Seconds for one simulation: the less of the last two, as the very first one starts cold."""
        return min(self._costs) if len(self._costs) == 2 else None

    @property
    def workers(self) -> int:
        """The others that have leases, and the ranks of their teams, as far as these live."""
        leading = {ranks[0] for number, ranks in enumerate(self._plan.teams) if number not in self._lost}
        return len(leading & self._living)

    def note_beside(self, store: str) -> None:
        """Let the ranks note, beside this file, what they evaluate: one that dies ends the job."""
        for rank in self._living:
            self._wire.send(rank, Kind.NOTE, os.fsencode(os.path.abspath(store)))

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Send the job to all: one that is busy reads it when it is free."""
        self._jobs.begin(job, beside)
        self._crew.begin(job.number, beside)
        kind, content = encoded(self._jobs.sent_by(self._parcels, job.number))
        for rank in self._living:
            self._wire.send(rank, kind, content)

    def capacity(self, prefetch: bool) -> int:
        """Free places of the ranks that have answered."""
        return self._crew.room(prefetch)

    def submit(self, lease: Lease) -> None:
        """Give the lease to the rank with the fewest."""
        self._wire.tell(self._crew.give(lease), lease)

    def poll(self, timeout: float) -> list[Report]:
        """All that has arrived."""
        if self._broken:
            raise SchedulerError(self._broken)
        reports: list[Report] = []
        while message := self._wire.receive():
            rank, kind, content = message
            if rank not in self._living or (rank not in self._where and kind not in _OF_ITSELF):
                continue  # of a rank that is dead, or of an earlier run
            if kind in _OF_ITSELF:
                self._hear_of(rank, kind, bytes(content))
            else:
                reports += self._answered(rank, answer_of(kind, content))
            if self._broken:
                break  # what came before it counts
        return reports + self._bury()

    def _hear_of(self, rank: int, kind: int, content: bytes) -> None:
        """What a rank says of itself. Raises ProblemError, if it cannot have the problem."""
        match kind:
            case Kind.HELLO:
                self._welcome(rank, _greeting(content))
            case Kind.BYE:
                self._ended.add(rank)
            case Kind.BROKEN:
                self._broken = content.decode()
            case Kind.REFUSED:
                raise ProblemError(content.decode())
            case Kind.SIGNALLED:
                relay(f"a signal to rank {rank}", *SECONDS_BODY.unpack(content))

    def _answered(self, rank: int, answer: Answer) -> list[Report]:
        """What a rank says of its leases; one whose team has lost another rank has none any more."""
        match answer:
            case Records():
                if rank not in self._crew:
                    return []
                self._crew.answered(rank, answer.job, answer.start)
                self._costs.append(_cost(answer))
                if answer.failures:
                    self._unanswered.add(rank)
            case Lost():
                if not self._crew.take(rank, answer.lease) and answer.why == UNWANTED:
                    return []
            case Said():
                return [Said(self._where[rank], answer.piece)]
            case Missing():
                self._wire.tell(rank, self._jobs.whole(answer.job))
                return []
        return [answer]

    def _bury(self) -> list[Lost]:
        """The leases of ranks that died."""
        lost = []
        for rank in self._wire.failed & self._living:
            where = self._where.get(rank, f"rank {rank}")
            _log.warning("%s died; its evaluations go out again", where)
            self._living.discard(rank)
            self._where.pop(rank, None)
            lost += [Lost(lease, where, "the rank died") for lease in self._disbanded(rank)]
        if self._plan.has_larger and len(self._lost) == len(self._plan.teams):
            raise SchedulerError("ranks of every team have died: run the same command again")
        return lost

    def _disbanded(self, rank: int) -> list[Lease]:
        """The leases of the team of a rank that has died."""
        number = self._teams.get(rank)
        if number is None or number in self._lost:
            return []
        self._lost.add(number)
        first = self._plan.teams[number][0]
        return self._crew.leave(first) if first in self._crew else []

    def waiting(self) -> list[Lease]:
        """Second leases of busy ranks."""
        return self._crew.waiting()

    def waits_for(self) -> list[Awaited]:
        """Ranks with leases, and those that have not come to this run."""
        missing = [rank for rank in sorted(self._living) if rank not in self._where]
        return [
            *(Awaited(f"rank {rank} of {self._wire.comm.size}", why=_NOT_HERE) for rank in missing),
            *self._crew.awaited(self._where.__getitem__, _COLLECTIVE),
        ]

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Ranks skip leases above the cut that they have not begun."""
        order, is_for_all = self._jobs.cancel(cut, job)
        for rank in self._crew:
            if is_for_all or self._crew.ahead(rank) or rank in self._unanswered:
                self._wire.tell(rank, order)
        self._unanswered.clear()

    def busy(self) -> int:
        """Ranks that hold a lease."""
        return self._crew.busy()

    def close(self, status: int) -> None:
        """Tell all ranks that the run is over; after an error, abort those that do not answer."""
        if self._hold:
            self._hold.opened = None
        self._ended.clear()
        self._broken = ""
        for rank in self._living:
            self._wire.send(rank, Kind.LEAVE if status else Kind.STOP, bytes([status]))
        if status == 0:
            self._wire.flush(_GRACE)
            return
        _left.add(self._wire.comm.size)
        if self._plan.has_larger:
            _torn.add(0)
        end, backoff = time.monotonic() + _LEAVING, Backoff()
        while not self._ended >= self._living and time.monotonic() < end:
            with contextlib.suppress(ProblemError, SchedulerError):
                self.poll(0)
            backoff.wait()
        if not self._ended >= self._living:
            error = sys.exception()
            is_told = error is None or isinstance(error, Interrupted)
            _abort(self._wire.comm, status, "" if is_told else f"{type(error).__name__}: {error}")

    def _welcome(self, rank: int, answer: dict[str, Any]) -> None:
        """A rank is up; refuse one that would evaluate something else."""
        where = answer.get("where", f"rank {rank}")
        if difference := version_difference(answer.get("versions")):
            raise SchedulerError(f"{where} differs from rank 0: {difference}; use one environment")
        if difference := digit_difference(answer["versions"]):
            _log.warning("%s: %s; digests may differ in the last bit", where, difference)
        if different := differing_parts(self._parts, answer["parts"]):
            raise ProblemError(
                f"{where} built another problem than rank 0: its {' and '.join(different)} differ; "
                "all ranks run the same script, so give random numbers in it a seed"
            )
        theirs = _as_rank_0(Fingerprint.from_json(answer["fingerprint"]), self._fingerprint, rank)
        if different := differences(theirs, self._fingerprint):
            raise ProblemError(
                f"{where} has other code or values in its problem than rank 0: {'; '.join(different[:5])} "
                "(there is that rank); all ranks run the same script with the same modules"
            )
        self._where[rank] = where
        number = self._teams.get(rank)
        if number is not None and number not in self._lost and self._plan.teams[number][0] == rank:
            self._crew.join(rank, 1)


def _as_rank_0(theirs: Fingerprint, mine: Fingerprint, rank: int) -> Fingerprint:
    """What a rank has, where its own number is no difference: scripts keep it for names of files."""

    def named(there: dict[str, str], here: dict[str, str]) -> dict[str, str]:
        own = {name for name, text in there.items() if text == str(rank) and here.get(name) == "0"}
        return there | dict.fromkeys(own, "0")

    return Fingerprint(named(theirs.code, mine.code), named(theirs.values, mine.values))


def _greeting(content: bytes) -> dict[str, Any]:
    """What a rank says of itself; nothing if another mpiabc says it in another way."""
    try:
        return json.loads(content)
    except ValueError:
        return {}


def _abort(comm: Any, status: int, message: str) -> None:
    """End the job: some rank is in a simulation that does not return. Never returns."""
    if message:
        voice.put(f"{message}\n", sys.stderr)
    voice.flush()
    guard.withdraw()
    _programs().end()
    if 0 in dead:  # all see it, and Abort was seen to end a job that has dead ranks with status 0
        os._exit(status)
    comm.Abort(status)


# The other ranks.


class _Rank:
    """A rank that works for rank 0: takes orders in turn, evaluates leases, answers each."""

    def __init__(
        self,
        comm: Any,
        problem: Any,
        cores: int,
        signals: Signals,
        who: team.Worker,
        group: teams.Group | None = None,
    ) -> None:
        """problem: None where it is to come with rank 0's greeting."""
        self._wire = Wire(comm, load_mpi())
        self._signals, self._who, self._cores = signals, who, cores
        self._where = _where(comm)
        self._problem: Any = None
        self._child: ProcessesEngine | None = None
        self._lead: teams.Lead | None = None
        self._follower: teams.Follower | None = None
        self._backoff = Backoff()
        if problem is not None:
            self._take(problem, group)
        side = self._lead or self._follower
        look = None if side is None else side.look
        self._sentry = Sentry(lambda: self._wire.is_there(0, Kind.LEAVE), self._leave, look)
        self._worker = Worker(self._load, self._where)
        self._note: Note | None = None
        self._status: int | None = None
        self._is_signalled = False
        self._failure = ""  # not answered yet
        self._refusal: tuple[int, bytes] | None = (
            None  # why no lease is taken here, until rank 0 has heard it
        )
        self._is_refused = False
        self._give_up_at = math.inf

    def run(self) -> int:
        """Work until rank 0 says that the run is over; returns its status."""
        with guard.last_words_to(self._last_words), voice.heard_by(self._say):
            while not self._is_over():
                if self._turn():
                    self._backoff.reset()
                else:
                    self._backoff.wait()
                if self._failure and time.monotonic() > self._give_up_at:
                    _abort(self._wire.comm, 1, self._failure)
                if 0 in self._wire.failed:
                    _abort(self._wire.comm, 1, f"{self._where}: rank 0 died; run the same command again")
                self._pass_signal_on()
                self._pass_refusal_on()
            assert self._status is not None
            if self._child:
                self._child.close(self._status)
            if self._lead and self._status == 0:
                self._lead.end()
                self._lead.wire.flush(_GRACE)
            if self._status:
                self._tear()
            if self._note:
                self._note.close()
            self._wire.send(0, Kind.BYE)
            self._wire.flush(_GRACE)
        return self._status

    def _take(self, problem: Any, group: teams.Group | None = None) -> None:
        """Work on this problem, in a team if there are any."""
        self._problem = problem
        if group is not None:
            self._join(group)
        elif problem.timeout is not None:
            self._child = ProcessesEngine(
                problem, 1, start="spawn", where=self._where, cores=self._cores, who=self._who
            )
        self._backoff.reset()

    def _has_taken(self, travelled: memoryview) -> bool:
        """Take the problem that has come with a greeting; rank 0 is told if it cannot be loaded."""
        try:
            self._take(pickle.loads(travelled).arrived())
        except Error:
            raise
        except Exception:
            told = f"{self._where} cannot load what it is to work on:\n{traceback.format_exc()}"
            self._wire.send(0, Kind.BROKEN, told.encode())
            return False
        return True

    def _join(self, group: teams.Group) -> None:
        """Be the first rank of a team, another one, or in none."""
        library = load_mpi()
        if group.leads:
            self._lead = teams.Lead(group, library, self._where, self._problem.timeout, self._give_up)
        else:
            self._follower = teams.Follower(group, library)
        self._who = replace(self._who, team=group.number)

    def _tear(self) -> None:
        """The run ends in an error: ranks of teams may sit in calls from which they never come back."""
        if self._lead or self._follower:
            _torn.add(self._wire.comm.rank)

    def _is_over(self) -> bool:
        """Whether the run is, here: a team goes on until its first rank has done what it was at."""
        if self._status is None:
            return False
        return self._status > 0 or self._follower is None or self._follower.is_free

    def _turn(self) -> bool:
        """Take orders, and do what is next; whether there was anything."""
        with self._refusal_noted():
            is_any = self._take_orders()
            return (not self._is_over() and self._step()) or is_any
        return True

    def _step(self) -> bool:
        """Do what is to be done next; whether there was anything."""
        if self._signals.seen or (self._lead and self._lead.is_disbanded):
            self._worker.leave()
        if self._follower:
            return self._follow(self._follower)
        return self._pass_on() if self._child else self._work()

    def _follow(self, follower: teams.Follower) -> bool:
        """Take part in what the team's first rank has begun."""
        begun = follower.next()
        if begun is None:
            return False
        self._lease = begun.lease
        try:
            with self._evaluating(follower):
                follower.take_part(begun)
        except KeyboardInterrupt:  # a signal, or a rank of the team is dead
            _log.debug("%s has left evaluation %s", self._where, begun.lease)
        except Exception:
            told = f"{self._where} failed in evaluation {begun.lease}:\n{traceback.format_exc()}"
            self._wire.send(0, Kind.BROKEN, told.encode())
        return True

    @contextlib.contextmanager
    def _evaluating(self, side: team.Team) -> Iterator[None]:
        """Evaluate, with this team, as one who can still be asked to stop, or to leave."""
        with team.being(self._who, side), self._sentry.evaluating(), self._signals.interrupting():
            yield

    def _give_up(self, lost: Lost) -> None:
        """The team will not come back from this evaluation: rank 0 is to end the job."""
        self._wire.tell(0, lost)
        if self._problem.on_error != "raise":
            self._wire.send(0, Kind.BROKEN, teams.last_words(lost).encode())

    def _pass_signal_on(self) -> None:
        """Tell rank 0, once, of a signal, and how long ago it came: what was sent since then is doubtful."""
        if self._signals.seen and self._wire.run and not self._is_signalled:
            self._is_signalled = True
            self._wire.send(0, Kind.SIGNALLED, SECONDS_BODY.pack(time.monotonic() - self._signals.at))

    @contextlib.contextmanager
    def _refusal_noted(self) -> Iterator[None]:
        """Note that the problem, or its job, cannot be had here or in the child: it ends the run."""
        try:
            yield
        except (ProblemError, SchedulerError) as error:
            kind = Kind.REFUSED if isinstance(error, ProblemError) else Kind.BROKEN
            self._is_refused = True
            self._refusal = kind, f"{self._where} cannot work: {error}".encode()

    def _pass_refusal_on(self) -> None:
        """Tell rank 0, once it has greeted."""
        if self._refusal and self._wire.run:
            self._wire.send(0, *self._refusal)
            self._refusal = None

    def _say(self, piece: voice.Piece) -> None:
        self._wire.tell(0, Said(self._where, piece))

    def _last_words(self, failure: Failure) -> None:
        """The evaluation in work has called C's exit: tell rank 0, and wait for what it says."""
        lease = self._lease
        self._sentry.dismiss()
        lost = Lost(lease, self._where, failure.error, culprit=failure.index, kind="exit")
        self._wire.tell(0, lost)
        end, backoff = time.monotonic() + _SILENCE, Backoff()
        if self._problem.on_error != "raise":
            self._wire.send(
                0, Kind.BROKEN, f"{failure}\nrun the same command again to go on without it".encode()
            )
        while self._status is None and time.monotonic() < end:
            self._take_orders()
            backoff.wait()
        if self._status is not None:  # a launcher that saw this process die would not let rank 0 speak
            self._leave()

    def _leave(self) -> None:
        """Leave from beside an evaluation, with the run's status. Never returns."""
        while self._status is None:
            self._take_orders()
        self._wire.send(0, Kind.BYE)
        self._wire.flush(_GRACE)
        self._tear()
        _leave(load_mpi(), self._status)

    def _take_orders(self) -> bool:
        """Read all that has arrived; whether there was anything.

        Nothing is read behind the end of the run: the next one's greeting may be there already.
        """
        is_any = False
        while self._status is None and (message := self._wire.receive()):
            is_any = True
            _, kind, content = message
            if kind in _ABOUT_LEASES:
                if kind != Kind.LEASE:
                    self._failure = ""
                self._worker.obey(order_of(kind, content))
            else:
                self._hear(kind, content)
        return is_any

    def _hear(self, kind: int, content: memoryview) -> None:
        """Do what rank 0 wants of this rank itself."""
        match kind:
            case Kind.WELCOME:
                self._greet(content)
            case Kind.NOTE if not self._child and not self._follower:
                self._note = Note(os.fsdecode(bytes(content)), self._where)
            case Kind.RELEASE:
                self._status = content[0] or _RELEASED
            case Kind.STOP | Kind.LEAVE:
                self._failure = ""
                self._status = content[0]

    def _greet(self, travelled: memoryview) -> None:
        """Say who this is, with the problem that rank 0 has sent, if it has."""
        if travelled and not self._has_taken(travelled):
            return
        parts = {name: str(part) for name, part in self._problem.parts().items()}
        answer = {"where": self._where, "versions": versions(), "parts": parts}
        answer["fingerprint"] = self._problem.fingerprint.to_json()
        self._wire.send(0, Kind.HELLO, json.dumps(answer).encode())
        for side in (self._lead, self._follower):
            if side and side.wire:
                side.wire.run = self._wire.run

    def _load(self, job: Job) -> Evaluator:
        """What evaluates a job here; the child, and others of a team, have it too."""
        watch = self._note.watch(job.number) if self._note else None
        evaluator = job.evaluator(self._problem, self._where, watch)
        if self._follower:
            self._follower.keep(job.number, evaluator)
        if self._child:
            self._child.begin(job, self._worker.jobs)

        def evaluate(start: int, stop: int) -> Records:
            self._lease = lease = Lease(job.number, start, stop)
            if self._lead:
                self._lead.take(lease)
            with self._evaluating(self._lead or ALONE):
                return evaluator(start, stop)

        return evaluate

    def _pass_on(self) -> bool:
        """Give the child a lease, send what it brings; whether anything happened."""
        assert self._child is not None
        if self._is_refused:
            return False
        answers = self._worker.answers()
        lease = self._worker.next() if self._child.capacity(False) else None
        if lease is not None:
            self._child.submit(lease)
        answers += self._child.poll(0)
        for answer in answers:
            self._tell(answer)
        return lease is not None or bool(answers)

    def _work(self) -> bool:
        """Evaluate a lease, if there is one, and send what it brought; whether there was one.

        After a failure that may end the run, rank 0's answer is waited for.
        """
        if self._failure or self._is_refused or self._worker.is_idle:
            return False
        try:
            for answer in self._worker.step():
                self._tell(answer)
        except KeyboardInterrupt:  # a signal, and the grace is over
            self._give_back()
        except Exception:
            told = f"{self._where} failed in evaluation {self._lease}:\n{traceback.format_exc()}"
            self._wire.send(0, Kind.BROKEN, told.encode())
        return True

    def _give_back(self) -> None:
        """What came of the lease in work is no outcome."""
        self._wire.tell(0, Lost(self._lease, self._where, UNWANTED, is_returned=True))

    def _tell(self, answer: Answer | Report) -> None:
        """Say it to rank 0; of records, whether a signal came meanwhile is told first."""
        if not isinstance(answer, Records):
            self._wire.tell(0, answer)
            return
        self._pass_signal_on()
        if self._signals.seen:
            self._wire.tell(0, Lost(answer.lease, self._where, UNWANTED, is_returned=True))
            return
        self._wire.tell(0, answer)
        if answer.failures and self._ends_run(answer.failures[0]):
            self._failure = str(answer.failures[0])
            self._give_up_at = time.monotonic() + _SILENCE

    def _ends_run(self, failure: Failure) -> bool:
        return self._problem.on_error == "raise" or failure.ends_every_run


_RELEASED = -1  # in place of a status
_ABOUT_LEASES = (Kind.JOB, Kind.LEASE, Kind.CANCEL)


def _finish(status: int) -> None:
    if status > 1:
        raise Interrupted(code=status)
    if status > 0:
        raise SystemExit(status)
