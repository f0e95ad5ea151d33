"""Signals that ask a run to stop: the first is noted and obeyed soon, the second at once."""

import signal
import threading
from types import FrameType

GRACE = 2.0  # seconds to collect what is finished

_ASK_TO_STOP = ("SIGINT", "SIGTERM", "SIGUSR1")


class Signals:
    """Within the `with`, notes the first signal; outside the main thread it notes none.

    A simulation that goes on in this thread beyond the grace is left by KeyboardInterrupt, and so is
    everything at the second signal. It strikes once: what saves the run after it is not interrupted.
    """

    def __init__(self) -> None:
        self.seen: str | None = None
        self._may_interrupt = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for name in _ASK_TO_STOP:
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.seen is not None and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def settle(self) -> None:
        """From now on interrupt nothing: what follows saves the run, and is short."""
        self._may_interrupt = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen is not None:
            return self._interrupt()
        self.seen = signal.Signals(number).name
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        return None

    def _interrupt(self, *alarm: object) -> None:
        if self._may_interrupt:
            self._may_interrupt = False
            raise KeyboardInterrupt
