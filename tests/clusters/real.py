"""Real batch systems of one node on the loopback, started for a test session."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.conftest import HANGS, ROOT, environment, missing

_PARTS = {
    "slurm": ("slurm-wlm munge", ("sbatch", "slurmctld", "slurmd", "munged")),
    "sge": ("gridengine-master gridengine-exec gridengine-client", ("qsub", "sge_qmaster", "sge_execd")),
}
_SUBMIT = {"slurm": ("sbatch", "--parsable"), "sge": ("qsub", "-terse", "-V")}
_CANCEL = {"slurm": "scancel", "sge": "qdel"}
_ABOUT = {"slurm": ("scontrol", "show", "job"), "sge": ("qstat", "-j")}
_LOGS = {"slurm": ("slurmctld.log", "slurmd.log"), "sge": ("qmaster/messages", "execd/*/messages")}
_LIST = {"slurm": ("squeue", "--noheader", "--format=%i", "--jobs"), "sge": ("qstat", "-j")}


class Cluster:
    """A batch system that is up, with its files in a folder; `environment` is that of its clients."""

    def __init__(self, system, folder, variables):
        self.system = system
        self.folder = folder
        self.environment = environment(**variables)
        self.variables = variables

    def submit(self, folder, script, *options):
        """Submit a job from a folder; its name."""
        done = subprocess.run(
            [*_SUBMIT[self.system], *options, script],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANGS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(".")[0]

    def script(self, folder, kind, *arguments, **values):
        """A script of the folder `jobscripts`, filled in as the command fills it in."""
        options = [f"--{name}={value}" for name, value in values.items()]
        command = [sys.executable, "-m", "mpiabc", "jobscript", self.system, "--kind", kind, *options]
        printed = subprocess.run(
            [*command, *arguments], env=environment(), capture_output=True, text=True, check=True
        ).stdout
        path = folder / f"{self.system}-{kind}.sh"
        path.write_text(printed)
        return path

    def wait(self, job, folder):
        """Wait for the end of a job; all that jobs have printed in the folder."""
        end = time.monotonic() + HANGS
        while self._is_there(job):
            if time.monotonic() > end:
                pytest.fail(f"job {job} does not end:\n{printed(folder)}{self._says_of(job)}")
            time.sleep(0.3)
        return printed(folder)

    def cancel(self, job):
        """Take a job out, tasks that run too."""
        subprocess.run([_CANCEL[self.system], job], env=self.environment, check=True, capture_output=True)

    def _says_of(self, job):
        """What the batch system itself knows of a job, and the ends of its logs."""
        asked = subprocess.run(
            [*_ABOUT[self.system], job], env=self.environment, capture_output=True, text=True
        )
        logs = [path for pattern in _LOGS[self.system] for path in sorted(self.folder.glob(pattern))]
        ends = [f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in logs]
        return "\n".join([asked.stdout + asked.stderr, *ends])

    def _is_there(self, job):
        output = subprocess.run(
            [*_LIST[self.system], job], env=self.environment, capture_output=True, text=True
        )
        return output.returncode == 0 and bool(output.stdout.strip())


def printed(folder):
    """The output files of jobs in a folder."""
    files = [*folder.glob("*.log"), *folder.glob("*.o[0-9]*")]
    return "".join(f"== {file.name}\n{file.read_text()}" for file in sorted(files))


def started(system):
    """A generator for a fixture: the batch system while the session lasts."""
    packages, programs = _PARTS[system]
    if os.geteuid() != 0 or sys.platform != "linux":
        missing(f"{system} is started by root on Linux only")
    if not all(shutil.which(program) for program in programs):
        missing(f"{system} is not installed: apt-get install {packages}")
    control = [ROOT / "tests" / "clusters" / f"{system}.sh"]
    folder = Path(tempfile.mkdtemp(prefix=f"{system}-"))
    try:
        done = subprocess.run([*control, "start", folder], capture_output=True, text=True, timeout=HANGS)
        assert done.returncode == 0, done.stderr
        yield Cluster(system, folder, dict(line.split("=", 1) for line in done.stdout.splitlines()))
    finally:
        subprocess.run([*control, "stop", folder], check=True, timeout=HANGS)
        shutil.rmtree(folder, ignore_errors=True)
