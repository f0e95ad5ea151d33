"""What launchers say, and how MPI is started; where it cannot be, or ranks are missing, that is said."""

import atexit
import contextlib
import logging
import os
import platform
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType, TracebackType
from typing import NoReturn

from mpiabc import voice
from mpiabc.batch import variables
from mpiabc.errors import Error, SchedulerError
from mpiabc.schedulers.mpi.ending import finalize, left
from mpiabc.schedulers.mpi.held import are_any_held
from mpiabc.schedulers.shared.child import die_with_parent
from mpiabc.schedulers.silence import Silence

_log = logging.getLogger(__name__)


_GLANCE = 0.1  # seconds between two looks at the time while MPI starts
_SPEAKERS = 4  # ranks that then say what they wait for: the last of them after eight minutes


#: What launchers say about the number of ranks they started; those of batch systems are in their table.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


def launched_size() -> int:
    """How many ranks the launcher says that it started; 1 without a launcher."""
    found = (os.environ.get(name, "") for name in (*_SIZE_VARIABLES, *variables.sizes()))
    return max((int(number) for number in found if number.isdigit()), default=1)


def launched_rank() -> int:
    """Which rank this is, as the launcher says; 0 without a launcher."""
    found = (os.environ.get(name, "") for name in _RANK_VARIABLES)
    return next((int(rank) for rank in found if rank.isdigit()), 0)


def load_mpi() -> ModuleType:
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


def _import_mpi() -> ModuleType:
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
        with _waiting_reported():
            library.Init_thread()
        atexit.register(finalize, library)
    if library.COMM_WORLD.size > 1:
        sys.excepthook = partial(_tell_and_abort, library, sys.excepthook)
    return library


@contextlib.contextmanager
def _waiting_reported() -> Iterator[None]:
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
        _tell_for_ever(MissingRanks(rank, size))
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _tell_for_ever(missing: "MissingRanks") -> NoReturn:
    try:
        die_with_parent()
        while True:
            time.sleep(_GLANCE)
            missing.tell()
    finally:
        os._exit(0)


class MissingRanks:
    """Says that ranks are missing, if that lasts: rank 0, and if that is missing others, not all at once."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._silence = Silence(time.monotonic(), times=2.0 ** min(rank, 20))

    def tell(self) -> None:
        """Say so, if it is time."""
        if self._silence.is_due(time.monotonic()):
            _log.warning(
                "rank %d of %d on %s has waited %.0f s for all ranks to call run: where only some do, give "
                "these a communicator of their own, MPI(comm=...); where one has failed, end the job",
                self._rank,
                self._size,
                platform.node(),
                self._silence.seconds,
            )


def _tell_and_abort(
    library: ModuleType,
    tell: Callable[..., None],
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """What ends a rank of a job outside of a run would leave the others waiting: end them too."""
    tell(kind, error, trace)
    if (not isinstance(error, Error) or are_any_held()) and not library.Is_finalized():
        voice.flush()
        library.COMM_WORLD.Abort(1)


def end_job() -> None:
    """End the job from a rank that failed outside of a run, where the others would wait for it."""
    with contextlib.suppress(SchedulerError):
        if launched_size() > 1 and not left:
            load_mpi().COMM_WORLD.Abort(1)


def _wrong_launcher(library: ModuleType, launched: int) -> SchedulerError:
    name = library.Get_library_version().strip("\0").splitlines()[0].strip()
    return SchedulerError(
        f"the launcher started {launched} ranks but MPI sees only this one, so each would run alone: "
        f"mpirun and mpi4py belong to different MPIs (mpi4py uses {name}); use the mpirun of that one, or "
        "srun with the right --mpi"
    )
