"""The p-norm of weighted differences, with scales that are fixed, or fitted to simulations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc.arguments import added, real
from mpiabc.distances.scales import check_scale, scales
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.particles import Particles
from mpiabc.structure import Structure

_MOST_SHOWN = 5


@dataclass(frozen=True)
class PNorm:
    """(sum_i |w_i (x_i - y_i) / s_i|^p)^(1/p); p = inf is the largest of the terms.

    `weights` has the structure of the observed data, with names and labels in the same order; one number for
    a key of several values is that of each. `scale`, which makes different statistics comparable: such
    data too, or "mad", "std", "pcmad" (see `distance.scales`), or a function of simulated (n, k) and observed
    (k,) that gives s (k,). These are fitted after each generation to its first simulations, accepted or not
    (Prangle 2017), and then stand for the next one; a statistic whose scale is 0 is left out.
    missing="ignore" leaves out what is nan in the observed data.

    Each row is summed on its own, in a fixed order, so that a distance does not depend on how many others
    are computed with it.
    """

    is_rowwise = True  # a row's distance does not depend on the rows beside it

    p: float = 2
    weights: Any = None
    scale: Any = added(None)
    missing: str = added("raise")

    def __post_init__(self) -> None:
        p = real(self.p)
        if p is None or not p >= 1:
            raise ProblemError(f"PNorm(p={self.p!r}) is no norm: give p >= 1, or math.inf")
        if isinstance(self.scale, str):
            check_scale("PNorm", self.scale)
        if self.missing not in ("raise", "ignore"):
            raise ProblemError(f'PNorm(missing={self.missing!r}): give "raise" or "ignore"')

    @property
    def is_adaptive(self) -> bool:
        """Whether its scale is fitted to simulations."""
        return isinstance(self.scale, str) or callable(self.scale)

    @quiet
    def __call__(self, simulated: Any, observed: Any) -> float:
        """The distance of two data of the same structure; a scale that is fitted is 1."""
        self.check(observed)
        structure = Structure(observed)
        used = self.of(observed)
        return float(used.rows(structure.row(simulated)[None], structure.row(observed))[0])

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        difference = np.abs(simulated - observed)
        if self.weights is not None:
            difference *= self._row("weights", len(observed))
        return norm(difference, self.p)

    def of(self, observed: Any) -> Any:
        """What measures rows of data like these."""
        structure = Structure(observed)
        weights = _whole(self.weights, structure)
        if self.scale is None and self.missing == "raise" and weights is self.weights:
            return self
        row = structure.row(observed)
        factors = np.ones(structure.size) if weights is None else _numbers("weights", weights, structure.size)
        if self.missing == "ignore":
            factors = np.where(np.isnan(row), 0.0, factors)
        if self.scale is None:
            return Norm(self.p, factors)
        if self.is_adaptive:
            return Scaled(self.p, factors, self.scale, tuple(structure.labels()))
        given = _numbers("scale", _whole(self.scale, structure), structure.size)
        return Norm(self.p, divided(factors, given))

    def check(self, observed: Any) -> None:
        """Raise ProblemError for weights of other data: `rows` sees their number alone."""
        given = {"weights": self.weights, "scale": None if self.is_adaptive else self.scale}
        for what, numbers in given.items():
            if numbers is not None:
                structure = Structure(observed)
                _check_numbers(what, _whole(numbers, structure), structure)

    def _row(self, what: str, size: int) -> np.ndarray:
        return _numbers(what, getattr(self, what), size)


@dataclass(frozen=True, eq=False)
class Norm:
    """(sum_i |f_i (x_i - y_i)|^p)^(1/p) with factors f (k,); what has the factor 0 is left out."""

    is_rowwise = True

    p: float
    factors: np.ndarray

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        factors, used = self.factors, np.flatnonzero(self.factors)
        if len(used) < len(factors):
            # A copy in which each row lies together: how a row is summed must not depend on their number.
            simulated, observed, factors = simulated.take(used, axis=1), observed[used], factors[used]
        if not factors.size:
            return np.zeros(len(simulated))
        difference = np.abs(simulated - observed)
        difference *= factors
        return norm(difference, self.p)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A norm whose scales are fitted; not fitted, they are 1."""

    is_rowwise = True

    p: float
    factors: np.ndarray
    scale: Any
    labels: tuple[str, ...]

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        return self.unscaled().rows(simulated, observed)

    def fit(self, sample: Particles, observed: np.ndarray) -> Norm:
        """The norm with the scales of this sample. Raises ProblemError if nothing has one."""
        factors = divided(self.factors, self._scales(sample, observed))
        if not (factors.any() or (sample.summaries == observed).all()):
            raise ProblemError(
                f"none of the {len(factors)} statistics has a scale, as {len(sample)} simulations hardly "
                "differ, or are no numbers, and not all are as observed: nothing would be compared; give "
                "scales of your own"
            )
        return Norm(self.p, factors)

    def unscaled(self) -> Norm:
        """The norm whose scales are 1."""
        return Norm(self.p, self.factors)

    def doubts(self, sample: Particles, observed: np.ndarray) -> str | None:
        """What the user should know of a fit: which statistics say nothing, though they are not as observed.

        One that is always as it is observed says nothing either, and is not reported.
        """
        is_left_out = (self._scales(sample, observed) == 0) & (self.factors != 0)
        is_as_observed = (sample.summaries == observed).all(axis=0)
        names = [self.labels[i] for i in np.flatnonzero(is_left_out & ~is_as_observed)]
        return without_scale(names) if names else None

    def _scales(self, sample: Particles, observed: np.ndarray) -> np.ndarray:
        used, found = np.flatnonzero(self.factors), np.zeros(len(self.factors))
        simulated = np.asarray(sample.summaries, np.float64).take(used, axis=1)
        found[used] = scales(self.scale, simulated, observed[used])
        return found


def without_scale(names: list[str]) -> str:
    """That these are left out, though not all simulations are as observed."""
    text = ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")
    return (
        f"the scale of {text} is 0, as simulations hardly differ there, and not all are as observed: the "
        "distance goes on without; leave them out of the data, or give scales of your own"
    )


def norm(difference: np.ndarray, p: float) -> np.ndarray:
    """The p-norm of each row (n, k) of numbers >= 0, (n,)."""
    if difference.shape[1] == 1:
        return difference[:, 0]
    if p == math.inf:
        return difference.max(axis=1)
    if p == 1:
        return difference.sum(axis=1)
    if p == 2:
        return np.sqrt(np.square(difference).sum(axis=1))
    return (difference**p).sum(axis=1) ** (1 / p)


def divided(factors: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Factors for these scales; 0 where a scale is 0."""
    return np.divide(factors, by, out=np.zeros(len(factors)), where=by > 0)


def _whole(numbers: Any, structure: Structure) -> Any:
    """Numbers in which those of keys of several values are written out; as they are, if they all are."""
    if not isinstance(numbers, Mapping) or not structure.is_mapping:
        return numbers
    short = {
        name: shape
        for name, shape in structure.shapes.items()
        if shape and name in numbers and real(numbers[name]) is not None
    }
    if not short:
        return numbers
    return {k: np.full(short[k], real(x), np.float64) if k in short else x for k, x in numbers.items()}


def _numbers(what: str, numbers: Any, size: int) -> np.ndarray:
    """Weights or scales as a row (size,) of numbers >= 0. Raises ProblemError."""
    row = np.abs(Structure(numbers).row(numbers))
    if row.size != size:
        one = "weight" if what == "weights" else what
        raise ProblemError(
            f"PNorm has {row.size} {one}s for data of {size} numbers: give one for each, in the "
            "structure of the observed data"
        )
    return row


def _check_keys(one: str, numbers: Any, structure: Structure) -> None:
    """Raise ProblemError for a key that the data do not have, or have besides."""
    if not (isinstance(numbers, Mapping) and structure.is_mapping):
        return
    given, names = [str(key) for key in numbers], list(structure.shapes)
    wrong = [key for key in given if key not in names]
    missing = [name for name in names if name not in given]
    if wrong or missing:
        text = f"a {one} of {wrong[0]!r}" if wrong else f"no {one} of {missing[0]!r}"
        raise ProblemError(
            f"PNorm has {text}, and the observed data have {', '.join(map(repr, names))}: "
            f"give one {one} for each of these names, or for each of their values"
        )


def _check_numbers(what: str, numbers: Any, structure: Structure) -> None:
    """Raise ProblemError for weights or scales of other data."""
    mine, one = Structure(numbers), "weight" if what == "weights" else what
    _check_keys(one, numbers, structure)
    _numbers(what, numbers, structure.size)
    row = mine.row(numbers)
    if not (row >= 0).all():
        raise ProblemError(f"PNorm has {row[~(row >= 0)][0]} among its {one}s: give numbers >= 0")
    if not row.any():
        raise ProblemError(f"all {one}s of PNorm are 0: nothing would be compared; give one that is not")
    if not structure.agrees(mine):
        pairs = zip(mine.labels(), structure.labels(), strict=False)
        found, expected = next(((a, b) for a, b in pairs if a != b), (str(mine), str(structure)))
        raise ProblemError(
            f"PNorm has the {one} of {found!r} where the observed data have {expected!r}: give {one}s "
            "with the same names and labels, in the same order, or a plain array"
        )
