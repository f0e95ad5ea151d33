"""Posteriors: densities of what simulations say, nearer to the truth than the simulations."""

import pickle
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.analysis import adjust, smooth
from mpiabc.analysis.posterior import fit
from mpiabc.analysis.support import support_of
from mpiabc.analysis.weighted import Weighted
from mpiabc.schedulers import Serial
from tests.posteriors import TARGETS, edge, gaussian


def simulate(theta, rng):
    """Two statistics of two parameters, one of nothing, and one that is constant."""
    noise = 0.2 * rng.standard_normal((3, len(theta["a"])))
    return {"s": np.column_stack([theta["a"], theta["b"], 0 * theta["a"]]) + noise.T, "c": 1 + 0 * theta["a"]}


OBSERVED = {"s": np.array([0.05, 0.3, 0.0]), "c": 1.0}


def in_order(theta):
    """A constraint."""
    return theta["a"] < theta["b"]


def problem(where=None, simulate=simulate, **prior):
    prior = prior or {"a": mpiabc.Uniform(0, 1), "b": stats.norm(0.5, 0.5)}
    return mpiabc.Problem(mpiabc.Prior(prior, where=where), simulate, OBSERVED, vectorized=True)


def run(path, problem=None, size=100, generations=3, **options):
    problem = globals()["problem"]() if problem is None else problem
    abc = mpiabc.ABCSMC(problem, size, seed=1, **options)
    return abc.run(path, generations=generations, scheduler=Serial(), progress=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.db"
    run(path)
    return path


@pytest.fixture(scope="module")
def posterior(path):
    return mpiabc.open(path).posterior()


def test_a_population_has_a_density_in_the_file_alone(posterior):
    theta = posterior.sample(500, np.random.default_rng(0))
    assert posterior.names == ("a", "b")
    assert theta.shape == (500, 2)
    assert np.isfinite(posterior.logpdf(theta)).all()
    assert posterior.logpdf([[-0.01, 0.3], [1.01, 0.3]]).tolist() == [-np.inf, -np.inf]
    assert posterior.logpdf(theta[0]) == posterior.logpdf(theta)[0]
    assert abs(posterior.mean()["b"] - theta[:, 1].mean()) < 0.05
    assert posterior.quantile([0.1, 0.9]).shape == (2, 2)
    assert posterior.method in repr(posterior)
    assert np.isfinite(posterior.score)
    assert posterior.score == max(posterior.scores.values())


def test_the_density_integrates_to_one(posterior):
    a, b = np.meshgrid(np.linspace(0, 1, 201)[:-1] + 0.0025, np.linspace(-3, 4, 401))
    density = np.exp(posterior.logpdf(np.column_stack([a.ravel(), b.ravel()])))
    assert density.sum() * 0.005 * 7 / 400 == pytest.approx(1, abs=0.01)


def test_equal_seeds_give_equal_posteriors_and_every_generation_has_one(path, posterior):
    history = mpiabc.open(path)
    assert history.posterior(seed=0).digest() == posterior.digest()
    assert history.posterior(0, seed=0).digest() != posterior.digest()


def test_a_posterior_is_the_prior_of_the_next_study(posterior, tmp_path):
    prior = mpiabc.Prior(posterior)
    theta = prior.sample(100, np.random.default_rng(0))
    assert prior.names == ("a", "b")
    assert prior.is_normalised
    assert np.array_equal(prior.logpdf(theta), posterior.logpdf(theta))
    for travelled in (pickle.loads(pickle.dumps(prior)), cloudpickle.loads(cloudpickle.dumps(prior))):
        assert np.array_equal(travelled.logpdf(theta), prior.logpdf(theta))
    first = run(tmp_path / "run.db", of_prior(posterior), size=60, generations=1)
    _ = posterior.mean()  # what has been computed of it makes it no other one
    second = run(tmp_path / "run.db", of_prior(pickle.loads(pickle.dumps(posterior))), size=60, generations=2)
    assert second[0].digest() == first[0].digest()
    other = replace(posterior, log_mass=posterior.log_mass - 0.1)
    with pytest.raises(mpiabc.StoreError, match="prior"):
        run(tmp_path / "run.db", of_prior(other), size=60, generations=3)


def of_prior(posterior):
    return mpiabc.Problem(mpiabc.Prior(posterior), simulate, OBSERVED, vectorized=True)


def test_a_posterior_stays_within_a_constraint(tmp_path):
    narrowed = problem(in_order)
    history = run(tmp_path / "run.db", narrowed)
    posterior = history.posterior()
    theta = posterior.sample(300, np.random.default_rng(0))
    assert (theta[:, 0] < theta[:, 1]).all()
    assert posterior.logpdf([[0.5, 0.4]])[0] == -np.inf
    alone = mpiabc.open(tmp_path / "run.db")
    with pytest.raises(mpiabc.ProblemError, match=r"give history.posterior\(problem=problem\)"):
        alone.posterior()
    assert alone.posterior(problem=narrowed).digest() == posterior.digest()
    with pytest.raises(mpiabc.ProblemError, match="give the problem that was run"):
        alone.posterior(problem=problem())


def test_of_several_models_one_is_asked_for(tmp_path):
    def wider(theta, rng):
        return simulate({"a": theta["x"], "b": theta["x"]}, rng)

    models = [
        replace_name(problem(), "one"),
        mpiabc.Problem(mpiabc.Prior(x=mpiabc.Uniform(0, 1)), wider, OBSERVED, vectorized=True, name="other"),
    ]
    history = run(tmp_path / "run.db", models, size=200, generations=2)
    with pytest.raises(mpiabc.ProblemError, match="of several models"):
        history.posterior()
    alone = mpiabc.open(tmp_path / "run.db")
    assert history.posterior(problem="other").names == ("x",)
    assert alone.posterior(problem=0).digest() == history.posterior(problem=models[0]).digest()


def replace_name(problem, name):
    return mpiabc.Problem(problem.prior, problem.simulate, problem.observed, vectorized=True, name=name)


def test_discrete_parameters_keep_their_values_and_it_is_said(tmp_path):
    def counted(theta, rng):
        return simulate({"a": theta["n"] / 10, "b": theta["b"]}, rng)

    mixed = problem(simulate=counted, n=mpiabc.Integer(0, 10), b=stats.norm(0.5, 0.5))
    history = run(tmp_path / "run.db", mixed)
    posterior = mpiabc.open(tmp_path / "run.db").posterior()
    theta = posterior.sample(300, np.random.default_rng(0))
    assert "n is discrete" in posterior.method
    assert set(theta[:, 0]) <= set(history[-1].theta[:, 0])
    grid = np.array([[n, b] for n in range(11) for b in np.linspace(-3, 4, 701)])
    assert np.exp(posterior.logpdf(grid)).sum() * 0.01 == pytest.approx(1, abs=0.01)
    assert mpiabc.Prior(posterior).layout.integers == (0,)


def test_choices_alone_are_a_table(tmp_path):
    def one(theta, rng):
        at = 0.0 if theta["c"] == "x" else 1.0
        return {"s": np.array([at, 0.3, 0]) + rng.standard_normal(3), "c": 1.0}

    problem = mpiabc.Problem(mpiabc.Prior(c=mpiabc.Choice(["x", "y"])), one, OBSERVED)
    posterior = run(tmp_path / "run.db", problem).posterior()
    assert "c is discrete" in posterior.method
    assert "not smoothed" in posterior.method
    assert np.exp(posterior.logpdf([[0.0], [1.0]])).sum() == pytest.approx(1)
    assert mpiabc.Prior(posterior).layout.choices[0].values == ("x", "y")


def test_without_statistics_it_is_smoothed_only(tmp_path):
    assert "no statistics were kept" in run(tmp_path / "run.db", keep="theta").posterior().method


def test_under_noise_nothing_is_moved_to_the_observed_data(tmp_path):
    def one(theta, rng):
        return {"s": np.array([theta["a"], theta["b"], 0.0]), "c": 1.0}

    problem = mpiabc.Problem(mpiabc.Prior(a=mpiabc.Uniform(0, 1), b=stats.norm(0.5, 0.5)), one, OBSERVED)
    noise = mpiabc.Noise(mpiabc.noise.Normal(sd=0.3), steps=2)
    assert "noise" in run(tmp_path / "run.db", problem, acceptor=noise).posterior().method


# Whatever comes.


def weighted(n=300, d=2, k=3, seed=0, size=None, bounded=True, **values):
    """Simulations whose first statistics are the parameters with noise."""
    rng = np.random.default_rng(seed)
    marginal = mpiabc.Uniform(-3, 3) if bounded else mpiabc.Normal(0, 1)
    prior = mpiabc.Prior({f"p{i}": marginal for i in range(d)})
    theta = prior.sample(n, rng)
    s = rng.standard_normal((n, k))
    s[:, : min(d, k)] += 2 * theta[:, : min(d, k)]
    made = Weighted(prior.names, theta, np.zeros(n), np.abs(s).max(axis=1), s, np.zeros(k), prior, size or n)
    return replace(made, **values)


ODD = {
    "five": weighted(5),
    "more statistics than simulations": weighted(60, k=100),
    "very many statistics": weighted(150, k=1000),
    "one parameter": weighted(100, d=1, k=1),
    "thirty parameters": weighted(150, d=30, k=30),
    "one weight": weighted(log_weights=np.where(np.arange(300) == 7, 0.0, -700.0)),
    "two distances": weighted(distances=np.random.default_rng(0).random((300, 2)) * [1, 1000]),
    "holes": weighted(
        summaries=np.where(np.random.default_rng(1).random((300, 3)) < 0.2, np.nan, weighted().summaries)
    ),
    "a hole in the observed data": weighted(observed=np.array([0.0, np.nan, 0.0])),
    "constant statistics": weighted(summaries=np.ones((300, 3))),
    "equal distances": weighted(distances=np.zeros(300)),
    "infinite distances": weighted(distances=np.where(np.arange(300) % 2, np.inf, weighted().distances)),
    "all distances infinite": weighted(distances=np.full(300, np.inf)),
    "distances below zero": weighted(distances=-weighted().distances),
    "weights of zero": weighted(log_weights=np.where(np.arange(300) % 2, -np.inf, 0.0)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ODD)
def test_whatever_comes_has_a_density(name):
    posterior = fit(ODD[name])
    theta = posterior.sample(50, np.random.default_rng(0))
    assert np.isfinite(posterior.logpdf(theta)).all()
    assert np.isfinite(posterior.mean()).all()


def test_one_value_has_no_density():
    with pytest.raises(mpiabc.ProblemError, match="one value of 'p0'"):
        fit(weighted(theta=np.ones((300, 2))))
    with pytest.raises(mpiabc.ProblemError, match="no simulation has a weight"):
        fit(weighted(log_weights=np.full(300, -np.inf)))


def test_of_pooled_simulations_the_near_ones_count():
    far = weighted(5000, size=30)
    near = np.argsort(far.distances, kind="stable")[:400]
    few = replace(
        far, **{n: getattr(far, n)[near] for n in ("theta", "log_weights", "distances", "summaries")}
    )
    assert fit(far).digest() == fit(few).digest()


# Nearer to the truth.


@pytest.mark.parametrize("name", TARGETS)
def test_a_posterior_is_nearer_to_the_truth_than_its_population(name):
    target = TARGETS[name]
    found = fit(target.population(1))
    population = fit(replace(target.population(1), unadjusted="asked for"))
    assert target.divergence(found) < (1.05 if name == "two modes" else 0.8) * target.divergence(population)


def test_at_an_edge_densities_are_normalised_by_the_mass_inside(monkeypatch):
    """Held-out simulations are as probable as they should be; without the mass, adjusted ones are not."""
    target = edge(d=1, at=0.0)
    weighted = target.population(2)
    sd = 0.2
    at = weighted.summaries[:, 0]
    exact = stats.truncnorm.logpdf(weighted.theta[:, 0], -at / sd, (1 - at) / sd, at, sd)
    taper = 1 - np.square(weighted.distances / weighted.distances.max())
    expected = np.average(exact, weights=taper)
    right = fit(weighted).scores["linear, raw, window 0"]
    monkeypatch.setattr(adjust, "_log_mass", lambda theta, held, support: np.zeros(len(held.weights)))
    wrong = fit(weighted).scores["linear, raw, window 0"]
    assert abs(right - expected) < 0.05
    assert wrong < expected - 0.08


def test_every_simulation_that_is_held_out_has_draws_of_its_own(monkeypatch):
    """They say how much of its density lies inside: if all had the same, errors would stay in the mean."""
    log_mass, drawn = adjust._log_mass, []

    def seen(theta, held, support):
        drawn.append(theta)
        return log_mass(theta, held, support)

    monkeypatch.setattr(adjust, "_log_mass", seen)
    fit(edge(d=1).population(2, 100))
    assert drawn
    assert all(len(np.unique(theta)) == len(theta) for theta in drawn)


def test_ways_to_smooth_are_compared_by_all_points_that_are_held_out():
    """One point is outside: the part that holds it out knows of no other, and asks of fewer ways."""
    theta = np.random.default_rng(0).standard_normal((200, 2))
    equal = np.full(200, 1 / 200)
    points = smooth.Points(theta, np.empty((200, 0)), equal, np.arange(200) > 0)
    everywhere = support_of(TARGETS["gaussian"].prior)
    pool, score = smooth.chosen(points, everywhere, np.random.default_rng(0))
    assert [kernels.with_outside for kernels in pool] == [False]
    assert score == pytest.approx(-stats.multivariate_normal(np.zeros(2)).entropy(), abs=0.2)


def test_at_an_edge_a_density_without_the_mass_inside_would_not_integrate_to_one(monkeypatch):
    monkeypatch.setattr(smooth, "chosen", lambda *_: ({smooth.Kernels(False, False, 1.0): 1.0}, 0.0))
    posterior = fit(edge(d=1, at=0.0).population(2))
    grid = np.linspace(0, 1, 2001)[:-1, None] + 0.00025
    assert np.exp(posterior.logpdf(grid)).mean() == pytest.approx(1, abs=0.005)
    assert np.exp(replace(posterior, log_mass=0.0).logpdf(grid)).mean() < 0.96


@pytest.mark.long
def test_at_an_edge_a_pool_is_nearer_to_the_truth_than_what_it_is_made_of(monkeypatch):
    """Than either, and than what held-out points prefer; of draws of the exact posterior."""
    target, chosen = TARGETS["edge"], smooth.chosen

    def off(pick):
        def picked(*given):
            pool, score = chosen(*given)
            return pick(pool), score

        monkeypatch.setattr(smooth, "chosen", picked)
        return np.mean([target.divergence(fit(exactly(target, seed))) for seed in range(30)])

    members = [
        off(lambda pool: {min(pool, key=lambda kernels: kernels.is_free): 1.0}),
        off(lambda pool: {max(pool, key=lambda kernels: kernels.is_free): 1.0}),
        off(lambda pool: {max(pool, key=pool.get): 1.0}),
    ]
    assert off(dict) < 0.95 * min(members)


def exactly(target, seed, size=150):
    """A population that is of the exact posterior."""
    theta = target.draws(size, np.random.default_rng(seed))
    return replace(target.population(seed, size), theta=theta, unadjusted="it is exact")


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.02, 0.99)])
def test_draws_of_a_pool_have_its_density_and_that_integrates_to_one(monkeypatch, shares):
    ways = smooth.Kernels(False, False, 1.4), smooth.Kernels(True, False, 0.12)
    monkeypatch.setattr(smooth, "chosen", lambda *_: (dict(zip(ways, shares, strict=True)), 0.0))
    posterior = fit(exactly(edge(d=1, at=0.0), 1))
    grid = np.linspace(0, 1, 20_001)[:-1, None] + 0.000025
    below = np.cumsum(np.exp(posterior.logpdf(grid))) / len(grid)
    assert below[-1] == pytest.approx(1, abs=0.005)
    theta = np.sort(posterior.sample(40_000, np.random.default_rng(0))[:, 0])
    of_draws = np.searchsorted(theta, grid[:, 0]) / len(theta)
    assert np.abs(of_draws - below / below[-1]).max() < 0.01
    assert posterior.mean()[0] == pytest.approx(theta.mean(), abs=0.005)


def test_shares_of_a_pool_do_not_depend_on_units():
    """Nor do the kernels: small numbers are only small beside others."""
    theta = np.random.default_rng(0).standard_normal((300, 15))
    found = []
    for scale in (1.0, 1e30):
        prior = mpiabc.Prior({f"m{i}": mpiabc.Normal(0, scale) for i in range(15)})
        found.append(fit(weighted(theta=scale * theta, prior=prior, unadjusted="as asked")))
    assert found[0].method == found[1].method
    assert found[0].score - found[1].score == pytest.approx(15 * np.log(1e30))


def test_a_density_that_hardly_reaches_the_support_says_so(monkeypatch):
    monkeypatch.setattr(smooth, "chosen", lambda *_: ({smooth.Kernels(False, False, 1.0): 1.0}, 0.0))
    monkeypatch.setattr("mpiabc.analysis.posterior._evenly", lambda *_: np.full((4, 1), 2.0))
    with pytest.raises(mpiabc.ProblemError, match="none of 32768 draws"):
        fit(exactly(edge(d=1), 1))


def test_weights_enter_the_regression(monkeypatch):
    """Simulations of another density than the prior's: only weights say what the prior is."""
    target = gaussian(1)
    shifted = mpiabc.Prior(m0=mpiabc.Normal(1.5, 1))
    weighted = target.population(3, weigh=shifted, share=0.5)
    right, wrong = fit(weighted), fit(replace(weighted, log_weights=np.zeros(400)))
    assert target.divergence(right) < 0.05 < target.divergence(wrong)
