"""Programs that are asked something, each with a limit: none of them holds up the command."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from mpiabc import programs
from mpiabc.schedulers.mpi import launched_size

_LEAVES = 3.0  # seconds that a program has to put things in order when it is asked to end
_NOT_STARTED = 127

_running: set[int] = set()  # groups of processes: of a launcher, and what it starts through a shell


@dataclass(frozen=True)
class Answer:
    """What a program has said; its status is None if it was ended at the limit."""

    status: int | None
    said: str
    complaint: str = ""


def ask(words: Sequence[str], limit: float) -> Answer:
    """Run a program for at most so many seconds, as no rank of a job. Raises nothing."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env=dict(os.environ) if launched_size() == 1 else programs.environment(),
        )
    except OSError as error:
        return Answer(_NOT_STARTED, "", error.strerror or str(error))
    _running.add(process.pid)
    try:
        said, complaint = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return Answer(None, *_ended(process))
    finally:
        _running.discard(process.pid)
    return Answer(process.returncode, said, complaint)


def end_all() -> None:
    """End what is still asked, as when Ctrl-C has come."""
    for group in list(_running):
        _tell(group, signal.SIGTERM)


def _tell(group: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, what)


def _ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End it, and all below it; what it had said, unless somebody else still holds its pipes."""
    _tell(process.pid, signal.SIGTERM)  # a launcher then takes its folders with it
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=_LEAVES)
    programs.end(process.pid)
    _tell(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=_LEAVES)
    return "", ""
