"""Evaluation on a Dask cluster: dask-mpi's, dask-jobqueue's, a local one, or any other.

Dask moves tasks and says when a worker is gone; what is to be done about it the driver knows. Results
are fetched by coroutines on the client's own loop, many at a time, so nothing polls and nothing blocks.
"""

import concurrent.futures
import json
import logging
import os
import pickle
import queue
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypedDict

from mpiabc import machine
from mpiabc.errors import Interrupted, SchedulerError
from mpiabc.records import Lease
from mpiabc.schedulers.base import Lost, OneLeads, Shared
from mpiabc.schedulers.foreign import DaskClient, DaskFuture
from mpiabc.schedulers.silence import Awaited
from mpiabc.schedulers.tasks import Answered, Done, Task, TasksEngine, work
from mpiabc.signals import heard
from mpiabc.version import __version__

_log = logging.getLogger(__name__)

#: A cluster of this machine looks for a worker once, so long after it has died, and lets it go for good if it
#: is not there: also where it has come back, and has died again a moment ago. Nannies know better.
KEPT = {"distributed.deploy.lost-worker-timeout": "30 days"}

_ONE_BY_ONE = (
    "Dask's workers have %d threads in %d processes, each of which simulates once at a time: start them with "
    "one thread each or, if simulations may run beside each other, give schedulers.Dask(..., threads=True)"
)
_GLANCE = 1.0  # seconds between two questions how many workers there are
_CONNECT = 5.0  # seconds for one attempt to connect, so that a scheduler file is read again meanwhile
_MOST_AHEAD = 20  # tasks for each worker that a cluster which could grow gets to hold ready
_PAUSE = 0.1  # seconds between two looks at a file, or at the signals
_LAST_WORDS = 1.0  # seconds for a worker that ends to say so
_CLOSE = 2.0  # seconds to take leave of a scheduler, which may not answer
_PAUSED = (
    "Dask gives a paused worker nothing until its memory is below the limit: start workers with a larger "
    "--memory-limit, or 0 for none"
)


class Dask(OneLeads):
    """The workers of a Dask cluster.

    client: a `distributed.Client`, which stays open. Else the cluster is that of `address`, of a
    `scheduler_file`, of Dask's own configuration (dask-mpi's `initialize()` sets it), or a new one with
    all cores of this machine. wait: seconds for the file, the scheduler and the first worker, and for
    another worker when the last one has gone. threads: whether a worker with several threads simulates in
    all of them at once, which few simulators are written for; with a timeout, each has a process of its own.
    """

    def __init__(
        self,
        client: DaskClient = None,
        *,
        scheduler_file: str | os.PathLike[str] | None = None,
        address: str | None = None,
        wait: float = 300.0,
        threads: bool = False,
    ) -> None:
        self.client = client
        self.scheduler_file = scheduler_file
        self.address = address
        self.wait = wait
        self.threads = threads

    def __repr__(self) -> str:
        given = (self.client, self.scheduler_file, self.address)
        return f"Dask({next((repr(str(value)) for value in given if value is not None), '')})"

    def works_in_threads(self) -> bool:
        """Whether workers simulate in several threads each, or in this process, as far as is known here."""
        at = self.address if self.client is None else self.client.scheduler.address
        return self.threads or str(at).startswith("inproc:")

    def open(self, problem: Shared) -> TasksEngine:
        """Connect. Raises SchedulerError that says what was waited for, if that did not come.

        Raises Interrupted if a signal comes first.
        """
        if sum(value is not None for value in (self.client, self.scheduler_file, self.address)) > 1:
            raise SchedulerError("Dask(...): give one of client, scheduler_file and address")
        if getattr(self.client, "asynchronous", False):
            raise SchedulerError("Dask(client): the client is asynchronous, give one that is not")
        connection = _Connection(self.wait)
        try:
            client = self.client or connection.client(self.scheduler_file, self.address)
            try:
                has_threads = self.threads or problem.timeout is not None
                return TasksEngine(problem, _Cluster(client, self.client is None, self.wait, has_threads))
            except BaseException:
                if self.client is None:
                    client.close(timeout=_CLOSE)
                raise
        except KeyboardInterrupt:  # the grace is over, in the middle of what cannot look at signals
            if heard() is None:
                raise
            raise connection.stopped() from None


def is_of_these_ranks() -> bool:
    """Whether dask_mpi has made a cluster of this job's ranks: then they serve it, and no run over MPI."""
    dask = sys.modules.get("dask")
    if dask is None or "dask_mpi" not in sys.modules:
        return False
    named = dask.config.get("scheduler-address", None)
    return named is not None and named != os.environ.get("DASK_SCHEDULER_ADDRESS")


def _distributed() -> ModuleType:
    try:
        import distributed
    except ImportError as error:
        raise SchedulerError(f"Dask is not here ({error}): install `mpiabc[dask]`") from None
    return distributed


class _Connection:
    """Attempts to reach a cluster, until a time is over."""

    def __init__(self, wait: float) -> None:
        self._library = _distributed()
        self._wait = wait
        self._end = time.monotonic() + wait
        self._reported = ""
        self._awaited = "Dask"

    def client(self, file: str | os.PathLike[str] | None, address: str | None) -> DaskClient:
        """A client of the cluster that was named, or of the one that this process can find or start."""
        if file is not None:
            return self._by_file(Path(file))
        if address is None:
            import dask

            address = dask.config.get("scheduler-address", None)
        if address is None:
            dask.config.set(KEPT)
            cluster = self._library.LocalCluster(
                n_workers=machine.cores(), threads_per_worker=1, dashboard_address=":0"
            )
            return self._library.Client(cluster, set_as_default=False)
        while (client := self._by_address(address)) is None:
            self._await(
                f"a Dask scheduler at {address}", "nobody answers there; start one, or check the address"
            )
        return client

    def _by_file(self, file: Path) -> DaskClient:
        while True:
            try:
                address = json.loads(file.read_text())["address"]
            except FileNotFoundError:
                hint = "it does not exist; start the scheduler that writes it, or check the path"
            except (ValueError, KeyError, TypeError):
                hint = "it holds no scheduler address; it is half-written, or another file"
            except OSError as error:
                hint = f"it cannot be read ({error.strerror})"
            else:
                if client := self._by_address(address):
                    return client
                hint = f"it names {address}, where nobody answers; if that scheduler has ended, delete it"
            self._await(f"the Dask scheduler file {file}", hint)

    def _by_address(self, address: str) -> DaskClient:
        """A client, or None if nobody answers within a few seconds.

        A Client is made only of a scheduler that answers: one that waits in vain obeys no signal, and
        goes on for seconds when it is dropped.
        """
        left = max(0.5, min(_CONNECT, self._end - time.monotonic()))
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as thread:  # this one may have a loop
                if not thread.submit(_run, self._answers(address, left)).result():
                    return None
            return self._library.Client(address, timeout=left, set_as_default=False)
        except ValueError as error:
            raise SchedulerError(f"{address!r} is no address of a Dask scheduler: {error}") from None
        except TypeError as error:
            if "ssl_context" not in str(error):
                raise
            raise SchedulerError(
                f"{address} speaks TLS, and Dask's configuration here names no certificates: set "
                "distributed.comm.tls as on the scheduler"
            ) from None
        except (OSError, TimeoutError) as error:
            _log.debug("no Dask scheduler at %s: %s", address, error)
            return None

    async def _answers(self, address: str, seconds: float) -> bool:
        """Whether somebody answers before the time is over, or a signal comes."""
        import asyncio

        arguments = self._library.Security().get_connection_args("client")
        attempt = asyncio.ensure_future(self._library.core.connect(address, timeout=seconds, **arguments))
        while not attempt.done() and heard() is None:
            await asyncio.wait([attempt], timeout=_PAUSE)
        if not attempt.done():
            attempt.cancel()
            await asyncio.wait([attempt])
            return False
        (await attempt).abort()
        return True

    def stopped(self) -> Interrupted:
        """What a signal ends the wait with; it is reported here, as the run has not begun."""
        stopped = Interrupted(f"stopped by {heard()} while waiting for {self._awaited}")
        stopped.tell(_log)
        return stopped

    def _await(self, what: str, hint: str) -> None:
        """Pause; say what is awaited; raise SchedulerError when the time is over."""
        self._awaited = what
        if heard() is not None:
            raise self.stopped()
        left = self._end - time.monotonic()
        if left <= 0:
            raise SchedulerError(f"waited {self._wait:g} s for {what}: {hint}")
        if hint != self._reported:
            _log.warning("waiting for %s, at most %.0f s more (%s)", what, left, hint)
            self._reported = hint
        time.sleep(min(left, _PAUSE))


class _Cluster:
    """A Dask cluster as a place for tasks. Large, as a client, its scheduler and its workers all may go."""

    target = 1.0
    notices_within = 3.0  # a worker that was asked to stop is missed at the next glance but one

    def __init__(self, client: DaskClient, is_ours: bool, wait: float, has_threads: bool) -> None:
        self._library = _distributed()
        self._work = work if has_threads else _work_alone
        self._client = client
        self._is_ours = is_ours
        self._wait = wait
        self._run = uuid.uuid4().hex  # two runs on one scheduler must never share a key
        self._sent = 0
        self._asked = -_GLANCE
        self._n = 0
        self._workers: set[str] = set()
        self._vanished: set[str] = set()
        self._words: queue.SimpleQueue[Lost] = queue.SimpleQueue()  # of workers that end
        self._seen = time.monotonic()  # when there was a worker, or no need of one
        self._is_reported = False
        self._dead: set[str] = set()  # workers whose death counts already
        self._topic = f"mpiabc-{self._run}"
        client.subscribe_topic(self._topic, self._hear)
        self._glance()

    def _hear(self, event: tuple[float, bytes]) -> None:
        self._words.put(pickle.loads(event[1]))

    def workers(self) -> int:
        """How many simulate at once, as of a second ago."""
        return self._n

    def ahead(self, seconds: float) -> int:
        """A few; on a cluster that grows with its work, as much as makes it grow by a worker or more."""
        few = max(1, self._n // 4)
        adaptive = getattr(self._client.cluster, "_adaptive", None)
        if adaptive is None or not seconds:
            return few
        wanted = (self._n + few) * adaptive.target_duration / seconds
        return few + int(min(wanted, _MOST_AHEAD * max(1, self._n)))

    def submit(self, task: Task, done: Done) -> Callable[[], bool]:
        """Submit the task, under a key that nobody else has.

        It travels as bytes that a worker unpickles into the answer: a scheduler or worker without
        mpiabc would break down on a message that has to be understood before it is a task.
        """
        self._sent += 1
        order = pickle.dumps(_Call(self._work, task, self._topic))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            future = self._client.submit(
                pickle.loads,
                order,
                key=f"mpiabc-{self._run}-{self._sent}-{task.lease}",
                pure=False,
                retries=0,
                priority=-self._sent,  # the oldest first; without it, those of 0.1 s go by their names
            )
        self._client.loop.add_callback(_fetch, future, done)
        return lambda: self._take_back(future)

    def _take_back(self, future: DaskFuture) -> bool:
        if self._client.status == "running":
            future.cancel()
        return True

    def attend(self, waiting: int) -> None:
        """Count the workers; raise SchedulerError if there are none for too long, or no scheduler."""
        self._look()
        now = time.monotonic()
        if now - self._asked >= _GLANCE:
            self._glance()
        if self._n or not waiting:
            self._seen, self._is_reported = now, False
        elif now - self._seen > self._wait:
            raise SchedulerError(
                f"no Dask worker has joined {self._address} for {self._wait:g} s: start workers, and look at "
                "their logs; what was finished is kept: run the same command again"
            )
        elif now - self._seen > _GLANCE and not self._is_reported:
            self._is_reported = True
            _log.warning("waiting for a Dask worker to join %s, at most %.0f s", self._address, self._wait)

    def _look(self) -> None:
        """Raise SchedulerError if there is no scheduler."""
        if self._client.status != "running":
            raise self._gone()

    def _glance(self) -> None:
        self._asked = time.monotonic()
        try:
            threads_of = self._client.nthreads()
        except (OSError, *_cancelled()) as error:
            raise self._gone() from error
        n = sum(threads_of.values())
        self._n = n if self._work is work else len(threads_of)
        if self._n < n and not self._workers:
            _log.warning(_ONE_BY_ONE, n, self._n)
        self._vanished |= self._workers - set(threads_of)
        self._workers = set(threads_of)

    def waits_for(self) -> list[Awaited]:
        """Workers with tasks of this run, and those that are paused."""
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            tasks = self._client.processing()
        except (OSError, *_cancelled()) as error:
            raise self._gone() from error
        mine = f"mpiabc-{self._run}-"
        found = []
        for address, known in workers.items():
            at = [key.removeprefix(mine).split("-", 1)[1] for key in tasks.get(address, ()) if mine in key]
            is_paused = known.get("status") == "paused"
            if at or is_paused:
                who = f"worker {address}{_paused(known) if is_paused else ''}"
                found.append(Awaited(who, "".join(at[:1]), why=_PAUSED if is_paused else ""))
        return found

    def last_words(self) -> list[Lost]:
        """What workers have sent that a simulator ended."""
        return [self._words.get_nowait() for _ in range(self._words.qsize())]

    def vanished(self) -> set[str]:
        """Workers that have gone since the last question: they may have been asked to stop."""
        vanished, self._vanished = self._vanished, set()
        return vanished

    @property
    def _address(self) -> str:
        scheduler = self._client.scheduler
        return scheduler.address if scheduler else "its scheduler"

    def loss(self, lease: Lease, error: BaseException) -> Lost:
        """Workers that died, or were restarted, are a loss; anything else ends the run.

        Dask blames all tasks that a dead worker had. Only the oldest was surely in work: the others
        never began, so that they are innocent of that death, and each death counts for one lease.
        """
        if isinstance(error, self._library.scheduler.KilledWorker):
            worker = str(error.last_worker.address)
            is_returned, self._dead = worker in self._dead, self._dead | {worker}
            return Lost(lease, "a worker", f"Dask gave it up: {error}", is_returned=is_returned)
        # Distributed's own CancelledError, as we have taken nothing back, and its CommClosedError:
        if isinstance(error, (*_cancelled(), OSError)):
            self._look()
            return Lost(lease, "a worker", "the workers were restarted", is_returned=True)
        if isinstance(error, ImportError | AttributeError):
            raise SchedulerError(
                f"a Dask worker of {self._address} is without mpiabc {__version__} ({error}): start workers "
                "in the environment of this process"
            ) from error
        raise SchedulerError(f"a Dask task failed: {type(error).__name__}: {error}") from error

    def _gone(self) -> SchedulerError:
        return SchedulerError(
            f"the Dask scheduler {self._address} has gone or was restarted; what was finished is kept: run "
            "the same command again when it is up"
        )

    def close(self) -> None:
        """Leave the scheduler without a trace of us, and close what we have opened."""
        with suppress(*_cancelled(), OSError, ValueError):
            self._client.unsubscribe_topic(self._topic)
        if not self._is_ours:
            return
        cluster = self._client.cluster
        self._client.close(timeout=_CLOSE)
        if cluster is not None:
            cluster.close()


def _cancelled() -> tuple[type[BaseException], type[BaseException]]:
    """What a cancelled task is; asyncio is 60 ms that only who uses Dask needs."""
    import asyncio

    return asyncio.CancelledError, concurrent.futures.CancelledError


def _run(work: Coroutine[object, object, bool]) -> bool:
    """Do it on a loop of its own."""
    import asyncio

    return asyncio.run(work)


class _Status(TypedDict, total=False):
    """What Dask's scheduler says of a worker, as far as it is used."""

    status: str
    metrics: dict[str, float]
    memory_limit: int | None


def _paused(known: _Status) -> str:
    used, limit = known.get("metrics", {}).get("memory", 0), known.get("memory_limit") or 0
    return f", which is paused with {used / 1e9:.2g} of {limit / 1e9:.2g} GB of memory"


class _Call:
    """Unpickled, it is what `work` returns."""

    def __init__(self, work: Callable[..., Answered], task: Task, topic: str) -> None:
        self._work, self._task, self._topic = work, task, topic

    def __reduce__(self) -> tuple[Callable[..., Answered], tuple[Task, Callable[[Lost], None]]]:
        return self._work, (self._task, partial(_say, self._topic))


_works = threading.Lock()  # one thread of a process, where few simulators may run twice at once


def _work_alone(task: Task, last_words: Callable[[Lost], None]) -> Answered:
    """`work`, when no other thread of this process is at it."""
    with _works:
        return work(task, last_words)


def _say(topic: str, lost: Lost) -> None:
    """Send what is lost to the run of the topic, from a worker that ends with this."""
    library = sys.modules["distributed.worker"]
    library.get_worker().log_event(topic, pickle.dumps(lost))
    time.sleep(_LAST_WORDS)  # the worker's loop, in another thread, sends it


async def _fetch(future: DaskFuture, done: Done) -> None:
    """Wait for a task on the client's loop, and pass on what it brings."""
    try:
        outcome = await future
    except BaseException as error:
        outcome = error
    done(outcome)
