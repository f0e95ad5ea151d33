"""What a user sees while a run is going on: a live line on a terminal, or below a notebook's cell.

Elsewhere it is a log line a generation.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

from mpiabc.driver import Committed, Event, Noted, Progressed, Said, Waited
from mpiabc.durations import duration
from mpiabc.population import short
from mpiabc.voice import is_watched, put

_log = logging.getLogger(__name__)

_MOST_NAMES = 8  # of whom is waited for


def are_lines_wanted(is_live: bool | None) -> bool:
    """Whether each generation gets a line: where nobody sees a live one, unless that is forbidden."""
    return is_live is None and not is_watched(sys.stderr)


class Line:
    """The live line; `is_live=None` means: if somebody watches the stream."""

    def __init__(self, is_live: bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_live = is_watched(self._stream) if is_live is None else is_live
        self._width = 0

    def __call__(self, event: Event) -> None:
        """Show how far the run is; leave the terminal clean for all else."""
        line = described(event) if isinstance(event, Progressed) else ""
        if self._is_live and (line or self._width):
            self._is_live = put(f"\r{line:<{self._width}}" + ("" if line else "\r"), self._stream) is None
            self._width = len(line)


def repeated(event: Event) -> None:
    """Write what a user's function has written in a worker, where this process writes."""
    if isinstance(event, Said):
        put(f"{event.worker}: {event.piece.text}", sys.stderr if event.piece.is_error else sys.stdout)


def logged(path: str | os.PathLike[str]) -> Callable[[Event], None]:
    """What logs the events of the run in this file."""

    def log(event: Event) -> None:
        if isinstance(event, Noted):
            _log.warning("%s: %s", path, event.note)
        if isinstance(event, Waited):
            _log.warning("%s: %s", path, _in_words(event))
        if isinstance(event, Committed):
            population = event.population
            _log.info(
                "generation %d: epsilon %s, %d of %d accepted (%.3g)%s, ess %.0f%s, %s, "
                "workers simulated %.0f %% of it",
                population.generation,
                short(population.epsilon),
                population.accepted,
                population.evaluations,
                population.acceptance_rate,
                f" and {recycled} recycled" if (recycled := len(population) - population.accepted) else "",
                population.ess,
                f", {models}" if (models := population.named_models) else "",
                duration(population.seconds),
                100 * event.share,
            )

    return log


def _in_words(event: Waited) -> str:
    """What is waited for, with names, on which evaluation, since when, and what that may come of."""
    names = [_named(*one) for one in event.awaited]
    others = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    whys = dict.fromkeys(f"; {one.why}" for one in event.awaited if one.why)
    waits = f": waiting for {', '.join(names[:_MOST_NAMES] + others)}{''.join(whys)}" if names else ""
    return f"nothing has come home for {duration(event.seconds)} {event.where}{waits}"


def _named(who: str, at: str, seconds: float, why: str) -> str:
    times = [at] * bool(at) + [f"for {duration(seconds)}"] * bool(seconds)
    return f"{who} ({', '.join(times)})" if times else who


def described(event: Progressed) -> str:
    """How far a generation is, on one line."""
    left = "" if event.seconds_left is None else f", {duration(event.seconds_left)} left"
    models = f"; before: {event.models}" if event.models else ""
    return (
        f"generation {event.level}, epsilon {short(event.epsilon, 4)}: "
        f"{event.accepted}/{event.size} {event.counted}, "
        f"{event.rate:.3g} simulations/s, {event.busy}/{event.workers} busy{left}{models}"
    )
