"""ArviZ: both of its forms, 0.x with a keyword for each group, and 1.x with one mapping of them."""

import importlib.metadata
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import mpiabc
from mpiabc.analysis.export import _groups
from tests import problems
from tests.conftest import ROOT, environment, environment_with, interpreter, missing

# The requirements pin 0.x below Python 3.12 and 1.x from there on.
OTHERS = ("3.11",) if sys.version_info >= (3, 12) else ("3.13", "3.12")
_PROGRAM = """
import importlib.metadata, json, sys
import mpiabc
data = mpiabc.open(sys.argv[1]).to_arviz(draws=500, seed=3)
groups = list(getattr(data, "children", None) or data.groups())
values = {g: {name: data[g][name].values.tolist() for name in data[g].data_vars} for g in groups}
print(json.dumps([importlib.metadata.version("arviz"), values]))
"""


def _other_python():
    """The version and program of a Python with the other ArviZ."""
    for version in OTHERS:
        if python := interpreter(version):
            return version, python
    return missing(f"there is no Python {' or '.join(OTHERS)}, whose ArviZ is the other one")


@pytest.mark.long
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
    sampler = mpiabc.ABCSMC(problems.problem(), 100, seed=1)
    history = sampler.run(tmp_path / "run.db", generations=3, scheduler="serial")
    job = subprocess.run(
        [python, "-W", "ignore", "-c", _PROGRAM, history.path],  # ArviZ 0.x warns of 1.x
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert job.returncode == 0, job.stderr
    found, groups = json.loads(job.stdout)
    assert found.split(".")[0] == major
    last, rng = history[-1], np.random.default_rng(3)
    draws = last.resample(500, np.random.default_rng(3))
    assert groups.pop("posterior") == {"mu": [draws[:, 0].tolist()]}  # one chain
    rows = rng.choice(len(last), 500, p=last.weights)
    assert groups.pop("posterior_predictive") == {"y": [last.data("y")[rows].tolist()]}
    assert groups.pop("sample_stats") == {
        "distance": [last.distances[rows].tolist()],
        "weight": [last.weights[rows].tolist()],
        "id": [last.ids[rows].tolist()],
    }
    first = history[0]
    rows = rng.choice(len(first), 500, p=first.weights)
    assert groups.pop("prior") == {"mu": [first.theta[rows, 0].tolist()]}
    assert groups.pop("prior_predictive") == {"y": [first.data("y")[rows].tolist()]}
    assert groups == {"observed_data": {"y": [1.0]}}


def test_groups_are_what_is_known(tmp_path, monkeypatch):
    """No prior where the first threshold was finite, no data where none are kept, one of several models."""
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace())
    history = problems.sampler().run(tmp_path / "listed.db", generations=1, scheduler="serial")
    assert "prior" not in _groups(history, 10, 0, None)
    sampler = mpiabc.ABCSMC(problems.problem(), 20, seed=1, keep="theta")
    history = sampler.run(tmp_path / "theta.db", generations=1, scheduler="serial")
    assert set(_groups(history, 10, 0, None)) == {"posterior", "sample_stats", "prior"}
    several = [problems.problem(name="one"), problems.problem(name="two")]
    history = mpiabc.ABCSMC(several, 20, seed=1).run(
        tmp_path / "several.db", generations=1, scheduler="serial"
    )
    with pytest.raises(mpiabc.ProblemError, match="ask for it of one"):
        history.to_arviz()
    found = _groups(history, 10, 0, "two")
    assert set(found["posterior"]["mu"][0]) <= set(history[0].of("two")["mu"])
    assert found["observed_data"] == {"y": [1.0]}
