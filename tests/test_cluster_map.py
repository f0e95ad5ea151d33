"""The map over jobs where no batch system is: PBS is played, and wrong use is told.

tests/test_clusters.py has the real Slurm and Grid Engine.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest

import mpiabc
from mpiabc import batch, cli, cluster
from tests.conftest import HANGS, environment

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
    for chunk in (-1, 0, True, 1.5):
        with pytest.raises(mpiabc.ProblemError, match=f"chunk={chunk}: give a whole number"):
            cluster.map(abs, [1], scheduler="slurm", chunk=chunk)
    with pytest.raises(mpiabc.ProblemError, match="walltime='soon' is not understood"):
        cluster.map(abs, [1], scheduler="slurm", walltime="soon")
    with pytest.raises(mpiabc.ProblemError, match="name='a/b': give a letter"):
        cluster.map(abs, [1], scheduler="slurm", name="a/b")
    with pytest.raises(mpiabc.ProblemError, match="options='--gres=gpu': give a list of words"):
        cluster.map(abs, [1], scheduler="slurm", options="--gres=gpu")
    with pytest.raises(mpiabc.SchedulerError, match="cannot start `qsub`"):
        cluster.map(abs, [1], scheduler="pbs")
    with pytest.raises(mpiabc.ProblemError, match="an item cannot be sent to another node"):
        cluster.map(id, [threading.Lock()], scheduler="slurm")
    assert not os.path.exists("mpiabc-jobs")


def test_jobs_say_what_the_files_say_where_the_batch_system_is_silent(nothing, tmp_path, capsys, monkeypatch):
    """One question for two calls; a damaged call is a row of its own."""
    asked = []
    monkeypatch.setitem(
        cluster._SYSTEMS, "pbs", replace(cluster._SYSTEMS["pbs"], states=lambda: asked.append("") or silent())
    )

    def silent():
        raise batch.CommandError("`qstat -t` failed with status 1: no server")

    assert cli.main(["jobs"]) == 0
    assert "no folder mpiabc-jobs here" in capsys.readouterr().out
    told = {
        "scheduler": "pbs",
        "name": "map",
        "n": 2,
        "words": [],
        "python": "python",
        "jobs": {"17": [1, 2]},
    }
    calls = {"map-1": told, "map-2": told, "map-3": "", "map-4": [1], "map-5": told | {"scheduler": "no"}}
    for name, content in calls.items():
        folder = tmp_path / "mpiabc-jobs" / name
        folder.mkdir(parents=True)
        (folder / "call.json").write_text(json.dumps(content)[: 10 if name == "map-3" else None])
    (tmp_path / "mpiabc-jobs" / "map-1" / "1.out").touch()
    assert cli.main(["jobs"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("map-")}
    assert rows["map-1"] == ["pbs", "17", "2", "1", "?", "?", "?", "0"]
    assert rows["map-2"] == ["pbs", "17", "2", "0", "?", "?", "?", "0"]
    assert rows["map-3"] == rows["map-4"] == rows["map-5"] == ["?"] * 8
    assert said.count("call.json is damaged") == 3
    assert said.count("`qstat -t` failed with status 1: no server") == len(asked) == 1


def test_item_whose_program_ended_with_its_job_has_no_result(tmp_path):
    """`qdel`: the program is ended first, and what the item makes of that is no outcome."""
    (tmp_path / "function").write_bytes(cloudpickle.dumps(lambda seconds: os.system(f"exec sleep {seconds}")))
    (tmp_path / "1.in").write_bytes(cloudpickle.dumps([300]))
    (tmp_path / "round-1.json").write_text("[1]")
    program = f"from mpiabc.cluster import work; work({str(tmp_path)!r}, '1-1')"
    job = subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    try:
        while not (child := children.read_text().split()):
            time.sleep(0.02)
        os.kill(int(child[0]), signal.SIGKILL)
        time.sleep(0.3)
        assert job.poll() is None
        job.terminate()
        assert job.wait(timeout=HANGS) == -signal.SIGTERM
    finally:
        job.kill()
        job.wait()
    assert not list(tmp_path.glob("*.out"))
