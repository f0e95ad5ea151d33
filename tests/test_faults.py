"""The store under faults: each is one clear sentence and status 1, and nothing committed is lost."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import mpiabc
from tests import problems
from tests.conftest import HANGS, environment, jobs_of, launcher_of, missing
from tests.programs import small


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The digests of the undisturbed run of programs/small.py."""
    return problems.digests(
        small.sampler().run(tmp_path_factory.mktemp("quiet") / "run.db", scheduler="serial")
    )


def started(store, scheduler="serial", mpi=None, **options):
    """The finished command, its output in one text."""
    arguments = ["-m", "tests.programs.small", str(store), scheduler, "0"]
    command = mpi.command(2, *arguments) if mpi else [sys.executable, *arguments]
    return subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
        **options,
    )


def error_of(job):
    """The one sentence with which a command ended."""
    assert job.returncode == 1, job.stdout
    (line,) = [line for line in job.stdout.splitlines() if "StoreError: " in line]
    return line


# Disk full.


@contextmanager
def tmpfs(kilobytes):
    """A file system of its own, so large; missing where this user may mount none."""
    folder = tempfile.mkdtemp()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        missing("there is no mount command")
    if done.returncode:
        missing(f"no tmpfs for this user: {done.stderr.strip()}")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)


def enlarge(folder, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def prefix(store, expected):
    """What the file holds, after a check that it is the beginning of what is expected."""
    found = problems.digests(mpiabc.open(store))
    assert found == expected[: len(found)]
    return found


@pytest.mark.long
@pytest.mark.parametrize("kilobytes", [8, 28, 32, 40, 44])
def test_file_that_may_not_grow_is_reported_and_the_run_goes_on_when_it_may(kilobytes, expected, tmp_path):
    """By a limit of the process, as a quota: at every size, from the first write to the last."""
    limit = kilobytes * 1024
    store = tmp_path / "run.db"
    job = started(
        store, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    )
    if job.returncode:
        assert "run.db: it cannot be read or written (disk I/O error); see whether the disk" in error_of(job)
        before = prefix(store, expected) if store.stat().st_size else []
        assert len(before) < len(expected)
    assert problems.digests(small.sampler().run(store, scheduler="serial")) == expected


@pytest.mark.long
@pytest.mark.parametrize("is_parallel", [False, True])
def test_full_disk_is_reported_and_the_run_goes_on_when_there_is_room(is_parallel, expected):
    mpi, scheduler = (launcher_of("mpich"), "mpi") if is_parallel else (None, "serial")
    with tmpfs(56) as folder:
        store = folder / "run.db"
        before = []
        for room in range(60, 1000, 4):
            job = started(store, scheduler, mpi)
            assert "run.db: the disk is full; make room and run the same command again" in error_of(job)
            found = prefix(store, expected) if store.stat().st_size else []
            assert found[: len(before)] == before
            before = found
            if before:
                break
            enlarge(folder, f"{room}k")
        assert 0 < len(before) < len(expected)
        enlarge(folder, "1m")
        assert started(store, scheduler, mpi).returncode == 0
        assert problems.digests(mpiabc.open(store)) == expected


# Read-only.


@pytest.fixture
def folder(expected):
    """A folder of an ordinary user, who this process is meanwhile: the super-user may write anything."""
    path = Path(tempfile.mkdtemp())
    is_super_user = os.geteuid() == 0
    if is_super_user:
        os.chown(path, 65534, 65534)
        os.seteuid(65534)
    yield path
    if is_super_user:
        os.seteuid(0)
    path.chmod(0o700)
    shutil.rmtree(path)


def refused(store, sentence):
    with pytest.raises(mpiabc.StoreError) as caught:
        small.sampler().run(store, scheduler="serial")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_read_only_is_reported_and_can_be_read(folder, expected):
    store = folder / "run.db"
    small.sampler().run(store, generations=2, scheduler="serial")
    store.chmod(0o444)
    refused(store, "run.db: it cannot be written; check the permissions of the file and its folder")
    folder.chmod(0o555)
    assert prefix(store, expected) == expected[:2]
    refused(store, "cannot write beside")
    folder.chmod(0o755)
    store.chmod(0o644)
    assert problems.digests(small.sampler().run(store, scheduler="serial")) == expected


def test_folder_that_becomes_read_only_while_running_is_reported(folder, expected):
    store = folder / "run.db"
    sampling = small.sampler().sample(store, scheduler="serial")
    next(sampling)
    folder.chmod(0o555)
    with pytest.raises(mpiabc.StoreError, match=r"run\.db: it cannot be (written|opened); check the"):
        list(sampling)
    assert prefix(store, expected) == expected[:1]
    folder.chmod(0o755)
    assert problems.digests(small.sampler().run(store, scheduler="serial")) == expected


# Deleted, moved, replaced, and used by two.


@pytest.mark.parametrize("change", ["deleted", "moved", "replaced"])
def test_file_that_loses_its_name_while_running_is_reported_at_once(change, expected, tmp_path):
    store, other = tmp_path / "run.db", tmp_path / "other.db"
    sampling = small.sampler().sample(store, scheduler="serial")
    next(sampling)
    if change == "replaced":
        shutil.copy(store, other)
        other.replace(store)
    elif change == "moved":
        store.rename(other)
    else:
        store.unlink()
    with pytest.raises(mpiabc.StoreError, match=r"run\.db was deleted, moved or replaced while the run was"):
        next(sampling)
    if change == "moved":
        other.rename(store)
    if change != "deleted":
        assert prefix(store, expected) == expected[:1]
    assert problems.digests(small.sampler().run(store, scheduler="serial")) == expected


@jobs_of(["mpi"], [], ["mpich"])
def test_second_run_on_one_file_is_refused_at_once_on_ranks(mpi, tmp_path):
    """And leaves the first one alone."""
    store = tmp_path / "run.db"
    first = mpi.start(2, "-m", "tests.programs.endless", store)
    try:
        while not problems.committed(store):
            assert first.poll() is None, first.stdout.read()
            time.sleep(0.05)
        second = mpi.run(2, "-m", "tests.programs.endless", store, timeout=HANGS)
        assert "run.db is in use by another run: wait for it to end" in error_of(
            subprocess.CompletedProcess([], second.returncode, second.stdout)
        )
        before = problems.committed(store)
        while problems.committed(store) <= before:
            assert first.poll() is None, first.stdout.read()
            time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGUSR1)
        output, _ = first.communicate(timeout=HANGS)
    assert first.returncode == 75, output
