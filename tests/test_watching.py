"""A run that is watched: what its view says, in a terminal and elsewhere; nobody waits for who looks."""

import io
import itertools
import json
import os
import platform
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import asdict, replace

import pytest

import mpiabc
from mpiabc import cli
from mpiabc.cli import broker as broker_command
from mpiabc.cli import watch
from mpiabc.driver import AtWork, Progressed, loop
from mpiabc.onlooker import terminal, words
from mpiabc.onlooker.look import Onlooker
from mpiabc.onlooker.view import Seen, State, view_of, view_of_broker
from mpiabc.records import Failure
from mpiabc.schedulers.silence import Awaited
from mpiabc.store import live
from mpiabc.store.glance import Contents, Glance, Row
from mpiabc.store.live import Sign, Signs, for_broker, sign_from
from mpiabc.store.roster import Roster
from tests import problems
from tests.conftest import imported

PROGRESSED = Progressed(2, 0.5, 100, 25, 500, 3, 10.0, 4, 3)
FAILURE = Failure(
    2, 17, {"mu": 1 / 3}, "RuntimeError: the \x1b[31mpump\nand more", "", "rank 1 of 4 on node7"
)
ROWS = tuple(Row(t, "1.5", 100, 200, 190, 0.5, 80.0, 3.0, f"{t}" * 64) for t in range(2))
CONTENTS = Contents("pumps", 2, ROWS)
WORKERS = (
    Awaited("rank 1 of 4 on node7", "2:30", 5.0),
    Awaited("worker ab (process 9 on node8)", "2:40", 1.0),
)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    """Looks follow each other at once."""
    monkeypatch.setattr(watch, "_PERIOD", 0.0)
    monkeypatch.setattr(broker_command, "_PERIOD", 0.0)


def sign(at=None, process=None, **values):
    """A sign of life of this process, of now."""
    progressed = replace(PROGRESSED, **values)
    own = (platform.node(), os.getpid() if process is None else process)
    return Sign(progressed, time.time() if at is None else at, 0.0, *own)


def signs_of(*events):
    """The signs of life that are made of events."""
    made = []
    note = Signs(made.append)
    for event in events:
        note._next = 0.0  # a second has passed
        note(event)
    return made


def write_sign(store, seen):
    live.path_of(store).write_text(json.dumps(asdict(seen)))


# What a view says.


@pytest.mark.parametrize(
    ("state", "status", "seen", "said"),
    [
        (State.ABSENT, 1, Seen("run.db", None), "there is no such file"),
        (State.EMPTY, 1, Seen("run.db", Contents()), "no run has begun in it"),
        (State.BEGUN, 1, Seen("run.db", CONTENTS), "no sign of life: it is about to go on, or was killed"),
        (
            State.RUNNING,
            0,
            Seen("run.db", CONTENTS, sign(), 1.0),
            "it goes on: generation 2, epsilon 0.5: 25/100",
        ),
        (State.RUNNING, 0, Seen("run.db", CONTENTS, sign(), 9.0), "it goes on"),
        (
            State.SILENT,
            1,
            Seen("run.db", CONTENTS, sign(), 125.0),
            "for 2 min 05 s: it was killed or suspended",
        ),
        (
            State.KILLED,
            1,
            Seen("run.db", CONTENTS, sign(), 9.0, is_gone=True),
            "its leader is not there any more",
        ),
        (
            State.INTERRUPTED,
            75,
            Seen("run.db", replace(CONTENTS, reason="interrupted: walltime reached")),
            "again",
        ),
        (
            State.FAILED,
            1,
            Seen("run.db", replace(CONTENTS, reason="failed: evaluation 2:1")),
            "evaluation 2:1",
        ),
        (
            State.ENDED,
            0,
            Seen("run.db", replace(CONTENTS, reason="generations")),
            "come to its end: generations",
        ),
        (
            State.ENDED,
            0,
            Seen("run.db", replace(CONTENTS, reason="threshold: no distance is smaller")),
            "smaller",
        ),
    ],
    ids=[
        *("absent", "empty", "begun", "running", "late", "silent", "killed"),
        *("interrupted", "failed", "ended", "exhausted"),
    ],
)
def test_view_tells_apart_what_a_run_is_at(state, status, seen, said):
    view = view_of(seen)
    assert (view.state, view.status) == (state, status)
    assert said in view.said


def test_view_of_a_run_that_goes_on_says_how_far_it_is_and_who_leads():
    view = view_of(Seen("run.db", CONTENTS, sign(), 1.0))
    facts = dict(words.facts_of(view))
    assert facts["accepted"] == "25 of 100"
    assert facts["simulations/s"] == "50"
    assert facts["busy workers"] == "3 of 4"
    assert facts["generation ends in"] == "30 s"
    assert facts["leader"] == f"process {os.getpid()} on {platform.node()}"
    assert facts["last sign of life"] == "now"
    assert words.part(view) == 0.25


def test_time_left_is_not_reported_before_a_first_result_nor_of_a_run_that_is_silent():
    seen = words.time_left(view_of(Seen("run.db", CONTENTS, sign(accepted=0), 1.0)))
    assert seen == "nothing accepted yet"
    assert words.time_left(view_of(Seen("run.db", CONTENTS, sign(), 60.0))) == "-"


def test_pictures_are_of_another_version_whenever_a_generation_is_committed_or_replaced():
    one = view_of(Seen("run.db", CONTENTS)).version
    other = replace(CONTENTS, rows=(ROWS[0], replace(ROWS[1], digest="f" * 64)))
    more = replace(CONTENTS, generations=3, rows=(*ROWS, replace(ROWS[1], generation=2)))
    assert len({one, view_of(Seen("run.db", other)).version, view_of(Seen("run.db", more)).version}) == 3
    assert view_of(Seen("run.db", CONTENTS, sign(), 1.0)).version == one


# Signs of life.


def breaking(theta, rng, *, id):
    if id[1] % 7 == 3:
        raise RuntimeError("the pump broke")
    return problems.gaussian(theta, rng)


def test_sign_of_life_says_who_works_and_what_failed_last_each_once():
    first, second = signs_of(PROGRESSED, AtWork(WORKERS, (FAILURE, FAILURE)), PROGRESSED)
    assert first.workers == []
    assert [worker.who for worker in second.workers] == [one.who for one in WORKERS]
    assert [(host.host, host.busy) for host in second.hosts] == [("node7", 1), ("node8", 1)]
    (failed,) = second.failures
    assert (failed.address, failed.theta) == ("2:17", "mu=0.3333")
    assert "and more" not in failed.error


def test_sign_of_life_is_the_same_after_a_file():
    *_, seen = signs_of(AtWork(WORKERS, (FAILURE,)), PROGRESSED)
    again = sign_from(json.loads(json.dumps(asdict(seen))))
    assert asdict(again) == {
        **asdict(seen),
        **{name: tuple(asdict(seen)[name]) for name in ("workers", "hosts", "failures")},
    }


@pytest.mark.parametrize(
    "damage",
    [{"at": "now"}, {"workers": 3}, {"workers": [{"who": 1}]}, {"host": None}, {"progressed": {"level": 1}}],
    ids=["text", "number", "worker", "nothing", "older"],
)
def test_sign_of_life_that_is_none_is_taken_for_none(damage):
    assert sign_from(asdict(sign()) | damage) is None
    assert sign_from([1]) is None


def test_sign_of_life_of_an_older_file_lacks_only_what_it_lacks():
    seen = {
        name: value for name, value in asdict(sign()).items() if name not in ("workers", "hosts", "failures")
    }
    assert sign_from(seen).progressed == PROGRESSED


def test_worker_that_waits_is_reported_with_its_share_and_one_that_is_gone_is_forgotten():
    roster = Roster("here")
    roster.look(WORKERS)
    roster.look(WORKERS[:1])
    shares = {worker.who: (worker.at, worker.share) for worker in roster.workers()}
    assert shares == {WORKERS[0].who: ("2:30", 1.0), WORKERS[1].who: ("", 0.5)}
    assert [(host.host, host.workers, host.busy) for host in roster.hosts()] == [
        ("node7", 1, 1),
        ("node8", 1, 0),
    ]
    for _ in range(100):
        roster.look(WORKERS[:1])
    assert [worker.who for worker in roster.workers()] == [WORKERS[0].who]


def test_worker_whose_name_has_no_host_is_at_the_leaders_and_one_that_has_not_come_is_nowhere():
    roster = Roster("here")
    roster.look([Awaited("child 3", "0:1"), Awaited("rank 2 of 4")])
    assert [worker.who for worker in roster.workers()] == ["child 3"]
    assert [host.host for host in roster.hosts()] == ["here"]


def test_workers_are_described_by_their_names_and_those_that_are_slow_before_others():
    ranks = [Awaited(f"rank {i} of 40 on here", f"0:{i}", i % 7) for i in range(40)]
    *_, seen = signs_of(AtWork(tuple(ranks), ()), PROGRESSED)
    rows = words.workers_of(view_of(Seen("run.db", CONTENTS, seen, 1.0)), 5)[1:]
    assert [row[0] for row in rows] == [f"rank {i} of 40 on here" for i in (6, 13, 20, 27, 34)]


def test_file_beside_stays_small_with_thousands_of_workers():
    many = tuple(Awaited(f"rank {i} of 5000 on node{i % 400}", f"0:{i}", i) for i in range(5000))
    *_, seen = signs_of(AtWork(many, (FAILURE,) * 5), PROGRESSED)
    assert len(json.dumps(asdict(seen))) < 20_000
    assert seen.workers[0].who == "rank 4999 of 5000 on node199"
    assert len(json.dumps(for_broker(seen))) < 2_000


def test_who_works_and_what_failed_is_reported_less_often_than_how_far_it_is(tmp_path, monkeypatch):
    """Once in this run, in which no second look is due, and at each look at the clock in the other."""
    seen = []
    monkeypatch.setattr("mpiabc.sampler.Live", lambda path: seen.append)
    monkeypatch.setattr(loop, "_TELL", 0.0)
    for look, is_often in [(3600.0, False), (0.0, True)]:
        seen.clear()
        monkeypatch.setattr(loop, "_LOOK", look)
        problems.sampler(n=20, simulate=breaking, on_error="reject").run(
            tmp_path / f"{look}.db", scheduler="serial"
        )
        looks = [event for event in seen if isinstance(event, AtWork)]
        assert sum(isinstance(event, Progressed) for event in seen) > 5
        assert (len(looks) > 5) if is_often else (len(looks) == 1)
    failures = looks[-1].failures
    assert 0 < len(failures) <= 5
    assert all("the pump broke" in failure.error for failure in failures)


# What is read of the file.


def test_glance_has_the_numbers_of_the_populations(run):
    history, seen = mpiabc.open(run), Glance(run).look()
    assert seen.problem == history.problem_name
    assert (seen.generations, seen.reason) == (3, "threshold")
    for row, population in zip(seen.rows, history, strict=True):
        assert (row.size, row.evaluations, row.digest) == (20, population.evaluations, population.digest())
        assert row.ess == pytest.approx(population.ess)
        assert row.acceptance_rate == population.acceptance_rate


def test_file_that_has_not_changed_is_not_opened_again(run, monkeypatch):
    glance = Glance(run)
    seen = glance.look()
    monkeypatch.setattr("mpiabc.store.glance.History", None)
    assert glance.look() is seen


def test_rows_of_generations_that_are_known_are_not_read_again(tmp_path, monkeypatch):
    path, read = tmp_path / "run.db", []
    from mpiabc.store import glance as module

    row = module._row
    monkeypatch.setattr(module, "_row", lambda history, t, digest: read.append(t) or row(history, t, digest))
    glance = Glance(path)
    for _ in problems.sampler(n=20).sample(path, scheduler="serial"):
        glance.look()
    glance.look()
    assert read == [0, 1, 2]


def test_run_commits_while_it_is_looked_at_and_no_look_leaves_a_lock(tmp_path):
    """An exclusive lock, with no patience at all, is had after each look; the file is as the run has it."""
    path, seen = tmp_path / "run.db", []
    onlooker = Onlooker(path)
    for _ in problems.sampler(n=20).sample(path, scheduler="serial"):
        seen.append(onlooker.look())
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            db.execute("ROLLBACK")
    assert [view.state for view in seen] == [State.RUNNING] * len(seen)
    assert onlooker.look().generations == 3
    before = path.read_bytes()
    onlooker.look()
    assert path.read_bytes() == before


def test_clock_of_another_machine_takes_no_run_for_silent_once_two_signs_were_seen(run):
    write_sign(run, sign(at=time.time() - 3600))
    onlooker = Onlooker(run)
    assert onlooker.look().state is State.SILENT
    write_sign(run, sign(at=time.time() - 3599))
    assert onlooker.look().state is State.RUNNING


def test_leader_that_is_gone_from_this_machine_was_killed(run):
    gone = next(n for n in range(4_000_000, 5_000_000) if not os.path.exists(f"/proc/{n}"))
    write_sign(run, sign(at=time.time() - 5, process=gone))
    assert Onlooker(run).look().state is State.KILLED
    assert cli.main(["watch", str(run)]) == 1


def test_file_that_cannot_be_read_for_a_moment_is_shown_as_it_was_and_then_reported(run, monkeypatch):
    onlooker = Onlooker(run)
    view = onlooker.look()
    run.write_bytes(b"no database at all" * 100)
    assert onlooker.look() == view
    monkeypatch.setattr("mpiabc.onlooker.look._PATIENCE", 0.0)
    with pytest.raises(mpiabc.Error, match="not an mpiabc run"):
        onlooker.look()


# The command.


def test_watch_says_what_is_new_until_the_run_ends(tmp_path, capsys):
    path = tmp_path / "run.db"
    populations = problems.sampler(n=20).sample(path, scheduler="serial")
    next(populations)
    lines = terminal.Lines(watch.say)
    status = watch.follow(Onlooker(path), lambda view: (lines([view]), next(populations, None)))
    said = capsys.readouterr().out.splitlines()
    assert status == 0
    assert said[0].startswith("run.db: generation 0: epsilon 3, N 20")
    assert [line.split(":")[1] for line in said if ": epsilon" in line and "N 20" in line] == [
        " generation 0",
        " generation 1",
        " generation 2",
    ]
    assert said[-1] == "run.db: it has come to its end: threshold"


@pytest.mark.parametrize(
    ("reason", "status"), [("generations", 0), ("interrupted: walltime reached", 75), ("failed: nan", 1)]
)
def test_watch_of_a_run_that_has_ended_ends_with_its_status(run, capsys, reason, status):
    from mpiabc.store import schema

    with closing(sqlite3.connect(run, isolation_level=None)) as db:
        schema.put(db, "reason", reason)
    assert cli.main(["watch", str(run)]) == status
    assert reason in capsys.readouterr().out


def test_watch_waits_for_a_file_only_if_it_is_asked_to(tmp_path, monkeypatch, capsys):
    path = tmp_path / "later.db"
    assert cli.main(["watch", str(path)]) == 1
    assert "give --wait to wait for it" in capsys.readouterr().err
    pauses = itertools.count()

    def sleep(seconds):
        if next(pauses) == 1:
            problems.sampler(n=5).run(path, scheduler="serial")

    monkeypatch.setattr(watch.time, "sleep", sleep)
    assert cli.main(["watch", str(path), "--wait"]) == 0
    assert "there is no such file yet" in capsys.readouterr().out


def test_watch_of_a_damaged_file_is_a_sentence(run, capsys):
    run.write_bytes(run.read_bytes()[:5000])
    assert cli.main(["watch", str(run)]) == 1
    assert capsys.readouterr().err.startswith("mpiabc: ")


def test_interrupt_ends_a_watch_and_nothing_else(run, monkeypatch, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    write_sign(run, sign())
    monkeypatch.setattr(watch.time, "sleep", interrupt)
    assert cli.main(["watch", str(run)]) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert len(mpiabc.open(run)) == 3


# The terminal.


def screen(*views, width=100):
    """What a terminal of this width shows."""
    imported("rich")
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=False)
    console.print(terminal.drawn(views, 40, "nothing"))
    return stream.getvalue()


def test_terminal_shows_name_state_numbers_workers_and_failures():
    *_, seen = signs_of(AtWork(WORKERS, (FAILURE,)), PROGRESSED)
    shown = screen(view_of(Seen("run.db", CONTENTS, seen, 1.0)))
    for text in ("pumps", "running", "25 of 100", "3 of 4", "node7", "node8", "2:17", "RuntimeError", "1.5"):
        assert text in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_nothing_that_a_run_says_of_itself_steers_the_terminal():
    *_, seen = signs_of(AtWork((Awaited("evil \x1b[2J on x", "0:1"),) * 2, (FAILURE,)), PROGRESSED)
    warned = replace(CONTENTS, problem="\x1b]0;x\x07 [bold]", warnings=("\x1b[5m",))
    shown = screen(view_of(Seen("run.db", warned, seen, 1.0)), width=200)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]" in shown


@pytest.mark.parametrize("width", [30, 60, 200])
def test_terminal_of_any_width_has_whole_lines(width):
    shown = screen(view_of(Seen("run.db", CONTENTS, sign(), 1.0)), width=width)
    assert max(map(len, shown.splitlines())) <= width


def test_runs_of_a_broker_have_the_same_view():
    *_, seen = signs_of(AtWork(WORKERS, ()), PROGRESSED)
    announced = {
        "name": "pumps",
        "process": 7,
        "host": "node1",
        "state": json.loads(json.dumps(for_broker(seen))),
    }
    view = view_of_broker(announced)
    assert (view.state, view.problem, view.progressed) == (State.RUNNING, "pumps", PROGRESSED)
    assert [host.host for host in view.hosts] == ["node7", "node8"]
    begun = view_of_broker(announced | {"state": ""})
    assert begun.state is State.BEGUN
    shown = screen(view, begun)
    assert "25 of 100" in shown
    assert "process 7 on node1" in shown
    assert screen() == "nothing\n"


def test_lines_about_a_broker_say_once_that_there_are_no_runs():
    said = []
    lines = terminal.Lines(said.append, "no runs")
    lines([])
    lines([])
    lines([view_of(Seen("run.db", CONTENTS, sign(), 1.0))])
    lines([])
    assert said.count("no runs") == 2
    assert any(line.startswith("run.db: it goes on") for line in said)


def test_missing_rich_is_named_with_its_extra(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(terminal, "is_watched", lambda stream: True)
    assert cli.main(["watch", str(run)]) == 1
    assert "install `mpiabc[watch]`" in capsys.readouterr().err
