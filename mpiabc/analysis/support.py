"""Where parameters may lie: what a posterior needs to know of a prior, whether that is at hand or not.

Weights have the prior's density already, so bounds, layout and a constraint are all that is asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc.guard import quiet
from mpiabc.layout import Layout, Options, layout_of

_WHOLE = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Support:
    """The support of a prior: (d,) `low` and `high`, infinite where there is no bound.

    `inside` says of rows (n, d) which are in it, beyond what bounds and layout say; None: all of them.
    """

    layout: Layout
    low: np.ndarray
    high: np.ndarray
    inside: Callable[[np.ndarray], np.ndarray] | None = None

    @quiet
    def holds(self, theta: np.ndarray) -> np.ndarray:
        """Which rows of theta (n, d) lie in it, (n,)."""
        found = np.all((theta >= self.low) & (theta <= self.high), axis=1)
        rows = np.flatnonzero(found)
        if self.inside is not None and rows.size:
            found[rows] = self.inside(theta[rows])
        return found

    @cached_property
    def columns(self) -> list[int]:
        """Those that are real numbers and move freely."""
        return list(self.layout.free)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(map(str, self.layout.keys))


@dataclass(frozen=True, eq=False)
class _Positive:
    """Where a prior's density is not zero."""

    prior: Any

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        return np.asarray(self.prior.logpdf(theta)) > -np.inf


def support_of(prior: Any) -> Support:
    """That of a prior, which is asked for its density; a Support is one already."""
    if isinstance(prior, Support):
        return prior
    ends = prior.bounds() if hasattr(prior, "bounds") else [None] * len(prior.names)
    return _bounded(layout_of(prior), ends, _Positive(prior))


def told_layout(layout: Layout) -> dict[str, Any]:
    """A layout as plain data; of choices only how many there are."""
    return {
        "integers": list(layout.integers),
        "choices": [[choice.column, len(choice.values)] for choice in layout.choices],
        "rests": [[column, list(others)] for column, others in layout.rests],
    }


def support_from(names: Sequence[str], ends: Sequence[Any], told: Mapping[str, Any]) -> Support:
    """The support of which a file says bounds and layout."""
    choices = [Options(at, tuple(range(k)), np.full(k, 1 / k)) for at, k in told["choices"]]
    rests = [(column, tuple(others)) for column, others in told["rests"]]
    return _bounded(Layout(tuple(names), tuple(told["integers"]), tuple(choices), tuple(rests)), ends)


def _bounded(layout: Layout, ends: Sequence[Any], inside: Any = None) -> Support:
    low, high = np.array([_WHOLE if end is None else end for end in ends], np.float64).reshape(-1, 2).T
    return Support(layout, low.copy(), high.copy(), inside)
