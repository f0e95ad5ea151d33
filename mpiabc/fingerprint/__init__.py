"""Fingerprint: what a user's parts are, as texts and digests that are equal in every process.

Two things are distinguished. **Code** is every function that is reached by global names from the parts,
in modules that belong to no installed distribution, with the plain values of the globals that it
reads. Workers compare it with the leader's: a module of theirs may be another one. **Values** are what
travels with the parts: attributes, closure cells, arguments of partials. A resumed run compares both.

Neither knows line numbers, texts of files, names of local variables, docstrings, or memory addresses;
nothing is imported and no property is asked. What reachable code itself assigns or fills (`global n`,
`CACHE[key] = value`, `SEEN.add(x)`) is state and part of neither.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mpiabc.fingerprint.walk import PYTHON, Walk


@dataclass(frozen=True)
class Fingerprint:
    """Names and texts of all code and values of a problem's parts.

    code: "function model.step" -> digest, "global model.K" -> value, "library libfast.so" -> digest.
    values: "simulate.k" -> value; short ones as they are, long ones as type, size and digest.
    """

    code: dict[str, str]
    values: dict[str, str]

    def to_json(self) -> str:
        """One line of text, the same for equal fingerprints."""
        return json.dumps({"code": self.code, "values": self.values}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """The fingerprint of that text; ValueError for what is none."""
        content = json.loads(text)
        parts = [content.get(key) for key in ("code", "values")] if isinstance(content, dict) else [None]
        if not all(map(_is_texts, parts)):
            raise ValueError(f"{text[:40]!r} is no fingerprint: expected JSON with its code and values")
        return cls(*parts)


def _is_texts(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(text, str) for text in part.values())


_CHANGED = "changed by evaluations"
_changed: dict[str, set[str]] = defaultdict(set)  # names of values, by the code of the first part


def note_changes(before: Fingerprint, after: Fingerprint) -> None:
    """What evaluations in this process have changed of a problem is state: it is not compared any more."""
    names = before.values.keys() | after.values.keys()
    changed = {name for name in names if before.values.get(name) != after.values.get(name)}
    if changed:
        _changed[_first(before.values)] |= changed


def _first(values: dict[str, str]) -> str:
    return next(iter(values.values()), "")


def fingerprint(**roots: Any) -> Fingerprint:
    """The fingerprint of parts under their names; a part that is None is left out.

    To be taken before the first evaluation: counters and caches belong to the values. Nothing is
    changed or imported, and no error of the parts' own is raised.
    """
    walk = Walk()
    for name, part in roots.items():
        if part is not None:
            walk.named(name, part)
    code, values = walk.finish()
    state = dict.fromkeys(_changed.get(_first(values), set()) & values.keys(), _CHANGED)
    return Fingerprint(code, values | state)


def code_differences(there: Fingerprint, here: Fingerprint) -> list[str]:
    """What differs in code that both sides know, as for a worker: "global model.K: 3 there, 4 here".

    What only one side has is not judged: it may have imported a module that the other has not.
    """
    both = sorted(there.code.keys() & here.code.keys())
    differing = [name for name in both if there.code[name] != here.code[name]]
    if PYTHON in differing:  # bytecode of two versions cannot be compared
        differing = [name for name in differing if not name.startswith("function ")]
    return [_difference(name, there.code, here.code) for name in differing]


def differences(there: Fingerprint, here: Fingerprint) -> list[str]:
    """What differs in code that both know, and in all values, as for a run that goes on."""
    names = sorted(there.values.keys() | here.values.keys())
    values = [
        _difference(name, there.values, here.values)
        for name in names
        if there.values.get(name) != here.values.get(name)
        and _CHANGED not in (there.values.get(name), here.values.get(name))
    ]
    return code_differences(there, here) + values


def _difference(name: str, there: dict[str, str], here: dict[str, str]) -> str:
    if name.startswith(("function ", "class ", "library ")):
        return name
    return f"{name}: {there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here"


def differing_parts(mine: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """The parts in which two problems differ; older files tell more of foreign parts than names."""
    return [
        name
        for name in mine
        if mine[name] != theirs.get(name) and not str(theirs.get(name)).startswith(f"{mine[name]}(")
    ]
