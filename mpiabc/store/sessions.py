"""How, when and where a run was begun and gone on with: shown to who reads the file, and judged by nobody."""

import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mpiabc import batch
from mpiabc.version import versions

_MOST = 100  # sessions that are kept, the first and the latest
_LONGEST = 1000  # characters of a command


@dataclass(frozen=True)
class Session:
    """One start of a run: by which command, on which host, with which scheduler and versions.

    began, ended: seconds of the system's clock; ended and reason are None where it had no time to say so.
    workers: as many as there were at the beginning. job: of a batch system, empty outside of one.
    """

    began: float
    command: str
    folder: str
    host: str
    system: str
    process: int
    scheduler: str
    workers: int
    job: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    ended: float | None = None
    reason: str | None = None


def session(scheduler: object, workers: int) -> Session:
    """That of this process, from now on."""
    named = {
        name: str(version) for name, version in versions().items() if name not in ("protocol", "streams")
    }
    return Session(
        began=time.time(),
        command=_unsecret(shlex.join(sys.orig_argv))[:_LONGEST],
        folder=os.getcwd(),
        host=platform.node(),
        system=f"{platform.system()} {platform.machine()}",
        process=os.getpid(),
        scheduler=_unsecret(repr(scheduler))[:_LONGEST],
        workers=workers,
        job=batch.job(),
        versions=named | {"Python": platform.python_version()},
    )


def _unsecret(text: str) -> str:
    """Without what stands before the host in a URL."""
    return re.sub(r"://[^/@\s'\"]*@", "://…@", text)


def joined(sessions: Sequence[Session], latest: Session) -> str:
    """All of them as the file keeps them, with this one as the last, be it known already or not."""
    before = [one for one in sessions if (one.began, one.process) != (latest.began, latest.process)]
    kept = before[:1] + before[1:][-(_MOST - 2) :] + [latest]
    return json.dumps([vars(one) for one in kept])


def sessions_from(kept: Any) -> list[Session]:
    """What a file tells; what later versions add is left out. Raises TypeError for anything else."""
    known = {field.name for field in fields(Session)}
    return [Session(**{name: value for name, value in one.items() if name in known}) for one in kept]
