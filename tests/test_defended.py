"""The prior's share in proposals: it bounds weights, and changes nothing else of what a run must keep."""

import numpy as np
import pytest

import mpiabc
from mpiabc.defended import Defended, mixed, undefended
from mpiabc.order import Order, kept, restored
from mpiabc.planner import fitted
from tests import problems
from tests.cluster import Simulated, random_time
from tests.test_parts import population

PRIOR = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
OTHERS = mpiabc.Prior(mu=mpiabc.Normal(1, 1))  # a proposal like any
KERNELS = [mpiabc.Gaussian(defensive=0.2), mpiabc.LocalGaussian(defensive=0.2)]


def sampler(n=60, **parts):
    problem = mpiabc.Problem(PRIOR, problems.gaussian, {"y": 1.0})
    return mpiabc.ABCSMC(problem, n, threshold=mpiabc.Listed([3, 1, 0.5]), seed=3, **parts)


class Narrow:
    """A kernel that forgets the tails."""

    is_normalised = True

    def __init__(self, share):
        self.share = share

    def fit(self, population, prior):
        proposal = mpiabc.Gaussian(scale=0.05).fit(population)
        return Defended(proposal, prior, self.share) if self.share else proposal


def test_kernel_is_given_the_prior_if_it_takes_it():
    class Both:
        def fit(self, population, prior):
            return prior

    class Optional:
        def fit(self, population, prior=None):
            return prior

    class Other:
        def fit(self, population, others=OTHERS):
            return others

    parents = population(20, 1)
    assert [fitted(kernel(), parents, PRIOR) for kernel in (Both, Optional, Other)] == [PRIOR, PRIOR, OTHERS]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_draws_and_density_are_those_of_the_mixture(kernel):
    parents = population(50, 1)
    proposal, plain = kernel.fit(parents, PRIOR), undefended(kernel.fit(parents, PRIOR))
    theta = np.linspace(-3, 3, 40)[:, None]
    expected = np.log(0.8 * np.exp(plain.logpdf(theta)) + 0.2 * np.exp(PRIOR.logpdf(theta)))
    assert np.allclose(proposal.logpdf(theta), expected, rtol=1e-12)
    draws = proposal.sample(40_000, np.random.default_rng(1))[:, 0]
    grid = np.linspace(-12, 12, 6001)[:, None]
    density = np.exp(proposal.logpdf(grid))
    assert abs(np.trapezoid(density, grid[:, 0]) - 1) < 1e-3
    mean = np.trapezoid(grid[:, 0] * density, grid[:, 0])
    assert abs(draws.mean() - mean) < 5 * draws.std() / 200  # five standard errors
    assert np.all(PRIOR.logpdf(theta) - proposal.logpdf(theta) <= np.log(1 / 0.2) + 1e-12)


def test_of_a_kept_order_the_prior_is_the_problems():
    parents = population(40, 1)
    proposal = KERNELS[0].fit(parents, PRIOR)
    text, arrays = kept(Order(1, (1, 2), 1.0, proposal, 40), parents)
    found = restored(text, arrays, parents, PRIOR)["proposal"]
    assert "Normal" not in text
    assert found.prior is PRIOR
    assert found.share == 0.2
    assert found.logpdf(parents.theta).tobytes() == proposal.logpdf(parents.theta).tobytes()


@pytest.mark.parametrize("recycle", [False, True])
def test_run_is_the_same_on_any_schedule_and_after_a_stop_inside_a_generation(recycle, tmp_path):
    parts = {"kernel": KERNELS[0], "recycle": recycle}
    quiet = sampler(**parts).run(tmp_path / "quiet.db", scheduler="serial")
    wild = sampler(**parts).run(tmp_path / "wild.db", scheduler=Simulated(7, random_time))
    part = sampler(**parts).run(tmp_path / "part.db", scheduler="serial", simulations=150)
    assert 0 < len(part) < 3
    again = sampler(**parts).run(tmp_path / "part.db", scheduler="serial")
    assert problems.digests(quiet) == problems.digests(wild) == problems.digests(again)


def test_densities_that_workers_share_get_the_priors_share_too(tmp_path, monkeypatch):
    quiet = problems.digests(sampler(kernel=Wide(), recycle=True).run(tmp_path / "a.db", scheduler="serial"))
    monkeypatch.setattr(mpiabc.recycling, "are_dear", lambda *_: True)
    shared = sampler(kernel=Wide(), recycle=True).run(tmp_path / "b.db", scheduler=Simulated(5, random_time))
    assert problems.digests(shared) == quiet


class Wide(mpiabc.Gaussian):
    """Ours, with a share."""

    def __init__(self):
        super().__init__(defensive=0.3)


def worst_weight(share, folder):
    history = sampler(400, kernel=Narrow(share)).run(folder / f"{share}.db", scheduler="serial")
    return np.exp(history[-1].log_weights).max()


def test_share_bounds_weights_and_without_it_they_are_not(tmp_path):
    assert worst_weight(0.5, tmp_path) <= 2 * (1 + 1e-12) < worst_weight(0.0, tmp_path)


def test_share_is_refused_to_priors_that_are_not_normalised_and_for_what_is_none():
    class Flat:
        names = ("mu",)

        def sample(self, n, rng):
            return rng.uniform(-6, 6, (n, 1))

        def logpdf(self, theta):
            return np.where(np.abs(theta[:, 0]) < 6, 0.0, -np.inf)

    problem = mpiabc.Problem(Flat(), problems.gaussian, {"y": 1.0})
    with pytest.raises(mpiabc.ProblemError, match=r"defensive=0.1\) with prior=.*or leave defensive out"):
        mpiabc.ABCSMC(problem, 20, kernel=mpiabc.Gaussian(defensive=0.1))
    for share in (-0.1, 1, "0.1", float("nan")):
        with pytest.raises(mpiabc.ProblemError, match="give a defensive share"):
            mpiabc.Gaussian(defensive=share)
    with pytest.raises(mpiabc.ProblemError, match=r"fit\(population, prior\)"):
        mpiabc.Gaussian(defensive=0.1).fit(population(20, 1))


def test_settings_name_a_share_only_where_there_is_one(tmp_path):
    plain = mpiabc.ABCSMC(sampler().problem, 20, seed=1, kernel=mpiabc.Gaussian())
    plain.run(tmp_path / "run.db", scheduler="serial", generations=1)
    assert mpiabc.open(tmp_path / "run.db").settings["kernel"] == "Gaussian(scale=None)"
    assert "defensive" not in str(plain._parts.values)
    other = mpiabc.ABCSMC(sampler().problem, 20, seed=1, kernel=mpiabc.Gaussian(defensive=0.1))
    with pytest.raises(mpiabc.StoreError, match=r"Gaussian\(scale=None, defensive=0.1\)' here"):
        other.run(tmp_path / "run.db", scheduler="serial", generations=1)


def test_what_has_no_share_is_left_alone():
    parents, row = population(20, 1), np.array([0.3])
    plain = mpiabc.Gaussian().fit(parents, PRIOR)
    assert type(plain) is mpiabc.kernels.mixture.GaussianMixture
    assert undefended(plain) is plain
    assert mixed(plain, row, row + 1) is row
