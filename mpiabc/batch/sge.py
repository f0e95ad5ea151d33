"""Grid Engine: how it takes array jobs, and what its commands print."""

import os
import re
import signal

from mpiabc import durations
from mpiabc.batch.age import age_of_job
from mpiabc.batch.commands import CommandError, command, user
from mpiabc.batch.ending import Ending, Listed, Why


def submission(name: str, n: int, log: str) -> list[str]:
    """With a warning before the end: SIGUSR2 tells a `qdel` from what else kills a task."""
    words = ["-terse", "-N", name, "-t", f"1-{n}", "-notify"]
    return [*words, "-cwd", "-V", "-S", "/bin/bash", "-j", "y", "-o", log]


def limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    """Time and memory of a task, and its queue, in words of the submission."""
    words = ["-l", f"h_rt={seconds}" + (f",h_vmem={memory}" if memory else "")]
    return [*words, "-q", queue] if queue else words


def states() -> list[Listed]:
    """The tasks of this user."""
    from xml.etree import ElementTree  # asked for by who maps: workers and runs need none

    output = command("qstat", "-u", user(), "-g", "d", "-xml")
    try:
        rows = list(ElementTree.fromstring(output).iter("job_list"))
    except ElementTree.ParseError as error:
        raise CommandError(f"`qstat -xml` prints no XML ({error}): {output[:200]!r}") from None
    return [
        (
            row.findtext("JB_job_number", ""),
            int(row.findtext("tasks") or 1),
            _state(row.findtext("state", "")),
        )
        for row in rows
    ]


def _state(letters: str) -> str:
    if "E" in letters:
        return "error"
    if "d" in letters:
        return "deleted"
    return "waits" if "q" in letters or "h" in letters else "runs"


_LIMIT = 37  # the `failed` of tasks that were ended at a limit
_WARNED = 128 + signal.SIGUSR2  # the exit status of those that were warned: of a `qdel`, if of no limit


def endings(job: str, n: int) -> dict[int, Ending]:
    """From the accounting, which has no record of tasks that have never begun."""
    try:
        output = command("qacct", "-j", job, pauses=())
    except CommandError as error:
        if "not found" in str(error):
            return {}
        raise
    records = (
        dict(re.findall(r"^(\w+)[ \t]+(.*?)[ \t]*$", record, re.MULTILINE))
        for record in re.split("^=+$", output, flags=re.MULTILINE)
    )
    return {
        int(record["taskid"]): _ending(record) for record in records if record.get("taskid", "").isdigit()
    }


def _ending(record: dict[str, str]) -> Ending:
    failed, status = (record.get(name, "0").split() for name in ("failed", "exit_status"))
    ran = float(record.get("ru_wallclock", "0").rstrip("s"))
    limit = re.search(r"h_rt=(\d+)", record.get("category", ""))
    output = f"failed {' '.join(failed)}, exit status {status[0]}, after {durations.clock(int(ran))}"
    output += f" of {durations.clock(int(limit[1]))}" if limit else ""
    output += f" on {record.get('hostname', '?')}"
    if int(failed[0]) == _LIMIT:
        return Ending(Why.TIME if limit is None or ran >= int(limit[1]) else Why.MEMORY, output)
    is_deleted = int(status[0]) == _WARNED or record.get("deleted_by", "NONE") != "NONE"
    return Ending(Why.CANCELLED if is_deleted else Why.LOST, output)


def left(job: str) -> float | None:
    """The smallest of the limits that the job has requested and its queue has, since the job began."""
    output = command("qstat", "-j", job) + command("qconf", "-sq", os.environ.get("QUEUE", "all.q"))
    found = [
        limit for limit in map(durations.of_clock, re.findall(r"\b[sh]_rt(?:=|\s+)([\d:]+)", output)) if limit
    ]
    return min(found) - age_of_job("JOB_ID") if found else None
