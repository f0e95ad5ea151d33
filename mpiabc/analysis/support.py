"""Where parameters may lie: what a posterior needs to know of a prior, whether that is at hand or not.

Weights have the prior's density already, so bounds, layout and a constraint are all that is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpiabc.guard import quiet
from mpiabc.layout import Layout, layout_of
from mpiabc.priors.prior import Prior

_ROUNDING = 1e-9  # of shares that add up to 1
_WHOLE = (-np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Support:
    """The support of a prior: (d,) `low` and `high`, infinite where there is no bound.

    `prior` is asked whether a row is inside, where bounds and layout do not say all; else it is None.
    """

    layout: Layout
    low: np.ndarray
    high: np.ndarray
    prior: Any = None

    @quiet
    def holds(self, theta: np.ndarray) -> np.ndarray:
        """Which rows of theta (n, d) lie in it, (n,)."""
        found = np.all((theta >= self.low) & (theta <= self.high), axis=1)
        for column, others in self.layout.rests:
            found &= np.abs(theta[:, [column, *others]].sum(axis=1) - 1) <= _ROUNDING
        rows = np.flatnonzero(found)
        if self.prior is not None and rows.size:
            found[rows] = np.asarray(self.prior.logpdf(theta[rows])) > -np.inf
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(map(str, self.layout.keys))

    @cached_property
    def columns(self) -> list[int]:
        """Those that are real numbers and move freely."""
        return list(self.layout.free)

    @cached_property
    def discrete(self) -> list[int]:
        """Those that are integers or choices."""
        return list(self.layout.discrete)

    @cached_property
    def is_everywhere(self) -> bool:
        """Whether any real numbers are in it."""
        has_bounds = np.isfinite(self.low[self.columns]).any() or np.isfinite(self.high[self.columns]).any()
        return self.prior is None and not has_bounds and not self.layout.rests

    def completed(self, moving: np.ndarray, discrete: np.ndarray | None = None) -> np.ndarray:
        """Rows of theta (n, d) with these real numbers and these of the discrete columns, rests filled in."""
        theta = np.zeros((len(moving), len(self.low)))
        theta[:, self.columns] = moving
        if discrete is not None:
            theta[:, self.discrete] = discrete
        return self.layout.complete(theta)


def support_of(prior: Any) -> Support:
    """That of a prior; a Support is one already."""
    if isinstance(prior, Support):
        return prior
    known = prior.plain_support() if isinstance(prior, Prior) else None
    ends = prior.bounds() if hasattr(prior, "bounds") else [None] * len(prior.names)
    return _bounded(layout_of(prior), ends, prior if known is None else None)


def support_from(names: Sequence[str], kept: Mapping[str, Any]) -> Support:
    """The support of which a file says all, as `Prior.plain_support` does."""
    rests = tuple((column, tuple(others)) for column, others in kept["rests"])
    return _bounded(Layout(tuple(names), tuple(kept["integers"]), (), rests), kept["bounds"])


def _bounded(layout: Layout, ends: Sequence[Any], prior: Any = None) -> Support:
    low, high = np.array([_WHOLE if end is None else end for end in ends], np.float64).reshape(-1, 2).T
    return Support(layout, low.copy(), high.copy(), prior)
