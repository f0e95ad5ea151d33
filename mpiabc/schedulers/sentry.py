"""Who answers for a rank that sits in a long evaluation when the others leave."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK = 0.1  # seconds between two looks
_LOOKS = 5  # looks for which an evaluation may still come to its end


class Sentry:
    """A thread that looks for the order to leave while this one evaluates, and carries it out.

    It keeps nothing: what is evaluated then is not wanted. Simulators in C that hold the interpreter's lock
    keep it from looking.
    """

    def __init__(
        self,
        is_ordered: Callable[[], bool],
        leave: Callable[[], None],
        look: Callable[[], None] | None = None,
    ) -> None:
        """look: what else is to be seen to meanwhile."""
        self._is_ordered, self._leave, self._look = is_ordered, leave, look
        self._is_at_work = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Look meanwhile."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        self._is_at_work.set()
        try:
            yield
        finally:
            with self._turn:  # never to be had again, if the process leaves
                self._is_at_work.clear()

    def dismiss(self) -> None:
        """Look no more; returns only if it is not leaving."""
        self._turn.acquire()

    def _watch(self) -> None:
        seen = 0
        while self._is_at_work.wait():
            time.sleep(_LOOK)
            with self._turn:
                seen = seen + 1 if self._is_at_work.is_set() and self._is_ordered() else 0
                if seen > _LOOKS:
                    self._leave()
                if self._look and self._is_at_work.is_set():
                    self._look()
