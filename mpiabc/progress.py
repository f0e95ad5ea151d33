"""What a user sees while a run is going on: a live line on a terminal, a log line a generation."""

import logging
import sys
import time
from typing import TextIO

from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.population import Population
from mpiabc.schedulers.base import Engine

_log = logging.getLogger(__name__)
_PERIOD = 0.2  # seconds between two states of the live line


class Progress:
    """The live line; `is_live=None` means: if the stream is a terminal."""

    def __init__(self, is_live: bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_live = self._stream.isatty() if is_live is None else is_live
        self._width = 0

    def begin(self, generation: int, epsilon: float) -> None:
        """A generation has begun."""
        self._label = f"generation {generation}, epsilon {epsilon:.4g}"
        self._began = self._last = time.monotonic()
        self._simulated = 0.0

    def count(self, seconds: float) -> None:
        """Workers have spent so long on evaluations."""
        self._simulated += seconds

    def tick(self, ledger: Ledger | SlotLedger, engine: Engine) -> str | None:
        """Time has passed; the line, if it is time for a new one."""
        now = time.monotonic()
        if now - self._last < _PERIOD:
            return None
        self._last = now
        spent = now - self._began
        left = spent * (ledger.size - ledger.accepted) / max(1, ledger.accepted)
        line = (
            f"{self._label}: {ledger.accepted}/{ledger.size} accepted, "
            f"{ledger.simulations / spent:.3g} simulations/s, {engine.busy()}/{engine.workers} busy, "
            f"{_duration(left)} left"
        )
        self._show(line)
        return line

    def done(self, population: Population, workers: int) -> None:
        """A generation is committed."""
        self._show("")
        share = self._simulated / max(1e-9, population.seconds * workers)
        _log.info(
            "generation %d: epsilon %.6g, %d of %d accepted (%.3g), ess %.0f, %s, "
            "workers simulated %.0f %% of it",
            population.generation,
            population.epsilon,
            len(population),
            population.evaluations,
            population.acceptance_rate,
            population.ess,
            _duration(population.seconds),
            100 * min(1.0, share),
        )

    def clear(self) -> None:
        """Leave the terminal clean."""
        self._show("")

    def _show(self, line: str) -> None:
        if self._is_live and (line or self._width):
            self._stream.write(f"\r{line:<{self._width}}" + ("" if line else "\r"))
            self._stream.flush()
            self._width = len(line)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
