"""Numbers as users give them: Python's, NumPy's, arrays () of them, whatever the place.

What is taken in becomes Python's own number, which the run's file, JSON and messages know; None says
that it is no such number, so that each place says in its own sentence what it expects.
"""

import dataclasses
import inspect
import operator
from numbers import Real
from typing import Any

import numpy as np

from mpiabc.errors import ProblemError
from mpiabc.masked import is_masked


def whole(value: Any) -> int | None:
    """A whole number as int; None for anything else, truth values among them."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float | int | None:
    """A real number: int and float as they are, others as float; None for anything else.

    Text, truth values, complex and masked numbers are none; nan and the infinities are.
    """
    if type(value) in (int, float):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str | bytes) or is_masked(value):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return float(array) if array.shape == () and array.dtype.kind in "iuf" else None


def whole_of(name: str, value: Any, least: int) -> int:
    """A setting that is a whole number. Raises ProblemError."""
    number = whole(value)
    if number is None or number < least:
        raise ProblemError(f"{name}={value!r}: give a whole number of at least {least}")
    return number


def refuse_class(name: str, value: Any, *methods: str) -> None:
    """Raise ProblemError for a class in the place of one of its objects.

    methods: what is called; a class that has them as static or class methods needs no object.
    """
    if isinstance(value, type) and not (methods and all(_has_itself(value, method) for method in methods)):
        called = value.__qualname__
        raise ProblemError(f"{name}={called} is a class: give an object of it, {name}={called}(...)")


def _has_itself(cls: type, method: str) -> bool:
    """Whether a method is called without an object of the class."""
    found = inspect.getattr_static(cls, method, None)
    return isinstance(found, staticmethod | classmethod) or hasattr(type(cls), method)


def refuse_text(name: str, value: Any, example: str) -> None:
    """Raise ProblemError for the name of an object in its place."""
    if isinstance(value, str):
        raise ProblemError(f"{name}={value!r} is text: give an object, such as {name}={example}")


def added(default: Any) -> Any:
    """A field that a part has got later: named only where it is not its default, as older files know it."""
    return dataclasses.field(default=default, metadata={"is added": True})


def described_fields(part: Any) -> list[str]:
    """The names of the fields of a dataclass's object that tell it from another."""
    fields = dataclasses.fields(part)
    return [
        f.name for f in fields if not ("is added" in f.metadata and _is(getattr(part, f.name), f.default))
    ]


def _is(value: Any, default: Any) -> bool:
    is_plain = isinstance(value, bool | int | float | str) and type(value) is type(default)
    return value is default or (is_plain and value == default)
