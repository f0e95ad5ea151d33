"""Environments that job scripts copy to the nodes' own disks."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from mpiabc import cli
from tests.conftest import HANGS, ROOT, environment, missing

BIN = Path(sys.executable).parent
WHERE = """import sys, time, mpiabc
from mpi4py import MPI
MPI.COMM_WORLD.Barrier()
sys.stdout.write(f"rank {MPI.COMM_WORLD.rank} of {MPI.COMM_WORLD.size} {sys.prefix}\\n")
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An environment of few files, which finds all that it needs in this one, and its program."""
    folder = tmp_path_factory.mktemp("small") / "env"
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    packages.joinpath("all.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    for library in (BIN.parent / "lib").glob("[!p]*"):  # mpi4py looks for MPI in its environment
        (folder / "lib" / library.name).symlink_to(library)
    launcher = folder / "bin" / "mpirun"
    launcher.write_text(f'#!/bin/sh\nexec "{BIN}/mpirun" "$@"\n')
    launcher.chmod(0o755)
    folder.with_name("where.py").write_text(WHERE)
    return folder


def script(small, capsys, *options):
    """A staged job script, as printed."""
    words = ["jobscript", *options, "--stage", "--bin", f"{small}/bin", str(small.parent / "where.py")]
    assert cli.main(words) == 0
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("system", ["slurm", "pbs", "sge", "lsf"])
def test_shellcheck_has_nothing_to_say_of_staged_scripts(system, small, capsys, tmp_path, monkeypatch):
    program = shutil.which("shellcheck", path=f"{BIN}:{os.environ['PATH']}")
    if program is None:
        missing("shellcheck is not installed")
    path = tmp_path / "job.sh"
    for kind in ["mpi", "requeue"] if system == "slurm" else ["mpi"]:
        path.write_text(script(small, capsys, system, "--kind", kind))
        done = subprocess.run([program, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_workers_and_dask_have_no_ranks_to_stage_for(capsys):
    """Nor have they an mpirun of which it would be known when it ends."""
    for system, kind in [("slurm", "workers"), ("pbs", "dask")]:
        assert cli.main(["jobscript", system, "--kind", kind, "--stage", __file__]) == 1
        assert f"--stage with --kind {kind}" in capsys.readouterr().err


@pytest.mark.parametrize("disk", ["a", "no"], ids=["with a disk", "without a disk"])
def test_ranks_take_the_copy_or_say_why_not(disk, small, capsys, tmp_path):
    """LSF is played: it gives a number of ranks. Nothing is left, and the script's status is the run's."""
    local = tmp_path / "local"
    if disk == "a":
        local.mkdir()
    job = tmp_path / "job.sh"
    job.write_text(script(small, capsys, "lsf", "--ranks", "2"))
    variables = {"LSB_DJOB_NUMPROC": "2", "LSB_JOBID": "17", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", job],
        cwd=tmp_path,
        env=environment(**variables) | {"TMPDIR": str(local)},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    stage = local / f"mpiabc-{os.getuid()}-17"
    expected = stage if disk == "a" else small
    assert sorted(done.stdout.split("\n"))[1:] == [f"rank {i} of 2 {expected}" for i in range(2)]
    assert ("there is no copy" in done.stderr) == (disk != "a")
    assert not stage.exists()
    assert list(tmp_path.glob(".environment*")) == []


def test_slurm_job_runs_from_the_nodes_own_disk(slurm, small, capsys, tmp_path):
    """Both of its ranks."""
    job = tmp_path / "job.sh"
    job.write_text(script(small, capsys, "slurm", "--ranks", "2", "--walltime", "5m"))
    said = slurm.wait(slurm.submit(tmp_path, job), tmp_path)
    prefixes = {line.split()[-1] for line in said.splitlines() if line.startswith("rank")}
    assert len(prefixes) == 1, said
    assert f"mpiabc-{os.getuid()}-" in prefixes.pop()
