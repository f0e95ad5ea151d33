"""Modules that functions import when they run, and that nobody has imported yet: read, never executed."""

import ast
import functools
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from mpiabc.fingerprint.bytecode import OPTIMIZED, Import
from mpiabc.fingerprint.places import namespace

CONSTANTS = (int, float, bool, complex, str, bytes, type(None))
_NONE = object()  # no literal


@dataclass
class Source:
    """What the text of a module says."""

    module: str
    package: str
    path: str
    codes: dict[str, CodeType]  # of functions, by qualified name
    bases: dict[str, list[str]]  # of classes
    imports: dict[str, tuple[Import, str | None]]  # name -> module, and the attribute of it
    constants: dict[str, Any]
    defaults: dict[str, dict[str, Any]]  # of arguments of functions


def is_constant(value: Any) -> bool:
    """Whether it is plain and cannot change."""
    if type(value) in (tuple, frozenset):
        return all(map(is_constant, value))
    return type(value) in CONSTANTS


def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Where it would be imported from, without importing its parents; None where that is not known."""
    parent = name.rpartition(".")[0]
    try:
        if name in sys.modules:
            return namespace(sys.modules[name]).get("__spec__")
        if not parent:
            return importlib.util.find_spec(name)
        if isinstance(sys.modules.get(parent), ModuleType):
            folders = namespace(sys.modules[parent]).get("__path__")
        else:
            above = find_spec(parent)
            folders = above.submodule_search_locations if above else None
        return importlib.machinery.PathFinder.find_spec(name, folders) if folders else None
    except (ImportError, AttributeError, ValueError):
        return None


def read(spec: importlib.machinery.ModuleSpec) -> Source | None:
    """What its file says; None where there is no text."""
    if not (isinstance(spec.origin, str) and spec.origin.endswith(".py") and os.path.isfile(spec.origin)):
        return None
    is_package = spec.submodule_search_locations is not None
    return _read(spec.name, spec.origin, is_package, os.stat(spec.origin).st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(name: str, path: str, is_package: bool, modified: int) -> Source | None:
    try:
        text = Path(path).read_bytes()
        tree, code = ast.parse(text), compile(text, path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return None
    statements = list(_statements(tree.body))
    classes = [node for node in statements if isinstance(node, ast.ClassDef)]
    return Source(
        module=name,
        package=name if is_package else name.rpartition(".")[0],
        path=path,
        codes=_once(_functions(code)),
        bases={node.name: [base.id for base in node.bases if isinstance(base, ast.Name)] for node in classes},
        imports=_once(pair for node in statements for pair in _imports(node)),
        constants=_constants(tree, statements),
        defaults=dict(_defaults(statements)),
    )


def _statements(body: list[Any]) -> Iterator[ast.stmt]:
    """Those that run at import, in `if`, `try` and `with` too."""
    for node in body:
        if isinstance(node, ast.stmt):
            yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            for field in ("body", "handlers", "orelse", "finalbody"):
                yield from _statements(getattr(node, field, []))


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The names that are given once: which of several holds is known only to those who run it."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _functions(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_flags & OPTIMIZED:
            yield constant.co_qualname, constant
        elif isinstance(constant, CodeType):
            yield from _functions(constant)


def _imports(node: ast.stmt) -> Iterator[tuple[str, tuple[Import, str | None]]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or name, (Import(0, alias.name, ()), None)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            found = Import(node.level, node.module or "", (alias.name,))
            yield alias.asname or alias.name, (found, alias.name)


def _literal(node: Any) -> Any:
    try:
        value = ast.literal_eval(node) if isinstance(node, ast.expr) else _NONE
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _NONE
    return value if is_constant(value) else _NONE


def _constants(tree: ast.Module, statements: list[ast.stmt]) -> dict[str, Any]:
    """`K = 3`, where nothing else in the file assigns a K."""
    stored = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
    found = {}
    for node in statements:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_plain = isinstance(node, ast.Assign | ast.AnnAssign) and len(targets) == 1
        if is_plain and isinstance(targets[0], ast.Name) and stored.count(targets[0].id) == 1:
            found[targets[0].id] = _literal(getattr(node, "value", None))
    return _known(found)


def _defaults(statements: Iterable[ast.stmt], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for node in statements:
        if isinstance(node, ast.ClassDef):
            yield from _defaults(node.body, f"{above}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args]
            late = positional[len(positional) - len(node.args.defaults) :]
            values = [*node.args.defaults, *node.args.kw_defaults]
            pairs = zip([*late, *node.args.kwonlyargs], values, strict=True)
            yield f"{above}{node.name}", _known({arg.arg: _literal(value) for arg, value in pairs})


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not _NONE}
