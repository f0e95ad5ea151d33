"""The map over jobs where no batch system is: PBS is played, and wrong use is told.

tests/test_clusters.py has the real Slurm and Grid Engine.
"""

import os
import threading
import time

import pytest

import mpiabc
from mpiabc import batch, cluster

QSUB = """
case $1 in --version) echo '{version}' >&1; exit;; esac
echo "$*" >>{folder}/qsub.log
count=1
while [ $# -gt 1 ]; do
    case $1 in -J | -t) count=${{2#1-}}; array='[]' ;; esac
    shift
done
for index in $(seq "$count"); do
    if [ "$array" ]; then export {variable}=$index; fi
    (bash "$1"; touch {folder}/ended-"$index") >/dev/null 2>&1 &
done
echo "$count" >{folder}/count
echo "17$array.server"
"""
QSTAT = """
echo 'Job id            Name             User              Time Use S Queue'
echo '----------------  ---------------- ----------------  -------- - -----'
count=$(cat {folder}/count)
[ "$count" = 1 ] || echo '17[].server       map              ada                      0 B workq'
for index in $(seq "$count"); do
    name=17; [ "$count" = 1 ] || name="17[$index]"
    [ -e {folder}/ended-"$index" ] || echo "$name.server  map  ada  00:00:00 R workq"
done
"""
KINDS = {
    "OpenPBS": ("pbs_version = 20.0.1", "PBS_ARRAY_INDEX", "-J 1-3", "select=1:ncpus=1:mem=2gb"),
    "Torque": ("Version: 6.1.2", "PBS_ARRAYID", "-t 1-3", "nodes=1:ppn=1,mem=2gb"),
}


@pytest.fixture
def pbs(request, tmp_path, monkeypatch):
    """Commands of a PBS of one of the two kinds."""
    version, variable, *_ = KINDS[request.param]
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in {"qsub": QSUB, "qstat": QSTAT}.items():
        script = text.format(version=version, variable=variable, folder=commands)
        (commands / name).write_text(f"#!/bin/bash\n{script}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_ASK", 0.2)
    return request.param


@pytest.mark.parametrize("pbs", KINDS, indirect=True)
def test_map_speaks_both_kinds_of_pbs(pbs, tmp_path):
    """An array, and the single job that OpenPBS takes no array of one for."""
    _, _, array, memory = KINDS[pbs]
    with cluster.Cluster("pbs", memory="2G", walltime="90m", queue="long") as jobs:
        assert jobs.map(lambda x: x * x, [1, 2, 3]) == [1, 4, 9]
        for mark in (tmp_path / "commands").glob("ended-*"):
            mark.unlink()
        assert jobs.map(str.upper, ["a"]) == ["A"]
    first, second = (tmp_path / "commands" / "qsub.log").read_text().splitlines()
    assert array in first
    assert f"-l {memory} -l walltime=01:30:00 -q long" in first
    assert array[:2] not in second.split()
    assert not (tmp_path / "mpiabc-jobs").exists()


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_silence_of_the_batch_system_is_waited_out_but_not_for_ever(pbs, tmp_path, monkeypatch):
    (tmp_path / "commands" / "qstat").write_text("#!/bin/bash\nexit 1\n")
    monkeypatch.setitem(batch.command.__kwdefaults__, "pauses", ())
    assert cluster.map(lambda x: time.sleep(1) or x, [1, 2], scheduler="pbs") == [1, 2]
    monkeypatch.setattr(cluster, "_SILENCE", 1.0)
    with pytest.raises(mpiabc.SchedulerError, match="`qstat -t` failed with status 1"):
        cluster.map(lambda x: time.sleep(4), [1, 2], scheduler="pbs")


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_states_are_those_that_qstat_lists(pbs, tmp_path):
    (tmp_path / "commands" / "count").write_text("3")
    (tmp_path / "commands" / "ended-2").touch()
    assert cluster._SYSTEMS["pbs"].states() == [("17", 1, "runs"), ("17", 3, "runs")]


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A machine without any batch system."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_no_batch_system_is_said(nothing):
    assert not any(is_here() for is_here in (cluster.slurm_available, cluster.sge_available))
    assert not cluster.pbs_available()
    with pytest.raises(mpiabc.SchedulerError, match="no batch system answers here"):
        cluster.map(abs, [1])
    with pytest.raises(mpiabc.SchedulerError, match="cannot start `sbatch`"):
        cluster.map(abs, [1], scheduler="slurm")
    assert not os.path.exists("mpiabc-jobs")


def test_wrong_use_is_told(nothing):
    assert cluster.map(abs, [], scheduler="slurm") == []
    with pytest.raises(mpiabc.ProblemError, match="scheduler='lsf': give slurm, sge, pbs"):
        cluster.map(abs, [1], scheduler="lsf")
    with pytest.raises(mpiabc.ProblemError, match="chunk=-1: give a whole number"):
        cluster.map(abs, [1], scheduler="slurm", chunk=-1)
    with pytest.raises(mpiabc.ProblemError, match="an item cannot be sent to another node"):
        cluster.map(id, [threading.Lock()], scheduler="slurm")
