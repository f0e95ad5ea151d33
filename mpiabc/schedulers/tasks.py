"""Leases as tasks, for places that run functions and know nothing of us: executors, Dask, maps.

The leading side comes first, the workers' side below it. A task names the problem and the job
by a hash of their bytes. The first tasks bring the bytes along, one for each worker; a worker that got
none answers "missing", and its task goes out again with them. So both travel once to each worker,
whichever tasks it gets, and no place has to say which worker is which.
"""

import itertools
import multiprocessing
import os
import pickle
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection
from functools import partial
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeVar

from mpiabc import guard, team, threads, voice
from mpiabc.errors import Error, ProblemError, SchedulerError
from mpiabc.records import Failure, Lease, Records
from mpiabc.schedulers.base import Doubted, Job, Lost, Recent, Report, Said, Shared
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.jobs import Jobs
from mpiabc.schedulers.shared.messages import Answer, Kind, Missing, answer_of, encoded
from mpiabc.schedulers.shared.starting import travelling
from mpiabc.schedulers.shared.transfer import Parcel
from mpiabc.schedulers.shared.worker import Worker
from mpiabc.schedulers.silence import Awaited
from mpiabc.signals import DOUBT, leave_to_leader
from mpiabc.version import version_difference, versions

V = TypeVar("V")

_TOGETHER = 0.05  # seconds within which all tasks of one worker are reported as lost
_PATIENCE = 30.0  # seconds without a task after which a worker ends the child that it keeps for timeouts


class Task(NamedTuple):
    """What `work` is called with."""

    versions: dict[str, str]
    problem: str  # its hash
    parcel: Parcel  # of the job; the problem may come along in it
    lease: Lease


#: The kind and content of a message; then who says it, and what was Said there.
Answered = tuple[int, bytes, str, *tuple[Said, ...]]

Done = Callable[[Answered | BaseException], None]


class Place(Protocol):
    """Where tasks run."""

    target: float  # seconds of work that make the trip of a task worth while

    def workers(self) -> int:
        """How many tasks run at once, as far as known."""
        ...

    def ahead(self, seconds: float) -> int:
        """Tasks, of so many seconds each, to hold ready beyond one for each worker."""
        ...

    def submit(self, task: Task, done: Done) -> Callable[[], bool]:
        """Have `work(task)` called; `done` gets what comes of it, from any thread.

        Returns what takes the task back: true if it will not be run.
        """
        ...

    def attend(self, waiting: int) -> None:
        """A look at the place, often, with so many tasks out. Raises SchedulerError if it is gone."""
        ...

    def vanished(self) -> set[str]:
        """Workers, by what they call themselves, that have gone since the last question."""
        ...

    def last_words(self) -> list[Lost]:
        """What tasks have said since the last question that ended their workers themselves."""
        ...

    def loss(self, lease: Lease, error: BaseException) -> Lost:
        """What it means that a task ended so. Raises SchedulerError if that ends the run.

        Of tasks that end so together, the oldest comes first.
        """
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class _Sent(NamedTuple):
    """A task that is out."""

    lease: Lease
    take_back: Callable[[], bool]
    since: float


class TasksEngine:
    """An engine whose leases are tasks.

    More tasks are out than there are workers: the place holds them ready, and one that can grow sees
    that more workers would be welcome. Large, as it is all that a place of tasks lacks to be an engine.
    """

    def __init__(self, problem: Shared, place: Place) -> None:
        _leaders.add(os.getpid())
        self.target = place.target
        self.notices_within = getattr(place, "notices_within", DOUBT)
        self._recent: dict[str, Recent] = defaultdict(lambda: Recent(self.notices_within))  # by worker
        self._place = place
        self._arrived: queue.SimpleQueue[tuple[int, Answered | BaseException]] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._out: dict[int, _Sent] = {}  # by number, the oldest first
        self._unasked: dict[str, int] = {}  # copies of a content that tasks still bring along
        content = travelling(problem)
        self._problem = transfer.key(content), content
        self._jobs = Jobs()
        self._seconds = 0.0  # of work in the last task

    @property
    def workers(self) -> int:
        """As many as the place has now, at least 1."""
        return max(1, self._place.workers())

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """Start on a job; tasks of the last one may still run.

        What they did not need goes along with the first tasks, one for each worker.
        """
        self._jobs.begin(job, beside)
        names = {
            self._problem[0],
            *(name for number in self._jobs for name in self._jobs.whole(number).names),
        }
        self._unasked = {name: self._unasked.get(name, self.workers) for name in names}

    def capacity(self, prefetch: bool) -> int:
        """A task for each worker, or two, and a few more."""
        n = self.workers
        ahead = self._place.ahead(self._seconds)
        return max(0, n + ahead + (n if prefetch else 0) - len(self._out))

    def submit(self, lease: Lease) -> None:
        """Send the lease off."""
        carried = [name for name in self._needs(lease.job) if self._unasked[name] > 0]
        for name in carried:
            self._unasked[name] -= 1
        self._send(lease, carried)

    def _needs(self, job: int) -> dict[str, bytes]:
        """All that leases of an open job need, by name."""
        return dict([self._problem]) | self._jobs.whole(job).new

    def _send(self, lease: Lease, carried: Collection[str]) -> None:
        number = next(self._numbers)
        contents = {name: part for name, part in self._needs(lease.job).items() if name in carried}
        parcel = self._jobs.whole(lease.job)._replace(new=contents)
        task = Task(versions(), self._problem[0], parcel, lease)
        take_back = self._place.submit(task, partial(self._note, number))
        self._out[number] = _Sent(lease, take_back, time.monotonic())

    def _note(self, number: int, outcome: Answered | BaseException) -> None:
        self._arrived.put((number, outcome))

    def poll(self, timeout: float) -> list[Report]:
        """What has come in; sleeps until something does."""
        self._place.attend(len(self._out))
        doubted: list[Report] = [
            self._recent.pop(worker).doubted() for worker in self._place.vanished() if worker in self._recent
        ]
        doubted += [lost for lost in self._place.last_words() if self._is_taken_back(lost.lease)]
        try:
            arrivals = [self._arrived.get(timeout=timeout), *self._at_hand()]
        except queue.Empty:
            return doubted
        if any(isinstance(outcome, BaseException) for _, outcome in arrivals):
            time.sleep(_TOGETHER)
            arrivals += self._at_hand()
        arrivals.sort(key=itemgetter(0))
        return doubted + [report for arrival in arrivals for report in self._take(*arrival)]

    def _is_taken_back(self, lease: Lease) -> bool:
        """Take the task of this lease back, if it is still out."""
        for number, sent in list(self._out.items()):
            if sent.lease == lease:
                sent.take_back()
                del self._out[number]
                return True
        return False

    def _at_hand(self) -> list[tuple[int, Answered | BaseException]]:
        return [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]

    def _take(self, number: int, outcome: Answered | BaseException) -> list[Report]:
        if number not in self._out:
            return []  # it was taken back
        lease = self._out.pop(number).lease
        if isinstance(outcome, BaseException):
            return [self._place.loss(lease, outcome)]
        kind, content, who, *said = outcome
        return [*said, *self._answered(lease, kind, content, who)]

    def _answered(self, lease: Lease, kind: int, content: bytes, who: str) -> list[Report]:
        if kind in (Kind.REFUSED, Kind.BROKEN):
            raise (ProblemError if kind == Kind.REFUSED else SchedulerError)(content.decode())
        answer = answer_of(kind, content)
        match answer:
            case Records():
                self._seconds = answer.seconds
                if answer.is_exposed:  # who vanishes was perhaps asked to stop, and its programs with it
                    self._recent[who].add(lease)
            case Missing():
                if lease.job in self._jobs:
                    self._send(lease, answer.names)
                return []
        return [answer]

    def waits_for(self) -> list[Awaited]:
        """Whom the place names, or the oldest tasks."""
        now = time.monotonic()
        seconds = {str(sent.lease): now - sent.since for sent in self._out.values()}
        tasks = [Awaited("a worker", at) for at in seconds][: self.workers]
        named = getattr(self._place, "waits_for", list)() or tasks
        return [one._replace(seconds=seconds.get(one.at, 0.0)) for one in named]

    def at_work(self) -> list[Awaited]:
        """Nobody: who has which task is known by asking the place, if at all."""
        return []

    def waiting(self) -> list[Lease]:
        """None: what waits does so in one queue for all, as far as known."""
        return []

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Take back what lies above the cut, but not what has probably begun: the oldest tasks."""
        self._jobs.cancel(cut, job)
        for number in list(self._out)[self.workers :]:
            lease, take_back, _ = self._out[number]
            if not self._jobs.is_wanted(lease) and take_back():
                del self._out[number]

    def busy(self) -> int:
        """Workers that have a task."""
        return min(len(self._out), self.workers)

    def close(self, status: int) -> None:
        """Take all tasks back."""
        for sent in self._out.values():
            sent.take_back()
        self._out.clear()
        self._place.close()


# The workers' side.


def work(task: Task, last_words: Callable[[Lost], None] | None = None) -> Answered:
    """Evaluate a lease, wherever this is; `last_words` hears of an evaluation that ends this process."""
    where = f"process {os.getpid()} on {platform.node()}"
    _leave_signals_to_leader()

    def say(failure: Failure) -> None:
        voice.put(f"{failure}\n", sys.stderr)
        if last_words:
            last_words(Lost(task.lease, failure.where, failure.error, culprit=failure.index, kind="exit"))

    pieces: list[voice.Piece] = []
    with guard.last_words_to(say), voice.heard_by(pieces.append):
        kind, content = _answer(task, where)
        who = _name_here(where)
    return kind, content, who, *tuple(Said(where, piece) for piece in pieces)


def _answer(task: Task, where: str) -> tuple[int, bytes]:
    if difference := version_difference(task.versions):
        why = f"{where} differs from the leading process: {difference}; use one environment"
        return Kind.BROKEN, why.encode()
    try:
        return encoded(_answer_of(task))
    except KeyboardInterrupt:  # meant for all processes of a terminal: the leader has heard it too
        return encoded(Lost(task.lease, where, "it was interrupted", is_returned=True))
    except Error as error:
        kind = Kind.REFUSED if isinstance(error, ProblemError) else Kind.BROKEN
        return kind, f"{where} cannot work: {error}".encode()
    except Exception:
        why = f"{where} broke down in evaluation {task.lease}:\n{traceback.format_exc()}"
        return Kind.BROKEN, why.encode()


def _name_here(where: str) -> str:
    """What the place knows this worker by: its address, if Dask runs it."""
    library = sys.modules.get("distributed.worker")
    try:
        return where if library is None else library.get_worker().address
    except ValueError:
        return where


def _leave_signals_to_leader() -> None:
    """What asks a run to stop is for the leader alone, although it often comes to all processes.

    SIGTERM still ends the children of a pool, as pools end them by it, and wait until they are gone.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or os.getpid() in _leaders | _signals_left:
        return
    _signals_left.add(os.getpid())
    leave_to_leader()
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Kept(OrderedDict[str, V]):
    """The last few of what was put in; what falls out is closed, if it can be."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: str, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._most:
            _, old = self.popitem(last=False)
            getattr(old, "close", lambda: None)()


class _Threads(threading.local):
    """What each thread of a worker has for itself: evaluators are not shared."""

    def __init__(self) -> None:
        self.helds: _Kept[_Direct | _InChild] = _Kept(2)  # by problem


_contents: _Kept[bytes] = _Kept(32)  # of all threads
_lock = threading.Lock()  # for it
_mine = _Threads()
_leaders: set[int] = set()  # processes that lead a run: signals, and all BLAS threads, are theirs
_limited: set[int] = set()
_signals_left: set[int] = set()


def _answer_of(task: Task) -> Answer:
    """What comes of the task's lease, or what is missing for it."""
    held: _Direct | _InChild | None = _mine.helds.get(task.problem)
    if held is None or not held.worker.has(task.parcel):
        missing, contents = _at_hand(task)
        if missing:
            return Missing(task.lease.job, missing)
        with voice.listening():  # imports of the problem's modules may say something
            if held is None:
                problem = pickle.loads(contents[task.problem]).arrived()
                held = _mine.helds[task.problem] = _opened(problem)
            held.worker.obey(task.parcel._replace(new=contents))
    while held.worker.next():
        pass  # what a task has left that was interrupted
    held.worker.obey(task.lease)
    (answer,) = held.worker.step()
    return answer


def _at_hand(task: Task) -> tuple[tuple[str, ...], dict[str, bytes]]:
    """What the task needs: names of what is missing here, and what is there."""
    needs = (task.problem, *task.parcel.names)
    with _lock:
        for name, content in task.parcel.new.items():
            _contents[name] = content
        there = {name: _contents[name] for name in needs if name in _contents}
    return tuple(name for name in needs if name not in there), there


def _opened(problem: Shared) -> "_Direct | _InChild":
    if os.getpid() not in _leaders | _limited:
        threads.limit(1)
        _limited.add(os.getpid())
    guard.part_random()
    return _Direct(problem) if problem.timeout is None else _InChild(problem)


class _Direct:
    """Evaluates in this thread."""

    def __init__(self, problem: Shared) -> None:
        self.worker = Worker(lambda job: job.evaluator(problem))


class _InChild:
    """Evaluates in a child process that is ended when a simulation takes too long, or nobody asks."""

    def __init__(self, problem: Shared) -> None:
        self.worker = Worker(self._load)
        self._problem = problem
        self._engine: ProcessesEngine | None = None
        self._begun: dict[int, Job] = {}  # that the child has, by number
        self._lock = threading.Lock()
        self._idle = threading.Timer(0, self.close)

    def _load(self, job: Job) -> Callable[[int, int], Records | Lost]:
        """What evaluates a job in the child."""

        def evaluate(start: int, stop: int) -> Records | Lost:
            self._idle.cancel()
            with self._lock:
                report = self._report(job, Lease(job.number, start, stop))
            self._idle = threading.Timer(_PATIENCE, self.close)
            self._idle.daemon = True
            self._idle.start()
            return report

        return evaluate

    def _report(self, job: Job, lease: Lease) -> Records | Lost:
        if self._engine is None:
            self._engine = ProcessesEngine(self._problem, 1, start="spawn", cores=1, who=team.worker())
            self._begun = {}
        if self._begun.get(job.number) is not job:
            others = {
                n: other for n, other in self._begun.items() if n in self.worker.jobs and n != job.number
            }
            self._engine.begin(job, others.keys())
            self._begun = others | {job.number: job}
        while not self._engine.capacity(False):
            self._engine.poll(1.0)
        self._engine.submit(lease)
        while True:
            for report in self._engine.poll(0.1):
                if isinstance(report, Said):
                    voice.pass_on(report.piece)
                elif not isinstance(report, Doubted):  # who is signalled alone is missed by the place
                    return report

    def close(self) -> None:
        """End the child."""
        with self._lock:
            if self._engine:
                self._engine.close(0)
            self._engine = None
