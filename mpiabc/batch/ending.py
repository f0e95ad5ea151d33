"""Why a task of an array job has ended, and what is listed of one that has not."""

from dataclasses import dataclass
from enum import Enum

Listed = tuple[str, int, str]  # job, index, and "waits", "runs", "ends", "deleted" or "error"


class Why(Enum):
    """Why a task has ended that has left no result."""

    CANCELLED = "was cancelled"
    TIME = "was ended at its time limit"
    MEMORY = "was ended at its memory limit"
    LOST = "has ended without a result"


@dataclass(frozen=True)
class Ending:
    """Why a task has ended, and how the batch system puts it."""

    why: Why
    details: str
