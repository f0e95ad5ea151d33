"""Pictures and findings of a run, drawn by a thread of their own when somebody looks and something is new."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mpiabc.errors import Error
from mpiabc.store import History

_log = logging.getLogger(__name__)

_REST = 2.0  # times as long as it took nothing is drawn then, while the run goes on: it may need the core
_SHOWN_ELSEWHERE = "run"  # the topic of whether it goes on, which may change while this is drawn
KINDS = ("pairs", "convergence", "predictive", "intervals", "models", "scales", "marginals", "workers")


@dataclass(frozen=True)
class Shown:
    """A picture: its name on the page, its words, and the version of the run that it is of."""

    name: str
    title: str
    caption: str
    version: str
    png: bytes


class Gallery:
    """What is drawn of a run; `wake` returns at once, and what is asked for is the newest there is."""

    def __init__(self, path: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._version = "0"  # nothing is drawn of a run without generations
        self._rests_until = 0.0
        self._pictures: dict[str, Shown] = {}
        self._findings: list[tuple[str, str]] = []

    def wake(self, version: str, *, is_running: bool) -> None:
        """Draw the run as it is now, if that is new, unless it is being drawn or has just been."""
        with self._lock:
            is_drawing = self._thread is not None and self._thread.is_alive()
            is_resting = is_running and self._clock() < self._rests_until
            if version == self._version or is_drawing or is_resting:
                return
            self._version = version
            self._thread = threading.Thread(target=self._draw, args=(version,), daemon=True)
            self._thread.start()

    def pictures(self) -> list[Shown]:
        """Those there are, in the order of the page."""
        with self._lock:
            order = {kind: i for i, kind in enumerate(KINDS)}
            return sorted(self._pictures.values(), key=lambda shown: order[shown.name.partition("-")[0]])

    def picture(self, name: str) -> Shown | None:
        """The one of this name."""
        with self._lock:
            return self._pictures.get(name)

    def findings(self) -> list[tuple[str, str]]:
        """What is found of the run: how much it matters, and a sentence."""
        with self._lock:
            return self._findings

    def close(self, seconds: float = 5.0) -> None:
        """Wait until nothing is drawn, at most so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _draw(self, version: str) -> None:
        """Draw all kinds, one after another; each is shown as soon as it is there."""
        began = self._clock()
        try:
            history = History(self._path)
            self._find(history)
            self._replace(history, version)
        except (Error, ImportError) as error:  # which the page tells by its view
            _log.warning("%s: nothing is drawn: %s", self._path, error)
        except Exception:
            _log.exception("%s: a picture failed", self._path)
        with self._lock:
            self._rests_until = self._clock() + _REST * (self._clock() - began)

    def _find(self, history: History) -> None:
        from mpiabc.analysis.diagnostics import diagnose

        all_found = (finding for finding in diagnose(history) if finding.topic != _SHOWN_ELSEWHERE)
        found = [(str(finding.severity), finding.text) for finding in all_found]
        with self._lock:
            self._findings = found

    def _replace(self, history: History, version: str) -> None:
        names = set()
        for shown in drawn(history, version):
            names.add(shown.name)
            with self._lock:
                self._pictures[shown.name] = shown
        with self._lock:
            self._pictures = {name: shown for name, shown in self._pictures.items() if name in names}


def drawn(history: History, version: str) -> Iterator[Shown]:
    """The pictures that apply to the run; of several models, those of each."""
    from mpiabc.analysis.pictures import pictures

    for kind in KINDS:
        for i, picture in enumerate(pictures(history, [kind])):
            name = f"{kind}-{i}" if i else kind
            yield Shown(name, picture.title, picture.caption, version, picture.png)
