"""A child: it evaluates the leases that its leader sends through a pipe, until that closes.

It can be killed at any time: it leaves nothing behind but what its leader can see in its `Watch`.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import cloudpickle

from mpiabc import guard, team, voice
from mpiabc.errors import Error, ProblemError
from mpiabc.records import Records
from mpiabc.schedulers.alone import ALONE
from mpiabc.schedulers.base import Doubted, Job, Lost, Said, Shared
from mpiabc.schedulers.shared.messages import Answer, Kind, encoded, order_of
from mpiabc.schedulers.shared.pipes import received, send
from mpiabc.schedulers.shared.watch import Watch
from mpiabc.schedulers.shared.worker import Evaluator, Worker
from mpiabc.signals import leave_to_leader, were_left_since


def has_mpi_begun() -> bool:
    """Whether it has in this process."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized()


def main(fd: int, watch_fd: int) -> None:
    """A spawned child: who it is and the problem, then orders until the leader closes the pipe."""
    connection = Connection(fd)
    try:
        who = cloudpickle.loads(connection.recv_bytes())
    except EOFError:
        return
    serve(connection, Watch(watch_fd), who, lambda: _arrived(connection.recv_bytes()))


def _arrived(content: bytes) -> tuple[Shared, str | None]:
    problem, where = cloudpickle.loads(content)
    return problem.arrived(), where


def serve(
    connection: Connection,
    watch: Watch,
    who: team.Worker,
    get_problem: Callable[[], tuple[Shared, str | None]],
) -> None:
    """Evaluate leases in order until the pipe closes."""
    _follow_parent()
    with (
        team.being(who, ALONE),
        voice.heard_by(lambda piece: send(connection, *encoded(Said("", piece)))),
    ):
        _serve_heard(connection, watch, get_problem)


def _serve_heard(
    connection: Connection, watch: Watch, get_problem: Callable[[], tuple[Shared, str | None]]
) -> None:
    is_forked_with_mpi = has_mpi_begun()
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
        has_mpi = has_mpi_begun() and not is_forked_with_mpi
        send(connection, Kind.HELLO, bytes([has_mpi]))
        try:
            _work(connection, lambda job: job.evaluator(problem, where, watch))
        except (EOFError, OSError):
            raise
        except ProblemError as error:  # of a job that cannot be had here
            _refuse(connection, Kind.REFUSED, str(error))
        except Exception:
            _refuse(connection, Kind.BROKEN, traceback.format_exc())
    if has_mpi_begun() and not is_forked_with_mpi:
        sys.modules["mpi4py.MPI"].Finalize()


def _refuse(connection: Connection, kind: Kind, why: str) -> None:
    """Say why no lease is taken here: the problem cannot be had, or another reason.

    A leader that has heard it from another child may have closed the pipe.
    """
    with contextlib.suppress(OSError):
        send(connection, kind, why.encode())


def _work(connection: Connection, load: Callable[[Job], Evaluator]) -> None:
    worker = Worker(load)
    while True:
        while worker.is_idle or connection.poll():
            worker.obey(order_of(*received(connection)))
        began = time.monotonic()
        for answer in worker.step():
            for each in _trusted(answer, began):
                send(connection, *encoded(each))


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
