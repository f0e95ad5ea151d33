"""The map over jobs where no batch system is: PBS is played, and wrong use is reported.

tests/test_clusters.py has the real Slurm and Grid Engine.
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import mpiabc
from mpiabc import batch, cli, cluster
from mpiabc.batch import pbs as pbs_system
from mpiabc.batch import systems
from mpiabc.batch.ending import Why
from mpiabc.cluster import waiting
from tests.conftest import HANGS, environment

QSUB = """
case $1 in --version) echo '{version}' >&1; exit;; esac
echo "$*" >>{folder}/qsub.log
job=$((16 + $(wc -l <{folder}/qsub.log)))
mkdir {folder}/"$job"
count=1
while [ $# -gt 1 ]; do
    case $1 in -J | -t) count=${{2#1-}}; array='[]' ;; esac
    shift
done
for index in $(seq "$count"); do
    if [ "$array" ]; then export {variable}=$index; fi
    mark={folder}/$job/$index
    (setsid bash "$1" & echo $! >"$mark.pid"; wait; echo $? >>"$mark.ended") >/dev/null 2>&1 &
done
echo "$count" >{folder}/"$job"/count
echo "$job$array.server"
"""
QSTAT = """
echo 'Job id            Name             User              Time Use S Queue'
echo '----------------  ---------------- ----------------  -------- - -----'
for job in $(ls {folder} | grep '^[0-9]'); do
    count=$(cat {folder}/$job/count)
    [ "$count" = 1 ] || echo "$job[].server       map              ada                      0 B workq"
    for index in $(seq "$count"); do
        name=$job; [ "$count" = 1 ] || name="$job[$index]"
        ended={folder}/$job/$index.ended
        case $* in
            *-f*) [ ! -e "$ended" ] || cat <<END
Job Id: $name.server
    Job_Name = map
    Resource_List.walltime = 00:00:04
    resources_used.walltime = 00:00:03
    {status} = $(head -n 1 "$ended")
END
            ;;
            *) [ -e "$ended" ] || echo "$name.server  map  ada  00:00:00 R workq" ;;
        esac
    done
done
"""
QDEL = """
echo "$1" >>{folder}/qdel.log
job=${{1%[]}}
for pid in {folder}/"$job"/*.pid; do
    [ -e "${{pid%pid}}ended" ] || echo 271 >"${{pid%pid}}ended"
    kill -TERM -- -$(cat "$pid") 2>/dev/null || true  # it has ended
done
"""
KINDS = {
    "OpenPBS": ("pbs_version = 20.0.1", "PBS_ARRAY_INDEX", "-J 1-3", "select=1:ncpus=1:mem=2gb"),
    "Torque": ("Version: 6.1.2", "PBS_ARRAYID", "-t 1-3", "nodes=1:ppn=1,mem=2gb"),
}
STATUS = {"OpenPBS": "Exit_status", "Torque": "exit_status"}


@pytest.fixture
def pbs(request, tmp_path, monkeypatch):
    """Commands of a PBS of one of the two kinds."""
    version, variable, *_ = KINDS[request.param]
    commands = tmp_path / "commands"
    commands.mkdir()
    values = {"version": version, "variable": variable, "folder": commands, "status": STATUS[request.param]}
    for name, text in {"qsub": QSUB, "qstat": QSTAT, "qdel": QDEL}.items():
        script = text.format(**values)
        (commands / name).write_text(f"#!/bin/bash\n{script}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(waiting, "_LOOK", 0.1)
    monkeypatch.setattr(waiting, "_ASK", 0.2)
    monkeypatch.setattr(waiting, "_LAG", 0.5)
    return request.param


@pytest.mark.long
@pytest.mark.parametrize("pbs", KINDS, indirect=True)
def test_map_speaks_both_kinds_of_pbs(pbs, tmp_path):
    """An array, and the single job that OpenPBS takes no array of one for."""
    _, _, array, memory = KINDS[pbs]
    with cluster.Cluster("pbs", memory="2G", walltime="90m", queue="long") as jobs:
        assert jobs.map(lambda x: x * x, [1, 2, 3]) == [1, 4, 9]
        assert jobs.map(str.upper, ["a"]) == ["A"]
    first, second = (tmp_path / "commands" / "qsub.log").read_text().splitlines()
    assert array in first
    assert f"-l {memory} -l walltime=01:30:00 -q long" in first
    assert array[:2] not in second.split()
    assert not (tmp_path / "mpiabc-jobs").exists()


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
@pytest.mark.long
def test_silence_of_the_batch_system_is_waited_out_but_not_for_ever(pbs, tmp_path, monkeypatch):
    (tmp_path / "commands" / "qstat").write_text("#!/bin/bash\nexit 1\n")
    monkeypatch.setitem(batch.command.__kwdefaults__, "pauses", ())
    assert cluster.map(lambda x: time.sleep(1) or x, [1, 2], system="pbs") == [1, 2]
    monkeypatch.setattr(waiting, "_SILENCE", 1.0)
    with pytest.raises(mpiabc.SchedulerError, match="`qstat -t` failed with status 1"):
        cluster.map(lambda x: time.sleep(4), [1, 2], system="pbs")


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_a_node_that_does_not_see_a_mapped_file_says_so(pbs, tmp_path):
    """In a sentence: its numbers are not sent."""
    file = tmp_path / "data.npy"
    np.save(file, np.ones((512, 512)))
    data = np.load(file, mmap_mode="r")
    assert cluster.map(lambda i: data[i].sum(), [0, 1], system="pbs") == [512, 512]
    file.unlink()
    with pytest.raises(mpiabc.SchedulerError, match=r"cannot begin:\n.* finds at .*nothing that") as error:
        cluster.map(lambda i: data[i].mean(), [0, 1], system="pbs")
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_states_are_those_that_qstat_lists(pbs, tmp_path):
    (tmp_path / "commands" / "17").mkdir()
    (tmp_path / "commands" / "17" / "count").write_text("3")
    (tmp_path / "commands" / "17" / "2.ended").touch()
    assert systems.SYSTEMS["pbs"].arrays.states() == [("17", 1, "runs"), ("17", 3, "runs")]


@pytest.fixture
def jobs(tmp_path):
    """What was submitted, and cancelled."""

    def of(name):
        log = tmp_path / "commands" / f"{name}.log"
        return log.read_text().splitlines() if log.exists() else []

    return of


def waits_for(path):
    """An item that lasts until a file is there."""
    end = time.monotonic() + HANGS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    return path.exists()


def until(is_so):
    end = time.monotonic() + HANGS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


LEADER = """
import sys
from pathlib import Path
from dataclasses import dataclass
from mpiabc import cluster
from mpiabc.cluster import waiting
from tests.test_cluster_map import waits_for
{line}
waiting._LOOK, waiting._ASK, waiting._LAG = 0.1, 0.2, 0.5

@dataclass
class Parameter:
    value: int

def f(parameter):
    if parameter.value == 2:
        Path("begun").touch()
        waits_for(Path("go"))
    with open(f"done-{{parameter.value}}", "a") as file:
        print("again", file=file)
    return Parameter(10 * parameter.value)

print([p.value for p in cluster.map(f, [Parameter(1), Parameter(2), Parameter(3)], system="pbs")])
"""


@pytest.fixture
def orphaned(tmp_path):
    """A map whose leader was killed when two of three tasks had their results; how it is started again."""

    def start(line=""):
        (tmp_path / "leader.py").write_text(LEADER.format(line=line))
        command = [sys.executable, "leader.py"]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(PATH=f"{tmp_path / 'commands'}:{os.environ['PATH']}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with start() as leader:
        until(lambda: len(list(tmp_path.glob("mpiabc-jobs/*/*.out"))) == 2 and (tmp_path / "begun").exists())
        leader.kill()
    return start


@pytest.mark.long
@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_the_same_call_goes_on_where_its_leader_has_died(pbs, orphaned, jobs, tmp_path):
    """With jobs that are still at work, and although its place in the script has moved."""
    with orphaned("# one line more") as leader:
        assert "the same call has left: 0 of 3 tasks are submitted anew" in leader.stderr.readline()
        (tmp_path / "go").touch()
        assert leader.communicate(timeout=HANGS)[0] == "[10, 20, 30]\n"
    assert len(jobs("qsub")) == 1
    assert [(tmp_path / f"done-{i}").read_text() for i in (1, 2, 3)] == ["again\n"] * 3
    assert not (tmp_path / "mpiabc-jobs").exists()


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
@pytest.mark.long
def test_the_same_call_submits_what_is_lost(pbs, orphaned, jobs, tmp_path):
    subprocess.run(["qdel", "17[]"], check=True)
    (tmp_path / "go").touch()
    with orphaned() as leader:
        assert leader.communicate(timeout=HANGS)[0] == "[10, 20, 30]\n"
    assert ["-J" in words for words in jobs("qsub")] == [True, False]  # three tasks, then one
    assert [(tmp_path / f"done-{i}").read_text() for i in (1, 2, 3)] == ["again\n"] * 3


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
@pytest.mark.long
def test_results_of_a_map_whose_leader_has_died_are_collected(pbs, orphaned, jobs, tmp_path):
    """By the folder of the maps where it is the only one; nothing is submitted, and nothing is removed."""
    (folder,) = (tmp_path / "mpiabc-jobs").iterdir()
    (tmp_path / "go").touch()
    for _ in range(2):
        assert [p.value for p in cluster.collect()] == [10, 20, 30]
    assert len(jobs("qsub")) == 1
    assert [p.value for p in cluster.collect(folder)] == [10, 20, 30]
    with pytest.raises(mpiabc.SchedulerError, match="commands has no map"):
        cluster.collect(tmp_path / "commands")


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
@pytest.mark.long
def test_what_is_there_is_collected_and_what_is_lost_is_named(pbs, orphaned, jobs, tmp_path):
    subprocess.run(["qdel", "17[]"], check=True)
    message = r"task 2 of 3 \(items\[1\], job 17\[2\] on .*\) was cancelled \(exit status 271 after"
    with pytest.raises(mpiabc.SchedulerError, match=message):
        cluster.collect()
    first, second, third = cluster.collect(return_exceptions=True)
    assert (first.value, third.value) == (10, 30)
    assert isinstance(second, mpiabc.SchedulerError)
    assert len(jobs("qsub")) == 1


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
@pytest.mark.long
def test_a_call_whose_leader_lives_is_not_taken_over(pbs, tmp_path, jobs):
    """The same call at the same time is another one."""

    def f(x):
        return waits_for(tmp_path / "go")

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(cluster.map, f, [1], system="pbs") for _ in range(2)]
        until(lambda: len(jobs("qsub")) == 2)
        (tmp_path / "go").touch()
        assert [call.result(HANGS) for call in calls] == [[True], [True]]


@pytest.mark.parametrize("pbs", KINDS, indirect=True)
@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.long
def test_a_cancellation_is_one_and_nothing_is_submitted_again(returns, pbs, tmp_path, jobs):
    def f(x):
        (tmp_path / f"begun-{x}").touch()
        return waits_for(tmp_path / "go")

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(cluster.map, f, [0, 1], system="pbs", return_exceptions=returns)
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        subprocess.run(["qdel", "17[]"], check=True)
        with pytest.raises(mpiabc.SchedulerError) as error:
            call.result(HANGS)
    assert "task 1 of 2 (items[0], job 17[1] on " in str(error.value)
    assert "was cancelled (exit status 271 after 00:00:03 of 00:00:04): nothing is submitted" in str(
        error.value
    )
    assert len(jobs("qsub")) == 1


@pytest.mark.parametrize(("ran", "why"), [("99:59:00", Why.CANCELLED), ("100:00:05", Why.TIME)])
def test_a_qdel_of_an_older_pbs_is_one_where_time_was_left(ran, why):
    """Hours have as many digits as they need."""
    found = pbs_system._ending(271, {"resources_used.walltime": ran, "Resource_List.walltime": "100:00:00"})
    assert found.why is why


@pytest.mark.parametrize(("pbs", "status"), [("OpenPBS", -29), ("Torque", -11)], indirect=["pbs"])
def test_a_time_limit_that_is_too_short_is_named_at_once(pbs, status, tmp_path, jobs):
    def f(x):
        if x == 2:
            (tmp_path / "commands" / "17" / "2.ended").write_text(f"{status}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    message = r"task 2 of 2 \(items\[2\] to items\[3\], job 17\[2\] on .*\) was ended at its time limit "
    message += (
        rf"\(exit status {status} after 00:00:03 of 00:00:04\): give more walltime=.*It was at items\[2\]"
    )
    with pytest.raises(mpiabc.SchedulerError, match=message):
        cluster.map(f, range(4), system="pbs", chunk=2, walltime=4)
    assert len(jobs("qsub")) == 1


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
@pytest.mark.long
def test_an_item_that_fails_early_is_reported_early_and_the_rest_is_kept(pbs, tmp_path, jobs, caplog):
    """While its own task and another one are at work; the same call then computes what has failed."""

    def f(x):
        if x == 0 and not (tmp_path / "mended").exists():
            until(lambda: list(tmp_path.glob("mpiabc-jobs/*/1.out")))
            raise ValueError("no zero")
        if x == 3:
            (tmp_path / "counted").open("a").write("x")
        return x if x == 3 else waits_for(tmp_path / "go")

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(cluster.map, f, [3, 2, 0, 1], system="pbs", chunk=1)
        with pytest.raises(ValueError, match="no zero") as error:
            call.result(HANGS)
    assert error.value.__notes__ == [f"items[2], on {platform.node()}"]
    assert jobs("qdel") == ["17[]"]
    for name in ("go", "mended"):
        (tmp_path / name).touch()
    assert cluster.map(f, [3, 2, 0, 1], system="pbs", chunk=1) == [3, True, True, True]
    assert (tmp_path / "counted").read_text() == "x"
    assert "3 of 4 tasks are submitted anew" in caplog.text


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_whatever_an_item_raises_is_its_failure_at_its_place(pbs, tmp_path, jobs, caplog):
    """Also what would end this process without a word."""

    def f(x):
        if x == 1:
            sys.exit(0)
        if x == 2:
            raise KeyboardInterrupt
        if x == 3:
            raise UnpicklableError(threading.Lock())
        return x

    class UnpicklableError(Exception):
        pass

    zero, *errors = cluster.map(f, range(4), system="pbs", chunk=4, return_exceptions=True)
    assert zero == 0
    for index, (error, name) in enumerate(
        zip(errors, ["SystemExit", "KeyboardInterrupt", "Unp"], strict=True), 1
    ):
        assert isinstance(error, mpiabc.SchedulerError)
        assert str(error).startswith(f"items[{index}] has failed: ")
        assert name in str(error)
        assert "in f" in str(error.__cause__)
        assert f"items[{index}], on {platform.node()}: " in caplog.text
    assert len(jobs("qsub")) == 1
    with pytest.raises(mpiabc.SchedulerError, match=r"items\[1\] has failed: SystemExit: 0"):
        cluster.map(f, range(4), system="pbs", chunk=4)


@pytest.mark.parametrize("pbs", ["OpenPBS"], indirect=True)
def test_jobs_are_shown_with_their_time_host_and_log(pbs, tmp_path, capsys):
    def f(x):
        print("hello", x, flush=True)
        (tmp_path / f"begun-{x}").touch()
        if x == 2:
            raise ValueError("no two")
        return x < 4 or waits_for(tmp_path / "go")

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(cluster.map, f, range(6), system="pbs", chunk=2, return_exceptions=True)
        until(lambda: (tmp_path / "begun-4").exists())
        until(lambda: len(list(tmp_path.glob("mpiabc-jobs/*/[12].out"))) == 2)
        assert cli.main(["jobs"]) == 0
        short = capsys.readouterr().out
        assert cli.main(["jobs", "--all", "--failures"]) == 0
        long = capsys.readouterr().out
        (tmp_path / "go").touch()
        assert call.result(HANGS)[2].args == ("no two",)
    rows = {line.split()[0]: line.split()[1:] for line in long.splitlines() if line.startswith("17[")}
    assert [row[:2] for row in rows.values()] == [["0-1", "done"], ["2-3", "failed"], ["4-5", "running"]]
    for index, (_, _, spent, host, log) in enumerate(rows.values(), 1):
        assert re.fullmatch(r"0:00:\d\d", spent)
        assert host == platform.node()
        assert re.fullmatch(rf"mpiabc-jobs/map-.*/1-{index}\.log", log)
    assert f"items[2], on {platform.node()}\nTraceback" in long
    assert "17[1]" not in short
    assert "17[3]" in short


SACCT = """\
17_1|COMPLETED|00:00:07|01:00:00|node1
17_2|TIMEOUT|00:01:12|00:01:00|node1
17_3|CANCELLED by 1000|00:00:09|01:00:00|node2
17_4|OUT_OF_MEMORY|00:00:09|01:00:00|node2
17_5|NODE_FAIL|00:00:09|01:00:00|node3
17_6|RUNNING|00:00:09|01:00:00|node3
17_[7-8,10%2]|CANCELLED by 1000|00:00:00|01:00:00|None assigned
"""
QACCT = """\
==============================================================
hostname     node1
taskid       {}
failed       {}
exit_status  {}
ru_wallclock 5s
category     -l h_rt={}
"""
AT_LIMIT, KILLED = "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "100 : assumedly after job"
RECORDS = [
    (1, "0    ", "3                   ", 300),
    (2, AT_LIMIT, "137                  (Killed)", 4),
    (3, AT_LIMIT, "140                  (User defined signal 2)", 99),
    (4, KILLED, "140                  (User defined signal 2)", 99),
    (5, KILLED, "140                  (User defined signal 2)", 99),
    (5, KILLED, "137                  (Killed)", 99),  # it was run again
]
ENDED = {  # what real ones have said; what it means, and in which words it is said
    "slurm": (
        {"sacct": SACCT},
        {1: "LOST", 2: "TIME", 3: "CANCELLED", 4: "MEMORY", 5: "LOST", 7: "CANCELLED"}
        | {8: "CANCELLED", 10: "CANCELLED"},
        {2: "TIMEOUT after 00:01:12 of 00:01:00 on node1", 8: "CANCELLED by 1000 after 00:00:00 of 01:00:00"},
    ),
    "sge": (
        {"qacct": "".join(QACCT.format(*record) for record in RECORDS)},
        {1: "LOST", 2: "TIME", 3: "MEMORY", 4: "CANCELLED", 5: "LOST"},
        {4: "failed 100 : assumedly after job, exit status 140, after 00:00:05 of 00:01:39 on node1"},
    ),
}


@pytest.mark.parametrize("system", ENDED)
def test_why_tasks_have_ended_is_asked_of_the_accounting(system, tmp_path, monkeypatch):
    commands, expected, texts = ENDED[system]
    for command, said in commands.items():
        (tmp_path / command).write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    endings = systems.SYSTEMS[system].arrays.endings("17", 10)
    assert {index: ending.why.name for index, ending in endings.items()} == expected
    assert {index: endings[index].details for index in texts} == texts


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
        cluster.map(abs, [1], system="slurm")
    assert not os.path.exists("mpiabc-jobs")


def test_former_name_of_the_batch_system_is_understood_and_reported(nothing):
    with pytest.warns(DeprecationWarning, match="scheduler='pbs' is called system= now"):
        assert cluster.Cluster(scheduler="pbs") == cluster.Cluster(system="pbs")


def test_wrong_use_is_reported(nothing):
    assert cluster.map(abs, [], system="slurm") == []
    with pytest.raises(mpiabc.ProblemError, match="system='lsf': give slurm, sge, pbs"):
        cluster.map(abs, [1], system="lsf")
    for chunk in (-1, 0, True, 1.5):
        with pytest.raises(mpiabc.ProblemError, match=f"chunk={chunk}: give a whole number"):
            cluster.map(abs, [1], system="slurm", chunk=chunk)
    with pytest.raises(mpiabc.ProblemError, match="walltime='soon' is not understood"):
        cluster.map(abs, [1], system="slurm", walltime="soon")
    with pytest.raises(mpiabc.ProblemError, match="name='a/b': give a letter"):
        cluster.map(abs, [1], system="slurm", name="a/b")
    with pytest.raises(mpiabc.ProblemError, match="options='--gres=gpu': give a list of words"):
        cluster.map(abs, [1], system="slurm", options="--gres=gpu")
    with pytest.raises(mpiabc.SchedulerError, match="cannot start `qsub`"):
        cluster.map(abs, [1], system="pbs")
    with pytest.raises(mpiabc.ProblemError, match=r"items\[1\] cannot be sent to another node"):
        cluster.map(id, [1, threading.Lock()], system="slurm", chunk=2)
    assert not os.path.exists("mpiabc-jobs")


def test_jobs_say_what_the_files_say_where_the_batch_system_is_silent(nothing, tmp_path, capsys, monkeypatch):
    """One question for two calls; a damaged call is a row of its own."""
    asked = []
    pbs = systems.SYSTEMS["pbs"]
    arrays = replace(pbs.arrays, states=lambda: asked.append("") or silent())
    monkeypatch.setitem(systems.SYSTEMS, "pbs", replace(pbs, arrays=arrays))

    def silent():
        raise batch.CommandError("`qstat -t` failed with status 1: no server")

    assert cli.main(["jobs"]) == 0
    assert "no folder mpiabc-jobs here" in capsys.readouterr().out
    call = {
        "system": "pbs",
        "name": "map",
        "items": 2,
        "chunk": 1,
        "identity": "",
        "words": [],
        "python": "python",
        "jobs": {"17": [1, 2]},
    }
    older = {"scheduler" if name == "system" else name: value for name, value in call.items()}
    calls = {"map-1": call, "map-2": older, "map-3": "", "map-4": [1], "map-5": call | {"system": "no"}}
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
    (tmp_path / "1.in").write_bytes(cloudpickle.dumps((0, [300])))
    (tmp_path / "round-1.json").write_text("[1]")
    program = f"from mpiabc.cluster.task import work; work({str(tmp_path)!r}, '1-1')"
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
