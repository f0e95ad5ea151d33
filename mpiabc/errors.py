"""What can go wrong, as a tree.

Error
 ├── ProblemError      the problem or the settings cannot be run as given (also a ValueError)
 ├── SimulatorError    an evaluation failed; the message holds its address and the remote traceback
 ├── SchedulerError    workers could not be started, reached, or kept
 └── StoreError        the run's file cannot be used

Interrupted           a SystemExit with status 75: stopped early, all is safe, run the same command again
"""

from mpiabc.records import Failure

RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h


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


class Interrupted(SystemExit):
    """The run was stopped by a signal or its walltime; the same command continues it."""

    def __init__(self, why: str = "interrupted") -> None:
        super().__init__(RESUMABLE)
        self.why = why

    def __str__(self) -> str:
        return f"{self.why}; run the same command again to continue"
