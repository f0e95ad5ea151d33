"""LSF: the time that it leaves a job, and how it counts what a host gives."""

import os
import re

from mpiabc.batch.commands import command
from mpiabc.batch.layout import Layout
from mpiabc.errors import ProblemError


def left(job: str) -> float | None:
    """What `bjobs` says: hours and minutes, and an L if they are a limit and no estimate."""
    if index := int(os.environ.get("LSB_JOBINDEX") or 0):
        job = f"{job}[{index}]"
    output = re.search(r"(?:(\d+):)?(\d+)\s*L", command("bjobs", "-noheader", "-o", "time_left", job))
    return None if output is None else 3600.0 * int(output[1] or 0) + 60.0 * int(output[2])


def asks(layout: Layout, asked: dict[str, str]) -> dict[str, str]:
    """Ranks and GPUs are those of each host. Raises ProblemError where these are not known."""
    if layout.nodes is not None:
        asked |= {"tasks_per_node": str(layout.chunk)}
    if layout.gpus is not None:
        if layout.nodes is None and layout.tasks is None:
            raise ProblemError(f"--gpus {layout.gpus}: LSF counts those of each host; give --nodes, too")
        asked |= {"gpus": str(layout.gpus_of_chunk)}
    return asked
