"""What `mpiabc.testing` says is exact is so, and it wants pytest only where its tests are run."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import mpiabc
from examples.extending.scheduler import Engine, LastFirst
from mpiabc import testing
from tests.conftest import environment

TARGETS = {"gaussian": testing.gaussian(), "edge": testing.edge(), "coin": testing.coin()}


@pytest.mark.parametrize("target", TARGETS)
def test_a_run_finds_the_exact_posterior(target, tmp_path):
    case = TARGETS[target]
    last = case.sampler(500).run(tmp_path / "run.db", generations=3, scheduler="serial")[-1]
    assert abs(case.misses(last)) < 4
    assert case.deviates(last) < 2.2


def test_a_kernel_that_weighs_nothing_is_found_out(tmp_path):
    """Populations get narrower from generation to generation."""

    class Weightless:
        def fit(self, population):
            return _Flat(mpiabc.Gaussian().fit(population))

    sampler = testing.gaussian().sampler(1000, kernel=Weightless())
    last = sampler.run(tmp_path / "run.db", generations=5, scheduler="serial")[-1]
    assert testing.gaussian().deviates(last) > 2.2


class _Flat:
    def __init__(self, proposal):
        self.sample = proposal.sample

    def logpdf(self, theta):
        return np.zeros(len(theta))


def test_posterior_of_the_coin_is_the_beta_distribution_where_nothing_else_is_accepted():
    exact = testing.coin(10, 3).posterior(0)
    p = np.linspace(0.01, 0.99, 50)
    assert exact.cdf(p) == pytest.approx(stats.beta(4, 8).cdf(p), abs=1e-6)
    assert exact.mean == pytest.approx(4 / 12)
    assert exact.sd == pytest.approx(stats.beta(4, 8).std())
    assert exact.evidence == pytest.approx(1 / 11)  # each number of heads is as probable


def test_a_cluster_made_of_code_keeps_a_clock_of_its_own(tmp_path):
    cluster = testing.SimulatedCluster(100, lambda evaluator, id, rng: 3600.0, seed=1)
    testing.gaussian().sampler(100).run(tmp_path / "run.db", generations=1, scheduler=cluster)
    assert cluster.cluster.now == 3600.0


def test_pytest_is_wanted_where_tests_are_run_only():
    program = "import sys, mpiabc; mpiabc.testing.SchedulerTests; assert 'pytest' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Changed(LastFirst):
    """A scheduler whose engine is that of the example, but for some methods."""

    def __init__(self, **methods):
        self.engine = type("Changed", (Engine,), methods)

    def open(self, problem):
        return self.engine(problem)


def lowest_first(self, timeout):
    self.leases.sort(key=lambda lease: -lease.start)
    return Engine.poll(self, timeout)


def newest_alone(self, job):
    self.evaluators = {job.number: job.evaluator(self.problem, "here")}


def several(self, job, beside=()):
    self.evaluators[job.number] = job.evaluator(self.problem, "here")


FAULTY = {
    "what was begun early has lost its job": {"poll": lowest_first, "begin": newest_alone},
    "several jobs, and a cut that is of none": {"poll": lowest_first, "begin": several},
}


@pytest.mark.parametrize("fault", FAULTY)
def test_an_engine_that_fails_where_workers_look_ahead_is_found_out(fault, tmp_path):
    tests, scheduler = testing.SchedulerTests(), Changed(**FAULTY[fault])
    with pytest.raises((KeyError, TypeError)):
        tests.test_simulations_that_take_their_time_give_the_digests_of_quick_ones(
            "looking ahead", scheduler, tmp_path
        )
