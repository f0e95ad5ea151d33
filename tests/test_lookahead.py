"""Coupled proposals have the law of plain ones, and looking ahead changes nothing."""

import itertools
import shutil
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import records, store
from mpiabc.cli import main
from mpiabc.driver import opened
from mpiabc.evaluate import Evaluator
from mpiabc.kernels import coupling
from mpiabc.kernels.coupling import Coupled
from mpiabc.kernels.mixture import GaussianMixture
from mpiabc.schedulers import Processes
from mpiabc.settled import Settler
from mpiabc.store import journal, writer
from mpiabc.streams import Purpose, Stream, stream_key
from tests import problems
from tests.cluster import Cluster, Simulated, random_time

KEY = stream_key(3)
ALL = np.arange(256)
WIDE = mpiabc.Prior(x=mpiabc.Normal(0, 2), y=mpiabc.Normal(0, 2))


def mixture(scale, seed, shift=0.0):
    """One that a kernel might have fitted."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((60, 2)) * scale + [1 - scale / 2, 1 + shift]
    weights = rng.random(60)
    return GaussianMixture(centres, weights / weights.sum(), scale * np.eye(2))


STEPS = (None, mixture(1.5, 1), mixture(1.1, 2), mixture(0.9, 3))


def coupled(steps=STEPS, prior=WIDE, before=None):
    return Coupled(KEY, prior, 0, steps, before)


def drawn(prior=WIDE):
    stream = Stream(KEY, Purpose.PROPOSAL)

    def draw(number):
        theta = prior.sample(256, stream.at(0, number))
        return theta, prior.logpdf(theta)

    return draw


def carried(steps=STEPS, blocks=10, prior=WIDE):
    """theta (n, d) and the level at which it was born (n,) of many ids, at the last step."""
    chain = coupled(steps, prior)
    found = [chain.block(number, ALL, drawn(prior)) for number in range(blocks)]
    return np.concatenate([b.theta for b in found]), np.concatenate([b.born for b in found])


def worst(theta, proposal):
    """The least p-value of a few projections against draws of the proposal."""
    own = proposal.sample(20_000, np.random.default_rng(0))
    ways = ([1, 0], [0, 1], [1, 1], [1, -1])
    return min(stats.ks_2samp(theta @ way, own @ way).pvalue for way in np.array(ways, float))


# Coupled proposals.


@pytest.mark.parametrize(
    "prior",
    [WIDE, mpiabc.Prior(x=mpiabc.Normal(0, 2), y=mpiabc.Normal(0, 2), where=lambda t: t["x"] + t["y"] > -1)],
    ids=["wide", "constrained"],
)
def test_what_chains_carry_is_a_draw_of_each_proposal(prior):
    for n in range(1, len(STEPS)):
        theta, _ = carried(STEPS[: n + 1], prior=prior)
        assert worst(theta, STEPS[n]) > 1e-3


def test_as_many_ids_keep_their_proposal_as_can():
    """Their share is 1 - TV, which an average over draws of the first says."""
    first, second = STEPS[2:]
    _, born = carried()
    _, before = carried(STEPS[:3])
    x = first.sample(40_000, np.random.default_rng(1))
    most = np.minimum(1, np.exp(second.logpdf(x) - first.logpdf(x))).mean()
    assert abs((born < 3).mean() - most) < 4 * np.sqrt(most * (1 - most) / len(born))
    assert (born[born < 3] == before[born < 3]).all()


def test_equal_proposals_keep_all_and_disjoint_ones_nothing():
    one, far = mixture(1.0, 1), mixture(1.0, 1, shift=1000)
    assert (carried((None, one, one), 1)[1] < 2).all()
    assert (carried((None, one, far), 1)[1] == 2).all()


def test_an_id_has_the_same_bits_alone_backwards_and_from_the_level_before():
    whole = coupled().block(3, ALL, drawn())
    stepwise = coupled(STEPS[:2])
    for row in ALL[::-1]:
        stepwise.block(3, np.array([row]), drawn())
    stepwise = coupled(before=stepwise)
    for row in ALL[::7]:
        found = stepwise.block(3, np.array([row]), drawn()).take(np.array([row]))
        for column in ("theta", "log_prior", "log_q", "born"):
            assert np.array_equal(getattr(found, column)[0], getattr(whole, column)[row])


def test_records_are_the_same_with_neighbours_and_without(monkeypatch, tmp_path):
    """A worker that has most of the ids carries many at a time, one that has few does not."""
    jobs, begin = [], Cluster.begin
    monkeypatch.setattr(Cluster, "begin", lambda self, job: (jobs.append(job), begin(self, job))[1])
    run(tmp_path, Simulated(1, random_time))
    problem, asked = problems.problem(), []
    block = Coupled.block
    monkeypatch.setattr(
        Coupled, "block", lambda self, *how: (asked.append(len(how[1])), block(self, *how))[1]
    )
    evaluator = Evaluator(problem, jobs[-1])
    together = [evaluator(id, id + 1) for id in range(80)]
    assert max(asked) > 20
    asked.clear()
    for id in (0, 40, 79):
        alone = Evaluator(problem, jobs[-1])(id, id + 1)
        one, other = (records.pack(replace(found, seconds=0.0)) for found in (alone, together[id]))
        assert one == other
    assert max(asked) == 1


@pytest.mark.parametrize("wrong", ["redraws from all", "densities are not normalised"])
def test_wrong_couplings_are_noticed(wrong, monkeypatch):
    density, judged = coupling.log_density, Coupled._judged

    def all_taken(self, *candidates):
        log_q, is_taken = judged(self, *candidates)
        return log_q, np.ones_like(is_taken)

    def too_large(q, theta, log_prior):
        return density(q, theta, log_prior) + (1.0 if q is STEPS[-1] else 0.0)

    if wrong == "redraws from all":
        monkeypatch.setattr(Coupled, "_judged", all_taken)
    else:
        monkeypatch.setattr(coupling, "log_density", too_large)
    assert worst(carried()[0], STEPS[-1]) < 1e-6


def test_densities_that_are_far_from_normalised_end_in_a_sentence(monkeypatch):
    density = coupling.log_density
    monkeypatch.setattr(coupling, "_MOST", 1000)
    monkeypatch.setattr(
        coupling, "log_density", lambda q, x, p: density(q, x, p) - (9.0 if q is STEPS[1] else 0)
    )
    with pytest.raises(mpiabc.ProblemError, match="densities of the kernel or the prior are not normalised"):
        carried(STEPS[:2], 1)


# Runs.


def correlated_time(evaluator, id, rng):
    """What lies far up takes long."""
    theta = evaluator.block_with(id).theta[id % 256]
    return float(np.exp(theta[0] / 2))


def anticorrelated_time(evaluator, id, rng):
    """What is near takes longest."""
    theta = evaluator.block_with(id).theta[id % 256]
    return float(np.exp(-((theta[0] - 1) ** 2)) + 0.1 * rng.lognormal())


def sampler(n=20, **options):
    of_problem = {name: options.pop(name) for name in ("simulate", "on_error") if name in options}
    options = {"threshold": mpiabc.Quantile(0.5), "seed": 1, "lookahead": True} | options
    return mpiabc.ABCSMC(problems.problem(**of_problem), options.pop("population_size", n), **options)


def run(folder, scheduler, generations=3, overwrite=False, **options):
    path = folder / "run.db"
    return sampler(**options).run(path, generations=generations, scheduler=scheduler, overwrite=overwrite)


@pytest.fixture(autouse=True)
def few_ahead(monkeypatch):
    """So that little is begun in vain, which takes this process time."""
    monkeypatch.setattr(opened, "_AHEAD", 5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Digests where nobody looks ahead, as one worker has nothing to wait for."""
    return {
        recycles: problems.digests(
            run(tmp_path_factory.mktemp("alone"), Simulated(1, random_time), recycle=recycles)
        )
        for recycles in (None, True)
    }


@pytest.mark.parametrize("recycles", [None, True])
@pytest.mark.parametrize(
    ("workers", "faults", "run_time"),
    [
        (2, {}, random_time),
        (7, {"loss": 0.1, "duplicate": 0.2, "seed": 1}, random_time),
        (20, {}, correlated_time),
        (20, {"doubt": 0.03, "seed": 2}, random_time),
        (48, {}, anticorrelated_time),
    ],
)
def test_no_speculation_and_all_that_there_is_time_for_have_the_same_digest(
    workers, faults, run_time, recycles, alone, tmp_path
):
    history = run(tmp_path, Simulated(workers, run_time, **faults), recycle=recycles)
    assert problems.digests(history) == alone[recycles]


def test_speculation_can_be_left_out_and_hundreds_may_speculate(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "_AHEAD", 1)
    assert problems.digests(run(tmp_path, Simulated(200, random_time), 2)) == alone[None][:2]
    monkeypatch.setattr(opened, "_AHEAD", 0)
    (tmp_path / "none").mkdir()
    assert problems.digests(run(tmp_path / "none", Simulated(20, random_time))) == alone[None]


class Copied(Simulated):
    """Copies the run's file now and then, as a kill would leave it."""

    def __init__(self, store, every):
        super().__init__(20, random_time)
        self.store, self.every, self.copies = store, every, []

    def open(self, problem):
        cluster = super().open(problem)
        poll, polls = cluster.poll, itertools.count(1)

        def polled(timeout):
            if next(polls) % self.every == 0:
                self.copies.append(self.store.with_name(f"{len(self.copies)}.db"))
                shutil.copy(self.store, self.copies[-1])
            return poll(timeout)

        cluster.poll = polled
        return cluster


@pytest.fixture
def quick_journal(monkeypatch):
    """One that writes whatever has come home, at once."""
    monkeypatch.setattr(journal, "DOUBT", 0.0)
    monkeypatch.setattr(
        writer, "Journal", lambda store: journal.Journal(store, 0.0, itertools.count().__next__)
    )


def journaled(path):
    """The levels of the records that a file has for the generation that is open, and which that is."""
    history = mpiabc.open(path)
    with store.Store(path) as file:
        return {records.unpack(buffer).job for buffer in file.noted(len(history))}, len(history)


@pytest.mark.long
@pytest.mark.parametrize("recycles", [None, True])
def test_runs_go_on_from_what_was_begun_early(recycles, alone, quick_journal, tmp_path):
    scheduler = Copied(tmp_path / "run.db", 60)
    run(tmp_path, scheduler, recycle=recycles)
    found = [journaled(path) for path in scheduler.copies]
    assert any(min(levels, default=t) < t for levels, t in found)
    for i, path in enumerate(scheduler.copies):
        one = sampler(recycle=recycles).run(path, generations=3, scheduler=Simulated(1 + 3 * i, random_time))
        assert problems.digests(one) == alone[recycles]


def test_what_lies_beyond_the_last_cut_is_not_simulated_again(alone, quick_journal, tmp_path):
    """Of a run that goes on, with three generations after it had ended with two."""
    simulated = Counter()

    def simulate(theta, rng, *, id):
        simulated[id] += 1
        return problems.gaussian(theta, rng)

    run(tmp_path, Simulated(20, random_time), 2, simulate=simulate)
    levels, t = journaled(tmp_path / "run.db")
    assert (levels, t) == ({0, 1}, 2)
    known = set(simulated)
    simulated.clear()
    history = run(tmp_path, Simulated(20, random_time), 3, simulate=simulate)
    assert problems.digests(history) == alone[None]
    assert not known & set(simulated)


def test_what_an_id_has_kept_is_simulated_once_and_levels_change_at_the_cut(tmp_path):
    simulated = Counter()

    def simulate(theta, rng, *, id):
        simulated[id] += 1
        return problems.gaussian(theta, rng)

    history = run(tmp_path, Simulated(20, random_time), simulate=simulate)
    first = 0, 0  # was simulated twice, to see whether the simulator has random numbers of its own
    assert {id for id, times in simulated.items() if times > 1} <= {first}
    assert len({id for _, id in simulated}) < len(simulated)  # void ones have gone out again
    cut = 0
    for population in history:
        assert population.first == cut
        cut += population.evaluations
        assert population.ids[-1] == cut - 1
        assert (population.level == population.generation).all()


def test_generations_that_need_nothing_new_leave_the_line_as_it_is(tmp_path):
    """All that the second one takes has survived, and the third one goes on where the first one ended."""
    options = {"recycle": True, "population_size": [30, 5, 30], "threshold": mpiabc.Listed([3, 2.9, 2])}
    found = []
    for workers in (1, 25):
        history = run(tmp_path, Simulated(workers, random_time), overwrite=True, **options)
        found.append(problems.digests(history))
        assert history[1].evaluations == 0
        assert history[2].first == history[0].evaluations
    assert found[0] == found[1]


def test_failures_count_where_their_id_and_level_are_decided(tmp_path):
    def simulate(theta, rng, *, id):
        if theta["mu"] > 1.5:
            raise RuntimeError("the pump broke")
        return problems.gaussian(theta, rng)

    options = {"simulate": simulate, "on_error": "reject"}
    found = []
    for workers in (1, 15):
        (tmp_path / str(workers)).mkdir()
        history = run(tmp_path / str(workers), Simulated(workers, random_time), **options)
        failures = [(f.generation, f.index, f.theta) for f in history.failures]
        found.append((problems.digests(history), failures, [p.failures for p in history]))
    assert found[0] == found[1]
    assert found[0][1]
    messages = []
    for workers in (1, 15):
        with pytest.raises(mpiabc.SimulatorError) as error:
            run(tmp_path, Simulated(workers, random_time), simulate=simulate)
        messages.append(str(error.value).partition(" failed on ")[0])
    assert messages[0] == messages[1]


def test_simulators_know_the_address_of_their_numbers(tmp_path):
    """Level and id, as `replay` finds them; a proposal that was kept has the level at which it was born."""
    seen = {}

    def simulate(theta, rng, *, id):
        seen[id] = dict(theta)
        return problems.gaussian(theta, rng)

    history = run(tmp_path, Simulated(15, random_time), simulate=simulate)
    kept = 0
    for population in history:
        for i, theta in zip(population.ids.tolist(), population.theta, strict=True):
            (born,) = [level for level, id in seen if id == i and seen[level, id]["mu"] == theta[0]]
            kept += born < population.generation
    assert kept


@pytest.mark.long
def test_processes_look_ahead_too(alone, tmp_path):
    def simulate(theta, rng):
        data = problems.gaussian(theta, rng)
        time.sleep(0.005 + rng.exponential(0.005))
        return data

    assert problems.digests(run(tmp_path, Processes(3), simulate=simulate)) == alone[None]
    assert problems.digests(run(tmp_path, "serial", simulate=simulate, overwrite=True)) == alone[None]


def weights_of(history):
    """Of each population: prior over its own level's proposal, as both are fitted anew."""
    kernel, prior = mpiabc.Gaussian(), problems.problem().prior
    for t, population in enumerate(history):
        own = kernel.fit(history[t - 1]).logpdf(population.theta) if t else prior.logpdf(population.theta)
        log_weights = prior.logpdf(population.theta) - own
        weights = np.exp(log_weights - log_weights.max())
        yield population.weights, weights / weights.sum()


def test_what_was_begun_early_weighs_what_it_is_at_its_level(tmp_path, monkeypatch):
    for weights, own in weights_of(run(tmp_path, Simulated(15, random_time))):
        assert np.allclose(weights, own, rtol=1e-9)

    def as_begun(self, rows, at):
        return rows

    monkeypatch.setattr(Settler, "_weighed", as_begun)
    wrong = weights_of(run(tmp_path, Simulated(15, random_time), overwrite=True))
    assert not all(np.allclose(weights, own, rtol=1e-3) for weights, own in wrong)


def test_what_was_begun_early_is_accepted_by_the_epsilon_of_its_level(tmp_path):
    history = run(tmp_path, Simulated(15, random_time))
    assert all((p.distances <= p.epsilon).all() for p in history)


def test_replay_knows_the_level_of_an_id_and_what_had_gone_before(tmp_path, capsys):
    history = run(tmp_path, Simulated(5, random_time))
    last = history[-1]
    assert main(["replay", str(tmp_path / "run.db"), str(last.ids[3]), "--trust"]) == 0
    assert repr(float(last.theta[3, 0])) in capsys.readouterr().out
