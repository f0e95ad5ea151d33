"""Files for other programs, and populations as JSON, tables and pickles."""

import csv
import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import mpiabc
from mpiabc.analysis.export import exported
from mpiabc.cli import main
from tests import problems
from tests.conftest import environment, imported, present


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return problems.sampler(30).run(tmp_path_factory.mktemp("run") / "run.db", scheduler="serial")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two models, and two distances."""

    def distances(simulated, observed):
        return {"near": abs(simulated["y"] - 1), "far": abs(simulated["y"] - 2)}

    prior = {"nu": mpiabc.Uniform(0, 2), "weight": mpiabc.Uniform(0, 1)}
    one = problems.problem(distance=distances)
    two = mpiabc.Problem(
        prior, lambda theta, rng: {"y": theta["nu"]}, {"y": 1.0}, distance=distances, name="two"
    )
    store = tmp_path_factory.mktemp("several") / "several.db"
    return mpiabc.ABCSMC([one, two], 30, seed=1).run(store, generations=2, scheduler="serial")


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_number_to_the_last_bit(history, tmp_path):
    exported(history, "csv", tmp_path / "run.csv")
    rows, last = read(tmp_path / "run.csv"), history[-1]
    assert list(rows[0]) == ["mu", "weight", "distance", "id"]
    assert [float(row["mu"]) for row in rows] == last["mu"].tolist()
    assert [float(row["weight"]) for row in rows] == last.weights.tolist()
    assert [int(row["id"]) for row in rows] == last.ids.tolist()


def test_all_generations_are_described_by_a_column(history, several, tmp_path):
    exported(history, "csv", tmp_path / "run.csv", is_all=True)
    rows = read(tmp_path / "run.csv")
    assert [int(row["generation"]) for row in rows] == [0] * 30 + [1] * 30 + [2] * 30
    exported(several, "csv", tmp_path / "several.csv", is_all=True)
    rows = read(tmp_path / "several.csv")
    names = ["model", "mu", "nu", "weight", "weight_", "distance_near", "distance_far", "id", "generation"]
    assert list(rows[0]) == names
    assert {row["model"] for row in rows} == {"gaussian", "two"}
    assert all((row["mu"] == "nan") == (row["model"] == "two") for row in rows)


def test_npz_has_the_arrays_of_populations(history, several, tmp_path):
    exported(history, "npz", tmp_path / "run.npz", is_all=True)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["theta"], np.concatenate([p.theta for p in history]))
        np.testing.assert_array_equal(found["summaries"], np.concatenate([p.summaries for p in history]))
        assert found["names"].tolist() == ["mu"]
        assert found["epsilon"].tolist() == [3, 1.5, 0.8]
        assert found["generation"][[0, 30, 60]].tolist() == [0, 1, 2]
    exported(several, "npz", tmp_path / "several.npz", is_all=True)
    with np.load(tmp_path / "several.npz", allow_pickle=False) as found:
        assert found["models"].tolist() == ["gaussian", "two"]
        assert found["epsilon"].shape == (2, 2)


@pytest.mark.long
def test_netcdf_has_the_groups_of_arviz(history, tmp_path):
    present("arviz")
    h5netcdf = imported("h5netcdf")
    words = ["export", history.path, "--to", "netcdf", "--output", tmp_path / "run.nc"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mpiabc", *words],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with h5netcdf.File(tmp_path / "run.nc") as file:
        assert set(file["posterior"]["mu"][:].ravel()) <= set(history[-1]["mu"])


def test_parquet_is_a_data_frame(history, tmp_path, monkeypatch):
    pandas = imported("pandas")
    wrote = []
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace())

    def write(frame, path):
        path.touch()
        wrote.append(frame)

    monkeypatch.setattr(pandas.DataFrame, "to_parquet", write)
    exported(history, "parquet", tmp_path / "run.parquet", is_all=True)
    pandas.testing.assert_frame_equal(wrote[0], history.to_dataframe())


def test_the_command_line_exports(history, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(history.path), "--to", "csv"]) == 0
    assert len(read(tmp_path / "run.csv")) == 30
    assert main(["export", str(history.path), "--to", "npz", "--all", "--output", "a.npz"]) == 0
    assert (tmp_path / "a.npz").exists()
    assert "3 generations" in capsys.readouterr().out


def test_the_command_line_exports_one_of_several_models(several, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "two.csv"
    assert main(["export", str(several.path), "--to", "csv", "--model", "two", "--output", str(output)]) == 0
    assert len(read(output)) == len(several[-1].of("two"))
    assert {"nu", "weight"} <= set(read(output)[0])
    assert main(["export", str(several.path), "--to", "csv", "--model", "three"]) == 1
    assert "no model 'three': there is 'gaussian', 'two'; give one by --model NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "netcdf", "--all"], "--all with --to netcdf"),
        (["--to", "csv", "--output", "/nowhere/a.csv"], "cannot be written: No such file"),
        (["--to", "npz", "--output", "."], "cannot be written: Is a directory"),
        (["--to", "parquet"], "parquet needs pandas and pyarrow, pyarrow is not installed"),
    ],
)
def test_the_command_line_says_what_it_cannot_export(history, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", str(history.path), *words]) == 1
    assert said in capsys.readouterr().err


def test_what_cannot_be_exported_leaves_what_was_there(several, tmp_path, monkeypatch):
    """By a refusal, or by a disk that is full in the middle; a link stays one."""
    (tmp_path / "real.csv").write_text("of yesterday")
    output = tmp_path / "two.csv"
    output.symlink_to("real.csv")
    with pytest.raises(mpiabc.ProblemError, match="no model 'three'"):
        exported(several, "csv", output, model="three")

    def full(population, is_all):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("mpiabc.analysis.export._table", full)
        with pytest.raises(mpiabc.errors.Error, match=r"two\.csv cannot be written: No space left"):
            exported(several, "csv", output, model="two")
    assert (tmp_path / "real.csv").read_text() == "of yesterday"
    (tmp_path / "real.csv").chmod(0o640)
    exported(several, "csv", output, model="two")
    assert len(read(tmp_path / "real.csv")) == len(several[-1].of("two"))
    assert stat.S_IMODE((tmp_path / "real.csv").stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.csv", "two.csv"]


@pytest.mark.long
def test_standard_output_is_written_as_it_stands(history, tmp_path):
    """To a pipe, and into a file behind what is there already."""
    words = [sys.executable, "-m", "mpiabc", "export", history.path, "--to", "csv", "--output", "/dev/stdout"]
    piped = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert piped.stdout.startswith("mu,"), piped.stderr
    with open(tmp_path / "all.csv", "a") as file:
        node = os.fstat(file.fileno()).st_ino
        subprocess.run(words, env=environment(), stdout=file, check=True)
    assert (tmp_path / "all.csv").stat().st_ino == node


def test_a_file_is_written_in_place_where_its_folder_takes_no_other(history, tmp_path, monkeypatch):
    output = tmp_path / "run.csv"
    output.touch()
    node = output.stat().st_ino
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    exported(history, "csv", output)
    assert (len(read(output)), output.stat().st_ino) == (30, node)


def test_a_run_is_never_written_over(history):
    before = history.path.read_bytes()
    with pytest.raises(mpiabc.ProblemError, match="is the run's own file"):
        exported(history, "csv", history.path)
    assert history.path.read_bytes() == before
    with pytest.raises(mpiabc.ProblemError, match="to='xls': give 'csv'"):
        exported(history, "xls", "a.xls")


# In notebooks and scripts.


def test_a_mean_is_a_dict_and_json(history):
    mean = history[-1].mean()
    assert dict(mean) == {"mu": mean["mu"]}
    assert json.loads(json.dumps(dict(mean))) == {"mu": float(mean[0])}


def test_slices_of_a_history_are_lists_of_populations(history):
    expected = problems.digests(history)
    for part in (slice(1, None), slice(None, None, -1), slice(-2, None), slice(5, 9), slice(None)):
        assert problems.digests(history[part]) == expected[part]
    assert json.loads(json.dumps([dict(p.mean()) for p in history[-2:]])) == [
        {"mu": p.mean()["mu"]} for p in history[-2:]
    ]


def test_populations_and_histories_are_pickled(history):
    population = pickle.loads(pickle.dumps(history[-1]))
    assert population.digest() == history[-1].digest()
    np.testing.assert_array_equal(population.data("y"), history[-1].data("y"))
    assert problems.digests(pickle.loads(pickle.dumps(history))) == problems.digests(history)


def test_notebooks_show_tables_in_which_nothing_is_markup(history, several, tmp_path):
    assert f"<td>{history[-1].mean()['mu']:.4g}</td>" in history[-1]._repr_html_()
    assert history._repr_html_().count("<tr>") == 4
    assert "<th>two</th>" in several[-1]._repr_html_()
    prior = {"<b>mu</b>": mpiabc.Normal(0, 1)}
    problem = mpiabc.Problem(prior, lambda theta: theta["<b>mu</b>"], 0.0, name="<script>")
    found = mpiabc.ABCSMC(problem, 10, seed=1).run(tmp_path / "a.db", generations=1, scheduler="serial")
    assert "<b>" not in found[0]._repr_html_()
    assert "&lt;b&gt;mu" in found[0]._repr_html_()
    assert "<script>" not in found._repr_html_()


def test_a_notebook_shows_the_last_of_many_generations(history, monkeypatch):
    from mpiabc.store import history as module

    populations, loaded = list(history), []
    monkeypatch.setattr(module, "_MOST_SHOWN", 2)
    monkeypatch.setattr(module.History, "_load", lambda self, t: loaded.append(t) or populations[t])
    shown = mpiabc.open(history.path)._repr_html_()
    assert loaded == [1, 2]
    assert "the last 2 of them" in shown
