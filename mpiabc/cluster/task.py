"""The task's side of a map: one process of a job, which computes some of the items.

It writes what came of them into files of their own, complete when they appear, and where it is into one
that grows: its host at once, and each item as it begins.
"""

import base64
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from mpiabc.errors import ProblemError, SchedulerError, shortened
from mpiabc.programs import Programs
from mpiabc.signals import DOUBT
from mpiabc.voice import put


@dataclass(frozen=True)
class Failed:
    """What an item has raised, as it travels; `index` is its place in the user's list."""

    index: int
    where: str
    text: str  # the traceback
    pickled: str  # the exception in base64; empty if it is none that can travel, or that may be raised here

    @classmethod
    def of(cls, error: BaseException, index: int) -> "Failed":
        """What the item of this index has raised."""
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        lines = traceback.TracebackException(type(error), error, inner).format()
        return cls(index, platform.node(), "".join(map(shortened, lines)).rstrip(), _travelling(error))

    @property
    def address(self) -> str:
        """The item, and where it was computed."""
        return f"items[{self.index}], on {self.where}"

    def exception(self) -> Exception:
        """What the item has raised, with the remote traceback as its cause.

        A SchedulerError stands for what cannot travel, and for what would end this process without a word.
        """
        try:
            error = cloudpickle.loads(base64.b64decode(self.pickled))
        except Exception:
            error = SchedulerError(f"items[{self.index}] has failed: {self.text.splitlines()[-1]}")
        error.__cause__ = RemoteError(self.text)
        error.add_note(self.address)
        return error

    def to_json(self) -> str:
        """It as text, which who only looks need not unpickle."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Failed":
        """It, of that text."""
        return cls(**json.loads(text))


class RemoteError(Exception):
    """A traceback from a node."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _travelling(error: BaseException) -> str:
    """The pickled exception; none of KeyboardInterrupt, SystemExit and their kin, which are wishes there."""
    try:
        content = cloudpickle.dumps(error)
        cloudpickle.loads(content)
    except BaseException:
        return ""
    return base64.b64encode(content).decode() if isinstance(error, Exception) else ""


def work(folder: str, label: str) -> None:
    """Compute one task; `label` is its round and its index in the round's job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends the task: a KeyboardInterrupt is an item's own
    here = Path(folder)
    round, index = label.split("-")
    task = json.loads((here / f"round-{round}.json").read_text())[int(index) - 1]
    put(f"task {task} on {platform.node()}, process {os.getpid()}\n", sys.stdout)
    with open(here / f"{label}.at", "w") as at:
        print(json.dumps({"host": platform.node(), "process": os.getpid(), "began": time.time()}), file=at)
        at.flush()
        try:
            f = cloudpickle.loads((here / "function").read_bytes())
            first, items = cloudpickle.loads((here / f"{task}.in").read_bytes())
        except ProblemError as error:  # a file that they map is not here
            write(here / f"{task}.broken", str(error).encode())
            raise
        except Exception:
            write(here / f"{task}.broken", traceback.format_exc().encode())
            raise
        programs = Programs()
        outcomes = []
        for i, item in enumerate(items, first):
            print(i, file=at, flush=True)
            outcomes.append(_outcome(f, item, i))
            if failed := outcomes[-1][1]:
                _settle(programs)
                write(here / f"{i}.failed", failed.to_json().encode())
        _settle(programs)
        write(here / f"{task}.out", cloudpickle.dumps(outcomes))


def _settle(programs: Programs) -> None:
    """A signal to the whole job may have ended a program of an item; then it ends us within a second."""
    if programs.were_run():
        time.sleep(DOUBT)


def _outcome(f: Callable[[Any], Any], item: Any, index: int) -> tuple[bytes, Failed | None]:
    """The pickled result of an item, or what it has raised, whatever that is."""
    try:
        return cloudpickle.dumps(f(item)), None
    except BaseException as error:
        return b"", Failed.of(error, index)


def write(path: Path, content: bytes) -> None:
    """Write a file that is complete when it appears."""
    part = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
