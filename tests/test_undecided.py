"""What is begun before it is known what decides about it: noise, fitted distances, all simulations."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

import mpiabc
from mpiabc.cli import main
from mpiabc.driver import opened
from mpiabc.evaluate import Level
from mpiabc.line import Line
from mpiabc.records import Status
from mpiabc.schedulers import Processes
from mpiabc.settled import Settler
from mpiabc.store import journal, writer
from tests import problems
from tests.cluster import Simulated, random_time
from tests.programs import foreign
from tests.test_lookahead import Copied, journaled
from tests.test_together import digest

OBSERVED = {"y": 1.0, "z": 10.0}
NOISE = mpiabc.Noise(mpiabc.noise.Normal(sd=1.0), steps=2)


def plain(theta, rng):
    """Two statistics in different units."""
    return {"y": theta["mu"] + rng.standard_normal(), "z": 10 * theta["mu"] + 3 * rng.standard_normal()}


def narrow(theta, rng):
    return {name: np.float32(value) for name, value in plain(theta, rng).items()}


def early(theta, rng, *, epsilon):
    """Rejects by itself."""
    data = plain(theta, rng)
    return mpiabc.REJECT if np.hypot(data["y"] - 1, data["z"] - 10) > epsilon else data


def bent(theta, rng, *, epsilon):
    """Data that depend on epsilon."""
    data = plain(theta, rng)
    return {"y": data["y"] + min(epsilon, 100.0) / 1000, "z": data["z"]}


MAD = {"distance": mpiabc.PNorm(scale="mad")}
SINGLE = {"simulate": narrow, "observed": {name: np.float32(value) for name, value in OBSERVED.items()}}
KINDS = {  # the problem's parts, and the sampler's
    "noise": ({}, {"acceptor": NOISE, "recycle": True}),
    "scale": (MAD | SINGLE, {"keep": "all"}),
    "predictor": ({"distance": mpiabc.Predicted(foreign.LeastSquares())}, {}),
    "all kept": ({}, {"keep": "all", "recycle": True}),
    "epsilon": ({"simulate": early}, {}),
}


def sampler(kind, lookahead=True, **options):
    of_problem, of_sampler = KINDS[kind]
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    given = {"simulate": plain, "observed": OBSERVED} | of_problem | options
    return mpiabc.ABCSMC(mpiabc.Problem(prior, **given), 20, seed=1, lookahead=lookahead, **of_sampler)


def run(kind, path, scheduler, generations=3, **options):
    return sampler(kind, **options).run(path, generations=generations, scheduler=scheduler, overwrite=True)


@pytest.fixture(autouse=True)
def few_ahead(monkeypatch):
    """So that little is begun in vain, which takes this process time."""
    monkeypatch.setattr(opened, "_AHEAD", 4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Digests where nobody looks ahead."""
    path = tmp_path_factory.mktemp("alone") / "run.db"
    return {kind: digest(run(kind, path, Simulated(1, random_time))) for kind in KINDS}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_decided_yet_comes_to_the_same_whenever_it_was_begun(kind, alone, tmp_path):
    faults = {"loss": 0.05, "duplicate": 0.1, "doubt": 0.01}
    assert digest(run(kind, tmp_path / "run.db", Simulated(25, random_time, **faults))) == alone[kind]


@pytest.mark.long
def test_a_hundred_may_begin_what_is_not_decided(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "_AHEAD", 1)
    history = run("scale", tmp_path / "run.db", Simulated(150, random_time), 2)
    assert problems.digests(history) == [text[:64] for text in alone["scale"][:2]]


@pytest.mark.long
def test_rejections_that_are_final_too_early_are_noticed(tmp_path, monkeypatch):
    """At the same temperature, an evaluation has another chance at each level."""
    noise = mpiabc.Noise(mpiabc.noise.Normal(sd=1.0), steps=1)
    monkeypatch.setitem(
        KINDS, "cold", ({"observed": {"y": 1.0}, "simulate": problems.gaussian}, {"acceptor": noise})
    )
    flipped, settled = [], Settler.settled

    def noted(self, records, level):
        now = settled(self, records, level)
        flipped.append(
            np.count_nonzero((records.status == Status.REJECTED) & (now.status == Status.ACCEPTED))
        )
        return now

    monkeypatch.setattr(Settler, "settled", noted)
    alone = problems.digests(run("cold", tmp_path / "run.db", Simulated(1, random_time), 4))
    assert problems.digests(run("cold", tmp_path / "run.db", Simulated(25, random_time), 4)) == alone
    assert sum(flipped)
    monkeypatch.setattr(Level, "is_undecided", False)
    assert problems.digests(run("cold", tmp_path / "run.db", Simulated(25, random_time), 4)) != alone


def test_distances_that_are_those_of_an_earlier_level_are_noticed(alone, tmp_path, monkeypatch):
    def as_before(self, rows):
        return replace(rows, level=np.full(len(rows), self._order.level))

    monkeypatch.setattr(Settler, "_measured", as_before)
    assert digest(run("scale", tmp_path / "run.db", Simulated(25, random_time))) != alone["scale"]


@pytest.fixture
def quick_journal(monkeypatch):
    """One that writes whatever has come home, at once."""
    monkeypatch.setattr(journal, "DOUBT", 0.0)
    monkeypatch.setattr(
        writer, "Journal", lambda store: journal.Journal(store, 0.0, itertools.count().__next__)
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["noise", "scale", "predictor"])
def test_runs_go_on_from_what_was_not_decided(kind, alone, quick_journal, tmp_path):
    scheduler = Copied(tmp_path / "run.db", 110)
    run(kind, tmp_path / "run.db", scheduler)
    found = [journaled(path) for path in scheduler.copies]
    assert any(min(levels, default=t) < t for levels, t in found)
    for i, path in enumerate(scheduler.copies):
        one = sampler(kind).run(path, generations=3, scheduler=Simulated(1 + 4 * i, random_time))
        assert digest(one) == alone[kind]


@pytest.mark.long
def test_processes_begin_what_is_not_decided(alone, tmp_path):
    def simulate(theta, rng):
        data = narrow(theta, rng)
        time.sleep(0.005 + rng.exponential(0.005))
        return data

    for i, scheduler in enumerate((Processes(3), "serial")):
        history = run("scale", tmp_path / f"{i}.db", scheduler, simulate=simulate)
        assert digest(history) == alone["scale"]


def test_undecided_rows_are_dropped_once_their_level_is_known(tmp_path, monkeypatch):
    """What an order has in memory is what lies ahead of its frontier, and a constant."""
    monkeypatch.setattr("mpiabc.line._MANY", 10)
    most = []
    message = Line.tell

    def tell(self, records):
        is_new = message(self, records)
        held = sum(len(part.rejected) for part in self._records)
        ahead = sum(len(part.rejected) for part in self._early)
        most.append((held, ahead))
        return is_new

    monkeypatch.setattr(Line, "tell", tell)
    history = run("noise", tmp_path / "run.db", Simulated(5, random_time))
    assert sum(population.evaluations for population in history) > 200
    assert max(held for held, _ in most) == 0
    assert 0 < max(ahead for _, ahead in most) < 60


def test_simulators_may_only_compare_with_epsilon(tmp_path):
    plainly = digest(run("epsilon", tmp_path / "run.db", "serial", simulate=bent, lookahead=None))
    assert len(plainly) == 3
    with pytest.raises(mpiabc.ProblemError, match="may only compare with epsilon"):
        run("epsilon", tmp_path / "run.db", Simulated(25, random_time), simulate=bent)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("all kept", {"simulate": early}, 'keep="all" and a simulator that takes epsilon'),
        ("predictor", {"kernel": foreign.Student()}, "would have to be fitted again"),
    ],
    ids=["all kept", "kernel of one's own"],
)
def test_what_would_depend_on_time_is_refused(kind, options, message):
    of_problem, of_sampler = KINDS[kind]
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal(0, 2)),
        options.get("simulate", plain),
        OBSERVED,
        **of_problem,
    )
    kernel = options.get("kernel")
    with pytest.raises(mpiabc.ProblemError, match=message):
        mpiabc.ABCSMC(problem, 20, lookahead=True, kernel=kernel, **of_sampler)


@pytest.mark.parametrize("kind", ["scale", "predictor"])
def test_replay_measures_by_the_distance_of_the_ids_level(kind, tmp_path, capsys):
    history = run(kind, tmp_path / "run.db", Simulated(5, random_time))
    assert main(["replay", str(tmp_path / "run.db"), str(history[-1].ids[-1]), "--trust"]) == 0
    assert "equal, bit for bit" in capsys.readouterr().out
