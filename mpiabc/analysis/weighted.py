"""Weighted simulations: what a posterior is made of, a population or all that was simulated."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Weighted:
    """Simulations with weights, `n` of them in the order of their addresses.

    Each weight is the prior over the density that the simulation was drawn from, times what an acceptor gave
    it, and need not be normalised: -inf leaves a row out. Of a population the rows are its particles; of
    pooled simulations they are all whose statistics are known, however far from the data: what is near is
    chosen here, `size` effective ones and a few times as many. Which rows there are, and their order, must
    depend on addresses alone.
    """

    names: tuple[str, ...]
    theta: np.ndarray  # (n, d)
    log_weights: np.ndarray  # (n,)
    distances: np.ndarray  # (n,), or (n, m) of several; inf is far
    summaries: np.ndarray  # (n, k); k = 0 where none were kept; nan is a hole
    observed: np.ndarray | None  # (k,), None where nothing is known of it
    prior: Any  # a prior, or a `support.Support`
    size: int  # N, the population's size
    unadjusted: str = ""  # why statistics say nothing of the observed ones, if they do not: no adjustment
