"""ESPEI, unchanged, as a client of a Dask cluster that our scripts start, and with a pool in its place.

Installing ESPEI takes minutes and 700 MB: its environment (`.venv-espei`) is made, and kept, where
MPIABC_TEST_ESPEI=1 asks for it, as `.ci/run` does; elsewhere the test is skipped and says so.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import HANGS, ROOT, environment, missing

PACKAGES = ("espei==0.9.1", "dask-mpi", "mpi4py", "mpich", "cloudpickle")


@pytest.fixture(scope="module")
def bin():
    """The folder of executables of an environment with ESPEI."""
    folder = ROOT / ".venv-espei"
    mark = folder / "complete"
    if not mark.exists() or mark.read_text() != " ".join(PACKAGES):
        if os.environ.get("MPIABC_TEST_ESPEI") != "1":
            missing("no environment with ESPEI: MPIABC_TEST_ESPEI=1 makes one")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", *PACKAGES]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            missing(f"cannot install ESPEI: {done.stderr.strip().splitlines()[-1]}")
        mark.write_text(" ".join(PACKAGES))
    return folder / "bin"


@pytest.mark.long
def test_espei_has_the_same_trace_alone_on_the_cluster_of_each_script_and_by_a_pool(bin, tmp_path):
    """The scripts run in an environment like that of their batch system, in which they are submitted."""
    traces = {}
    for how in ("alone", "pbs", "slurm", "sge", "pool"):
        folder = tmp_path / how
        shutil.copytree(ROOT / "examples" / "espei", folder)
        (folder / "nodes").write_text("localhost\n" * 3)
        settings = folder / "espei.yaml"
        command = ["bash", ROOT / "jobscripts" / f"espei-dask.{how}"]
        if how == "pool":
            command = ["mpirun", "-n", "3", "python", ROOT / "examples" / "espei_pool.py", "mpi"]
        if how == "alone":
            settings.write_text(settings.read_text().replace("my_scheduler.json", "null"))
            command = ["espei", "--input", settings]
        variables = {
            "PATH": f"{bin}:{os.environ['PATH']}",
            "PBS_O_WORKDIR": str(folder),
            "PBS_NODEFILE": str(folder / "nodes"),
            "SLURM_NTASKS": "3",
            "NSLOTS": "3",
        }
        job = subprocess.run(
            command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=HANGS
        )
        assert job.returncode == 0, job.stdout + job.stderr
        assert ("2 workers have joined" in job.stdout) == (how in ("pbs", "slurm", "sge"))
        assert not (folder / "my_scheduler.json").exists()
        traces[how] = np.load(folder / "trace.npy")
    assert traces["alone"].shape == (8, 20, 1)  # chains, iterations, parameters
    assert all(np.array_equal(traces["alone"], trace) for trace in traces.values())
