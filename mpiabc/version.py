"""The version of mpiabc, and what else must agree between the processes of a run."""

import platform
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """What must agree between a leading process and its workers for equal digests."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"mpiabc": __version__, "Python": python, "NumPy": np.__version__, "SciPy": _scipy()}


@cache
def _scipy() -> str:
    """Without importing it, which takes a while."""
    try:
        return metadata.version("scipy")
    except metadata.PackageNotFoundError:
        return "none"


def version_difference(theirs: Any) -> str:
    """In words, what differs from `versions()` here; empty if nothing does."""
    theirs = theirs if isinstance(theirs, dict) else {}
    return ", ".join(
        f"{name} {theirs.get(name)} there, {version} here"
        for name, version in versions().items()
        if theirs.get(name) != version
    )
