"""Streams, priors, kernels, distances, thresholds: each against its definition."""

import json
import math
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

import mpiabc
from mpiabc.evaluate import Level, evaluate
from mpiabc.kernels.gaussian import chosen_scale
from mpiabc.kernels.mixture import GaussianMixture
from mpiabc.population import effective_sample_size, weighted_quantile
from mpiabc.records import pack
from mpiabc.schedulers.together import Backoff
from mpiabc.stopping import seconds
from mpiabc.store import Store
from mpiabc.store.schema import crc_of
from mpiabc.streams import BLOCK, Purpose, Stream, stream_key
from tests import problems


def population(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.random(n)
    theta = rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    return replace(
        problems.population(theta, weights / weights.sum(), rng.random(n), np.zeros((n, 1))),
        evaluations=2 * n,
        simulations=2 * n,
        dispatched=2 * n,
    )


def test_stream_depends_on_its_address_alone():
    one, other = (Stream(stream_key(5), Purpose.SIMULATION) for _ in range(2))
    other.at(1, 2).standard_normal(7)
    other.at(3, 4).integers(0, 10, 3, dtype=np.int32)  # leaves half a word behind
    for t, i in [(0, 0), (0, 1), (1, 0), (3, 4), (2**40, 2**62)]:
        assert one.at(t, i).random(5).tolist() == other.at(t, i).random(5).tolist()


def test_streams_of_other_addresses_purposes_and_seeds_differ():
    addresses = [(s, p, t, i) for s in (0, 1, 2**100) for p in Purpose for t in (0, 1) for i in (0, 1, 256)]
    first = {Stream(stream_key(s), p).at(t, i).random() for s, p, t, i in addresses}
    assert len(first) == len(addresses)


def cases(vectorized):
    options = {"simulate": problems.gaussian_vectorized, "vectorized": True} if vectorized else {}
    problem = problems.problem(**options)
    parents = population(40, 1)
    for proposal in (problem.prior, mpiabc.Gaussian().fit(parents), mpiabc.LocalGaussian().fit(parents)):
        yield problem, Level(3, stream_key(1), 1.0, proposal, 40)


@pytest.mark.parametrize("vectorized", [False, True])
def test_evaluation_does_not_depend_on_how_ids_are_leased(vectorized):
    """The same bytes for an id alone, in pairs, in uneven leases, in one large lease."""
    step = BLOCK if vectorized else 1
    for problem, generation in cases(vectorized):
        whole = evaluate(problem, generation, 0, 4 * BLOCK)
        for cuts in ([0, 1, 3, 10, 300, 1024], list(range(250, 262)), [7, 520]):
            for start, stop in pairwise(cuts):
                first, last = start // step * step, -(-stop // step) * step
                part = evaluate(problem, generation, first, last)
                among = (whole.rows.ids >= first) & (whole.rows.ids < last)
                assert part.status.tobytes() == whole.status[first:last].tobytes()
                assert part.rows.pack() == whole.rows.take(among).pack()


def test_evaluation_is_pure():
    problem, generation = next(cases(False))
    once, again = (replace(evaluate(problem, generation, 5, 99), seconds=0.0) for _ in range(2))
    assert pack(once) == pack(again)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(n=some.integers(1, 40), d=some.integers(1, 12), size=some.integers(2, 700), seed=some.integers(0, 99))
def test_weight_of_a_row_does_not_depend_on_its_companions(n, d, size, seed):
    rng = np.random.default_rng(seed)
    factor = np.linalg.cholesky(np.cov(rng.standard_normal((d, 50))).reshape(d, d))
    weights = np.full(size, 1 / size)
    mixture = GaussianMixture(rng.standard_normal((size, d)), weights, factor, np.linalg.inv(factor))
    theta = rng.standard_normal((n, d))
    together = mixture.logpdf(theta)
    assert together.tobytes() == b"".join(mixture.logpdf(row[None]).tobytes() for row in theta)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(n=some.integers(1, 300), k=some.integers(1, 300), p=some.sampled_from([1, 2, 3, 2.5, math.inf]))
def test_distance_of_a_row_does_not_depend_on_its_companions(n, k, p):
    rows, observed = np.random.default_rng(n * k).standard_normal((n + 1, k)), np.zeros(k)
    together = mpiabc.PNorm(p).rows(rows, observed)
    alone = [mpiabc.PNorm(p).rows(row[None].copy(), observed)[0] for row in rows]
    assert together.tobytes() == np.array(alone).tobytes()
    np.testing.assert_allclose(together, np.linalg.norm(rows, ord=p, axis=1), rtol=1e-12)


def test_weighted_distance_takes_the_structure_of_the_data():
    observed = {"a": 1.0, "b": np.zeros(2)}
    distance = mpiabc.PNorm(1, weights={"a": 10.0, "b": [1.0, 2.0]})
    assert distance({"a": 2.0, "b": [1.0, 1.0]}, observed) == 10 + 1 + 2


def test_any_callable_is_a_distance_also_for_vectorised_simulators(tmp_path):
    def distance(simulated, observed):
        assert isinstance(simulated["y"], float)
        return abs(simulated["y"] - observed["y"])

    for options in ({}, {"simulate": problems.gaussian_vectorized, "vectorized": True}):
        run = [
            problems.sampler(**options, **extra).run(tmp_path / "run.db", scheduler="serial", overwrite=True)
            for extra in ({}, {"distance": distance})
        ]
        assert problems.digests(run[0]) == problems.digests(run[1])


def test_summary_is_what_is_compared(tmp_path):
    problem = problems.problem(lambda theta, rng: [theta["mu"], 7.0], summarize=lambda x: {"y": x[0]})
    history = mpiabc.ABCSMC(problem, 20, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    np.testing.assert_array_equal(history[-1].summaries[:, 0], history[-1]["mu"])


def test_epsilon_and_id_are_handed_to_simulators_that_declare_them(tmp_path):
    seen = []

    def simulate(theta, rng, *, epsilon, id):
        seen.append((str(id), epsilon))
        y = problems.gaussian(theta, rng)
        return None if abs(y["y"] - 1.0) > epsilon else y

    early = problems.sampler(simulate=simulate, name="gaussian").run(tmp_path / "a.db", scheduler="serial")
    late = problems.sampler().run(tmp_path / "b.db", scheduler="serial")
    assert problems.digests(early) == problems.digests(late)
    assert ("0:0", 3.0) in seen
    assert ("2:5", 0.8) in seen


@pytest.mark.parametrize(
    ("frozen", "inside"),
    [
        (stats.norm(1, 2), True),
        (stats.norm(loc=-1, scale=0.1), True),
        (stats.uniform(-1, 3), True),
        (stats.beta(2, 3), False),
        (stats.gamma(2, scale=3), False),
    ],
)
def test_scipy_marginals_keep_their_meaning(frozen, inside):
    prior = mpiabc.Prior(x=frozen, y=mpiabc.Uniform(0, 1))
    theta = prior.sample(4000, np.random.default_rng(1))
    assert stats.kstest(theta[:, 0], frozen.cdf).pvalue > 1e-3
    grid = np.column_stack([np.linspace(-4, 8, 50), np.full(50, 0.5)])
    np.testing.assert_allclose(prior.logpdf(grid), frozen.logpdf(grid[:, 0]), rtol=1e-12)
    assert np.all(prior.logpdf(np.array([[0.5, 1.5]])) == -np.inf)
    assert type(prior.marginals[0]).__module__.startswith("mpiabc") == inside


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (mpiabc.LogUniform(0.1, 10), stats.loguniform(0.1, 10)),
        (mpiabc.LogNormal(0.5, 0.7), stats.lognorm(0.7, scale=math.exp(0.5))),
    ],
)
def test_own_distributions_agree_with_scipy(own, theirs):
    x = np.array([-1.0, 0.0, 0.05, 0.1, 0.5, 2.0, 20.0])
    np.testing.assert_allclose(own.logpdf(x), theirs.logpdf(x), rtol=1e-12)
    assert stats.kstest(own.rvs(4000, np.random.default_rng(1)), theirs.cdf).pvalue > 1e-3


@pytest.mark.parametrize("d", [1, 3, 10])
def test_gaussian_proposal_is_the_mixture_it_says(d):
    parents = population(50, d)
    proposal = mpiabc.Gaussian().fit(parents)
    covariance = chosen_scale(d, parents.ess) * np.cov(parents.theta.T, aweights=parents.weights).reshape(
        d, d
    )
    theta = proposal.sample(BLOCK, np.random.default_rng(1))
    parts = [stats.multivariate_normal(c, covariance).logpdf(theta) for c in parents.theta]
    exact = np.log(parents.weights @ np.exp(parts))
    np.testing.assert_allclose(proposal.logpdf(theta), exact, rtol=1e-9)
    far = np.full((1, d), 1e3)  # underflows everywhere without logs
    assert np.isfinite(proposal.logpdf(far)).all()
    many = proposal.sample(200_000, np.random.default_rng(2))
    np.testing.assert_allclose(many.mean(axis=0), parents.mean(), atol=0.05)


@pytest.mark.parametrize("d", [1, 4])
def test_local_proposal_is_the_mixture_it_says(d):
    parents = population(50, d)
    proposal = mpiabc.LocalGaussian(k=20).fit(parents)
    theta = proposal.sample(BLOCK, np.random.default_rng(1))
    parts = [
        stats.multivariate_normal(c, factor @ factor.T).logpdf(theta)
        for c, factor in zip(parents.theta, proposal.cholesky, strict=True)
    ]
    np.testing.assert_allclose(proposal.logpdf(theta), np.log(parents.weights @ np.exp(parts)), rtol=1e-9)


def test_fewer_particles_than_dimensions_leave_a_usable_kernel():
    proposal = mpiabc.Gaussian().fit(population(4, 8))
    theta = proposal.sample(BLOCK, np.random.default_rng(1))
    assert np.linalg.matrix_rank(theta - theta.mean(axis=0)) == 8


def test_thresholds_fall():
    parents = population()
    quantile = mpiabc.Quantile(0.3).epsilon(1, parents)
    assert parents.weights[parents.distances <= quantile].sum() >= 0.3
    assert parents.weights[parents.distances < quantile].sum() < 0.3
    assert mpiabc.Quantile(0.3).epsilon(0, None) == math.inf
    assert [mpiabc.Listed([4, 2]).epsilon(t, None) for t in range(3)] == [4, 2, None]
    assert mpiabc.Constant(3).epsilon(9, parents) == 3


def test_quantile_steps_down_where_distances_are_equal(tmp_path):
    """Distances are whole numbers: most are equal, yet each threshold is smaller, down to 0."""
    problem = problems.problem(lambda theta, rng: float(round(theta["mu"])), observed=1.0)
    problem = mpiabc.Problem(problem.prior, problem.simulate, 1.0)
    history = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Quantile(0.9), seed=1).run(
        tmp_path / "run.db", generations=30, scheduler="serial"
    )
    epsilons = [p.epsilon for p in history]
    assert all(later < earlier for earlier, later in pairwise(epsilons))
    assert epsilons[-1] == 0
    assert history.reason == "threshold: no distance is smaller"


WHOLE = {"int32": np.int32, "uint64": np.uint64, "array": np.array}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_are_python_s_or_numpy_s(kind, tmp_path):
    """Wherever one is given: one run, which NumPy's numbers go on with."""
    n = WHOLE[kind]

    def run(n, store, generations=3):
        problem = problems.problem(on_error=n(7), timeout=n(60))
        abc = mpiabc.ABCSMC(problem, n(30), seed=n(1), kernel=mpiabc.LocalGaussian(k=n(9)))
        scheduler = mpiabc.schedulers.Processes(n(1), start="fork")
        return abc.run(store, generations=n(generations), simulations=n(10**6), scheduler=scheduler)

    plain = run(int, tmp_path / "plain.db")
    run(int, tmp_path / "run.db", 1)
    history = run(n, tmp_path / "run.db")
    assert problems.digests(history) == problems.digests(plain)
    assert history[n(1)].digest() == plain[1].digest()
    assert history[n(-3) if kind != "uint64" else 0].digest() == plain[0].digest()
    assert mpiabc.cluster.Cluster(system="slurm", chunk=n(2))._checked() == 3600


class Foreign:
    """A threshold of one's own, which gives the numbers that it has."""

    def __init__(self, value):
        self.value = value

    def epsilon(self, generation, previous):
        return self.value


REAL = {"int": int, "float32": np.float32, "float64": np.float64, "int64": np.int64, "array": np.array}
THRESHOLDS = {
    "start": lambda x: mpiabc.Quantile(start=x),
    "constant": mpiabc.Constant,
    "listed": lambda x: mpiabc.Listed([x, x / 2]),
    "foreign": Foreign,
}


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", REAL)
def test_thresholds_are_numbers_of_any_kind(kind, threshold, tmp_path):
    """And the run's file, which keeps Python's, can be read again, and be gone on with."""

    def run(x, store, generations):
        kernel = mpiabc.Gaussian(scale=x(2))
        abc = mpiabc.ABCSMC(
            problems.problem(), 20, seed=1, kernel=kernel, threshold=THRESHOLDS[threshold](x(4))
        )
        return abc.run(store, generations=generations, epsilon=x(0), walltime=x(60), scheduler="serial")

    expected = problems.digests(run(float, tmp_path / "plain.db", 2))
    assert problems.digests(run(REAL[kind], tmp_path / "run.db", 1)) == expected[:1]
    history = run(REAL[kind], tmp_path / "run.db", 2)
    assert problems.digests(history) == expected
    assert all(type(population.epsilon) is float for population in history)


def test_settings_of_numpy_numbers_are_those_of_python_s(tmp_path):
    """A run begun when NumPy's float64 stood in its settings goes on."""
    path = tmp_path / "run.db"
    abc = mpiabc.ABCSMC(problems.problem(), 20, seed=1, threshold=mpiabc.Constant(2.5))
    abc.run(path, generations=1, scheduler="serial")
    with Store(path) as store:
        old = store.settings()
        assert old["threshold"] == "Constant(value=2.5)"
        with store.transaction() as db:
            value = json.dumps(old | {"threshold": "Constant(value=np.float64(2.5))"})
            db.execute("UPDATE run SET value = ?, crc = ? WHERE key = 'settings'", (value, crc_of(value)))
    assert len(abc.run(path, generations=2, scheduler="serial")) == 2


def test_population_statistics_are_weighted():
    p = population(200, 2)
    np.testing.assert_allclose(p.mean(), np.average(p.theta, axis=0, weights=p.weights))
    np.testing.assert_allclose(p.std() ** 2, np.cov(p.theta.T, aweights=p.weights, ddof=0).diagonal())
    assert p.mean()["x1"] == p.mean()[1]
    assert p.quantile([0.1, 0.5, 0.9]).shape == (3, 2)
    assert p.weights[p["x0"] <= p.quantile(0.5)["x0"]].sum() >= 0.5
    assert p.ess == effective_sample_size(p.weights) == pytest.approx(1 / (p.weights**2).sum())
    draws = p.resample(100_000, np.random.default_rng(1))
    np.testing.assert_allclose(draws.mean(axis=0), p.mean(), atol=0.02)
    assert weighted_quantile(np.array([3.0, 1.0, 2.0]), np.ones(3), 0.5) == 2.0
    with pytest.raises(KeyError, match="the parameters are x0, x1"):
        p["y"]


def test_digest_sees_every_bit():
    p = population()
    for name in ("theta", "weights", "distances"):
        changed = population()
        array = getattr(changed, name)
        array.flags.writeable = True
        array.flat[7] = np.nextafter(array.flat[7], 9)
        assert changed.digest() != p.digest()
    assert population().digest() == p.digest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [(90, 90), ("90", 90), ("30m", 1800), ("2h", 7200), ("1:30:00", 5400), ("1-00:00", 86400)],
)
def test_walltime_is_read(text, expected):
    assert seconds(text) == expected


def test_who_waits_looks_again_after_a_hundredth_of_what_was_waited(monkeypatch):
    """The first tenth of a second in steps of a millisecond at most; twenty, from two seconds on."""
    waits, backoff = [], Backoff()
    monkeypatch.setattr(time, "sleep", waits.append)
    while sum(waits) < 10:
        before = sum(waits)
        backoff.wait()
        if sum(waits) > before:
            assert waits[-1] <= min(max(0.001, before / 100), 0.02) * (1 + 1e-9)
    assert waits[0] < 0.0001
    assert waits[-1] == 0.02
    backoff.reset()
    backoff.wait()
    assert len(waits) == waits.index(0.02) + waits.count(0.02)  # after a reset it only yields at first


@pytest.mark.parametrize(("late", "rest"), [(0.0005, 0), (0.003, 0.012), (0.5, 0.02)])
def test_who_gives_way_rests_for_longer_than_it_was_woken_late(late, rest, monkeypatch):
    """Four times, and twenty milliseconds at most, from the first wait after something has happened on."""
    now, waits, backoff = [0.0], [], Backoff(gives_way=True)

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds + late

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    while len(waits) < 100:
        backoff.wait()
    backoff.reset()
    waits.clear()
    backoff.wait()
    assert sum(waits) == pytest.approx(rest)
