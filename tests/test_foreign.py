"""Priors, kernels, simulators and distances of users' own making are as good as ours."""

import functools

import numpy as np
import pytest

import mpiabc
from mpiabc import schedulers
from tests import problems
from tests.conftest import quick
from tests.programs import foreign

D = 10
FACTOR = np.linalg.cholesky(np.eye(D) + 0.5)


class Correlated:
    """A prior whose density goes through BLAS, whose last bit depends on shapes."""

    names = tuple(f"x{i}" for i in range(D))

    def sample(self, n, rng):
        return rng.standard_normal((n, D)) @ FACTOR.T

    def logpdf(self, theta):
        return -0.5 * np.square(theta @ np.linalg.inv(FACTOR).T).sum(axis=1)


def simulate(theta, rng):
    return np.array(list(theta.values())) + rng.standard_normal(D)


@pytest.mark.long
@pytest.mark.parametrize("kernel", [mpiabc.Gaussian(), foreign.Student()], ids=["ours", "theirs"])
def test_foreign_priors_and_kernels_give_one_digest_everywhere(kernel, tmp_path):
    problem = mpiabc.Problem(Correlated(), simulate, np.zeros(D))
    found = set()
    for i, scheduler in enumerate(["serial", schedulers.Processes(1), schedulers.Processes(3), "serial"]):
        abc = mpiabc.ABCSMC(problem, 60, kernel=kernel, seed=1)
        history = abc.run(tmp_path / f"{i}.db", generations=3, scheduler=scheduler)
        assert len(set(history[0].weights)) == 1
        found.add(tuple(problems.digests(history)))
    assert len(found) == 1


def block(theta, rng):
    return np.column_stack(list(theta.values())) + rng.standard_normal((len(theta["x0"]), D))


@pytest.mark.long
@pytest.mark.parametrize("simulator", [simulate, block], ids=["scalar", "vectorised"])
def test_foreign_distances_and_thresholds_give_one_digest_everywhere(simulator, tmp_path):
    problem = mpiabc.Problem(
        Correlated(), simulator, np.zeros(D), distance=foreign.Mahalanobis(), vectorized=simulator is block
    )
    found = set()
    for i, scheduler in enumerate(["serial", schedulers.Processes(1), schedulers.Processes(3)]):
        abc = mpiabc.ABCSMC(problem, 60, threshold=foreign.Sharper(), seed=1)
        history = abc.run(tmp_path / f"{i}.db", generations=3, scheduler=scheduler)
        last = history[-1]
        assert last.distances.tolist() == [
            foreign.Mahalanobis().rows(row[None], 0)[0] for row in last.summaries
        ]
        found.add(tuple(problems.digests(history)))
    assert len(found) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda rows: np.full((len(rows), 2), 1.0), "numbers a row, and"),
        (lambda rows: np.full((len(rows), 2, 1), 1.0), "expected one real number a row: shape (1,)"),
        (lambda rows: ["near"] * len(rows), "expected one real number a row"),
        (
            lambda rows: np.full(len(rows), np.nan),
            "the distance of the simulated from the observed data is nan",
        ),
        (lambda rows: rows.fill(0), "read-only"),
    ],
)
def test_distance_of_rows_that_gives_none_is_a_failure_with_an_address(gives, message, tmp_path):
    class Faulty:
        def rows(self, simulated, observed):
            return gives(simulated) if simulated[0, 0] > 1 else np.abs(simulated - observed).sum(axis=1)

    problem = mpiabc.Problem(Correlated(), simulate, np.zeros(D), distance=Faulty())
    addresses = set()
    for scheduler in ("serial", schedulers.Processes(2)):
        with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:") as error:
            mpiabc.ABCSMC(problem, 60, seed=1).run(tmp_path / "run.db", generations=1, scheduler=scheduler)
        assert message in str(error.value)
        addresses.add(error.value.failure.address)
    assert len(addresses) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "gives", [lambda rows: 1 / 0, lambda rows: np.ones((len(rows), 2, 1)), lambda rows: np.array(["far"])]
)
def test_distance_that_fails_for_many_rows_at_once_names_the_first_that_fails_alone(gives, tmp_path):
    class Faulty:
        is_rowwise = False

        def rows(self, simulated, observed):
            is_far = (simulated[:, 0] > 1).any()
            return gives(simulated) if is_far else np.abs(simulated - observed).sum(axis=1)

    class Together(Faulty):
        is_rowwise = True

    addresses = set()
    for distance in (Faulty(), Together()):
        problem = mpiabc.Problem(Correlated(), simulate, np.zeros(D), distance=distance)
        with pytest.raises(mpiabc.SimulatorError, match="evaluation 0:") as error:
            mpiabc.ABCSMC(problem, 60, seed=1).run(tmp_path / f"{len(addresses)}.db", generations=1)
        addresses.add(error.value.failure.address)
    assert len(addresses) == 1


def scaled(theta, rng, scale):
    return scale * problems.gaussian(theta, rng)["y"]


def test_partial_functions_are_described_without_addresses(tmp_path):
    def run(generations):
        problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal()), functools.partial(scaled, scale=2.0), 1.0)
        return mpiabc.ABCSMC(problem, 30, seed=1).run(
            tmp_path / "run.db", generations=generations, scheduler="serial"
        )

    assert len(run(1)) == 1
    assert len(run(2)) == 2


BROKEN_PRIORS = {
    "nan density": (lambda theta: np.full(len(theta), np.nan), "logpdf of the prior is nan"),
    "density of another shape": (lambda theta: np.zeros((len(theta), 1)), r"gave shape \(256, 1\)"),
    "no support": (lambda theta: np.full(len(theta), -np.inf), "outside its own support"),
}


@pytest.mark.parametrize("what", BROKEN_PRIORS)
def test_prior_that_cannot_work_is_reported_before_any_simulation(what, tmp_path):
    logpdf, sentence = BROKEN_PRIORS[what]

    class Broken(Correlated):
        def logpdf(self, theta):
            return logpdf(theta)

    problem = mpiabc.Problem(Broken(), lambda theta, rng: 1 / 0, np.zeros(D))
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        mpiabc.ABCSMC(problem, 10).run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert not (tmp_path / "run.db").exists()


@pytest.mark.long
@pytest.mark.parametrize("id", quick([40, 49, 50, 51, 60, 80], 49, 50, 51))
def test_failure_ends_the_run_if_it_lies_below_the_cut_and_never_otherwise(id, tmp_path):
    """All are accepted, so the cut of 50 is 50, whatever the leases were."""
    for scheduler in ("serial", schedulers.Processes(2)):

        def simulate(theta, rng, *, id, bad=id):
            return 1 / 0 if id.index == bad else problems.gaussian(theta, rng)

        abc = mpiabc.ABCSMC(problems.problem(simulate), 50, threshold=mpiabc.Constant(1e9), seed=1)
        run = functools.partial(
            abc.run, tmp_path / "run.db", generations=1, scheduler=scheduler, overwrite=True
        )
        if id < 50:
            with pytest.raises(mpiabc.SimulatorError, match=f"evaluation 0:{id} failed"):
                run()
        else:
            assert run()[0].evaluations == 50


def test_threshold_that_rises_is_refused(tmp_path):
    class Rising:
        def epsilon(self, generation, previous):
            return float(generation + 1)

    abc = mpiabc.ABCSMC(problems.problem(), 10, threshold=Rising(), seed=1)
    with pytest.raises(mpiabc.ProblemError, match="it rises"):
        abc.run(tmp_path / "run.db", generations=3, scheduler="serial")
    assert len(mpiabc.open(tmp_path / "run.db")) == 1
