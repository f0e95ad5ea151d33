"""Who works for a run, by looks at those who hold leases, one after another. Pure: it knows no clock."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from mpiabc.schedulers.silence import Awaited

_FORGOTTEN = 60  # looks after which who holds nothing is taken for gone
_MOST_WORKERS = 32  # that are told one by one: those that have been at something for longest
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

    first: int
    last: int = 0
    busy: int = 0
    at: str = ""
    seconds: float = 0.0


class Roster:
    """The workers seen; `home` is the host of those whose names do not say theirs."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._looks = 0
        self._entries: dict[str, _Entry] = {}

    def look(self, awaited: Iterable[Awaited]) -> None:
        """Note who is at what now; who is at nothing has not come yet, perhaps under another name."""
        self._looks += 1
        for one in filter(attrgetter("at"), awaited):
            entry = self._entries.setdefault(one.who, _Entry(self._looks))
            entry.last, entry.busy = self._looks, entry.busy + 1
            entry.at, entry.seconds = one.at, one.seconds
        oldest = self._looks - _FORGOTTEN
        self._entries = {who: entry for who, entry in self._entries.items() if entry.last > oldest}

    def workers(self) -> list[Worker]:
        """Those that are at something for longest, and as many of the others as are told."""
        return sorted(map(self._worker, self._entries), key=_slowest)[:_MOST_WORKERS]

    def hosts(self) -> list[Host]:
        """The machines, those with the most workers first."""
        by_host: dict[str, list[Worker]] = {}
        for who in self._entries:
            found = _HOST.search(who)
            by_host.setdefault(found[1] if found else self._home, []).append(self._worker(who))
        hosts = [_summed(host, workers) for host, workers in by_host.items()]
        return sorted(hosts, key=lambda host: (-host.workers, host.host))[:_MOST_HOSTS]

    def _worker(self, who: str) -> Worker:
        entry = self._entries[who]
        share = entry.busy / (self._looks - entry.first + 1)
        is_busy = entry.last == self._looks
        return Worker(who, entry.at if is_busy else "", round(entry.seconds, 1) * is_busy, round(share, 3))


def _slowest(worker: Worker) -> tuple[float, str]:
    return -worker.seconds, worker.who


def _summed(host: str, workers: list[Worker]) -> Host:
    busy = [worker for worker in workers if worker.at]
    share = sum(worker.share for worker in workers) / len(workers)
    longest = max((worker.seconds for worker in busy), default=0.0)
    return Host(host, len(workers), len(busy), round(share, 3), longest)
