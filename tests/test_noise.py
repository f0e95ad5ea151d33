"""Noise models: exact at temperature 1, in closed form and by enumeration; and the wrong ways are noticed."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import acceptors, noise, schedulers
from mpiabc.acceptors import Tempered, Uniforms
from mpiabc.cli import main
from mpiabc.order import Order, kept, restored
from mpiabc.streams import stream_key
from mpiabc.structure import Structure
from mpiabc.temperatures import cooled
from tests import problems
from tests.cluster import Simulated, random_time
from tests.programs import digests

STEPS = 3


def ran(path, model, problem, n=1000, seed=1, scheduler="serial", recycle=None, **options):
    rules = {"generations": options.pop("generations")} if "generations" in options else {"epsilon": 1.0}
    options = {"steps": STEPS} | options
    abc = mpiabc.ABCSMC(problem, n, acceptor=mpiabc.Noise(model, **options), seed=seed, recycle=recycle)
    return abc.run(path, scheduler=scheduler, **rules)


# The conjugate target: mu ~ N(0, 2^2), s ~ N(mu, .1^2), y = 1 is N(s, 1).


def near(theta, rng):
    return {"y": theta["mu"] + 0.1 * rng.standard_normal(theta["mu"].shape)}


CONJUGATE = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), near, {"y": 1.0}, vectorized=True)
VARIANCE = 1 / (1 / 4 + 1 / 1.01)
MEAN = VARIANCE / 1.01
EVIDENCE = stats.norm.logpdf(1.0, 0, math.sqrt(4 + 1.01))


def unit(simulated, observed):
    """The same density as a function of data; what it is at most is a guess."""
    return -0.5 * (simulated["y"] - observed["y"]) ** 2 - 0.5 * math.log(2 * math.pi)


def errors(population):
    """Of mean and variance, in Monte-Carlo standard errors; of the log evidence."""
    mean, variance = population.mean()["mu"], population.std()["mu"] ** 2
    scale = math.sqrt(population.ess)
    return (
        abs(mean - MEAN) / math.sqrt(VARIANCE) * scale,
        abs(variance / VARIANCE - 1) / math.sqrt(2) * scale,
        abs(population.log_evidence - EVIDENCE),
    )


CASES = {  # c known; a guess; a guess that is far too small, so that most of what is accepted has more weight
    "known": (noise.Normal(sd=1), {}),
    "guessed": (unit, {}),
    "too small": (noise.Normal(sd=1), {"log_maximum": -3.0}),
    "recycled": (noise.Normal(sd=1), {"recycle": True}),
    "in one step": (noise.Normal(sd=1), {"steps": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_posterior_is_exact_at_temperature_1(case, tmp_path):
    """Kish's effective sample size is up to twice the true one: four errors of twice the size."""
    model, options = CASES[case]
    history = ran(tmp_path / "run.db", model, CONJUGATE, **options)
    mean, variance, evidence = errors(history[-1])
    assert mean < 4
    assert variance < 4
    assert evidence < 0.15


def test_a_missing_acceptance_weight_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(Tempered, "log_weights", lambda self, rows, epsilon: np.zeros(len(rows)))
    model, options = CASES["too small"]
    assert errors(ran(tmp_path / "run.db", model, CONJUGATE, **options)[-1])[1] > 6


def test_evidence_without_the_maximum_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(Tempered, "log_constant", lambda self, epsilon: 0.0)
    assert errors(ran(tmp_path / "run.db", noise.Normal(sd=1), CONJUGATE)[-1])[2] > 0.5


def test_at_a_temperature_the_density_is_that_power_of_it(tmp_path):
    """N(0, 1)^(1/T) is N(0, T): conjugate with that variance."""
    history = ran(tmp_path / "run.db", noise.Normal(sd=1), CONJUGATE, generations=2, steps=20, rate=0.8)
    population = history[-1]
    temperature = population.epsilon
    assert temperature > 1.5
    variance = 1 / (1 / 4 + 1 / (0.01 + temperature))
    assert population.std()["mu"] ** 2 == pytest.approx(variance, rel=4 * math.sqrt(2 / population.ess))
    constant = 0.5 * (1 - 1 / temperature) * math.log(2 * math.pi) + 0.5 * math.log(temperature)
    exact = stats.norm.logpdf(1.0, 0, math.sqrt(4.01 + temperature)) + constant
    assert population.log_evidence == pytest.approx(exact, abs=0.15)


# Noise whose parameter is inferred, too.


SPREAD = np.array([1.2, -0.7, 2.1])


def nothing(theta):
    return {"y": np.zeros(3)}


def of_theta(simulated, observed, theta):
    return stats.norm.logpdf(observed["y"], simulated["y"], theta["sd"]).sum()


UNKNOWN = {
    "named": noise.Normal(sd="sd"),
    "function of theta": noise.Normal(sd=lambda theta: theta["sd"]),
    "density of theta": of_theta,
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_deviation_is_inferred_exactly(case, tmp_path):
    """sd ~ LogUniform(1, 5), data are N(0, sd^2): by a grid."""
    problem = mpiabc.Problem(mpiabc.Prior(sd=mpiabc.LogUniform(1, 5)), nothing, {"y": SPREAD})
    history = ran(tmp_path / "run.db", UNKNOWN[case], problem, n=300)
    sd = np.geomspace(1, 5, 2001)
    weights = np.exp(stats.norm.logpdf(SPREAD[:, None], 0, sd).sum(axis=0))
    evidence, weights = math.log(weights.mean()), weights / weights.sum()
    population = history[-1]
    mean = weights @ sd
    deviation = math.sqrt(weights @ (sd - mean) ** 2)
    assert population.mean()["sd"] == pytest.approx(mean, abs=4 * deviation / math.sqrt(population.ess))
    assert population.log_evidence == pytest.approx(evidence, abs=0.25)
    assert history.settings["acceptor"].startswith("Noise(model=")


def test_the_named_parameter_and_its_function_are_one_model(tmp_path):
    """The maximum is known of one, a guess of the other; given it, all is the same, bit for bit."""
    problem = mpiabc.Problem(mpiabc.Prior(sd=mpiabc.LogUniform(1, 5)), nothing, {"y": SPREAD})
    log_c = noise.Normal(sd="sd").log_maximum(SPREAD, {"sd": (1.0, 5.0)})
    assert log_c == pytest.approx(stats.norm.logpdf(np.zeros(3), 0, 1).sum())
    one = ran(tmp_path / "a.db", UNKNOWN["named"], problem, n=60)
    other = ran(tmp_path / "b.db", UNKNOWN["function of theta"], problem, n=60, log_maximum=log_c)
    assert problems.digests(one) == problems.digests(other)


# Counts, by enumeration.


def counted(theta, rng):
    return {"k": rng.binomial(10, theta["p"])}


COUNTS = {
    "Poisson": (noise.Poisson(), lambda s: stats.poisson.pmf(4, s)),
    "binomial": (noise.Binomial(p=0.6), lambda s: stats.binom.pmf(4, s, 0.6)),
    "negative binomial": (noise.NegativeBinomial(2.0), lambda s: stats.nbinom.pmf(4, 2, 2 / (2 + s))),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts_are_exact_by_enumeration(case, tmp_path):
    """p ~ U(0, 1): s is uniform on 0, ..., 10, and p is Beta(s + 1, 11 - s) given s."""
    model, pmf = COUNTS[case]
    problem = mpiabc.Problem(mpiabc.Prior(p=mpiabc.Uniform(0, 1)), counted, {"k": 4})
    population = ran(tmp_path / "run.db", model, problem, n=400)[-1]
    s = np.arange(11)
    exact = pmf(s) / pmf(s).sum()
    found = np.bincount(population.summaries[:, 0].astype(int), population.weights, minlength=11)
    assert np.max(np.abs(found - exact) / np.sqrt((exact * (1 - exact) + 1e-4) / population.ess)) < 4
    assert population.mean()["p"] == pytest.approx(
        exact @ (s + 1) / 12, abs=4 * 0.25 / math.sqrt(population.ess)
    )
    assert population.log_evidence == pytest.approx(math.log(pmf(s).mean()), abs=0.25)


# Densities and their maxima.


ROWS = np.array([[3.0, 7.0, 1.0], [5.0, 5.0, 0.0], [12.0, 9.0, 4.0]])
SEEN = np.array([4.0, 7.0, 0.0])
DENSITIES = {
    "normal": (noise.Normal(sd=1.5), stats.norm.logpdf(SEEN, ROWS, 1.5)),
    "normal, each": (noise.Normal(sd=[1.0, 2.0, 3.0]), stats.norm.logpdf(SEEN, ROWS, [1, 2, 3])),
    "laplace": (noise.Laplace(scale=2), stats.laplace.logpdf(SEEN, ROWS, 2)),
    "poisson": (noise.Poisson(), stats.poisson.logpmf(SEEN, ROWS)),
    "binomial": (noise.Binomial(p=0.3), stats.binom.logpmf(SEEN, ROWS, 0.3)),
    "negative binomial": (noise.NegativeBinomial(3), stats.nbinom.logpmf(SEEN, 3, 3 / (3 + ROWS))),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_log_densities_are_scipys(name):
    model, expected = DENSITIES[name]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(model.log_densities(ROWS, SEEN, {}), expected.sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("name", DENSITIES)
def test_maximum_is_the_largest_over_all_that_can_be_simulated(name):
    model, _ = DENSITIES[name]
    for i, y in enumerate(SEEN):
        one = model if name != "normal, each" else noise.Normal(sd=[1.0, 2.0, 3.0][i])
        seen = np.array([y])
        with np.errstate(all="ignore"):
            found = one.log_densities(np.arange(0.0, 200.0)[:, None], seen, {})
        assert mpiabc.Noise(one).log_c(seen, {}) == pytest.approx(np.nanmax(found), rel=1e-12, abs=1e-12)


def test_density_of_counts_that_cannot_be_is_nan_or_nothing():
    with np.errstate(all="ignore"):
        assert math.isnan(noise.Poisson().log_densities(np.array([[-1.0]]), np.array([2.0]), {})[0])
        assert noise.Poisson().log_densities(np.array([[0.0]]), np.array([2.0]), {})[0] == -math.inf
        assert math.isnan(noise.Binomial(0.5).log_densities(np.array([[2.5]]), np.array([2.0]), {})[0])
        assert noise.Binomial(0.5).log_densities(np.array([[1.0]]), np.array([2.0]), {})[0] == -math.inf


def test_maximum_is_known_where_the_priors_support_says_it():
    seen = np.array([2.0, 3.0])
    bounds = {"sd": (0.5, 2.0), "k": (0.0, math.inf), "any": None}
    assert noise.Laplace("sd").log_maximum(seen, bounds) == pytest.approx(0.0)
    assert noise.Laplace("k").log_maximum(seen, bounds) is None
    assert noise.Normal("any").log_maximum(seen, bounds) is None
    assert noise.Normal(lambda theta: 1.0).log_maximum(seen, bounds) is None
    bound = noise.NegativeBinomial("k").log_maximum(seen, bounds)
    assert bound == noise.Poisson().log_maximum(seen, bounds)
    for k in (0.1, 1.0, 100.0):
        assert noise.NegativeBinomial(k).log_maximum(seen, bounds) < bound


# Temperatures.


def temperatures(history):
    return [population.epsilon for population in history]


def test_temperatures_fall_and_are_exactly_1_from_the_last_step_on(tmp_path):
    history = ran(tmp_path / "run.db", noise.Normal(sd=0.05), CONJUGATE, n=100, steps=4, generations=7)
    found = temperatures(history)
    assert found[0] == math.inf
    assert all(later <= earlier for earlier, later in pairwise(found))
    assert found[3] > 1.0
    assert found[4:] == [1.0, 1.0, 1.0]
    assert np.all(np.isfinite(found[1:]))


def test_temperatures_begin_where_the_target_rate_of_the_priors_sample_is_accepted(tmp_path):
    history = ran(tmp_path / "run.db", noise.Normal(sd=0.05), CONJUGATE, n=100, generations=1)
    rows = history[0]
    log_p = -rows.distances - noise.Normal(sd=0.05).log_maximum(np.array([1.0]), {})
    acceptor, scheduled = cooled(
        mpiabc.Noise(noise.Normal(sd=0.05), steps=4),
        Tempered(noise.Normal(sd=0.05).log_maximum(np.array([1.0]), {}), True),
        rows,
        0.0,
        lambda index: np.full(len(index), -50.0),  # as if the next proposal had left: nothing asks for less
    )
    assert np.mean(np.exp(log_p / acceptor.first)) == pytest.approx(0.3)
    assert scheduled == acceptor.first**0.75


def test_temperature_falls_sooner_where_more_than_the_target_rate_is_accepted(tmp_path):
    history = ran(tmp_path / "run.db", noise.Normal(sd=0.3), CONJUGATE, n=300, steps=50)
    assert len(history) < 20
    rates = [p.acceptance_rate for p in list(history)[1:-1]]
    assert all(0.2 < rate < 0.45 for rate in rates)


def test_what_is_accepted_at_a_temperature_is_accepted_at_every_higher_one():
    rows = problems.population(
        np.zeros((500, 1)), np.full(500, 0.002), np.linspace(0, 20, 500), np.zeros((500, 1))
    )
    uniform = Uniforms(stream_key(1))
    accepted = [Tempered(0.0, True).accept(rows, t, uniform) for t in (1.0, 3.0, 10.0, math.inf)]
    for colder, warmer in pairwise(accepted):
        assert not np.any(colder & ~warmer)
        assert colder.sum() < warmer.sum()
    assert accepted[-1].all()


def test_acceptance_is_the_share_that_the_density_says():
    n = 4000
    rows = problems.population(np.zeros((n, 1)), np.full(n, 1 / n), np.full(n, 1.5), np.zeros((n, 1)))
    share = Tempered(-0.5, True).accept(rows, 2.0, Uniforms(stream_key(1))).mean()
    assert share == pytest.approx(math.exp(-0.5), abs=4 * 0.5 / math.sqrt(n))


def test_guess_is_the_largest_density_that_was_seen(tmp_path):
    history = ran(tmp_path / "run.db", unit, CONJUGATE, n=50)
    largest = -math.inf
    for t, population in enumerate(history):
        if t:
            order = restored(*history.order(t), history[t - 1])
            assert order["acceptor"].log_c == largest
            assert not order["acceptor"].is_sure
        largest = max(largest, float((-population.distances).max()))


# The same on any schedule.


@pytest.mark.long
def test_digest_is_that_of_any_schedule(tmp_path, monkeypatch):
    """Serial, shuffled with losses and doubts, processes; MPI, Redis and Dask: `tests.programs.digests`."""

    def run(name, scheduler):
        return problems.digests(digests.noisy().run(tmp_path / name, generations=3, scheduler=scheduler))

    expected = run("serial.db", "serial")
    assert run("a.db", Simulated(7, random_time, loss=0.1, duplicate=0.1, doubt=0.02)) == expected
    assert run("b.db", schedulers.Processes(2)) == expected
    rng = np.random.default_rng(1)
    monkeypatch.setattr(Uniforms, "__call__", lambda self, rows: rng.random(len(rows)))
    assert run("c.db", Simulated(7, random_time)) != expected


def test_static_digest_is_that_of_any_number_of_workers(tmp_path):
    one, other = (
        digests.noisy().run(
            tmp_path / f"{n}.db", generations=3, scheduler=Simulated(n, random_time, is_static=True)
        )
        for n in (1, 5)
    )
    assert problems.digests(one) == problems.digests(other)


@pytest.mark.parametrize("recycle", [None, True])
def test_run_that_goes_on_inside_a_generation_is_the_uninterrupted_one(recycle, tmp_path):
    def run(name, **rules):
        options = {"acceptor": mpiabc.Noise(noise.Normal(sd=0.5), steps=2)} if recycle else {}
        return digests.noisy(recycle=recycle, **options).run(tmp_path / name, scheduler="serial", **rules)

    expected = problems.digests(run("quiet.db", generations=4))
    for simulations in (70, 120, 170):
        assert run("run.db", simulations=simulations).reason == "simulations"
    assert problems.digests(run("run.db", generations=4)) == expected


def test_order_that_the_file_has_lost_is_decided_again(tmp_path):
    expected = problems.digests(digests.noisy().run(tmp_path / "quiet.db", scheduler="serial", generations=4))
    digests.noisy().run(tmp_path / "run.db", scheduler="serial", generations=3)
    with mpiabc.store.Store(tmp_path / "run.db") as file, file.transaction() as db:
        db.execute("DELETE FROM orders")
    assert (
        problems.digests(digests.noisy().run(tmp_path / "run.db", scheduler="serial", generations=4))
        == expected
    )


def test_acceptor_is_kept_as_json():
    order = Order(3, (1, 2), 1.5, None, 40, acceptor=Tempered(-2.5, True, 7.0))
    assert restored(*kept(order, None), None)["acceptor"] == Tempered(-2.5, True, 7.0)


def test_other_noise_is_another_run(tmp_path):
    ran(tmp_path / "run.db", noise.Normal(sd=1), CONJUGATE, n=50, generations=1)
    for model, options in ((noise.Normal(sd=2), {}), (noise.Normal(sd=1), {"steps": 4})):
        with pytest.raises(mpiabc.StoreError, match=r"other settings .*Noise\(model=Normal\(sd=1\), steps=3"):
            ran(tmp_path / "run.db", model, CONJUGATE, n=50, **options)
    with pytest.raises(mpiabc.StoreError, match="other settings"):
        mpiabc.ABCSMC(CONJUGATE, 50, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")


def test_replay_says_what_became_of_an_evaluation(tmp_path, capsys):
    history = digests.noisy().run(tmp_path / "run.db", generations=3, scheduler="serial")
    id = int(history[2].ids[5])
    assert main(["replay", str(history.path), f"2:{id}", "--trust"]) == 0
    said = capsys.readouterr().out
    assert "equal, bit for bit" in said
    assert "accepted" in said
    other = next(i for i in range(history[2].evaluations) if i not in history[2].ids)
    assert main(["replay", str(history.path), f"2:{other}", "--trust"]) == 0
    assert "rejected" in capsys.readouterr().out


# What does not go.


def rejects(theta, rng):
    return {"y": theta["mu"]} if theta["mu"] > 0 else mpiabc.REJECT


def looks_at_epsilon(theta, rng, *, epsilon):
    return {"y": theta["mu"]}


REFUSED = {
    "threshold": ({"threshold": mpiabc.Quantile()}, {}, r"acceptor=Noise\(...\) with threshold=Quantile"),
    "distance": ({}, {"distance": mpiabc.PNorm(1)}, r"acceptor=Noise\(...\) with distance=PNorm"),
    "epsilon": ({}, {"simulate": looks_at_epsilon}, "a simulator that takes epsilon"),
    "no data": ({}, {"observed": None}, "a problem without observed data"),
    "recycle": (
        {"recycle": True, "acceptor": mpiabc.Noise(unit)},
        {},
        "recycle=True with acceptor=.* a guess",
    ),
    "no noise": ({"acceptor": noise.Normal(1)}, {}, r"give mpiabc.Noise\(model\)"),
    "no parameter": ({"acceptor": mpiabc.Noise(noise.Normal("sigma"))}, {}, "names 'sigma', .* are mu"),
    "no counts": (
        {"acceptor": mpiabc.Noise(noise.Poisson())},
        {"observed": {"y": 1.5}},
        "1.5.* whole numbers",
    ),
    "other data": (
        {"acceptor": mpiabc.Noise(noise.Normal([1.0, 2.0, 3.0]))},
        {"observed": {"y": np.zeros(2)}},
        "one for each in the structure",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_noise_is_refused_in_a_sentence(case):
    of_sampler, of_problem, sentence = REFUSED[case]
    of_problem = {"simulate": near, "observed": {"y": 1.0}} | of_problem
    of_sampler = {"acceptor": mpiabc.Noise(noise.Normal(1))} | of_sampler
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        mpiabc.ABCSMC(mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), **of_problem), 50, **of_sampler)


@pytest.mark.parametrize("on_error", ["raise", "reject"])
def test_simulator_that_rejects_ends_the_run(on_error, tmp_path):
    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), rejects, {"y": 1.0}, on_error=on_error)
    with pytest.raises(mpiabc.ProblemError, match=r"mpiabc.REJECT, or None, with acceptor=Noise"):
        ran(tmp_path / "run.db", noise.Normal(sd=1), problem, n=50)


def test_run_without_an_end_is_refused_and_so_is_an_epsilon_that_stalls(tmp_path):
    abc = mpiabc.ABCSMC(CONJUGATE, 50, acceptor=mpiabc.Noise(noise.Normal(1)), seed=1)
    with pytest.raises(mpiabc.ProblemError, match=r"no end.*epsilon=1"):
        abc.run(tmp_path / "run.db", scheduler="serial")
    with pytest.raises(mpiabc.ProblemError, match=r"min_epsilon_change=0.1 with acceptor=Noise"):
        abc.run(tmp_path / "run.db", scheduler="serial", min_epsilon_change=0.1)


def test_data_that_no_noise_explains_are_reported(tmp_path):
    problem = mpiabc.Problem(mpiabc.Prior(p=mpiabc.Uniform(0, 1)), counted, {"k": 40})
    with pytest.raises(mpiabc.ProblemError, match="density of the observed data is 0"):
        ran(tmp_path / "run.db", noise.Binomial(0.5), problem, n=50)


@pytest.mark.parametrize(
    "make",
    [
        lambda: mpiabc.Noise(3),
        lambda: mpiabc.Noise(noise.Normal),
        lambda: mpiabc.Noise(noise.Normal(1), steps=0),
        lambda: mpiabc.Noise(noise.Normal(1), rate=1),
        lambda: mpiabc.Noise(noise.Normal(1), log_maximum=math.inf),
        lambda: noise.Normal(0),
        lambda: noise.Binomial(1.5),
        lambda: noise.Laplace([1.0, -1.0]),
    ],
)
def test_noise_that_is_none_is_refused(make):
    with pytest.raises(mpiabc.ProblemError, match=r"Noise\(|noise\."):
        make()


def test_acceptors_of_before_weigh_nothing():
    assert acceptors.log_weights(acceptors.Within(), None, 1.0) is None
    assert acceptors.log_constant(acceptors.Within(), 1.0) == 0.0
    assert Structure(SPREAD).size == 3


def test_density_that_is_no_number_fails_as_one(tmp_path):
    with pytest.raises(mpiabc.SimulatorError, match=r"log density of the observed data, .* is no number"):
        ran(tmp_path / "run.db", lambda simulated, observed: math.nan, problems.problem(), n=50)
