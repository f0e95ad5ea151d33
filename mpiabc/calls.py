"""Whether a part of a user's own has the method that is called, and whether that takes what it is given."""

import inspect
from contextlib import suppress
from typing import Any

from mpiabc.errors import ProblemError


def is_ours(part: Any) -> bool:
    """Whether a part is of this package, which has tests for what others are asked."""
    return str(getattr(part, "__module__", "")).partition(".")[0] == "mpiabc"


def name_of(part: Any) -> str:
    """The class of a part, or the name of a function."""
    own = getattr(part, "__qualname__", None)
    name = own if isinstance(own, str) else type(part).__qualname__  # an object may answer to any name
    return name.rpartition("<locals>.")[2]


def check(what: str, part: Any, method: str, form: str, expected: str = "") -> None:
    """Raise ProblemError for a part without this method, or with one that does not take these arguments.

    form: names of arguments, "n, rng"; with = those that are given by name, "size=, random_state=". expected:
    how the method may be written, if not as `form` says.
    """
    is_plain = isinstance(part, bool | int | float | str)
    who = f"{what}={part!r}" if is_plain else f"the {what} {name_of(part)}"
    expected = expected or f"{method}({form})"
    found = getattr(part, method, None)
    if not callable(found):
        has = f"no method {method}" if found is None else f"{method} = {found!r}, which cannot be called"
        raise ProblemError(f"{who} has {has}, expected {expected}")
    _check_form(f"{who} has {method}", found, form, expected)


def check_function(what: str, function: Any, form: str) -> None:
    """Raise ProblemError for a callable that does not take these arguments."""
    _check_form(f"the {what} is {name_of(function)}", function, form, f"({form})")


def _check_form(said: str, function: Any, form: str, expected: str) -> None:
    known, names = signatures(function), form.split(", ")
    if known and not any(_takes(signature, names) for signature in known):
        raise ProblemError(f"{said}{_plain(known[-1])}, expected {expected}")


def signatures(function: Any) -> list[inspect.Signature]:
    """That of what a function wraps, and its own, as a decorator may take others; none of some builtins."""
    known = []
    for does_follow in (True, False):
        with suppress(TypeError, ValueError):
            known.append(inspect.signature(function, follow_wrapped=does_follow))
    return known


def _takes(signature: inspect.Signature, names: list[str]) -> bool:
    given = {name.rstrip("="): None for name in names if name.endswith("=")}
    try:
        signature.bind(*(None for name in names if not name.endswith("=")), **given)
    except TypeError:
        return False
    return True


def _plain(signature: inspect.Signature) -> str:
    """The names of the arguments, without types."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))
