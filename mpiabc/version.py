"""The version of mpiabc, and what else must agree between the processes of a run, and from start to resume.

Version strings are reported, not judged: what must agree has numbers of its own, so that two checkouts of one
version are distinguished, and a new patch of NumPy keeps nobody from going on.
"""

import platform
import re
from contextlib import suppress
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np

__version__ = "0.1.0"

#: Raised with every change of what travels between a leading process and its workers.
PROTOCOL = 7

#: Raised with every change of a draw or a weight: runs of other numbers are not continued.
STREAMS = 2


def versions() -> dict[str, Any]:
    """What a leading process and its workers tell each other."""
    python = ".".join(platform.python_version_tuple()[:2])
    known = {"mpiabc": __version__, "Python": python, "NumPy": np.__version__, "SciPy": _scipy()}
    return known | {"protocol": PROTOCOL, "streams": STREAMS}


@cache
def _scipy() -> str:
    """Without importing it, or what reads the metadata of packages: each takes a while."""
    spec = util.find_spec("scipy")
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        with suppress(OSError):
            if found := re.search(r'^version = "(.+)"', (Path(folder) / "version.py").read_text(), re.M):
                return found[1]
    return "none" if spec is None else import_module("scipy").__version__


def version_difference(theirs: Any) -> str:
    """In words, what differs from `versions()` here so that they cannot work together; empty if nothing does.

    Problems travel as bytecode, so that Python's minor version is among it.
    """
    theirs = theirs if isinstance(theirs, dict) else {}
    differing = [name for name in ("protocol", "streams", "Python") if theirs.get(name) != versions()[name]]
    if {"protocol", "streams"} & set(differing):
        differing.insert(0, "mpiabc")
    return _in_words(differing, theirs)


def digit_difference(theirs: Any) -> str:
    """In words, which libraries differ so that digests may differ in the last bit; empty if none does."""
    mine = versions()
    known = theirs if isinstance(theirs, dict) else {}
    names = [name for name in ("NumPy", "SciPy") if known.get(name)]
    return _in_words([name for name in names if _minor(known[name]) != _minor(mine[name])], known)


def _minor(version: Any) -> list[str]:
    return str(version).split(".")[:2]


def _in_words(names: list[str], theirs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {theirs.get(name)} there, {versions()[name]} here" for name in names)
