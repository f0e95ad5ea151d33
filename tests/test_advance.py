"""What a run does next is a pure function of what it learns; the driver does it, and tells who observes."""

import json
import random
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import mpiabc
from mpiabc import cli, signals
from mpiabc.actions import Commit, Done, Keep, Open, Void
from mpiabc.driver import Committed, Driver, Ended, Limits, Noted, Progressed
from mpiabc.driver.opened import Opened
from mpiabc.evaluate import Evaluator
from mpiabc.order import kept
from mpiabc.planner import Planner
from mpiabc.population import Past
from mpiabc.progress import Line, described
from mpiabc.records import Lease, pack, unpack
from mpiabc.run import Resumed, Run
from mpiabc.schedulers.base import Doubted, Lost
from mpiabc.signals import Signals
from mpiabc.stopping import Stopping
from mpiabc.store import Store, live
from mpiabc.streams import stream_key
from tests import problems
from tests.cluster import Simulated, random_time


def run_of(sampler, *past, stopping=None, resumed=None, is_static=False):
    planner = Planner(
        sampler.problem.prior,
        sampler.kernel,
        sampler.threshold,
        stream_key(1),
        sampler.population_size,
        is_static,
        sampler.weights,
        sampler.problem.step,
    )
    return Run(sampler.problem, planner, stopping or Stopping(), *past, resumed=resumed)


class Played:
    """Performs a run's actions with what there is at hand, in any order, as a driver may."""

    def __init__(self, sampler, run, rng):
        self.sampler, self.run, self.rng = sampler, run, rng
        self.populations, self.commits, self.journal, self.orders = {}, [], [], {}
        self.reason = self.opened = None

    def perform(self, actions):
        for action in actions:
            if isinstance(action, Open):
                self.opened, self.reason, self.records = action, None, []
                self.orders[action.order.level] = action
                self.evaluator = Evaluator(self.sampler.problem, action.order)
            elif isinstance(action, Keep):
                self.journal.append(pack(action.records))
            elif isinstance(action, Commit):
                self.populations[action.population.generation] = action.population.digest()
                self.commits.append(action)
                self.journal.clear()
                self.perform(self.run.advance())
            elif isinstance(action, Void):
                self.populations = {t: d for t, d in self.populations.items() if t < action.level}
            elif isinstance(action, Done):
                self.reason = action.reason

    def step(self):
        """Some leases go out, and what is out comes home in some order, some of it twice."""
        ledger = self.opened.ledger
        for _ in range(self.rng.randrange(5)):
            lease = ledger.lease(self.rng.randrange(1, 20))
            if lease is not None:
                self.records.append(self.evaluator(lease.start, lease.stop))
        self.rng.shuffle(self.records)
        for records in self.records[: self.rng.randrange(6)]:
            if self.rng.random() < 0.9:
                self.records.remove(records)
            opened = self.opened
            self.perform(self.run.advance([records]))
            if self.opened is not opened or self.reason:
                return

    def play(self, steps=10_000):
        self.perform(self.run.advance())
        for _ in range(steps):
            if self.reason is not None:
                return self
            self.step()
        return self


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The digests of an uninterrupted run."""
    path = tmp_path_factory.mktemp("quiet") / "run.db"
    return problems.digests(problems.sampler().run(path, scheduler="serial"))


@pytest.mark.parametrize("seed", range(5))
def test_run_needs_neither_driver_nor_clock_nor_file(seed, quiet):
    sampler = problems.sampler()
    played = Played(sampler, run_of(sampler), random.Random(seed)).play()
    assert played.reason == "threshold"
    assert list(played.populations.values()) == quiet


@pytest.mark.parametrize("seed", range(5))
def test_to_resume_is_to_learn_what_was_kept(seed, quiet):
    """The order as the file has it, and its records as the journal has them; again and again."""
    sampler, rng = problems.sampler(), random.Random(seed)
    past, order, journal, digests = Past(), None, [], []
    for _ in range(40):
        resumed = Resumed(order, map(unpack, journal))
        played = Played(sampler, run_of(sampler, past, resumed=resumed), rng).play(steps=rng.randrange(1, 12))
        digests += played.populations.values()
        for commit in played.commits:
            past, journal = past.after(commit.population), []
        if played.reason:
            break
        journal += played.journal
        opened = played.opened
        order = kept(opened.order, opened.past.last)
    assert played.reason == "threshold"
    assert digests == quiet


def test_generation_is_opened_again_under_another_number_and_ends_as_before(quiet):
    sampler = problems.sampler()
    played = Played(sampler, run_of(sampler), random.Random(1)).play()
    commit = played.commits[1]
    commit.opened.ledger.forget(10, 60)
    played.perform(played.run.reopen(commit))
    assert list(played.populations.values()) == quiet[:1]
    assert played.opened.order.number != commit.opened.order.number
    assert played.opened.order.level == 1
    played.play()
    assert list(played.populations.values()) == quiet


def test_generation_that_is_complete_without_what_is_doubted_is_committed_again_at_once():
    """Leases above the cut may be in doubt, too."""
    sampler = problems.sampler(thresholds=(3,))
    played = Played(sampler, run_of(sampler), random.Random(1)).play()
    (commit,) = played.commits
    commit.opened.ledger.forget(commit.population.evaluations, commit.population.evaluations + 5)
    actions = played.run.reopen(commit)
    assert [type(action) for action in actions] == [Void, Open, Commit]
    assert actions[-1].population.digest() == commit.population.digest()


def test_bound_that_rests_on_what_is_doubted_ends_nothing():
    sampler = problems.sampler()
    run = run_of(sampler, stopping=Stopping(simulations=50))
    played = Played(sampler, run, random.Random(1)).play()
    assert (played.reason, len(played.populations)) == ("simulations", 0)
    played.opened.ledger.forget(3, 4)
    assert run.advance() == []
    assert [type(action) for action in run.advance([played.evaluator(3, 4)])] == [Keep, Done]


class Scripted:
    """An engine that brings all reports at the first poll; a signal is seen after some more, if any is."""

    workers = 1

    def __init__(self, reports, signals, polls):
        self.reports, self.signals, self.polls = reports, signals, polls

    def begin(self, job):
        pass

    def capacity(self, prefetch):
        return 0

    def poll(self, timeout):
        self.polls -= 1
        if self.polls == 0:
            self.signals.seen = "SIGTERM"
        reports, self.reports = self.reports, []
        return reports

    def busy(self):
        return 0

    def cancel(self, cut):
        pass


@pytest.mark.parametrize(("polls", "ends"), [(20, mpiabc.Interrupted), (10**6, mpiabc.SimulatorError)])
def test_failure_that_a_signal_may_have_made_is_no_part_of_a_population(polls, ends):
    """The generation is complete with it, and yet not committed: either it was none, or it ends the run."""

    def simulate(theta, rng, *, id):
        return 1 / 0 if id.index == 9 else problems.gaussian(theta, rng)

    sampler = problems.sampler(n=12, simulate=simulate, thresholds=(1e9,))
    evaluator = Evaluator(sampler.problem, run_of(sampler).advance()[-1].order)
    reports = [replace(evaluator(*lease), is_exposed=True) for lease in [(0, 9), (9, 10), (10, 13)]]
    now, signals = 0.0, Signals()

    def clock():
        nonlocal now
        now += 0.01
        return now

    driver = Driver(Scripted(reports, signals, polls), limits=Limits(signals=signals), clock=clock)
    done = []
    with pytest.raises(ends):
        done += driver.run(run_of(sampler))
    assert done == []


class Doubting:
    """An engine that brings what a script says, and then evaluates; it hears no signals."""

    workers = 1

    def __init__(self, problem, *script):
        self.problem, self.script, self.leases, self.again = problem, list(script), [], []

    def begin(self, job):
        self.evaluator, self.leases = Evaluator(self.problem, job), []

    def capacity(self, prefetch):
        return 0 if self.script else 1 - len(self.leases)

    def submit(self, lease):
        self.leases.append(lease)
        self.again.append((lease.start, lease.stop))

    def poll(self, timeout):
        if self.script:
            part = self.script.pop(0)
            return part if isinstance(part, list) else [self.evaluated(*part)]
        leases, self.leases = self.leases, []
        return [self.evaluator(lease.start, lease.stop) for lease in leases]

    def evaluated(self, start, stop):
        return replace(self.evaluator(start, stop), is_exposed=True)

    def waiting(self):
        return []

    def busy(self):
        return len(self.leases)

    def cancel(self, cut):
        self.leases = [lease for lease in self.leases if lease.start < cut]


def doubting(*script, fails_once=(), fails=(), is_static=False):
    """What a run of twelve that accepts everything comes to, and what was evaluated besides the script."""
    once = set(fails_once)

    def simulate(theta, rng, *, id):
        if id.index in fails or id.index in once:
            once.discard(id.index)
            raise RuntimeError("it broke")
        return problems.gaussian(theta, rng)

    now = 0.0

    def clock():
        nonlocal now
        now += 0.05
        return now

    sampler = problems.sampler(n=12, simulate=simulate, thresholds=(1e9,))
    engine = Doubting(sampler.problem, *script)
    driver = Driver(engine, limits=Limits(signals=Signals()), clock=clock)
    done = []
    try:
        for event in driver.run(run_of(sampler, is_static=is_static)):
            done.append(type(event))
    except mpiabc.SimulatorError as error:
        done.append(error.failure.index)
    return done, engine.again


def ids_of(leases):
    """Their ids; how long leases are depends on what evaluations cost."""
    return sorted({id for start, stop in leases for id in range(start, stop)})


def doubted(start, stop):
    return Doubted((Lease(0, start, stop),))


@pytest.mark.parametrize("is_static", [False, True])
def test_failure_that_is_in_doubt_and_does_not_come_again_holds_up_nothing(is_static):
    done, _ = doubting((0, 4), [doubted(0, 4)], fails_once={2}, is_static=is_static)
    assert done == [Commit, Done]


def test_failure_that_stays_when_a_lower_one_is_in_doubt_ends_the_run():
    done, _ = doubting((0, 4), (4, 8), [doubted(0, 4)], fails_once={2}, fails={6})
    assert done == [6]


def test_failure_above_the_cut_does_not_end_a_run_that_is_opened_again():
    done, again = doubting((12, 13), (0, 12), [doubted(0, 4)], fails={12})
    assert done == [Commit, Commit, Done]
    assert ids_of(again) == list(range(4))


def test_lease_below_a_failure_that_comes_back_undone_is_given_out_again():
    """Without it the failure might be no part of the result: it is not, whatever came home first."""
    undone = [Lost(Lease(0, 0, 12), "worker", "it left", is_returned=True)]
    done, again = doubting((12, 13), undone, fails={12})
    assert done == [Commit, Done]
    assert ids_of(again) == list(range(12))


def test_doubts_about_an_order_that_is_void_touch_no_other_one_of_its_generation():
    """Generation 0 was committed again meanwhile, and generation 1 has begun anew."""
    sampler = problems.sampler(n=12, thresholds=(1e9, 1e8))
    first, second = Doubted((Lease(0, 0, 4),)), Doubted((Lease(1, 20, 30),))
    engine = Doubting(sampler.problem, (0, 12), [first], (0, 4), [second])
    driver = Driver(engine, limits=Limits(signals=Signals()))
    events = list(driver.run(run_of(sampler)))
    assert [type(event) for event in events] == [Commit, Commit, Commit, Done]
    expected = Played(sampler, run_of(sampler), random.Random(1)).play().populations
    assert [commit.population.digest() for commit in events[1:3]] == list(expected.values())


def test_all_that_is_doubted_at_once_of_a_committed_order_is_evaluated_again():
    """The order has another number from the first on."""
    done, again = doubting((0, 4), (4, 12), [doubted(0, 4), doubted(4, 8)])
    assert done == [Commit, Commit, Done]
    assert ids_of(again) == list(range(8))


def test_observers_hear_what_happens_in_its_order(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr("mpiabc.sampler.Live", lambda path: heard.append)
    problems.sampler(n=8).run(tmp_path / "run.db", scheduler="serial")
    kinds = [type(event) for event in heard]
    assert kinds[0] is Progressed
    assert kinds[-1] is Ended
    assert [e.population.generation for e in heard if isinstance(e, Committed)] == [0, 1, 2]
    (note,) = {event.note for event in heard if isinstance(event, Noted)}
    assert "the effective sample size of generation" in note
    for event in heard:
        with pytest.raises(AttributeError):
            event.anything = 1


def test_run_that_goes_on_is_shown_by_a_file_beside_and_a_killed_one_is_distinguished(tmp_path, capsys):
    path, shown = tmp_path / "run.db", []

    def simulate(theta, rng, *, id):
        if id == (1, 20):
            shown.append(json.loads(live.path_of(path).read_text()))
            assert cli.main(["show", str(path)]) == 0
        return problems.gaussian(theta, rng)

    problems.sampler(simulate=simulate).run(path, scheduler="serial")
    assert (
        f"it goes on: {described(Progressed(**shown[0]['progressed']))} (process" in capsys.readouterr().out
    )
    assert not live.path_of(path).exists()
    live.path_of(path).write_text(json.dumps({**shown[0], "at": time.time() - 125}))
    assert cli.main(["show", str(path)]) == 0
    assert re.search(
        r"no sign of life for \d+ min \d\d s: it was killed or suspended", capsys.readouterr().out
    )
    problems.sampler(n=20, simulate=simulate, name="x").run(path, scheduler="serial", overwrite=True)
    assert not live.path_of(path).exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"at": 1}', '{"progressed": {"level": 1}}'])
def test_sign_of_life_that_is_none_is_left_out(text, tmp_path):
    live.path_of(tmp_path / "run.db").write_text(text)
    assert live.read(tmp_path / "run.db") is None


def test_line_says_when_a_generation_will_be_complete_once_that_is_known():
    event = Progressed(2, 0.5, 100, 0, 50, 0, 10.0, 4, 4)
    assert described(event) == "generation 2, epsilon 0.5: 0/100 accepted, 5 simulations/s, 4/4 busy"
    assert described(replace(event, accepted=25)).endswith("4/4 busy, 30 s left")
    resumed = replace(event, accepted=50, simulations=150, had_simulations=50, had_accepted=25)
    assert described(resumed).endswith("50/100 accepted, 10 simulations/s, 4/4 busy, 20 s left")
    assert described(replace(resumed, accepted=25, simulations=50)).endswith(" 0 simulations/s, 4/4 busy")


def test_what_was_there_when_an_order_was_opened_is_no_speed():
    """A run that goes on has it of the file, a recycled one of the level before."""
    ledger = SimpleNamespace(size=100, simulations=50, accepted=25, failed=0, counted="accepted")
    opened = Opened(SimpleNamespace(level=1, epsilon=0.5), ledger, None, 0.0)
    ledger.simulations, ledger.accepted = 150, 50
    progressed = opened.progress(10.0, SimpleNamespace(workers=4, busy=lambda: 4))
    assert (progressed.rate, progressed.seconds_left) == (10.0, 20.0)


def test_pure_loop_and_virtual_cluster_agree_with_the_driver(quiet, tmp_path):
    history = problems.sampler().run(tmp_path / "run.db", scheduler=Simulated(7, random_time, loss=0.1))
    assert problems.digests(history) == quiet
    assert np.all([p.seconds >= 0 for p in history])
    Line(is_live=False)(Ended())


@pytest.mark.long
def test_what_a_user_does_between_two_populations_is_no_time_of_a_generation(tmp_path):
    taken, began = [], time.monotonic()
    for _ in problems.sampler().sample(tmp_path / "run.db", scheduler="serial"):
        taken.append(time.monotonic() - began)
        time.sleep(1.0)
        began = time.monotonic()
    said = [p.seconds for p in mpiabc.open(tmp_path / "run.db")]
    assert all(seconds < most + 0.5 for seconds, most in zip(said, taken, strict=True))


def test_commit_behind_which_a_signal_strikes_is_taken_back(tmp_path, monkeypatch):
    """The file has it already, and its writer does not know yet."""
    real, path = Store.transaction, tmp_path / "run.db"

    @contextmanager
    def struck(store):
        is_outermost = not store._db.in_transaction
        with real(store) as db:
            yield db
        if is_outermost and problems.committed(path) == 2:
            signals._active[-1].seen, signals._active[-1].at = "SIGTERM", time.monotonic()
            monkeypatch.undo()
            raise signals.Stop

    monkeypatch.setattr(Store, "transaction", struck)
    with pytest.raises(mpiabc.Interrupted):
        problems.sampler().run(path, scheduler="serial")
    assert problems.committed(path) == 0
    history = problems.sampler().run(path, scheduler="serial")
    assert problems.digests(history) == problems.digests(
        problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    )
