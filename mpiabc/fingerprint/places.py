"""Whose code it is, decided by where it lies, and the names that it has in every process."""

import functools
import importlib.machinery
import os
import sys
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

from mpiabc.moved import former

_US = __name__.partition(".")[0]
_SCRIPT = "script"  # one name for all those under which the user's own file may run
_SCRIPTS = frozenset({None, "__main__", "__mp_main__", "mpiabc_problem_file"})

_PACKAGES = ("site-packages", "dist-packages")
_SYSTEM_LIBRARIES = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/System/")
_OURS_AND_PYTHONS = tuple(
    {
        os.path.dirname(file) + os.sep
        for path in (os.__file__, os.path.dirname(__file__))
        for file in (path, os.path.realpath(path))
    }
)


@functools.lru_cache(maxsize=4096)
def is_installed(path: str) -> bool:
    """Whether a file belongs to Python, to us, or to an installed distribution.

    A link from site-packages to somewhere else is an editable installation, which is the user's.
    """
    parts = path.split(os.sep)
    for i, part in enumerate(parts):
        if part in _PACKAGES:
            entry = os.sep.join(parts[: i + 2])
            return not (os.path.islink(entry) and not is_installed(os.path.realpath(entry)))
    return path.startswith(_OURS_AND_PYTHONS) or os.path.realpath(path).startswith(_OURS_AND_PYTHONS)


def is_users_library(path: str) -> bool:
    """Whether a compiled library belongs neither to a distribution nor to the system."""
    return not is_installed(path) and not path.startswith(_SYSTEM_LIBRARIES)


def is_compiled(file: Any) -> bool:
    """Whether a module's file is a compiled library."""
    return isinstance(file, str) and file.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))


def namespace(module: ModuleType) -> dict[str, Any]:
    """A module's globals; a lazy module is not made to load, and what only says that it is one has none."""
    try:
        found = object.__getattribute__(module, "__dict__")
    except AttributeError:  # a library of cffi, which `isinstance` takes for a module
        return {}
    return found if isinstance(found, dict) else {}


def is_loaded(module: Any) -> bool:
    """Whether it is a module that has been executed."""
    return isinstance(module, ModuleType) and type(module).__name__ != "_LazyModule"


def is_users_name(name: Any) -> bool:
    """Whether functions and classes of a module of that name are the user's."""
    if name in _SCRIPTS:
        return True
    if not isinstance(name, str) or name.partition(".")[0] in (_US, "builtins"):
        return False
    module = sys.modules.get(name)
    if isinstance(module, ModuleType):
        return is_users_module(module)
    return name.partition(".")[0] not in sys.stdlib_module_names


def is_users_module(module: ModuleType) -> bool:
    """Whether it belongs to no installed distribution."""
    found = namespace(module)
    if found.get("__name__") in _SCRIPTS:
        return True
    file = found.get("__file__")
    if not isinstance(file, str):
        file = next(iter(found.get("__path__") or ()), None)  # a package without a file of its own
    if isinstance(file, str):
        return not is_installed(file)
    return getattr(found.get("__spec__"), "origin", None) not in ("built-in", "frozen")


def is_users_function(function: FunctionType) -> bool:
    """Whether its code belongs to no installed distribution."""
    file = function.__code__.co_filename
    if file.startswith("<frozen"):
        return False
    if file.startswith("<"):  # made by exec, in a notebook, at the prompt: as the module that it is in
        of_module = function.__globals__.get("__file__")
        if not isinstance(of_module, str):
            return is_users_name(module_of(function))
        file = of_module
    return not is_installed(file)


def is_users_class(cls: type) -> bool:
    """Whether it belongs to no installed distribution."""
    return is_users_name(module_name(cls))


def is_our_class(cls: type) -> bool:
    """Whether it is one of this package."""
    return module_name(cls).partition(".")[0] == _US


def module_name(cls: type) -> str:
    """A class's module; a class may have something else under that name."""
    name = cls.__module__
    return name if isinstance(name, str) else ""


def module_of(function: FunctionType) -> str | None:
    """By its globals: decorators give their wrappers the module of what they wrap."""
    name = function.__globals__.get("__name__")
    return name if isinstance(name, str) and name != "builtins" else function.__module__


def label(module: Any, name: str) -> str:
    """A name in a module, the same wherever a script runs."""
    return f"{_SCRIPT if module in _SCRIPTS else former(str(module))}.{_without_locals(name)}"


def class_label(cls: type) -> str:
    """The name of a class."""
    is_builtin = module_name(cls) == "builtins"
    return cls.__qualname__ if is_builtin else label(module_name(cls), cls.__qualname__)


def class_in_values(cls: type) -> str:
    """The name of a class where a value is described: a user's module may be the script in the next run."""
    return _without_locals(cls.__qualname__) if is_users_class(cls) else class_label(cls)


def function_in_values(function: FunctionType) -> str:
    """The name of a function where a value is described."""
    is_users = is_users_function(function)
    return _without_locals(function.__code__.co_qualname) if is_users else function_label(function)


def _without_locals(name: str) -> str:
    return name.replace("<locals>.", "")


def function_label(function: FunctionType) -> str:
    """By its code's own name: decorators give their wrappers the name of what they wrap."""
    return label(module_of(function), function.__code__.co_qualname)


def is_importable(function: FunctionType) -> bool:
    """Whether it travels as a name, so that a worker has its own defaults and closure of it."""
    module = sys.modules.get(function.__module__ or "")
    if function.__module__ in _SCRIPTS or not isinstance(module, ModuleType):
        return False
    found: Any = namespace(module)
    for part in function.__qualname__.split("."):
        found = (found if isinstance(found, Mapping) else getattr(found, "__dict__", {})).get(part)
    return getattr(found, "__func__", found) is function
