"""The page of a run: what it says, that it is well-formed, needs nothing else, and reads little."""

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

import mpiabc
from mpiabc.analysis import report as module
from mpiabc.analysis.report import rounded
from mpiabc.analysis.steps import steps
from mpiabc.cli import main
from mpiabc.store import schema
from tests import problems
from tests.conftest import imported

imported("matplotlib")
imported("jinja2")

VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = '<script>alert("1")</script>&\x1b[31m'


@dataclass
class Page(HTMLParser):
    """A page as it is read: texts, tables, pictures; a tag that is not closed is an error."""

    text: str
    images: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    links: list = field(default_factory=list)
    ids: list = field(default_factory=list)
    words: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self.open = []
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
            assert tag == "td" or attributes["scope"] in ("row", "col")
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data

    def table(self, first):
        """The one whose heading begins so."""
        return next(table for table in self.tables if table[0][0] == first)

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With names that would be markup, were they not escaped."""
    prior = {NASTY: mpiabc.Normal(0, 2), "law": mpiabc.Choice(["<lin>", "hill"])}

    def simulate(theta, rng):
        return {"y&y": theta[NASTY] + rng.standard_normal(len(theta[NASTY]))}

    problem = mpiabc.Problem(prior, simulate, {"y&y": 1.0}, vectorized=True, name=NASTY)
    store = tmp_path_factory.mktemp("run") / "run.db"
    return mpiabc.ABCSMC(problem, 200, seed=1).run(store, generations=3, scheduler="serial")


@pytest.fixture(scope="module")
def page(run):
    return Page(mpiabc.report(run))


def test_the_page_is_whole_and_needs_no_network(page):
    assert page.images
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "@import" not in page.text
    assert "url(" not in page.text
    assert "<script" not in page.text
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_it_is_for_phones_printers_and_those_who_do_not_see(page):
    assert '<html lang="en">' in page.text
    assert 'name="viewport" content="width=device-width' in page.text
    assert "@media print" in page.text
    assert all(len(image["alt"]) > 20 for image in page.images)


def test_names_are_texts_and_steer_nothing(page):
    assert NASTY.replace("\x1b", r"\x1b") in page.said
    assert "\x1b" not in page.text
    assert any("<lin>" in row[0] for row in page.table("law"))


def test_the_posterior_stands_there_with_its_errors(run, page):
    heading, row = page.table("parameter")
    assert heading == ["parameter", "mean", "sd", "5 %", "median", "95 %", "ESS"]
    mean, error = map(float, row[1].split(" ± "))
    assert mean == pytest.approx(run[-1].mean()[0], abs=error / 2)
    assert 0.5 < error / (run[-1].std()[0] / np.sqrt(run[-1].ess)) < 2
    assert float(row[4]) == pytest.approx(run[-1].quantile(0.5)[0], abs=error)


def test_of_a_choice_the_probability_of_each_value_stands_there_and_no_mean(run, page):
    assert page.table("law")[1:] == [
        ["<lin>", f"{run[-1].weights[run[-1]['law'] == 0].sum():.3f}"],
        ["hill", f"{run[-1].weights[run[-1]['law'] == 1].sum():.3f}"],
    ]
    assert all("law" not in row[0] for row in page.table("parameter"))


def test_what_was_run_where_and_how_to_do_it_again_stands_there(run, page):
    (session,) = run.sessions
    rows = dict(page.table("start of the run")[1:])
    assert rows["command"] == session.command
    assert session.host in rows["host"]
    assert rows["scheduler"] == "Serial(), with 1 worker"
    assert f"NumPy {np.__version__}" in rows["versions"]
    assert "(generations)" in rows["ended"]
    assert dict(page.table("setting")[1:])["seed"] == "1"
    assert f"pip install . numpy=={np.__version__}" in page.said
    assert f"# in the folder of mpiabc {mpiabc.__version__}" in page.said
    assert run[-1].digest() in page.said


@pytest.mark.parametrize(
    ("scheduler", "extras", "launcher"),
    [
        ("MPI()", "'.[mpich]'", "mpirun -n 6 "),
        ("MPIStatic(team=4)", "'.[mpich]'", "mpirun -n 24 "),
        ("RedisStatic()", "'.[redis]'", ""),
        ("Combined([MPI(), Dask()])", "'.[mpich,dask]'", ""),
        ("Processes()", ".", ""),
    ],
)
def test_the_way_to_do_it_again_has_the_launcher_and_what_it_needs(run, scheduler, extras, launcher):
    (one,) = run.sessions
    other = replace(one, scheduler=scheduler, workers=6, command="python fit.py")
    again = module._again(SimpleNamespace(settings=run.settings, sessions=[other], path=run.path))
    _, install, _, command = again.splitlines()
    assert install.startswith(f"pip install {extras} numpy==")
    assert command.startswith(f"{launcher}python fit.py  # ")


def test_each_generation_has_a_row_and_many_have_some(run, page):
    rows = page.table("generation")
    assert [row[0] for row in rows[1:]] == ["0", "1", "2"]
    assert [row[-1] for row in rows[1:]] == [p.digest()[:12] for p in run]
    assert rows[1][1] == "∞"


def test_findings_stand_there_with_their_severity_in_words(page):
    assert "Good. The run is complete" in page.said


def test_a_page_is_written_by_the_command_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "pictures", lambda history: [])
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"report of {run.path}: run.html\n"
    Page((tmp_path / "run.html").read_text(encoding="utf-8"))
    assert main(["report", str(run.path), "--output", str(tmp_path / "no" / "page.html")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err
    assert main(["report", str(run.path), "--output", str(run.path)]) == 1
    assert "is the run's own file" in capsys.readouterr().err
    assert len(run) == 3


def test_a_file_that_is_missing_or_damaged_gets_a_sentence(run, tmp_path, capsys):
    assert main(["report", str(tmp_path / "none.db")]) == 1
    assert capsys.readouterr().err.strip() == f"mpiabc: there is no file {tmp_path / 'none.db'}"
    copy = tmp_path / "copy.db"
    content = bytearray(run.path.read_bytes())
    at = content.find(run[-1].theta.tobytes()[:64])
    content[at : at + 64] = bytes(64)
    copy.write_bytes(content)
    assert main(["report", str(copy)]) == 1
    assert "damaged" in capsys.readouterr().err
    (tmp_path / "text.db").write_text("no database " * 100)
    assert main(["report", str(tmp_path / "text.db")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_what_is_missing_is_named(run, monkeypatch, capsys, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["report", str(run.path)]) == 1
    assert capsys.readouterr().err == f"mpiabc: {module.MISSING}\n"


def test_a_run_without_generations_has_a_page(run, tmp_path):
    copy = tmp_path / "copy.db"
    copy.write_bytes(run.path.read_bytes())
    with closing(sqlite3.connect(copy)) as db, db:
        db.execute("DELETE FROM population")
        schema.put(db, "generations", 0)
        schema.put(db, "reason", None)
    page = Page(mpiabc.report(copy))
    assert "No generation is complete yet" in page.said
    assert page.images == []


def test_a_file_of_an_older_mpiabc_has_a_page(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "pictures", lambda history: [])
    copy = tmp_path / "copy.db"
    copy.write_bytes(run.path.read_bytes())
    with closing(sqlite3.connect(copy)) as db, db:
        db.execute("DELETE FROM run WHERE key IN ('sessions', 'shares', 'labels', 'shapes', 'support')")
    page = Page(mpiabc.report(copy))
    assert "does not say how and where the run was started" in page.said
    assert "with seed=1" in page.said


def test_models_have_their_probabilities_and_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "pictures", lambda history: [])
    given = [problems.problem(name="one"), problems.problem(observed=1.0, name="other")]
    history = mpiabc.ABCSMC(given, 60, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    page = Page(mpiabc.report(history))
    rows = page.table("model")
    assert [row[0] for row in rows[1:]] == ["one", "other"]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(history[-1].model_probabilities(), abs=1e-3)
    assert sum(table[0][0] == "parameter" for table in page.tables) == 2


def test_of_many_generations_few_are_read_and_shown(tmp_path, monkeypatch):
    abc = mpiabc.ABCSMC(problems.problem(), 20, threshold=mpiabc.Constant(3.0), seed=1)
    history = abc.run(tmp_path / "run.db", generations=12, scheduler="serial")
    monkeypatch.setattr(module, "pictures", lambda history: [])
    monkeypatch.setattr(module, "steps", lambda history: steps(history, 4))
    monkeypatch.setattr(module, "_MOST_ROWS", 3)
    read, load = [], mpiabc.History._load
    monkeypatch.setattr(mpiabc.History, "_load", lambda self, t: read.append(t) or load(self, t))
    page = Page(mpiabc.report(history))
    assert set(read) == {0, 4, 7, 10, 11}
    assert [row[0] for row in page.table("generation")[1:]] == ["0", "7", "11"]
    assert "3 of 12, evenly chosen" in page.said
    assert str(sum(population.simulations for population in history)) in page.said


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.95057, 0.0534, "0.951"),
        (12345.6, 12.0, "12346"),
        (12345.6, 1200.0, "12346"),
        (0.0, 0.1, "0.00"),
        (1e-7, 1e-9, "1.000e-07"),
        (3e8, 1e6, "3e+08"),
        (2.0, 0.0, "2"),
        (float("nan"), 0.1, "nan"),
    ],
)
def test_numbers_have_the_digits_that_their_errors_leave(value, error, shown):
    assert float(rounded(value, error)) == pytest.approx(float(shown), rel=1e-3, nan_ok=True)
    assert len(rounded(value, error)) <= len(shown)
