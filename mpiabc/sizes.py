"""Sizes: how many particles the next population has.

A rule is anything with `size(generation, previous) -> int`: `previous` is the population before, None for
generation 0. It is asked by the process that leads, and must be a function of what it is given: its answer is
frozen in the order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mpiabc import calls
from mpiabc.arguments import real, whole
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.kernels.gaussian import Gaussian
from mpiabc.population import Population

LEAST = 2  # particles, of which weights can be made
_MOST_PLACES = 1000  # where densities are looked at
_PAIRS = 1_000_000  # of particles and places, at once: 8 MB


class Size(Protocol):
    """Gives each generation its number of particles."""

    def size(self, generation: int, previous: Population | None) -> int:
        """The number of particles of `generation`, at least 2."""
        ...


@dataclass(frozen=True)
class Listed:
    """The sizes given, one a generation; the last one goes on."""

    sizes: tuple[int, ...]

    def __init__(self, sizes: "list[int] | tuple[int, ...] | np.ndarray") -> None:
        given = list(sizes)
        values = tuple(n for n in map(whole, given) if n is not None and n >= LEAST)
        if not given:
            raise ProblemError("population_size=[] is empty: give at least one size")
        if len(values) < len(given):
            raise ProblemError(
                f"population_size={given!r}: give whole numbers of at least {LEAST}, one a generation"
            )
        object.__setattr__(self, "sizes", values)

    def size(self, generation: int, previous: Population | None) -> int:
        """The size of that place in the list, or the last one."""
        return self.sizes[min(generation, len(self.sizes) - 1)]

    @property
    def high(self) -> int:
        """The largest of them."""
        return max(self.sizes)


@dataclass(frozen=True)
class ESS:
    """As many particles as will probably have an effective sample size of `aim`: N aim / ESS.

    N and ESS are those of the population before; generation 0, whose weights are equal, has `aim` particles.
    Never fewer than `low` or more than `high`, by default ten times `aim`.
    """

    aim: float
    low: int = LEAST
    high: int | None = None

    def __post_init__(self) -> None:
        aim = real(self.aim)
        if aim is None or not LEAST <= aim < math.inf:
            raise ProblemError(
                f"sizes.ESS({self.aim!r}): give the effective sample size aimed at, at least 2"
            )
        object.__setattr__(self, "aim", aim)
        _take_bounds(self, math.ceil(10 * aim))

    def size(self, generation: int, previous: Population | None) -> int:
        """N aim / ESS of the population before, within the bounds."""
        wanted = self.aim if previous is None else len(previous) * self.aim / previous.ess
        return _within(self, wanted)


@dataclass(frozen=True)
class CV:
    """The fewest particles whose kernel density estimate varies by `aim` (Klinger and Hasenauer 2017).

    The mean coefficient of variation of bootstrapped densities, at the particles before, is at most `aim`.
    Of n draws from the particles, kernel K_j is drawn c_j times, c multinomial with the weights W, so that

        cv(theta)^2 = [sum_j W_j K_j(theta)^2 / (sum_j W_j K_j(theta))^2 - 1] / n

    is what any number of bootstraps comes to: none is drawn, and all n share one matrix of densities, of at
    most 1000 places. The kernel is `Gaussian()` as fitted to the population. Generation 0 has `start`
    particles; never fewer than `low` or more than `high`.
    """

    aim: float = 0.05
    low: int = 10
    high: int | None = None
    start: int = 1000

    def __post_init__(self) -> None:
        aim, start = real(self.aim), whole(self.start)
        if aim is None or not 0 < aim < math.inf:
            raise ProblemError(
                f"sizes.CV({self.aim!r}): give the coefficient of variation aimed at, such as .05"
            )
        if start is None or start < LEAST:
            raise ProblemError(f"sizes.CV(start={self.start!r}): give a whole number of at least {LEAST}")
        object.__setattr__(self, "aim", aim)
        object.__setattr__(self, "start", start)
        _take_bounds(self, 10 * start)

    @quiet
    def size(self, generation: int, previous: Population | None) -> int:
        """The square of what one draw varies by, over that of the aim, within the bounds."""
        if previous is None:
            return _within(self, self.start)
        return _within(self, (variation_of_one(previous) / self.aim) ** 2)


def variation_of_one(population: Population) -> float:
    """The mean coefficient of variation of a kernel density estimate of one draw.

    With several models a draw is one of a model: P(m) of the draws tell of the density in model m.
    """
    if not population.models:
        return _variation(population, 1.0)
    shares = population.model_probabilities().tolist()
    return sum(p * _variation(population.of(m), p) for m, p in enumerate(shares) if p > 0)


def _variation(population: Population, share: float) -> float:
    """The same, where only this share of the draws is of these particles."""
    places = np.unique(np.linspace(0, len(population) - 1, _MOST_PLACES).astype(int))
    weights = population.weights[places] / population.weights[places].sum()
    parts = _densities(population, places)
    found = np.concatenate([_variations(part, population.weights, share) for part in parts])
    return float(np.add.reduce(weights * found))


def _variations(densities: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """sd / mean of the densities (places, N) of kernels with these weights (N,)."""
    mean = np.add.reduce(weights * densities, axis=1)
    square = np.add.reduce(weights * np.square(densities), axis=1)
    return np.sqrt(np.maximum(0.0, square / np.square(mean) / share - 1.0))


def _densities(population: Population, places: np.ndarray) -> Iterator[np.ndarray]:
    """What each particle's kernel says of some places, up to a factor, (places, N)."""
    white = _whitened(population)
    height = max(1, _PAIRS // len(white))
    for i in range(0, len(places), height):
        squares = np.zeros((len(places[i : i + height]), len(white)))
        for column in white.T:
            squares += np.square(column[places[i : i + height], None] - column)
        yield np.exp(-0.5 * squares)


def _whitened(population: Population) -> np.ndarray:
    """Particles (N, d) in units of their kernel, without what does not vary, or not all of them have."""
    varies = np.ptp(population.theta, axis=0) > 0
    if not varies.any():
        return np.zeros((len(population), 1))
    names = tuple(name for name, does in zip(population.names, varies, strict=True) if does)
    theta = np.ascontiguousarray(population.theta[:, varies])
    inverse = Gaussian().mixture(replace(population, names=names, theta=theta)).inverse
    return np.einsum("nk,dk->nd", theta, inverse)


def _take_bounds(size: "ESS | CV", most: int) -> None:
    """Make the bounds Python's own numbers. Raises ProblemError for what are none."""
    low, high = whole(size.low), most if size.high is None else whole(size.high)
    if low is None or high is None or not LEAST <= low <= high:
        raise ProblemError(f"{size}: give whole numbers {LEAST} <= low <= high")
    object.__setattr__(size, "low", low)
    object.__setattr__(size, "high", high)


def _within(size: "ESS | CV", wanted: float) -> int:
    """What is wanted, as a whole number within the bounds."""
    assert size.high is not None
    return min(size.high, max(size.low, math.ceil(min(wanted, size.high) * (1 - 1e-9))))


def taken(population_size: Any) -> Any:
    """A size as users give it: a whole number, a list of them, or a rule. Raises ProblemError."""
    if isinstance(population_size, list | tuple | np.ndarray) and np.ndim(population_size):
        return Listed(population_size)
    if callable(getattr(population_size, "size", None)) and not isinstance(population_size, type):
        calls.check("rule for sizes", population_size, "size", "generation, previous")
        return population_size
    number = whole(population_size)
    if number is None or number < LEAST:
        raise ProblemError(
            f"population_size={population_size!r}: give a whole number of at least {LEAST}, a list of them, "
            "or a rule such as mpiabc.sizes.ESS(500), with a method size(generation, previous)"
        )
    return number


def largest(size: Any) -> int | None:
    """The most particles that a size can ask for, if that is known."""
    return size if isinstance(size, int) else whole(getattr(size, "high", None))


def plain(size: Any, description: str) -> Any:
    """A size as a file's settings have it: a number, a list of numbers, or as it is described."""
    if isinstance(size, int):
        return size
    return list(size.sizes) if type(size) is Listed else description
