"""How children are started and ended.

A child is forked where that is safe, which is instant and takes any simulator. Elsewhere (threads,
MPI, JAX, macOS) it is a new interpreter that gets the problem through cloudpickle, functions of a
script or notebook by value; it never imports the script again.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Protocol

import cloudpickle

from mpiabc import mapped, programs, team, threads, voice
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.base import Shared
from mpiabc.schedulers.shared.child import has_mpi_begun, serve
from mpiabc.schedulers.shared.pipes import pipe
from mpiabc.schedulers.shared.watch import Watch
from mpiabc.signals import that_ask_to_stop

#: A child is alone in a world of its own; Open MPI leaves the memory of such a one behind if it may share it.
_MPI_OF_ITS_OWN = {"OMPI_MCA_btl": "^sm"}
_UNSAFE_TO_FORK = ("jax", "torch", "tensorflow")


def fork_is_safe() -> bool:
    """No thread, no MPI and no library in this process that a fork would break."""
    return (
        sys.platform == "linux"
        and threading.active_count() == 1
        and not any(name in sys.modules for name in _UNSAFE_TO_FORK)
        and not has_mpi_begun()
    )


def kill_group(pid: int) -> None:
    """Kill the programs that a child has started, and the child if it has got to a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class ForkedProcess:
    """A process without an image of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def end(self) -> str:
        """Kill it, if it lives, and say how it ended."""
        kill_group(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            return "ended"
        return _ending(os.waitstatus_to_exitcode(status))


class SpawnedProcess:
    """A new interpreter."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen

    def end(self) -> str:
        """Kill it, if it lives, and say how it ended."""
        kill_group(self.pid)  # nobody has waited for it yet, so that is its number still
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return _ending(self._popen.wait())


Process = ForkedProcess | SpawnedProcess


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def fork() -> int:
    """A fork. Python's advice against it, where a library has threads, is none of the user's errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Closed(Protocol):
    """What a forked child closes before anything else: it is not for it."""

    def close(self) -> object:
        """Close it here."""
        ...


class Forked:
    """Starts children by fork: they have the problem already, and the leader's limit of threads."""

    def __init__(self, problem: Shared, where: str | None, cores: int) -> None:
        self._problem, self._where = problem, where
        self.close = threads.limit(cores)

    def __call__(
        self, not_its: Sequence[Closed], watch: Watch, who: team.Worker
    ) -> tuple[ForkedProcess, Connection]:
        """A child, and our end of its pipe; not_its: what is open here, and not for it."""
        ours, theirs = pipe()
        voice.flush()
        pid = fork()
        if pid:
            theirs.close()
            return ForkedProcess(pid), ours
        try:
            for name in set(os.environ) - programs.environment().keys():
                del os.environ[name]
            os.environ.update(_MPI_OF_ITS_OWN)
            for end in [ours, *not_its]:
                end.close()
            serve(theirs, watch, who, lambda: (self._problem, self._where))
        finally:
            os._exit(0)


class Spawned:
    """Starts children as new interpreters; they get the problem as their first message."""

    def __init__(self, problem: Shared, where: str | None, cores: int) -> None:
        self._problem = travelling((problem, where))
        own = programs.environment() | _MPI_OF_ITS_OWN
        self._environment = own | threads.environment(cores)

    def __call__(
        self, not_its: Sequence[Closed], watch: Watch, who: team.Worker
    ) -> tuple[SpawnedProcess, Connection]:
        """A child, and our end of its pipe."""
        ours, theirs = pipe()
        fds = theirs.fileno(), watch.file.fileno()
        numbers = list(map(int, that_ask_to_stop()))
        program = (
            "import signal, sys\n"
            f"for number in {numbers}: signal.signal(number, lambda number, frame: None)\n"
            f"sys.path[:] = {sys.path!r}\nsys.argv[:] = {sys.argv!r}\n"
            f"from mpiabc.schedulers.shared.child import main; main{fds}"
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
        return SpawnedProcess(popen), ours

    def close(self) -> None:
        """Nothing was changed in this process."""


def travelling(problem: object) -> bytes:
    """The problem as bytes. Raises SchedulerError if it cannot be sent to another process."""
    try:
        return mapped.dumps(problem)
    except Exception as error:
        raise SchedulerError(
            f"the problem cannot be sent to another process: {type(error).__name__}: {error}; "
            'make what the simulator uses picklable, or use scheduler="serial" or "mpi"'
        ) from error
