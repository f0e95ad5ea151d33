"""A view of a run: what its file and its last sign of life say, at a time that is given. Pure.

Terminal, page and `mpiabc show` show the same view, so they agree on what is going on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from mpiabc.driver import Progressed
from mpiabc.durations import duration
from mpiabc.errors import resumable_status
from mpiabc.population import short
from mpiabc.progress import described
from mpiabc.store.glance import Contents, Row
from mpiabc.store.live import Failed, Sign, sign_from
from mpiabc.store.roster import Host, Worker

_SILENCE = 10.0  # seconds; a run gives a sign of life every second
_ABSENCE = 2.0  # seconds, where nobody is there who could give one; containers hide processes, though


class State(Enum):
    """What a run is at."""

    ABSENT = "not there"
    EMPTY = "never started"
    BEGUN = "begun"  # no sign of life yet, or the file was left without a word
    RUNNING = "running"
    SILENT = "silent"  # killed, suspended, or held up
    KILLED = "killed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True)
class Seen:
    """What onlookers have read.

    contents: what the file says, or None; sign: the last sign of life; age: seconds since that was
    given; is_gone: the leader was a process of this machine, which is not there any more.
    """

    name: str
    contents: Contents | None
    sign: Sign | None = None
    age: float = 0.0
    is_gone: bool = False


@dataclass(frozen=True)
class View:
    """A run, as it is shown."""

    name: str
    problem: str
    state: State
    said: str  # the state, in a sentence
    generations: int
    rows: tuple[Row, ...]
    progressed: Progressed | None  # how far the open generation is, or was when it was last heard of
    epsilon: str  # in force, or of the last generation
    leader: str
    age: float | None  # of the last sign of life
    workers: tuple[Worker, ...]
    hosts: tuple[Host, ...]
    failed: int
    failures: tuple[Failed, ...]  # the last ones, the newest first
    warnings: tuple[str, ...]

    @property
    def version(self) -> str:
        """What changes with the committed generations, and with nothing else."""
        return f"{self.generations}-{self.rows[-1].digest[:12]}" if self.rows else "0"

    @property
    def status(self) -> int:
        """The exit status of who has watched it to its end: that of the run, as far as is known."""
        ends = {State.RUNNING: 0, State.ENDED: 0, State.INTERRUPTED: resumable_status()}
        return ends.get(self.state, 1)


def view_of(seen: Seen) -> View:
    """What is shown of it."""
    contents, sign = seen.contents or Contents(), seen.sign
    state = _state(seen)
    progressed = None if sign is None else sign.progressed
    return View(
        name=seen.name,
        problem=contents.problem,
        state=state,
        said=_said(state, seen),
        generations=contents.generations or 0,
        rows=contents.rows,
        progressed=progressed,
        epsilon=_epsilon(contents, progressed),
        leader="" if sign is None else leader_of(sign),
        age=None if sign is None else seen.age,
        workers=() if sign is None else tuple(sign.workers),
        hosts=() if sign is None else tuple(sign.hosts),
        failed=contents.failed + (progressed.failures if progressed else 0),
        failures=_last_failures(contents, sign),
        warnings=contents.warnings,
    )


def view_of_broker(announced: Mapping[str, Any]) -> View:
    """What a run says of itself where its workers look for it; its file is somewhere else."""
    sign = sign_from((announced["state"] or {}).get("sign"))
    level = 0 if sign is None else sign.progressed.level
    name, place = str(announced["name"]), f"process {announced['process']} on {announced['host']}"
    view = view_of(Seen(f"{name} of {place}", Contents(name, level), sign))
    return view if sign else replace(view, said="it is there, and has not begun", leader=place)


def leader_of(sign: Sign) -> str:
    """The process that leads, or led."""
    return f"process {sign.process} on {sign.host}"


def is_fresh(seen: Seen) -> bool:
    """Whether the run goes on, as far as can be seen."""
    return seen.sign is not None and seen.age < (_ABSENCE if seen.is_gone else _SILENCE)


def _state(seen: Seen) -> State:
    contents = seen.contents
    if contents is None:
        return State.ABSENT
    if seen.sign is not None:
        return State.RUNNING if is_fresh(seen) else State.KILLED if seen.is_gone else State.SILENT
    if contents.generations is None:
        return State.EMPTY
    if contents.reason is None:
        return State.BEGUN
    kind, colon, _ = contents.reason.partition(": ")
    ends = {"interrupted": State.INTERRUPTED, "failed": State.FAILED}
    return ends.get(kind, State.ENDED) if colon else State.ENDED


def _said(state: State, seen: Seen) -> str:
    """The state, in a sentence, with what to do about it."""
    if seen.sign is not None:
        return _said_of_sign(state, seen, seen.sign)
    contents = seen.contents or Contents()
    sentences = {
        State.ABSENT: "there is no such file yet",
        State.EMPTY: "no run has begun in it",
        State.BEGUN: "it has begun and gives no sign of life: it is about to go on, or was killed",
        State.INTERRUPTED: f"{contents.reason}: run the same command again to go on",
        State.FAILED: f"{contents.reason}",
        State.ENDED: f"it has come to its end: {contents.reason}",
    }
    return sentences[state]


def _said_of_sign(state: State, seen: Seen, sign: Sign) -> str:
    last, leader = described(sign.progressed), leader_of(sign)
    if state is State.RUNNING:
        return f"it goes on: {last} ({leader})"
    silent = f"no sign of life for {duration(max(0.0, seen.age))}"
    why = "it was killed or suspended, or its leader is held up"
    if state is State.KILLED:
        why = "it was killed, as its leader is not there any more"
    return f"{silent}: {why} ({leader}); the last: {last}"


def _epsilon(contents: Contents, progressed: Progressed | None) -> str:
    if progressed is not None:
        return short(progressed.epsilon)
    last = contents.rows[-1].epsilon if contents.rows else ""
    return contents.open_epsilon or last


def _last_failures(contents: Contents, sign: Sign | None) -> tuple[Failed, ...]:
    """Of the file, and of a generation that is open, each once."""
    failures = [*(sign.failures if sign else ()), *contents.failures]
    return tuple({failure.address: failure for failure in failures}.values())
