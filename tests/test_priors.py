"""Priors of any kind: names, distributions of several parameters, new ones of SciPy's, constraints."""

import math
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.fingerprint import fingerprint
from mpiabc.priors import constraint
from mpiabc.problem import described
from mpiabc.streams import stream_key
from tests import problems
from tests.cluster import Simulated, random_time

HAS_NEW = hasattr(stats, "Normal")
needs_new = pytest.mark.skipif(not HAS_NEW, reason="SciPy has its new distributions from 1.15 on")
POINTS = np.random.default_rng(1).normal(1.0, 0.5, (2, 40))
COUNTS = np.histogram([1.0, 1.2, 2.0, 2.1, 2.2, 3.9], bins=4)

PRIORS = {  # with the mean and the standard deviation of each parameter
    "several normal": (
        {("a", "b"): stats.multivariate_normal([0, 2], [[1, 0.9], [0.9, 4]])},
        ([0, 2], [1, 2]),
    ),
    "density estimate": (
        {("a", "b"): stats.gaussian_kde(POINTS)},
        (POINTS.mean(axis=1), np.sqrt(POINTS.var(axis=1) + np.diag(stats.gaussian_kde(POINTS).covariance))),
    ),
    "estimate of one": (
        {"a": stats.gaussian_kde(POINTS[0])},
        (POINTS[0].mean(), np.sqrt(POINTS[0].var() + stats.gaussian_kde(POINTS[0]).covariance[0, 0])),
    ),
    "shares": (
        {("a", "b", "c"): stats.dirichlet([2, 3, 4])},
        (stats.dirichlet([2, 3, 4]).mean(), np.sqrt(stats.dirichlet([2, 3, 4]).var())),
    ),
    "histogram": (
        {"a": stats.rv_histogram(COUNTS)},
        (stats.rv_histogram(COUNTS).mean(), stats.rv_histogram(COUNTS).std()),
    ),
    "table": ({"k": stats.rv_discrete(values=([1, 2, 5], [0.2, 0.5, 0.3]))}, (2.7, math.sqrt(2.41))),
    "several kinds": (
        {"k": stats.binom(6, 0.5), ("a", "b"): stats.multivariate_normal([0, 0]), "u": mpiabc.Uniform(0, 1)},
        ([3, 0, 0, 0.5], [math.sqrt(1.5), 1, 1, math.sqrt(1 / 12)]),
    ),
}
if HAS_NEW:
    _normal, _part = stats.Normal(mu=1.0, sigma=2.0), stats.truncate(stats.Normal(mu=0.0, sigma=1.0), lb=0.0)
    _two = stats.Mixture(
        [stats.Normal(mu=-1.0, sigma=0.5), stats.Normal(mu=1.0, sigma=0.5)], weights=[0.5, 0.5]
    )
    PRIORS["new ones"] = (
        {"a": _normal, "b": _part, "c": _two},
        ([1, math.sqrt(2 / math.pi), 0], [2, math.sqrt(1 - 2 / math.pi), math.sqrt(1.25)]),
    )


def nothing(theta, rng):
    return np.zeros(len(next(iter(theta.values()))))


def listed(problem, thresholds=(3, 2, 1), n=3000, **options):
    return mpiabc.ABCSMC(problem, n, seed=1, threshold=mpiabc.Listed(thresholds), **options)


@pytest.mark.parametrize("name", PRIORS)
def test_where_all_is_accepted_the_posterior_is_the_prior(name, tmp_path):
    """After moves of a kernel, too, which only right densities and masses bring about."""
    prior, (mean, deviation) = PRIORS[name]
    problem = mpiabc.Problem(prior, nothing, 0.0, vectorized=True)
    last = listed(problem, n=1500).run(tmp_path / "run.db", scheduler="serial")[-1]
    n = last.ess / 2  # Kish's is up to twice the true one
    assert np.all(np.abs(last.mean() - mean) < 4 * np.array(deviation) / np.sqrt(n))
    assert np.allclose(last.std(), deviation, rtol=5 / np.sqrt(n))


# Names.


def test_a_dict_may_have_any_names_and_theta_is_asked_with_them(tmp_path):
    def simulate(theta, rng):
        return theta[1] + theta["k d/dt"] + theta["where"] + rng.standard_normal()

    prior = {1: mpiabc.Normal(0, 1), "k d/dt": mpiabc.Normal(0, 1), "where": mpiabc.Uniform(0, 1)}
    history = listed(mpiabc.Problem(prior, simulate, 0.0), n=30).run(tmp_path / "run.db", scheduler="serial")
    assert history[-1].names == ("1", "k d/dt", "where")
    assert history[-1].mean()["1"] == history[-1].mean()[0]
    assert history.settings["names"] == ["1", "k d/dt", "where"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: mpiabc.Prior({}), "the prior is empty"),
        (lambda: mpiabc.Prior(stats.norm(0, 1)), "give distributions by name"),
        (lambda: mpiabc.Prior({1: stats.norm(), "1": stats.norm()}), "'1' is there twice"),
        (
            lambda: mpiabc.Prior({("a", "b"): stats.dirichlet([1, 1]), "a": stats.norm()}),
            "'a' is there twice",
        ),
        (lambda: mpiabc.Prior({2.5: stats.norm()}), "2.5 of a parameter is float: give text or integers"),
        (
            lambda: mpiabc.Prior(a=stats.norm(), where=stats.norm()),
            "a parameter of the name goes into a dict",
        ),
        (lambda: mpiabc.Prior(g=stats.gamma(-1)), r"'g' has gamma\(-1\): its arguments are outside"),
        (lambda: mpiabc.Prior(s=stats.norm(0, -1)), r"'s' has norm\(0, -1\): its arguments are outside"),
        (lambda: mpiabc.Prior(s=stats.uniform(0, scale=-1)), r"'s' has uniform\(0, scale=-1\): its arg"),
        (lambda: mpiabc.Prior(k=stats.randint(5, 3)), r"'k' has randint\(5, 3\): its arguments are outside"),
        (lambda: mpiabc.Prior(s=stats.gamma([1, 2])), "'s' has.*that is 2 distributions, expected one"),
        (
            lambda: mpiabc.Prior(s=stats.multivariate_normal([0, 0])),
            "'s' has.*a name for each of its numbers",
        ),
        (lambda: mpiabc.Prior(s=stats.gaussian_kde(POINTS)), "'s' has a density of 2 numbers"),
        (
            lambda: mpiabc.Prior({("a", "b"): stats.norm()}),
            "'a', 'b' are 2, and rv_continuous gives 1 numbers",
        ),
        (
            lambda: mpiabc.Prior({("a", "b"): stats.dirichlet([1, 2, 3])}),
            "'a', 'b' are 2, and dirichlet gives 3",
        ),
        (
            lambda: mpiabc.Prior({("a", "b"): stats.multinomial(3, [0.5, 0.5])}),
            "continuous distribution of 2",
        ),
        (lambda: mpiabc.Prior({("a", "b"): stats.multivariate_normal}), "freeze it by a call"),
        (
            lambda: mpiabc.Prior({("a", "b"): stats.uniform_direction(2)}),
            "expected a continuous|on a surface",
        ),
        (
            lambda: mpiabc.Prior({("a", "b"): stats.multivariate_normal([0, 0], np.ones((2, 2)), True)}),
            "'a', 'b' have a singular covariance",
        ),
    ],
)
def test_what_is_wrong_with_a_prior_is_said_with_its_parameter(make, said):
    with pytest.raises(mpiabc.ProblemError, match=said):
        make()


@needs_new
def test_domains_of_new_distributions_are_looked_at_too():
    with pytest.raises(mpiabc.ProblemError, match=r"'s' has.*its arguments are outside"):
        mpiabc.Prior(s=stats.Normal(mu=0.0, sigma=-1.0))


@pytest.mark.parametrize("name", PRIORS)
def test_priors_are_described_alike_before_and_after_use_and_where_they_arrive(name):
    prior = mpiabc.Prior(PRIORS[name][0])
    said, values = described(prior), fingerprint(prior=prior).values
    assert " at 0x" not in said
    prior.logpdf(prior.sample(4, np.random.default_rng(1)))
    arrived = cloudpickle.loads(cloudpickle.dumps(prior))
    draws = prior.sample(30, np.random.default_rng(2))
    assert arrived.sample(30, np.random.default_rng(2)).tobytes() == draws.tobytes()
    assert arrived.logpdf(draws).tobytes() == prior.logpdf(draws).tobytes()
    for found in (prior, arrived):
        assert described(found) == said
        assert fingerprint(prior=found).values == values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        [{"a": stats.rv_histogram(np.histogram(x, bins=2))} for x in ([1, 2, 3], [1, 2, 4])],
        [{("a", "b"): stats.dirichlet(x)} for x in ([1, 2], [1, 3])],
        [{("a", "b"): stats.multivariate_normal(x)} for x in ([1, 2], [1, 3])],
        [{"a": stats.gaussian_kde(x)} for x in ([1, 2], [1, 3])],
        [{"a": stats.rv_discrete(values=([1, x], [0.5, 0.5]))} for x in (2, 3)],
        [{"a": mpiabc.Choice([1, x])} for x in (2, 3)],
        [{"a": mpiabc.Integer(1, x)} for x in (2, 3)],
    ],
)
def test_priors_are_distinguished(one, other):
    one, other = mpiabc.Prior(one), mpiabc.Prior(other)
    assert described(one) != described(other)
    assert fingerprint(prior=one).values != fingerprint(prior=other).values


def test_priors_of_older_files_are_what_they_were():
    """Their pickles have no layout."""
    prior = mpiabc.Prior(a=stats.gamma(2), b=mpiabc.Uniform(0, 1), c=mpiabc.Normal(0, 1))
    old = mpiabc.Prior.__new__(mpiabc.Prior)
    old.__setstate__({"names": prior.names, "marginals": prior.marginals})
    draws = prior.sample(20, np.random.default_rng(1))
    assert old.sample(20, np.random.default_rng(1)).tobytes() == draws.tobytes()
    assert old.logpdf(draws).tobytes() == prior.logpdf(draws).tobytes()
    assert old.layout.is_free


# Constraints.


def noisy(theta, rng):
    return {"y": theta["a"] + rng.standard_normal(np.shape(theta["a"]))}


def half_normal(where=lambda theta: theta["a"] > 0):
    """a ~ N(0, 1) with a > 0, y ~ N(a, 1)."""
    return mpiabc.Problem(mpiabc.Prior(a=stats.norm(0, 1), where=where), noisy, {"y": 0.5}, vectorized=True)


def exact(epsilon, observed=0.5):
    """Evidence, mean of a."""
    a = np.linspace(0, 10, 20001)
    inside = stats.norm.cdf(observed + epsilon - a) - stats.norm.cdf(observed - epsilon - a)
    density = 2 * stats.norm.pdf(a) * inside
    evidence = np.trapezoid(density, a)
    return evidence, np.trapezoid(a * density, a) / evidence


@pytest.mark.parametrize(
    "options",
    [{}, {"recycle": True}, {"kernel": mpiabc.Gaussian(defensive=0.3)}],
    ids=["plain", "recycled", "defensive"],
)
def test_where_narrows_and_never_rescales(options, tmp_path):
    options = {"kernel": mpiabc.Gaussian(scale=1.0)} | options
    last = listed(half_normal(), (3, 1, 0.5), 4000, **options).run(tmp_path / "run.db", scheduler="serial")[
        -1
    ]
    evidence, mean = exact(0.5)
    assert abs(np.exp(last.log_evidence) / evidence - 1) < 0.06  # three standard errors; without c it is 0.5
    assert abs(last.mean()["a"] - mean) < 4 * last.std()["a"] / np.sqrt(last.ess / 2)
    assert last["a"].min() > 0


class Rescaled(mpiabc.Prior):
    """A mutant: the density is that of what where leaves, and what is drawn is not."""

    def logpdf(self, theta):
        return super().logpdf(theta) + np.log(2)


def test_a_prior_that_is_rescaled_is_noticed(tmp_path):
    prior = Rescaled(a=stats.norm(0, 1), where=lambda theta: theta["a"] > 0)
    problem = mpiabc.Problem(prior, noisy, {"y": 0.5}, vectorized=True)
    last = listed(problem, (3, 1, 0.5), 1000).run(tmp_path / "run.db", scheduler="serial")[-1]
    assert np.exp(last.log_evidence) / exact(0.5)[0] > 1.5


def test_what_violates_where_is_an_id_and_never_simulated(tmp_path):
    def simulate(theta, rng):
        assert theta["a"] < theta["b"]
        return {"y": theta["a"] + theta["b"] + rng.standard_normal()}

    prior = mpiabc.Prior(a=mpiabc.Uniform(0, 1), b=mpiabc.Uniform(0, 1), where=lambda t: t["a"] < t["b"])
    problem = mpiabc.Problem(prior, simulate, {"y": 1.0})
    history = listed(problem, (3, 1), 100).run(tmp_path / "run.db", scheduler="serial")
    share = history[0].simulations / history[0].evaluations
    assert abs(share - 0.5) < 0.15
    assert history.settings["share of the prior inside where"] == pytest.approx(0.5, abs=0.003)


def by_row(theta):
    return theta["a"] > 0 and math.sqrt(theta["a"]) < 5  # both are for numbers only


def test_where_is_asked_row_by_row_if_it_is_not_for_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(constraint, "_DRAWS", 20_000)
    by_array = listed(half_normal(), n=50).run(tmp_path / "a.db", scheduler="serial")
    rows = listed(half_normal(by_row), n=50).run(tmp_path / "b.db", scheduler="serial")
    assert problems.digests(by_array) == problems.digests(rows)
    assert by_array[-1].log_evidence == rows[-1].log_evidence


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (lambda theta: theta["b"] > 0, r"where of the prior raised KeyError: 'b', for a=-?\d"),
        (lambda theta: theta["a"], r"where of the prior gave -?[\d.]+, expected True or False, for a="),
        (lambda theta: theta["a"] > 50, "none of 20000 draws of the prior satisfies where"),
    ],
)
def test_constraints_that_cannot_be_are_reported_before_any_work(where, said, tmp_path, monkeypatch):
    monkeypatch.setattr(constraint, "_DRAWS", 20_000)
    with pytest.raises(mpiabc.ProblemError, match=said):
        listed(half_normal(where)).run(tmp_path / "run.db", scheduler="serial")
    assert not (tmp_path / "run.db").exists()


def test_share_is_estimated_once_and_only_where_there_is_a_constraint(tmp_path, monkeypatch):
    asked = []

    def share(prior, key):
        asked.append(key)
        return 0.25

    monkeypatch.setattr("mpiabc.sampler.share_inside", share)
    quiet = listed(half_normal(), (3, 1), 50).run(tmp_path / "run.db", scheduler="serial", generations=1)
    longer = listed(half_normal(), (3, 1), 50).run(tmp_path / "run.db", scheduler="serial")
    assert asked == [stream_key(1)]
    assert longer[0].log_evidence == quiet[0].log_evidence
    problems.sampler(n=20).run(tmp_path / "other.db", scheduler="serial")
    assert len(asked) == 1
    assert "share of the prior inside where" not in mpiabc.open(tmp_path / "other.db").settings


def test_share_is_a_function_of_the_seed_alone():
    prior = mpiabc.Prior(a=mpiabc.Uniform(0, 1), where=lambda theta: theta["a"] < 0.3)
    one, two, other = (constraint.share_inside(prior, stream_key(seed)) for seed in (1, 1, 2))
    assert one == two != other
    assert abs(one - 0.3) < 0.002
    assert constraint.share_inside(mpiabc.Prior(a=mpiabc.Uniform(0, 1)), (1, 2)) == 1.0


def test_another_constraint_is_another_problem(tmp_path):
    bound = [0.0]
    listed(half_normal(lambda t: t["a"] > bound[0]), (3, 1), 50).run(
        tmp_path / "run.db", scheduler="serial", generations=1
    )
    bound = [0.1]
    with pytest.raises(mpiabc.StoreError, match="where"):
        listed(half_normal(lambda t: t["a"] > bound[0]), (3, 1), 50).run(
            tmp_path / "run.db", scheduler="serial"
        )
    with pytest.raises(mpiabc.StoreError, match="the code of"):
        listed(half_normal(lambda t: t["a"] >= 0), (3, 1), 50).run(tmp_path / "run.db", scheduler="serial")


def test_narrowed_runs_are_the_same_on_any_schedule(tmp_path, monkeypatch):
    monkeypatch.setattr(constraint, "_DRAWS", 20_000)
    runs = [
        listed(half_normal(), (3, 1, 0.5), 60, recycle=True).run(tmp_path / f"{i}.db", scheduler=place)
        for i, place in enumerate(["serial", Simulated(5, random_time)])
    ]
    assert problems.digests(runs[0]) == problems.digests(runs[1])
    assert [p.log_evidence for p in runs[0]] == [p.log_evidence for p in runs[1]]


def several(**options):
    """The half normal beside k ~ Choice(0, 1, 4), n ~ Integer(0, 1): y ~ N(k + n, 1)."""

    def simulate(theta, rng):
        assert theta["k"].dtype.kind == theta["n"].dtype.kind == "i"
        return {"y": theta["k"] + theta["n"] + rng.standard_normal(len(theta["k"]))}

    prior = mpiabc.Prior(k=mpiabc.Choice([0, 1, 4]), n=mpiabc.Integer(0, 1))
    discrete = mpiabc.Problem(prior, simulate, {"y": 0.5}, vectorized=True, name="discrete")
    real = replace(half_normal(), name="half normal")
    return listed([real, discrete], (3, 1, 0.5), **options)


@pytest.mark.parametrize("recycle", [False, True], ids=["anew", "recycled"])
def test_a_constrained_model_beside_a_discrete_one_is_as_probable_as_it_is(recycle, tmp_path):
    """Without the constraint's share the first has half of its weight: .43 for .60."""
    history = several(n=2500, recycle=recycle).run(tmp_path / "run.db", scheduler="serial")
    means = np.add.outer([0, 1, 4], [0, 1]).ravel()
    for population, epsilon in zip(history, (3, 1, 0.5), strict=True):
        inside = stats.norm.cdf(0.5 + epsilon - means) - stats.norm.cdf(0.5 - epsilon - means)
        evidence = np.array([exact(epsilon)[0], inside.mean()])
        expected = evidence / evidence.sum()
        error = np.sqrt(expected.prod() / (population.ess / 2))
        assert abs(population.model_probabilities()[0] - expected[0]) < 4 * error
        assert abs(np.exp(population.log_evidence) / evidence.mean() - 1) < 0.08


def test_models_of_any_priors_are_the_same_on_any_schedule_and_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(constraint, "_DRAWS", 20_000)
    quiet = problems.digests(several(n=80, recycle=True).run(tmp_path / "a.db", scheduler="serial"))
    wild = several(n=80, recycle=True).run(tmp_path / "b.db", scheduler=Simulated(5, random_time))
    several(n=80, recycle=True).run(tmp_path / "c.db", scheduler="serial", simulations=700)
    again = several(n=80, recycle=True).run(tmp_path / "c.db", scheduler="serial")
    assert problems.digests(wild) == quiet == problems.digests(again)


def test_a_distribution_of_matrices_is_no_prior():
    with pytest.raises(mpiabc.ProblemError, match="whose logpdf takes no rows of 4 numbers"):
        mpiabc.Prior({("a", "b", "c", "d"): stats.wishart(3, np.eye(2))})
