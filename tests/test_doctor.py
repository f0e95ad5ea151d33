"""`mpiabc doctor`: what it says of installations that are well, and of those that are not."""

import errno
import fcntl
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

import pytest

from mpiabc import cli, programs
from mpiabc.analysis.diagnostics import Severity
from mpiabc.cli import doctor
from mpiabc.cli.doctor import extras, launching, leftovers, places, ranks, system
from mpiabc.cli.doctor.asking import Answer
from mpiabc.cli.doctor.check import Check, Place, Seen, problem, seen, warning
from mpiabc.cli.doctor.launching import Launched, Launcher, Library
from tests.conftest import HANGS, ROOT, environment, environment_of

MPICH = Library("4.1.2", "MPICH", "5.0.2", "MPICH", "/a/lib/libmpi.so.12")
OPEN_MPI = Launcher("mpirun", "/b/bin/mpirun", "Open MPI", "5.0.11")
HYDRA = Launcher("mpirun", "/a/bin/mpirun", "MPICH", "5.0.2")
ALONE = Launched(((0, 1), (0, 1)))
GOOD, NOTE, WARNING, PROBLEM = Severity.GOOD, Severity.NOTE, Severity.WARNING, Severity.PROBLEM


def write(path, text):
    """A program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def doctor_says(*topics, monkeypatch, capsys, arguments=()):
    """Exit status and output of the command with these of its checks, each in a line, whatever its paths."""
    chosen = [check for check in doctor.CHECKS if check.topic in topics]
    assert len(chosen) == len(topics)
    monkeypatch.setattr(doctor, "CHECKS", chosen)
    monkeypatch.setattr(doctor, "_COLUMNS", 1000)
    return cli.main(["doctor", *map(str, arguments)]), capsys.readouterr().out


@pytest.fixture
def as_user(mpi, monkeypatch):
    """This process as that of somebody who has activated the environment of this MPI."""
    for name, value in environment(PATH=f"{mpi.bin}{os.pathsep}{os.environ['PATH']}").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(mpi.python / "python"))
    return mpi


def test_ranks_of_a_whole_installation_find_each_other(as_user, monkeypatch, capsys):
    topics = ("Python", "MPI", "launchers", "two ranks")
    status, output = doctor_says(*topics, monkeypatch=monkeypatch, capsys=capsys)
    name = {"mpich": "MPICH", "openmpi": "Open MPI"}[as_user.name]
    assert status == 0
    assert re.search(rf"^ +MPI +{name} \d.*libmpi\S*\), mpi4py \d", output, re.MULTILINE)
    assert re.search(rf"^ +launchers +{as_user.bin}/mpirun\|mpiexec \({name} \d", output, re.MULTILINE)
    assert re.search(r"^ +two ranks +start, and find each other$", output, re.MULTILINE)
    assert output.endswith("\n\nNothing is wrong: runs have what they need\n")


ONE_TABLE = """
import sys
from mpiabc import cli
from mpiabc.cli import doctor
doctor.CHECKS = [check for check in doctor.CHECKS if check.topic in ("MPI", "two ranks")]
sys.exit(cli.main(["doctor"]))
"""


def test_ranks_that_are_doctors_themselves_say_how_many_they_are_once(mpi):
    job = mpi.run(2, "-c", ONE_TABLE)
    assert job.returncode == 0, job.stdout
    assert job.stdout.count("this is rank 0 of 2") == 1
    assert "this is one of 2 ranks, which have found each other" in job.stdout
    assert job.stdout.count("Nothing is wrong") == 1


RANK_THAT_STAYS_AWAY = """
import os, sys, time
from pathlib import Path
from mpiabc import cli
from mpiabc.cli import doctor
from mpiabc.schedulers.mpi import launched_rank
from tests.test_doctor import is_running

note = Path(sys.argv[1])
if launched_rank():
    while not note.exists() or is_running(int(note.read_text())):
        time.sleep(0.01)
    sys.exit()
note.with_suffix(".new").write_text(str(os.getpid()))
note.with_suffix(".new").rename(note)
doctor._TOGETHER = 0.5
sys.exit(cli.main(["doctor"]))
"""


@pytest.mark.long
def test_ranks_do_not_wait_for_ever_for_one_that_stays_away(mpi, tmp_path):
    """That one goes when the other has gone: a launcher may wait for it."""
    job = mpi.run(2, "-c", RANK_THAT_STAYS_AWAY, tmp_path / "process")
    assert job.returncode != 0
    assert "Traceback" not in job.stdout


@pytest.mark.long
def test_mpirun_of_another_mpi_is_reported_with_the_right_one(monkeypatch, capsys):
    """Real ones: MPICH's mpirun, and an mpi4py with Open MPI; and these as ranks of the command itself."""
    mpich, other = environment_of("mpich"), environment_of("openmpi")
    monkeypatch.setattr(sys, "executable", str(other / "python"))
    monkeypatch.setenv("PATH", f"{mpich}{os.pathsep}{os.environ['PATH']}")
    status, output = doctor_says("MPI", "two ranks", monkeypatch=monkeypatch, capsys=capsys)
    assert status == 1
    assert "problem  two ranks  each is alone" in output
    assert f"use {other.resolve()}/mpirun" in output
    words = [mpich / "mpirun", "-n", "2", other / "python", "-c", ONE_TABLE]
    job = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=HANGS)
    assert job.returncode == 1
    assert "the launcher started 2 ranks but MPI sees only this one" in job.stdout


def test_all_checks_come_to_an_end_where_mpi4py_is_not_installed(tmp_path):
    """With an mpirun on the PATH that is a problem; processes work."""
    write(tmp_path / "mpirun", "echo 'mpirun (Open MPI) 5.0.1'")
    lack = "raise ModuleNotFoundError(\"No module named 'mpi4py'\")"
    (tmp_path / "mpi4py.py").write_text(lack)
    here = environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}", PATH=f"{tmp_path}:/usr/bin:/bin")
    done = subprocess.run(
        [sys.executable, "-m", "mpiabc", "doctor", tmp_path],
        env=here,
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 1, done.stderr
    assert [check.topic for check in doctor.CHECKS if check.topic not in done.stdout] == []
    assert "problem: mpi4py is not installed, without which no rank finds the others" in done.stdout
    assert re.search(r"^ +processes +work, ", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("\n1 problem\n")


RANKS = {
    "no MPI, no mpirun": (
        ranks.judge_library((Library(lack="ImportError"), False)),
        WARNING,
        "cores of this",
    ),
    "no MPI, and an mpirun": (
        ranks.judge_library((Library(lack="ImportError"), True)),
        PROBLEM,
        "mpiabc[mpich]",
    ),
    "a library": (ranks.judge_library((MPICH, True)), GOOD, "MPICH 5.0.2 (/a/lib/libmpi.so.12)"),
    "no mpirun": (ranks.judge_launchers(()), WARNING, "there is no mpirun"),
    "two MPIs": (
        ranks.judge_launchers((HYDRA, Launcher("mpiexec", "/b/bin/mpiexec", "Open MPI", "5.0.11"))),
        WARNING,
        "two MPIs are on the PATH: /a/bin/mpirun (MPICH 5.0.2) and /b/bin/mpiexec (Open MPI 5.0.11)",
    ),
    "not on the path": (
        ranks.judge_launchers((Launcher("mpirun", "/a/bin/mpirun", "MPICH", "5.0", is_on_path=False),)),
        NOTE,
        "call it by its path, /a/bin/mpirun",
    ),
    "alone": (
        ranks.judge_start(ranks.Start(MPICH, OPEN_MPI, ALONE, HYDRA)),
        PROBLEM,
        "belong to different MPIs (mpi4py uses MPICH 5.0.2): use /a/bin/mpirun",
    ),
    "alone, of one kind": (
        ranks.judge_start(ranks.Start(MPICH, HYDRA, ALONE)),
        PROBLEM,
        "srun with the right",
    ),
    "aborted": (
        ranks.judge_start(ranks.Start(MPICH, OPEN_MPI, Launched((), 16, "PMI version PMIx"))),
        PROBLEM,
        "/b/bin/mpirun (Open MPI 5.0.11) starts no ranks: mpirun and mpi4py belong to different MPIs",
    ),
    "root": (
        ranks.judge_start(ranks.Start(MPICH, OPEN_MPI, Launched((), 1, "an attempt to run as root."))),
        PROBLEM,
        "set OMPI_ALLOW_RUN_AS_ROOT=1",
    ),
    "one core": (
        ranks.judge_start(
            ranks.Start(MPICH, OPEN_MPI, Launched((), 1, "There are not enough slots available"))
        ),
        WARNING,
        "--oversubscribe",
    ),
    "fails in its own words": (
        ranks.judge_start(ranks.Start(MPICH, HYDRA, Launched((), 3, "-----\nno route to host"))),
        PROBLEM,
        "fails with status 3 (no route to host)",
    ),
    "fails at its end": (
        ranks.judge_start(ranks.Start(MPICH, HYDRA, Launched(((0, 2), (1, 2)), 9))),
        PROBLEM,
        "ends with status 9",
    ),
    "one rank alone": (
        ranks.judge_start(ranks.Start(MPICH, HYDRA, Launched(((0, 2),), 0))),
        PROBLEM,
        "fails with status 0",
    ),
    "nothing to start": (ranks.judge_start(ranks.Start(MPICH, None, None)), GOOD, "not tried"),
}
MACHINES = {
    "another python": (
        system.judge_python(system.Python("3.11.7", "/a/bin/python", "/usr/bin/python")),
        NOTE,
        "`python` on the PATH is /usr/bin/python, not this one",
    ),
    "no global lock": (
        system.judge_python(system.Python("3.14.0", "/a/bin/python", "/a/bin/python", "runs without")),
        PROBLEM,
        "runs without",
    ),
    "two mpiabc": (
        system.judge_package(system.Package("0.2.0", "/home/me/mpiabc", "0.1.0")),
        WARNING,
        "mpiabc 0.2.0 is imported from /home/me/mpiabc, and 0.1.0 is installed",
    ),
    "threads for each worker": (
        system.judge_arithmetic(system.Arithmetic("2.4", "1.17", "openblas", 16, True)),
        WARNING,
        "the environment sets 16 threads",
    ),
    "one thread": (
        system.judge_arithmetic(system.Arithmetic("2.4", "1.17", "openblas", 1, True)),
        GOOD,
        "one thread by the environment",
    ),
    "a quota": (system.judge_cores(system.Cores(64, 4)), NOTE, "4 of 64 cores: the affinity"),
    "a promise": (
        system.judge_cores(system.Cores(64, 4, ("SLURM_CPUS_PER_TASK", 4))),
        NOTE,
        "SLURM_CPUS_PER_TASK=4",
    ),
    "no child processes": (
        system.judge_children(system.Workers("", "Resource temporarily unavailable")),
        PROBLEM,
        "two worker processes do not work: Resource temporarily unavailable",
    ),
    "no forks": (
        system.judge_children(system.Workers("new interpreters", could_fork=True)),
        NOTE,
        "are not forked",
    ),
    "small shared memory": (
        system.judge_memory(system.Room(64 * 2**20, 60 * 2**20)),
        WARNING,
        "docker run --shm-size=1g",
    ),
    "no shared memory": (system.judge_memory(system.Room(None)), GOOD, "no /dev/shm"),
    "few open files": (system.judge_limits(system.Limits(256, 256, 128)), WARNING, "the hard limit of 256"),
    "enough open files": (system.judge_limits(system.Limits(1024, 4096, 64)), GOOD, "1024"),
    "a job without a limit": (
        system.judge_batch(system.Job("SGE job 3", lack="finds no time limit")),
        WARNING,
        "finds no time limit",
    ),
    "a full disk": (
        places.judge_folder(places.Disk("/scratch", "xfs", "rw", 2**20)),
        WARNING,
        "/scratch has 1 MB left",
    ),
    "locks of one node": (
        places.judge_folder(places.Disk("/scratch", "lustre", "rw,localflock", 2**40)),
        WARNING,
        "hold on this node alone (localflock)",
    ),
    "no place for temporary files": (
        places.judge_temporary(places.Disk("/tmp", lack="No space left on device")),
        PROBLEM,
        "No space left on device",
    ),
    "TMPDIR of another node": (
        places.judge_temporary(places.Disk("/tmp", free=2**40, wanted="/local/17")),
        WARNING,
        "TMPDIR is /local/17, which is no folder",
    ),
    "an old library": (extras.judge_extras({"redis": "4.6.0"}), WARNING, "pip install 'redis>=5.0'"),
    "no plots": (extras.judge_extras({"redis": "5.0"}), NOTE, "plot (lacks matplotlib)"),
    "no redis-server": (extras.judge_redis(extras.Redis(lack="there is none")), NOTE, "there is none"),
    "a redis-server without TLS": (
        extras.judge_redis(extras.Redis("/usr/bin/redis-server (Redis 6.2)")),
        NOTE,
        "was built without TLS",
    ),
}
CASES = RANKS | MACHINES


@pytest.mark.parametrize("case", CASES)
def test_what_is_seen_is_judged_in_a_sentence(case):
    found, severity, words = CASES[case]
    assert found.severity is severity
    assert words in "\n".join([found.words, *(remark.text for remark in found.remarks)])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25 20:45:26 UTC 2026", ("MPICH", "5.0.2")),
        ("HYDRA build details:\n    Version:  4.3.1\n  Launchers available: ssh slurm", ("MPICH", "4.3.1")),
        ("Open MPI v5.0.11, package: Open MPI user@localhost", ("Open MPI", "5.0.11")),
        ("mpirun (Open MPI) 4.1.4", ("Open MPI", "4.1.4")),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.9 Build 20230307", ("Intel MPI", "2021.9")),
        ("MPI VERSION    : CRAY MPICH version 8.1.28.15", ("MPICH", "8.1.28.15")),
        ("slurm 22.05.8", ("Slurm", "22.05.8")),
        ("mpirun: no such option", ("", "")),
    ],
    ids=["MPICH", "Hydra", "Open MPI", "Open MPI 4", "Intel MPI", "Cray MPICH", "Slurm", "unknown"],
)
def test_kinds_of_mpi_are_known_by_what_they_say(said, expected):
    assert launching.kind(said) == expected


def test_launchers_are_found_on_the_path_and_two_ranks_of_theirs_are_heard(tmp_path, monkeypatch):
    """Stand-ins: an mpirun of another MPI, each of whose ranks is alone; a Slurm that is not set up."""
    alone = "shift 2\necho 'rank 0 of 1'\necho 'rank 0 of 1'"
    write(tmp_path / "mpirun", f'test "$1" = --version && echo "mpirun (Open MPI) 5.0.1" && exit\n{alone}')
    write(tmp_path / "srun", "echo 'no configuration' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    first, *others = launching.launchers()
    assert first == Launcher("mpirun", str(tmp_path / "mpirun"), "Open MPI", "5.0.1")
    assert "srun" not in [each.name for each in others]
    assert launching.started(first).worlds == ALONE.worlds


def test_launcher_that_hangs_is_ended_with_what_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "STARTS", 0.2)
    note = tmp_path / "process"
    path = write(tmp_path / "mpirun", f"sleep 600 &\necho $! > {note}\nwait")
    launched = launching.started(Launcher("mpirun", str(path), "MPICH", "5.0"))
    assert launched == Launched((), None)
    found = ranks.judge_start(ranks.Start(MPICH, HYDRA, launched))
    assert (found.words, found.severity) == ("hang", PROBLEM)
    deadline = time.monotonic() + HANGS
    while is_running(int(note.read_text())):
        assert time.monotonic() < deadline, "the launcher's own process is still there"
        time.sleep(0.01)


def is_running(process):
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_mpi4py_that_cannot_load_its_library_says_why():
    trace = "Traceback (most recent call last):\nImportError: libmpi.so.40: cannot open shared object file\n"
    assert launching.library_of(Answer(1, "", trace)).lack == trace.splitlines()[-1]
    assert launching.library_of(Answer(-11, "")).lack == "status -11"


def dead_process():
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_of_dead_mpiruns_are_reported_and_cleared_and_no_others(temporary, monkeypatch, capsys):
    node, user, dead = platform.node(), os.getuid(), dead_process()
    gone = [
        f"ompi.{dead}/pmix.{node}.tool",
        f"ompi.{node}.{user}/{dead}/1",
        f"ompi.{node}.{user}/pid.{dead}/1",
        f"prte.{node}.{user}/{dead}/1",
    ]
    stays = [
        f"ompi.{os.getpid()}/pmix.{node}.tool",
        f"prte.{dead}/pmix.elsewhere.tool",  # on a disk that several machines have
        f"ompi.elsewhere.{user}/{dead}/1",
        f"ompi.{node}.{user}/{os.getpid()}/1",
        f"ompi.{node}.{user}/jf.0/17",
        f"mine.{dead}/pmix.{node}.tool",
    ]
    for name in gone + stays:
        (temporary / name).mkdir(parents=True)
    (temporary / f"ompi.{node}.{user}" / f"pid.{dead}9").symlink_to(temporary / f"mine.{dead}")
    status, output = doctor_says("left by MPI", monkeypatch=monkeypatch, capsys=capsys)
    assert status == 0
    assert f"warning  left by MPI  4 in {temporary}" in output
    assert f"{temporary}/ompi.{dead}, " in output
    assert all((temporary / name).exists() for name in gone + stays)
    arguments = {"arguments": ["--clear"], "monkeypatch": monkeypatch, "capsys": capsys}
    assert "left by MPI  4 removed" in doctor_says("left by MPI", **arguments)[1]
    assert not any((temporary / name).parent.exists() for name in gone)
    assert all((temporary / name).exists() for name in stays)
    assert f"none in {temporary}" in doctor_says("left by MPI", **arguments)[1]


@pytest.mark.long
def test_what_a_killed_mpirun_of_open_mpi_leaves_is_found(temporary):
    bin = environment_of("openmpi")
    here = environment(TMPDIR=str(temporary))
    wait = "from mpi4py import MPI; import time; print(MPI.COMM_WORLD.size, flush=True); time.sleep(600)"
    words = [bin / "mpirun", "-n", "2", bin / "python", "-c", wait]
    job = subprocess.Popen(words, env=here, stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "2\n"
    assert list(leftovers.dead_folders(temporary)) == []
    programs.end(job.pid)
    job.communicate(timeout=HANGS)
    assert [path.name for path in leftovers.dead_folders(temporary)] == [f"ompi.{job.pid}"]


def test_folder_of_runs_is_tried_and_left_as_it_was(tmp_path):
    found = places.look_at_folder(Place(tmp_path))
    assert (found.lack, found.has_locks) == ("", True)
    assert places.judge_folder(found).words.endswith("locks work")
    assert list(tmp_path.iterdir()) == []
    lack = places.judge_folder(places.look_at_folder(Place(tmp_path / "nothing")))
    assert lack.severity is PROBLEM
    assert "No such file or directory" in lack.remarks[0].text


def test_folder_without_locks_is_reported(tmp_path, monkeypatch):
    def refused(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    found = places.judge_folder(places.look_at_folder(Place(tmp_path)))
    assert found.severity is WARNING
    assert "never start two runs on one file" in found.remarks[0].text


def test_file_system_of_a_folder_is_that_of_the_nearest_mount(tmp_path, monkeypatch):
    lines = [
        "/dev/a / ext4 rw 0 0",
        f"b:/b {tmp_path}/my\\040disk nfs4 rw,local_lock=none 0 0",
        "c /nowhere x y",
    ]
    (tmp_path / "mounts").write_text("\n".join(lines))
    monkeypatch.setattr(places, "_MOUNTS", tmp_path / "mounts")
    assert places.mounted(tmp_path / "my disk" / "run") == ("nfs4", "rw,local_lock=none")
    assert places.mounted(tmp_path / "my diskette") == ("ext4", "rw")


def test_time_left_of_a_job_is_reported(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 299:.0f}")
    found = system.judge_batch(system.look_at_batch(Place(Path())))
    assert found.words == "SLURM job 17, 5 minutes left"
    assert found.severity is NOTE


def test_extras_and_their_bounds_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"]
    named = {extra: dict(each.split(">=") for each in listed[extra]) for extra in extras.EXTRAS}
    assert named == extras.EXTRAS
    assert listed.keys() - named.keys() == {"mpich", "openmpi", "test"}


@pytest.fixture
def broker(tmp_path, monkeypatch):
    """A function that writes a broker's file in a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".mpiabc" / "broker.json"
    path.parent.mkdir()

    def made(port, mode=0o600):
        path.write_text(json.dumps({"url": f"redis://127.0.0.1:{port}", "password": "p", "secret": "s"}))
        path.chmod(mode)
        return extras.judge_broker(extras.look_at_broker(Place(tmp_path)))

    return made


def test_broker_whose_server_has_gone_is_reported(broker, tmp_path):
    assert extras.judge_broker(extras.look_at_broker(Place(tmp_path))) == Seen("none")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert broker(port).severity is GOOD
    gone = broker(port)
    assert gone.severity is WARNING
    assert "`mpiabc broker stop` removes the file" in gone.remarks[0].text
    assert "chmod 600" in broker(port, 0o644).remarks[0].text


def test_check_that_hangs_or_fails_holds_up_no_other(monkeypatch, capsys):
    end = threading.Event()
    checks = [
        Check("disk", lambda place: end.wait(HANGS), Seen, limit=0.05),
        Check("bug", lambda place: 1 / 0, Seen),
        Check("well", lambda place: "is here", Seen),
    ]
    monkeypatch.setattr(doctor, "CHECKS", checks)
    status = cli.main(["doctor"])
    end.set()
    output = capsys.readouterr().out
    assert status == 1
    assert "problem  disk  no answer" in output
    assert "warning: bug: cannot be looked at here (ZeroDivisionError: division by zero)" in output
    assert "         well  is here" in output
    assert output.endswith("\n1 problem\n")


def test_worst_remark_comes_first_and_counts(capsys, monkeypatch):
    remarks = (warning("w"), problem("p"), problem("q"))
    monkeypatch.setattr(doctor, "CHECKS", [Check("all", lambda place: remarks, lambda seen: Seen("x", seen))])
    assert cli.main(["doctor"]) == 1
    _, sentences = capsys.readouterr().out.split("\n\n")
    assert sentences.splitlines() == ["problem: p", "problem: q", "warning: w", "2 problems"]


def test_each_check_of_the_table_answers_here(tmp_path):
    """Those that start nothing; none of them is without words."""
    quick = [check for check in doctor.CHECKS if check.limit == Check("", len, len).limit]
    quick = [check for check in quick if check.topic != "MPI"]
    found = {check.topic: seen(check, Place(tmp_path)) for check in quick}
    assert {topic for topic, each in found.items() if not each.words or each.words == "not known"} == set()
