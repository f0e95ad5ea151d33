"""What can go wrong, as a tree.

Error
 ├── ProblemError      the problem or the settings cannot be run as given (also a ValueError)
 ├── SimulatorError    an evaluation failed; the message holds its address and the remote traceback
 ├── SchedulerError    workers could not be started, reached, or kept
 └── StoreError        the run's file cannot be used

Interrupted           a SystemExit with status 75: stopped early, all is safe, run the same command again;
                      in IPython, which warns of a SystemExit, it is none, and shown as one sentence
"""

import logging
import sys
from typing import TYPE_CHECKING

from mpiabc import environment

if TYPE_CHECKING:
    from mpiabc.records import Failure


def has_cells() -> bool:
    """Whether this process runs cells, as a notebook's kernel and IPython's shell; not in `ipython FILE`."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and getattr(shell.parent, "interact", True)


if TYPE_CHECKING or not has_cells():  # noqa: SIM108 (types are checked as in a script)
    _Stop = SystemExit
else:
    _Stop = BaseException


_MOST_TEXT = 2000  # characters
_RESUMABLE = "75"  # EX_TEMPFAIL of sysexits.h


class Error(Exception):
    """Base of every error that mpiabc raises on purpose."""


class ProblemError(Error, ValueError):
    """The problem or the settings cannot be run as given."""


class SimulatorError(Error):
    """An evaluation failed and `on_error` says that this ends the run; `failure` is its record."""

    def __init__(self, text: str, failure: "Failure | None" = None) -> None:
        super().__init__(text)
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


class Interrupted(_Stop):
    """The run was stopped by a signal or its walltime; the same command continues it.

    Its code is `resumable_status()`, unless another one is given. Where mpiabc is imported in IPython it is
    no SystemExit, and ends its cell with a sentence.
    """

    code: int

    def __init__(self, why: str = "interrupted", code: int | None = None) -> None:
        code = resumable_status() if code is None else code
        super().__init__(code)
        self.code, self.why, self.file = code, why, ""

    def __str__(self) -> str:
        again = "the same command" if isinstance(self, SystemExit) else "the cell"
        return f"{self.why}; run {again} again to continue"

    def tell(self, log: logging.Logger) -> None:
        """Say it, once: IPython shows it itself."""
        if isinstance(self, SystemExit):
            log.warning("%s", self._message())

    def _message(self) -> str:
        return f"{self.file}: {self}" if self.file else str(self)

    def _render_traceback_(self) -> list[str]:
        """As IPython shows it."""
        return [self._message()]


def resumable_status() -> int:
    """75, or what MPIABC_RESUMABLE_STATUS says: SGE runs a job again that ends with 99.

    Raises ProblemError for what is no exit status, or one that means something else.
    """
    text = environment.given(environment.RESUMABLE_STATUS) or _RESUMABLE
    if not (text.isdecimal() and 2 < int(text) < 126):
        raise ProblemError(
            f"{environment.RESUMABLE_STATUS}={text!r}: give an exit status from 3 to 125, or unset it"
        )
    return int(text)
