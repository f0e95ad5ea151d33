"""Worker processes of one leader: started, seen to be up or dead, replaced, ended. Knows no leases."""

import contextlib
import os
import platform
import resource
import selectors
import time
from collections.abc import Collection, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

from mpiabc import machine, team
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.base import Recent, Shared
from mpiabc.schedulers.reaper import Reaper
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.messages import Order, encoded
from mpiabc.schedulers.shared.pipes import send
from mpiabc.schedulers.shared.starting import (
    Forked,
    ForkedProcess,
    Process,
    Spawned,
    fork_is_safe,
)
from mpiabc.schedulers.shared.watch import InWork, Watch

_ENDING = 2.0  # seconds in which children that have begun an MPI may end it, lest it leaves shared memory
_TRIES = 2  # starts of each child, while none comes up
_DESCRIPTORS_OF_A_CHILD = 4  # pipe, pidfd, the file of its watch and that of its memory
_DESCRIPTORS = 20  # for the store, and for what else comes


class Child:
    """A worker process as its leader sees it."""

    def __init__(self, process: Process, connection: Connection, watch: Watch, number: int) -> None:
        self.number = number  # of those that it was started with
        self.process = process
        self.death = _Death.awaited(self)
        self.connection = connection
        self.work = InWork(watch)
        self.recent = Recent()
        self.simulations = 0
        self.jobs: set[int] = set()  # that it has
        self.sender = transfer.Sender()
        self.has_mpi = False  # of its own

    @property
    def is_forked(self) -> bool:
        """Whether it was up at once."""
        return isinstance(self.process, ForkedProcess)

    def close(self) -> None:
        """Close our ends."""
        self.connection.close()
        self.work.watch.close()
        if self.death is not None:
            os.close(self.death.fd)

    def send(self, order: Order) -> None:
        """Send, if it lives; that it died is seen by the next poll."""
        with contextlib.suppress(OSError):
            send(self.connection, *encoded(order))


class _Death(NamedTuple):
    """A descriptor that can be read when a child has died, whoever else holds its pipe open."""

    child: Child
    fd: int

    @classmethod
    def awaited(cls, child: Child) -> "_Death | None":
        """None where the system has no such descriptors: the end of the pipe must do there."""
        try:
            return cls(child, os.pidfd_open(child.process.pid))
        except (AttributeError, OSError):
            return None


class Ended(NamedTuple):
    """How a child has ended, with what in work, and which one is there in its place."""

    why: str
    culprit: int | None  # the id that has ended it, if one has
    suspect: int  # the id that was in work; -1 for none
    successor: Child


class Children:
    """So many children, each on its own pipe; one that dies is replaced."""

    def __init__(
        self,
        problem: Shared,
        n: int,
        *,
        start: str | None,
        where: str | None,
        cores: int | None,
        who: team.Worker | None,
    ) -> None:
        """As of `ProcessesEngine`; `start_all` starts them."""
        is_forked = fork_is_safe() if start is None else start == "fork"
        share = max(1, (machine.cores() if cores is None else cores) // n)
        self.n = n
        self._where, self._who = where, who
        self._start = (Forked if is_forked else Spawned)(problem, where, share)
        self._selector = selectors.DefaultSelector()
        self._births = 0  # since a child has come up
        self._reaper = Reaper()
        self._children: list[Child] = []

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._children))

    def start_all(self) -> None:
        """Start them, or leave none. Raises SchedulerError."""
        try:
            _check_descriptors(self.n)
            while len(self._children) < self.n:
                self._new()
        except SchedulerError:
            self.close(self._children)
            raise

    def name(self, child: Child) -> str:
        """The child, as messages to the user name it."""
        return self._where or f"process {child.process.pid} on {platform.node()}"

    def events(self, timeout: float) -> tuple[set[Child], list[Child]]:
        """Within so many seconds: who has died, whoever holds its pipe open, and who has something to say."""
        found = [key.data for key, _ in self._selector.select(timeout)]
        died = {data.child for data in found if isinstance(data, _Death)}
        return died, [data for data in found if isinstance(data, Child)]

    def is_there(self, child: Child) -> bool:
        """Whether it has not been replaced."""
        return child in self._children

    def is_up(self) -> None:
        """A child has come up: they can."""
        self._births = 0

    def wake_on(self, before: int | None, fd: int | None) -> None:
        """Let something to read on `fd` end the wait for events from now on, instead of `before`."""
        with contextlib.suppress(KeyError, ValueError):
            if before is not None:
                self._selector.unregister(before)
        if fd is not None:
            self._selector.register(fd, selectors.EVENT_READ)

    def replace(self, child: Child, *, is_idle: bool) -> Ended:
        """End a child, if it lives, and start another one in its place."""
        self._selector.unregister(child.connection)
        if child.death is not None:
            self._selector.unregister(child.death.fd)
        if child.has_mpi and child.death is not None and is_idle:
            child.connection.close()  # it ends by itself, and what it has begun of MPI with it
            _await([child.death.fd], _ENDING)
        ending = child.process.end()
        self._reaper.remove(child.process.pid)
        culprit, (suspect, _) = child.work.watch.exited(), child.work.watch.read()
        child.close()
        self._children.remove(child)
        return Ended(f"the process {ending}", culprit, suspect, self._new())

    def close(self, polite: Collection[Child]) -> None:
        """End all, as nothing of theirs is wanted any more; polite ones get time to end by themselves."""
        for child in self._children:
            child.connection.close()
        _await([child.death.fd for child in polite if child.death], _ENDING)
        for child in self._children:
            child.process.end()
            self._reaper.remove(child.process.pid)
            child.close()
        self._reaper.end()
        self._start.close()
        self._selector.close()

    def _new(self) -> Child:
        """Start a child; the pipe ends of its siblings are not for it."""
        self._births += 1
        if self._births > _TRIES * self.n:
            raise SchedulerError("worker processes die as soon as they start; see their messages above")
        number = min(set(range(self.n)) - {child.number for child in self._children})
        child = self._started(number)
        self._reaper.add(child.process.pid)
        self._children.append(child)
        self._selector.register(child.connection, selectors.EVENT_READ, child)
        if child.death is not None:
            self._selector.register(child.death.fd, selectors.EVENT_READ, child.death)
        return child

    def _started(self, number: int) -> Child:
        siblings = [child.connection for child in self._children]
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
                f"worker process {there + 1} of {self.n} cannot be started ({error.strerror}): take "
                f"fewer, as in scheduler=Processes({max(1, there)}), or raise the limit (ulimit -u for "
                "processes, -n for open files)"
            ) from None
        return Child(process, connection, watch, number)


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


def _await(fds: list[int], seconds: float) -> None:
    """Wait until all of these can be read, at most so long."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fd)
