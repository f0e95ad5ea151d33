"""What a simulator may do to the process that it runs in: noticed, and put right again.

An evaluation is a pure function; simulators are not. They draw from the generators that a process has only
one of, leave another rounding mode behind, start programs, and end the process in the middle of an
evaluation. Nothing of this may reach another evaluation, our own arithmetic, or a result.
"""

import atexit
import ctypes
import functools
import os
import platform
import random
import struct
import sys
import threading
from _random import Random as RandomWords
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, Protocol

import numpy as np

from mpiabc import voice
from mpiabc.calls import is_ours
from mpiabc.records import Failure
from mpiabc.streams import Purpose, Stream

# Random numbers that a process has only one generator for.


class GlobalRandom:
    """NumPy's and Python's global generators: seeded for each evaluation, watched, and restored.

    `seed(generation, index)` costs about 20 us, a pair of looks 5 us.
    """

    def __init__(self, key: tuple[int, int]) -> None:
        self._stream = Stream(key, Purpose.GLOBALS)

    def seed(self, generation: int, index: int) -> None:
        """Give both generators 128 bits each of the stream of this address."""
        words = self._stream.at(generation, index).bit_generator.random_raw(4)
        np.random.seed(words[:2].view(np.uint32))
        random.seed(int.from_bytes(words[2:].tobytes(), "little"))

    def fill(self, generation: int, index: int) -> None:
        """Give both generators all their words from the stream of this address, in half the time."""
        words = self._stream.at(generation, index).bit_generator.random_raw(_FILLING)
        words[_HALF] = 0  # where both begin to read
        content, bits = words.tobytes(), np.random.get_bit_generator()  # type: ignore[attr-defined]
        if _WORDS is None or _PAIR is None or not isinstance(bits, np.random.MT19937):
            _filled(bits, words)
            return
        ctypes.memmove(bits.ctypes.state_address, content, _SIZE)
        ctypes.memset(_PAIR, 0, _INT)
        ctypes.memmove(_WORDS[0], content[_SIZE:], _SIZE)
        _global_random.gauss_next = None

    def look(self) -> tuple[Any, Any]:
        """Where both stand, for a comparison with a later look."""
        bits = np.random.get_bit_generator()  # type: ignore[attr-defined]
        if isinstance(bits, np.random.MT19937):  # its memory: the property `state` takes 40 us
            return ctypes.string_at(bits.ctypes.state_address, 625 * 4), _look_at_python()
        return repr(bits.state), _look_at_python()

    @staticmethod
    def put_back(look: tuple[Any, Any]) -> None:
        """Let both stand where they stood at a look, if that was taken with no half a pair."""
        numpy_state, python_state = look
        if isinstance(numpy_state, bytes):
            words = np.frombuffer(numpy_state, np.uint32)
            state = {"key": words[:624], "pos": int(words[624])}
            np.random.set_state({"bit_generator": "MT19937", "state": state, "has_gauss": 0, "gauss": 0.0})
        words, gauss = python_state
        if _WORDS is None:
            random.setstate(words)
        else:
            ctypes.memmove(_WORDS[0], words, _WORDS[1])
            _global_random.gauss_next = gauss

    @staticmethod
    def has_half_a_pair() -> bool:
        """Whether NumPy keeps a normal number for the next call, which a look would not see go."""
        return bool(np.random.get_state(legacy=False).get("has_gauss"))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Leave both as they were."""
        numpy_state, python_state = np.random.get_state(legacy=False), random.getstate()
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def reseed_process() -> None:
    """Random states that were forked with this process become states of its own."""
    np.random.seed(None)
    random.seed(None)


_BESIDE = ("distributed", "tornado", "dask")  # libraries whose threads draw beside evaluations


def part_random() -> None:
    """Give libraries that share this process, and draw Python's global random numbers, one of their own.

    Else numbers that Dask's event loop draws meanwhile would be missing in an evaluation.
    """
    own, part = random.Random(), ModuleType("random")
    vars(part).update({name: _drawn_from(own, value) for name, value in vars(random).items()})
    for name, module in sys.modules.copy().items():  # in one step: other threads import meanwhile
        if name.partition(".")[0] in _BESIDE:
            for key, value in vars(module).copy().items():
                new = part if value is random else _drawn_from(own, value)
                if new is not value:
                    setattr(module, key, new)


def _drawn_from(own: random.Random, value: Any) -> Any:
    """What draws from the global generator as what draws from `own`; anything else as it is."""
    if isinstance(value, MethodType | BuiltinMethodType) and value.__self__ is _global_random:
        return getattr(own, value.__name__)
    return value


_global_random: Any = random.random.__self__  # type: ignore[attr-defined]


def _words() -> tuple[int, int] | None:
    """Address and size of its state; None where that does not lie behind the object's head, as in CPython."""
    start, size = id(_global_random) + object.__basicsize__, RandomWords.__basicsize__ - object.__basicsize__
    if sys.implementation.name != "cpython" or size < 625 * 4:
        return None
    _, words, _ = random.getstate()
    is_there = np.array(words[:624], np.uint32).tobytes() in ctypes.string_at(start, size)
    return (start, size) if is_there else None


_WORDS = _words()
_INT = 4  # bytes
_SIZE = 625 * _INT  # of NumPy's state: words and where to read them; Python's has that first
_HALF = 312  # words of 64 bits for NumPy, and as many for Python; between them one for both places
_FILLING = 2 * _HALF + 1


def _pair() -> int | None:
    """Address of what says that NumPy keeps half a pair of normal numbers; None where it is not found."""
    own, mark = np.random.RandomState(0), 0.123456789
    own.set_state(own.get_state(legacy=False) | {"has_gauss": 1, "gauss": mark})
    held = struct.pack("<qd", 1, mark)
    at = ctypes.string_at(id(own), np.random.RandomState.__basicsize__).find(held)
    if sys.implementation.name != "cpython" or sys.byteorder != "little" or at < 0:
        return None
    return id(np.random.mtrand._rand) + at


_PAIR = _pair()


def _filled(bits: Any, words: np.ndarray) -> None:
    """The same by what both offer for it; another generator that NumPy was given is seeded."""
    halves = words[:_HALF].view(np.uint32), words[_HALF + 1 :].view(np.uint32)
    if isinstance(bits, np.random.MT19937):
        np.random.set_state(("MT19937", halves[0], 0, 0, 0.0))
    else:
        bits.state = type(bits)(halves[0][:4]).state
    random.setstate((3, (*halves[1].tolist(), 0), None))


def _look_at_python() -> tuple[Any, Any]:
    """The state of Python's generator and the half of a pair that it keeps; `getstate` takes 11 us."""
    if _WORDS is None:
        return random.getstate(), None
    return ctypes.string_at(*_WORDS), _global_random.gauss_next


# The floating-point environment.


class FloatingPoint:
    """Rounding mode and treatment of tiny numbers of this thread, which libraries may leave changed.

    Our arithmetic, and each simulation, begins in the default one (IEEE 754: to nearest, no flush to zero).
    """

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(64)  # a fenv_t, 32 bytes or less
        self._address = ctypes.addressof(self._buffer)
        self._default = b""
        if _fenv is not None:
            mine = self.take()
            self.reset()
            self._default = _controls(self.take())
            self.put(mine)

    def take(self) -> bytes:
        """The environment as it is."""
        if _fenv is None:
            return b""
        _fenv.fegetenv(self._address)
        return self._buffer.raw

    def put(self, environment: bytes) -> None:
        """Set the environment that `take` gave."""
        if _fenv is not None:
            _fenv.fesetenv(environment)

    def reset(self) -> None:
        """Set the default environment."""
        if _fenv is not None:
            _fenv.fesetenv(_FE_DFL_ENV)

    def is_default(self) -> bool:
        """Whether this thread computes as all others do."""
        return _controls(self.take()) == self._default

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Compute in the default environment, and leave the one that was there.

        What NumPy does about overflows and the like (`np.seterr`) is for the user's functions alone, too.
        """
        mine = None if self.is_default() else self.take()
        if mine is not None:
            self.reset()
        try:
            with np.errstate(all="ignore"):
                yield
        finally:
            if mine is not None:
                self.put(mine)


def _load_fenv() -> Any:
    """The C library's functions, None where they are not known to work as used here."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        library.fegetenv.argtypes = library.fesetenv.argtypes = [ctypes.c_void_p]
    except (OSError, AttributeError):
        return None
    return library


_fenv = _load_fenv()
_IS_ARM = platform.machine() == "aarch64"
_FE_DFL_ENV = ctypes.c_void_p(-1)  # of glibc


def _controls(environment: bytes) -> bytes:
    """What decides how is computed; not the flags of what has happened."""
    if _IS_ARM:
        return environment[:4]  # FPCR
    mxcsr = int.from_bytes(environment[28:32], "little") & ~0x3F
    return environment[:2] + mxcsr.to_bytes(4, "little")  # with the x87 control word


# What NumPy does about floating-point errors.


def quiet(function: Any) -> Any:
    """`function`, which is ours, as it is without the user's `np.seterr`, whoever calls it."""

    @functools.wraps(function)
    def quietly(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return quietly


def errors_of(users: Mapping[str, Any], part: Any = None) -> AbstractContextManager[None]:
    """What NumPy does about errors in a part that steady arithmetic asks: as users say, unless it is ours."""
    are_ours = is_ours(part) and all(map(is_ours, getattr(part, "parts", ())))  # of several models
    return nullcontext() if are_ours else np.errstate(**users)


def errors_here(users: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What users have set, or else this process: where the function to be called, or the log, may not be."""
    if users is None:
        return np.geterr()
    is_heard = np.geterrcall() is not None
    return {name: "warn" if how in ("call", "log") and not is_heard else how for name, how in users.items()}


# Evaluations that end the process.


class Work(Protocol):
    """What this thread is at, for the last words of the process."""

    def last_words(self, how: str) -> Failure | None:
        """The failure of what is being evaluated; None if nothing is."""
        ...


def _print(failure: Failure) -> None:
    voice.put(f"{failure}\n", sys.stderr)


class _Thread(threading.local):
    """What this thread is at, and who hears its last words."""

    work: Work | None = None
    hear: Callable[[Failure], None] = staticmethod(_print)


_thread = _Thread()
_real_exit = os._exit
_catching = 0  # threads that are inside of `at_work`
_count = threading.Lock()  # for it, and for
_works: list[tuple[Work, Callable[[Failure], None]]] = []  # what all threads are at, and who hears of it


@contextmanager
def last_words_to(hear: Callable[[Failure], None]) -> Iterator[None]:
    """Let `hear` have the failure of an evaluation of this thread that calls C's `exit`, then end."""
    before, _thread.hear = _thread.hear, hear
    try:
        yield
    finally:
        _thread.hear = before


@contextmanager
def at_work(work: Work) -> Iterator[None]:
    """Make ends of this process during `work` failures with an address.

    `os._exit` raises SystemExit. C's `exit`, which is Fortran's STOP too, cannot be stopped: the evaluation
    is named, and the process ends with status 1 whatever the status was to be. What a simulator forks ends
    as it always did.
    """
    global _catching
    pid = os.getpid()

    def leave(status: int) -> None:
        if os.getpid() != pid:
            _real_exit(status)
        raise SystemExit(f"the simulator called os._exit({status})")

    _Exit.prepare()
    before, _thread.work = _thread.work, work
    entry = work, _thread.hear
    with _count:
        _works.append(entry)
        _catching += 1
        os._exit = leave  # type: ignore[assignment]
    try:
        with voice.listening():
            yield
    finally:
        _thread.work = before
        with _count:
            _works.remove(entry)
            _catching -= 1
            if not _catching:
                os._exit = _real_exit


def withdraw() -> None:
    """This process is about to end, and what is evaluated in it is not the cause."""
    _Exit.withdraw()


def end_process(status: int) -> None:
    """Leave at once, in the middle of an evaluation too. Never returns."""
    _real_exit(status)


EXITED = "the simulator ended the process: exit() of C, or STOP of Fortran"


class _Exit:
    """Our handler among those that C's `exit` calls, in this process and those forked from it.

    It is taken out before the interpreter ends, after which no Python may be called.
    """

    _pid: int | None = None
    _callback: Any = None
    _tag = ctypes.create_string_buffer(1)  # its address stands for "our library"

    @classmethod
    def prepare(cls) -> None:
        """Register the handler once."""
        if cls._pid == os.getpid():
            return
        if cls._callback is None:
            cls._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(cls._leave)
            try:
                register = ctypes.CDLL(None)["__cxa_atexit"]
            except (OSError, AttributeError, TypeError):  # not this C library
                return
            register(cls._callback, None, ctypes.c_void_p(ctypes.addressof(cls._tag)))
            atexit.register(cls.withdraw)
        cls._pid = os.getpid()

    @classmethod
    def withdraw(cls) -> None:
        """Take the handler out, if it is in."""
        _works.clear()
        if cls._pid is None:
            return
        ctypes.CDLL(None)["__cxa_finalize"](ctypes.c_void_p(ctypes.addressof(cls._tag)))

    @classmethod
    def _leave(cls, argument: Any) -> None:
        if os.getpid() != cls._pid or not _works:
            return
        # A thread that a simulator has started may call it too, as in a parallel region.
        work, hear = _works[-1] if _thread.work is None else (_thread.work, _thread.hear)
        try:
            voice.speak_ourselves()
            failure = work.last_words(EXITED)
            _works.clear()
            if failure is None:
                return
            hear(failure)
            voice.flush()
        except BaseException as error:
            voice.put(f"{EXITED}; what it was at cannot be said: {error!r}\n", sys.stderr)
        _real_exit(1)
