"""Records: the outcome of the evaluations of one lease, as arrays, and their form on the wire."""

import json
import struct
import time
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from mpiabc.particles import Particles, none, packed_size, unpacked
from mpiabc.text import shown_lines

_GENERATIONS = 1 << 32
CALIBRATION = 1 << 61  # in the numbers of orders whose records are kept nowhere

DEATH = "death"  # the topic of what is said of processes that died, which casts no doubt on a run


def order_number(generation: int, attempt: int = 0) -> int:
    """What tells orders apart on leases and records: a generation that is taken back is ordered anew."""
    return generation + attempt * _GENERATIONS


def generation_of(number: int) -> int:
    """The generation that an order is for."""
    return number % _GENERATIONS


class Lease(NamedTuple):
    """The evaluations [start, stop) of a job, given to one worker (slots, if static)."""

    job: int  # its number: of a run, the generation unless that was taken back
    start: int
    stop: int

    def __str__(self) -> str:
        t = generation_of(self.job)
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
    theta: dict[str, Any]  # floats, and the model's name where models are several
    error: str  # one line
    traceback: str
    where: str = ""  # "rank 3 of 4 on node17"
    kind: str = "exception"  # or "structure", "distance", "nan", "censored", "death", "exit", "proposal", ...

    @property
    def ends_every_run(self) -> bool:
        """Whether it is a fault of another part, which no policy on failing simulations is for."""
        return self.kind in ("proposal", "censored")

    @property
    def address(self) -> str:
        """Generation and id, as `mpiabc replay` takes them."""
        return f"{self.generation}:{self.index}"

    @property
    def values(self) -> str:
        """theta in words."""
        return ", ".join(f"{name}={value!r}" for name, value in self.theta.items()) or "none yet"

    def __str__(self) -> str:
        text = f"evaluation {self.address} failed on {self.where}, theta: {self.values}"
        return shown_lines(f"{text}\n{self.traceback.rstrip() or self.error}")


@dataclass(frozen=True)
class Records:
    """Outcomes of the ids [start, stop) of one job; of slots, under static scheduling.

    `rows` are the accepted evaluations, in the order of their addresses. Where all that came of them is a
    payload there are none.
    """

    job: int  # its number
    start: int
    stop: int
    status: np.ndarray  # (stop - start,) uint8, of Status
    rows: Particles = field(default_factory=none)
    tries: np.ndarray | None = None  # (stop - start, 2) int64: ids and simulations used by each slot
    failures: tuple[Failure, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    payload: bytes = b""  # what else came of them, where they are not evaluations: results of a `Pool`
    notes: tuple[str, ...] = ()  # what the user should learn, once a run
    is_exposed: bool = False  # programs had a part in it, which a signal to the job may have ended
    rejected: Particles = field(default_factory=none)  # simulated, and perhaps of the sample, or kept
    columns: tuple[str, ...] = ()  # names of several distances
    stride: int = 0  # of static scheduling: what a rejected id's remainder by it is the slot

    @property
    def lease(self) -> Lease:
        """The address of these records."""
        return Lease(self.job, self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def simulations(self) -> int:
        """Evaluations that were simulated: all but those outside of the prior's support."""
        if self.tries is not None:
            return int(self.tries[:, 1].sum())
        return int(np.count_nonzero((self.status != Status.UNKNOWN) & (self.status != Status.OUTSIDE)))

    @property
    def addresses(self) -> np.ndarray:
        """The address of each row, (m,)."""
        if not len(self.rows):
            return self.rows.ids
        return self.start + np.flatnonzero(self.status == Status.ACCEPTED)

    def only(self, kept: np.ndarray) -> "Records":
        """These records where `kept` (stop - start,) is true; the other addresses become UNKNOWN.

        Failures and payload stay whole: they have addresses of their own.
        """
        rows = self.rows.take(kept[self.addresses - self.start])
        rejected = self.rejected
        if len(rejected):
            addresses = rejected.ids % self.stride if self.stride else rejected.ids
            rejected = rejected.take(kept[addresses - self.start])
        tries = None if self.tries is None else np.where(kept[:, None], self.tries, 0)
        status = np.where(kept, self.status, Status.UNKNOWN).astype(np.uint8)
        return replace(self, status=status, tries=tries, rows=rows, rejected=rejected)


def failed(failure: Failure, stop: int, number: int) -> Records:
    """The record of evaluations that brought none, from the failed one up to `stop`."""
    status = np.full(stop - failure.index, Status.FAILED, np.uint8)
    return Records(number, failure.index, stop, status, failures=(failure,))


def brought(number: int, start: int, stop: int, payload: bytes, began: float) -> Records:
    """The record of work on [start, stop) that is no evaluation; `began`: a time of `perf_counter`."""
    status = np.full(stop - start, Status.ACCEPTED, np.uint8)
    return Records(number, start, stop, status, seconds=time.perf_counter() - began, payload=payload)


_LAYOUT = -7  # what buffers begin with; those of older files begin with the number of a job
_HEADER = struct.Struct("<11qd")
_WIDER = -6  # the same of several distances, with another header in front, and rejected rows behind
_FIRST_HEADER = struct.Struct("<9q")


def pack(records: Records) -> bytes:
    """`records` as one buffer: a header, then the arrays, then what is rarely there, as JSON."""
    rejected, several = records.rejected, records.rows.widths()["c"]
    buffer = _packed(records)
    if not (len(rejected) or several):
        return buffer
    head = _WIDER, len(buffer), records.stride, several, len(rejected), *rejected.widths().values()
    return b"".join([_FIRST_HEADER.pack(*head), buffer, rejected.pack()])


def _packed(records: Records) -> bytes:
    """All but the rejected rows."""
    more, rows = _more(records), records.rows
    tries = b"" if records.tries is None else records.tries.tobytes()
    widths = {name: width for name, width in rows.widths().items() if name != "c"}
    sizes = widths | {"tries": len(tries), "more": len(more), "payload": len(records.payload)}
    head = _LAYOUT, records.job, records.start, records.stop, len(rows)
    header = _HEADER.pack(*head, *sizes.values(), records.seconds)
    return b"".join([header, rows.pack(), tries, records.status.tobytes(), more, records.payload])


_OLD_HEADER = struct.Struct("<9qd")  # of files up to format 4, whose rows had neither level nor densities


def failures_in(buffer: bytes) -> tuple[Failure, ...]:
    """Those that a journal has kept, also in the layout of older files, which are not continued."""
    if is_readable(buffer):
        return unpack(buffer).failures
    at, size = _old_place(buffer)
    more = json.loads(buffer[at : at + size]) if size else {}
    return tuple(Failure(**f) for f in (more if isinstance(more, list) else more.get("failures", ())))


def _old_place(buffer: bytes) -> tuple[int, int]:
    """Where a buffer of an older layout has its JSON, and how long that is."""
    if int.from_bytes(buffer[:8], "little", signed=True) == -5:  # of format 5, whose rows had no model
        _, _, start, stop, m, d, k, levels, tries, size, _, _ = _HEADER.unpack_from(buffer)
        return _HEADER.size + 8 * m * (4 + d + k + levels) + tries + stop - start, size
    _, start, stop, m, d, k, tries, size, _, _ = _OLD_HEADER.unpack_from(buffer)
    return _OLD_HEADER.size + 8 * m * (3 + d + k) + tries + stop - start, size


def is_readable(buffer: bytes | bytearray | memoryview) -> bool:
    """Whether a whole buffer is of this layout: an older mpiabc has left others in journals."""
    return int.from_bytes(buffer[:8], "little", signed=True) in (_LAYOUT, _WIDER)


def unpack(buffer: bytes | bytearray | memoryview, several: int = 0) -> Records:
    """The inverse of `pack`; raises ValueError for a buffer that `pack` did not make."""
    if int.from_bytes(buffer[:8], "little", signed=True) == _WIDER and len(buffer) >= _FIRST_HEADER.size:
        return _unpacked_wider(memoryview(buffer))
    if len(buffer) < _HEADER.size:
        raise ValueError(f"a record buffer of {len(buffer)} bytes is shorter than its header")
    layout, job, start, stop, m, d, k, levels, *sizes, seconds = _HEADER.unpack_from(buffer)
    if layout != _LAYOUT:
        raise ValueError(f"a record buffer of layout {-layout}, not {-_LAYOUT}")
    widths, count = {"c": several, "d": d, "k": k, "l": levels}, stop - start
    lengths = [packed_size(m, widths), sizes[0], count, *sizes[1:]]
    at = list(accumulate(lengths, initial=_HEADER.size))
    if len(buffer) != at[-1]:
        raise ValueError(f"a record buffer of {len(buffer)} bytes does not fit its header")
    rows = unpacked(buffer, at[0], m, widths) if m else none(**widths)
    tries = np.frombuffer(buffer, np.int64, sizes[0] // 8, at[1]).reshape(-1, 2) if sizes[0] else None
    status = np.frombuffer(buffer, np.uint8, count, at[2])
    more = json.loads(bytes(buffer[at[3] : at[4]])) if sizes[1] else {}
    return Records(
        job,
        start,
        stop,
        status,
        rows,
        tries,
        tuple(Failure(**f) for f in more.get("failures", ())),
        seconds,
        bytes(buffer[at[4] :]),
        tuple(more.get("notes", ())),
        more.get("exposed", False),
        columns=tuple(more.get("columns", ())),
    )


def _unpacked_wider(buffer: memoryview) -> Records:
    """Records with rejected rows."""
    _, length, stride, several, m, d, c, k, levels = _FIRST_HEADER.unpack_from(buffer)
    widths, at = {"c": c, "d": d, "k": k, "l": levels}, _FIRST_HEADER.size
    if len(buffer) != at + length + packed_size(m, widths):
        raise ValueError(f"a record buffer of {len(buffer)} bytes does not fit its first header")
    records = unpack(buffer[at : at + length], several)
    return replace(records, rejected=unpacked(buffer, at + length, m, widths), stride=stride)


def _more(records: Records) -> bytes:
    """Failures, notes and exposure as JSON; nothing where there are none."""
    if not (records.failures or records.notes or records.is_exposed or records.columns):
        return b""
    described: dict[str, Any] = {"failures": [vars(failure) for failure in records.failures]}
    described |= {"notes": records.notes, "exposed": records.is_exposed}
    return json.dumps(described | ({"columns": records.columns} if records.columns else {})).encode()
