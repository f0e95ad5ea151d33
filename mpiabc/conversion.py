"""Strictly to float64: what would lose something, a mask, an imaginary part, a unit, digits, is refused.

Labelled data (pandas, xarray, polars) are known by their shape; none of these is imported.
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from functools import partial
from numbers import Complex, Integral, Real
from typing import Any

import numpy as np

from mpiabc.masked import is_masked

FLOAT64 = np.dtype(np.float64)
EXACT = frozenset(
    {float, bool, np.bool_, np.float64, np.float32, np.float16}
    | {np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32}
)  # types all of whose values are float64
FLOATS = frozenset({float, np.float64})
WHOLE = 2**53  # up to which every whole number is a float64

_DATES = "dates and times are no numbers: give the seconds, or days, since a fixed one"
_KINDS = {
    "c": "complex numbers would lose their imaginary part: give the parts by themselves, or abs()",
    "M": _DATES,
    "m": _DATES,
    "U": "text is no number: make it one with float()",
    "S": "text is no number: make it one with float()",
    "T": "text is no number: make it one with float()",
    "V": "a structured array is no array of numbers: give a dict of its fields",
}  # of dtypes


class RefusedError(ValueError):
    """A value that is no real number, or would lose something as one: why, and what to do."""


def float64(value: Any) -> np.ndarray:
    """Any numbers as a float64 array that has lost nothing but the digits a float has no room for."""
    if type(value) is np.ndarray:
        return _from_dtype(value)
    if isinstance(value, list | tuple):
        return _from_items(value)
    _refuse(value)
    if isinstance(value, np.ndarray | np.generic):
        return _from_dtype(np.asarray(value))
    if isinstance(value, Real | Decimal):
        return np.array(_from_number(value))
    kind = type(value)
    if is_xarray(kind):
        return float64(value.data)  # what is wrapped may have a unit or a mask
    if is_frame(kind):
        return _from_columns(value)
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__") or _is_buffer(value):
        return _from_interface(value)
    if hasattr(kind, "__len__") and hasattr(kind, "__getitem__"):
        return _from_sequence(value)
    if hasattr(kind, "__float__"):
        return np.array(_from_number(value))
    raise RefusedError(f"{kind.__name__} is no number and no array of numbers")


def _refuse(value: Any) -> None:
    """Raise for what others would convert in silence."""
    if value is None:
        raise RefusedError("None is no number: leave missing values out")
    if is_masked(value):
        raise RefusedError("a masked array would lose its mask: fill it, or leave out what is masked")
    if isinstance(value, str | bytes | bytearray):
        raise RefusedError(_KINDS["U"])
    if isinstance(value, date | time_of_day | timedelta):
        raise RefusedError(_DATES)
    if isinstance(value, Complex) and not isinstance(value, Real):
        raise RefusedError(_KINDS["c"])
    if isinstance(value, Mapping):
        raise RefusedError(f"{type(value).__name__} inside of data: give all names in one dict")
    unit = _unit(value)
    if unit is not None:
        raise RefusedError(
            f"{type(value).__name__} would lose its unit {str(unit)!r}: give its number in a unit of your "
            "choice, by to_value(unit) of astropy or m_as(unit) of pint"
        )


def _unit(value: Any) -> Any:
    """The unit of a quantity: a property of its own, no label or attribute that data happen to have."""
    for name in ("unit", "units"):
        if hasattr(type(value), name) or name in getattr(value, "__dict__", {}):
            unit = getattr(value, name, None)
            if unit is not None and not callable(unit):
                return unit
    return None


def _from_dtype(array: np.ndarray) -> np.ndarray:
    dtype = array.dtype
    if dtype.kind == "f":
        return array.astype(np.float64, copy=False) if dtype.itemsize <= 8 else _from_wide(array)
    if dtype.kind == "b":
        return array.astype(np.float64)
    if dtype.kind in "iu":
        if dtype.itemsize == 8 and array.size and not -WHOLE <= array.min() <= array.max() <= WHOLE:
            for whole in array[(array < -WHOLE) | (array > WHOLE)].tolist():
                _from_number(whole)
        return array.astype(np.float64)
    if dtype.kind == "O":
        return _from_objects(array)
    if dtype.kind == "V" and dtype.type is not np.void and np.can_cast(dtype, np.float64):
        return array.astype(np.float64)  # bfloat16 and its kin, which NumPy does not know
    raise RefusedError(_KINDS.get(dtype.kind, f"{dtype} is no type of real numbers"))


def _from_wide(array: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        narrow = array.astype(np.float64)
    if (np.isinf(narrow) & np.isfinite(array)).any():
        raise RefusedError("a number is too large for a float64")
    return narrow


def _from_objects(array: np.ndarray) -> np.ndarray:
    items = [float64(item) for item in array.ravel().tolist()]
    if any(item.shape for item in items):
        raise RefusedError("its items are of different shapes: give a dict of arrays")
    return np.array(items, dtype=np.float64).reshape(array.shape)


def _from_items(items: list[Any] | tuple[Any, ...]) -> np.ndarray:
    kinds = set(map(type, items))
    if kinds <= EXACT:
        return np.array(items, dtype=np.float64)
    if kinds == {int} and -WHOLE <= min(items) <= max(items) <= WHOLE:
        return np.array(items, dtype=np.float64)
    try:
        parts = [float64(item) for item in items]
    except RecursionError:
        raise RefusedError("it is nested without end") from None
    if len({part.shape for part in parts}) > 1:
        raise RefusedError("its items are of different shapes: give a dict of arrays")
    return np.stack(parts)


def _from_number(value: Any) -> float:
    try:
        result = float(value)
        is_whole = isinstance(value, Integral)
        if is_whole and int(result) != int(value):
            raise RefusedError(
                f"{shortened(str(int(value)))} would lose its last digits, as a float64 has 53 bits: give "
                "float() of it if they do not matter"
            )
        if not is_whole and abs(result) == float("inf") and abs(value) != result:
            raise OverflowError
    except OverflowError:
        raise RefusedError("a number is too large for a float64") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError(f"{type(value).__name__} is no real number ({_line(error)})") from None
    return result


def _from_columns(frame: Any) -> np.ndarray:
    """A frame by columns where these are of several types: together they get one that may suit none."""
    if len(set(frame.dtypes)) == 1:
        return _from_interface(frame)
    count = frame.shape[1]
    columns = [frame.iloc[:, i] if hasattr(frame, "iloc") else frame[:, i] for i in range(count)]
    return np.stack([float64(column) for column in columns], axis=1) if columns else np.empty(frame.shape)


def _from_interface(value: Any) -> np.ndarray:
    """What an object says it is as an array; by DLPack where it refuses, also from another device.

    Last by what libraries for GPUs have instead: PyTorch's `detach` and `cpu`, CuPy's `get`.
    """
    ways: list[Callable[[Any], np.ndarray]] = []
    if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        ways.append(np.asarray)
    if hasattr(value, "__dlpack__"):
        ways += [np.from_dlpack, partial(np.from_dlpack, device="cpu")]
    ways += [_from_torch] if hasattr(value, "detach") else []
    ways += [_from_cupy] if hasattr(value, "get") else []
    reason = ""
    for way in ways:
        try:
            array = way(value)
        except Exception as error:
            reason = reason or _line(error)
        else:
            if array.dtype != object or array.shape or array.item() is not value:
                return _from_dtype(array)
    raise RefusedError(f"{type(value).__name__} gives no NumPy array ({reason}): make one of it")


def _from_torch(tensor: Any) -> np.ndarray:
    """A tensor that has a gradient, lies on a GPU, or has floats of a width that NumPy does not know."""
    here = tensor.detach().cpu()
    try:
        return np.asarray(here)
    except TypeError:
        if not here.is_floating_point():
            raise
        return np.asarray(here.double())


def _from_cupy(array: Any) -> np.ndarray:
    found = array.get()
    if not isinstance(found, np.ndarray):
        raise TypeError(f"get() gives a {type(found).__name__}")
    return found


def _from_sequence(value: Any) -> np.ndarray:
    try:
        items = list(value)
    except Exception:
        items = [value]
    if len(items) == 1 and (items[0] is value or type(items[0]) is type(value)):  # as characters are
        raise RefusedError(f"{type(value).__name__} is no number and no array of numbers")
    return _from_items(items)


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except (TypeError, ValueError, BufferError):
        return False
    return True


def _line(error: Exception) -> str:
    return shortened(" ".join(f"{error}".split()) or type(error).__name__)


def shortened(text: str) -> str:
    """Text of at most a line or two."""
    return text if len(text) <= 200 else text[:200] + "..."


def is_xarray(kind: type) -> bool:
    """Of xarray."""
    return hasattr(kind, "dims") and hasattr(kind, "coords")


def is_frame(kind: type) -> bool:
    """Of pandas, or of polars, which has no labels for rows."""
    return hasattr(kind, "columns") and (hasattr(kind, "iloc") or hasattr(kind, "get_column"))
