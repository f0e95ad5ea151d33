"""Threads of BLAS and OpenMP: as many as a worker has cores, unless the user has said otherwise."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
_log = logging.getLogger(__name__)
_share: int | None = None  # of this process, once it is limited


def are_set_by_user() -> bool:
    """Whether the environment speaks of thread numbers."""
    return any(name in os.environ for name in _VARIABLES)


def environment(n: int) -> dict[str, str]:
    """Variables that limit a new process to `n` threads; none where the user has set any."""
    return {} if are_set_by_user() else {name: str(max(1, n)) for name in _VARIABLES}


def of_programs() -> dict[str, str]:
    """Variables that limit a program to this process's share of the cores, if it has one."""
    return {} if _share is None else environment(_share)


def single() -> Any:
    """A context in which BLAS has one thread, so that its results do not depend on their number."""
    return _limited(1) or nullcontext()


def limit(n: int) -> Callable[[], None]:
    """Limit the libraries loaded in this process to `n` threads, unless the user has set a number.

    Returns what lifts the limit again.
    """
    global _share
    before, _share = _share, n
    limited = None if are_set_by_user() else _limited(max(1, n))

    def lift() -> None:
        global _share
        _share = before
        if limited is not None:
            limited.restore_original_limits()

    if limited is not None:
        _log.debug("BLAS and OpenMP limited to %d threads; set OMP_NUM_THREADS to change it", n)
    return lift


def _limited(n: int) -> Any:
    """The limit, None where nothing has more threads already.

    Nothing is touched without need: told a number after a fork, OpenBLAS starts all its threads anew,
    and these spin, on cores that others compute on, for some 30 ms.
    """
    controller = _controller(len(sys.modules))
    is_above = any(library["num_threads"] > n for library in controller.info())
    return controller.limit(limits=n) if is_above else None


@lru_cache(1)
def _controller(modules: int) -> Any:
    """What limits the libraries that are loaded; to be looked for anew when more modules are."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
