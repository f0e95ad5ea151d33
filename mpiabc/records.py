"""Records: the outcome of the evaluations of one lease, as arrays, and their form on the wire."""

import json
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import numpy as np

_GENERATIONS = 1 << 32


def order_number(generation: int, attempt: int = 0) -> int:
    """What tells orders apart on leases and records: a generation that is taken back is ordered anew."""
    return generation + attempt * _GENERATIONS


def generation_of(number: int) -> int:
    """The generation that an order is for."""
    return number % _GENERATIONS


class Lease(NamedTuple):
    """The evaluations [start, stop) of an order, given to one worker (slots, if static)."""

    generation: int  # the order's number, which is the generation unless that was taken back
    start: int
    stop: int

    def __str__(self) -> str:
        t = generation_of(self.generation)
        return f"{t}:{self.start}" + ("" if self.stop == self.start + 1 else f" to {t}:{self.stop - 1}")


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
    kind: str = "exception"  # or "structure", "nan", "death", "timeout", "exit", "proposal"

    @property
    def ends_every_run(self) -> bool:
        """Whether it is a fault of prior or kernel, which no policy on failing simulations is for."""
        return self.kind == "proposal"

    @property
    def address(self) -> str:
        """Generation and id, as `mpiabc replay` takes them."""
        return f"{self.generation}:{self.index}"

    @property
    def values(self) -> str:
        """theta in words."""
        return ", ".join(f"{name}={value!r}" for name, value in self.theta.items()) or "none yet"

    def __str__(self) -> str:
        told = f"evaluation {self.address} failed on {self.where}, theta: {self.values}"
        return f"{told}\n{self.traceback.rstrip() or self.error}"


#: The columns of the accepted evaluations.
ROWS = ("ids", "theta", "distances", "log_weights", "summaries")


@dataclass(frozen=True)
class Records:
    """Outcomes of the ids [start, stop) of one order; of slots, under static scheduling.

    The accepted evaluations, m of them, are rows of `ids` (m,), `theta` (m, d), `distances` (m,),
    `log_weights` (m,) and `summaries` (m, k), in the order of their addresses. Where all that came of
    them is a payload there are no rows.
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
    notes: tuple[str, ...] = ()  # what the user should be told, once a run
    is_exposed: bool = False  # programs had a part in it, which a signal to the job may have ended

    @property
    def lease(self) -> Lease:
        """The address of these records."""
        return Lease(self.generation, self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def addresses(self) -> np.ndarray:
        """The address of each row, (m,)."""
        if not len(self.ids):
            return self.ids
        return self.start + np.flatnonzero(self.status == Status.ACCEPTED)

    def only(self, kept: np.ndarray) -> "Records":
        """These records where `kept` (stop - start,) is true; the other addresses become UNKNOWN.

        Failures and payload stay whole: they have addresses of their own.
        """
        rows = kept[self.addresses - self.start]
        tries = None if self.tries is None else np.where(kept[:, None], self.tries, 0)
        status = np.where(kept, self.status, Status.UNKNOWN).astype(np.uint8)
        columns = {name: getattr(self, name)[rows] for name in ROWS}
        return replace(self, status=status, tries=tries, **columns)


_HEADER = struct.Struct("<9qd")


def pack(records: Records) -> bytes:
    """`records` as one buffer: a header, then the arrays, then what is rarely there, as JSON."""
    more = _more(records)
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
        len(more),
        len(records.payload),
        records.seconds,
    )
    arrays = (getattr(records, name).tobytes() for name in ROWS)
    return b"".join([header, *arrays, tries, records.status.tobytes(), more, records.payload])


def unpack(buffer: bytes | bytearray | memoryview) -> Records:
    """The inverse of `pack`; raises ValueError for a buffer that `pack` did not make."""
    if len(buffer) < _HEADER.size:
        raise ValueError(f"a record buffer of {len(buffer)} bytes is shorter than its header")
    generation, start, stop, m, d, k, *sizes, seconds = _HEADER.unpack_from(buffer)
    tries_size, more_size, _ = sizes
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
    more = json.loads(bytes(buffer[at : at + more_size])) if more_size else {}
    if isinstance(more, list):  # in a journal of format 2
        more = {"failures": more}
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
        tuple(Failure(**f) for f in more.get("failures", ())),
        seconds,
        bytes(buffer[at + more_size :]),
        tuple(more.get("notes", ())),
        more.get("exposed", False),
    )


def _more(records: Records) -> bytes:
    """Failures, notes and exposure as JSON; nothing where there are none."""
    if not (records.failures or records.notes or records.is_exposed):
        return b""
    told = {"failures": [asdict(failure) for failure in records.failures]}
    return json.dumps(told | {"notes": records.notes, "exposed": records.is_exposed}).encode()
