"""Signals that ask a run to stop: the first is noted and obeyed soon, the second at once.

What asks a whole job to stop ends the programs of its simulators too, often before we see it, and what a
simulator makes of a program that was ended is no outcome. So nothing counts that came home within `DOUBT`
seconds before a signal was seen: it is computed again.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from mpiabc import environment
from mpiabc.errors import Interrupted, ProblemError

GRACE = 2.0  # seconds in which simulations in work may come to their end
DOUBT = 1.0  # seconds before a signal is seen, from which on results may be its doing

_SAME = 1.0  # seconds in which a signal that comes again is the same one: launchers pass on what comes to all

_ASK_TO_STOP = "SIGINT SIGTERM SIGUSR1 SIGHUP SIGXCPU"  # unless MPIABC_SIGNALS says which


def that_ask_to_stop() -> list[signal.Signals]:
    """Those signals. Raises ProblemError for names that are none."""
    text = environment.given(environment.SIGNALS) or _ASK_TO_STOP
    try:
        found = [_named(name) for name in text.replace(",", " ").split()]
    except KeyError as error:
        raise ProblemError(
            f"{environment.SIGNALS}={text!r}: {error} is no signal that a process can hear here; give names "
            f"such as {_ASK_TO_STOP!r}, or unset it"
        ) from None
    return list(dict.fromkeys(found))


def _named(name: str) -> signal.Signals:
    """The signal of a name, with or without its first three letters. Raises KeyError."""
    number = signal.Signals.__members__.get("SIG" + name.upper().removeprefix("SIG"))
    if number in (None, signal.SIGKILL, signal.SIGSTOP):
        raise KeyError(name)
    return number


class Signals:
    """Within the `with`, notes the first signal; outside the main thread it notes none.

    A simulation that goes on in this thread beyond the grace is left by KeyboardInterrupt, and so is
    everything at the second signal. It strikes once: what saves the run after it is not interrupted.

    A signal that the process ignores stays ignored. A handler that the script had set is called at the end,
    when the run has been saved.
    """

    def __init__(self) -> None:
        self.seen: str | None = None
        self.at = math.inf  # when it was seen, of the monotonic clock
        self._is_relayed = False
        self._may_interrupt = True
        self._before: dict[int, Any] = {}
        self._came: dict[int, FrameType | None] = {}

    def __enter__(self) -> "Signals":
        numbers = that_ask_to_stop()
        _active.append(self)
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        _active.remove(self)
        if self.seen is not None and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.restore()
        for number, frame in self._came.items():
            handler = self._before[number]
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, frame)

    def restore(self) -> None:
        """Handlers as they were."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one in C

    def settle(self) -> None:
        """From now on interrupt nothing: what follows saves the run, and is short."""
        self._may_interrupt = False

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Interrupt this all the same."""
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False

    def relay(self, text: str, seconds: float) -> None:
        """Note a signal that another process has seen; if it comes here too, that is not a second one."""
        if self.seen is None:
            self._is_relayed = True
            self._begin(text, seconds)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.setdefault(number, frame)
        name = signal.Signals(number).name
        if self.seen is None:
            self._begin(name)
        elif self._is_relayed:
            self.seen, self._is_relayed = name, False
        elif time.monotonic() > self.at + _SAME:
            self._interrupt()

    def _begin(self, seen: str, seconds: float = 0.0) -> None:
        self.at = time.monotonic() - seconds
        self.seen = seen
        if self._before:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _interrupt(self, *alarm: object) -> None:
        if self._may_interrupt:
            self._may_interrupt = False
            raise Stop


class Stop(KeyboardInterrupt):
    """What interrupts a run that has been asked to stop."""


def is_asked_to_stop(error: BaseException) -> bool:
    """Whether an exception is the user's wish to stop, not what some code has raised by itself."""
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, Stop) or (by_python and isinstance(error, KeyboardInterrupt))


@contextmanager
def stopped_by(
    signals: Signals, when: str = "", tell: Callable[[Interrupted], object] = lambda stopped: None
) -> Iterator[None]:
    """What a signal interrupts in the middle is Interrupted, and said; what some code has raised is not."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not is_asked_to_stop(error):
            raise
        stopped = Interrupted(f"stopped by {signals.seen}{when}")
        tell(stopped)
        raise stopped from None


_active: list[Signals] = []  # the innermost last


def heard() -> str | None:
    """The signal that the run of this process has noted, if any."""
    return _active[-1].seen if _active else None


def relay(text: str, seconds: float) -> None:
    """Tell the run of this process that another one has seen a signal so many seconds ago."""
    if _active:
        _active[-1].relay(text, seconds)


# Workers that leave signals to the process that leads.

_left_at = -math.inf


def leave_to_leader() -> None:
    """Obey no signal of those, and note them; they are not ignored, which programs would inherit."""
    for number in that_ask_to_stop():
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    global _left_at
    _left_at = time.monotonic()


def were_left_since(began: float) -> bool:
    """Whether a signal has come to this worker since a time of the monotonic clock."""
    return _left_at >= began


# Processes that a simulator forks.


def _forget() -> None:
    """Signals do here what they do without us: a pool ends its processes by them."""
    with suppress(ValueError):  # not Python's main thread
        for signals in reversed(_active):
            signals.restore()
        for number in signal.valid_signals():
            if signal.getsignal(number) is _leave:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
    _active.clear()


os.register_at_fork(after_in_child=_forget)
