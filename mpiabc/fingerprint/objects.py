"""What objects hold, found without asking any property, `__getattr__` or `repr` of theirs."""

import functools
import sys
import types
from collections import deque
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from mpiabc.fingerprint.places import (
    class_in_values,
    function_in_values,
    is_compiled,
    is_users_module,
    module_name,
    namespace,
)

CONTAINERS = (list, tuple, set, frozenset, dict, deque, types.MappingProxyType)

#: Modules whose objects are no values: generators, locks, files, threads, connections.
_OPAQUE_NAMES = (
    "_asyncio _contextvars _ctypes _io _queue _random _socket _thread _weakref _weakrefset asyncio "
    "concurrent contextvars ctypes distributed h5py io logging loky mmap mpi4py multiprocessing netCDF4 "
    "queue random redis select selectors socket sqlite3 subprocess tables tempfile threading weakref"
)
_OPAQUE = frozenset(_OPAQUE_NAMES.split())
_OPAQUE_CLASSES = frozenset({("torch._C", "Generator"), ("os", "_Environ")})
_OPAQUE_TYPES = (
    CodeType,
    ModuleType,
    types.CellType,
    types.CoroutineType,
    types.FrameType,
    types.GeneratorType,
    types.TracebackType,
)
_FOREIGN_FUNCTIONS = (
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    np.ufunc,
)
_FOREIGN_FUNCTION_NAMES = frozenset({"_ArrayFunctionDispatcher", "cython_function_or_method", "fortran"})


def is_opaque(cls: type) -> bool:
    """Whether of its objects only the type is described."""
    if issubclass(cls, _OPAQUE_TYPES) or (module_name(cls), cls.__name__) in _OPAQUE_CLASSES:
        return True
    modules = [module_name(base) for base in cls.__mro__[:-1]]
    return any(name.partition(".")[0] in _OPAQUE or name.startswith("numpy.random") for name in modules)


def is_foreign_function(value: Any) -> bool:
    """Whether it is a compiled function: of C, Cython, f2py, or one of NumPy's dispatchers."""
    return isinstance(value, _FOREIGN_FUNCTIONS) or type(value).__name__ in _FOREIGN_FUNCTION_NAMES


def attributes(value: Any) -> dict[str, Any]:
    """Its `__dict__`."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def attribute(value: Any, name: str) -> Any:
    """One attribute; None if there is none, or a property."""
    if name in attributes(value):
        return attributes(value)[name]
    for cls in type(value).__mro__:
        if name in vars(cls):
            found = vars(cls)[name]
            is_field = isinstance(found, types.MemberDescriptorType | types.GetSetDescriptorType)
            try:
                return found.__get__(value) if is_field else None
            except AttributeError:
                return None
    return None


def wrapped(value: Any) -> FunctionType | None:
    """The function inside what a decorator made of it: numba, jax.jit, functools.lru_cache."""
    for name in ("py_func", "__wrapped__"):
        found = attribute(value, name)
        if isinstance(found, FunctionType):
            return found
        if callable(found) and type(found) is not type(value):
            return wrapped(found)
    return None


def has_state_of_its_own(cls: type) -> bool:
    """Whether it defines `__getstate__`, other than the one of dataclasses with slots, which lists them."""
    own: Any = cls.__getstate__
    return own is not object.__getstate__ and own.__module__ != "dataclasses"


def state(value: Any) -> Any:
    """Attributes as a dict, or what `__getstate__` gives; raises what that raises."""
    cls = type(value)
    if has_state_of_its_own(cls):
        return cls.__getstate__(value)  # type: ignore[call-arg]
    members = [(name, member) for base in cls.__mro__ for name, member in vars(base).items()]
    cached = {name for name, member in members if isinstance(member, functools.cached_property)}
    found = _slots(value) | attributes(value)
    return {name: item for name, item in found.items() if name not in cached}


def _slots(value: Any) -> dict[str, Any]:
    found = {}
    for cls in reversed(type(value).__mro__):
        for name, field in vars(cls).items():
            if isinstance(field, types.MemberDescriptorType) and not name.startswith("__"):
                try:
                    found[name] = field.__get__(value)
                except AttributeError:  # not set
                    continue
    return found


def state_of_ours(value: Any) -> dict[str, Any]:
    """Of an object of this package that is no dataclass: a prior's marginals under their names."""
    found = dict(attributes(value))
    names, marginals = found.get("_labels", found.get("names", ())), found.pop("marginals", ())
    public = {key: item for key, item in found.items() if not key.startswith("_")}
    return public | dict(zip(map(str, names), marginals, strict=False))


def function_parts(function: FunctionType) -> Iterator[tuple[str, str, Any]]:
    """("default", "n", 3), ("closure", "scale", 1.0): what it carries besides its code."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    late = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for name, value in [*zip(late, defaults, strict=True), *(function.__kwdefaults__ or {}).items()]:
        yield "default", name, value
    for name, cell in cells(function).items():
        if name != "__class__":
            try:
                yield "closure", name, cell.cell_contents
            except ValueError:  # empty
                continue


def cells(function: FunctionType) -> dict[str, types.CellType]:
    """Its closure by name."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def code_inside(value: Any) -> list[FunctionType | type]:
    """The functions and classes of which a class's member is made, or what a decorator has wrapped."""
    if isinstance(value, FunctionType):
        inner = wrapped(value)
        return [value] if inner is None else [value, inner]
    if isinstance(value, type):
        return [value]
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return code_inside(value.__func__)
    if isinstance(value, property):
        return [inner for part in (value.fget, value.fset, value.fdel) for inner in code_inside(part)]
    if isinstance(value, functools.cached_property):
        return code_inside(value.func)
    if isinstance(value, functools.partialmethod | functools.singledispatchmethod):
        return code_inside(value.func)
    inner = wrapped(value)
    return [] if inner is None else [inner]


def code_name(value: Any) -> str:
    """Of a function, of a class, or of what a decorator made of them."""
    if isinstance(value, type):
        return f"class {class_in_values(value)}"
    if isinstance(value, FunctionType):
        return f"function {function_in_values(value)}"
    inner = wrapped(value)
    return class_in_values(type(value)) + (
        "" if inner is None else f" of {code_name(inner)}{_options(value)}"
    )


def _options(value: Any) -> str:
    """Of numba's compiler: fastmath changes results."""
    options = attribute(value, "targetoptions")
    plain = (bool, int, str, type(None))
    items = sorted(options.items()) if isinstance(options, dict) else []
    return "".join(f", {key}={item}" for key, item in items if isinstance(item, plain))


def holder(value: Any) -> str | None:
    """The user's compiled module that holds a function which does not say where it is from."""
    for name, module in sys.modules.copy().items():  # in one step: other threads import meanwhile
        found = namespace(module) if isinstance(module, ModuleType) else {}
        is_candidate = is_compiled(found.get("__file__")) and is_users_module(module)
        if is_candidate and any(item is value for item in found.copy().values()):
            return name
    return None
