"""How a rank ends: with MPI, without what MPI would wait for, or with the whole job."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from functools import cache
from types import ModuleType

from mpiabc import guard, voice
from mpiabc.programs import Programs
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.wire import dead

GRACE = 2.0  # seconds that messages have to go out at the end


_SPEAKING = 3.0  # seconds that rank 0 has to say what ended a job, which launchers then end with any rank


torn: set[int] = set()  # this rank, after a run with teams that ended in an error
left: set[int] = set()  # not empty after a run that ended in an error: the other ranks are gone


def finalize(library: ModuleType) -> None:
    """End MPI with the process, unless ranks have died: with these, it may wait for ever.

    Under fault tolerance the launcher takes the status of a process that leaves so. Launchers wait, too, for
    programs that hold a rank's output open.
    """
    programs().end()
    if not dead and not library.Is_finalized():
        _end_torn() if torn else library.Finalize()


def _end_torn() -> None:
    """End without MPI's own end, which waits for ranks that sit in a team's calls; rank 0 speaks first."""
    with _launcher_informed():
        time.sleep(0.0 if 0 in torn else _SPEAKING)


def tear(rank: int, is_team: bool) -> None:
    """A run ends in an error: ranks of teams may sit in calls from which they never come back."""
    if is_team:
        torn.add(rank)


@cache
def programs() -> Programs:
    """Those that have begun since the first run."""
    return Programs()


def leave(library: ModuleType, status: int) -> None:
    """End MPI and this process, whatever its main thread is at. Never returns."""
    voice.flush()
    with _launcher_informed():
        finalize(library)
    guard.end_process(status)


@contextlib.contextmanager
def _launcher_informed() -> Iterator[None]:
    """Tell MPICH's launcher afterwards that MPI has ended here, rather than died with the process.

    MPICH itself does so when C's exit runs its hooks (PMI 1: `cmd=finalize` on the descriptor PMI_FD), which
    cannot be run beside a simulator. A launcher that is not informed kills the other ranks.
    """
    launcher = None
    with contextlib.suppress(KeyError, ValueError, OSError):
        launcher = socket.socket(fileno=os.dup(int(os.environ["PMI_FD"])))  # MPI may close its own
    yield
    if launcher is not None:
        with contextlib.suppress(OSError), launcher:
            launcher.settimeout(GRACE)
            launcher.sendall(b"cmd=finalize\n")
            launcher.recv(64)


def abort(comm: Comm, status: int, message: str) -> None:
    """End the job: some rank is in a simulation that does not return. Never returns."""
    if message:
        voice.put(f"{message}\n", sys.stderr)
    voice.flush()
    guard.withdraw()
    programs().end()
    if 0 in dead:  # all see it, and Abort was seen to end a job that has dead ranks with status 0
        os._exit(status)
    comm.Abort(status)
