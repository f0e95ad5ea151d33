"""The structure of simulated data: a float, an array, or a dict of them, seen as one row of floats."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpiabc.errors import ProblemError

Data = Any  # float | array | mapping of them, as users write it
Row = Any  # k floats: a list where all parts are scalars (the quick path), else an array (k,)


class StructureMismatchError(ValueError):
    """Data that have not the structure of the observed data."""


class Structure:
    """How data of one fixed structure become a row of `size` floats and back.

    Parts are named; data that are a single float or array have one part, named "".
    """

    def __init__(self, example: Data) -> None:
        self._told = _told(example)
        self.is_mapping = isinstance(example, Mapping)
        parts = example if self.is_mapping else {"": example}
        if not all(isinstance(name, str) for name in parts):
            raise ProblemError(f"observed data have the names {list(parts)!r}, expected text")
        if not parts:
            raise ProblemError("observed data are empty: give a float, an array, or a dict of them")
        self.shapes = {str(name): np.shape(_numbers(part, name)) for name, part in parts.items()}
        widths = [int(np.prod(shape)) for shape in self.shapes.values()]
        ends = np.cumsum(widths).tolist()
        self.slices = {
            name: slice(end - width, end) for name, end, width in zip(self.shapes, ends, widths, strict=True)
        }
        self.size: int = ends[-1]
        self.flatten: Callable[[Data], Row] = self._flattener()

    def __str__(self) -> str:
        return self._told

    def row(self, data: Data) -> np.ndarray:
        """`data` as a float64 array of shape (size,); raises StructureMismatchError."""
        return np.asarray(self.flatten(data), dtype=np.float64)

    def rows(self, data: Data, n: int) -> np.ndarray:
        """The data of `n` simulations, each part with first axis n, as an array (n, size)."""
        out = np.empty((n, self.size))
        how = f"with a first axis of {n} for a vectorised simulator"
        for name, part in self._parts(data):
            array = self._array(part, (n, *self.shapes[name]), data, how)
            out[:, self.slices[name]] = array.reshape(n, -1)
        return out

    def unflatten(self, row: np.ndarray) -> Data:
        """A row of floats in the structure that users know."""
        parts = {
            name: row[self.slices[name]].reshape(shape) if shape else float(row[self.slices[name]][0])
            for name, shape in self.shapes.items()
        }
        return parts if self.is_mapping else parts[""]

    def labels(self) -> list[str]:
        """One name for each of the `size` floats, such as "y" or "y[0,2]"."""
        return [
            (name or "y") + (f"[{','.join(map(str, index))}]" if shape else "")
            for name, shape in self.shapes.items()
            for index in np.ndindex(shape)
        ]

    def _flattener(self) -> Callable[[Data], Row]:
        """The quickest way to flatten this structure: it runs once for each simulation."""
        names = tuple(self.shapes)
        if any(self.shapes.values()):
            return self._flatten_arrays
        if not self.is_mapping:
            return self._flatten_float
        if len(names) > 1:
            return self._flatten_floats
        (only,) = names

        def flatten(data: Data) -> list[float]:
            try:
                if len(data) == 1:
                    return [float(data[only])]
            except (TypeError, ValueError, KeyError, IndexError):
                pass
            raise self._mismatch(data)

        return flatten

    def _flatten_float(self, data: Data) -> list[float]:
        try:
            return [float(data)]
        except (TypeError, ValueError):
            raise self._mismatch(data) from None

    def _flatten_floats(self, data: Data) -> list[float]:
        try:
            if len(data) == len(self.shapes):
                return [float(data[name]) for name in self.shapes]
        except (TypeError, ValueError, KeyError, IndexError):
            pass
        raise self._mismatch(data)

    def _flatten_arrays(self, data: Data) -> np.ndarray:
        out = np.empty(self.size)
        for name, part in self._parts(data):
            out[self.slices[name]] = self._array(part, self.shapes[name], data).ravel()
        return out

    def _parts(self, data: Data) -> list[tuple[str, Any]]:
        if isinstance(data, Mapping) != self.is_mapping:
            raise self._mismatch(data)
        if not self.is_mapping:
            return [("", data)]
        if data.keys() != self.shapes.keys():
            raise self._mismatch(data)
        return [(name, data[name]) for name in self.shapes]

    def _array(self, part: Any, shape: tuple[int, ...], data: Data, how: str = "") -> np.ndarray:
        try:
            array = np.asarray(part, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._mismatch(data, how) from None
        if array.shape != shape:
            raise self._mismatch(data, how)
        return array

    def _mismatch(self, data: Data, how: str = "") -> StructureMismatchError:
        return StructureMismatchError(f"it is {_told(data)}, expected {self} {how}".rstrip())


def _numbers(part: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(part, dtype=np.float64)
    except (TypeError, ValueError):
        where = f" of {name!r}" if name else ""
        raise ProblemError(
            f"observed data{where} are {type(part).__name__}, expected a number or an array of numbers"
        ) from None
    if np.isnan(array).any():
        raise ProblemError(f"observed data {name!r} contain nan: leave missing values out of the data")
    return array


def _told(data: Data) -> str:
    """What data are, in words: `{"y": float, "z": array (3,)}`."""
    if isinstance(data, Mapping):
        return "{" + ", ".join(f'"{name}": {_told(part)}' for name, part in data.items()) + "}"
    try:
        shape = np.shape(np.asarray(data, dtype=np.float64))
    except (TypeError, ValueError):
        return type(data).__name__
    return f"array {shape}" if shape else "None" if data is None else "float"
