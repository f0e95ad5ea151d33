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
        self._is_relayed = False
        self._may_interrupt = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        _active.append(self)
        if threading.current_thread() is threading.main_thread():
            for name in _ASK_TO_STOP:
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        _active.remove(self)
        if self.seen is not None and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def settle(self) -> None:
        """From now on interrupt nothing: what follows saves the run, and is short."""
        self._may_interrupt = False

    def relay(self, told: str) -> None:
        """Note a signal that another process has heard; if it comes here too, that is not a second one."""
        if self.seen is None:
            self._is_relayed = True
            self._begin(told)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.seen is None:
            self._begin(name)
        elif self._is_relayed:
            self.seen, self._is_relayed = name, False
        else:
            self._interrupt()

    def _begin(self, seen: str) -> None:
        self.seen = seen
        if self._before:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _interrupt(self, *alarm: object) -> None:
        if self._may_interrupt:
            self._may_interrupt = False
            raise KeyboardInterrupt


_active: list[Signals] = []  # the innermost last


def heard() -> str | None:
    """The signal that the run of this process has noted, if any."""
    return _active[-1].seen if _active else None


def relay(told: str) -> None:
    """Tell the run of this process that another one has heard a signal."""
    if _active:
        _active[-1].relay(told)
