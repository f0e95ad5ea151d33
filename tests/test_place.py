"""Where a run's file lies: by any name, through links, and wherever a simulator takes the process."""

import os
import sqlite3
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

import mpiabc
from mpiabc import cli
from mpiabc.store import live
from tests import problems


@pytest.fixture
def expected(tmp_path_factory):
    """The digests of the undisturbed run."""
    quiet = tmp_path_factory.mktemp("quiet") / "run.db"
    return problems.digests(problems.sampler(n=20).run(quiet, scheduler="serial"))


def run(store, simulate=problems.gaussian, **options):
    return problems.sampler(n=20, simulate=simulate, name="gaussian").run(
        store, scheduler="serial", **options
    )


# Another folder.


def test_a_simulator_may_go_to_another_folder(expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def wandering(theta, rng):
        os.chdir(elsewhere)
        return problems.gaussian(theta, rng)

    assert problems.digests(run("run.db", wandering, generations=2)) == expected[:2]
    os.chdir(tmp_path)
    history = run("run.db", wandering)
    os.chdir(elsewhere)
    assert problems.digests(history) == expected
    assert list(elsewhere.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.db"]


def test_what_is_sampled_lies_where_it_was_asked_for(expected, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sampling = problems.sampler(n=20).sample("run.db", scheduler="serial")
    history = None
    for _ in sampling:
        history = history or mpiabc.open(tmp_path / "run.db")
        os.chdir(tmp_path / "elsewhere")
    assert problems.digests(history) == expected


def test_a_history_is_of_the_file_that_was_opened(expected, tmp_path, monkeypatch):
    run(tmp_path / "run.db")
    monkeypatch.chdir(tmp_path)
    history = mpiabc.open("run.db")
    monkeypatch.chdir("/")
    assert problems.digests(history) == expected


def test_a_problem_s_file_knows_where_it_lies_when_its_simulator_has_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("1.0")
    (tmp_path / "fit.py").write_text(
        textwrap.dedent("""
        import os
        from pathlib import Path
        import mpiabc

        def simulate(theta, rng):
            os.chdir("/")
            if theta["mu"] < -3:
                raise ValueError("too small")
            return theta["mu"] + float(Path(__file__).with_name("data.txt").read_text())

        problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, 1.0)
        """)
    )
    words = "run fit.py --population-size 200 --generations 1 --seed 1 --scheduler serial --store run.db"
    assert cli.main(words.split()) == 1
    assert 'raise ValueError("too small")' in capsys.readouterr().err  # its text is found
    assert (tmp_path / "run.db").exists()


# Links and second names.


def linked(kind, path, name):
    """Another name of a file."""
    link = path.with_name(name)
    (os.symlink if kind == "link" else os.link)(path, link)
    return link


@pytest.mark.parametrize("kind", ["link", "second name"])
def test_a_file_and_its_other_name_are_one_file(kind, expected, tmp_path):
    sampling = problems.sampler(n=20).sample(tmp_path / "run.db", scheduler="serial")
    next(sampling)
    other = linked(kind, tmp_path / "run.db", "other.db")
    with pytest.raises(mpiabc.StoreError, match="in use by another run"):
        run(other)
    with pytest.raises(mpiabc.StoreError, match="in use by another run"):
        run(other, overwrite=True)
    next(sampling)
    sampling.close()
    assert problems.digests(mpiabc.open(other)) == expected[:2]
    assert problems.digests(run(other)) == expected
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected


@pytest.mark.parametrize("kind", ["link", "second name"])
def test_what_is_begun_anew_keeps_all_its_names(kind, expected, tmp_path, caplog):
    problems.sampler(n=30).run(tmp_path / "run.db", scheduler="serial")
    other = linked(kind, tmp_path / "run.db", "other.db")
    assert problems.digests(run(other, overwrite=True)) == expected
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected
    assert other.is_symlink() == (kind == "link")
    assert other.samefile(tmp_path / "run.db")
    message = f"{other} is a link: what is in {tmp_path / 'run.db'} is replaced"
    assert (message in caplog.text) == (kind == "link")


def test_a_link_to_a_file_that_is_not_there_yet_is_its_name(expected, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run.db").symlink_to("disk/far.db")
    assert problems.digests(run(tmp_path / "run.db")) == expected
    assert (tmp_path / "run.db").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["far.db"]


def test_onlookers_find_the_sign_of_life_through_a_link(tmp_path):
    (tmp_path / "run.db").symlink_to(tmp_path / "far.db")
    assert live.path_of(tmp_path / "run.db") == tmp_path / "far.db.live"


# Names.


@pytest.mark.parametrize(
    "name", ["a?b#c%41&d=e.db", "with a blank.db", "é.db", os.fsdecode(b"\xff.db"), "-.db"]
)
def test_odd_names_are_names(name, expected, tmp_path):
    assert problems.digests(run(tmp_path / name)) == expected
    assert [path.name for path in tmp_path.iterdir()] == [name]


NO_FILES = {
    "nothing": ("", "the store is '', which names no file: give a plain name"),
    "a zero byte": ("a\0b.db", r"the store is 'a\\x00b.db', which names no file"),
    "memory": (":memory:", "the store is ':memory:', which names no file"),
    "an URI": ("file:run.db?mode=memory", "which names no file"),
    "an URL": ("sqlite:///run.db", "which names no file"),
    "a number": (5, "the store is 5: give the name of a file"),
    "this folder": (".", "cannot be opened: it is a folder; give the name of a file"),
    "a device": ("/dev/null", "/dev/null cannot be opened: it is no regular file"),
    "a long name": ("x" * 250, "its name is too long for a journal beside it; give a shorter one"),
    "a long path": (
        "x/" * 256 + "run.db",
        "its path has [0-9]+ bytes, and SQLite takes 504; give a shorter one",
    ),
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_names_no_file_is_refused_at_once(what, tmp_path, monkeypatch):
    """By who writes and who reads, before anything is simulated or made."""
    monkeypatch.chdir(tmp_path)
    name, sentence = NO_FILES[what]
    for use in (lambda name: run(name, lambda theta, rng: pytest.fail("it was simulated")), mpiabc.open):
        with pytest.raises(mpiabc.StoreError, match=sentence) as error:
            use(name)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_links_that_lead_round_in_a_circle_are_reported(tmp_path):
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    with pytest.raises(mpiabc.StoreError, match="cannot be reached: Too many levels of symbolic links"):
        run(tmp_path / "a.db")


def test_only_what_is_deleted_is_called_deleted(tmp_path, monkeypatch):
    """A file server that has lost the handle says so, and that is passed on."""
    sampling = problems.sampler(n=20).sample(tmp_path / "run.db", scheduler="serial")
    next(sampling)
    stale, found = OSError(116, "Stale file handle"), Path.stat

    def stat(path, **options):
        if path.name.startswith("run.db"):
            raise stale
        return found(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.stat", stat)
        with pytest.raises(mpiabc.StoreError, match=r"run\.db cannot be reached: Stale file handle"):
            list(sampling)
    assert len(run(tmp_path / "run.db")) == 3
    with closing(sqlite3.connect(tmp_path / "run.db")) as db, db:
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    db.close()
