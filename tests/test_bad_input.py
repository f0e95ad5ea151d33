"""Bad input gets one clear sentence before any work starts."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.actions import Open
from mpiabc.closed import committed
from mpiabc.evaluate import Level, evaluate
from mpiabc.ledger import Ledger
from tests import problems
from tests.conftest import Launcher, environment, environment_of

GOOD = mpiabc.Prior(mu=mpiabc.Normal(0, 2))


def never(theta, rng):
    raise AssertionError("no simulation may start")


def settings(**options):
    return mpiabc.ABCSMC(problems.problem(never), **{"population_size": 10, **options})


BAD = {
    "empty prior": (lambda: mpiabc.Prior(), "the prior is empty"),
    "prior that is no distribution": (lambda: mpiabc.Prior(mu=3), "parameter 'mu' has 3 as its prior"),
    "prior that is not frozen": (lambda: mpiabc.Prior(mu=stats.norm), "freeze it"),
    "uniform without width": (lambda: mpiabc.Uniform(1, 1), "no width"),
    "problem without prior": (lambda: mpiabc.Problem(stats.norm(), never, 1.0), "the prior is"),
    "simulator that is none": (lambda: mpiabc.Problem(GOOD, 3, 1.0), "simulate is 3, expected a callable"),
    "simulator of no argument": (
        lambda: mpiabc.Problem(GOOD, lambda: 1, 1.0),
        r"simulate\(theta, rng\) or simulate\(theta\)",
    ),
    "simulator with unknown arguments": (
        lambda: mpiabc.Problem(GOOD, lambda theta, rng, *, box: 1, 1.0),
        "keyword-only epsilon, id or comm",
    ),
    "simulator with a third argument": (
        lambda: mpiabc.Problem(GOOD, lambda theta, rng, box: 1, 1.0),
        r"the simulator is <lambda>\(theta, rng, box\)",
    ),
    "observed text": (lambda: mpiabc.Problem(GOOD, never, {"y": "three"}), "expected a number"),
    "observed nothing": (lambda: mpiabc.Problem(GOOD, never, {}), "observed data are empty"),
    "observed nan": (lambda: mpiabc.Problem(GOOD, never, float("nan")), "contain nan and nothing else"),
    "distance that is none": (lambda: mpiabc.Problem(GOOD, never, 1.0, distance=2), "distance is 2"),
    "weights of another size": (
        lambda: mpiabc.Problem(GOOD, never, 1.0, distance=mpiabc.PNorm(weights=[1, 2])),
        "2 weights for data of 1 numbers",
    ),
    "p below 1": (lambda: mpiabc.PNorm(p=0.5), "give p >= 1"),
    "unknown policy": (lambda: mpiabc.Problem(GOOD, never, 1.0, on_error="ignore"), "on_error='ignore'"),
    "policy that is a truth value": (
        lambda: mpiabc.Problem(GOOD, never, 1.0, on_error=True),
        "on_error=True",
    ),
    "policy that is an array": (lambda: mpiabc.Problem(GOOD, never, 1.0, on_error=np.ones(2)), "on_error="),
    "timeout in words": (lambda: mpiabc.Problem(GOOD, never, 1.0, timeout="1 h"), "timeout='1 h'"),
    "population of one": (lambda: settings(population_size=1), "whole number of at least 2"),
    "population of 2.5": (lambda: settings(population_size=2.5), "whole number"),
    "population of True": (lambda: settings(population_size=True), "whole number"),
    "seed that is an array": (lambda: settings(seed=np.ones(1, int)), "whole number of at least 0"),
    "seed below zero": (lambda: settings(seed=-1), "seed=-1"),
    "thresholds that do not fall": (lambda: mpiabc.Listed([4, 2, 2]), "does not fall"),
    "thresholds below zero": (lambda: mpiabc.Listed([-1]), ">= 0"),
    "thresholds in words": (lambda: mpiabc.Listed(["4", "2"]), "give a list of numbers"),
    "threshold that is no list": (lambda: mpiabc.Listed(4), "give a list of numbers"),
    "constant in words": (lambda: mpiabc.Constant("3"), "give a distance >= 0"),
    "constant that is masked": (lambda: mpiabc.Constant(np.ma.masked), "give a distance >= 0"),
    "constant of True": (lambda: mpiabc.Constant(True), "give a distance >= 0"),
    "start that is complex": (lambda: mpiabc.Quantile(start=3j), "give a threshold > 0"),
    "no thresholds": (lambda: mpiabc.Listed([]), "is empty"),
    "quantile of 1": (lambda: mpiabc.Quantile(1.0), "between 0 and 1"),
    "threshold that is none": (lambda: settings(threshold=0.5), "threshold=0.5"),
    "kernel that is none": (lambda: settings(kernel="gaussian"), "kernel='gaussian'"),
    "kernel of no width": (lambda: mpiabc.Gaussian(scale=0), "scale > 0"),
    "kernel of width True": (lambda: mpiabc.Gaussian(scale=True), "scale > 0"),
    "half a neighbour": (lambda: mpiabc.LocalGaussian(k=2.5), "whole number of at least 2 neighbours"),
    "several problems": (lambda: mpiabc.ABCSMC([1, 2], 10), "the problem is 1, expected an mpiabc.Problem"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_problem_or_settings(what):
    build, sentence = BAD[what]
    with pytest.raises(mpiabc.ProblemError, match=sentence) as error:
        build()
    assert "\n" not in str(error.value)


BAD_RUNS = {
    "no end": ({"generations": None}, "the run has no end"),
    "no generations": ({"generations": 0}, "generations=0"),
    "generations of True": ({"generations": True}, "generations=True"),
    "epsilon in words": ({"epsilon": "small"}, "epsilon='small'"),
    "walltime of True": ({"walltime": True}, "walltime=True"),
    "processes of True": ({"scheduler": mpiabc.schedulers.Processes(True)}, "at least 1"),
    "half a worker": ({"scheduler": mpiabc.schedulers.Map(map, workers=0.5)}, r"Map\(workers=0.5\): give a"),
    "simulations of 0.5": ({"simulations": 0.5}, "simulations=0.5"),
    "acceptance rate of 2": ({"acceptance_rate": 2}, "acceptance_rate=2"),
    "epsilon below zero": ({"epsilon": -1}, "epsilon=-1"),
    "walltime in words": ({"walltime": "two hours"}, "walltime='two hours' is not understood"),
    "no walltime": ({"walltime": 0}, "walltime=0"),
    "unknown scheduler": ({"scheduler": "slurm?"}, "unknown scheduler 'slurm\\?'"),
    "scheduler that is none": ({"scheduler": 4}, "unknown scheduler 4"),
    "no processes": ({"scheduler": mpiabc.schedulers.Processes(0)}, "at least 1"),
    "folder that is not there": ({"store": "nowhere/run.db"}, "does not exist"),
}


@pytest.mark.parametrize("what", BAD_RUNS)
def test_bad_run(what, tmp_path):
    options, sentence = BAD_RUNS[what]
    options = {"store": tmp_path / "run.db", "generations": 1, "scheduler": "serial"} | options
    with pytest.raises(mpiabc.Error, match=sentence) as error:
        settings().run(options.pop("store"), **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run.db").exists()


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (1.0, "it is float"),
        ({"z": 1.0}, '{"z": float}'),
        ({"y": [1.0, 2.0]}, r"array \(2,\)"),
        ({"y": 1.0, "z": 1.0}, '"z": float'),
        ({"y": "text"}, '{"y": str}'),
        ([1.0], "array"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "reject"])
def test_data_of_another_structure_are_found_by_one_simulation(returned, found, on_error, tmp_path):
    problem = problems.problem(lambda theta, rng: returned, on_error=on_error)
    with pytest.raises(mpiabc.ProblemError, match=f'{found}.*expected {{"y": float}}'):
        mpiabc.ABCSMC(problem, 10).run(tmp_path / "run.db", generations=1, scheduler="serial")


def test_vectorized_simulator_that_returns_one_row_is_found(tmp_path):
    problem = problems.problem(lambda theta, rng: {"y": 1.0}, vectorized=True)
    with pytest.raises(mpiabc.ProblemError, match="with a first axis of 256"):
        mpiabc.ABCSMC(problem, 10).run(tmp_path / "run.db", generations=1, scheduler="serial")


def test_store_that_cannot_be_written(tmp_path):
    os.mkdir(tmp_path / "run.db")
    with pytest.raises(mpiabc.StoreError, match="cannot be opened"):
        settings().run(tmp_path / "run.db", generations=1, scheduler="serial")


def test_store_of_another_program_is_left_alone(tmp_path):
    text, database = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("dear diary, " * 100)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    for path, sentence in [(text, "no SQLite database"), (database, "database of another program")]:
        before = path.read_bytes()
        for overwrite in (False, True):
            with pytest.raises(mpiabc.StoreError, match=sentence):
                settings().run(path, generations=1, scheduler="serial", overwrite=overwrite)
        assert path.read_bytes() == before


OTHERS = {
    "seed": {"seed": 2},
    "population_size": {"n": 50},
    "threshold": {"thresholds": (3, 2)},
    "kernel": {"kernel": mpiabc.LocalGaussian()},
    "observed data": {"observed": 2.0},
    "distance": {"distance": mpiabc.PNorm(1)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_store_of_another_run_is_refused_by_name_of_the_difference(what, tmp_path):
    store = tmp_path / "run.db"
    history = problems.sampler().run(store, scheduler="serial")
    before, settings_before = problems.digests(history), history.settings
    content = store.read_bytes()
    with pytest.raises(mpiabc.StoreError, match=f"holds a run with other settings .{what}"):
        problems.sampler(**OTHERS[what]).run(store, scheduler="serial")
    assert store.read_bytes() == content
    assert problems.digests(mpiabc.open(store)) == before
    again = problems.sampler(**OTHERS[what]).run(store, scheduler="serial", overwrite=True)
    assert again.settings != settings_before
    assert mpiabc.open(store).settings == again.settings


def test_static_and_dynamic_runs_are_not_mixed(tmp_path):
    from tests.cluster import Simulated, random_time

    problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    with pytest.raises(mpiabc.StoreError, match="scheduling: 'dynamic' there, 'static' here"):
        problems.sampler().run(tmp_path / "run.db", scheduler=Simulated(2, random_time, is_static=True))


@pytest.mark.long
@pytest.mark.parametrize(("mpirun", "python"), [("mpich", "openmpi"), ("openmpi", "mpich")])
def test_launcher_and_mpi_that_do_not_belong_together_are_reported(mpirun, python, tmp_path):
    """The mpirun of one MPI starts the Python of the other: N singletons."""
    mixed = Launcher("mixed", environment_of(mpirun), environment_of(python))
    job = mixed.run(2, "-m", "tests.programs.failing", "never", "auto", "raise", tmp_path / "run.db")
    assert job.returncode not in (0, 75)
    assert "the launcher started 2 ranks but MPI sees only this one" in job.stdout
    assert not (tmp_path / "run.db").exists()


def test_missing_mpi_library_names_the_extra():
    program = "import sys, mpiabc; sys.modules['mpi4py.MPI'] = None\nmpiabc.schedulers.MPI().leads()"
    job = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert job.returncode == 1
    assert "install `mpiabc[mpich]` or `mpiabc[openmpi]`" in job.stderr.strip().splitlines()[-1]


class Says:
    """A threshold that gives what it is asked for."""

    def __init__(self, value):
        self.value = value

    def epsilon(self, generation, previous):
        return self.value


@pytest.mark.parametrize(
    "value", ["3", True, 3j, [3.0, "2"], np.ones(1), np.nan, np.ma.masked, b"3"], ids=str
)
def test_epsilon_that_is_no_number_is_refused_with_its_threshold(value, tmp_path):
    sampler = settings(threshold=Says(value))
    with pytest.raises(mpiabc.ProblemError, match=r"Says gives .* a real number") as error:
        sampler.run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run.db").exists()


WEIGHTLESS = {
    "prior nan": (np.nan, 0.0, "logpdf of the prior is nan"),
    "prior inf": (np.inf, 0.0, "logpdf of the prior is inf"),
    "kernel nan": (0.0, np.nan, "logpdf of the kernel's proposal is nan"),
    "kernel inf": (0.0, np.inf, "logpdf of the kernel's proposal is inf"),
    "kernel without": (0.0, -np.inf, "logpdf of the kernel's proposal is -inf"),
    "both": (np.inf, np.inf, "logpdf of the prior is inf"),
    "neither": (
        1.0,
        2.0,
        "although logpdf asked again gives 1 for the prior and 2 for the kernel's proposal",
    ),
}


@pytest.mark.parametrize("where", ["one", "all"])
@pytest.mark.parametrize("what", WEIGHTLESS)
def test_accepted_evaluation_without_a_weight_is_refused_with_whose_density_it_is(what, where):
    """Rather than committed: the file could not be read again."""
    prior, proposal, sentence = WEIGHTLESS[what]
    problem = problems.problem()
    ledger = Ledger(3, 5)
    records = evaluate(problem, Level(3, (1, 2), 9.0, problem.prior, 5), 0, 40)
    weights, bad = records.rows.log_weights.copy(), slice(2, 3) if where == "one" else slice(None)
    with np.errstate(invalid="ignore"):
        weights[bad] = np.nan if what == "neither" else np.float64(prior) - proposal
    ledger.tell(replace(records, rows=replace(records.rows, log_weights=weights)))
    first = 2 if where == "one" else 0
    found = Level(3, (1, 2), 9.0, _Density(proposal), 5)
    with pytest.raises(mpiabc.ProblemError, match=sentence) as error:
        committed(replace(problem, prior=_Density(prior)), Open(found, ledger), None)
    id, mu = records.rows.ids[first], float(records.rows.theta[first, 0])
    assert f"in evaluation 3:{id}, theta: mu={mu!r}" in str(error.value)


class _Density:
    names = ("mu",)

    def __init__(self, value):
        self.value = value

    def sample(self, n, rng):
        raise AssertionError("nothing is sampled")

    def logpdf(self, theta):
        return np.full(len(theta), self.value)


def test_degenerate_population_is_named(tmp_path):
    class Point:
        names = ("mu", "fixed")

        def sample(self, n, rng):
            return np.column_stack([rng.standard_normal(n), np.ones(n)])

        def logpdf(self, theta):
            return np.where(theta[:, 1] == 1, 0.0, -np.inf)

    problem = mpiabc.Problem(Point(), problems.gaussian, {"y": 0.0})
    with pytest.raises(mpiabc.ProblemError, match="'fixed' has the same value in all particles"):
        mpiabc.ABCSMC(problem, 10).run(tmp_path / "run.db", generations=2, scheduler="serial")
