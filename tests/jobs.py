"""Jobs of the tests: a command on any engine, and all processes that came of it, found by a mark."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests import bridge
from tests.conftest import ROOT, Launcher, environment, launcher_of

MPIS = ("mpich", "openmpi")
ENGINES = ("serial", "processes", *MPIS, "redis", "dask", "executors")

_JOB = "MPIABC_TEST_JOB"  # in the environment of every process of a job, whoever started it
_WORKER = "MPIABC_TEST_WORKER"  # in that of a worker's processes; which one
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
_LINGERS = 120.0  # seconds in which the last process of an ended job should be gone: MPI_Init notices late


class Job:
    """A started command with its workers, and all processes that came of them."""

    def __init__(self, command, folder, workers=(), **variables):
        self._segments = set()
        self._mark = secrets.token_hex(8)
        self._outputs = []
        self._environment = environment(**{_JOB: self._mark, "TMPDIR": str(folder)}, **variables)
        self.workers = [self._started(worker, **{_WORKER: str(n)}) for n, worker in enumerate(workers)]
        self.leader = self._started(command)

    def _started(self, command, **variables):
        self._outputs.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115 (closed by `close`)
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=self._environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=self._outputs[-1],
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def processes(self):
        """The living ones: process id and environment."""
        found = {}
        for folder in Path("/proc").iterdir():
            content = _environment(folder) if folder.name.isdigit() else None
            if content is not None and content.get(_JOB) == self._mark:
                found[int(folder.name)] = content
        return found

    def victims(self, kind):
        """Those processes that are the leader, another rank, a child, mpirun, or all of them."""
        found = self.processes()
        ranks = {pid: rank for pid, content in found.items() if (rank := rank_of(content)) is not None}
        children = [pid for pid in found if b"mpiabc.schedulers.shared.child" in _read(pid, "cmdline")]
        if kind == "all":
            return list(found)
        if kind == "mpirun" or not ranks:
            others = [pid for pid in found if pid != self.leader.pid]
            return others if kind == "child" else [self.leader.pid]
        if kind == "child":
            return children
        return [pid for pid, rank in ranks.items() if (rank == 0) == (kind == "leader")]

    def kill(self, kind, rng):
        """SIGKILL to one victim of the kind, or to all; how many were hit."""
        victims = self.victims(kind)
        self._segments |= {path for pid in victims for path in _shared_memory(pid)}
        if kind != "all":
            victims = victims and [rng.choice(victims)]
        return send(victims, signal.SIGKILL)

    def until(self, is_so, pause=0.001):
        """Wait for it, but no longer than the job lasts; whether that goes on."""
        while self.leader.poll() is None and not is_so():
            time.sleep(pause)
        return self.leader.poll() is None

    def said(self):
        """What its command has said, then what its workers have."""
        *workers, leader = self._outputs
        return _content(leader), "".join(map(_content, workers))

    def leftovers(self):
        """Processes that outlive the job, but for its workers; all are ended."""
        end = time.monotonic() + _LINGERS
        while (left := self._without_workers()) and time.monotonic() < end:
            time.sleep(0.02)
        lines = [f"{pid} {_read(pid, 'cmdline').replace(bytes(1), b' ').decode()}" for pid in left]
        send(self.processes(), signal.SIGKILL)
        return lines

    def _without_workers(self):
        return [pid for pid, content in self.processes().items() if _WORKER not in content]

    def close(self):
        while left := self.processes():
            send(left, signal.SIGKILL)
            for process in (self.leader, *self.workers):
                process.poll()
        for process in (self.leader, *self.workers):
            process.wait()
        for output in self._outputs:
            output.close()
        for path in self._segments:  # which MPICH leaves behind when all its ranks are killed
            path.unlink(missing_ok=True)


def send(pids, number):
    """A signal to each process that is still there; how many were."""
    hit = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            hit += 1
    return hit


def rank_of(content):
    """The rank of a process with this environment, if it has one."""
    found = (content.get(name, "") for name in _RANKS)
    return next((int(rank) for rank in found if rank.isdigit()), None)


def worker_of(content):
    """The rank or worker to which a process with this environment belongs, in words, if any."""
    rank = rank_of(content)
    return content.get(_WORKER) if rank is None else f"rank {rank}"


def parent(pid):
    """The process that started it; None if it has ended meanwhile."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def is_alive(pid):
    """Whether it is there, and not only waited for."""
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])


def _environment(folder):
    try:
        content = (folder / "environ").read_bytes().decode(errors="replace")
        is_dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return None
    pairs = (part.partition("=") for part in content.split("\0"))
    return None if is_dead else {name: value for name, _, value in pairs}


def _read(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _content(file):
    file.seek(0)
    return file.read()


def _shared_memory(pid):
    words = _read(pid, "maps").decode(errors="replace").split()
    return {Path(word) for word in words if word.startswith("/dev/shm/")}


def launchers():
    """Both MPIs."""
    return [launcher_of(name) for name in MPIS]


@dataclass(frozen=True)
class Place:
    """Where jobs of an engine run: the scheduler that their programs name, and what runs beside them."""

    scheduler: str
    folder: Path
    mpi: Launcher | None = None
    workers: tuple = ()

    def start(self, program, store, *arguments):
        """A job of tests/programs, called with STORE SCHEDULER ARGUMENTS."""
        arguments = ["-m", f"tests.programs.{program}", store, self.scheduler, *arguments]
        command = self.mpi.command(2, *arguments) if self.mpi else [sys.executable, *arguments]
        return Job(command, self.folder, self.workers, **_VARIABLES)


_VARIABLES = {
    "MPIABC_SECRET": bridge.SECRET,
    "MPIABC_REDIS_PASSWORD": bridge.PASSWORD,
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
}


@contextmanager
def opened(engine, folder, workers=({},)):
    """The place of an engine for two simulations at once.

    On Redis there is a server of its own, and a worker for each of `workers`, which are its variables.
    """
    if engine in MPIS:
        yield Place("mpi", folder, launcher_of(engine))
    elif engine == "redis":
        server = bridge.RedisServer(folder)
        command = [sys.executable, "-m", "mpiabc", "worker", server.url, "--processes", 2 // len(workers)]
        settings = [[f"{name}={value}" for name, value in variables.items()] for variables in workers]
        try:
            yield Place(server.url, folder, workers=tuple(["env", *each, *command] for each in settings))
        finally:
            server.kill()
    else:
        yield Place(engine, folder)


def table(rows, heads, columns):
    """Print the counts of each kind of case, whose `heads` have widths, and of all; 1 if any failed."""

    def line(names, cells):
        words = "".join(f"{name:<{width}}" for name, width in zip(names, heads.values(), strict=True))
        print(words + "".join(f"{cell:>10}" for cell in cells))

    line(heads, columns)
    total = sum(rows.values(), Counter())
    for names, row in [*sorted(rows.items()), (("all", *[""] * (len(heads) - 1)), total)]:
        line(names, [row[name] for name in columns])
    return 1 if total["failures"] else 0
