"""Rows of simulated data by the names that users gave them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpiabc.errors import ProblemError

UNNAMED = "y"  # what data without names are called, as their labels say

Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # names, in their order, with the shape of what they name


def shapes_of(structure: Any) -> Shapes:
    """The names and shapes of what is kept of simulated data; none, if nothing is."""
    return tuple((name or UNNAMED, tuple(shape)) for name, shape in getattr(structure, "shapes", {}).items())


def shapes_from(labels: Sequence[str]) -> Shapes:
    """What the labels of numbers say of names and shapes, where a file says no more."""
    places: dict[str, list[str | None]] = {}
    for label in labels:
        found = re.fullmatch(r"(.*?)(?:\[(.*)\])?", label, re.DOTALL)
        name, place = found.groups() if found else (label, None)
        places.setdefault(name, []).append(place)
    return tuple((name, _shape(of_name)) for name, of_name in places.items())


def _shape(places: list[str | None]) -> tuple[int, ...]:
    """Of numbers in these places; (n,) where they are no indices."""
    if places == [None]:
        return ()
    try:
        last = tuple(int(i) + 1 for i in str(places[-1]).split(","))
    except ValueError:
        return (len(places),)
    return last if np.prod(last) == len(places) else (len(places),)


def by_name(rows: np.ndarray, shapes: Shapes) -> dict[str, np.ndarray]:
    """The parts of rows (n, k), each (n, ...), by name."""
    ends = np.cumsum([int(np.prod(shape)) for _, shape in shapes]).tolist()
    starts = [0, *ends[:-1]]
    return {
        name: rows[:, start:end].reshape(len(rows), *shape)
        for (name, shape), start, end in zip(shapes, starts, ends, strict=True)
    }


def chosen(parts: Mapping[str, np.ndarray], name: str | None) -> np.ndarray:
    """The part of this name, which may be left out where there is one. Raises ProblemError."""
    if name is None and len(parts) == 1:
        return next(iter(parts.values()))
    if name is None or name not in parts:
        text = "no name" if name is None else repr(name)
        raise ProblemError(f"data of {text}: the simulated data are {', '.join(map(repr, parts))}")
    return parts[name]
