"""Slurm: how it takes array jobs, what its commands print, and what its job scripts are filled in with."""

import os
import re
import time
from collections.abc import Iterator

from mpiabc import durations
from mpiabc.batch.commands import CommandError, command, user
from mpiabc.batch.ending import Ending, Listed, Why
from mpiabc.batch.layout import Layout, scaled


def submission(name: str, n: int, log: str) -> list[str]:
    """The words of a submission, without limits."""
    words = ["--parsable", f"--job-name={name}", f"--array=1-{n}", "--ntasks=1"]
    return [*words, f"--output={log}", "--open-mode=append", "--export=ALL"]


def limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    """Memory, time and partition of a task, in words of the submission."""
    words = {"mem": memory, "partition": queue, "time": durations.clock(seconds)}
    return [f"--{name}={value}" for name, value in words.items() if value]


def states() -> list[Listed]:
    """The tasks of this user."""
    output = command("squeue", "--noheader", "--array", "--user", user(), "--format", "%F %K %T")
    words = {"PENDING": "waits", "REQUEUED": "waits", "CONFIGURING": "waits", "COMPLETING": "ends"}
    return [
        (job, int(index), words.get(state, "runs"))
        for job, index, state in (line.split() for line in output.splitlines())
        if index.isdigit()
    ]


_ENDINGS = {
    "CANCELLED": Why.CANCELLED,
    "TIMEOUT": Why.TIME,
    "DEADLINE": Why.TIME,
    "OUT_OF_MEMORY": Why.MEMORY,
}
_GOES_ON = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "COMPLETING", "CONFIGURING", "RESIZING")


def endings(job: str, n: int) -> dict[int, Ending]:
    """From the accounting, and the controller's memory of a few minutes, which is there without it."""
    accounting = ["sacct", "--noheader", "--parsable2", "--allocations", "--array", "--jobs", job]
    memory = ["squeue", "--noheader", "--array", "--states=all", "--jobs", job]
    questions = (
        [*accounting, "--format", "JobID,State,Elapsed,Timelimit,NodeList"],
        [*memory, "--format", "%F_%K|%T|%M|%l|%B"],
    )
    found: dict[int, Ending] = {}
    failed = []
    for words in questions:
        try:
            output = command(*words, pauses=())
        except CommandError as error:
            failed.append(error)
            continue
        for line in output.splitlines():
            name, state, elapsed, limit, *node = line.split("|")
            found |= dict.fromkeys(_indices(name), _ending(state, elapsed, limit, *node))
    if len(failed) == len(questions):
        raise failed[-1]
    return {index: ending for index, ending in found.items() if ending.details}


def _ending(state: str, elapsed: str, limit: str, node: str = "") -> Ending:
    """Of a task that goes on, one that tells nothing."""
    if state.startswith(_GOES_ON):
        return Ending(Why.LOST, "")
    why = _ENDINGS.get(state.split()[0], Why.LOST)
    where = f" on {node}" if node not in ("", "n/a", "None assigned") else ""
    return Ending(why, f"{state} after {elapsed} of {limit}{where}")


def _indices(name: str) -> Iterator[int]:
    """The tasks of "17_3" and of "17_[2-4,7%1]", as those are named that have never begun."""
    for part in re.sub(r"%\d+|[\[\]]", "", name.partition("_")[2]).split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


def left(job: str) -> float | None:
    """The end that Slurm has announced (23.02 and later), else what it says now."""
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end) - time.time()
    return durations.of_clock(command("squeue", "--noheader", "--jobs", job, "--format", "%L"))


def fills(layout: Layout, memory: str, example: str) -> dict[str, str]:
    """Memory is that of a core."""
    return {"memory": scaled(memory or example, 1, layout.cpus)}
