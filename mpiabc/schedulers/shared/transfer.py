"""Jobs as bytes that travel once: large parts that a receiver has are not sent again."""

import hashlib
import pickle
from collections.abc import Collection, Iterable
from typing import NamedTuple

from mpiabc import mapped
from mpiabc.schedulers.base import Job

_LARGE = 4096  # bytes from which a buffer travels for itself

Parts = list[tuple[str, bytes]]


def parts(job: object) -> Parts:
    """A job as bytes, then its large buffers, each with its hash: they may be those of another."""
    aside: list[bytes] = []

    def put_aside(buffer: pickle.PickleBuffer) -> bool:
        is_large = buffer.raw().nbytes >= _LARGE
        if is_large:
            aside.append(bytes(buffer.raw()))
        return not is_large

    body = mapped.dumps(job, protocol=5, buffer_callback=put_aside)
    return [(key(part), part) for part in (body, *aside)]


def key(part: bytes) -> str:
    """What a part is called."""
    return hashlib.sha256(part).hexdigest()


def joined(body: bytes, *aside: bytes) -> Job:
    """The inverse of `parts`; arrays can be written to, as they always could."""
    return pickle.loads(body, buffers=[bytearray(buffer) for buffer in aside])


class Parcel(NamedTuple):
    """A job on its way: which others stay open beside it, its parts by name, and those that come along."""

    number: int
    beside: tuple[int, ...]
    names: tuple[str, ...]
    new: dict[str, bytes]


def parcel(number: int, parts: Parts, beside: Iterable[int] = (), there: Collection[str] = ()) -> Parcel:
    """A job as its parts, for who has those that are `there`."""
    new = {name: part for name, part in parts if name not in there}
    return Parcel(number, tuple(beside), tuple(name for name, _ in parts), new)


class Sender:
    """Jobs for receivers that get all of this sender's parcels, in order."""

    def __init__(self) -> None:
        self._sent: dict[int, tuple[str, ...]] = {}  # names of parts, by job

    def parcel(self, number: int, parts: Parts, beside: Collection[int] = ()) -> Parcel:
        """The job, with the parts that no job has which was open until now."""
        made = parcel(number, parts, beside, {name for names in self._sent.values() for name in names})
        self._sent = {job: names for job, names in self._sent.items() if job in beside}
        self._sent[number] = made.names
        return made


class Receiver:
    """The other side of a Sender."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, ...]] = {}  # of parts, by job
        self._parts: dict[str, bytes] = {}

    def lacking(self, parcel: Parcel) -> list[str]:
        """What the parcel's job needs that is neither in it nor here."""
        return [name for name in parcel.names if name not in parcel.new and name not in self._parts]

    def take(self, parcel: Parcel) -> None:
        """Keep its parts, and let those go that no open job has any more."""
        there = self._parts | parcel.new
        self._names = {job: names for job, names in self._names.items() if job in parcel.beside}
        self._names[parcel.number] = parcel.names
        self._parts = {name: there[name] for names in self._names.values() for name in names}

    def job(self, number: int) -> Job:
        """The job of a parcel that was taken."""
        return joined(*(self._parts[name] for name in self._names[number]))
