"""Jobs of batch systems: how long they still run, and how a run ends in time.

The systems' commands are scripts that print what the real ones print; tests/test_clusters.py
asks the real ones.
"""

import os
import subprocess
import sys
import time
from datetime import datetime

import pytest

import mpiabc
from mpiabc import batch, schedulers, stopping
from mpiabc.driver import Limits
from mpiabc.signals import Signals
from tests import problems
from tests.conftest import environment
from tests.programs import killed

VARIABLES = (
    *("SLURM_JOB_ID", "SLURM_JOB_END_TIME", "PBS_JOBID", "PBS_WALLTIME"),
    *("JOB_ID", "SGE_TASK_ID", "LSB_JOBID", "LSB_JOBINDEX"),
)
QSTAT = """\
Job Id: 17.master
    Job_Name = fit
    resources_used.walltime = 00:05:00
    Resource_List.walltime = 01:00:00
    {start}
"""
QSTAT_J = """\
job_number:                 17
hard resource_list:         h_vmem=2G,h_rt=3600
soft resource_list:         s_rt=1800
"""


@pytest.fixture
def job(monkeypatch, tmp_path):
    """Makes this process a job: its environment, and commands that print a text or fail with it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(batch.command.__kwdefaults__, "pauses", (0.0, 0.0))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def set_up(variables, commands=None, status=0):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name, text in (commands or {}).items():
            script = tmp_path / name
            script.write_text(
                f"#!/bin/sh\necho \"$0 $*\" >>{tmp_path}/calls\ncat <<'END'\n{text}\nEND\nexit {status}\n"
            )
            script.chmod(0o755)
        return tmp_path

    return set_up


def ago(seconds):
    return datetime.fromtimestamp(time.time() - seconds).strftime("%a %b %d %H:%M:%S %Y")


def lives(variable):
    """A process that has the variable in its environment from its start; its age is the job's."""
    program = "import time, mpiabc.batch as batch; time.sleep(1); print(batch.seconds_left())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**variable),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


CASES = {
    "Slurm, its variable": (
        {"SLURM_JOB_ID": "17", "SLURM_JOB_END_TIME": lambda: str(int(time.time()) + 99)},
        {},
        99,
    ),
    "Slurm, minutes": ({"SLURM_JOB_ID": "17"}, {"squeue": "2:05"}, 125),
    "Slurm, hours": ({"SLURM_JOB_ID": "17"}, {"squeue": "1:02:05"}, 3725),
    "Slurm, days": ({"SLURM_JOB_ID": "17"}, {"squeue": "2-01:02:05"}, 176525),
    "OpenPBS": ({"PBS_JOBID": "17"}, {"qstat": lambda: QSTAT.format(start=f"stime = {ago(600)}")}, 3000),
    "Torque": ({"PBS_JOBID": "17"}, {"qstat": lambda: QSTAT.format(start=f"start_time = {ago(600)}")}, 3000),
    "PBS, no start": ({"PBS_JOBID": "17"}, {"qstat": QSTAT.format(start="")}, 3300),
    "LSF": ({"LSB_JOBID": "17", "LSB_JOBINDEX": "0"}, {"bjobs": "1:10 L"}, 4200),
    "LSF, minutes": ({"LSB_JOBID": "17", "LSB_JOBINDEX": "3"}, {"bjobs": "10L"}, 600),
}


@pytest.mark.parametrize("case", CASES)
def test_time_left_is_what_the_batch_system_says(case, job):
    variables, commands, expected = CASES[case]

    def filled(texts):
        return {name: text() if callable(text) else text for name, text in texts.items()}

    began = time.time()
    folder = job(filled(variables), filled(commands))
    for left in (batch.seconds_left(), stopping.seconds("auto")):
        assert expected - 2 - (time.time() - began) < left < expected + 1
    calls = (folder / "calls").read_text() if commands else "17"
    assert ("17[3]" if case == "LSF, minutes" else "17") in calls


def test_time_left_of_torque_counts_from_the_start_of_the_job(job):
    job({})
    began = time.time()
    left = lives({"PBS_JOBID": "17", "PBS_WALLTIME": "600"})
    assert 599 - (time.time() - began) < left <= 599


@pytest.mark.parametrize(("of_queue", "expected"), [("INFINITY", 1800), ("00:10:00", 600)])
def test_time_left_of_sge_is_the_smallest_limit_since_the_start_of_the_job(of_queue, expected, job):
    job({}, {"qstat": QSTAT_J, "qconf": f"qname long.q\ns_rt   INFINITY\nh_rt   {of_queue}"})
    variables = {"JOB_ID": "17", "SGE_TASK_ID": "undefined", "QUEUE": "long.q"}
    began = time.time()
    left = lives(variables)
    assert expected - 1 - (time.time() - began) < left <= expected - 1


NO_LIMIT = {
    "outside": ({}, {}, "needs a job of a batch system, and the environment shows none of SLURM"),
    "unlimited": (
        {"SLURM_JOB_ID": "17"},
        {"squeue": "UNLIMITED"},
        "no time limit of this SLURM job: the job has none",
    ),
    "estimate": ({"LSB_JOBID": "17"}, {"bjobs": "1:10 E"}, "no time limit of this LSF job"),
    "no limit": ({"PBS_JOBID": "17"}, {"qstat": "Job Id: 17"}, "no time limit of this PBS job"),
    "no command": ({"LSB_JOBID": "17"}, {}, "cannot start `bjobs` .*is it on the PATH"),
}


@pytest.mark.parametrize("case", NO_LIMIT)
def test_missing_limit_is_said_with_what_to_do(case, job):
    variables, commands, message = NO_LIMIT[case]
    job(variables, commands)
    with pytest.raises(mpiabc.ProblemError, match=message) as error:
        batch.seconds_left()
    assert 'give seconds, or text such as "2h"' in str(error.value)


def test_failing_command_is_tried_again_and_reported(job):
    folder = job({"SLURM_JOB_ID": "17"}, {"squeue": "slurm_load_jobs error: Unable to contact"}, status=1)
    with pytest.raises(mpiabc.ProblemError, match=r"`squeue .* failed with status 1: slurm_load_jobs error"):
        batch.seconds_left()
    assert len((folder / "calls").read_text().splitlines()) == 3


@pytest.mark.long
def test_run_ends_before_each_of_its_jobs_and_goes_on_in_the_next(job, tmp_path):
    """Jobs of 9 s, of which the last 7 are kept for winding up; what was in flight is kept too."""
    job({"SLURM_JOB_ID": "17"}, {"squeue": "0:09"})
    command = [
        sys.executable,
        "-m",
        "tests.programs.killed",
        tmp_path / "run.db",
        "processes",
        "auto",
        "0.012",
    ]
    statuses = []
    while not statuses or statuses[-1] == 75:
        statuses.append(subprocess.run(command, env=environment()).returncode)
        assert len(statuses) < 20
    assert statuses[-1] == 0
    assert len(statuses) > 1
    quiet = killed.sampler(0).run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == problems.digests(quiet)


def test_walltime_of_the_environment_is_for_a_run_that_is_given_none(job, tmp_path, monkeypatch):
    """And it is no end of a run without any other rule: such a run would be submitted for ever."""
    job({"SLURM_JOB_ID": "17"}, {"squeue": "0:01"})
    monkeypatch.setenv("MPIABC_WALLTIME", "auto")
    with pytest.raises(mpiabc.Interrupted):
        problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert problems.sampler().run(tmp_path / "run.db", scheduler="serial", walltime=60).reason == "threshold"
    endless = mpiabc.ABCSMC(problems.problem(), 100)
    with pytest.raises(mpiabc.ProblemError, match="the run has no end"):
        endless.run(tmp_path / "endless.db", scheduler="serial")
    monkeypatch.setenv("MPIABC_WALLTIME", "soon")
    with pytest.raises(mpiabc.ProblemError, match="walltime='soon' is not understood"):
        problems.sampler().run(tmp_path / "new.db", scheduler="serial")


def test_scheduler_of_the_environment_is_what_auto_means(monkeypatch):
    for given, expected in {"serial": "Serial", " serial , dask": "Combined", "auto": "Processes"}.items():
        monkeypatch.setenv("MPIABC_SCHEDULER", given)
        assert type(schedulers.resolve("auto")).__name__ == expected
        assert isinstance(schedulers.resolve("processes"), schedulers.Processes)
    for wrong in ("auto,dask", "somewhere"):
        monkeypatch.setenv("MPIABC_SCHEDULER", wrong)
        with pytest.raises(mpiabc.SchedulerError, match="MPIABC_SCHEDULER"):
            schedulers.resolve("auto")


def test_margin_before_the_end_of_a_job_grows_with_the_simulations():
    """What is in flight gets until 5 s before the end; a walltime of the user's has a short grace."""
    limits = Limits(end=1000.0)
    assert limits.stop(992.9, longest=0.1) is None
    assert limits.stop(993.1, longest=0.1).until == 995
    assert limits.stop(894.9, longest=100.0) is None
    assert limits.stop(895.1, longest=100.0).until == 995
    assert Limits(deadline=100.0).stop(100.0, longest=50.0).until == 102
    heard = Signals()
    heard.seen = "SIGTERM"
    assert Limits(end=1000.0, signals=heard).stop(10.0, longest=50.0).until == 12


def test_status_of_a_run_that_can_go_on_is_the_users_choice(tmp_path, monkeypatch):
    command = [sys.executable, "-m", "tests.programs.killed", tmp_path / "run.db", "serial", "0.3s"]
    for chosen, expected in ((None, 75), ("99", 99)):
        extra = {} if chosen is None else {"MPIABC_RESUMABLE_STATUS": chosen}
        assert subprocess.run(command, env=environment(**extra)).returncode == expected
    for wrong in ("1", "126", "x"):
        monkeypatch.setenv("MPIABC_RESUMABLE_STATUS", wrong)
        with pytest.raises(mpiabc.ProblemError, match="give an exit status from 3 to 125"):
            problems.sampler().run(tmp_path / "new.db", scheduler="serial")
    assert "MPIABC_RESUMABLE_STATUS" in os.environ


def test_status_is_that_of_every_rank(mpi, tmp_path, monkeypatch):
    monkeypatch.setenv("MPIABC_RESUMABLE_STATUS", "99")
    job = mpi.run(2, "-m", "tests.programs.killed", tmp_path / "run.db", "mpi", "0.3s")
    assert job.returncode == 99, job.stdout
