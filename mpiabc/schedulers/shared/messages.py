"""What a leader and its workers say to each other: one vocabulary with one encoding, whatever carries it.

A transport carries a kind and bytes: MPI as a tag and a message, pipes and Redis behind a head of their own.
"""

import json
import pickle
import struct
from enum import IntEnum
from typing import NamedTuple

from mpiabc.records import Lease, Records, pack, unpack
from mpiabc.schedulers.base import Doubted, Lost, Said
from mpiabc.schedulers.shared.transfer import Parcel
from mpiabc.voice import Piece


class Kind(IntEnum):
    """What a message is. Not every transport needs all of them."""

    # To a worker.
    WELCOME = 1  # who leads it, and the problem, or where that is, for one that has none
    JOB = 2
    LEASE = 3
    CANCEL = 4
    NOTE = 5  # from now on, beside this file, what it evaluates
    STOP = 6  # after a good end
    LEAVE = 7  # after any other
    RELEASE = 8  # it is held no longer: nothing will be opened for it any more
    AGAIN = 9  # it is to say again who it is: it was taken for dead
    # From a worker.
    HELLO = 11  # who it is, and of which versions
    RECORDS = 12
    LOST = 13
    DOUBTED = 14
    SAID = 15
    MISSING = 16
    REFUSED = 17  # the problem cannot be had; to a worker: it cannot work for this run
    BROKEN = 18  # it cannot go on
    SIGNALLED = 19  # it was asked to stop
    BEAT = 20  # it lives, and what it holds
    BYE = 21
    # Within a team.
    BEGIN = 31  # its first rank begins a simulation
    END = 32  # and needs the others no more
    WENT = 33
    FAILED = 34


class Cancel(NamedTuple):
    """From `cut` on nothing of this job is wanted, unless a later one says otherwise."""

    job: int
    cut: float


class Missing(NamedTuple):
    """A job that the worker needs and does not have, or names of those of its parts that are missing."""

    job: int
    names: tuple[str, ...] = ()


#: What a worker obeys.
Order = Parcel | Lease | Cancel
#: What it says of its leases.
Answer = Records | Lost | Doubted | Said | Missing

Content = bytes | bytearray | memoryview

_LEASE = struct.Struct("<3q")
_CANCEL = struct.Struct("<qd")


def encoded(message: Order | Answer) -> tuple[Kind, bytes]:
    """The message as a kind and bytes."""
    match message:
        case Parcel():
            return Kind.JOB, pickle.dumps(tuple(message))
        case Lease():
            return Kind.LEASE, _LEASE.pack(*message)
        case Cancel():
            return Kind.CANCEL, _CANCEL.pack(*message)
        case Records():
            return Kind.RECORDS, pack(message)
        case Lost():
            return Kind.LOST, json.dumps(list(vars(message).values())).encode()
        case Doubted():
            return Kind.DOUBTED, json.dumps(message.leases).encode()
        case Said():
            return Kind.SAID, message.piece.pack()
        case Missing():
            return Kind.MISSING, json.dumps(message).encode()


def order_of(kind: int, content: Content) -> Order:
    """What a worker is to obey. Raises ValueError for a message that is no order about jobs and leases."""
    match kind:
        case Kind.JOB:
            return Parcel(*pickle.loads(content))
        case Kind.LEASE:
            return Lease(*_LEASE.unpack(content))
        case Kind.CANCEL:
            return Cancel(*_CANCEL.unpack(content))
    raise ValueError(f"a message of kind {kind} is no order about jobs and leases")


def answer_of(kind: int, content: Content, where: str = "") -> Answer:
    """What a worker says; `where` it is, as its leader calls it, if it has a name for it.

    Raises ValueError for a message that is no answer about jobs and leases.
    """
    match kind:
        case Kind.RECORDS:
            return unpack(content)
        case Kind.LOST:
            lease, worker, *rest = json.loads(bytes(content))
            return Lost(Lease(*lease), where or worker, *rest)
        case Kind.DOUBTED:
            return Doubted(tuple(Lease(*lease) for lease in json.loads(bytes(content))))
        case Kind.SAID:
            return Said(where, Piece.unpack(bytes(content)))
        case Kind.MISSING:
            job, names = json.loads(bytes(content))
            return Missing(job, tuple(names))
    raise ValueError(f"a message of kind {kind} is no answer about jobs and leases")
