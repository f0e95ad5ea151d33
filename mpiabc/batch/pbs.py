"""OpenPBS, PBS Professional and Torque: how they take array jobs, what they print, what they give a job."""

import os
import re
import shutil
import time
from datetime import datetime

from mpiabc import durations
from mpiabc.batch.age import age_of_job
from mpiabc.batch.commands import CommandError, command
from mpiabc.batch.ending import Ending, Listed, Why
from mpiabc.batch.layout import Layout, part, scaled
from mpiabc.errors import SchedulerError


def submission(name: str, n: int, log: str) -> list[str]:
    """The words of a submission, without limits; OpenPBS takes no array of one."""
    array = [] if n == 1 else ["-J" if _is_open_pbs() else "-t", f"1-{n}"]
    return ["-N", name, *array, "-V", "-S", "/bin/bash", "-j", "oe", "-o", log]


def limits(memory: str | None, seconds: int, queue: str | None) -> list[str]:
    """Memory, time and queue of a task, in words of the submission."""
    size = _size(memory) if memory else None
    node = "select=1:ncpus=1" + (f":mem={size}" if size else "")
    if not _is_open_pbs():
        node = "nodes=1:ppn=1" + (f",mem={size}" if size else "")
    words = ["-l", node, "-l", f"walltime={durations.clock(seconds)}"]
    return [*words, "-q", queue] if queue else words


def states() -> list[Listed]:
    """The tasks of this user."""
    output = command("qstat", "-t")
    rows = re.findall(r"^(\d+)(?:\[(\d+)\])?[.\s]\S*\s.*\s([A-Z])\s+\S+\s*$", output, re.MULTILINE)
    words = {"Q": "waits", "H": "waits", "W": "waits", "T": "waits", "E": "ends"}
    return [
        (job, int(index or 1), words.get(state, "runs")) for job, index, state in rows if state not in "CFXM"
    ]


_ENDINGS = {
    271: Why.CANCELLED,  # 256 + SIGTERM
    -29: Why.TIME,  # of OpenPBS
    -27: Why.MEMORY,
    -26: Why.MEMORY,
    -11: Why.TIME,  # of Torque
    -10: Why.MEMORY,
}


def endings(job: str, n: int) -> dict[int, Ending]:
    """From the server's history, for as long as it keeps one."""
    history = ["-x"] if _is_open_pbs() else []
    output = command("qstat", *history, "-f", "-t", whole(job, n), pauses=())
    found = {}
    for record in re.split(r"^Job Id:", output, flags=re.MULTILINE):
        name = re.match(r"\s*\d+(?:\[(\d+)\])?\.", record)
        values = dict(re.findall(r"^\s*([\w.]+) = (.*)$", record, re.MULTILINE))
        if name and (status := values.get("Exit_status", values.get("exit_status", ""))):
            found[int(name[1] or 1)] = _ending(int(status), values)
    return found


def _ending(status: int, values: dict[str, str]) -> Ending:
    """An older PBS gives a task the same status by `qdel` and at its time limit."""
    ran, limit = values.get("resources_used.walltime", "?"), values.get("Resource_List.walltime", "?")
    why, used, most = _ENDINGS.get(status, Why.LOST), durations.of_clock(ran), durations.of_clock(limit)
    if why is Why.CANCELLED and used is not None and most is not None and used >= most:
        why = Why.TIME
    return Ending(why, f"exit status {status} after {ran} of {limit}")


def whole(job: str, n: int) -> str:
    """What `qdel` and `qstat` know a job of so many tasks by."""
    return job if n == 1 else f"{job}[]"


def _is_open_pbs() -> bool:
    """OpenPBS or PBS Professional, not Torque."""
    try:
        return "pbs_version" in command("qsub", "--version", pauses=())
    except CommandError as error:
        if shutil.which("qconf"):
            raise SchedulerError(
                "system='pbs': the qsub that is here is Grid Engine's, give system='sge'"
            ) from error
        raise


def left(job: str) -> float | None:
    """Torque's variable, else `qstat -f`, where the time used may be minutes old."""
    if limit := os.environ.get("PBS_WALLTIME"):
        return float(limit) - age_of_job("PBS_JOBID")
    output = dict(re.findall(r"^\s*([\w.]+) = (.*)$", command("qstat", "-f", job), re.MULTILINE))
    most = durations.of_clock(output.get("Resource_List.walltime", ""))
    used = durations.of_clock(output.get("resources_used.walltime", "")) or 0.0
    if began := output.get("stime", output.get("start_time")):
        used = max(used, time.time() - datetime.strptime(began, "%a %b %d %H:%M:%S %Y").timestamp())
    return None if most is None else most - used


def fills(layout: Layout, memory: str, example: str) -> dict[str, str]:
    """What PBS gives a job, chunk by chunk, and the same for Torque."""
    return {"select": _select(layout, memory), "torque": _torque(layout, memory)}


def _select(layout: Layout, memory: str) -> str:
    cores = layout.chunk * layout.cpus
    parts = [f"{layout.chunks}", f"ncpus={cores}", f"mpiprocs={layout.chunk}"]
    if cores > 1:
        parts.append(f"ompthreads={layout.cpus}")  # else as many as ncpus
    if layout.gpus:
        parts.append(f"ngpus={layout.gpus_of_chunk}")
    if memory:
        parts.append(f"mem={_size(scaled(memory, layout.chunk))}")
    return ":".join(parts)


def _torque(layout: Layout, memory: str) -> str:
    """Nodes, and what each gives."""
    nodes = 1 if layout.nodes is None and layout.tasks is None else layout.chunks
    gpus = f":gpus={part('--gpus', layout.gpus, nodes, f'{nodes} nodes')}" if layout.gpus else ""
    pmem = f",pmem={_size(memory)}" if memory else ""
    return f"{nodes}:ppn={layout.ranks // nodes * layout.cpus}{gpus}{pmem}"


def _size(memory: str) -> str:
    """A size such as "2G" as PBS writes it, 2gb."""
    return re.sub(r"([kmgt])b?$", r"\1b", memory.lower())
