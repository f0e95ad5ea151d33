"""Acceptors: which measured evaluations count."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mpiabc.particles import Particles, within


class Acceptor(Protocol):
    """Decides about rows that have their distances.

    A row's decision must not depend on the rows beside it: these depend on how ids were leased.
    """

    def accept(self, measured: Particles, epsilon: float) -> np.ndarray:
        """Which of the rows (m,) count, as booleans."""
        ...


@dataclass(frozen=True)
class Within:
    """Accepts what is at most epsilon away from the observed data: ABC with a uniform kernel."""

    def accept(self, measured: Particles, epsilon: float) -> np.ndarray:
        """Where the distance is at most epsilon."""
        return within(measured.distances, epsilon)
