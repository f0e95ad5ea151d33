"""Where evaluations run. A scheduler is given as an object or by its short name."""

import os
import re
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from mpiabc import environment
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.base import Engine, Lost, Scheduler, are_gone, hold, works_in_threads

if TYPE_CHECKING:
    from mpiabc.schedulers.combined import Combined
    from mpiabc.schedulers.dask import Dask
    from mpiabc.schedulers.futures import Futures
    from mpiabc.schedulers.maps import Map
    from mpiabc.schedulers.mpi import MPI, MPIStatic
    from mpiabc.schedulers.processes import Processes
    from mpiabc.schedulers.redis import Redis, RedisStatic
    from mpiabc.schedulers.serial import Serial
    from mpiabc.schedulers.together import Together

__all__ = [
    "MPI",
    "Combined",
    "Dask",
    "Engine",
    "Futures",
    "Lost",
    "MPIStatic",
    "Map",
    "Processes",
    "Redis",
    "RedisStatic",
    "Scheduler",
    "Serial",
    "Together",
    "are_gone",
    "hold",
    "resolve",
    "works_in_threads",
]


class _Named(NamedTuple):
    """A scheduler: its module, and what stands for it as text."""

    home: str
    short: str = ""
    schemes: tuple[str, ...] = ()  # of addresses
    keyword: str = ""  # of its address
    example: str = ""


# Imported when they are asked for: a worker needs its own transport alone.
_ALL = {
    "Serial": _Named("serial", "serial"),
    "Processes": _Named("processes", "processes"),
    "MPI": _Named("mpi", "mpi"),
    "MPIStatic": _Named("mpi", "mpi-static"),
    "Redis": _Named("redis", "redis", ("redis", "rediss"), "url", "the 'redis://...' of a Redis server"),
    "RedisStatic": _Named("redis", "redis-static"),
    "Dask": _Named(
        "dask",
        "dask",
        ("tcp", "tls"),
        "address",
        "the 'tcp://...' or scheduler file '....json' of a Dask cluster",
    ),
    "Futures": _Named("futures"),
    "Map": _Named("maps"),
    "Combined": _Named("combined"),
    "Together": _Named("together"),
}
_BY_NAME = {named.short: name for name, named in _ALL.items() if named.short}
_BY_SCHEME = {scheme: name for name, named in _ALL.items() for scheme in named.schemes}
#: Short names, and beginnings of addresses, besides "auto".
NAMES, SCHEMES = tuple(_BY_NAME), tuple(_BY_SCHEME)
_FORMER = {"Several": "Combined"}  # names that go with the next minor version


def __getattr__(name: str) -> object:
    """A scheduler is imported when it is asked for; what has another name now warns, and says which."""
    if name in _ALL:
        return _scheduler(name)
    if name not in _FORMER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = _FORMER[name]
    message = f"schedulers.{name} is called schedulers.{now} now; the old name goes with mpiabc 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return _scheduler(now)


def _scheduler(name: str) -> Callable[..., Scheduler]:
    return getattr(import_module(f"mpiabc.schedulers.{_ALL[name].home}"), name)


_COMMA = r",(?=\s*[\w./-]+(?:://|,|$))"  # between schedulers, not in a password


def resolve(scheduler: object) -> Scheduler:
    """The scheduler of a short name, of several, or the object itself. Raises SchedulerError for neither."""
    if isinstance(scheduler, str | os.PathLike):
        parts = re.split(_COMMA, os.fspath(scheduler))
        return _named(parts[0]) if len(parts) == 1 else resolve(parts)
    if isinstance(scheduler, list | tuple):
        return _scheduler("Combined")([resolve(part) for part in scheduler])
    if isinstance(scheduler, type):
        called = scheduler.__qualname__
        raise SchedulerError(f"scheduler={called} is a class: give an object of it, scheduler={called}(...)")
    if type(scheduler).__module__.startswith("distributed."):
        return _scheduler("Dask")(scheduler)
    if _is_one(scheduler):
        return _free(scheduler)
    raise _unknown(scheduler)


def _is_one(scheduler: object) -> TypeGuard[Scheduler]:
    return all(hasattr(scheduler, name) for name in ("open", "leads", "serve"))


def _named(name: str) -> Scheduler:
    name = name.strip()
    scheme = name.partition("://")[0]
    if name == "auto":
        return _of_environment() or _of_this_job()
    if name in _BY_NAME:
        return _free(_scheduler(_BY_NAME[name])())
    if scheme in _BY_SCHEME:
        found = _BY_SCHEME[scheme]
        return _scheduler(found)(**{_ALL[found].keyword: name})
    if name.endswith(".json"):
        return _of_file(name)
    raise _unknown(name)


def _of_file(name: str) -> Scheduler:
    from mpiabc.schedulers.redis import Redis, is_broker_file

    return Redis(broker=name) if is_broker_file(name) else _scheduler("Dask")(scheduler_file=name)


def _of_environment() -> Scheduler | None:
    """What the environment says in place of "auto", if it says anything else."""
    given = (environment.given(environment.SCHEDULER) or "").strip()
    parts = [part.strip() for part in given.split(",")]
    if parts in ([""], ["auto"]):
        return None
    if "auto" in parts:
        raise SchedulerError(f"{environment.SCHEDULER}={given!r}: 'auto' stands there alone, or not at all")
    try:
        return resolve(given)
    except SchedulerError as error:
        raise SchedulerError(f"{environment.SCHEDULER}: {error}") from None


def _of_this_job() -> Scheduler:
    """The job's ranks, by way of Dask where dask_mpi has taken them for it, else this machine."""
    if not _is_mpi_job():
        return _scheduler("Processes")()
    return _scheduler("Dask" if _is_of_dask() else "MPI")()


def _is_of_dask() -> bool:
    """Whether the ranks of this job serve a Dask cluster that dask_mpi has made of them."""
    if "dask_mpi" not in sys.modules:
        return False
    from mpiabc.schedulers.dask import is_of_these_ranks

    return is_of_these_ranks()


def _free(scheduler: Scheduler) -> Scheduler:
    """The scheduler. Raises SchedulerError for ranks that serve a Dask cluster: they would never answer."""
    if _is_of_dask() and _is_of_all_ranks(scheduler):
        raise SchedulerError(
            "dask_mpi has made a Dask cluster of the ranks of this job, which answer no run over MPI: give "
            "scheduler='dask', or 'auto', which is that cluster here"
        )
    return scheduler


def _is_of_all_ranks(scheduler: Scheduler) -> bool:
    from mpiabc.schedulers.mpi import MPI

    return isinstance(scheduler, MPI) and scheduler.comm is None


def _unknown(scheduler: object) -> SchedulerError:
    if isinstance(scheduler, str) and "://" in scheduler:  # a password may stand in the rest
        scheduler = f"{scheduler.partition('://')[0]}://..."
    examples = [named.example for named in _ALL.values() if named.example]
    known = ", ".join([*map(repr, ("auto", *NAMES)), *examples])
    return SchedulerError(
        f"unknown scheduler {scheduler!r}: give {known}, or an object from mpiabc.schedulers"
    )


def _is_mpi_job() -> bool:
    """Started by a launcher with several ranks, or MPI is up already with several."""
    from mpiabc.schedulers.mpi import launched_size

    if launched_size() > 1:
        return True
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.size > 1
