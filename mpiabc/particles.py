"""Particles: rows of evaluations. A column is declared once, here, and all that carries rows follows.

To add one, declare it, with what rows have that do not know of it (`lacking`), as those of older files, and
let the act that it names fill it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np

from mpiabc.errors import ProblemError


class Column(NamedTuple):
    """What a column holds, and which act of an evaluation fills it."""

    filled_by: str  # propose, simulate, measure, or weigh
    dtype: type = np.float64
    width: str = ""  # numbers in a row: one, "d" one for each parameter, "k" each summary, "l" each level,
    # "c" each of several distances
    lacking: float | None = None  # what rows have that do not know of it: this number, and no numbers where a
    # row has several; None: there are no such rows

    def shape(self, m: int, widths: dict[str, int]) -> tuple[int, ...]:
        """Of `m` rows."""
        if self.width == "c" and not widths["c"]:
            return (m,)  # there is one
        return (m, abs(widths[self.width])) if self.width else (m,)

    def unknown(self, m: int) -> np.ndarray:
        """The column of `m` rows that do not know of it."""
        return np.full(self.shape(m, {self.width: 0}), self.lacking, self.dtype)

    def dtype_of(self, widths: dict[str, int]) -> np.dtype:
        """Of these widths: one below 0 says that the numbers are of single precision."""
        return np.dtype(np.float32 if self.width and widths[self.width] < 0 else self.dtype)


@dataclass(frozen=True, eq=False)
class Particles:
    """Rows of evaluations, m of them, in the order of their addresses."""

    ids: Annotated[np.ndarray, Column("propose", np.int64)]
    theta: Annotated[np.ndarray, Column("propose", width="d")]
    distances: Annotated[np.ndarray, Column("measure", width="c")]
    log_weights: Annotated[np.ndarray, Column("weigh")]  # log prior - log proposal
    summaries: Annotated[np.ndarray, Column("simulate", width="k")]
    level: Annotated[np.ndarray, Column("propose", np.int64, lacking=0)] = None  # type: ignore[assignment]
    # densities of all levels, for recycling
    log_densities: Annotated[np.ndarray, Column("weigh", width="l", lacking=0)] = None  # type: ignore[assignment]
    model: Annotated[np.ndarray, Column("propose", np.int64, lacking=0)] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """What rows do not know is as its column says: rows of no level are the prior's, of the one model."""
        for name, column in _unknown():
            if getattr(self, name) is None:
                object.__setattr__(self, name, column.unknown(len(self)))

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self) -> dict[str, np.ndarray]:
        """The columns by name."""
        return {name: getattr(self, name) for name in columns()}

    def widths(self) -> dict[str, int]:
        """How many numbers a row has, by kind of width; negative, if they are of single precision."""
        return {c.width: _width(getattr(self, name)) for name, c in columns().items() if c.width}

    def take(self, rows: np.ndarray) -> "Particles":
        """Those of an index, or where a mask is true, in arrays of their own."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Particles(*[getattr(self, name).take(index, axis=0) for name in columns()])

    def weighed(self, log_weights: np.ndarray, log_densities: np.ndarray) -> "Particles":
        """The same rows with other weights."""
        return Particles(**self.columns() | {"log_weights": log_weights, "log_densities": log_densities})

    def pack(self) -> bytes:
        """The columns as one buffer."""
        return b"".join(column.tobytes() for column in self.columns().values())


def _width(array: np.ndarray) -> int:
    if array.ndim == 1:
        return 0
    return -array.shape[1] if array.dtype == np.float32 else array.shape[1]


@cache
def columns() -> dict[str, Column]:
    """The declared columns by name."""
    hints = get_type_hints(Particles, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items()}


@cache
def _unknown() -> tuple[tuple[str, Column], ...]:
    """The columns that rows may not know of."""
    return tuple((name, column) for name, column in columns().items() if column.lacking is not None)


def joined(parts: Sequence[Particles]) -> Particles:
    """The rows of all parts, one part after another; there is at least one part."""
    if len(parts) == 1:
        return parts[0]
    if len({part.distances.shape[1:] for part in parts}) > 1:
        raise ProblemError(
            "the distance gave one number in some evaluations and several in others, or now more, now fewer: "
            "it gives as many in every evaluation"
        )
    return Particles(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns()))


def in_line(parts: Sequence[Particles]) -> Particles:
    """The rows of all parts in the order of their ids; there is at least one part."""
    full = [part for part in parts if len(part)]
    if not full:
        return parts[0]
    rows = joined(full)
    return rows if len(full) == 1 else rows.take(np.argsort(rows.ids))


def packed_size(m: int, widths: dict[str, int]) -> int:
    """Bytes of `m` packed rows."""
    sizes = (c.dtype_of(widths).itemsize * math.prod(c.shape(m, widths)) for c in columns().values())
    return sum(sizes)


def unpacked(buffer: bytes | bytearray | memoryview, at: int, m: int, widths: dict[str, int]) -> Particles:
    """The `m` rows that were packed into the buffer from `at` on."""
    arrays = []
    for column in columns().values():
        shape = column.shape(m, widths)
        array: np.ndarray = np.frombuffer(buffer, column.dtype_of(widths), math.prod(shape), at)
        arrays.append(array.reshape(shape))
        at += array.nbytes
    return Particles(*arrays)


def none(**widths: int) -> Particles:
    """No rows; of widths that are not given, none either."""
    return _none(tuple(widths.get(c.width, 0) for c in columns().values()))


@cache
def _none(widths: tuple[int, ...]) -> Particles:
    """No rows can be shared by all that have none: there is nothing in them to be written to."""
    named = {c.width: width for c, width in zip(columns().values(), widths, strict=True)}
    return unpacked(b"", 0, 0, named)


def within(distances: np.ndarray, epsilon: Any) -> np.ndarray:
    """Where a distance (n,), or each of several (n, m), is at most epsilon, or its own one (m,)."""
    if not len(distances):
        return np.zeros(0, bool)
    is_near = np.asarray(distances) <= epsilon
    return np.all(is_near, axis=1) if np.ndim(is_near) > 1 else np.asarray(is_near)


def nearness(distances: np.ndarray, epsilon: Any) -> np.ndarray:
    """One number (n,) that says which rows are nearer: of several distances, the largest in its epsilon."""
    if distances.ndim == 1:
        return distances
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.asarray(distances) / epsilon, nan=0.0, posinf=np.inf).max(axis=1)
