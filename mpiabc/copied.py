"""Copies of users' own parts, which are asked in their place: a look leaves nothing behind in a part."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

_LARGE = 1 << 20  # bytes of an array that is not copied
_DEEP = 4  # attributes and items of one another, in which such arrays are looked for
_Part = TypeVar("_Part")


def copied(part: _Part) -> _Part:
    """A part with a state of its own, that shares large arrays. What cannot be copied raises."""
    shared = {id(array): array for array in _large_arrays(part, _DEEP)}
    return copy.deepcopy(part, shared)


def _large_arrays(value: Any, depth: int) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        if value.nbytes >= _LARGE:
            yield value
    elif depth:
        for part in _inside(value):
            yield from _large_arrays(part, depth - 1)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return value
    return [] if isinstance(value, ModuleType | type) else list(getattr(value, "__dict__", {}).values())
