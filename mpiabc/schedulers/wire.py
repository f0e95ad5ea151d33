"""The wire that carries messages between the ranks of a run, and the bodies that only ranks know."""

import contextlib
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from types import ModuleType

from mpiabc.errors import SchedulerError
from mpiabc.schedulers.foreign import Comm, MPIError, Request
from mpiabc.schedulers.shared.messages import Answer, Kind, Order, encoded
from mpiabc.schedulers.together import Backoff

SECONDS_BODY = struct.Struct("<d")
BEGIN_BODY = struct.Struct("<4q?")  # a lease, the first address in work, whether with a new communicator
_LOOKS = 4  # at what was sent before, with each message
_FRAME = struct.Struct("<QQ")  # the run and a checksum, before each message: jobs of one node share memory


class Wire:
    """Messages of bytes over a communicator, none of which waits for the other side."""

    def __init__(self, comm: Comm, library: ModuleType, names: Sequence[int] | None = None) -> None:
        """names: what the run calls the ranks of `comm`, if something else."""
        self.comm = comm
        self._library = library
        self._names = range(comm.size) if names is None else names
        self._status = library.Status()
        self._lock = threading.Lock()  # one thread sends while another may be asked to
        self._sent: deque[tuple[Request, bytes]] = deque()  # requests with their buffers, until these are out
        self.run = 0  # rank 0 draws a number, which the others learn with its WELCOME
        self.failed: set[int] = set()  # dead ranks, as far as seen (with fault tolerance only)
        if names is not None:  # an earlier wire may have seen what MPI tells once
            self.failed |= {rank for rank, name in enumerate(names) if name in dead}

    def send(self, rank: int, tag: int, content: bytes = b"") -> None:
        """Start sending; what is sent to a dead rank is lost with it."""
        self.post(rank, tag, self.framed(content))

    def framed(self, content: bytes) -> bytes:
        """A message as it travels in this run, to one rank or to many."""
        return _FRAME.pack(self.run, zlib.crc32(content)) + content

    def post(self, rank: int, tag: int, framed: bytes) -> None:
        """Start sending what is framed."""
        with self._lock, self._failures_noted():
            self._let_go()
            request = self.comm.Isend([framed, self._library.BYTE], dest=rank, tag=tag)
            self._sent.append((request, framed))

    def _let_go(self) -> None:
        """Drop some of what is out by now: more than comes in, and never all of what waits is looked at."""
        for _ in range(min(_LOOKS, len(self._sent))):
            entry = self._sent.popleft()
            if not self._is_sent(entry[0]):
                self._sent.append(entry)

    def tell(self, rank: int, message: Order | Answer) -> None:
        """Start sending what leaders and workers of all kinds say to each other."""
        self.send(rank, *encoded(message))

    def receive(self) -> tuple[int, int, memoryview] | None:
        """The next message of this run as (rank, tag, content), if one is there.

        Raises SchedulerError for one that is not what was sent.
        """
        while message := self._receive():
            rank, tag, framed = message
            run, crc = _FRAME.unpack_from(framed)
            content = memoryview(framed)[_FRAME.size :]
            if zlib.crc32(content) != crc:
                raise SchedulerError(f"a message of rank {rank} arrived damaged: run the same command again")
            if tag in (Kind.WELCOME, Kind.RELEASE):
                self.run = run
            if run == self.run:
                return rank, tag, content
        return None

    def _receive(self) -> tuple[int, int, bytearray] | None:
        status = self._status
        with self._failures_noted():
            # The first probe may only move the message in; both MPIs were seen to answer at the second.
            if self._probe() or self._probe():
                rank, tag = status.source, status.tag
                content = bytearray(status.Get_count(self._library.BYTE))
                self.comm.Recv([content, self._library.BYTE], source=rank, tag=tag)
                return rank, tag, content
        return None

    def is_there(self, rank: int, tag: int) -> bool:
        """Whether such a message has come, which may be of an earlier run."""
        with self._failures_noted():
            return self.comm.Iprobe(source=rank, tag=tag)
        return False

    def _probe(self) -> bool:
        anyone, anything = self._library.ANY_SOURCE, self._library.ANY_TAG
        return self.comm.Iprobe(source=anyone, tag=anything, status=self._status)

    def flush(self, seconds: float) -> None:
        """Wait until all is sent, at most so long."""
        end, backoff = time.monotonic() + seconds, Backoff()
        while time.monotonic() < end and not all(self._is_sent(request) for request, _ in self._sent):
            backoff.wait()
        unsent.extend(entry for entry in self._sent if not self._is_sent(entry[0]))

    def _is_sent(self, request: Request) -> bool:
        try:
            return request.Test()
        except self._library.Exception as error:
            self._note_failures(error)
            return True  # to a dead rank: as good as sent

    @contextlib.contextmanager
    def _failures_noted(self) -> Iterator[None]:
        """Note dead ranks instead of raising; an MPI without fault tolerance ends the job itself."""
        try:
            yield
        except self._library.Exception as error:
            self._note_failures(error)

    def _note_failures(self, error: MPIError) -> None:
        """Note who is dead, as MPI says; raise what it says of anything else."""
        if error.error_class not in self._about_failures():
            raise error
        self.comm.Ack_failed()
        failed = self.comm.Get_failed()
        self.failed |= set(failed.Translate_ranks(range(failed.size), self.comm.group))
        dead.update(self._names[rank] for rank in self.failed)

    def _about_failures(self) -> set[int]:
        names = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING")
        return {getattr(self._library, name) for name in names if hasattr(self._library, name)}


dead: set[int] = set()  # ranks of any communicator that died
#: Buffers that MPI may still read, for a rank that is busy when the run ends.
unsent: list[tuple[Request, bytes]] = []
