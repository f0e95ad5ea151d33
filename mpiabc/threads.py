"""Threads of BLAS and OpenMP: as many as a worker has cores, unless the user has said otherwise."""

import logging
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from mpiabc import machine

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
_log = logging.getLogger(__name__)
_limit: int | None = None  # of this process, once it has one


def are_set_by_user() -> bool:
    """Whether the environment speaks of thread numbers."""
    return any(name in os.environ for name in _VARIABLES)


def environment(n: int) -> dict[str, str]:
    """Variables that limit a new process to `n` threads; none where the user has set any."""
    return {} if are_set_by_user() else {name: str(max(1, n)) for name in _VARIABLES}


def of_programs() -> dict[str, str]:
    """Variables that limit a program to as many threads as this process has, if it is limited."""
    return {} if _limit is None else environment(_limit)


def share() -> int:
    """Threads that this process may compute on: as users say, as it was limited to, or its cores."""
    given = [os.environ[name] for name in _VARIABLES if os.environ.get(name, "").isdecimal()]
    if given:
        return max(1, int(given[0]))
    return machine.cores() if _limit is None else _limit


def each(function: Callable[[slice], None], length: int, most: int) -> None:
    """Call the function for slices of so many rows, at most `most` of them, side by side.

    For arithmetic in NumPy, which lets threads run, and whose rows do not depend on each other. New threads
    have the floating-point environment of this one; what NumPy says of errors is left out.
    """

    def quietly(rows: slice) -> None:
        with np.errstate(all="ignore"):
            function(rows)

    count = max(1, min(most, length))
    if count > 1:
        count = min(count, share())
    bounds = [length * i // count for i in range(count + 1)]
    slices: Iterable[slice] = map(slice, bounds[:-1], bounds[1:])
    if count == 1:
        return function(*slices)
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(quietly, slices))
    return None


def single() -> Any:
    """A context in which BLAS has one thread, so that its results do not depend on their number."""
    return _limited(1) or nullcontext()


def limit(n: int) -> Callable[[], None]:
    """Limit the libraries loaded in this process to `n` threads, unless the user has set a number.

    Returns what lifts the limit again.
    """
    global _limit
    before, _limit = _limit, max(1, n)
    limited = None if are_set_by_user() else _limited(max(1, n))

    def lift() -> None:
        global _limit
        _limit = before
        if limited is not None:
            limited.restore_original_limits()

    if limited is not None:
        _log.debug("BLAS and OpenMP limited to %d threads; set OMP_NUM_THREADS to change it", n)
    return lift


def _limited(n: int) -> Any:
    """The limit, None where nothing has more threads already.

    Nothing is touched without need: given a number after a fork, OpenBLAS starts all its threads anew,
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
