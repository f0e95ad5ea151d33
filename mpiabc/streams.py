"""Random streams addressed by what they are for, not by who draws from them.

An evaluation's numbers depend on `(seed, purpose, generation, index)` alone, so any worker draws the
same ones, at any time, in any order. Philox is counter-based (Salmon et al., 2011,
doi:10.1145/2063384.2063405): moving to another address costs one state assignment.
"""

from enum import IntEnum

import numpy as np

#: Ids per block. Proposals are drawn for whole aligned blocks, and a vectorised simulator gets one
#: stream a block. A constant: with another value every result would be another one.
BLOCK = 256


class Purpose(IntEnum):
    """What a stream is drawn for; streams of different purposes never overlap."""

    PROPOSAL = 0
    SIMULATION = 1
    ACCEPTANCE = 2
    GLOBALS = 3  # seeds of the global generators that a simulator may use
    CHECK = 4  # draws that only look whether parts fit together


def stream_key(seed: int) -> tuple[int, int]:
    """The 128-bit Philox key of a run's seed (any non-negative integer)."""
    first, second = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    return int(first), int(second)


def step_of(is_vectorized: bool) -> int:
    """Ids that are evaluated by one call, and so in the smallest lease."""
    return BLOCK if is_vectorized else 1


def stride_of(size: int) -> int:
    """Distance between the ids that one of so many slots tries: their number in whole blocks."""
    return -(-size // BLOCK) * BLOCK


class Stream:
    """One Philox generator that is moved from address to address."""

    def __init__(self, key: tuple[int, int], purpose: Purpose) -> None:
        self._bits = np.random.Philox(key=np.array(key, np.uint64))
        self._rng = np.random.Generator(self._bits)
        # A fresh state has an empty buffer and no half-used word: nothing leaks between addresses.
        self._state = self._bits.state
        self._counter = self._state["state"]["counter"]
        self._counter[3] = int(purpose)

    def is_untouched(self) -> bool:
        """Whether nothing was drawn since the last move."""
        state = self._bits.state
        return state["buffer_pos"] == 4 and np.array_equal(state["state"]["counter"], self._counter)

    def at(self, generation: int, index: int) -> np.random.Generator:
        """The generator of address `(generation, index)`, at its first draw."""
        self._counter[1] = index
        self._counter[2] = generation
        self._bits.state = self._state
        return self._rng
