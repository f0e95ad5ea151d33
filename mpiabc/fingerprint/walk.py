"""The walk from a user's parts to all code that they reach, and to the globals that this code reads."""

import contextlib
import enum
import functools
import importlib.util
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import is_dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from mpiabc.fingerprint import objects, source
from mpiabc.fingerprint.bytecode import Facts, Import, Origin, digest, facts
from mpiabc.fingerprint.places import (
    class_in_values,
    class_label,
    function_label,
    is_compiled,
    is_importable,
    is_installed,
    is_loaded,
    is_our_class,
    is_users_class,
    is_users_function,
    is_users_library,
    is_users_module,
    label,
    namespace,
)
from mpiabc.fingerprint.values import Texts, file_digest, shortened

PYTHON = "python"  # the entry that says whose bytecode was read

_NAMED_DEEP, _NAMED_MANY = 5, 1000  # levels and number of values with names of their own
_WITHOUT_CODE = frozenset({"__annotate__", "__annotate_func__"})
#: Names that every module has, which say where it is and not what it does.
_OF_EVERY_MODULE = frozenset(
    {"__annotate__", "__annotations__", "__builtins__", "__cached__", "__conditional_annotations__"}
    | {"__doc__", "__file__", "__loader__", "__name__", "__package__", "__path__", "__spec__"}
)

_PLAIN = (str, bytes, int, float, tuple, frozenset)  # and what is derived of them: named tuples

Names = tuple[str, ...]
Key = tuple[Any, str]  # a namespace (its id, a file's path) and a name in it


class Walk(Texts):
    """Collects code and values; what is reached waits in a queue, and globals that are read in a later one.

    Later, because code that is reached by then may have turned out to assign them: they are state.
    """

    def __init__(self) -> None:
        super().__init__()
        self._code: dict[str, set[str]] = {}
        self._values: dict[str, str] = {}
        self._first_names: dict[int, str] = {}  # of objects that have names
        self._seen: dict[Any, Any] = {}
        self._todo: deque[Callable[[], None]] = deque()
        self._reads: deque[Callable[[], None]] = deque()
        self._described: list[tuple[Key, str, str]] = []  # for the code, unless it turns out to be state
        self._assigned: set[Key] = set()
        self._changed: set[Key] = set()
        self._touched: set[str] = set()
        self._classes: list[tuple[type, dict[str, str]]] = []
        self._names: dict[str, None] = {}
        self._modules: list[ModuleType] = []  # met as values: any code may ask them for anything

    def finish(self) -> tuple[dict[str, str], dict[str, str]]:
        """Follow everything to its end: code and values."""
        asked: tuple[int, int] | None = None
        while self._todo or self._reads or asked != (len(self._names), len(self._modules)):
            if self._todo or self._reads:
                (self._todo or self._reads).popleft()()
            else:
                asked = len(self._names), len(self._modules)
                for module in list(self._modules):
                    self._visit_module(module, tuple(self._names))
        for key, name, text in self._described:
            self._settle(key, name, text)
        for cls, members in self._classes:
            self._settle_class(cls, members)
        code = {name: " and ".join(sorted(texts)) for name, texts in self._code.items()}
        if any(name.startswith("function ") for name in code):
            code[PYTHON] = str(sys.implementation.cache_tag)
        return code, self._values

    def _settle(self, key: Key, name: str, text: str) -> None:
        if key in self._assigned or key in self._changed:
            return
        is_of_class = isinstance(self._seen.get(key[0]), type)
        if is_of_class and key[1] in self._touched:
            self._values[name] = text  # perhaps a counter: equal before the first evaluation
        else:
            self._add(name, text)

    def _settle_class(self, cls: type, members: dict[str, str]) -> None:
        """What a class has is code: a method or an attribute more may hide one of a base."""
        bases = [class_label(base) for base in cls.__bases__]
        lasting = [
            (key, kind)
            for key, kind in sorted(members.items())
            if kind or not ((id(cls), key) in self._changed or key in self._touched)
        ]
        self._add(f"class {class_label(cls)}", digest(repr((bases, lasting))))

    def _add(self, name: str, text: str) -> None:
        self._code.setdefault(name, set()).add(text)

    # Values, the attributes of the user's objects one by one.

    def named(self, name: str, value: Any, level: int = 0) -> None:
        """Take a value into the fingerprint under a name."""
        if level > _NAMED_DEEP or len(self._values) > _NAMED_MANY:
            self._values[name] = self.text(value)
        elif isinstance(value, FunctionType):
            self._named_once(name, value, level, self._named_function)
        elif isinstance(value, MethodType) and not isinstance(value.__self__, type):
            self.reach(value.__func__)
            self.named(name, value.__self__, level)
            self._values[name] = f"method {objects.code_name(value.__func__)} of {self._values[name]}"
        elif isinstance(value, functools.partial):
            self.named(name, value.func, level)
            self._values[name] = f"partial of {self._values[name]}"
            for key, item in [*enumerate(value.args), *sorted(value.keywords.items())]:
                self.named(f"{name}(argument {key})", item, level + 1)
        elif _is_walked(value):
            self._named_once(name, value, level, self._named_object)
        else:
            self._values[name] = self.text(value)
            inner = objects.wrapped(value)
            if inner is not None:
                self._named_once(name, inner, level, self._named_function)
                self._values[name] = objects.code_name(value)

    def _named_once(self, name: str, value: Any, level: int, how: Callable[[str, Any, int], None]) -> None:
        if id(value) in self._first_names:
            self._values[name] = f"the same as {self._first_names[id(value)]}"
        else:
            self._first_names[id(value)] = name
            self.keep(value)
            how(name, value, level)

    def _named_object(self, name: str, value: Any, level: int) -> None:
        cls = type(value)
        is_ours = is_our_class(cls)
        self._values[name] = cls.__qualname__ if is_ours else class_in_values(cls)
        self.reach(cls)
        for path in getattr(value, "code_files", ()) if is_ours else ():
            self._add(f"program {os.path.basename(path)}", file_digest(path))
        try:
            own = self.text(value) if isinstance(value, np.ndarray) else self.own_content(value)
            state = objects.state_of_ours(value) if is_ours else objects.state(value)
        except Exception:  # of the user's __getstate__
            return
        self.keep(state)
        self._values[name] += shortened(value, own or "")
        if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
            self._values[name] += f"({self.text(state)})"
            return
        for key in sorted(state):
            self.named(f"{name}.{key}", state[key], level + 1)

    def _named_function(self, name: str, function: FunctionType, level: int) -> None:
        by_name = is_importable(function)
        self.reach(function, None, by_name)
        self._values[name] = objects.code_name(function)
        if not by_name:
            filled = facts(function.__code__).filled
            for kind, part, value in objects.function_parts(function):
                if kind == "closure" and part in filled:
                    self._values[f"{name}({kind} {part})"] = f"{type(value).__qualname__} that the code fills"
                else:
                    self.named(f"{name}({kind} {part})", value, level + 1)
        self._named_attributes(name, function, level)

    def _named_attributes(self, name: str, function: FunctionType, level: int) -> None:
        for key, value in sorted(function.__dict__.items()) if is_users_function(function) else ():
            if not key.startswith("__"):
                self.named(f"{name}.{key}", value, level + 1)

    # What values hand on.

    def reach(self, value: Any, name: str | None = None, by_name: bool = True) -> None:
        """Take the code of a function or class into the fingerprint, under another name than its own."""
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, FunctionType):
            self._todo.append(lambda: self._visit_function(value, name or function_label(value), by_name))
        elif isinstance(value, type) and is_users_class(value):
            self._todo.append(lambda: self._visit_class(value))

    def library(self, path: Any) -> None:
        """Take a compiled library into the fingerprint, if it is the user's."""
        if isinstance(path, str) and os.path.isfile(path) and is_users_library(path):
            with contextlib.suppress(OSError):
                self._add(f"library {os.path.basename(path)}", file_digest(path))

    def module(self, module: ModuleType) -> None:
        """Take what reachable code names of a module into the fingerprint."""
        if is_users_module(module) and not any(module is other for other in self._modules):
            self._modules.append(module)

    # Functions.

    def _visit_function(self, function: FunctionType, name: str, by_name: bool) -> None:
        parts = list(objects.function_parts(function))
        held = [value for _, _, value in parts]
        for value in [*held, *function.__dict__.values()]:
            self._reach_inside(value)
        is_users = is_users_function(function)
        if not is_users and not any(map(_leads_to_user, held)):
            return
        found = facts(function.__code__)
        cells = objects.cells(function)
        self._assigned |= {(id(cells[cell]), cell) for cell in found.rebound & cells.keys()}
        if is_users:
            self._add(f"function {name}", found.digest)
            self._visit_facts(found, function.__globals__)
            for value in held:
                if isinstance(value, ModuleType):
                    self._visit_module(value, tuple(found.names))
        if by_name:
            self._visit_parts(function, name, parts, is_users)

    def _visit_parts(
        self, function: FunctionType, name: str, parts: list[tuple[str, str, Any]], is_users: bool
    ) -> None:
        """Defaults and closure of what a worker has by its own import: they are code to it.

        Of others' wrappers only what cannot change: the rest is their own affair.
        """
        cells = objects.cells(function)
        for kind, part, value in parts:
            if source.is_constant(value):
                key = (id(cells[part] if kind == "closure" else function), part)
                self._described.append((key, f"{kind} {name}({part})", self.text(value)))
            elif is_users and not isinstance(value, FunctionType | type | ModuleType):
                self.named(f"{name}({kind} {part})", value)
        if id(function) not in self._first_names:
            self._named_attributes(name, function, 0)

    def _reach_inside(self, value: Any) -> None:
        for inner in objects.code_inside(value):
            self.reach(inner)

    def _visit_facts(self, found: Facts, where: dict[str, Any]) -> None:
        self._names |= found.names
        self._touched |= found.touched
        names = tuple(found.names)
        self._assigned |= {(id(where), name) for name in found.assigned}
        for origin in found.changed:
            self._note_change(where, origin)
        for name in found.reads:
            if name in where:
                self._visit_global(where, name, names)
        for statement in found.imports:
            self._visit_import(statement, where.get("__package__"), names)

    def _note_change(self, where: dict[str, Any], origin: Origin) -> None:
        """`CACHE`, `helper.CACHE`, `Model.calls`: the first on the way that is a value."""
        for name, later in zip(origin, [*origin[1:], None], strict=True):
            value = where.get(name)
            if isinstance(value, ModuleType) and later:
                where = namespace(value)
            elif isinstance(value, type):
                owner = next((base for base in value.__mro__ if later in vars(base)), value)
                self._changed.add((id(owner), str(later)))
                return
            else:
                if not isinstance(value, ModuleType | FunctionType):  # numpy.add is no list
                    self._changed.add((id(where), name))
                return

    # Globals, and attributes of classes, which are much the same.

    def _visit_global(self, where: dict[str, Any], name: str, names: Names) -> None:
        value, key = where[name], (id(where), name)
        if name in _OF_EVERY_MODULE:
            return
        if isinstance(value, ModuleType):
            self._visit_module(value, names)
        if key not in self._seen:
            self._seen[key] = where
            file = where.get("__file__")
            folder = os.path.dirname(file) if isinstance(file, str) else ""
            self._visit_value(key, label(where.get("__name__"), name), value, folder)

    def _visit_value(self, key: Key, name: str, value: Any, folder: str = "") -> None:
        if isinstance(value, ModuleType):
            text = str(namespace(value).get("__name__"))
            if text.rpartition(".")[2] != name.rpartition(".")[2]:
                self._described.append((key, f"global {name}", f"module {text}"))
        elif isinstance(value, FunctionType | type) or (objects.wrapped(value) and not _is_walked(value)):
            self._reach_inside(value)
            self._bind(key, name, value)
        else:
            self._reads.append(lambda: self._describe(key, f"global {name}", value, folder))

    def _bind(self, key: Key, name: str, value: Any) -> None:
        """What a name stands for, where it is not what it says."""
        text = objects.code_name(value)
        if text not in (f"function {name}", f"class {name}"):
            self._described.append((key, f"global {name}", text))

    def _describe(self, key: Key, name: str, value: Any, folder: str) -> None:
        if key in self._assigned:
            return
        if _is_walked(value) and not is_dataclass(value) and not isinstance(value, _PLAIN):
            self.named(name, value)
            return
        self.folder, before = folder if folder.count("/") > 1 else "", self.impure
        text = self.text(value)
        self.folder = ""
        if self.impure > before or (key in self._changed and is_dataclass(value)):
            self._values[name] = text
        else:
            self._described.append((key, name, text))

    # Modules and classes.

    def _visit_module(self, module: ModuleType, names: Names) -> None:
        where = namespace(module)
        if not where and (holder := objects.holder(module)):  # a library of cffi
            module, where = sys.modules[holder], namespace(sys.modules[holder])
        if (id(module), names) in self._seen or not is_users_module(module):
            return
        self._seen[id(module), names] = module
        if not is_loaded(module):
            self._visit_unimported(str(where.get("__name__")), names)
        elif is_compiled(where.get("__file__")):
            self.library(where["__file__"])
        else:
            for name in names:
                if name in where:
                    self._visit_global(where, name, names)

    def _visit_class(self, cls: type) -> None:
        name = class_label(cls)
        members = {}
        for key, value in vars(cls).copy().items():
            inner = [] if key in _WITHOUT_CODE else objects.code_inside(value)
            if any(map(_leads_to_user, inner)):
                members[key] = type(value).__name__
                for part in inner:
                    self._visit_member(cls, key, part)
            elif _is_value_of_class(cls, key, value):
                members[key] = ""
                self._visit_value((id(cls), key), f"{name}.{key}", value)
        if issubclass(cls, enum.Enum):
            for key, member in cls.__members__.items():
                members[key] = "member"
                self._add(f"global {name}.{key}", self.text(member._value_))
        for base in (*cls.__mro__[1:], type(cls)):
            self.reach(base)
        self._classes.append((cls, members))

    def _visit_member(self, cls: type, key: str, part: FunctionType | type) -> None:
        name = f"{class_label(cls)}.{key}"
        if isinstance(part, FunctionType) and _is_generated(cls, key, part):
            self.reach(part, name)
        else:
            self.reach(part)
            self._bind((id(cls), key), name, part)

    # Modules that functions import when they run.

    def _visit_import(
        self, statement: Import, package: Any, names: Names, attribute: str | None = None
    ) -> None:
        """Ask a module for names; if it is imported for one attribute, for that alone.

        The attribute may be a module itself, inside of a package: that is asked for the names.
        """
        module = statement.module
        if statement.level:
            try:
                module = importlib.util.resolve_name("." * statement.level + module, package or "")
            except ImportError:
                return
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            self._visit_module_named(".".join(parts[:i]), (attribute,) if attribute else names)
        parent = sys.modules.get(module)
        for name in statement.names:
            if not (isinstance(parent, ModuleType) and is_loaded(parent) and name in namespace(parent)):
                self._visit_module_named(f"{module}.{name}", names)

    def _visit_module_named(self, name: str, names: Names) -> None:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and is_loaded(module):
            self._visit_module(module, names)
        elif name.partition(".")[0] not in sys.stdlib_module_names:
            self._visit_unimported(name, names)

    def _visit_unimported(self, name: str, names: Names) -> None:
        spec = source.find_spec(name)
        if spec is None or not isinstance(spec.origin, str) or is_installed(spec.origin):
            return
        if is_compiled(spec.origin):
            self.library(spec.origin)
        text = source.read(spec)
        if text is not None:
            for asked in names:
                self._visit_text(text, asked, names)

    def _visit_text(self, text: source.Source, name: str, names: Names) -> None:
        """What a name stands for in a module that was read; waits in the queue if it is a function."""
        if name in text.imports:
            self._visit_text_import(text, name, names)
        if (text.path, name) in self._seen:
            return
        self._seen[text.path, name] = text
        if name in text.bases:
            for base in text.bases[name]:
                self._visit_text(text, base, names)
        for inner in text.codes:
            if inner == name or (name in text.bases and inner.startswith(f"{name}.")):
                self._todo.append(functools.partial(self._visit_text_function, text, inner))
        if name in text.constants:
            key, value = (text.path, name), self.text(text.constants[name])
            self._described.append((key, f"global {label(text.module, name)}", value))

    def _visit_text_import(self, text: source.Source, name: str, names: Names) -> None:
        statement, attribute = text.imports[name]
        if (text.path, name, names) not in self._seen:
            self._seen[text.path, name, names] = text
            self._visit_import(statement, text.package, names, attribute)

    def _visit_text_function(self, text: source.Source, name: str) -> None:
        found, full = facts(text.codes[name]), label(text.module, name)
        self._add(f"function {full}", found.digest)
        for part, value in text.defaults.get(name, {}).items():
            self._add(f"default {full}({part})", self.text(value))
        self._assigned |= {(text.path, assigned) for assigned in found.assigned}
        self._changed |= {(text.path, origin[0]) for origin in found.changed}
        self._names |= found.names
        names = tuple(found.names)
        for read in found.reads:
            self._visit_text(text, read, names)
        for statement in found.imports:
            self._visit_import(statement, text.package, names)


def _is_walked(value: Any) -> bool:
    """Whether it is an object described by its attributes: of the user's, or none that ours describe."""
    cls = type(value)
    if isinstance(value, type | FunctionType | enum.Enum) or objects.is_opaque(cls):
        return False
    return is_users_class(cls) or (is_our_class(cls) and not is_dataclass(value))


def _is_value_of_class(cls: type, key: str, value: Any) -> bool:
    """Whether an attribute is a value, and neither Python's own nor a descriptor."""
    if key.startswith("__") or key == "_abc_impl" or issubclass(cls, enum.Enum):
        return False
    return is_users_class(type(value)) or not hasattr(type(value), "__get__")


def _is_generated(cls: type, key: str, function: FunctionType) -> bool:
    """Whether `dataclass` or its kin made it, which give those of all classes one name."""
    code = function.__code__
    is_named_so = key.startswith("__") and code.co_name in (key, "<lambda>")
    return is_named_so and not code.co_qualname.startswith(f"{cls.__qualname__}.")


def _leads_to_user(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return is_users_function(value)
    return is_users_class(value) if isinstance(value, type) else _is_walked(value)
