"""How a function of somebody else's travels, with the random generators that it draws from.

The generators that a process has only one of travel as references: a copy would give every worker the same
numbers. Any other one that is found in the function is put to an address before each evaluation.
"""

import io
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpiabc import mapped
from mpiabc.errors import ProblemError
from mpiabc.streams import Purpose, Stream

_LARGE = 4096  # bytes from which a buffer travels for itself, as those of a job do
_WORDS = 4  # of 32 bits, which seed a generator
_GENERATORS = (np.random.RandomState, np.random.BitGenerator, random.Random)


@dataclass(frozen=True, eq=False)
class Carried:
    """A function as bytes, its large buffers apart: those that are as they were need not travel again."""

    body: np.ndarray  # uint8
    buffers: tuple[np.ndarray, ...]

    def opened(self) -> tuple[Callable[[], Any], list[Any]]:
        """The function, and the generators of its own."""
        return pickle.loads(self.body.data, buffers=[buffer.data for buffer in self.buffers])


def carried(function: Callable[[], Any]) -> Carried:
    """The function as it travels. Raises ProblemError for one that cannot."""
    file, aside = io.BytesIO(), list[np.ndarray]()

    def put_aside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        aside.append(np.frombuffer(bytearray(raw), np.uint8))
        return False

    try:
        pickler = _Pickler(file, protocol=5, buffer_callback=put_aside)
        pickler.dump((function, pickler.found))  # those found are known by the time their list is written
    except Exception as error:
        raise ProblemError(
            f"what is to be evaluated cannot be sent to another process: {type(error).__name__}: {error}; "
            "make what the models, priors and distances hold picklable"
        ) from error
    return Carried(np.frombuffer(bytearray(file.getbuffer()), np.uint8), tuple(aside))


class _Pickler(mapped.Pickler):
    """Writes references to the process's own generators, and notes the others."""

    def __init__(self, file: io.BytesIO, **options: Any) -> None:
        super().__init__(file, **options)
        self.found: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        """How an object is written, where that is not as ever."""
        if isinstance(obj, _GENERATORS):
            for here in (_numpy, _numpy_bits, _python):
                if obj is here():
                    return here, ()
            self.found.append(obj)
        return super().reducer_override(obj)


def _numpy() -> Any:
    """The generator of `np.random.normal` and its like."""
    return np.random.mtrand._rand


def _numpy_bits() -> Any:
    return np.random.get_bit_generator()  # type: ignore[attr-defined]


def _python() -> Any:
    """The generator of `random.random` and its like."""
    return random.random.__self__  # type: ignore[attr-defined]


class Addressed:
    """Generators that are put to an address each time, all of one stream."""

    def __init__(self, generators: list[Any], key: tuple[int, int]) -> None:
        self._generators = generators
        self._stream = Stream(key, Purpose.OWN)

    def move(self, level: int, index: int) -> None:
        """Put all of them there."""
        if not self._generators:
            return
        bits: Any = self._stream.at(level, index).bit_generator
        for generator in self._generators:
            _seed(generator, bits.random_raw(_WORDS // 2).view(np.uint32))


def _seed(generator: Any, words: np.ndarray) -> None:
    if isinstance(generator, random.Random):
        generator.seed(int.from_bytes(words.tobytes(), "little"))
    elif isinstance(generator, np.random.RandomState):
        new: Any = type(generator._bit_generator)(words)
        generator.set_state(np.random.RandomState(new).get_state(legacy=False))
    else:
        generator.state = type(generator)(words).state
