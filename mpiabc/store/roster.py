"""Who works for a run, by looks at those who hold leases, one after another. Pure: it knows no clock."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest

from mpiabc.schedulers.silence import Awaited

_FORGOTTEN = 60  # looks after which who holds nothing is taken for gone
_MOST_WORKERS = 32  # that are named one by one: those that have been at something for longest
_MOST_HOSTS = 64
_HOST = re.compile(r" on ([^\s()]+)\)?$")  # at the end of a worker's name


@dataclass(frozen=True)
class Worker:
    """One that has held a lease lately."""

    who: str
    at: str  # the evaluations that it is at; empty: it waits for some
    seconds: float  # since it was given them, or brought some home
    share: float  # of the looks, in which it held a lease


@dataclass(frozen=True)
class Host:
    """The workers of a machine."""

    host: str
    workers: int
    busy: int
    share: float  # of the looks at them, in which they held a lease
    longest: float  # seconds that the slowest is at something


@dataclass
class _Entry:
    """What is known of a worker by the number of a look."""

    who: str
    host: str
    first: int
    last: int = 0
    busy: int = 0
    at: str = ""
    seconds: float = 0.0

    def share(self, looks: int) -> float:
        """Of so many looks, those since it came, in which it held a lease."""
        return self.busy / (looks - self.first + 1)


class Roster:
    """The workers seen; `home` is the host of those whose names do not say theirs."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._looks = 0
        self._entries: dict[str, _Entry] = {}

    def look(self, awaited: Iterable[Awaited]) -> None:
        """Note who is at what now; who is at nothing has not come yet, perhaps under another name."""
        self._looks += 1
        for who, at, seconds, _ in awaited:
            if at:
                entry = self._entries.get(who) or self._come(who)
                entry.last, entry.busy, entry.at, entry.seconds = self._looks, entry.busy + 1, at, seconds
        oldest = self._looks - _FORGOTTEN
        for who in [who for who, entry in self._entries.items() if entry.last <= oldest]:
            del self._entries[who]

    def workers(self) -> list[Worker]:
        """Those that are at something for longest, and as many of the others as are named."""
        slowest = nsmallest(_MOST_WORKERS, self._entries.values(), key=self._slowest)
        return [self._worker(entry) for entry in slowest]

    def hosts(self) -> list[Host]:
        """The machines, those with the most workers first."""
        by_host: dict[str, list[_Entry]] = {}
        for entry in self._entries.values():
            by_host.setdefault(entry.host, []).append(entry)
        hosts = [self._summed(host, entries) for host, entries in by_host.items()]
        return sorted(hosts, key=lambda host: (-host.workers, host.host))[:_MOST_HOSTS]

    def _come(self, who: str) -> _Entry:
        found = _HOST.search(who)
        entry = self._entries[who] = _Entry(who, found[1] if found else self._home, self._looks)
        return entry

    def _is_busy(self, entry: _Entry) -> bool:
        return entry.last == self._looks

    def _slowest(self, entry: _Entry) -> tuple[float, str]:
        return -entry.seconds * self._is_busy(entry), entry.who

    def _worker(self, entry: _Entry) -> Worker:
        at, seconds = (entry.at, round(entry.seconds, 1)) if self._is_busy(entry) else ("", 0.0)
        return Worker(entry.who, at, seconds, round(entry.share(self._looks), 3))

    def _summed(self, host: str, entries: list[_Entry]) -> Host:
        busy = [entry.seconds for entry in entries if self._is_busy(entry)]
        share = sum(entry.share(self._looks) for entry in entries) / len(entries)
        return Host(host, len(entries), len(busy), round(share, 3), round(max(busy, default=0.0), 1))
