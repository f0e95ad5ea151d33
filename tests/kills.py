"""Kill anywhere: runs that lose processes at random moments, and come to the uninterrupted digests.

    python -m tests.kills [--runs 200] [--seed 0]

Each run is a command that is started, hit by SIGKILL, and started again, until it ends by itself; the
table says, for each engine and each victim, how many runs there were and what became of them.
"""

import argparse
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import mpiabc
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import Launcher, environment, environment_of
from tests.programs import small

_MARK = "MPIABC_TEST_JOB"  # in the environment of every process of a job, whoever started it
_RANKS = (b"PMI_RANK=", b"OMPI_COMM_WORLD_RANK=")
_HANGS = 30.0  # seconds after which a job that lost a process should have ended
_LINGERS = 10.0  # seconds in which the last process of an ended job should be gone

VICTIMS = {
    "serial": ("leader",),
    "processes": ("leader", "child", "all"),
    "mpi": ("leader", "another rank", "child", "mpirun", "all"),
    "mpi-static": ("leader", "another rank", "mpirun", "all"),
}
MPIS = ("mpich", "openmpi")
MOMENTS = ("at its start", "making the store", "at any time", "writing")


@dataclass(frozen=True)
class Case:
    """One run: where, who is hit, when, and how often."""

    mpi: Launcher | None
    scheduler: str
    victim: str
    moment: str
    seed: int

    def __str__(self):
        return f"{self.engine}, {self.victim}, {self.moment}, seed {self.seed}"

    @property
    def engine(self):
        return f"{self.scheduler}, {self.mpi.name}" if self.mpi else self.scheduler

    @property
    def arguments(self):
        # Rank 0 has a child only if simulations are slow.
        seconds = (
            0.002 if self.scheduler == "serial" else 0.007 if self.mpi and self.victim == "child" else 0.004
        )
        return [self.scheduler, seconds]

    def command(self, store):
        arguments = ["-m", "tests.programs.small", store, *self.arguments]
        return self.mpi.command(2, *arguments) if self.mpi else [sys.executable, *map(str, arguments)]


@dataclass
class Outcome:
    """What became of it: kills, starts after kills, and what went wrong, if anything."""

    kills: int = 0
    resumed: int = 0
    trouble: str = ""


class Job:
    """A started command and all processes that came of it, found by a mark in their environments."""

    def __init__(self, command, folder):
        self._segments = set()
        self._mark = f"{_MARK}={secrets.token_hex(8)}"
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        name, value = self._mark.split("=")
        self.leader = subprocess.Popen(
            command,
            cwd=Path(__file__).parent.parent,
            env=environment(**{name: value}, TMPDIR=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def processes(self):
        """The living ones: process id and environment."""
        found = {}
        for folder in Path("/proc").iterdir():
            content = _environment(folder) if folder.name.isdigit() else None
            if content is not None and self._mark.encode() in content:
                found[int(folder.name)] = content
        return found

    def victims(self, kind):
        """Those processes that are the leader, another rank, a child, mpirun, or all of them."""
        found = self.processes()
        ranks = {pid: rank for pid, content in found.items() if (rank := _rank(content)) is not None}
        children = [pid for pid in found if b"mpiabc.schedulers.processes" in _read(pid, "cmdline")]
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
        return sum(_kill(pid) for pid in victims)

    def said(self):
        self.output.seek(0)
        return self.output.read()

    def leftovers(self):
        """Processes that outlive the job; they are ended."""
        end = time.monotonic() + _LINGERS
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.02)
        lines = [f"{pid} {_read(pid, 'cmdline').replace(bytes(1), b' ').decode()}" for pid in left]
        for pid in left:
            _kill(pid)
        return lines

    def close(self):
        if self.leader.poll() is None:
            for pid in self.processes():
                _kill(pid)
            self.leader.wait()
        self.output.close()
        for path in self._segments:  # which MPICH leaves behind when all its ranks are killed
            path.unlink(missing_ok=True)


def _environment(folder):
    try:
        content = (folder / "environ").read_bytes()
        is_dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return None
    return None if is_dead else content


def _rank(content):
    told = (part.partition(b"=")[2] for part in content.split(b"\0") if part.startswith(_RANKS))
    return next((int(rank) for rank in told if rank.isdigit()), None)


def _read(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _shared_memory(pid):
    words = _read(pid, "maps").decode(errors="replace").split()
    return {Path(word) for word in words if word.startswith("/dev/shm/")}


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_for_moment(case, job, store, rng):
    """Return when it is time to kill; False if the job has ended before."""
    seconds = 1.2 if case.mpi else 0.4
    end = time.monotonic() + rng.uniform(0, seconds)
    if case.moment == "at its start":
        _until(job, lambda: time.monotonic() >= end)
    else:
        _until(job, store.exists)
    if case.moment == "making the store":
        time.sleep(rng.uniform(0, 0.01))
    if case.moment in ("at any time", "writing"):
        end = time.monotonic() + rng.uniform(0, 1.0)
        _until(job, lambda: time.monotonic() >= end)
    if case.moment == "writing":
        writing = store.with_name(store.name + "-journal")
        _until(job, writing.exists, pause=0.0001)
        time.sleep(rng.uniform(0, 0.002))
    if case.victim in ("another rank", "child"):
        _until(job, lambda: job.victims(case.victim), pause=0.02)
    return job.leader.poll() is None


def _until(job, is_so, pause=0.001):
    while job.leader.poll() is None and not is_so():
        time.sleep(pause)


def play(case, folder, expected):
    """Start, kill, start again, and compare with the expected digests; anew if it was over too soon."""
    rng, outcome = random.Random(f"{case}"), Outcome()
    for attempt in range(10):
        store = folder / f"{attempt}.db"
        _go_on_until_done(case, store, rng, outcome)
        if not outcome.trouble and (found := problems.digests(mpiabc.open(store))) != expected:
            kept = shutil.copy(store, tempfile.mkdtemp(prefix="kills-"))
            outcome.trouble = f"the digests are {found}, expected {expected}; the file is kept as {kept}"
        if outcome.trouble or outcome.kills:
            return outcome
    return replace(outcome, trouble="there was nobody to kill")


def _go_on_until_done(case, store, rng, outcome):
    """The same command again and again; the first few times it is hit."""
    most, hit = rng.choice((1, 1, 1, 2, 3)), 0
    while not outcome.trouble:
        job = Job(case.command(store), store.parent)
        outcome.resumed += bool(hit)
        try:
            hit = 0
            if outcome.kills < most and wait_for_moment(case, job, store, rng):
                hit = job.kill(case.victim, rng)
                outcome.kills += bool(hit)
            status = job.leader.wait(_HANGS)
            if left := job.leftovers():
                outcome.trouble = f"left over: {left}"
            elif status == 0:
                return
            elif not hit:
                outcome.trouble = f"status {status}, it said:\n{job.said()}"
        except subprocess.TimeoutExpired:
            outcome.trouble = f"the job hangs, it said:\n{job.said()}"
        finally:
            job.close()


def quiet(folder):
    """The digests of uninterrupted runs, by whether they are static."""
    static = Simulated(2, random_time, is_static=True)
    return {
        is_static: problems.digests(small.sampler().run(folder / f"{is_static}.db", scheduler=scheduler))
        for is_static, scheduler in ((False, "serial"), (True, static))
    }


def cases(runs, seed, mpis):
    """So many cases, in which every engine, victim and moment has its turn."""
    kinds = [(None, "serial", victim) for victim in VICTIMS["serial"]]
    kinds += [(None, "processes", victim) for victim in VICTIMS["processes"]]
    for mpi in mpis:
        kinds += [(mpi, name, victim) for name in ("mpi", "mpi-static") for victim in VICTIMS[name]]
    rng = random.Random(seed)
    for i in range(runs):
        mpi, scheduler, victim = kinds[i % len(kinds)]
        yield Case(mpi, scheduler, victim, rng.choice(MOMENTS), seed + i)


def played(cases, jobs):
    """Each case with its outcome, some of them at the same time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        digests = quiet(Path(folder))

        def outcome(case):
            with tempfile.TemporaryDirectory() as place:
                return case, play(case, Path(place), digests[case.scheduler == "mpi-static"])

        yield from threads.map(outcome, cases)


def main():
    """Play all cases, print each trouble when it comes and the table at the end; 1 if there was any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    options = parser.parse_args()
    mpis = [Launcher(name, folder, folder) for name in MPIS if (folder := environment_of(name))]
    rows = {}
    for case, outcome in played(cases(options.runs, options.seed, mpis), options.jobs):
        row = rows.setdefault((case.engine, case.victim), Counter())
        row += Counter(runs=1, kills=outcome.kills, resumed=outcome.resumed)
        row += Counter(equal=not outcome.trouble, failures=bool(outcome.trouble))
        if outcome.trouble:
            print(f"FAILED {case}: {outcome.trouble}", flush=True)
    return table(rows)


def table(rows):
    columns = ("runs", "kills", "resumed", "equal", "failures")
    print(f"{'engine':<22}{'victim':<14}" + "".join(f"{name:>10}" for name in columns))
    total = sum(rows.values(), Counter())
    for (engine, victim), row in [*sorted(rows.items()), (("all", ""), total)]:
        print(f"{engine:<22}{victim:<14}" + "".join(f"{row[name]:>10}" for name in columns))
    return 1 if total["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
