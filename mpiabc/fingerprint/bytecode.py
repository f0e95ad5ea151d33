"""What a code object does, as a digest, and which names outside of it it reads and changes."""

import functools
import hashlib
import opcode
import sys
from _opcode import stack_effect
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType
from typing import Any, NamedTuple

OPTIMIZED = 0x01  # the flag of functions; bodies of classes and modules have it not

_OP = opcode.opmap
_EXTENDED = _OP["EXTENDED_ARG"]
_CONSTANTS = frozenset(opcode.hasconst)
_NAMES = frozenset(opcode.hasname)
_SHIFTS = {_OP["LOAD_GLOBAL"]: 1}  # bits of an argument below the index of a name
if sys.version_info >= (3, 12):
    _SHIFTS |= {_OP["LOAD_ATTR"]: 1, _OP["LOAD_SUPER_ATTR"]: 2}


def _ops(*names: str) -> frozenset[int]:
    return frozenset(_OP[name] for name in names if name in _OP)


_READS = _ops("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ASSIGNS = _ops("STORE_GLOBAL", "DELETE_GLOBAL")
_REBINDS = _ops("STORE_DEREF", "DELETE_DEREF")
_STORES_ITEM = _ops("STORE_SUBSCR", "DELETE_SUBSCR")
_STORES_SLICE = _ops("STORE_SLICE")
_STORES_ATTRIBUTE = _ops("STORE_ATTR", "DELETE_ATTR")
_STORES = _STORES_ITEM | _STORES_SLICE | _STORES_ATTRIBUTE
_LOADS_ATTRIBUTE = _ops("LOAD_ATTR", "LOAD_METHOD")
_LOADS_LOCAL = frozenset(number for name, number in _OP.items() if "LOAD_FAST" in name)
_LOADS_ONE = _ops("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK")
_LOADS_CELL = _ops("LOAD_DEREF", "LOAD_CLASSDEREF")
_LEAVES_THE_REST = _ops("PUSH_NULL", "POP_TOP", "STORE_FAST", "NOP", "RESUME", "PRECALL", "LOAD_CONST")
_STORE_NAME = _OP["STORE_NAME"]

_VARARGS, _VARKEYWORDS = 0x04, 0x08
_FLAGS = _VARARGS | _VARKEYWORDS | 0x20 | 0x80 | 0x100 | 0x200  # the others: generators and coroutines
_OF_BODIES_ONLY = frozenset({"__doc__", "__firstlineno__", "__static_attributes__"})
_ADDERS = ("add", "append", "appendleft", "extend", "extendleft", "insert", "setdefault", "update")
_REMOVERS = ("clear", "discard", "pop", "popitem", "popleft", "remove")
_MUTATORS = frozenset({*_ADDERS, *_REMOVERS, "fill", "put", "resize", "reverse", "sort"})

Origin = tuple[str, ...]  # ("helper", "CACHE"): where an object on the stack came from
_UNKNOWN: Origin = ("<unknown>",)
_LOCAL: Origin = ("<local>",)
_CELL = "<cell>"
_NOT_GLOBAL = frozenset({*_UNKNOWN, *_LOCAL, _CELL})


class Import(NamedTuple):
    """An import statement inside a function."""

    level: int  # dots of a relative one
    module: str
    names: tuple[str, ...]


@dataclass
class Facts:
    """What a code object is and touches, with those nested in it."""

    digest: str
    reads: dict[str, None]  # global names
    names: dict[str, None]  # all names: globals and attributes
    imports: list[Import]
    assigned: set[str]  # global names
    changed: set[Origin]  # what gets items, or is asked to change; with a last name more: attributes
    touched: set[str]  # attributes that are set on other things than local variables, or filled
    rebound: set[str]  # names of cells
    filled: set[str]  # names of cells whose content gets items, or is asked to change


def digest(content: str | bytes) -> str:
    """16 hexadecimal digits."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]


@functools.lru_cache(maxsize=2048)
def facts(code: CodeType) -> Facts:
    """The facts of a code object, not to be changed."""
    found = Facts(digest(_code_text(code)), {}, {}, [], set(), set(), set(), set(), set())
    _collect(code, found)
    return found


def _instructions(code: CodeType) -> list[tuple[int, int]]:
    """(operation, argument) without prefixes and caches."""
    raw, found, prefix = code.co_code, [], 0
    for op, low in zip(raw[::2], raw[1::2], strict=True):
        if op == _EXTENDED:
            prefix = (prefix | low) << 8
        elif op:
            found.append((op, prefix | low))
            prefix = 0
    return found


def _name(code: CodeType, op: int, argument: int) -> str:
    return code.co_names[argument >> _SHIFTS.get(op, 0)]


def _local_name(code: CodeType, index: int) -> str:
    """Of a local variable or a cell, as `dis` tells it."""
    return str(code._varname_from_oparg(index))  # type: ignore[attr-defined]


# --- the digest ---


def _code_text(code: CodeType) -> str:
    """All that decides what it does. Constants stand where they are used: docstrings shift indices."""
    is_function = bool(code.co_flags & OPTIMIZED)
    arguments = code.co_argcount + code.co_kwonlyargcount
    arguments += bool(code.co_flags & _VARARGS) + bool(code.co_flags & _VARKEYWORDS)
    head = (
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS),
        code.co_varnames[:arguments],
        code.co_freevars,
        code.co_names if is_function else (),
        code.co_exceptiontable,
    )
    return f"{head!r} {_function_text(code) if is_function else _body_text(code)}"


def _function_text(code: CodeType) -> str:
    constants = code.co_consts
    return " ".join(
        f"{op} {_constant_text(constants[argument]) if op in _CONSTANTS else argument}"
        for op, argument in _instructions(code)
    )


def _body_text(code: CodeType) -> str:
    """Of a class: docstring and line number are ordinary instructions there, and shift names too."""
    parts = []
    for (op, argument), (later, index) in pairwise([*_instructions(code), (0, 0)]):
        is_left_out = later == _STORE_NAME and code.co_names[index] in _OF_BODIES_ONLY
        is_left_out |= op == _STORE_NAME and code.co_names[argument] in _OF_BODIES_ONLY
        if is_left_out:
            continue
        if op in _CONSTANTS:
            parts.append(f"{op} {_constant_text(code.co_consts[argument])}")
        else:
            parts.append(f"{op} {_name(code, op, argument) if op in _NAMES else argument}")
    return " ".join(parts)


def _constant_text(constant: Any) -> str:
    if isinstance(constant, CodeType):
        return f"code({_code_text(constant)})"
    if isinstance(constant, tuple):
        return f"({','.join(map(_constant_text, constant))})"
    if isinstance(constant, frozenset):
        return f"{{{','.join(sorted(map(_constant_text, constant)))}}}"
    if isinstance(constant, slice):
        return f"slice{_constant_text((constant.start, constant.stop, constant.step))}"
    if type(constant) is int:
        return hex(constant)  # long ones are refused by repr
    return f"{type(constant).__name__} {constant!r}"


# --- what it reads and changes ---


def _collect(code: CodeType, found: Facts) -> None:
    instructions = _instructions(code)
    found.names |= dict.fromkeys(code.co_names)
    is_changing = not _MUTATORS.isdisjoint(code.co_names)
    for i, (op, argument) in enumerate(instructions):
        if op in _READS:
            found.reads[_name(code, op, argument)] = None
        elif op in _ASSIGNS:
            found.assigned.add(code.co_names[argument])
        elif op in _REBINDS:
            found.rebound.add(_local_name(code, argument))
        elif op == _OP["IMPORT_NAME"]:
            found.imports.append(_import(code, instructions, i))
        elif op in _STORES:
            is_changing = True
    if is_changing:
        _collect_changes(code, instructions, found)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, found)


def _import(code: CodeType, instructions: list[tuple[int, int]], i: int) -> Import:
    (op, level), (_, names) = instructions[i - 2 : i]
    level = code.co_consts[level] if op in _CONSTANTS else level
    return Import(level, code.co_names[instructions[i][1]], code.co_consts[names] or ())


def _collect_changes(code: CodeType, instructions: list[tuple[int, int]], found: Facts) -> None:
    """Which globals get items or attributes: follows along the stack where its objects came from.

    Straight on, as if there were no jumps; what it does not understand came from nowhere.
    """
    stack: list[Origin] = [_UNKNOWN] * 8
    for op, argument in instructions:
        top, second, third = ([_UNKNOWN, _UNKNOWN, _UNKNOWN, *stack][-place] for place in (1, 2, 3))
        if op in _STORES_ITEM:
            _note_filled(second, found)
        elif op in _STORES_SLICE:
            _note_filled(third, found)
        elif op in _LOADS_ATTRIBUTE and _name(code, op, argument) in _MUTATORS:
            _note_filled(top, found)
        elif op in _STORES_ATTRIBUTE and top != _LOCAL:
            found.touched.add(code.co_names[argument])
            if top[0] not in _NOT_GLOBAL:
                found.changed.add((*top, code.co_names[argument]))
        _move(code, op, argument, stack)


def _note_filled(origin: Origin, found: Facts) -> None:
    if origin[0] == _CELL:
        found.filled.add(origin[1])
        return
    if len(origin) > 1:
        found.touched.add(origin[-1])
    if origin[0] not in _NOT_GLOBAL:
        found.changed.add(origin)


def _move(code: CodeType, op: int, argument: int, stack: list[Origin]) -> None:
    """What one instruction does to the stack; for a call to come, some push an empty place as well."""
    effect = _effect(op, argument)
    if op == _OP["COPY"] and len(stack) >= argument:
        stack.append(stack[-argument])
    elif op == _OP["SWAP"] and len(stack) >= argument:
        stack[-1], stack[-argument] = stack[-argument], stack[-1]
    elif op == _OP["LOAD_GLOBAL"]:
        stack.extend([_UNKNOWN] * (effect - 1))
        stack.append((_name(code, op, argument),))
    elif op in _LOADS_CELL:
        stack.append((_CELL, _local_name(code, argument)))
    elif op in _LOADS_ATTRIBUTE and stack:
        stack[-1] = (*stack[-1], _name(code, op, argument))
        stack.extend([_UNKNOWN] * effect)
    elif op in _LOADS_LOCAL:
        is_class = op in _LOADS_ONE and _local_name(code, argument) == "cls"
        del stack[len(stack) - (effect == 0) :]  # it stores one and loads another
        stack.extend([_UNKNOWN if is_class else _LOCAL] * max(effect, 1))
    else:
        del stack[len(stack) + min(effect, 0) :]
        stack.extend([_UNKNOWN] * max(effect, 0))
        if op not in _LEAVES_THE_REST:
            stack[-1:] = [_UNKNOWN]


@functools.lru_cache(maxsize=4096)
def _effect(op: int, argument: int) -> int:
    try:
        return stack_effect(op, argument, jump=False)
    except ValueError:  # an operation without an argument
        return stack_effect(op, jump=False)
