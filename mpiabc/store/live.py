"""`run.db.live`: how far a run is, for onlookers, who never hold the database.

One JSON object, replaced once a second while the run goes on, and removed at its end: what a run leaves
behind that was killed has an old `at`.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mpiabc.driver import AtWork, Ended, Event, Progressed
from mpiabc.progress import described
from mpiabc.store.place import place_of
from mpiabc.store.roster import Host, Roster, Worker

_PERIOD = 1.0  # seconds between two states
_LATE = 5.0  # seconds after which there will be no other one
_MOST_HOSTS = 8  # that are named where every worker reads it, each second
_MOST_TEXT = 200  # characters of what failed


@dataclass(frozen=True)
class Sign:
    """A sign of life: how far the run was `at` a time of the system's clock, by the process that leads.

    workers, hosts: who works for it, as far as its engine knows; failures: the last ones.
    """

    progressed: Progressed
    at: float
    began: float
    host: str
    process: int
    workers: Sequence[Worker] = ()
    hosts: Sequence[Host] = ()
    failures: Sequence["Failed"] = ()


@dataclass(frozen=True)
class Failed:
    """An evaluation that failed, in words."""

    address: str
    kind: str
    theta: str
    error: str
    where: str

    @classmethod
    def of(cls, address: str, kind: str, theta: Any, error: str, where: str) -> "Failed":
        """The first line of what it says; numbers are rounded."""
        line = (error.splitlines() or [""])[0]
        return cls(*(text[:_MOST_TEXT] for text in (address, kind, _rounded(theta), line, where)))


def _rounded(theta: Any) -> str:
    """Parameters in words; what is none, as it is."""
    if not isinstance(theta, dict):
        return str(theta)
    texts = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in theta.items()
    }
    return ", ".join(f"{name}={text}" for name, text in texts.items())


class Signs:
    """Makes signs of life of the events of a run, at most one a second, and gives them to `write`."""

    def __init__(self, write: Callable[[Sign], None]) -> None:
        self._write = write
        self._began = time.time()
        self._next = 0.0
        self._host, self._process = platform.node(), os.getpid()
        self._roster = Roster(self._host)
        self._who: tuple[list[Worker], list[Host], list[Failed]] = [], [], []

    def __call__(self, event: Event) -> None:
        """Note how far the run is."""
        if isinstance(event, AtWork):
            self._roster.look(event.workers)
            by_address = {
                f.address: Failed.of(f.address, f.kind, f.theta, f.error, f.where) for f in event.failures
            }
            self._who = self._roster.workers(), self._roster.hosts(), list(by_address.values())[::-1]
        if isinstance(event, Progressed) and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PERIOD
            self._write(Sign(event, time.time(), self._began, self._host, self._process, *self._who))


class Live:
    """Writes the file beside a run's, as the run is observed."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self._path = path_of(store)
        self._note = Signs(self._replace)

    def __call__(self, event: Event) -> None:
        """Note how far the run is. What cannot be written is left out: the run matters more."""
        with suppress(OSError):
            if isinstance(event, Ended):
                self._path.unlink(missing_ok=True)
            self._note(event)

    def _replace(self, sign: Sign) -> None:
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps(asdict(sign)))
        part.replace(self._path)


def for_broker(sign: Sign) -> dict[str, Any]:
    """What of a sign of life a broker shows, as JSON; its workers read that too, so it is short."""
    short = replace(sign, workers=(), hosts=tuple(sign.hosts)[:_MOST_HOSTS], failures=())
    return {"told": described(sign.progressed), "sign": asdict(short)}


def path_of(store: str | os.PathLike[str]) -> Path:
    """The file's place: beside the run's file, by whatever name that is given."""
    path = place_of(store)
    return path.with_name(path.name + ".live")


def goes_on(store: str | os.PathLike[str]) -> bool:
    """Whether a run with this file gives another sign of life, if it has ever given one."""
    before, until = read(store), time.monotonic() + _LATE
    while before is not None and time.monotonic() < until:
        time.sleep(_PERIOD / 10)
        if (after := read(store)) is not None and after.at != before.at:
            return True
    return False


def read(store: str | os.PathLike[str]) -> Sign | None:
    """The last sign of life of the run in this file; None if there is none, or of another mpiabc."""
    with suppress(OSError, ValueError, RecursionError):
        return sign_from(json.loads(path_of(store).read_text()))
    return None


def sign_from(found: Any) -> Sign | None:
    """A sign of life from JSON; None if it is none, or of another mpiabc."""
    try:
        lists = {
            name: tuple(kind(**each) for each in found.get(name, ()))
            for name, kind in (("workers", Worker), ("hosts", Host), ("failures", Failed))
        }
        sign = Sign(**{**found, **lists, "progressed": Progressed(**found["progressed"])})
        return sign if _is_sound(sign) else None
    except (AttributeError, TypeError, KeyError):
        return None


def _is_sound(sign: Sign) -> bool:
    """Whether what is computed with are numbers, and what is shown is text, whoever has written it."""
    p, texts = sign.progressed, [sign.host, sign.progressed.counted, sign.progressed.models]
    numbers = [sign.at, sign.began, sign.process, p.level, p.size, p.accepted, p.simulations, p.failures]
    numbers += [p.seconds, p.workers, p.busy, p.had_simulations, p.had_accepted]
    for worker in sign.workers:
        numbers += [worker.seconds, worker.share]
        texts += [worker.who, worker.at]
    for host in sign.hosts:
        numbers += [host.workers, host.busy, host.share, host.longest]
        texts.append(host.host)
    for failed in sign.failures:
        texts += vars(failed).values()
    epsilons = p.epsilon if isinstance(p.epsilon, list) else [p.epsilon]
    return all(isinstance(n, int | float) for n in [*numbers, *epsilons]) and all(
        isinstance(text, str) for text in texts
    )
