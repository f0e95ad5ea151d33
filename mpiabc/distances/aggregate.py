"""The sum of distances of parts of the data, each with a weight and a scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpiabc.arguments import real, refuse_class
from mpiabc.distances.norm import divided, without_scale
from mpiabc.distances.rows import is_adaptive, measures_rows, of_data
from mpiabc.distances.scales import check_scale, scales
from mpiabc.errors import ProblemError
from mpiabc.guard import quiet
from mpiabc.particles import Particles
from mpiabc.structure import Data, Structure, number


@dataclass(frozen=True)
class Aggregate:
    """sum_i w_i d_i / s_i over keys of the data: `Aggregate({"a": PNorm(), "b": distance_of_b})`.

    Each d_i is any distance, and gets the data of its key; keys that are not named are left out. weights: a
    number by key. scale: "mad", "std", "pcmad", or a function, as of `PNorm`, is fitted to the d_i, so that
    all of them count, whatever their units.
    """

    is_rowwise = True

    distances: Mapping[str, Any]
    weights: Mapping[str, float] | None = None
    scale: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.distances, Mapping) or not self.distances:
            raise ProblemError(
                f"Aggregate({self.distances!r}): give distances by key of the data, such as "
                '{"a": mpiabc.PNorm(), "b": mpiabc.PNorm(1)}'
            )
        for key, distance in self.distances.items():
            refuse_class(f"Aggregate's distance of {key!r}", distance, "rows")
            if not (callable(distance) or measures_rows(distance)):
                raise ProblemError(f"Aggregate has {distance!r} for {key!r}, expected a distance")
        for key, weight in (self.weights or {}).items():
            value = real(weight)
            if key not in self.distances or value is None or not value >= 0:
                raise ProblemError(
                    f"Aggregate has the weight {weight!r} for {key!r}: give a number >= 0 for keys that have "
                    f"a distance, {', '.join(map(repr, self.distances))}"
                )
        if self.scale is not None:
            check_scale("Aggregate", self.scale)

    @property
    def is_adaptive(self) -> bool:
        """Whether anything in it is fitted to simulations."""
        return self.scale is not None or any(map(is_adaptive, self.distances.values()))

    @quiet
    def __call__(self, simulated: Data, observed: Data) -> float:
        """The distance of two data of the same structure; what is fitted is as before a fit."""
        self.check(observed)
        structure = Structure(observed)
        return float(self.of(observed).rows(structure.row(simulated)[None], structure.row(observed))[0])

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Raise ProblemError: which numbers are of which key is known of observed data alone."""
        raise ProblemError("Aggregate measures data by key: ask what of(observed) gives for rows")

    def check(self, observed: Data) -> None:
        """Raise ProblemError for data without one of the keys, or that a distance is not for."""
        structure = Structure(observed)
        missing = [key for key in self.distances if key not in structure.slices]
        if missing or not structure.is_mapping:
            raise ProblemError(
                f"Aggregate has a distance for {', '.join(map(repr, missing or self.distances))}, and the "
                f"observed data are {structure}: give distances for keys that they have"
            )
        for key, distance in self.distances.items():
            check = getattr(distance, "check", None)
            if callable(check):
                check(observed[key])

    def of(self, observed: Data) -> "Terms":
        """What measures rows of data like these."""
        self.check(observed)
        structure = Structure(observed)
        places = [structure.slices[key] for key in self.distances]
        parts = tuple(_part(distance, observed[key]) for key, distance in self.distances.items())
        weights = np.array([float((self.weights or {}).get(key, 1.0)) for key in self.distances])
        starts = np.array([place.start for place in places])
        stops = np.array([place.stop for place in places])
        terms = Terms(parts, starts, stops, weights)
        if not self.is_adaptive:
            return terms
        return FittedTerms(parts, starts, stops, weights, self.scale, tuple(self.distances))


@dataclass(frozen=True, eq=False)
class Terms:
    """sum_i f_i d_i, each d_i of the columns from start to stop."""

    parts: tuple[Any, ...]
    starts: np.ndarray
    stops: np.ndarray
    factors: np.ndarray

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's distance depends on it alone."""
        return all(getattr(part, "is_rowwise", False) for part in self.parts)

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,)."""
        total = np.zeros(len(simulated))
        for part, factor, place in zip(self.parts, self.factors, self._places(), strict=True):
            if factor:
                total += factor * part.rows(_contiguous(simulated[:, place]), observed[place])
        return total

    def _places(self) -> list[slice]:
        return [slice(a, b) for a, b in zip(self.starts.tolist(), self.stops.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class FittedTerms(Terms):
    """The same, of which parts or scales are to be fitted; not fitted, they are as they are."""

    scale: Any = None
    keys: tuple[str, ...] = field(default=())

    def fit(self, sample: Particles, observed: np.ndarray) -> Terms:
        """The sum with parts and scales of this sample."""
        parts = self._fitted(sample, observed)
        factors = self.factors
        if self.scale is not None:
            factors = divided(factors, self._scales(parts, sample, observed))
        return Terms(parts, self.starts, self.stops, factors)

    def doubts(self, sample: Particles, observed: np.ndarray) -> str | None:
        """What the user should know of a fit: of the parts, and which of them say nothing."""
        doubts = []
        for part, place in zip(self.parts, self._places(), strict=True):
            if hasattr(part, "doubts"):
                doubts.append(part.doubts(_of_columns(sample, place), observed[place]))
        if self.scale is not None:
            found = self._scales(self._fitted(sample, observed), sample, observed)
            silent = [
                key for key, scale, f in zip(self.keys, found, self.factors, strict=True) if f and not scale
            ]
            doubts.append(without_scale(silent) if silent else None)
        return "; ".join(filter(None, doubts)) or None

    def _fitted(self, sample: Particles, observed: np.ndarray) -> tuple[Any, ...]:
        return tuple(
            part.fit(_of_columns(sample, place), observed[place]) if is_adaptive(part) else part
            for part, place in zip(self.parts, self._places(), strict=True)
        )

    def _scales(self, parts: tuple[Any, ...], sample: Particles, observed: np.ndarray) -> np.ndarray:
        columns = [
            part.rows(_of_columns(sample, place).summaries, observed[place])
            for part, place in zip(parts, self._places(), strict=True)
        ]
        return scales(self.scale, np.stack(columns, axis=1), np.zeros(len(parts)))


@dataclass(frozen=True, eq=False)
class Called:
    """A callable distance, which gets data of the structure of `example`."""

    is_rowwise = True

    distance: Any
    example: Data

    def rows(self, simulated: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Distances of simulated (n, k) from observed (k,), (n,), one after another."""
        structure = Structure(self.example)
        data = map(structure.unflatten, simulated)
        return np.array(
            [number(self.distance(each, structure.unflatten(observed))) for each in data], np.float64
        )


def _part(distance: Any, observed: Data) -> Any:
    found = of_data(distance, observed)
    return found if measures_rows(found) else Called(found, observed)


def _of_columns(sample: Particles, place: slice) -> Particles:
    return replace(sample, summaries=_contiguous(np.asarray(sample.summaries, np.float64)[:, place]))


def _contiguous(columns: np.ndarray) -> np.ndarray:
    """Each row in one piece: how it is summed must not depend on the columns beside it."""
    return np.ascontiguousarray(columns)
