"""Orders: decided in one place, in the file before a worker has them, read by who goes on or looks."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import cli
from mpiabc.kernels.mixture import LocalGaussianMixture
from mpiabc.order import Order, kept, restored
from mpiabc.store import History, database, parts
from tests import problems
from tests.test_parts import population


@pytest.fixture(params=[mpiabc.Gaussian(), mpiabc.LocalGaussian()], ids=repr)
def kernel(request):
    return request.param


def begun(path, **parts):
    """A run that has stopped inside of generation 2."""
    history = problems.sampler(**parts).run(path, scheduler="serial", simulations=450)
    assert (len(history), history.reason) == (2, "simulations")
    return history


def test_orders_are_json_and_arrays_and_come_back_bit_for_bit(kernel):
    parents = population(40, 3)
    order = Order(4, (1, 2), 0.1 + 0.2, kernel.fit(parents), 40)
    text, arrays = kept(order, parents)
    found = restored(text, arrays, parents)
    assert json.loads(text)["proposal"]["centres"] == {"of the population": "theta"}
    assert (found["level"], found["epsilon"], found["size"]) == (4, 0.1 + 0.2, 40)
    theta = parents.theta[:7] + 0.1
    assert found["proposal"].logpdf(theta).tobytes() == order.proposal.logpdf(theta).tobytes()
    draws = [proposal.sample(9, np.random.default_rng(1)) for proposal in (found["proposal"], order.proposal)]
    assert draws[0].tobytes() == draws[1].tobytes()


def test_order_of_a_large_local_kernel_is_kept_by_half_its_factors_alone():
    n, d = 2000, 20
    parents = population(n, d)
    factors = np.tril(np.random.default_rng(1).random((n, d, d))) + np.eye(d)
    order = Order(1, (1, 2), 1.0, LocalGaussianMixture(parents.theta, parents.weights, factors), n)
    _, arrays = kept(order, parents)
    assert sum(array.nbytes for array in arrays) == 8 * n * d * (d + 1) // 2


def test_order_is_in_the_file_before_the_first_evaluation_of_its_level(tmp_path):
    def simulate(theta, rng, *, id):
        if id.index == 0:
            seen.append(History(tmp_path / "run.db").order(id.generation) is not None)
        return problems.gaussian(theta, rng)

    seen = []
    problems.sampler(simulate=simulate).run(tmp_path / "run.db", scheduler="serial")
    assert seen == [True] * 3


def test_run_that_goes_on_fits_nothing_that_is_decided(kernel, tmp_path, monkeypatch):
    quiet = problems.sampler(kernel=kernel).run(tmp_path / "quiet.db", scheduler="serial")
    begun(tmp_path / "run.db", kernel=kernel)
    monkeypatch.setattr(type(kernel), "fit", lambda self, population: pytest.fail("it was fitted again"))
    again = problems.sampler(kernel=kernel).run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(again) == problems.digests(quiet)


class Foreign:
    """A kernel that is not ours, around one that is."""

    def fit(self, population):
        inner = mpiabc.Gaussian().fit(population)
        return Around(inner)


class Around:
    def __init__(self, inner):
        self.inner = inner

    def sample(self, n, rng):
        return self.inner.sample(n, rng)

    def logpdf(self, theta):
        return self.inner.logpdf(theta)


def test_proposal_that_is_not_ours_is_fitted_again(tmp_path):
    quiet = problems.sampler(kernel=Foreign()).run(tmp_path / "quiet.db", scheduler="serial")
    history = begun(tmp_path / "run.db", kernel=Foreign())
    assert json.loads(history.order(2)[0])["proposal"] is None
    again = problems.sampler(kernel=Foreign()).run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(again) == problems.digests(quiet)


def test_order_that_is_damaged_is_decided_again(tmp_path):
    quiet = problems.sampler().run(tmp_path / "quiet.db", scheduler="serial")
    history = begun(tmp_path / "run.db")
    with closing(sqlite3.connect(history.path)) as db, db:
        db.execute(
            """UPDATE orders SET told = replace(told, '"epsilon": ', '"epsilon": 1') WHERE level = 2"""
        )
    db.close()
    assert mpiabc.open(history.path).order(2) is None
    again = problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(again) == problems.digests(quiet)


def test_who_looks_executes_nothing_of_the_file(tmp_path, monkeypatch, capsys):
    begun(tmp_path / "run.db")
    script = tmp_path / "fit.py"
    script.write_text("from tests import problems\n\nproblem = problems.problem()\n")
    monkeypatch.setattr(parts.pickle, "loads", lambda *args, **options: pytest.fail("it was unpickled"))
    assert cli.main(["show", str(tmp_path / "run.db")]) == 0
    assert "generation 2 is open: epsilon 0.8" in capsys.readouterr().out
    for address in ("0:3", "1:17", "2:5"):
        assert cli.main(["replay", str(tmp_path / "run.db"), address, "--problem", str(script)]) == 0


def test_parts_of_orders_are_of_a_closed_list():
    class GaussianMixture(mpiabc.kernels.mixture.GaussianMixture):
        pass

    parents = population(20, 2)
    ours = mpiabc.Gaussian().fit(parents)
    foreign = GaussianMixture(ours.centres, ours.weights, ours.cholesky)
    assert json.loads(kept(Order(1, (1, 2), 1.0, foreign, 20), parents)[0])["proposal"] is None


def test_file_says_what_was_observed_and_what_may_be_inferred_as_plain_data(tmp_path, monkeypatch):
    prior = mpiabc.Prior(a=mpiabc.Normal(0, 1), b=mpiabc.LogUniform(0.5, 2), c=stats.beta(2, 2, -1, 4))
    observed = {"peak": 2.0, "days": np.array([3.0, 5.0])}
    problem = mpiabc.Problem(prior, lambda theta, rng: observed, observed)
    monkeypatch.setattr(database, "portable", lambda part: None)
    history = mpiabc.ABCSMC(problem, 20, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert history.observed.tolist() == [2.0, 3.0, 5.0]
    assert history.labels == ["peak", "days[0]", "days[1]"]
    assert history.bounds == [[-np.inf, np.inf], [0.5, 2], [-1, 3]]
