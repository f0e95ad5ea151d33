"""What can go wrong, as a tree.

Error
 ├── ProblemError      the problem or the settings cannot be run as given (also a ValueError)
 ├── SimulatorError    an evaluation failed; the message holds its address and the remote traceback
 ├── SchedulerError    workers could not be started, reached, or kept
 └── StoreError        the run's file cannot be used

Interrupted           a SystemExit with status 75: stopped early, all is safe, run the same command again
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpiabc.records import Failure


_MOST_TEXT = 2000  # characters
_RESUMABLE = "75"  # EX_TEMPFAIL of sysexits.h


class Error(Exception):
    """Base of every error that mpiabc raises on purpose."""


class ProblemError(Error, ValueError):
    """The problem or the settings cannot be run as given."""


class SimulatorError(Error):
    """An evaluation failed and `on_error` says that this ends the run; `failure` is its record."""

    def __init__(self, told: str, failure: "Failure | None" = None) -> None:
        super().__init__(told)
        self.failure = failure


class SchedulerError(Error):
    """Workers could not be started, reached, or kept."""


class StoreError(Error):
    """The run's file cannot be read, written, or continued."""


def text_of(error: BaseException) -> str:
    """What somebody's exception says, in a length that can be read."""
    try:
        return shortened(str(error))
    except BaseException as another:
        return f"(its text cannot be had: {type(another).__name__})"


def shortened(text: str) -> str:
    """The two ends of a text that is longer than can be read."""
    left_out = len(text) - _MOST_TEXT
    if left_out <= 0:
        return text
    return f"{text[: _MOST_TEXT // 2]} ... ({left_out} characters more) ... {text[-_MOST_TEXT // 2 :]}"


class Interrupted(SystemExit):
    """The run was stopped by a signal or its walltime; the same command continues it.

    Its code is `resumable_status()`, unless another one is given.
    """

    code: int

    def __init__(self, why: str = "interrupted", code: int | None = None) -> None:
        super().__init__(resumable_status() if code is None else code)
        self.why = why

    def __str__(self) -> str:
        return f"{self.why}; run the same command again to continue"


def resumable_status() -> int:
    """75, or what MPIABC_RESUMABLE_STATUS says: SGE runs a job again that ends with 99.

    Raises ProblemError for what is no exit status, or one that means something else.
    """
    text = os.environ.get("MPIABC_RESUMABLE_STATUS") or _RESUMABLE
    if not (text.isdecimal() and 2 < int(text) < 126):
        raise ProblemError(
            f"MPIABC_RESUMABLE_STATUS={text!r}: give an exit status from 3 to 125, or unset it"
        )
    return int(text)
