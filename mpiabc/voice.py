"""What is written for people: on a terminal, into a job's output, in a log. None of it ever ends a run.

A stream may be gone with its terminal, full, closed, absent, or know fewer characters than a text has.
What users' functions write while they are at work is heard by who runs them, and reported once for all
workers.
"""

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

_MOST_PIECES = 1000  # different ones that a worker sends home
_LONGEST = 65536  # characters of one: the rest is no message

_ENOUGH = (
    f"(more than {_MOST_PIECES} different lines: what is written here from now on goes to this worker's own "
    "output)\n"
)


def put(text: str, stream: Any) -> OSError | None:
    """Write it at once; what kept the stream from taking it, if anything did. Nothing is raised.

    A stream that is None takes everything. Characters that it does not know are written as escapes.
    """
    if stream is None:
        return None
    try:
        stream.flush()  # what others have left there is theirs
        return _put(text, stream)
    except OSError as error:
        return error
    except ValueError:
        return OSError(errno.EBADF, "it is closed")


def _put(text: str, stream: Any) -> OSError | None:
    try:
        stream.write(_writable(text, stream))
        stream.flush()
    except OSError as error:
        _let_go(stream)
        return error
    return None


def _writable(text: str, stream: Any) -> str:
    """The text in the characters that a stream knows."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _let_go(stream: Any) -> None:
    """Drop what a stream holds and cannot write: Python would fail by it at its end, with status 120."""
    with suppress(OSError, ValueError, AttributeError), ExitStack() as stack:
        number, nothing = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nothing)
        kept = os.dup(number)
        stack.callback(os.close, kept)
        os.dup2(nothing, number)
        stack.callback(os.dup2, kept, number)
        stream.flush()


def _settle() -> None:
    """Drop what others' handlers have left on a stderr that takes nothing."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        _let_go(sys.stderr)
    except ValueError:  # it is closed
        pass


def is_watched(stream: Any) -> bool:
    """Whether somebody looks at it while it is written: on a terminal, or below a notebook's cell."""
    if type(stream).__module__ == "ipykernel.iostream":
        return True
    with suppress(ValueError, AttributeError):
        return stream.isatty()
    return False


def flush() -> None:
    """Write what stdout and stderr hold, if they take it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


# Logs.


class Handler(logging.Handler):
    """Logs to the stderr of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, as the formatter says."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            put(f"{text}\n", sys.stderr)


@contextmanager
def logging_to_stderr(is_wanted: bool) -> Iterator[None]:
    """Where nobody has said what becomes of logs, warnings go to stderr, and with `is_wanted` the rest too.

    Any level or handler that the user has set is left as it is.
    """
    log = logging.getLogger("mpiabc")
    handler, level = Handler(), log.level
    if not log.hasHandlers():
        log.addHandler(handler)
        if is_wanted and level == logging.NOTSET:
            log.setLevel(logging.INFO)
    try:
        yield
    finally:
        if handler in log.handlers:
            log.removeHandler(handler)
            log.setLevel(level)
        _settle()


# What users' functions write while they are at work.


class Piece(NamedTuple):
    """Lines that were written together, to stdout or to stderr."""

    text: str
    is_error: bool

    def pack(self) -> bytes:
        """As bytes."""
        return b"01"[self.is_error :][:1] + self.text.encode(errors="backslashreplace")

    @classmethod
    def unpack(cls, content: bytes | memoryview) -> "Piece":
        """The inverse of `pack`."""
        content = bytes(content)
        return cls(content[1:].decode(errors="replace"), content[:1] == b"1")


Hear = Callable[[Piece], None]


class _Hearer:
    """Sends pieces home, each once, until there are too many different ones."""

    def __init__(self, send: Hear) -> None:
        self._send = send
        self._sent: set[Piece] = set()

    def __call__(self, piece: Piece) -> bool:
        """Whether the piece is taken care of."""
        if piece in self._sent:
            return True
        if len(self._sent) > _MOST_PIECES or len(piece.text) > _LONGEST:
            return False
        self._sent.add(piece)
        if len(self._sent) > _MOST_PIECES:
            piece = Piece(_ENOUGH, True)
        with suppress(OSError):  # nobody is there any more, as is seen elsewhere
            self._send(piece)
        return True


class _Thread(threading.local):
    """Who hears what this thread writes, and what it has written of a line."""

    def __init__(self) -> None:
        self.hearer: _Hearer | None = None
        self.is_at_work = False
        self.begun = {False: "", True: ""}  # by whether it is stderr


class _Stream:
    """stdout or stderr while some thread is at work; for the others it is what it was."""

    def __init__(self, stream: Any, is_error: bool) -> None:
        self._stream, self._is_error = stream, is_error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Pass on what has come to the end of a line."""
        if not _thread.is_at_work:
            return self._stream.write(text)
        whole, end, begun = (_thread.begun[self._is_error] + text).rpartition("\n")
        if len(begun) > _LONGEST:
            whole, begun = whole + end + begun, ""
        _thread.begun[self._is_error] = begun
        if whole or end:
            self._say(whole + end)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write all."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what has been begun, such as a prompt, unless it is heard elsewhere."""
        if not _thread.is_at_work:
            self._stream.flush()
        elif _thread.hearer is None:
            self._say(self._taken())

    def end(self) -> None:
        """What has been begun is a line."""
        begun = self._taken()
        if begun:
            self._say(begun if _thread.hearer is None else f"{begun}\n")

    def _taken(self) -> str:
        begun, _thread.begun[self._is_error] = _thread.begun[self._is_error], ""
        return begun

    def _say(self, text: str) -> None:
        hearer, _thread.hearer = _thread.hearer, None  # what it writes itself is no user's function's
        try:
            if hearer is None or not hearer(Piece(text, self._is_error)):
                put(text, self._stream)
        finally:
            _thread.hearer = hearer


class _Streams:
    """stdout and stderr of this process, ours while any thread is at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._ours: dict[str, _Stream] = {}

    def take(self) -> None:
        """One thread more."""
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                for name in ("stdout", "stderr"):
                    stream = getattr(sys, name)
                    if stream is not None:
                        self._ours[name] = _Stream(stream, name == "stderr")
                        setattr(sys, name, self._ours[name])

    def end_lines(self) -> None:
        """What this thread has begun is a line."""
        for stream in self._ours.values():
            stream.end()

    def give_back(self) -> None:
        """One thread less."""
        with self._lock:
            self._threads -= 1
            if not self._threads:
                for name, stream in self._ours.items():
                    if getattr(sys, name) is stream:
                        setattr(sys, name, stream._stream)
                self._ours.clear()


_thread = _Thread()
_streams = _Streams()


@contextmanager
def heard_by(send: Hear | None) -> Iterator[None]:
    """What users' functions write in this thread goes to `send`; with None, to the streams, as ever."""
    before, _thread.hearer = _thread.hearer, None if send is None else _Hearer(send)
    try:
        yield
    finally:
        _thread.hearer = before


def pass_on(piece: Piece) -> None:
    """Let a piece of another process be heard as if it were of this thread."""
    hearer = _thread.hearer
    if hearer is None or not hearer(piece):
        put(piece.text, sys.stderr if piece.is_error else sys.stdout)


def speak_ourselves() -> None:
    """What this thread writes from now on is no user's function's, although one is at work."""
    _streams.end_lines()
    _thread.hearer = None


@contextmanager
def listening() -> Iterator[None]:
    """A user's function is at work in this thread: what it writes is heard, and cannot fail."""
    if _thread.is_at_work:
        yield
        return
    _streams.take()
    _thread.is_at_work = True
    try:
        yield
    finally:
        _streams.end_lines()
        _thread.is_at_work = False
        _streams.give_back()


def _fork() -> None:
    """What a user's function forks has what it writes for itself."""
    global _streams
    _thread.hearer = None
    _thread.begun = {False: "", True: ""}
    _streams = _Streams()


os.register_at_fork(after_in_child=_fork)
