"""What a call of `map` sends to its tasks, and by what the same call is known again."""

import hashlib
import io
import json
import re
from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import cloudpickle

from mpiabc import mapped
from mpiabc.errors import ProblemError
from mpiabc.fingerprint import fingerprint


@dataclass(frozen=True)
class Work:
    """What a call computes, as it is sent: the function and the items in their chunks."""

    function: bytes
    parts: list[bytes]
    chunk: int
    items: int
    identity: str  # equal where code, values and chunks are

    @classmethod
    def of(cls, f: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> "Work":
        """Raises ProblemError for a function or an item that cannot be sent."""
        chunks = [(i, items[i : i + chunk]) for i in range(0, len(items), chunk)]
        function, parts = _dumped(f, "the function"), [_part(*part) for part in chunks]
        digest = hashlib.sha256(json.dumps(fingerprint(f=f).code, sort_keys=True).encode())
        for part in [f, *chunks]:
            content = _placeless(part)
            digest.update(b"%d:" % len(content) + content)
        return cls(function, parts, chunk, len(items), digest.hexdigest())


def _part(first: int, items: Sequence[Any]) -> bytes:
    """A chunk as it is sent. Raises ProblemError that names the item which cannot be."""
    try:
        return mapped.dumps((first, items))
    except Exception:
        for index, item in enumerate(items, first):
            _dumped(item, f"items[{index}]")
        raise


def _dumped(value: Any, what: str) -> bytes:
    try:
        return mapped.dumps(value)
    except Exception as error:
        raise ProblemError(
            f"{what} cannot be sent to another node: {type(error).__name__}: {error}"
        ) from error


# What is equal in every process that makes the same call.


def _code_without_place(code: CodeType) -> Any:
    """Code reduced without file and lines: a call is the same wherever it stands."""
    moved = code.replace(co_filename="", co_firstlineno=1, co_linetable=b"")
    return cloudpickle.Pickler.dispatch_table[CodeType](moved)


class _Pickler(mapped.Pickler):
    dispatch_table = ChainMap({CodeType: _code_without_place}, cloudpickle.Pickler.dispatch_table)


def _placeless(value: Any) -> bytes:
    """A value pickled to be compared; classes of scripts without the random names of this process."""
    file = io.BytesIO()
    _Pickler(file, protocol=cloudpickle.DEFAULT_PROTOCOL).dump(value)
    trackers = getattr(cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", {})
    if not trackers:
        return file.getvalue()
    names = re.compile(b"|".join(str(name).encode() for name in trackers.values()))
    order: dict[bytes, bytes] = {}
    return names.sub(lambda found: order.setdefault(found[0], b"class %d" % len(order)), file.getvalue())
