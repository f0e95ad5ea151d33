"""Records: the outcome of the evaluations of one lease, as arrays, and their form on the wire."""

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np


class Lease(NamedTuple):
    """The evaluations [start, stop) of a generation, given to one worker (slots, if static)."""

    generation: int
    start: int
    stop: int

    def __str__(self) -> str:
        first = f"{self.generation}:{self.start}"
        return first if self.stop == self.start + 1 else f"{first} to {self.generation}:{self.stop - 1}"


class Status:
    """What became of an evaluation: plain numbers, as these are compared with whole arrays."""

    UNKNOWN = 0
    REJECTED = 1
    OUTSIDE = 2  # of the prior's support: an id, a rejection, and no simulation
    ACCEPTED = 3
    FAILED = 4  # simulated and counted as a rejection


@dataclass(frozen=True)
class Failure:
    """One evaluation that raised, left, or gave something that is no outcome."""

    generation: int
    index: int
    theta: dict[str, float]
    error: str  # one line
    traceback: str
    where: str = ""  # "rank 3 of 4 on node17"
    kind: str = "exception"  # or "structure", "nan", "death", "timeout"

    def __str__(self) -> str:
        theta = ", ".join(f"{name}={value!r}" for name, value in self.theta.items())
        told = f"evaluation {self.generation}:{self.index} failed on {self.where}, theta: {theta}"
        return f"{told}\n{self.traceback.rstrip() or self.error}"


@dataclass(frozen=True)
class Records:
    """Outcomes of the ids [start, stop) of one generation; of slots, under static scheduling.

    The accepted evaluations, m of them, are rows of `ids` (m,), `theta` (m, d), `distances` (m,),
    `log_weights` (m,) and `summaries` (m, k), in the order of their addresses.
    """

    generation: int
    start: int
    stop: int
    status: np.ndarray  # (stop - start,) uint8, of Status
    ids: np.ndarray
    theta: np.ndarray
    distances: np.ndarray
    log_weights: np.ndarray
    summaries: np.ndarray
    tries: np.ndarray | None = None  # (stop - start, 2) int64: ids and simulations used by each slot
    failures: tuple[Failure, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    payload: bytes = b""  # what else came of them, where they are not evaluations: results of a `Pool`

    @property
    def lease(self) -> Lease:
        """The address of these records."""
        return Lease(self.generation, self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


_HEADER = struct.Struct("<9qd")


def pack(records: Records) -> bytes:
    """`records` as one buffer: a header, then the arrays, then the failures, rarely any, as JSON."""
    failures = json.dumps([asdict(f) for f in records.failures]).encode() if records.failures else b""
    accepted, d = records.theta.shape
    k = records.summaries.shape[1]
    tries = b"" if records.tries is None else records.tries.tobytes()
    header = _HEADER.pack(
        records.generation,
        records.start,
        records.stop,
        accepted,
        d,
        k,
        len(tries),
        len(failures),
        len(records.payload),
        records.seconds,
    )
    arrays = (records.ids, records.theta, records.distances, records.log_weights, records.summaries)
    return b"".join(
        [header, *(a.tobytes() for a in arrays), tries, records.status.tobytes(), failures, records.payload]
    )


def unpack(buffer: bytes | bytearray | memoryview) -> Records:
    """The inverse of `pack`; raises ValueError for a buffer that `pack` did not make."""
    if len(buffer) < _HEADER.size:
        raise ValueError(f"a record buffer of {len(buffer)} bytes is shorter than its header")
    generation, start, stop, m, d, k, *sizes, seconds = _HEADER.unpack_from(buffer)
    tries_size, failures_size, _ = sizes
    at = _HEADER.size
    if len(buffer) != at + 8 * m * (3 + d + k) + (stop - start) + sum(sizes):
        raise ValueError(f"a record buffer of {len(buffer)} bytes does not fit its header")

    def take(count: int, dtype: type = np.float64) -> np.ndarray:
        nonlocal at
        array: np.ndarray = np.frombuffer(buffer, dtype, count, at)
        at += array.nbytes
        return array

    ids = take(m, np.int64)
    theta = take(m * d).reshape(m, d)
    distances = take(m)
    log_weights = take(m)
    summaries = take(m * k).reshape(m, k)
    tries = take(tries_size // 8, np.int64).reshape(-1, 2) if tries_size else None
    status = take(stop - start, np.uint8)
    failures = json.loads(bytes(buffer[at : at + failures_size])) if failures_size else ()
    return Records(
        generation,
        start,
        stop,
        status,
        ids,
        theta,
        distances,
        log_weights,
        summaries,
        tries,
        tuple(Failure(**f) for f in failures),
        seconds,
        bytes(buffer[at + failures_size :]),
    )
