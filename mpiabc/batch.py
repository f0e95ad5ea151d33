"""The batch system that this process is a job of, and the seconds that it still gives.

Every command of a batch system is started from here.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mpiabc.errors import ProblemError, SchedulerError

_PATIENCE = 60.0  # seconds that a command may take
_MOST_LINES = 3  # of what a failed command says: the reason may stand above the last one
_PAUSES = (1.0, 3.0)  # seconds before the second and the third attempt: a busy server answers later


class CommandError(SchedulerError):
    """A command of the batch system is missing, fails or hangs."""


def command(*words: str, pauses: Sequence[float] = _PAUSES, without: tuple[str, ...] = ()) -> str:
    """What a command prints. Raises CommandError, with what it said, if it fails again and again.

    without: the beginnings of the environment's variables that are not for it; a SLURM_CONF stays.
    """
    kept = {k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith(without)}
    for pause in (*pauses, None):
        try:
            done = subprocess.run(words, env=kept, capture_output=True, text=True, timeout=_PATIENCE)
        except OSError as error:
            raise CommandError(f"cannot start `{words[0]}` ({error.strerror}): is it on the PATH?") from None
        except subprocess.TimeoutExpired:
            said = f"has not answered for {_PATIENCE:.0f} s"
        else:
            if done.returncode == 0:
                return done.stdout
            told = (done.stderr.strip() or done.stdout.strip()).splitlines()
            last = "; ".join(line.strip() for line in told[-_MOST_LINES:] if line.strip())
            said = f"failed with status {done.returncode}: {last or 'it said nothing'}"
        if pause is not None:
            time.sleep(pause)
    raise CommandError(f"`{' '.join(words)}` {said}")


def pbs_size(memory: str) -> str:
    """A size such as "2G" as PBS writes it, 2gb."""
    return re.sub(r"([kmgt])b?$", r"\1b", memory.lower())


def job() -> str:
    """The job that this process is of, such as "SLURM job 17"; empty outside of any."""
    system = _system()
    return "" if system is None else f"{system.name} job {os.environ[system.variable]}"


def seconds_left() -> float:
    """Seconds until the batch system ends this job.

    Raises ProblemError outside of any job, and where the job has no limit or none can be found.
    """
    system = _system()
    if system is None:
        names = ", ".join(f"{system.name} ({system.variable})" for system in _SYSTEMS)
        raise ProblemError(
            f'walltime="auto" needs a job of a batch system, and the environment shows none of {names}: give '
            'seconds, or text such as "2h", there or in MPIABC_WALLTIME'
        )
    try:
        left = system.left(os.environ[system.variable])
    except CommandError as error:
        left, why = None, f": {error}"
    else:
        why = ": the job has none, as far as can be seen"
    if left is None:
        raise ProblemError(
            f'walltime="auto" finds no time limit of this {system.name} job{why}; submit it with a limit, or '
            'give seconds, or text such as "2h", there or in MPIABC_WALLTIME'
        )
    return left


# One function for each system: the job's name to seconds, None if no limit is found.


def _left_in_slurm(job: str) -> float | None:
    """The end that Slurm has announced (23.02 and later), else what it says now."""
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end) - time.time()
    return _clock(command("squeue", "--noheader", "--jobs", job, "--format", "%L"))


def _left_in_pbs(job: str) -> float | None:
    """Torque's variable, else `qstat -f`, where the time used may be minutes old."""
    if limit := os.environ.get("PBS_WALLTIME"):
        return float(limit) - _age_of_job("PBS_JOBID")
    told = dict(re.findall(r"^\s*([\w.]+) = (.*)$", command("qstat", "-f", job), re.MULTILINE))
    most = _clock(told.get("Resource_List.walltime", ""))
    used = _clock(told.get("resources_used.walltime", "")) or 0.0
    if began := told.get("stime", told.get("start_time")):
        used = max(used, time.time() - datetime.strptime(began, "%a %b %d %H:%M:%S %Y").timestamp())
    return None if most is None else most - used


def _left_in_sge(job: str) -> float | None:
    """The smallest of the limits that the job has requested and its queue has, since the job began."""
    told = command("qstat", "-j", job) + command("qconf", "-sq", os.environ.get("QUEUE", "all.q"))
    limits = [limit for limit in map(_clock, re.findall(r"\b[sh]_rt(?:=|\s+)([\d:]+)", told)) if limit]
    return min(limits) - _age_of_job("JOB_ID") if limits else None


def _left_in_lsf(job: str) -> float | None:
    """What `bjobs` says: hours and minutes, and an L if they are a limit and no estimate."""
    if index := int(os.environ.get("LSB_JOBINDEX") or 0):
        job = f"{job}[{index}]"
    told = re.search(r"(?:(\d+):)?(\d+)\s*L", command("bjobs", "-noheader", "-o", "time_left", job))
    return None if told is None else 3600.0 * int(told[1] or 0) + 60.0 * int(told[2])


class _System(NamedTuple):
    """A batch system: it is ours if its variable is set, and `also` where that name is a common one."""

    name: str
    variable: str
    left: Callable[[str], float | None]
    also: str = ""

    def is_ours(self) -> bool:
        return bool(os.environ.get(self.variable)) and (not self.also or self.also in os.environ)


_SYSTEMS = (
    _System("SLURM", "SLURM_JOB_ID", _left_in_slurm),
    _System("LSF", "LSB_JOBID", _left_in_lsf),
    _System("PBS", "PBS_JOBID", _left_in_pbs),
    _System("SGE", "JOB_ID", _left_in_sge, also="SGE_TASK_ID"),
)


def _system() -> _System | None:
    return next((system for system in _SYSTEMS if system.is_ours()), None)


def _clock(text: str) -> float | None:
    """Seconds of "1-02:03:04", "02:03:04", "03:04" (minutes and seconds) or "4"; None for other text."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds


def _age_of_job(variable: str) -> float:
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
