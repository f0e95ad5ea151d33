"""What a check is: a look at one thing, with a limit, and what a pure function says of what was seen."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mpiabc.analysis.diagnostics import Severity
from mpiabc.cli.doctor.launching import Launched, Launcher, Library, launchers, library

_PATIENCE = 20.0  # seconds


@dataclass(frozen=True)
class Place:
    """What is looked at: this machine, and the folder that runs are to be kept in; `clears` what is dead."""

    folder: Path
    clears: bool = False
    rank: Launched | None = None  # where the command itself is one of several ranks

    @cached_property
    def library(self) -> Library:
        """The MPI of mpi4py, asked once for all checks."""
        return library()

    @cached_property
    def launchers(self) -> tuple[Launcher, ...]:
        """What starts ranks, likewise."""
        return launchers()


@dataclass(frozen=True)
class Remark:
    """One sentence, or two: what was found, and what to do."""

    severity: Severity
    text: str


def problem(text: str) -> Remark:
    """Some runs will fail by it."""
    return Remark(Severity.PROBLEM, text)


def warning(text: str) -> Remark:
    """Runs go on, and not as well as they could."""
    return Remark(Severity.WARNING, text)


def note(text: str) -> Remark:
    """What is good to know."""
    return Remark(Severity.NOTE, text)


@dataclass(frozen=True)
class Seen:
    """What there is, in a few words, and what is to be said of it; nothing if all is well."""

    words: str
    remarks: tuple[Remark, ...] = ()

    @property
    def severity(self) -> Severity:
        """The worst of the remarks'."""
        worst_first = list(Severity)
        return min((each.severity for each in self.remarks), key=worst_first.index, default=Severity.GOOD)


@dataclass(frozen=True)
class Check:
    """One line of the table: `look` asks the machine, `judge` decides without it."""

    topic: str
    look: Callable[[Place], Any]
    judge: Callable[[Any], Seen]
    limit: float = _PATIENCE


def seen(check: Check, place: Place) -> Seen:
    """What a check finds; one that fails, or does not come to an end, says so and holds up no other."""
    found: list[Seen] = []
    thread = threading.Thread(target=lambda: found.append(_found(check, place)), daemon=True)
    thread.start()
    thread.join(check.limit)
    if found:
        return found[0]
    text = f"{check.topic}: no answer for {check.limit:.0f} s: what is asked (a disk, a server) hangs"
    return Seen("no answer", (problem(text),))


def _found(check: Check, place: Place) -> Seen:
    try:
        return check.judge(check.look(place))
    except Exception as error:
        text = f"{check.topic}: cannot be looked at here ({type(error).__name__}: {error})"
        return Seen("not known", (warning(text),))
