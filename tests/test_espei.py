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


def traced(bin, folder, command, settings=lambda text: text):
    """What a job prints, and the trace that it leaves, in an environment like that of each batch system."""
    shutil.copytree(ROOT / "examples" / "espei", folder)
    (folder / "nodes").write_text("localhost\n" * 3)
    path = folder / "espei.yaml"
    path.write_text(settings(path.read_text()))
    variables = {
        "PATH": f"{bin}:{os.environ['PATH']}",
        "PBS_O_WORKDIR": str(folder),
        "PBS_NODEFILE": str(folder / "nodes"),
        "SLURM_NTASKS": "3",
        "NSLOTS": "3",
    }
    job = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=2 * HANGS
    )
    assert job.returncode == 0, job.stdout + job.stderr
    assert not (folder / "my_scheduler.json").exists()
    return job.stdout, np.load(folder / "trace.npy")


@pytest.fixture(scope="module")
def alone(bin, tmp_path_factory):
    """The trace of ESPEI in one process."""
    folder = tmp_path_factory.mktemp("espei") / "alone"
    command = ["espei", "--input", "espei.yaml"]
    _, trace = traced(bin, folder, command, lambda text: text.replace("my_scheduler.json", "null"))
    assert trace.shape == (8, 20, 1)  # chains, iterations, parameters
    return trace


@pytest.mark.long
@pytest.mark.parametrize("system", ["pbs", "slurm", "sge"])
def test_espei_has_the_same_trace_alone_and_on_the_cluster_of_each_script(system, alone, bin, tmp_path):
    said, trace = traced(bin, tmp_path / "run", ["bash", ROOT / "jobscripts" / f"espei-dask.{system}"])
    assert "2 workers have joined" in said
    assert np.array_equal(trace, alone)


@pytest.mark.long
def test_espei_has_the_same_trace_by_a_pool_of_ranks(alone, bin, tmp_path):
    command = ["mpirun", "-n", "3", "python", ROOT / "examples" / "espei_pool.py", "mpi"]
    assert np.array_equal(traced(bin, tmp_path / "run", command)[1], alone)
