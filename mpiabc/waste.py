"""What batches simulate in vain: rows beyond the cut, and rows that repeat another one."""

from dataclasses import dataclass

import numpy as np

from mpiabc.streams import BLOCK


@dataclass(frozen=True)
class Use:
    """What one generation needed: ids in one line, or, under static scheduling, the tries of each slot."""

    needed: int  # simulations
    ids: int = 0
    tries: np.ndarray | None = None

    def simulated(self, batch: int) -> int:
        """Rows that calls of so many simulate for it."""
        if self.tries is None:
            return -(-self.ids // batch) * batch
        rounds = np.maximum.reduceat(self.tries, np.arange(0, len(self.tries), batch))
        return int(rounds.sum()) * batch


def static_use(needed: int, ids: np.ndarray, stride: int) -> Use:
    """Of a generation under static scheduling, by the ids that were accepted."""
    order = np.argsort(ids % stride)
    return Use(needed, tries=ids[order] // stride + 1)


def note(batch: int, uses: list[Use], models: int = 1) -> str | None:
    """What to tell of a run that simulated more than half of its rows in vain; None for one that did not.

    Of several models each is simulated in calls of its own, of so many rows.
    """
    needed = sum(use.needed for use in uses)
    if not needed or not _wastes(batch, uses, needed):
        return None
    simulated = models * sum(use.simulated(batch) for use in uses)
    text = (
        f"batch={batch} simulates {simulated} rows where {needed} are needed: the others lie beyond the "
        "evaluations that count, or outside of the prior's support"
    )
    better = _largest(batch, uses, needed)
    if better is None:
        return f"{text}; smaller batches would waste over half, too"
    return f"{text}; batch={better} would waste less than half, in a new run"


def _largest(batch: int, uses: list[Use], needed: int) -> int | None:
    """The largest batch below, of a power of two of blocks, that wastes at most half."""
    powers = (BLOCK << k for k in reversed(range((batch // BLOCK).bit_length())))
    return next((size for size in powers if size < batch and not _wastes(size, uses, needed)), None)


def _wastes(batch: int, uses: list[Use], needed: int) -> bool:
    return sum(use.simulated(batch) for use in uses) > 2 * needed
