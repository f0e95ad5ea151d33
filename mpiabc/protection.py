"""What users' callables get of what others need: they cannot damage it."""

import copy
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import MappingProxyType, NoneType
from typing import Any

import numpy as np

_UNCHANGING = frozenset({float, int, bool, complex, str, bytes, NoneType, Decimal, Fraction, range})


def protected(data: Any) -> Callable[[], Any]:
    """What gives, at each call, `data` for users' callables, which cannot damage what the next one gets.

    Arrays are read-only views of one copy, none where they are read-only down to their memory, as memory
    maps may be; containers are new each time, and so is any other object that can be copied.
    """
    try:
        remake = _remaker(data)
    except RecursionError:  # a list that holds itself
        remake = _copier(data)
    return (lambda: data) if remake is None else remake


def _remaker(value: Any) -> Callable[[], Any] | None:
    """What makes a value anew; None for one that cannot change."""
    kind = type(value)
    if kind in _UNCHANGING or (isinstance(value, np.generic) and not isinstance(value, np.void)):
        return None
    if kind in (np.ndarray, np.memmap) and not value.dtype.hasobject:
        return _read_only(value).view
    if kind in (dict, list):
        return _container(kind(value), _remakers(value))
    if kind is MappingProxyType:  # which nobody else can copy
        inner = _container(dict(value), _remakers(value))
        return lambda: MappingProxyType(inner())
    if kind is tuple:
        remakers = _remakers(value)
        items = _container(list(value), remakers)
        return (lambda: tuple(items())) if remakers else None
    return _copier(value)


def _copier(value: Any) -> Callable[[], Any] | None:
    try:
        original = copy.deepcopy(value)
    except Exception:
        return None
    return partial(copy.deepcopy, original)


def _remakers(container: Any) -> list[tuple[Any, Callable[[], Any]]]:
    """Of those items of a mapping or sequence that can change, by key."""
    items = container.items() if isinstance(container, Mapping) else enumerate(container)
    return [(key, remake) for key, item in items if (remake := _remaker(item)) is not None]


def _container(original: Any, remakers: list[tuple[Any, Callable[[], Any]]]) -> Callable[[], Any]:
    """What makes a dict or list anew, with those of its items that can change."""
    if not remakers:
        return original.copy

    def make() -> Any:
        fresh = original.copy()
        for key, remake in remakers:
            fresh[key] = remake()
        return fresh

    return make


def _read_only(array: np.ndarray) -> np.ndarray:
    if _is_read_only(array):
        return array
    own = np.array(array, order="A")  # the layout that a pickle keeps: sums depend on it
    own.flags.writeable = False
    return own


def _is_read_only(array: Any) -> bool:
    """Whether neither an array nor what its memory belongs to can be written."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    if array is None:
        return True
    try:
        with memoryview(array) as memory:
            return memory.readonly
    except (TypeError, ValueError, BufferError):
        return False
