"""Runs as users make them: stopping rules, going on, several ranks, signals, the example."""

import json
import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mpiabc
from tests import problems
from tests.conftest import HANGS, ROOT, environment, quick


def quantiles(n=50, **options):
    return mpiabc.ABCSMC(problems.problem(**options), n, seed=1)


RULES = {
    "generations": {"generations": 4},
    "epsilon": {"epsilon": 0.5},
    "simulations": {"simulations": 1000},
    "acceptance_rate": {"acceptance_rate": 0.1},
}


@pytest.mark.parametrize("scheduler", ["serial", mpiabc.schedulers.Processes(2)], ids=repr)
@pytest.mark.parametrize("rule", RULES)
def test_first_rule_that_holds_ends_the_run_and_changes_nothing(rule, scheduler, tmp_path):
    """Any stopped run is a prefix of a longer one."""
    long = quantiles().run(tmp_path / "long.db", generations=7, scheduler="serial")
    short = quantiles().run(tmp_path / "rule.db", scheduler=scheduler, **RULES[rule])
    assert short.reason == rule
    assert problems.digests(short) == problems.digests(long)[: len(short)]
    simulations = sum(p.simulations for p in short)
    if rule == "generations":
        assert len(short) == 4
    if rule == "epsilon":
        assert short[-1].epsilon <= 0.5 < short[-2].epsilon
    if rule == "simulations":
        assert simulations <= 1000 < simulations + long[len(short)].simulations
    if rule == "acceptance_rate":
        assert short[-1].acceptance_rate >= 0.1 > long[len(short)].acceptance_rate


@pytest.mark.long
def test_static_run_obeys_its_rules_too(tmp_path):
    from tests.cluster import Simulated, random_time

    for rule, options in RULES.items():
        scheduler = Simulated(3, random_time, is_static=True)
        history = quantiles().run(tmp_path / "run.db", scheduler=scheduler, overwrite=True, **options)
        assert history.reason == rule


def test_finished_run_is_extended_by_larger_values(tmp_path):
    long = quantiles().run(tmp_path / "long.db", generations=5, scheduler="serial")
    for generations in (2, 2, 3, 5):
        history = quantiles().run(tmp_path / "run.db", generations=generations, scheduler="serial")
        assert len(history) == generations
        assert history.reason == "generations"
    assert problems.digests(history) == problems.digests(long)


def test_seed_that_is_not_given_is_drawn_and_kept(tmp_path):
    def run(path, generations):
        abc = mpiabc.ABCSMC(problems.problem(), 50)
        return abc.run(tmp_path / path, generations=generations, scheduler="serial")

    first, other = problems.digests(run("a.db", 2)), problems.digests(run("b.db", 2))
    assert first != other
    again = run("a.db", 3)
    assert problems.digests(again)[:2] == first
    seeded = mpiabc.ABCSMC(problems.problem(), 50, seed=again.settings["seed"])
    assert problems.digests(
        seeded.run(tmp_path / "c.db", generations=3, scheduler="serial")
    ) == problems.digests(again)


def test_sample_yields_what_is_committed(tmp_path):
    store = tmp_path / "run.db"
    for t, population in enumerate(quantiles().sample(store, generations=3, scheduler="serial")):
        assert mpiabc.open(store)[t].digest() == population.digest()
        if t == 1:
            break
    assert len(mpiabc.open(store)) == 2
    assert len(quantiles().run(store, generations=3, scheduler="serial")) == 3


def test_joint_prior_is_any_object_with_two_methods(tmp_path):
    class Triangle:
        """Uniform on 0 < a < b < 1."""

        names = ("a", "b")

        def sample(self, n, rng):
            return np.sort(rng.random((n, 2)), axis=1)

        def logpdf(self, theta):
            a, b = theta.T
            return np.where((a > 0) & (a < b) & (b < 1), np.log(2), -np.inf)

    problem = mpiabc.Problem(Triangle(), lambda theta, rng: theta["a"] + theta["b"], 1.0)
    history = mpiabc.ABCSMC(problem, 200, seed=1).run(
        tmp_path / "run.db", generations=4, scheduler=mpiabc.schedulers.Processes(2)
    )
    assert np.all(history[-1]["a"] < history[-1]["b"])
    assert history[-1].simulations < history[-1].evaluations  # proposals outside cost ids only


def test_lambdas_and_closures_travel_to_new_interpreters(tmp_path):
    shift = 0.5
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal()), lambda theta, rng: theta["mu"] + shift * rng.standard_normal(), 1.0
    )
    digests = [
        problems.digests(
            mpiabc.ABCSMC(problem, 50, seed=1).run(
                tmp_path / "run.db", generations=2, scheduler=scheduler, overwrite=True
            )
        )
        for scheduler in ("serial", mpiabc.schedulers.Processes(2, start="spawn"))
    ]
    assert digests[0] == digests[1]


def test_global_random_state_is_left_alone(tmp_path):
    before = np.random.get_state()[1].tolist()
    problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert np.random.get_state()[1].tolist() == before


def test_each_generation_is_logged_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mpiabc"):
        problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    lines = [record.getMessage() for record in caplog.records if "workers simulated" in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["generation 0", "generation 1", "generation 2"]


@pytest.mark.long
def test_live_line_is_for_terminals_only(tmp_path, capsys):
    slow = problems.sampler(simulate=problems.gaussian_slow, n=60)
    slow.run(tmp_path / "run.db", scheduler="serial")
    assert capsys.readouterr().err == ""
    slow.run(tmp_path / "run.db", scheduler="serial", progress=True, overwrite=True)
    shown = capsys.readouterr().err
    assert "generation 2, epsilon 0.8:" in shown
    assert "/60 accepted" in shown
    assert "simulations/s" in shown
    assert "1/1 busy" in shown


def test_walltime_stops_resumable_with_status_75(tmp_path):
    program = (
        "import mpiabc\nfrom tests import problems\n"
        "problem = problems.problem(problems.gaussian_slow)\n"
        "abc = mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Constant(0.5), seed=1)\n"
        f"abc.run({str(tmp_path / 'run.db')!r}, generations=1000, walltime=1.0, scheduler='processes')\n"
    )
    job = subprocess.run([sys.executable, "-c", program], env=environment())
    assert job.returncode == 75
    assert mpiabc.open(tmp_path / "run.db").reason.startswith("interrupted: walltime reached in generation ")


@pytest.mark.long
@pytest.mark.parametrize("number", quick([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], signal.SIGTERM))
@pytest.mark.parametrize("scheduler", ["serial", "processes"])
def test_signal_stops_resumable_with_status_75(number, scheduler, tmp_path):
    program = (
        "import mpiabc\nfrom tests.programs import endless\nfrom tests import problems\n"
        "problem = problems.problem(endless.gaussian)\n"
        "abc = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Constant(0.5), seed=1)\n"
        f"abc.run({str(tmp_path / 'run.db')!r}, generations=1000, scheduler={scheduler!r})\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not problems.committed(tmp_path / "run.db"):
        time.sleep(0.1)
        assert job.poll() is None
    job.send_signal(number)
    _, output = job.communicate(timeout=HANGS)
    assert job.returncode == 75, output
    reason = mpiabc.open(tmp_path / "run.db").reason
    assert reason.startswith(f"interrupted: stopped by {number.name} in generation ")
    assert output.count("; run the same command again to continue\n") == 1


# Inside an MPI job.


def test_ranks_get_a_history_or_none_and_communicators_are_respected(mpi, tmp_path):
    """pytest on every rank of a job of three: see programs/inside_mpi.py."""
    options = ["-q", "-o", "addopts=", "--with-mpi", "-p", "no:cacheprovider"]
    job = mpi.run(3, "-m", "pytest", *options, "tests/programs/inside_mpi.py")
    assert job.returncode == 0, job.stdout
    assert job.stdout.count("4 passed") == 3


def test_rank_with_another_problem_ends_the_run_and_is_named(mpi, tmp_path):
    job = mpi.run(2, "-m", "tests.programs.unseeded", tmp_path / "run.db")
    assert job.returncode == 1
    assert "rank 1 of 2" in job.stdout
    assert "built another problem than rank 0: its observed data differ" in job.stdout
    assert job.stdout.count("ProblemError:") == 1


def test_error_before_the_run_is_reported_once_and_ends_all_ranks(mpi, tmp_path):
    job = mpi.run(3, "-m", "tests.programs.failing", "never", "mpi", "raise", tmp_path / "nowhere" / "run.db")
    assert job.returncode == 1
    assert job.stdout.count("StoreError: the folder of") == 1


# The example.


@pytest.mark.parametrize("ranks", [2])
@pytest.mark.long
def test_influenza_example_runs_on_ranks_and_gives_the_serial_answer(mpi, ranks, tmp_path):
    options = ["--population", 60, "--acceptance-rate", 0.15]
    example = ROOT / "examples" / "influenza.py"

    def outputs(name):
        return ["--store", tmp_path / f"{name}.db", "--picture", tmp_path / f"{name}.png"]

    job = mpi.run(ranks, example, *options, *outputs("ranks"))
    assert job.returncode == 0, job.stdout
    assert "ill in all, which was not fitted: 512" in job.stdout
    assert "90 % of predictions" in job.stdout
    serial = subprocess.run(
        [sys.executable, example, *map(str, options + outputs("serial")), "--scheduler", "serial"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    ranks_digests, serial_digests = (
        json.dumps(problems.digests(mpiabc.open(tmp_path / f"{name}.db"))) for name in ("ranks", "serial")
    )
    assert ranks_digests == serial_digests
    assert serial.stdout.count("digest") == 1
