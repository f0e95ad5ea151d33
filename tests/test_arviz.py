"""ArviZ: both of its forms, 0.x with a keyword for each group, and 1.x with one mapping of them."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import problems
from tests.conftest import ROOT, environment, environment_with, missing

# The requirements pin 0.x below Python 3.12 and 1.x from there on.
OTHERS = ("3.11",) if sys.version_info >= (3, 12) else ("3.13", "3.12")
_ASK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
_PROGRAM = """
import importlib.metadata, json, sys
import mpiabc
data = mpiabc.open(sys.argv[1]).to_arviz(draws=500, seed=3)
groups = list(getattr(data, "children", None) or data.groups())
values = {name: data["posterior"][name].values.tolist() for name in data["posterior"].data_vars}
print(json.dumps([importlib.metadata.version("arviz"), groups, values]))
"""


def _answers(python, version):
    try:
        asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True)
    except OSError:
        return False
    return asked.stdout.strip() == version


def _other_python():
    """The version and program of a Python with the other ArviZ: the path's, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in OTHERS:
        name = f"python{version}"
        for python in (shutil.which(name), *pyenv.glob(f"*/bin/{name}")):
            if python and _answers(python, version):
                return version, python
    return pytest.skip(f"there is no Python {' or '.join(OTHERS)}, whose ArviZ is the other one")


@pytest.mark.parametrize("which", ["installed", "other"])
def test_last_population_is_the_posterior_in_the_form_of_either_arviz(which, tmp_path):
    if which == "installed":
        try:
            mine = importlib.metadata.version("arviz")
        except importlib.metadata.PackageNotFoundError:
            missing("arviz is not installed")
        python, major = sys.executable, mine.split(".")[0]
    else:
        version, other = _other_python()
        words = [
            "--no-compile",
            "-c",
            str(ROOT / "requirements.lock"),
            "arviz",
            "cloudpickle",
            "threadpoolctl",
        ]
        python = environment_with(f"arviz-{version}", *words, python=other) / "python"
        major = "0" if version == "3.11" else "1"
    history = problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    job = subprocess.run(
        [python, "-W", "ignore", "-c", _PROGRAM, history.path],  # ArviZ 0.x warns of 1.x
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert job.returncode == 0, job.stderr
    found, groups, posterior = json.loads(job.stdout)
    assert found.split(".")[0] == major
    assert groups == ["posterior"]
    draws = history[-1].resample(500, np.random.default_rng(3))
    assert posterior == {"mu": [draws[:, 0].tolist()]}  # one chain
