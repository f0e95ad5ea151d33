"""Defensive mixtures (Hesterberg 1995): a share of a proposal is the prior, which bounds every weight.

    q = (1 - delta) q0 + delta prior,        prior / q <= 1 / delta

Priors are asked for whole blocks of draws only. So whoever has the log density of the prior at a row, as
evaluations and populations do, gives it to `mixed`, and no prior is asked for rows that met by chance.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.guard import quiet


@dataclass(frozen=True, eq=False)
class Defended:
    """(1 - share) proposal + share prior, 0 < share < 1; the prior's density must be normalised."""

    proposal: Any
    prior: Any
    share: float

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's density does not depend on the rows beside it."""
        return all(getattr(part, "is_rowwise", False) for part in (self.proposal, self.prior))

    @quiet
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, d)."""
        is_prior = rng.random(n) < self.share
        theta = np.array(self.proposal.sample(n, rng), np.float64)
        if is_prior.any():
            theta[is_prior] = self.prior.sample(int(is_prior.sum()), rng)
        return theta

    def logpdf(self, theta: np.ndarray) -> np.ndarray:
        """Log density of theta (m, d), (m,)."""
        return self.mixed(self.proposal.logpdf(theta), self.prior.logpdf(theta))

    @quiet
    def mixed(self, log_density: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
        """The log density where that of the proposal and that of the prior are known."""
        return np.logaddexp(math.log1p(-self.share) + log_density, math.log(self.share) + log_prior)


def undefended(proposal: Any) -> Any:
    """The proposal without the prior's share, if it has one."""
    return proposal.proposal if isinstance(proposal, Defended) else proposal


def mixed(proposal: Any, log_density: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """The log density of a proposal, of which that of `undefended` is known."""
    return proposal.mixed(log_density, log_prior) if isinstance(proposal, Defended) else log_density
