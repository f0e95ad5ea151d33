"""Kernels for few particles, bounded parameters, the next threshold: definitions and exact targets."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.kernels.covariance import covariance, shrunk
from mpiabc.kernels.free import Coordinates, Freed
from mpiabc.kernels.gaussian import SCALE, chosen_scale, default_scale
from mpiabc.schedulers import Map
from mpiabc.store import Store
from mpiabc.store.schema import crc_of
from mpiabc.streams import BLOCK
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import jobs_of, quick

INF = math.inf
BOUNDS = np.array([-1.0, 2.0, -INF, -INF]), np.array([3.0, INF, 5.0, INF])


def population(n=80, d=3, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.random(n)
    theta = rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    return problems.population(theta, weights / weights.sum(), rng.random(n), np.zeros((n, 1)))


def within_bounds(n=60):
    rng = np.random.default_rng(1)
    theta = Coordinates(*BOUNDS).bound(0.7 * rng.standard_normal((n, 4)))
    return problems.population(theta, np.full(n, 1 / n), rng.random(n), np.zeros((n, 1)))


class Bounded:
    """A prior of one's own, of whose bounds it tells."""

    names = tuple("abcd")

    def bounds(self):
        return list(zip(*BOUNDS, strict=True))


# What they are.


@pytest.mark.parametrize(("epsilon", "least"), [(0.5, None), (0.02, 30), (None, 80)])
def test_optimal_local_covariances_are_those_of_the_particles_that_meet_the_next_threshold(epsilon, least):
    """sum_k w_k (theta_k - theta_i)(theta_k - theta_i)^T, of ten times d particles at least."""
    parents = population()
    near = np.argsort(parents.distances)[:least] if least else parents.distances <= epsilon
    weights = parents.weights[near] / parents.weights[near].sum()
    proposal = mpiabc.OLCM().fit(parents, epsilon=epsilon)
    for centre, factor in zip(parents.theta, proposal.cholesky, strict=True):
        delta = parents.theta[near] - centre
        np.testing.assert_allclose(factor @ factor.T, (weights[:, None] * delta).T @ delta, rtol=1e-9)
    assert proposal.centres is parents.theta


def test_particles_far_out_have_covariances_too():
    """As those of a prior with heavy tails: what they are far from is a billion times narrower."""
    parents = population()
    theta = np.array(parents.theta)
    theta[7] *= 1e12
    distances = np.where(np.arange(80) == 7, 2.0, parents.distances)
    proposal = mpiabc.OLCM().fit(replace(parents, theta=theta, distances=distances), epsilon=1.0)
    assert (np.diagonal(proposal.cholesky, axis1=1, axis2=2) > 0).all()
    draws = proposal.sample(BLOCK, np.random.default_rng(1))
    assert np.isfinite(proposal.logpdf(draws)).all()


def test_few_particles_are_shrunk_to_their_diagonal_and_many_are_not():
    """Of ten correlated parameters: the error of the correlations falls, that of the variances stays."""
    d, rng = 10, np.random.default_rng(3)
    true = 0.2 + 0.8 * np.eye(d)
    ratios = []
    for n, times in ((12, 50), (20_000, 1)):
        errors = np.zeros(2)
        for _ in range(times):
            theta = rng.standard_normal((n, d)) @ np.linalg.cholesky(true).T
            weights = np.full(n, 1 / n)
            delta = theta - theta.mean(axis=0)
            plain = covariance(delta, weights) / (1 - 1 / n)
            less = shrunk(plain, delta, weights)
            assert np.array_equal(np.diagonal(less), np.diagonal(plain))
            errors += [np.square(less - true).sum(), np.square(plain - true).sum()]
        ratios.append(errors[0] / errors[1])
    assert ratios[0] < 0.6
    assert ratios[1] == pytest.approx(1, abs=0.02)


def test_shrinkage_is_that_of_ledoit_and_wolf():
    """Their formula for equal weights, term by term; units of parameters do not matter."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 4))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    s = z.T @ z / 30
    error = sum(np.square(np.outer(row, row) - s).sum() for row in z) / 30**2
    share = min(1, error / np.square(s - np.eye(4)).sum())
    expected = (1 - share) * s + share * np.eye(4)
    weights, units = np.full(30, 1 / 30), np.array([1.0, 1e3, 1e-6, 7.0])
    for u in (np.ones(4), units):
        delta = z * u
        found = shrunk(covariance(delta, weights), delta, weights)
        np.testing.assert_allclose(found, expected * np.outer(u, u), rtol=1e-10)


@pytest.mark.parametrize(
    "kernel", [mpiabc.Gaussian, mpiabc.LocalGaussian, mpiabc.OLCM], ids=lambda k: k.__name__
)
def test_shrunk_kernels_of_fewer_particles_than_parameters_are_whole(kernel):
    """Where plain ones fall back to a diagonal."""
    proposal = kernel(shrink=True).fit(population(5, 8))
    assert not proposal.is_diagonal
    assert np.isfinite(proposal.logpdf(proposal.sample(BLOCK, np.random.default_rng(1)))).all()


FREE = {
    "gaussian": mpiabc.Gaussian(free=True),
    "local": mpiabc.LocalGaussian(free=True, k=30),
    "olcm": mpiabc.OLCM(free=True),
}


def test_free_coordinates_are_logarithms_of_what_is_left_to_the_bounds():
    x = np.array([[0.0, 2.5, 4.0, 7.0]])
    z = [[math.log(1 / 3), math.log(0.5), -math.log(1.0), 7.0]]
    coordinates = Coordinates(*BOUNDS)
    np.testing.assert_allclose(coordinates.free(x), z)
    np.testing.assert_allclose(coordinates.bound(np.array(z)), x)
    step = 1e-6
    ahead, behind = (coordinates.free(x + sign * step) for sign in (1, -1))
    slopes = (ahead - behind)[0] / (2 * step)
    assert coordinates.log_jacobian(np.array(z))[0] == pytest.approx(np.log(slopes).sum(), rel=1e-6)


@pytest.mark.parametrize("kernel", FREE)
def test_draws_in_free_coordinates_stay_inside_and_have_the_density_that_is_said(kernel):
    """E[f / q] over draws of q is the integral of f, here of a density on the box: 1."""
    proposal = FREE[kernel].fit(within_bounds(), Bounded())
    theta = proposal.sample(40_000, np.random.default_rng(2))
    assert proposal._coordinates.holds(theta).all()
    assert isinstance(proposal, Freed)
    known = [stats.beta(2, 2, -1, 4), stats.gamma(3, loc=2, scale=0.4), None, stats.norm(0, 0.6)]
    log_f = sum(part.logpdf(theta[:, i]) for i, part in enumerate(known) if part)
    log_f += stats.gamma(3, scale=0.4).logpdf(5 - theta[:, 2])
    ratio = np.exp(log_f - proposal.logpdf(theta))
    assert ratio.mean() == pytest.approx(1, abs=5 * ratio.std() / 200)
    assert ratio.std() / 200 < 0.02
    without = np.exp(log_f - proposal.mixture.logpdf(proposal._coordinates.free(theta)))
    assert abs(without.mean() - 1) > 0.2  # the mutant: no Jacobian


@pytest.mark.parametrize("kernel", FREE)
def test_free_proposals_give_each_row_its_own_bits(kernel):
    proposal = FREE[kernel].fit(within_bounds(), Bounded())
    theta = proposal.sample(70, np.random.default_rng(2))
    together = proposal.logpdf(theta)
    assert together.tobytes() == b"".join(proposal.logpdf(row[None]).tobytes() for row in theta)
    rngs = [np.random.default_rng(seed) for seed in (3, 4)]
    apart = np.concatenate([proposal.sample(5, np.random.default_rng(seed)) for seed in (3, 4)])
    assert proposal.sample_each(5, rngs).tobytes() == apart.tobytes()


@pytest.mark.parametrize("kernel", FREE)
def test_others_are_all_components_but_the_particles_own(kernel):
    parents = within_bounds()
    proposal = FREE[kernel].fit(parents, Bounded())
    rows = np.array([0, 7, 59])
    for row, found in zip(rows, proposal.log_others(rows), strict=True):
        kept = np.arange(60) != row
        mixture = proposal.mixture
        shared = mixture.cholesky.ndim == 2
        factors = {name: getattr(mixture, name) for name in ("cholesky", "inverse")}
        factors = factors if shared else {name: factor[kept] for name, factor in factors.items()}
        weights = mixture.weights[kept] / mixture.weights[kept].sum()
        others = type(mixture)(mixture.centres[kept], weights, **factors)
        expected = replace(proposal, mixture=others).logpdf(parents.theta[row : row + 1])
        assert found == pytest.approx(expected[0], rel=1e-9)


def test_a_parameter_at_its_very_bound_is_taken_for_the_next_number_inside():
    parents = within_bounds()
    theta = np.array(parents.theta)
    theta[0], theta[1, :2] = [-1.0, 2.0, 5.0, 0.0], [3.0, 2.0]
    parents = replace(parents, theta=theta)
    for kernel in FREE.values():
        proposal = kernel.fit(parents, Bounded())
        assert np.isfinite(proposal.mixture.centres).all()
        assert np.isfinite(proposal.logpdf(theta)).all()
        assert np.isfinite(proposal.log_others(np.arange(3))).all()
    outside = np.array([[-1.1, 2.5, 4.0, 0.0], [0.0, 2.5, 5.1, 0.0]])
    assert (proposal.logpdf(outside) == -INF).all()
    far = Coordinates(*BOUNDS).bound(np.full((2, 4), [[800.0], [-800.0]]))
    assert np.isfinite(far).all()
    assert Coordinates(*BOUNDS).holds(far).all()


class Own:
    names = ("mu",)

    def sample(self, n, rng):
        return rng.uniform(0, 1, (n, 1))

    def logpdf(self, theta):
        return np.where((theta[:, 0] > 0) & (theta[:, 0] < 1), 0.0, -np.inf)


class Mound:
    """A distribution that does not tell its support."""

    rvs, logpdf = staticmethod(stats.norm.rvs), staticmethod(stats.norm.logpdf)


REFUSED = {
    "no bounds": (lambda: sampler(Own(), mpiabc.Gaussian(free=True)), "a Own, does not say between which"),
    "no support": (
        lambda: sampler(mpiabc.Prior(mu=Mound()), mpiabc.OLCM(free=True)),
        "the bounds of parameter 'mu' are not known",
    ),
    "no scale": (lambda: mpiabc.OLCM(scale=None), "give a scale > 0"),
    "no truth value": (lambda: mpiabc.Gaussian(shrink=0.5), "shrink is True or False"),
}


def sampler(prior, kernel, **options):
    problem = mpiabc.Problem(prior, problems.gaussian, {"y": 1.0})
    return mpiabc.ABCSMC(problem, 30, seed=1, kernel=kernel, **options)


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_kernel_is_not_for_is_said_at_once(case):
    make, sentence = REFUSED[case]
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        make()


def test_a_prior_of_ones_own_may_tell_its_bounds():
    proposal = mpiabc.Gaussian(free=True).fit(within_bounds(), Bounded())
    assert np.array_equal(proposal.low, BOUNDS[0])


@dataclass(frozen=True)
class Noting:
    """A kernel that notes which threshold it was given."""

    seen: list

    def fit(self, population, *, epsilon):
        self.seen.append((population.generation, epsilon))
        return mpiabc.Gaussian().fit(population)


def test_a_kernel_that_declares_it_gets_the_next_threshold(tmp_path):
    seen = []
    abc = mpiabc.ABCSMC(problems.problem(), 30, seed=1, kernel=Noting(seen))
    history = abc.run(tmp_path / "run.db", generations=3, scheduler="serial")
    assert seen[:2] == [(0, history[1].epsilon), (1, history[2].epsilon)]


# What they give.

NEW = {
    "olcm": mpiabc.OLCM(),
    "shrunk": mpiabc.Gaussian(shrink=True),
    "free": mpiabc.Gaussian(free=True),
    "all at once": mpiabc.OLCM(free=True, shrink=True, defensive=0.1),
    "local": mpiabc.LocalGaussian(free=True, shrink=True),
}


def at_the_edge(theta, rng):
    """Target 2: a uniform prior, and data near its edge; and a scale, which has one bound."""
    n = np.shape(theta["mu"])
    return {"y": theta["mu"] + rng.standard_normal(n), "s": theta["s"] * np.exp(rng.standard_normal(n))}


@pytest.mark.parametrize("recycle", [False, True])
@pytest.mark.parametrize("kernel", NEW)
def test_posterior_is_the_exact_one(kernel, recycle, tmp_path):
    """Density ∝ Phi((y0 + e - t) / s) - Phi((y0 - e - t) / s) on the box, y0 at its edge."""
    prior = mpiabc.Prior(mu=mpiabc.Uniform(0, 4), s=mpiabc.LogNormal(0, 1))
    problem = mpiabc.Problem(prior, at_the_edge, {"y": 0.0, "s": 1.0}, vectorized=True, distance=Largest())
    abc = mpiabc.ABCSMC(
        problem, 1000, seed=3, kernel=NEW[kernel], threshold=mpiabc.Listed([2, 1, 0.5]), recycle=recycle
    )
    population = abc.run(tmp_path / "run.db", scheduler="serial")[-1]
    grid = np.linspace(0, 4, 4001)
    density = stats.norm.cdf(0.5 - grid) - stats.norm.cdf(-0.5 - grid)
    density /= density.sum()
    mean = density @ grid
    sd = math.sqrt(density @ (grid - mean) ** 2)
    error = sd / math.sqrt(population.ess) * (2 if recycle else 1)
    assert population.mean()["mu"] == pytest.approx(mean, abs=4 * error)
    assert population.std()["mu"] == pytest.approx(sd, abs=4 * error)
    below = density[grid <= 0.2].sum()
    assert population.weights[population["mu"] <= 0.2].sum() == pytest.approx(below, abs=4 * error)
    # log s ~ N(0, 1), log y ~ N(log s, 1), |y - 1| <= e: by quadrature.
    t = np.linspace(-5, 5, 4001)
    of_s = stats.norm.pdf(t) * (stats.norm.cdf(math.log(1.5) - t) - stats.norm.cdf(math.log(0.5) - t))
    of_s /= of_s.sum()
    expected = of_s @ t
    spread = math.sqrt(of_s @ (t - expected) ** 2)
    found = population.weights @ np.log(population["s"])
    assert found == pytest.approx(expected, abs=4 * error / sd * spread)


class Largest:
    is_rowwise = True

    def rows(self, simulated, observed):
        return np.abs(simulated - observed).max(axis=1)


def test_weights_without_the_jacobian_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(Coordinates, "log_jacobian", lambda self, z: np.zeros(len(z)))
    with pytest.raises(AssertionError):
        test_posterior_is_the_exact_one("free", False, tmp_path)


def flat(kernel, **options):
    """mu ~ U(-2, 4), y ~ N(mu, 1)."""
    return sampler(mpiabc.Prior(mu=mpiabc.Uniform(-2, 4)), kernel, **options)


@pytest.mark.parametrize("kernel", quick(NEW, "all at once"))
def test_digest_does_not_depend_on_who_simulates_and_when_it_was_interrupted(kernel, tmp_path):
    def run(name, scheduler, **rules):
        rules = rules or {"generations": 4}
        return flat(NEW[kernel], recycle=True).run(tmp_path / name, scheduler=scheduler, **rules)

    expected = problems.digests(run("serial.db", "serial"))
    assert problems.digests(run("cluster.db", Simulated(7, random_time, loss=0.1, duplicate=0.1))) == expected
    for budget in (50, 90, 120):
        run("resumed.db", "serial", simulations=budget)
    assert problems.digests(run("resumed.db", "processes")) == expected


@pytest.mark.parametrize("kernel", NEW)
def test_static_scheduling_has_a_digest_of_its_own_for_each_kernel(kernel, tmp_path):
    one, other = (
        problems.digests(flat(NEW[kernel]).run(tmp_path / f"{i}.db", generations=3, scheduler=place))
        for i, place in enumerate([Map(map), Simulated(5, random_time, is_static=True)])
    )
    assert one == other


def test_kept_orders_hold_the_new_proposals(tmp_path):
    """What looks at a file has the order without fitting anything: `replay` finds each evaluation again."""
    for name, kernel in NEW.items():
        path = tmp_path / f"{name}.db"
        history = flat(kernel).run(path, generations=3, scheduler="serial")
        assert '"proposal": {' in history.order(2)[0]
        assert all(array.dtype == np.float64 for array in history.order(2)[1])


def test_a_run_is_not_continued_with_another_kernel(tmp_path):
    flat(mpiabc.Gaussian()).run(tmp_path / "run.db", generations=1, scheduler="serial")
    for kernel in (mpiabc.Gaussian(free=True), mpiabc.Gaussian(shrink=True), mpiabc.OLCM()):
        with pytest.raises(mpiabc.StoreError, match=r"kernel: 'Gaussian\(scale=None\)' there"):
            flat(kernel).run(tmp_path / "run.db", generations=2, scheduler="serial")


def test_scale_falls_only_where_particles_are_many_for_their_dimension():
    assert {chosen_scale(d, ess) for d in (1, 2, 3) for ess in (10, 10**6)} == {1.0}
    assert [chosen_scale(10, ess) for ess in (20, 200, 10**6)] == [1.0, 1.0, 0.5]
    assert chosen_scale(10, 1000) == pytest.approx(0.2**0.2)
    assert [default_scale(d) for d in (1, 3, 10, 20)] == [1.0, 1.0, 0.5, 0.5]


def in_five_dimensions(kernel, store, generations):
    prior = mpiabc.Prior({f"x{i}": mpiabc.Normal() for i in range(5)})
    problem = mpiabc.Problem(prior, sums, {"y": np.zeros(5)}, vectorized=True)
    abc = mpiabc.ABCSMC(problem, 60, seed=1, kernel=kernel)
    return abc.run(store, generations=generations, scheduler="serial")


def sums(theta, rng):
    x = np.stack(list(theta.values()), axis=1)
    return {"y": x + rng.standard_normal(x.shape)}


def test_a_run_of_before_goes_on_with_the_scale_that_it_had(tmp_path):
    """Its file does not say how scales are chosen: by dimension alone."""
    path = tmp_path / "old.db"
    expected = in_five_dimensions(mpiabc.Gaussian(scale=default_scale(5)), tmp_path / "a.db", 4)
    today = in_five_dimensions(mpiabc.Gaussian(), tmp_path / "b.db", 4)
    in_five_dimensions(mpiabc.Gaussian(), path, 1)
    with Store(path) as store, store.transaction() as db:
        old = {name: value for name, value in store.settings().items() if name != SCALE}
        value = json.dumps(old)
        db.execute("UPDATE run SET value = ?, crc = ? WHERE key = 'settings'", (value, crc_of(value)))
        db.execute("DELETE FROM orders")
    assert problems.digests(in_five_dimensions(mpiabc.Gaussian(), path, 4)) == problems.digests(expected)
    assert problems.digests(expected) != problems.digests(today)
    assert today.settings[SCALE] == "by dimension and size"


@jobs_of(["mpi"], [], ["openmpi"])
def test_ranks_give_the_digest_of_one_process(mpi, tmp_path):
    expected = problems.digests(flat(NEW["all at once"]).run(tmp_path / "a.db", generations=3))
    job = mpi.run(2, "-m", "tests.programs.kernels", tmp_path / "b.db")
    assert job.returncode == 0, job.stdout
    assert problems.digests(mpiabc.open(tmp_path / "b.db")) == expected
