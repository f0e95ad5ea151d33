"""Random streams addressed by what they are for, not by who draws from them.

An evaluation's numbers depend on `(seed, purpose, generation, index)` alone, so any worker draws the
same ones, at any time, in any order. Philox is counter-based (Salmon et al., 2011,
doi:10.1145/2063384.2063405): moving to another address costs one state assignment.
"""

from enum import IntEnum
from typing import Any

import numpy as np

#: Ids per block. Proposals are drawn for whole aligned blocks, and a vectorised simulator gets one
#: stream a block, or a batch of them. A constant: with another value every result would be another one.
BLOCK = 256


class Purpose(IntEnum):
    """What a stream is drawn for; streams of different purposes never overlap."""

    PROPOSAL = 0
    SIMULATION = 1
    ACCEPTANCE = 2
    GLOBALS = 3  # seeds of the global generators that a simulator may use
    CHECK = 4  # draws that only look whether parts fit together
    OWN = 5  # seeds of generators that somebody's function holds
    CONSTRAINT = 6  # draws of a prior, of which it leaves a share
    COUPLING = 7  # whether an id keeps its proposal at the next level, and what takes its place
    PREDICTION = 8  # keys of simulations from a population, and which particles they are of


def stream_key(seed: int) -> tuple[int, int]:
    """The 128-bit Philox key of a run's seed (any non-negative integer)."""
    first, second = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    return int(first), int(second)


def block_of(step: int) -> int:
    """Ids whose proposals are drawn together, where leases are multiples of `step`."""
    return max(BLOCK, step)


def stride_of(size: int, step: int) -> int:
    """Distance between the ids that one of so many slots tries: their number in whole blocks, or batches."""
    return -(-size // block_of(step)) * block_of(step)


class Philox(np.random.Philox):
    """NumPy's, of an address: what is made of it, by `spawn` or `jumped`, depends on the address alone.

    Its name is that of NumPy's, which is looked at where a state is set.
    """

    _family: np.random.SeedSequence | None = None  # of the address that it stands at, once asked for

    @property
    def seed_seq(self) -> np.random.SeedSequence:
        """Seeds of the address's own, which know how many children it has had."""
        if self._family is None:
            state = self.state["state"]
            key, address = int.from_bytes(state["key"].tobytes()), state["counter"][1:]
            self._family = np.random.SeedSequence(key, spawn_key=address.view(np.uint32).tolist())
        return self._family

    def spawn(self, n_children: int) -> list[np.random.Philox]:  # type: ignore[override]
        """So many generators that are independent of each other, and of every address."""
        return [np.random.Philox(seed) for seed in self.seed_seq.spawn(n_children)]

    def jumped(self, jumps: int = 1) -> "Philox":
        """One so far ahead that no address lies there: NumPy's own jump leads into the next generation."""
        ahead = _restored(self.state, None)
        ahead.advance(jumps << _JUMP)
        return ahead

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.state, self._family)

    def leave(self) -> None:
        """Forget the children of the address that it stood at."""
        self._family = None


_JUMP = 3 * 64 + 32  # bits of the counter below its purpose, and what purposes may need


def _restored(state: Any, family: np.random.SeedSequence | None) -> Philox:
    """A generator as it was pickled, with the children that it has had."""
    bits = Philox()
    bits.state, bits._family = state, family
    return bits


class Stream:
    """One Philox generator that is moved from address to address."""

    def __init__(self, key: tuple[int, int], purpose: Purpose) -> None:
        self._bits = Philox(key=np.array(key, np.uint64))
        self._rng = np.random.Generator(self._bits)
        # A fresh state has an empty buffer and no half-used word: nothing leaks between addresses.
        self._state = self._bits.state
        self._counter = self._state["state"]["counter"]
        self._counter[3] = int(purpose)

    def is_untouched(self) -> bool:
        """Whether nothing was drawn since the last move."""
        state = self._bits.state
        return state["buffer_pos"] == 4 and np.array_equal(state["state"]["counter"], self._counter)

    @property
    def here(self) -> np.random.Generator:
        """The generator where it stands."""
        return self._rng

    def at(self, generation: int, index: int) -> np.random.Generator:
        """The generator of address `(generation, index)`, at its first draw."""
        self._counter[1] = index
        self._counter[2] = generation
        self._bits.state = self._state
        self._bits.leave()
        return self._rng
