"""Whether anything in a Python file makes use of its Problem: judged by its text, of which nothing is run."""

import ast
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TypeGuard

_PROBLEM, _SAMPLERS = "Problem", frozenset({"ABCSMC", "ABCAMIS"})
_RUNNING = frozenset({"run", "sample"})  # methods of a sampler


class Unrun(StrEnum):
    """What a file makes at its top level, and leaves at that: as a script it does nothing."""

    PROBLEM = "a Problem"
    SAMPLER = "a sampler"


def unrun(path: Path) -> Unrun | None:
    """What the file makes and never uses; None where something may run it, or where it cannot be read.

    Whatever reads the Problem or its sampler, in a function too, may run it.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    makers = {_PROBLEM} | _functions_that_make(tree)
    made = list(_made(tree, makers))
    names = {name for name, _ in made}
    inside = {id(node) for _, value in made for node in ast.walk(value)}
    read = {node.id for node in ast.walk(tree) if _is_read(node) and id(node) not in inside}
    if not made or read & names:
        return None
    called = {_called(node) for _, value in made for node in ast.walk(value)}
    return Unrun.SAMPLER if called & _SAMPLERS else Unrun.PROBLEM


def _functions_that_make(tree: ast.Module) -> set[str]:
    """The file's functions in which a Problem is made, and nothing run: what they return may be one."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    called = {f.name: {_called(node) for node in ast.walk(f)} for f in functions}
    return {name for name, calls in called.items() if _PROBLEM in calls and not calls & _RUNNING}


def _made(tree: ast.Module, makers: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """The names that have a Problem, a sampler or a list of them at the top level, with their values."""
    known: set[str] = set()
    for statement in tree.body:
        targets, value = _assigned(statement)
        if value is not None and _is_made(value, makers, known):
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            known |= names
            yield from ((name, value) for name in names)


def _assigned(statement: ast.stmt) -> tuple[list[ast.expr], ast.expr | None]:
    if isinstance(statement, ast.Assign):
        return statement.targets, statement.value
    if isinstance(statement, ast.AnnAssign):
        return [statement.target], statement.value
    return [], None


def _is_made(value: ast.expr, makers: set[str], known: set[str]) -> bool:
    """Whether it is a Problem, a sampler of one, or several of them."""
    if isinstance(value, ast.List | ast.Tuple):
        return any(_is_made(part, makers, known) for part in value.elts)
    is_known = isinstance(value, ast.Name) and value.id in known
    return is_known or _called(value) in makers | _SAMPLERS


def _called(node: ast.AST) -> str | None:
    """The last name of what is called, such as Problem of `mpiabc.Problem(...)`."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
    return None


def _is_read(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
