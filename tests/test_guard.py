"""What simulators do to their process reaches no other evaluation, and not our arithmetic."""

import ctypes
import gc
import itertools
import logging
import os
import platform
import random
import subprocess
import sys
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import checks, guard, programs, schedulers
from mpiabc.fingerprint import objects
from mpiabc.streams import stream_key
from tests import problems
from tests.conftest import HANGS, environment

LIBM = ctypes.CDLL("libm.so.6") if sys.platform == "linux" else None
DOWNWARD = 0x400 if platform.machine() == "x86_64" else 0x800000


def own_gauss(theta):
    return {"y": theta["mu"] + np.random.standard_normal() + random.gauss(0, 0.1)}


def with_rng(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal() + np.random.standard_normal()}


def pythons(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal() + random.gauss(0, 1)}


def own_block(theta):
    return {"y": theta["mu"] + np.random.standard_normal(len(theta["mu"]))}


def through_half_a_pair(theta, rng):
    """An odd number of normals: every second evaluation begins with what the one before has left."""
    return {"y": theta["mu"] + 0.5 * np.random.randn()}


def rounding_down(theta, rng):
    y = problems.gaussian(theta, rng)
    LIBM.fesetround(DOWNWARD)
    return y


GLOBAL = {
    "without rng": own_gauss,
    "numpy beside rng": with_rng,
    "python beside rng": pythons,
    "half a pair": through_half_a_pair,
}


def run(simulate, store, scheduler="serial", **options):
    return problems.sampler(60, (3, 1.5), simulate=simulate, **options).run(store, scheduler=scheduler)


@pytest.mark.long
@pytest.mark.parametrize("name", GLOBAL)
def test_global_random_numbers_are_those_of_the_evaluation_on_every_engine(name, tmp_path):
    np.random.seed(5)
    np.random.standard_normal()  # the other half of the pair waits for the first evaluation
    one = run(GLOBAL[name], tmp_path / "1.db")
    for i, scheduler in enumerate([schedulers.Processes(3), schedulers.Processes(2, start="spawn")]):
        other = run(GLOBAL[name], tmp_path / f"{i}.other.db", scheduler)
        assert problems.digests(other) == problems.digests(one)
    assert len(np.unique(one[0].summaries)) == 60


@pytest.mark.long
def test_vectorised_simulator_without_rng_gives_one_digest(tmp_path):
    found = [
        problems.digests(run(own_block, tmp_path / f"{i}.db", scheduler, vectorized=True))
        for i, scheduler in enumerate(["serial", schedulers.Processes(2)])
    ]
    assert found[0] == found[1]


@pytest.mark.long
def test_that_global_random_numbers_are_seeded_is_reported_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "mpiabc"):
        history = run(with_rng, tmp_path / "run.db", schedulers.Processes(2))
    assert sum("global random numbers" in record.message for record in caplog.records) == 1
    (note,) = history.warnings
    assert "draw from rng instead" in note
    assert run(own_gauss, tmp_path / "meant.db").warnings == []


def test_scripts_global_random_numbers_go_on_as_if_there_had_been_no_run(tmp_path):
    for simulate in (own_gauss, with_rng, problems.gaussian):
        np.random.seed(1)
        random.seed(1)
        expected = np.random.random(), random.random()
        np.random.seed(1)
        random.seed(1)
        run(simulate, tmp_path / f"{simulate.__name__}.db")
        assert (np.random.random(), random.random()) == expected


class Own:
    def __init__(self):
        self.rng = np.random.default_rng(1)

    def __call__(self, theta, rng):
        return problems.gaussian(theta, self.rng)


def deterministic(theta, rng):
    return {"y": theta["mu"]}


def test_randomness_of_the_simulators_own_is_reported_and_a_deterministic_simulator_is_not(tmp_path):
    (note,) = run(Own(), tmp_path / "own.db").warnings
    assert "drew nothing from rng" in note
    for simulate in (deterministic, problems.gaussian, own_gauss):
        assert run(simulate, tmp_path / f"{simulate.__name__}.db").warnings == []


def test_simulator_that_uses_rng_is_never_simulated_twice(tmp_path):
    seen = []

    def simulate(theta, rng, *, id):
        seen.append(id)
        return problems.gaussian(theta, rng)

    run(simulate, tmp_path / "run.db")
    assert len(seen) == len(set(seen))


@pytest.mark.long
@pytest.mark.skipif(guard._fenv is None, reason="the C library's fenv is not known here")
def test_rounding_mode_that_is_left_behind_reaches_nothing(tmp_path):
    quiet = problems.digests(run(problems.gaussian, tmp_path / "quiet.db"))
    try:
        for i, scheduler in enumerate(["serial", schedulers.Processes(2)]):
            history = run(rounding_down, tmp_path / f"{i}.db", scheduler)
            assert problems.digests(history) == quiet
            assert [note for note in history.warnings if "rounding mode" in note] == history.warnings != []
        LIBM.fesetround(DOWNWARD)  # of the script's own: left as it was, and kept out
        assert problems.digests(run(problems.gaussian, tmp_path / "script.db")) == quiet
        assert LIBM.fegetround() == DOWNWARD
    finally:
        LIBM.fesetround(0)


EXITING = """
import ctypes, sys
import mpiabc
from tests import problems

def simulate(theta, rng, *, id):
    if id.index == 37:
        ctypes.CDLL(None).exit(0)
    return problems.gaussian(theta, rng)

if __name__ == "__main__":
    problems.sampler(simulate=simulate, on_error=sys.argv[3]).run(sys.argv[1], scheduler=sys.argv[2])
    print("done")
"""


def exiting(store, scheduler, on_error):
    command = [sys.executable, "-c", EXITING, store, scheduler, on_error]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=HANGS)


@pytest.mark.skipif(sys.platform != "linux", reason="C's exit is caught on Linux")
@pytest.mark.parametrize("scheduler", ["serial", "processes"])
def test_exit_of_c_is_a_failure_with_its_address(scheduler, tmp_path):
    job = exiting(tmp_path / "run.db", scheduler, "raise")
    assert job.returncode == 1
    assert "SimulatorError: evaluation 0:37 failed on process" in job.stderr
    assert "the simulator ended the process: exit() of C, or STOP of Fortran" in job.stderr
    (failure,) = mpiabc.open(tmp_path / "run.db").failures
    assert (failure.generation, failure.index, failure.kind) == (0, 37, "exit")
    assert mpiabc.open(tmp_path / "run.db").reason.startswith("failed: ")


@pytest.mark.long
def test_run_that_rejects_failures_goes_on_without_what_ends_its_process(tmp_path):
    """In one go with children, and at the next start where the process itself was ended."""
    assert exiting(tmp_path / "children.db", "processes", "reject").returncode == 0
    starts = 1
    while (job := exiting(tmp_path / "run.db", "serial", "reject")).returncode:
        assert "run the same command again to go on without that evaluation" in job.stderr
        starts += 1
        assert starts < 6, job.stderr
    assert starts > 1
    digests = [problems.digests(mpiabc.open(tmp_path / name)) for name in ("run.db", "children.db")]
    assert digests[0] == digests[1]


@pytest.mark.long
def test_processes_that_a_simulator_forks_end_as_they_like(tmp_path):
    def simulate(theta, rng):
        import os

        if os.fork() == 0:
            ctypes.CDLL(None).exit(0)
        os.wait()
        return problems.gaussian(theta, rng)

    history = problems.sampler(20, (3,), simulate=simulate).run(tmp_path / "run.db", scheduler="serial")
    assert problems.digests(history) == problems.digests(
        problems.sampler(20, (3,)).run(tmp_path / "quiet.db", scheduler="serial")
    )


# What a script has set for its own functions: np.seterr, and its brother, the filter of warnings.

SET = {"divide": "raise", "over": "warn", "under": "print", "invalid": "raise"}


def setting(theta, rng):
    """Whether it finds what the script has set."""
    return {"y": theta["mu"] + rng.standard_normal(), "is_set": float(np.geterr() == SET)}


@pytest.mark.parametrize("scheduler", ["serial", "forked", "spawned", "threads", "map"])
def test_simulators_meet_the_errors_of_numpy_that_the_script_has_set_on_every_engine(scheduler, tmp_path):
    place = {
        "serial": lambda: "serial",
        "forked": lambda: schedulers.Processes(2, start="fork"),
        "spawned": lambda: schedulers.Processes(1, start="spawn"),
        "threads": lambda: schedulers.Futures(ThreadPoolExecutor(2)),
        "map": lambda: schedulers.Map(map),
    }[scheduler]()
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal(0, 2)), setting, {"y": 1.0, "is_set": 1.0}, timeout=None
    )
    sampler = mpiabc.ABCSMC(problem, 20, threshold=mpiabc.Listed([3, 1.5]), seed=1)
    with np.errstate(**SET):
        history = sampler.run(tmp_path / "run.db", scheduler=place)
        assert np.geterr() == SET
    assert all(np.all(population.summaries[:, 1] == 1.0) for population in history)


def test_each_function_of_the_users_meets_them(tmp_path):
    seen = {}

    def notes(function):
        def noted(*arguments):
            seen.setdefault(function.__qualname__, []).append(np.geterr())
            return function(*arguments)

        return noted

    class Noting(Foreign):
        sample, logpdf = notes(Foreign.sample), notes(Foreign.logpdf)

    class Kernel:
        @notes
        def fit(self, population):
            return Noting()

    class Threshold:
        @notes
        def epsilon(self, t, previous):
            return 3.0 - t

    @notes
    def simulate(theta, rng):
        return theta["mu"] + rng.standard_normal()

    @notes
    def summarize(data):
        return data

    @notes
    def distance(simulated, observed):
        return abs(simulated - observed)

    problem = mpiabc.Problem(Noting(), simulate, 1.0, summarize=summarize, distance=distance)
    sampler = mpiabc.ABCSMC(problem, 20, kernel=Kernel(), threshold=Threshold(), seed=1)
    quiet = problems.digests(sampler.run(tmp_path / "quiet.db", generations=2, scheduler="serial"))
    seen.clear()
    with np.errstate(**SET):
        history = sampler.run(tmp_path / "run.db", generations=2, scheduler="serial")
    assert problems.digests(history) == quiet
    assert len(seen) == 7
    for name, found in seen.items():
        # Checks of ours, whose verdicts do not depend on it, ask quietly.
        asked_by_checks = [how for how in found if how != SET] if name.startswith("Foreign") else []
        assert asked_by_checks.count(dict.fromkeys(SET, "ignore")) == len(asked_by_checks) < len(found), name
        assert found.count(SET) == len(found) - len(asked_by_checks)


def two_ends(theta, rng):
    """Far apart, so that kernels underflow between them; of a distance's squares, every second does."""
    return np.array([abs(theta["a"]), 1e-200]) + rng.standard_normal(2) * [1, 1e-200]


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "scheduler"),
    [
        ("plain", "serial"),
        ("local", schedulers.Processes(1)),
        ("recycled", schedulers.Processes(1, start="spawn")),
        ("levels", "serial"),
        ("static", schedulers.Map(map)),
    ],
)
def test_what_a_script_has_set_does_not_reach_what_is_ours(how, scheduler, tmp_path):
    problem = mpiabc.Problem(mpiabc.Prior(a=stats.uniform(-1000, 2000)), two_ends, np.array([900.0, 0.0]))
    settings = {
        "local": {"kernel": mpiabc.LocalGaussian()},
        "recycled": {"recycle": True},
        "levels": {"recycle": True, "weights": "levels"},
    }.get(how, {})
    sampler = mpiabc.ABCSMC(problem, 500, threshold=mpiabc.Listed([300, 100]), seed=1, **settings)
    quiet = sampler.run(tmp_path / "quiet.db", scheduler=scheduler)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        history = sampler.run(tmp_path / "run.db", scheduler=scheduler)
        assert problems.digests(history) == problems.digests(quiet)
        numbers = history[-1].mean(), history[-1].std(), history[-1].ess, history[-1].quantile([0.1, 0.9])
        assert all(np.all(np.isfinite(value)) for value in numbers)
    assert (history.failures, history.warnings) == ([], quiet.warnings)


def test_it_does_not_reach_what_is_asked_of_parts_of_ours():
    theta = np.array([[0.0], [1e-200], [1e200]])
    population = problems.population(theta, np.array([1.0, 1e-200, 1e-300]), np.zeros(3), theta)
    with np.errstate(all="raise"):
        assert population.ess == 1.0
        population.mean(), population.std(), population.quantile(0.5)
        population.resample(2, np.random.default_rng(1))
        proposal = mpiabc.Gaussian().fit(population)
        proposal.logpdf(proposal.sample(10, np.random.default_rng(1)))
        assert mpiabc.PNorm()(np.full(2, 1e200), np.zeros(2)) == np.inf
        assert mpiabc.Prior(a=stats.expon()).logpdf(np.array([[-1.0]])) == -np.inf


def test_pythons_advice_against_forks_is_no_error_where_warnings_are(tmp_path, monkeypatch):
    """From 3.12 on `os.fork` warns where a library has threads, of which most of NumPy's have some."""
    fork = os.fork

    def advised():
        warnings.warn("use of fork() may lead to deadlocks in the child", DeprecationWarning, stacklevel=2)
        return fork()

    monkeypatch.setattr(os, "fork", advised)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(problems.gaussian, tmp_path / "run.db", schedulers.Processes(1, start="fork"))


# Rejections.


def far(y):
    return abs(y["y"]) > 4


@pytest.mark.long
def test_reject_rejects_and_none_does_where_epsilon_is_declared(tmp_path):
    def rejecting(theta, rng):
        y = problems.gaussian(theta, rng)
        return mpiabc.REJECT if far(y) else y

    def early(theta, rng, *, epsilon):
        y = problems.gaussian(theta, rng)
        return None if far(y) and epsilon <= 3 else y

    def forgetful(theta, rng):
        problems.gaussian(theta, rng)

    plain = problems.digests(run(problems.gaussian, tmp_path / "plain.db"))
    assert problems.digests(run(rejecting, tmp_path / "a.db", schedulers.Processes(2))) == plain
    assert problems.digests(run(early, tmp_path / "b.db")) == plain
    with pytest.raises(mpiabc.ProblemError, match=r"the simulator returned None.*return mpiabc\.REJECT"):
        run(forgetful, tmp_path / "c.db", schedulers.Processes(2))


# Priors and kernels of others.


class Foreign:
    """A Gaussian, as a prior and a proposal; `wrong` says in what."""

    names = ("mu",)

    def __init__(self, wrong=""):
        self.wrong = wrong

    def sample(self, n, rng):
        return (np.random if self.wrong == "rng" else rng).standard_normal((n, 1)) * 2

    def logpdf(self, theta):
        if self.wrong == "writes":
            theta -= 1.0
        if self.wrong in ("nan", "-inf", "inf"):
            return np.full(len(theta), float(self.wrong))
        if self.wrong == "raises":
            raise ArithmeticError("no such density")
        sd = 3.0 if self.wrong == "width" else 2.0
        return -0.5 * np.square(theta[:, 0] / sd) - np.log(sd)


class Fits:
    def __init__(self, wrong):
        self.wrong = wrong

    def fit(self, population):
        return Foreign(self.wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("", ""), ("rng", "ignores rng"), ("width", "does not seem to belong"), ("nan", "is nan")],
)
def test_prior_and_kernel_whose_parts_do_not_fit_are_reported(wrong, message):
    for found in (
        checks.of_prior(Foreign(wrong), stream_key(1)),
        checks.of_proposal(Foreign(wrong), stream_key(1)),
    ):
        assert (message in found) if message else found == ""


class Marginal:
    """A Gaussian of one's own; `wrong` says in what."""

    def __init__(self, wrong=""):
        self.wrong = wrong

    def rvs(self, size, random_state):
        return random_state.normal(0, 2, size)

    def logpdf(self, x):
        sd = 3.0 if self.wrong == "width" else 2.0
        log = -0.5 * np.square(x / sd) - np.log(sd) - 0.5 * np.log(2 * np.pi)
        return {"density": np.exp(log), "scalar": log[0]}.get(self.wrong, log)

    def support(self):
        return (0.0, 1.0) if self.wrong == "support" else (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("", ""),
        ("density", "the marginal mu does not seem to belong"),
        ("width", "the marginal mu does not seem to belong"),
        ("scalar", "the marginal mu gives shape () for 2048 rows"),
        ("support", "draws lie outside"),
    ],
)
def test_marginal_whose_parts_do_not_fit_is_reported(wrong, message):
    found = checks.of_prior(mpiabc.Prior(mu=Marginal(wrong), sd=mpiabc.Uniform(0, 1)), stream_key(1))
    assert (message in found) if message else found == ""


@pytest.mark.long
@pytest.mark.parametrize("scheduler", ["serial", "processes"])
@pytest.mark.parametrize("wrong", ["writes", "nan", "-inf", "raises"])
def test_fault_of_a_kernel_is_a_failure_with_address_whatever_the_policy(wrong, scheduler, tmp_path):
    sampler = problems.sampler(kernel=Fits(wrong), on_error="reject")
    words = {"writes": "read-only", "raises": "no such density"}.get(wrong, "logpdf of the kernel's proposal")
    with pytest.raises(mpiabc.Error, match=r"evaluation 1:\d+") as error:
        sampler.run(tmp_path / "run.db", scheduler=scheduler)
    assert words in str(error.value)
    assert len(mpiabc.open(tmp_path / "run.db")) == 1


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["writes", "nan", "inf", "raises"])
def test_fault_of_a_prior_ends_the_run(wrong, tmp_path):
    problem = mpiabc.Problem(Foreign(wrong), problems.gaussian, {"y": 1.0}, on_error="reject")
    sampler = mpiabc.ABCSMC(problem, 20, threshold=mpiabc.Listed([3]), seed=1)
    with pytest.raises(mpiabc.Error, match=r"read-only|logpdf of the prior is|no such density"):
        sampler.run(tmp_path / "run.db", scheduler=schedulers.Processes(2))


def test_collapse_and_a_kernel_without_correlations_are_reported_once(tmp_path):
    def simulate(theta, rng):
        return np.fromiter(theta.values(), float) + rng.standard_normal(12)

    prior = mpiabc.Prior(**{f"x{i}": mpiabc.Normal(0, 1) for i in range(12)})
    sampler = mpiabc.ABCSMC(mpiabc.Problem(prior, simulate, np.zeros(12)), 10, seed=1)
    history = sampler.run(tmp_path / "run.db", generations=4, scheduler="serial")
    assert [("effective sample size" in note, "diagonal" in note) for note in history.warnings] == [
        (True, False),
        (False, True),
    ]
    assert sampler.run(tmp_path / "run.db", generations=5, scheduler="serial").warnings == history.warnings


def test_trackers_of_python_and_programs_that_ended_before_have_no_part_in_an_evaluation():
    """Rather than every run ending a second later in a script that has used multiprocessing."""
    resource_tracker.ensure_running()
    end = time.monotonic() + HANGS
    while programs.Programs().were_run():  # it has only just begun, and other tests may have left something
        assert time.monotonic() < end
        time.sleep(0.01)
    lease = programs.Programs()
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert lease.were_run()
    assert programs.Programs().were_run()  # it goes on, and may be asked
    program.stdin.close()
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    assert programs.Programs().were_run()  # nobody has waited for it, and a signal may have ended it
    assert not programs.Programs().were_run()
    lease = programs.Programs()
    program.wait()
    assert lease.were_run()
    assert not programs.Programs().were_run()


def test_libraries_that_draw_beside_evaluations_have_a_generator_of_their_own(monkeypatch):
    beside = types.ModuleType("distributed.beside")
    beside.random, beside.randint, beside.Random = random, random.randint, random.Random
    monkeypatch.setitem(sys.modules, "distributed.beside", beside)
    guard.part_random()
    before = random.getstate()
    assert 0 <= beside.random.random() < 1
    assert beside.randint(3, 3) == beside.random.choice([3]) == 3
    assert random.getstate() == before
    assert beside.random.Random is beside.Random is random.Random


@pytest.fixture
def imports_at_every_collection(monkeypatch):
    """A module appears whenever garbage is collected, as where another thread imports: at every step."""
    names = (f"beside_{n}" for n in itertools.count())

    def collected(phase, _):
        if phase == "stop":
            name = next(names)
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    before = gc.get_threshold()
    gc.freeze()  # what other tests have left is no part of this one, and takes long to look through
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    yield names
    gc.set_threshold(*before)
    gc.callbacks.remove(collected)
    gc.unfreeze()


def test_other_threads_may_import_while_modules_are_looked_at(imports_at_every_collection):
    guard.part_random()
    assert objects.holder(len) is None
    assert next(imports_at_every_collection) != "beside_0"


def test_filled_states_are_those_of_the_address_whatever_was_drawn_before(monkeypatch):
    """Half a pair of normal numbers is forgotten, and places that memory is not known of give the same."""

    def drawn():
        mixed = np.random.normal(), random.gauss(0, 1), random.getrandbits(40), np.random.randint(1 << 30)
        return *mixed, *np.random.random_sample(700), *(random.random() for _ in range(700))

    generators = guard.GlobalRandom((1, 2))
    with generators.restored():
        generators.fill(3, 4)
        first = drawn()
        for pair in (guard._PAIR, None):
            monkeypatch.setattr(guard, "_PAIR", pair)
            np.random.normal()
            random.gauss(0, 1)
            generators.fill(3, 4)
            assert drawn() == first
        generators.fill(3, 5)
        assert not set(drawn()) & set(first)
