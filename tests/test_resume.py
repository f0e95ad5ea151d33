"""Nothing is lost: whatever is killed, the same command comes to the uninterrupted digests."""

from dataclasses import replace

import numpy as np
import pytest

import mpiabc
from mpiabc import schedulers
from mpiabc.records import unpack
from mpiabc.store import Journal, Store
from tests import kills, problems, walltime
from tests.cluster import Cluster, Simulated, random_time
from tests.jobs import launchers


@pytest.mark.long
def test_killed_anywhere_twenty_runs_come_to_the_uninterrupted_digests():
    """A sample of `python -m tests.kills`, which plays 200."""
    outcomes = dict(kills.played(kills.cases(20, 1, launchers()), jobs=3))
    assert len(outcomes) == 20
    assert all(outcome.kills for outcome in outcomes.values())
    assert {str(case): outcome.trouble for case, outcome in outcomes.items() if outcome.trouble} == {}


@pytest.mark.long
def test_run_stopped_by_its_walltime_again_and_again_ends_with_the_same_digests(tmp_path):
    """And loses at most what was in flight: a small `python -m tests.walltime`."""
    starts = walltime.play(tmp_path, 0.9, 0.005, "processes")
    assert [start.status for start in starts[:-1]] == [75] * (len(starts) - 1)
    assert len(starts) >= 3
    assert starts[-1].status == 0
    assert all(start.lost <= 2 for start in starts)  # processes
    history = mpiabc.open(tmp_path / "run.db")
    assert sum(start.done for start in starts) >= sum(p.simulations for p in history) > 500
    assert problems.digests(history) == walltime.quiet(tmp_path)


def test_generation_is_continued_not_begun_again(tmp_path):
    """Stopped by the budget inside a generation, a run with a larger one simulates the rest only."""
    calls = []

    def simulate(theta, rng, *, id):
        calls.append(tuple(id))
        return problems.gaussian(theta, rng)

    def run(store, budget):
        abc = problems.sampler(simulate=simulate)
        return abc.run(tmp_path / store, simulations=budget, scheduler="serial")

    assert run("run.db", 150).reason == "simulations"
    history = run("run.db", 10**6)
    assert history.reason == "threshold"
    assert len(calls) == len(set(calls))
    assert problems.digests(history) == problems.digests(
        problems.sampler().run(tmp_path / "b.db", scheduler="serial")
    )


@pytest.mark.long
@pytest.mark.parametrize("is_static", [False, True])
def test_resumed_run_may_use_another_scheduler_of_its_kind(is_static, tmp_path):
    def scheduler(n):
        return Simulated(n, random_time, is_static=is_static)

    def run(store, n, **rules):
        return mpiabc.ABCSMC(problems.problem(), 100, seed=1).run(
            tmp_path / store, scheduler=scheduler(n), **rules
        )

    expected = problems.digests(run("quiet.db", 1, generations=4))
    for budget in (120, 250, 400, 600):
        run("run.db", budget % 7 + 1, simulations=budget)
    assert problems.digests(run("run.db", 5, generations=4)) == expected


def test_damaged_journal_is_computed_again(tmp_path):
    problems.sampler().run(tmp_path / "run.db", simulations=150, scheduler="serial")
    with Store(tmp_path / "run.db") as store:
        open_generation = len(store.history())
        (buffer, *_) = store.noted(open_generation)
        assert len(unpack(buffer)) >= 1
        store._db.execute("UPDATE journal SET records = zeroblob(length(records))")
        assert list(Journal(store).recover(open_generation)) == []
    history = problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(
        problems.sampler().run(tmp_path / "b.db", scheduler="serial")
    )


@pytest.mark.long
@pytest.mark.parametrize("is_static", [False, True])
def test_journalled_rows_without_a_finite_weight_are_computed_again(is_static, tmp_path):
    """The kernel that gave them nan may have been mended since."""

    def run(store, **rules):
        scheduler = Simulated(2, random_time, is_static=is_static)
        return problems.sampler().run(tmp_path / store, scheduler=scheduler, **rules)

    run("run.db", simulations=220)
    with Store(tmp_path / "run.db") as store:
        journal = Journal(store)
        kept = [records for records in journal.recover(len(store.history())) if len(records.rows)]
        assert kept
        for records in kept:
            weightless = np.full(len(records.rows), np.nan)
            journal.add(replace(records, rows=replace(records.rows, log_weights=weightless)))
        store._db.execute("DELETE FROM journal")
        journal.flush()
    assert problems.digests(run("run.db")) == problems.digests(run("quiet.db"))


def test_run_whose_kernel_gives_no_weights_ends_before_the_commit_and_goes_on_when_it_is_mended(tmp_path):
    class Blind(mpiabc.Gaussian):
        broken = True

        def fit(self, population):
            mixture = super().fit(population)
            return mixture if not self.broken or population.generation < 1 else _NoDensity(mixture)

    sampler = problems.sampler(kernel=Blind())
    with pytest.raises(mpiabc.ProblemError, match=r"is nan or infinite .*\(evaluation 2:\d+, theta: mu="):
        sampler.run(tmp_path / "run.db", scheduler="serial")
    assert len(mpiabc.open(tmp_path / "run.db")) == 2
    Blind.broken = False
    history = problems.sampler(kernel=Blind()).run(
        tmp_path / "run.db", scheduler="serial", accept_changes=True
    )
    quiet = problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(quiet)


class _NoDensity:
    """A proposal that can be sampled only."""

    def __init__(self, mixture):
        self.sample = mixture.sample

    def logpdf(self, theta):
        return np.full(len(theta), np.nan)


def test_what_came_in_before_a_long_silence_is_kept_within_seconds(tmp_path):
    """The second of two simulations of an hour that end together need not wait for the third."""
    problems.sampler().run(tmp_path / "run.db", simulations=150, scheduler="serial")
    now = 0.0
    with Store(tmp_path / "run.db") as store:
        journal = Journal(store, clock=lambda: now)
        records = replace(next(journal.recover(len(store.history()))), job=7)
        journal.add(records)
        journal.tick()
        assert list(store.noted(7)) == []
        now = 3.0
        journal.tick()
        assert len(list(store.noted(7))) == 1


def test_failures_of_an_open_generation_are_shown(tmp_path):
    """Those that on_error lets pass too, as soon as they are journalled."""

    def simulate(theta, rng, *, id):
        return 1 / 0 if id.index % 50 == 7 else problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=simulate, on_error="reject")
    history = sampler.run(tmp_path / "run.db", simulations=60, scheduler="serial")
    assert len(history) == 0
    assert [(f.generation, f.index) for f in history.failures] == [(0, 7), (0, 57)]


def test_journal_is_looked_after_while_nothing_comes_in(tmp_path, monkeypatch):
    ticks = []
    monkeypatch.setattr(Journal, "tick", lambda journal: ticks.append(len(polls)))
    polls, heard = [], Cluster.poll

    def poll(cluster, timeout):
        polls.append(timeout)
        return [] if len(polls) <= 3 else heard(cluster, timeout)

    monkeypatch.setattr(Cluster, "poll", poll)
    problems.sampler().run(tmp_path / "run.db", scheduler=Simulated(2, random_time))
    assert ticks[:3] == [1, 2, 3]


def test_failed_run_goes_on_when_the_simulator_is_mended(tmp_path):
    def broken(theta, rng, *, id):
        return 1 / 0 if id == (1, 150) else problems.gaussian(theta, rng)

    for scheduler in ("serial", schedulers.Processes(2)):
        with pytest.raises(mpiabc.SimulatorError, match="1:150"):
            problems.sampler(simulate=broken, name="x").run(tmp_path / "run.db", scheduler=scheduler)

    def broken(theta, rng):  # the same name: the same problem, mended
        return problems.gaussian(theta, rng)

    sampler = problems.sampler(simulate=broken, name="x")
    with pytest.raises(
        mpiabc.StoreError, match=r"other code or values \(the code of .*broken.*accept_changes=True"
    ):
        sampler.run(tmp_path / "run.db", scheduler="serial")
    history = sampler.run(tmp_path / "run.db", scheduler="serial", accept_changes=True)
    assert "from generation 1 on the run has other code" in history.warnings[-1]
    assert problems.digests(history) == problems.digests(
        problems.sampler().run(tmp_path / "b.db", scheduler="serial")
    )


@pytest.mark.long
def test_death_of_a_rank_without_fault_tolerance_ends_the_job_resumable(mpi, tmp_path):
    """At once and non-zero; the same command then comes to the same digest."""
    job = mpi.run(2, "-m", "tests.programs.dying", tmp_path / "run.db", 1)
    assert job.returncode not in (0, 75)
    again = mpi.run(2, "-m", "tests.programs.dying", tmp_path / "run.db", 1)
    assert again.returncode == 0, again.stdout
    quiet = problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == problems.digests(quiet)
