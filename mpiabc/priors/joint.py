"""Several models as one: the joint distribution of a model and its parameters (Toni et al. 2009).

A particle is (theta, m), drawn as one row (D + 1,): the parameters of its model, nan up to D, the largest
number that a model has, and last the model's index. With the prior p(m) of the models,

    prior(theta, m)     =  p(m) prior_m(theta)
    proposal(theta, m)  =  [(1 - .05) sum_m' P(m') K(m | m') + .05 p(m)] q_m(theta)

P(m') is the share of the population's weights that is in m', K stays with probability .7 and else goes
uniformly to another model, q_m is the proposal that the kernel fits to the particles of m alone, with weights
normalised among them: prior_m, where these are too few to be fitted to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.defended import mixed, undefended
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.particles import Particles
from mpiabc.population import Population
from mpiabc.simulations import Simulations

STAY = 0.7  # the probability of a particle's own model
SHARE = 0.05  # of the models' prior: no model is out of reach, and no weight without bound


@dataclass(frozen=True, eq=False)
class ModelPrior:
    """The prior of (theta, m)."""

    priors: tuple[Any, ...]
    probabilities: np.ndarray  # (M,), of the models

    @property
    def parts(self) -> tuple[Any, ...]:
        """What is asked for the parameters of each model."""
        return self.priors

    @property
    def is_normalised(self) -> bool:
        """Whether all priors say so."""
        return all(getattr(prior, "is_normalised", False) for prior in self.priors)

    @property
    def where(self) -> Any:
        """A constraint, if one of the priors has one."""
        return next(filter(None, (getattr(prior, "where", None) for prior in self.priors)), None)

    @property
    def widths(self) -> list[int]:
        """How many parameters each model has."""
        return [len(prior.names) for prior in self.priors]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, D + 1)."""
        return _drawn(self.probabilities, self.priors, self.widths, n, rng)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density of x (n, D + 1), (n,)."""
        out, m = _log_probabilities(self.probabilities, x)
        for k, (prior, d) in enumerate(zip(self.priors, self.widths, strict=True)):
            rows = np.flatnonzero(m == k)
            if rows.size:
                out[rows] += _column(prior.logpdf(x[rows, :d]), len(rows), "prior")
        return out


@dataclass(frozen=True, eq=False)
class ModelProposal:
    """The proposal of (theta, m), fitted to a population; None among `proposals` is that model's prior."""

    is_rowwise = True  # parts that do not promise it are asked row by row

    probabilities: np.ndarray  # (M,), of the models
    proposals: tuple[Any, ...]
    theta: np.ndarray  # (N, D), of the population
    model: np.ndarray  # (N,)
    prior: ModelPrior = None  # type: ignore[assignment]  # not kept in files: who has the problem has it

    @property
    def parts(self) -> tuple[Any, ...]:
        """What is asked for the parameters of each model."""
        pairs = zip(self.proposals, self.prior.priors, strict=True)
        return tuple(prior if proposal is None else proposal for proposal, prior in pairs)

    @property
    def is_diagonal(self) -> bool:
        """Whether a model had too few particles for a full covariance."""
        return any(getattr(proposal, "is_diagonal", False) for proposal in self.proposals)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, (n, D + 1)."""
        return _drawn(self.probabilities, self.parts, self.prior.widths, n, rng)

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density of x (n, D + 1), (n,)."""
        out, m = _log_probabilities(self.probabilities, x)
        for k, (part, d) in enumerate(zip(self.parts, self.prior.widths, strict=True)):
            rows = np.flatnonzero(m == k)
            if rows.size:
                theta, kernel = x[rows, :d], undefended(part)
                out[rows] += self._mixed(part, k, _by_row(kernel, kernel.logpdf, theta), theta)
        return out

    def log_others(self, rows: np.ndarray) -> np.ndarray:
        """Log density at the particles of an index (k,), without the component that stands there."""
        model = self.model[rows]
        out = np.log(self.probabilities)[model]
        for k, (part, d) in enumerate(zip(self.parts, self.prior.widths, strict=True)):
            at = np.flatnonzero(model == k)
            if not at.size:
                continue
            theta, kernel = self.theta[rows[at], :d], undefended(part)
            if hasattr(kernel, "log_others"):
                place = np.cumsum(self.model == k) - 1  # of a particle among those of its model
                found = _by_row(kernel, kernel.log_others, place[rows[at]])
            else:
                found = _by_row(kernel, kernel.logpdf, theta)
            out[at] += self._mixed(part, k, found, theta)
        return out

    def _mixed(self, part: Any, k: int, found: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The densities of a model's part, of which those without the prior's share are known."""
        if part is undefended(part):
            return found
        prior = self.prior.priors[k]
        return mixed(part, found, _by_row(prior, prior.logpdf, theta))


def fitted(fit: Callable[[Population, Any], Any], population: Population, prior: ModelPrior) -> ModelProposal:
    """The proposal of a population: `fit(population, prior)` gives that of one model."""
    counts = np.bincount(population.model, minlength=len(prior.priors))
    proposals = tuple(
        fit(population.of(m), part) if count >= d + 2 else None
        for m, (count, d, part) in enumerate(zip(counts.tolist(), prior.widths, prior.priors, strict=True))
    )
    probabilities = proposed(population.model_probabilities(), prior.probabilities)
    return ModelProposal(probabilities, proposals, population.theta, population.model, prior)


def drawn(prior: Any, rows: Particles | Simulations) -> np.ndarray:
    """Particles as rows that a prior draws: theta, and of several models the index behind it."""
    return np.column_stack([rows.theta, rows.model]) if isinstance(prior, ModelPrior) else rows.theta


@quiet
def proposed(shares: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The probabilities (M,) of models to be proposed, from their shares P of the population's weights."""
    others = (shares.sum() - shares) * (1 - STAY) / (len(shares) - 1)
    return (1 - SHARE) * (STAY * shares + others) + SHARE * prior


def _drawn(
    probabilities: np.ndarray, parts: Sequence[Any], widths: list[int], n: int, rng: np.random.Generator
) -> np.ndarray:
    """`n` draws (n, D + 1): the models first, then the parameters of each model's."""
    cumulative = np.cumsum(probabilities)
    m = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
    x = np.full((n, max(widths) + 1), np.nan)
    x[:, -1] = m
    for k, (part, d) in enumerate(zip(parts, widths, strict=True)):
        rows = np.flatnonzero(m == k)
        if rows.size:
            x[rows, :d] = _table(part.sample(len(rows), rng), (len(rows), d))
    return x


def _log_probabilities(probabilities: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log probability of each row's model, and the models' indices."""
    m = x[:, -1].astype(int)
    return np.log(probabilities)[m], m


def _by_row(part: Any, ask: Callable[[np.ndarray], Any], rows: np.ndarray) -> np.ndarray:
    """What a part says of rows, asked row by row where it does not promise that each is on its own."""
    if getattr(part, "is_rowwise", False):
        return np.asarray(ask(rows), np.float64)
    return np.array([_column(ask(rows[i : i + 1]), 1, "proposal")[0] for i in range(len(rows))])


def _table(values: Any, shape: tuple[int, int]) -> np.ndarray:
    """Draws of one model. Raises ProblemError for another shape."""
    found = np.asarray(values)
    if found.shape != shape or found.dtype.kind not in "biuf":
        raise ProblemError(
            f"sample({shape[0]}, rng) of a model gave {found.dtype} of shape {found.shape}, expected {shape}"
        )
    return found


def _column(values: Any, n: int, what: str) -> np.ndarray:
    """Log densities of one model. Raises ProblemError for another shape."""
    found = np.asarray(values)
    if found.shape != (n,) or found.dtype.kind not in "biuf":
        raise ProblemError(
            f"logpdf of the {what} of a model gave {found.dtype} of shape {found.shape}, expected ({n},)"
        )
    return found
