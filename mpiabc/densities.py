"""Densities of many particles as a job of their own, which workers share before a level is opened."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc import guard
from mpiabc.records import Records, brought


@dataclass(frozen=True, eq=False)
class Densities:
    """The log density of a proposal at some of its own centres, without the component that stands there.

    Where theta (n, d) is given, at these, with all components.
    """

    number: int
    level: int
    epsilon: float
    proposal: Any
    rows: np.ndarray  # an index of the centres
    is_static: bool = True
    theta: np.ndarray | None = None

    def __str__(self) -> str:
        return f"densities of {len(self.rows)} particles for generation {self.level}"

    def evaluator(self, shared: Any = None, where: str | None = None, watch: Any = None) -> "_Rows":
        """What computes those of some rows, in a worker."""
        return _Rows(self)


class _Rows:
    def __init__(self, order: Densities) -> None:
        self.order = order
        self._floats = guard.FloatingPoint()

    def __call__(self, start: int, stop: int) -> Records:
        """Those of the rows [start, stop), as the payload of records without particles."""
        began = time.perf_counter()
        with self._floats.steady():
            found = self._log_densities(slice(start, stop))
        payload = np.asarray(found, np.float64).tobytes()
        return brought(self.order.number, start, stop, payload, began)

    def _log_densities(self, rows: slice) -> np.ndarray:
        if self.order.theta is not None:
            return self.order.proposal.logpdf(self.order.theta[rows])
        return self.order.proposal.log_others(self.order.rows[rows])
