"""Values as short texts without addresses: as they are where they are short, else with a digest."""

import contextlib
import enum
import functools
import hashlib
import os
import re
import sys
import tempfile
import time
import types
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from mpiabc import mapped
from mpiabc.arguments import described_fields
from mpiabc.fingerprint import objects
from mpiabc.fingerprint.bytecode import digest
from mpiabc.fingerprint.places import (
    class_in_values,
    is_importable,
    is_our_class,
    is_users_class,
    module_name,
    namespace,
)
from mpiabc.masked import is_masked

_SHORT = 80  # characters that are shown as they are
_WHOLE = 1 << 20  # bytes of an array that are read from end to end
_SAMPLE = 4096  # elements that are read of a larger one
_MAPPED = 64  # the same of one in a file: each costs a read
_MANY = 200_000  # items of a container from where on a sample is read
_DEEP = 24  # levels of containers and objects
_FOREIGN_OBJECTS = 20_000  # objects of installed classes that are looked into, all in all

_SCALARS = frozenset({int, float, bool, complex, str, bytes, type(None), type(...), type(NotImplemented)})
_BUILTIN = frozenset(objects.CONTAINERS)
_NUMBERS = frozenset({int, float, bool, type(None)})
_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (bytes, bytes.__bytes__),
    (int, int.__int__),
    (float, float.__float__),
)
_BY_REPR = frozenset({"datetime", "decimal", "fractions", "uuid", "ipaddress", "zoneinfo"})
_TENSORS = frozenset({"torch", "jax", "jaxlib", "cupy", "tensorflow"})
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_TEMPORARY = "a temporary path"
_MOMENT = "a time of this process"  # such as START = time.time(), which tells no problem from another
_DAY = 86400
_AROUND = 600.0  # seconds before this module was loaded, in which scripts note when they began
_LOADED = time.monotonic()


def _is_moment(value: float) -> bool:
    """Whether a clock has shown this since shortly before the process came to us.

    Clocks that start with the machine show small numbers, as models hold them: theirs have nanoseconds.
    """
    if type(value) is float and _LOADED - min(_AROUND, _LOADED / 2) < value < time.monotonic():
        return round(value, 5) != value == round(value, 9)
    now = time.time()
    return -_DAY < value - int(now) < _DAY or -_DAY < value // 10**9 - int(now) < _DAY


class Texts:
    """Describes values; code, libraries and modules that they hold are handed on.

    `impure` counts the values met so far whose state may move while they are used. A path below
    `folder` is described relative to it: the folder of the module that is read.
    """

    def __init__(self) -> None:
        self.impure = 0
        self.folder = ""
        self._temporary = _temporary_folders(os.environ.get("TMPDIR"), tempfile.tempdir)
        self._known: dict[int, tuple[str, bool]] = {}
        self._alive: list[Any] = []  # the id of what is gone would be given again
        self._budget = _FOREIGN_OBJECTS

    def reach(self, value: Any, name: str | None = None, by_name: bool = True) -> None:
        """Take the code of a function or class into the fingerprint."""
        raise NotImplementedError

    def library(self, path: Any) -> None:
        """Take a compiled library into the fingerprint, if it is the user's."""
        raise NotImplementedError

    def module(self, module: ModuleType) -> None:
        """Take what reachable code names of a module into the fingerprint."""
        raise NotImplementedError

    def text(self, value: Any, depth: int = 0) -> str:
        """The text of any value."""
        if type(value) in _SCALARS:
            return self._scalar(value)
        known = self._known.get(id(value)) or self._new(value, depth)
        self.impure += not known[1]
        return known[0]

    def keep(self, value: Any) -> None:
        """Keep a thing whose id is remembered."""
        self._alive.append(value)

    def _new(self, value: Any, depth: int) -> tuple[str, bool]:
        if depth > _DEEP:
            return "...", True
        self.keep(value)
        self._known[id(value)] = ("...", True)  # where it holds itself
        before, self.impure = self.impure, 0
        try:
            text = self._compound(value, depth + 1)
        except Exception:  # whatever a foreign class does: its name is what is known of it
            text = class_in_values(type(value))
        is_in_file = isinstance(value, np.ndarray) and mapped.placed(value) is not None
        self._known[id(value)] = (text if is_in_file else shortened(value, text), not self.impure)
        self.impure = before
        return self._known[id(value)]

    # Scalars.

    def _scalar(self, value: Any) -> str:
        if type(value) in (int, float) and _is_moment(value):
            return _MOMENT
        if type(value) is int and value.bit_length() > 256:
            return shortened(value, hex(value))  # repr refuses very long ones
        if type(value) is str:
            return self._path(value) or shortened(value, repr(_ADDRESS.sub(" at 0x...", value)))
        if type(value) is bytes:
            path = self._path(os.fsdecode(value[:_SAMPLE]))
            return path or (repr(value) if len(value) < _SHORT else _bytes_text(value))
        return repr(value)

    def _path(self, text: str) -> str | None:
        """What is said of a path instead of it."""
        if not text.startswith("/"):
            return None
        if text.startswith(self._temporary):
            return _TEMPORARY
        if self.folder and (text == self.folder or text.startswith(f"{self.folder}/")):
            return repr(f".{text[len(self.folder) :]}")
        return None

    # What is described by its name.

    def _compound(self, value: Any, depth: int) -> str:
        cls = type(value)
        if cls in _BUILTIN:  # the quick way for large ones
            return str(self.own_content(value, depth))
        if is_users_class(cls):
            self.reach(cls)
        if isinstance(value, np.generic):
            item = value.item()
            return f"{cls.__name__}({self._scalar(item) if type(item) in _SCALARS else value})"
        if isinstance(value, np.ndarray):
            return self._array(value, depth)
        if isinstance(value, PurePath):
            return self._path(str(value)) or f"Path({str(value)!r})"
        if isinstance(value, type):
            self.reach(value)
            return objects.code_name(value)
        if isinstance(value, ModuleType):
            self.module(value)
            return f"module {namespace(value).get('__name__')}"
        if isinstance(value, enum.Enum):
            return f"{class_in_values(cls)}.{value._name_}"
        called = self._callable(value, depth)
        if called is not None:
            return called
        return class_in_values(cls) if objects.is_opaque(cls) else self._content(value, depth)

    def _callable(self, value: Any, depth: int) -> str | None:
        """Of functions and what wraps them; None for everything else."""
        cls = type(value)
        if isinstance(value, FunctionType):
            return self._function(value, depth)
        if isinstance(value, MethodType):
            return f"method {self.text(value.__func__, depth)} of {self.text(value.__self__, depth)}"
        if isinstance(value, functools.partial):
            return f"partial({self._arguments(value.func, value.args, value.keywords, depth)})"
        if isinstance(value, staticmethod | classmethod):
            return f"{cls.__name__} {self.text(value.__func__, depth)}"
        if objects.is_foreign_function(value):
            return self._foreign_function(value, depth)
        if any(module_name(base) in ("ctypes", "_ctypes") for base in cls.__mro__):
            return self._of_ctypes(value)
        inner = None if is_users_class(cls) else objects.wrapped(value)
        if inner is None:
            return None
        self.text(inner, depth)
        return objects.code_name(value)

    def _function(self, function: FunctionType, depth: int) -> str:
        by_name = is_importable(function)
        self.reach(function, None, by_name)
        parts = [] if by_name else objects.function_parts(function)
        inner = ", ".join(f"{kind} {name}={self.text(item, depth)}" for kind, name, item in parts)
        return objects.code_name(function) + (f"({inner})" if inner else "")

    def _arguments(self, first: Any, args: Iterable[Any], keywords: dict[str, Any], depth: int) -> str:
        items = [self.text(item, depth) for item in (first, *args)]
        return ", ".join(items + [f"{key}={self.text(keywords[key], depth)}" for key in sorted(keywords)])

    def _foreign_function(self, value: Any, depth: int) -> str:
        if isinstance(value, np.ufunc):
            return f"ufunc {value.__name__}"
        owner = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or (objects.holder(value) if owner is None else None)
        found = sys.modules.get(module or "")
        if isinstance(found, ModuleType):
            self.module(found)
        name = str(getattr(value, "__qualname__", None) or getattr(value, "__name__", "function"))
        if owner is None or isinstance(owner, ModuleType | type):
            return f"{module}.{name}" if module else name
        return f"{name} of {self.text(owner, depth)}"

    def _of_ctypes(self, value: Any) -> str:
        """Of a library that was opened, or a function of one."""
        name = objects.attributes(value).get("_name")
        held = getattr(value, "_objects", None)
        for item in [value, *(held.values() if isinstance(held, dict) else ())]:
            self.library(objects.attributes(item).get("_name"))
        if isinstance(name, str):
            return f"library {os.path.basename(name)}"
        function = getattr(value, "__name__", None)
        return f"{function} of a library" if isinstance(function, str) else class_in_values(type(value))

    # What is described by its content.

    def _content(self, value: Any, depth: int) -> str:
        cls, name = type(value), class_in_values(type(value))
        own = self.own_content(value, depth)
        if own is not None:
            return own if cls in _BUILTIN else self._call(name + own, objects.attributes(value), depth)
        if is_dataclass(value):
            is_ours = is_our_class(cls)
            names = described_fields(value) if is_ours else [field.name for field in fields(value)]
            items = {field: objects.attribute(value, field) for field in names}
            return f"{cls.__qualname__ if is_ours else name}({self._named(items, depth)})"
        if is_our_class(cls):
            return f"{cls.__qualname__}({self._named(objects.state_of_ours(value), depth)})"
        if is_users_class(cls):
            self.impure += 1
            return self._of_state(name, objects.state(value), depth)
        return self._foreign(value, depth)

    def own_content(self, value: Any, depth: int = 0) -> str | None:
        """Of numbers, text and containers, of classes derived from them too; None for others."""
        for base, plain in _PLAIN:
            if isinstance(value, base):
                return f"({self._scalar(plain(value))})"
        if isinstance(value, dict | types.MappingProxyType):
            return self._mapping(value, depth)
        if isinstance(value, set | frozenset):
            items = sorted(self.text(item, depth) for item in value) if len(value) <= _MANY else [len(value)]
            return f"{{{', '.join(map(str, items))}}}"
        return self._sequence(value, depth) if isinstance(value, list | tuple | deque) else None

    def _mapping(self, value: Any, depth: int) -> str:
        items = list(value.items())
        texts = [(self.text(key, depth), self.text(item, depth)) for key, item in _some(items)]
        inner = ", ".join(f"{key}: {item}" for key, item in sorted(texts))
        return f"{{{inner}}}{_of_many(value)}"

    def _sequence(self, value: Any, depth: int) -> str:
        is_long = len(value) > _MANY
        if not is_long and type(value) in (list, tuple) and set(map(type, value)) <= _NUMBERS:
            try:
                return repr(value)
            except ValueError:  # an integer of more than 4300 digits
                pass
        texts = [self.text(item, depth) for item in _some(value)]
        inner = ", ".join(texts) + ("," if len(texts) == 1 and isinstance(value, tuple) else "")
        return (f"({inner})" if isinstance(value, tuple) else f"[{inner}]") + _of_many(value)

    def _named(self, items: dict[str, Any], depth: int) -> str:
        return ", ".join(f"{name}={self.text(items[name], depth)}" for name in sorted(items))

    def _call(self, text: str, items: dict[str, Any], depth: int) -> str:
        return f"{text}({self._named(items, depth)})" if items else text

    def _of_state(self, name: str, state: Any, depth: int) -> str:
        self.keep(state)
        if isinstance(state, dict) and all(isinstance(key, str) for key in state):
            return f"{name}({self._named(state, depth)})"
        return f"{name}({self.text(state, depth)})"

    def _foreign(self, value: Any, depth: int) -> str:
        """Of an object of an installed class."""
        cls, name = type(value), class_in_values(type(value))
        if module_name(cls) in _BY_REPR or isinstance(value, range | np.dtype):
            return repr(value)
        if isinstance(value, bytearray | memoryview):
            return _bytes_text(value)
        if isinstance(value, slice):
            return f"slice{self.text((value.start, value.stop, value.step), depth)}"
        if isinstance(value, re.Pattern):
            return f"re.compile({self.text(value.pattern)}, {value.flags})"
        self.impure += 1
        self._budget -= 1
        if self._budget < 0:
            return name
        distribution = objects.attribute(value, "dist")
        if isinstance(objects.attribute(distribution, "name"), str) and hasattr(value, "kwds"):
            return self._frozen(value, distribution, depth)
        return self._without_code(name, value, depth + 1)

    def _frozen(self, value: Any, distribution: Any, depth: int) -> str:
        """Of a frozen distribution of SciPy's: as it was written."""
        text = self._arguments(distribution, value.args, value.kwds, depth)
        if is_users_class(type(distribution)):
            return f"frozen({text})"
        return f"{distribution.name}({text.partition(', ')[2]})"

    def _without_code(self, name: str, value: Any, depth: int) -> str:
        """By its numbers, by how it is copied, by its attributes, or by its type alone.

        Attributes come late: in classes that say how they are copied they are caches.
        """
        cls: Any = type(value)
        if objects.has_state_of_its_own(cls):
            return self._of_state(name, objects.state(value), depth)
        has_numbers = hasattr(cls, "__array__")
        if has_numbers and module_name(cls).partition(".")[0] in _TENSORS:
            numbers = np.asarray(value.detach() if hasattr(value, "detach") else value)
            return f"{name} {self._array(numbers, depth)}"
        if cls.__reduce__ is not object.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__:
            with contextlib.suppress(Exception):  # of those that cannot be copied
                how = value.__reduce_ex__(2)
                return f"{name}({self.text(how if isinstance(how, str) else how[1:3], depth)})"
        state = objects.state(value)
        if state:
            return self._of_state(name, state, depth)
        return f"{name} {value.shape}" if has_numbers and hasattr(value, "shape") else name

    # Arrays.

    def _array(self, array: np.ndarray, depth: int) -> str:
        if place := mapped.placed(array):
            return self._in_file(place)
        kind = "array" if type(array) in (np.ndarray, np.memmap) else class_in_values(type(array))
        numbers = self._numbers(array.view(np.ndarray), depth, _MAPPED if _is_mapped(array) else _SAMPLE)
        text = f"{kind} {array.dtype} {array.shape} {numbers}"
        if is_masked(array):
            return f"{text} mask {self._numbers(np.asarray(array.mask), depth)}"
        return text if kind == "array" else self._call(text, objects.attributes(array), depth)

    def _in_file(self, place: mapped.Place) -> str:
        """By the file's name, size and time, wherever it lies: nothing of it is read."""
        is_temporary = place.file.path.startswith(self._temporary)
        name = _TEMPORARY if is_temporary else os.path.basename(place.file.path)
        kind = f"array {shortened(place.dtype, str(place.dtype))} {place.shape} by {place.strides}"
        return f"{kind} at {place.offset} of {name}, {place.file}"

    def _numbers(self, array: np.ndarray, depth: int, sample: int = _SAMPLE) -> str:
        if array.nbytes > _WHOLE:
            array = array[np.unravel_index(_places(array.size, sample), array.shape)]
        if array.dtype.names:  # what lies between the fields is undefined
            return " ".join(self._numbers(array[name], depth) for name in array.dtype.names)
        if array.dtype.hasobject:
            return self._sequence(array.reshape(-1).tolist(), depth)
        if array.size <= 8 and array.dtype.kind in "biufc":
            return repr(array.tolist())
        return digest(np.ascontiguousarray(array).tobytes())


def shortened(value: Any, text: str) -> str:
    """A text, or if it is long type, size and digest."""
    if len(text) <= _SHORT:
        return text
    cls = type(value)
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {digest(text)}"
    if isinstance(value, FunctionType):
        return f"{objects.code_name(value)} {digest(text)}"
    size = f" of {len(value)}" if cls in (str, *objects.CONTAINERS) else ""
    return f"{class_in_values(cls)}{size} {digest(text)}"


def file_digest(path: str) -> str:
    """Of a file's content; raises OSError."""
    status = os.stat(path)
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_digest(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@functools.lru_cache(maxsize=8)
def _temporary_folders(variable: str | None, chosen: str | None) -> tuple[str, ...]:
    folders = {"/tmp", "/var/tmp", "/dev/shm", variable or "", chosen or ""}
    with contextlib.suppress(OSError):  # there is no such folder
        folders.add(tempfile.gettempdir())
    absolute = {folder.rstrip("/") for folder in folders if folder.startswith("/")} - {""}
    return tuple(f"{folder}/" for folder in absolute | {os.path.realpath(folder) for folder in absolute})


def _is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def _places(size: int, sample: int = _SAMPLE) -> np.ndarray:
    """Evenly spaced, and both ends."""
    ends, between = np.arange(64), np.linspace(0, size - 1, sample).astype(np.int64)
    return np.unique(np.concatenate([ends, between, size - 1 - ends]))


def _some(items: Any) -> Any:
    """All items, or of very many a sample."""
    return items if len(items) <= _MANY else [items[i] for i in _places(len(items)).tolist()]


def _of_many(items: Any) -> str:
    return f" of {len(items)}" if len(items) > _MANY else ""


def _bytes_text(data: bytes | bytearray | memoryview) -> str:
    whole = memoryview(data).cast("B")
    if len(whole) > 64 * _WHOLE:
        step = len(whole) // _SAMPLE
        whole = memoryview(bytes(whole[:_SAMPLE]) + bytes(whole[::step]) + bytes(whole[-_SAMPLE:]))
    return f"{class_in_values(type(data))} of {len(data)} {digest(bytes(whole))}"
