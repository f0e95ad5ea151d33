"""The structure of simulated data: a float, an array, or a dict of them, seen as one row of floats."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from mpiabc.conversion import EXACT, FLOAT64, FLOATS, WHOLE, RefusedError, float64
from mpiabc.errors import ProblemError
from mpiabc.labels import axes_of, order_of, transposed

Data = Any  # float | array | mapping of them, as users write it
Row = Any  # k floats: a list where all parts are scalars (the quick path), else an array (k,)


class StructureMismatchError(ValueError):
    """Data that have not the structure of the observed data."""


class DistanceError(StructureMismatchError):
    """What a distance gave is none."""


class NoNumbersError(ProblemError):
    """Observed data that hold something else than numbers, or nothing."""


class Structure:
    """How data of one fixed structure become a row of `size` floats and back.

    Parts are named; data that are a single float or array have one part, named "". Where a part of the
    observed and of the simulated data are both labelled, labels count, else positions.
    """

    def __init__(self, example: Data) -> None:
        self._told = description_of(example)
        self.is_mapping = isinstance(example, Mapping)
        parts = example if self.is_mapping else {"": example}
        if not all(isinstance(name, str) for name in parts):
            raise NoNumbersError(f"observed data have the names {list(parts)!r}, expected text")
        if not parts:
            raise NoNumbersError("observed data are empty: give a float, an array, or a dict of them")
        self.shapes = {str(name): np.shape(_observed(part, name)) for name, part in parts.items()}
        widths = [int(np.prod(shape)) for shape in self.shapes.values()]
        ends = np.cumsum(widths).tolist()
        self.slices = {
            name: slice(end - width, end) for name, end, width in zip(self.shapes, ends, widths, strict=True)
        }
        self.size: int = ends[-1]
        if not self.size:
            raise NoNumbersError(f"observed data hold no number, they are {self}: give at least one")
        self._axes = {str(name): axes for name, part in parts.items() if (axes := axes_of(part))}
        self.flatten: Callable[[Data], Row] = self._flattener()

    def __str__(self) -> str:
        return self._told

    def row(self, data: Data) -> np.ndarray:
        """`data` as a float64 array of shape (size,); raises StructureMismatchError."""
        return np.asarray(self.flatten(data), dtype=np.float64)

    def rows(self, data: Data, n: int) -> np.ndarray:
        """The data of `n` simulations, each part with first axis n, as an array (n, size)."""
        out = np.empty((n, self.size))
        for name, part in self._parts(data):
            out[:, self.slices[name]] = self._array(name, part, data, (n,)).reshape(n, -1)
        return out

    def fitting(self, data: Data) -> tuple[np.ndarray, bool]:
        """What data have of this structure as a row, the rest nan; and whether they have all of it."""
        row, is_whole = np.full(self.size, np.nan), True
        for name, place in self.slices.items():
            try:
                part = data[name] if self.is_mapping else data
                row[place] = self._array(name, part, data).ravel()
            except Exception:  # whatever somebody's object raises when it is asked
                is_whole = False
        return row, is_whole

    def unflatten(self, row: np.ndarray) -> Data:
        """A row of floats in the structure that users know; they may write into it."""
        parts = {
            name: row[self.slices[name]].reshape(shape).copy() if shape else float(row[self.slices[name]][0])
            for name, shape in self.shapes.items()
        }
        return parts if self.is_mapping else parts[""]

    def labels(self) -> list[str]:
        """One name for each of the `size` floats, such as "y", "y[0,2]" or, of labelled data, "y[a]"."""
        return [
            _label(name, self._place(name, index) if shape else [])
            for name, shape in self.shapes.items()
            for index in np.ndindex(shape)
        ]

    def label(self, i: int) -> str:
        """That of one of the floats, without those of all others."""
        name, place = next((name, at) for name, at in self.slices.items() if at.start <= i < at.stop)
        shape = self.shapes[name]
        index = tuple(map(int, np.unravel_index(i - place.start, shape))) if shape else ()
        return _label(name, self._place(name, index)) if shape else _label(name, [])

    def agrees(self, other: "Structure") -> bool:
        """Whether rows of both mean the same at each place, as far as both of them name their places."""
        if self.is_mapping and other.is_mapping and list(self.shapes) != list(other.shapes):
            return False
        shared = [(axes, other._axes[name]) for name, axes in self._axes.items() if name in other._axes]
        return all(
            mine is None or theirs is None or mine == theirs
            for one, another in shared
            for mine, theirs in zip(one.labels, another.labels, strict=False)
        )

    def _place(self, name: str, index: tuple[int, ...]) -> list[Hashable]:
        axes = self._axes[name].labels if name in self._axes else [None] * len(index)
        return [i if labels is None else labels[i] for i, labels in zip(index, axes, strict=True)]

    def _flattener(self) -> Callable[[Data], Row]:
        """The quickest way to flatten this structure: it runs once for each simulation."""
        if any(self.shapes.values()):
            return self._flatten_arrays
        if not self.is_mapping:
            return self._float_flattener()
        return self._only_flattener() if len(self.shapes) == 1 else self._floats_flattener()

    def _float_flattener(self) -> Callable[[Data], list[float]]:
        numpys, scalar = np.float64, self._scalar

        def flatten(data: Data) -> list[float]:
            if type(data) is float:
                return [data]
            return [float(data) if type(data) is numpys else scalar("", data, data)]

        return flatten

    def _only_flattener(self) -> Callable[[Data], list[float]]:
        (only,) = self.shapes
        numpys, scalar, strictly = np.float64, self._scalar, self._flatten_scalars

        def flatten(data: Data) -> list[float]:
            try:
                value = data[only]
                if len(data) == 1:  # asked after the value, which a defaultdict may just have made
                    if type(value) is float:
                        return [value]
                    if type(value) is numpys:
                        return [float(value)]
            except Exception:  # which strictly() meets again, outside of this
                return strictly(data)
            return [scalar(only, value, data)] if type(data) is dict and len(data) == 1 else strictly(data)

        return flatten

    def _floats_flattener(self) -> Callable[[Data], list[float]]:
        values_of, count, strictly = itemgetter(*self.shapes), len(self.shapes), self._flatten_scalars

        def flatten(data: Data) -> list[float]:
            try:
                values = values_of(data)
                is_whole = len(data) == count
            except Exception:
                return strictly(data)
            if not is_whole:
                return strictly(data)
            for value in values:
                if type(value) is not float:
                    return list(map(float, values)) if {*map(type, values)} <= FLOATS else strictly(data)
            return list(values)

        return flatten

    def _flatten_scalars(self, data: Data) -> list[float]:
        return [self._scalar(name, part, data) for name, part in self._parts(data)]

    def _flatten_arrays(self, data: Data) -> np.ndarray:
        out = np.empty(self.size)
        for name, part in self._parts(data):
            out[self.slices[name]] = self._array(name, part, data).ravel()
        return out

    def _parts(self, data: Data) -> Iterable[tuple[str, Any]]:
        """The parts by name, in the order of the observed data; a frame's columns are parts as well."""
        if not self.is_mapping:
            if isinstance(data, Mapping):
                raise self._mismatch(data)
            return [("", data)]
        if not isinstance(data, Mapping) and not hasattr(type(data), "keys"):
            raise self._mismatch(data)
        if type(data) is dict:
            is_whole = data.keys() == self.shapes.keys()
        else:  # such as an xarray.Dataset, whose keys() are said to hold its coordinates too
            names = list(data.keys())
            is_whole = len(names) == len(self.shapes) and set(names) == self.shapes.keys()
        if not is_whole:
            raise self._mismatch(data)
        return [(name, data[name]) for name in self.shapes]

    def _scalar(self, name: str, part: Any, data: Data) -> float:
        if type(part) in EXACT or (type(part) is int and -WHOLE <= part <= WHOLE):
            return float(part)
        return float(self._array(name, part, data))

    def _array(self, name: str, part: Any, data: Data, first: tuple[int, ...] = ()) -> np.ndarray:
        """A part as an array of the observed shape behind the `first` axes: (n,) of n simulations."""
        if type(part) is np.ndarray and part.dtype is FLOAT64:
            array = part
        else:
            try:
                array = float64(part)
            except RefusedError as error:
                raise self._mismatch(data, first, name, str(error)) from None
            if name in self._axes:
                array = self._aligned(name, part, array, len(first))
        if array.shape != first + self.shapes[name]:
            raise self._mismatch(data, first)
        return array

    def _aligned(self, name: str, part: Any, array: np.ndarray, skipped: int) -> np.ndarray:
        """The array with its axes, and what is on them, in the order of the observed labels."""
        mine, theirs = self._axes[name], axes_of(part)
        if theirs is None or len(theirs.labels) != len(mine.labels) + skipped:
            return array
        try:
            theirs, array = transposed(mine, theirs, array, skipped)
            for axis, (wanted, found) in enumerate(zip(mine.labels, theirs.labels[skipped:], strict=True)):
                order = order_of(wanted, found)
                array = array if order is None else array.take(order, axis=axis + skipped)
        except RefusedError as error:
            where = f" of {name!r}" if name else ""
            raise StructureMismatchError(
                f"the labels{where} are not those of the observed data: {error}; give the same labels, in "
                "any order, or a plain array, which is compared by position"
            ) from None
        return array

    def _mismatch(
        self, data: Data, first: tuple[int, ...] = (), name: str = "", reason: str = ""
    ) -> StructureMismatchError:
        how = f" with a first axis of {first[0]} for a vectorised simulator" if first else ""
        why = f"; {f'in {name!r}, ' if name else ''}{reason}" if reason else ""
        return StructureMismatchError(f"it is {description_of(data)}, expected {self}{how}{why}")


def _label(name: str, place: list[Hashable]) -> str:
    return (name or "y") + (f"[{','.join(map(str, place))}]" if place else "")


def numbers(value: Any) -> float | tuple[float, ...]:
    """What a distance gave: a float, or, of an array or a dict, as many; raises DistanceError."""
    if isinstance(value, Mapping):
        found = tuple(map(number, value.values()))
        return found[0] if len(found) == 1 else found or number(value)
    try:
        array = float64(value)
    except RefusedError:
        return number(value)
    return tuple(array.tolist()) if array.ndim == 1 and array.size > 1 else number(value)


def number(value: Any) -> float:
    """What a distance gave as a float; raises DistanceError if it is not one real number."""
    if type(value) is float:
        return value
    if type(value) in EXACT:
        return float(value)
    reason = ""
    try:
        array = float64(value)
        if array.size == 1:
            return float(array.item())
    except RefusedError as error:
        reason = f": {error}"
    raise DistanceError(f"the distance gave {description_of(value)}, expected one real number{reason}")


def _observed(part: Any, name: str) -> np.ndarray:
    """A part of observed data as an array; ProblemError if it cannot be compared with anything."""
    where = f" of {name!r}" if name else ""
    try:
        array = float64(part)
    except RefusedError as error:
        raise NoNumbersError(
            f"observed data{where} are {description_of(part)}, expected a number or an array of numbers: "
            f"{error}"
        ) from None
    return array


def description_of(data: Data) -> str:
    """What data are, in words: `{"y": float, "z": array (3,)}`."""
    if isinstance(data, Mapping):
        return "{" + ", ".join(f'"{name}": {description_of(part)}' for name, part in data.items()) + "}"
    try:
        shape = float64(data).shape
    except RefusedError:
        if type(data) is np.ndarray:
            return f"array {data.shape} of {data.dtype}"
        return "None" if data is None else type(data).__name__
    return f"array {shape}" if shape else "float"
