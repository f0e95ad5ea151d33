"""When the job that this process is of began, for batch systems that say no more than its limit."""

import os
from pathlib import Path

from mpiabc.batch.commands import CommandError


def age_of_job(variable: str) -> float:
    """Seconds since the job's first process on this host began: our oldest forebear with its variable."""
    mark = f"{variable}={os.environ[variable]}".encode()
    pid, ticks = os.getpid(), 0
    while pid > 1:
        folder = Path("/proc") / str(pid)
        try:
            if pid != os.getpid() and mark not in (folder / "environ").read_bytes().split(b"\0"):
                break
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            break
        pid, ticks = int(fields[1]), int(fields[19])
    try:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        raise CommandError("there is no /proc to see when the job began") from None
    return uptime - ticks / os.sysconf("SC_CLK_TCK")
