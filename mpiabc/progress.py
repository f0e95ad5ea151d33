"""What a user sees while a run is going on: a live line on a terminal, a log line a generation."""

import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

from mpiabc.driver import Committed, Event, Noted, Progressed

_log = logging.getLogger(__name__)


class Line:
    """The live line; `is_live=None` means: if the stream is a terminal."""

    def __init__(self, is_live: bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_live = self._stream.isatty() if is_live is None else is_live
        self._width = 0

    def __call__(self, event: Event) -> None:
        """Show how far the run is; leave the terminal clean for all else."""
        line = told(event) if isinstance(event, Progressed) else ""
        if self._is_live and (line or self._width):
            self._stream.write(f"\r{line:<{self._width}}" + ("" if line else "\r"))
            self._stream.flush()
            self._width = len(line)


def logged(path: str | os.PathLike[str]) -> Callable[[Event], None]:
    """What logs the events of the run in this file."""

    def log(event: Event) -> None:
        if isinstance(event, Noted):
            _log.warning("%s: %s", path, event.note)
        if isinstance(event, Committed):
            population = event.population
            _log.info(
                "generation %d: epsilon %.6g, %d of %d accepted (%.3g)%s, ess %.0f, %s, "
                "workers simulated %.0f %% of it",
                population.generation,
                population.epsilon,
                population.accepted,
                population.evaluations,
                population.acceptance_rate,
                f" and {recycled} recycled" if (recycled := len(population) - population.accepted) else "",
                population.ess,
                duration(population.seconds),
                100 * event.share,
            )

    return log


def told(event: Progressed) -> str:
    """How far a generation is, on one line."""
    left = "" if event.seconds_left is None else f", {duration(event.seconds_left)} left"
    return (
        f"generation {event.level}, epsilon {event.epsilon:.4g}: {event.accepted}/{event.size} accepted, "
        f"{event.rate:.3g} simulations/s, {event.busy}/{event.workers} busy{left}"
    )


def duration(seconds: float) -> str:
    """A time, as people say it."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
