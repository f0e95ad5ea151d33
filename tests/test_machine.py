"""How many cores a process may use."""

import subprocess
import sys

import pytest

from mpiabc import machine
from tests.conftest import environment

QUOTAS = {  # what a process sees of its control groups, and the cores that it may use of sixteen
    "none": ("0::/", {}, 16),
    "no limit": ("0::/a", {"a/cpu.max": "max 100000"}, 16),
    "two and a half": ("0::/a", {"a/cpu.max": "250000 100000"}, 3),
    "half a core": ("0::/a", {"a/cpu.max": "50000 100000"}, 1),
    "that of a group around": ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
    "in a container": ("0::/../../a", {"cpu.max": "300000 100000"}, 3),
    "version 1": (
        "5:memory:/a\n4:cpu,cpuacct:/a",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1, another mount": (
        "4:cpuacct,cpu:/a",
        {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1, no limit": (
        "4:cpu:/",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        16,
    ),
}


@pytest.fixture(autouse=True)
def groups(tmp_path, monkeypatch):
    """A machine of sixteen cores, and its control groups as files."""

    def made(own, files):
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        (tmp_path / "own").write_text(own + "\n")

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN", tmp_path / "own")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    return made


@pytest.mark.parametrize("case", QUOTAS)
def test_cores_are_what_the_control_groups_leave(case, groups):
    own, files, expected = QUOTAS[case]
    groups(own, files)
    assert machine.cores() == expected


@pytest.mark.parametrize(("promised", "expected"), [("4", 4), ("64", 16), ("", 16), ("all", 16), ("0", 1)])
def test_cores_are_no_more_than_slurm_has_promised(promised, expected, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", promised)
    assert machine.cores() == expected


@pytest.mark.parametrize(
    ("ranks", "promised", "expected"), [(4, "", 4), (4, "8", 4), (4, "2", 2), (32, "", 1)]
)
def test_what_ranks_share_is_shared_and_what_each_was_promised_is_not(ranks, promised, expected, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", promised)
    assert machine.cores(ranks) == expected


@pytest.mark.parametrize("part", ["ABCSMC", "Pool", "schedulers.Processes"])
def test_a_python_without_its_lock_is_reported_where_something_would_run(part):
    """By a stand-in; who only opens a file is not kept from it."""
    program = "import sys\nsys._is_gil_enabled = lambda: False\nimport mpiabc\nmpiabc.open\nmpiabc."
    done = subprocess.run(
        [sys.executable, "-c", program + part], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "runs without its global lock" in done.stderr.splitlines()[-1]
    assert "PYTHON_GIL=1" in done.stderr.splitlines()[-1]
