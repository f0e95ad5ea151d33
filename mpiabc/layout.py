"""Layout: what the columns of theta are, where they are not all real numbers that move freely.

A row of theta is floats, whatever a parameter is: of a choice it has the index. Simulators are given what
users mean: integers as such, and the values of choices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Options:
    """A column that has indices of these values, in no order, with these probabilities (k,)."""

    column: int
    values: tuple[Any, ...]
    chances: np.ndarray

    @cached_property
    def _array(self) -> np.ndarray:
        """The values as an array (k,): of numbers, or of text, if all of them are; else of objects."""
        kinds = {np.asarray(value).dtype.kind if np.ndim(value) == 0 else "O" for value in self.values}
        if kinds in ({"b"}, {"U"}) or kinds <= set("iuf"):
            return np.array(self.values)
        array = np.empty(len(self.values), object)
        array[:] = self.values
        return array

    def chosen(self, indices: np.ndarray) -> np.ndarray:
        """Those of an index (n,) of floats."""
        return self._array[indices.astype(np.intp)]


@dataclass(frozen=True, eq=False)
class Layout:
    """What columns are integers, choices, and rests: 1 minus the sum of other columns.

    keys: what `theta[...]` is asked with.
    """

    keys: tuple[Any, ...]
    integers: tuple[int, ...] = ()
    choices: tuple[Options, ...] = ()
    rests: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @cached_property
    def is_discrete(self) -> bool:
        """Whether a column is."""
        return bool(self.integers or self.choices)

    @property
    def is_free(self) -> bool:
        """Whether all columns are real numbers, each of which moves freely."""
        return not (self.is_discrete or self.rests)

    @cached_property
    def free(self) -> tuple[int, ...]:
        """The columns that are real numbers, and no rests."""
        others = {*self.discrete, *(column for column, _ in self.rests)}
        return tuple(i for i in range(len(self.keys)) if i not in others)

    @cached_property
    def discrete(self) -> tuple[int, ...]:
        """Integers, then choices."""
        return (*self.integers, *(choice.column for choice in self.choices))

    def complete(self, theta: np.ndarray) -> np.ndarray:
        """Fill the rests in; returns theta (n, d)."""
        for column, others in self.rests:
            theta[:, column] = 1.0
            for other in others:
                theta[:, column] -= theta[:, other]
        return theta

    def row(self, values: Sequence[float]) -> dict[Any, Any]:
        """What a simulator is given of a row: floats, ints, and the values of choices."""
        if not self.is_discrete:
            return dict(zip(self.keys, values, strict=True))
        row: list[Any] = list(values)
        for i in self.integers:
            row[i] = int(row[i])
        for choice in self.choices:
            row[choice.column] = choice.values[int(row[choice.column])]
        return dict(zip(self.keys, row, strict=True))

    def columns(self, theta: np.ndarray) -> dict[Any, np.ndarray]:
        """What a vectorised simulator is given of theta (n, d): arrays (n,) of its own."""
        columns = list(theta.T.copy())
        for i in self.integers:
            columns[i] = columns[i].astype(np.int64)
        for choice in self.choices:
            columns[choice.column] = choice.chosen(columns[choice.column])
        return dict(zip(self.keys, columns, strict=True))


def layout_of(prior: Any) -> Layout:
    """That of a prior; of one that says nothing of it, all columns are real numbers."""
    found = getattr(prior, "layout", None)
    return found if isinstance(found, Layout) else Layout(tuple(prior.names))


def shown(prior: Any, values: Sequence[float]) -> dict[str, Any]:
    """A row for people and files: names with numbers, or with text for other values of choices."""
    row = layout_of(prior).row(values)
    return dict(zip(prior.names, map(_plain, row.values()), strict=True))


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    is_number = isinstance(value, int) or (isinstance(value, float) and not math.isnan(value))
    return value if is_number or isinstance(value, str | float) else repr(value)
