"""What goes wrong is said so that who meets it first can mend it: what, where, and what to write instead."""

import math
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import mpiabc
from mpiabc import cli, stopping
from mpiabc.analysis.plots.seen import _wanted
from mpiabc.arguments import whole_of
from mpiabc.cli.command import COMMANDS, in_options
from mpiabc.cli.commands import parser
from mpiabc.fingerprint.words import in_words
from tests.conftest import environment, imported

PRIOR = mpiabc.Prior(mu=mpiabc.Normal(0, 2))


def series(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(5)}


def mean(data):
    return {"mean": np.mean(data["y"], axis=-1)}


def error_of(problem, tmp_path, kind=mpiabc.Error):
    with pytest.raises(kind) as error:
        mpiabc.ABCSMC(problem, 10, seed=1).run(
            tmp_path / "run.db", generations=1, scheduler="serial", overwrite=True
        )
    return str(error.value)


# Structure.


@pytest.mark.parametrize("is_vectorized", [False, True])
@pytest.mark.parametrize("observed", [{"y": np.zeros(5)}, {"mean": np.zeros(5)}, np.zeros(5)])
def test_raw_observed_data_beside_a_summary_are_said_to_be_what_it_returns(observed, is_vectorized, tmp_path):
    def many(theta, rng):
        return {"y": theta["mu"][:, None] + rng.standard_normal((len(theta["mu"]), 5))}

    options = {"vectorized": True} if is_vectorized else {}
    simulate = many if is_vectorized else series
    problem = mpiabc.Problem(PRIOR, simulate, observed, summarize=mean, **options)
    assert "give observed=summarize(data)" in error_of(problem, tmp_path)


def test_raw_observed_data_that_are_no_numbers_are_said_to_be_what_summarize_returns():
    with pytest.raises(mpiabc.ProblemError, match=r"observed=summarize\(data\)"):
        mpiabc.Problem(PRIOR, series, ["ill", "well"], summarize=mean)


def test_without_a_summary_nothing_is_said_of_one(tmp_path):
    assert "summarize" not in error_of(mpiabc.Problem(PRIOR, series, {"z": 1.0}), tmp_path)


@pytest.mark.parametrize("on_error", ["raise", "reject", 2])
def test_data_of_another_structure_are_reported_with_evaluation_and_theta(on_error, tmp_path):
    message = error_of(mpiabc.Problem(PRIOR, series, {"z": 1.0}, on_error=on_error), tmp_path)
    assert "evaluation 0:" in message
    assert "theta: mu=" in message


# nan.


def spoilt(name, place, value):
    """A simulator with one number that is none."""

    def simulate(theta, rng):
        data = {"a": theta["mu"], "y": theta["mu"] + rng.standard_normal((2, 3))}
        if place is None:
            return data | {name: value}
        data[name][place] = value
        return data

    return simulate


OBSERVED = {"a": 0.0, "y": np.zeros((2, 3))}


def spoilt_distance(simulated, observed):
    return abs(simulated["a"]) + np.abs(simulated["y"] - observed["y"]).sum()


@pytest.mark.parametrize("distance", [None, spoilt_distance])
@pytest.mark.parametrize(
    ("simulate", "message"),
    [
        (spoilt("a", None, math.nan), "of the simulated data a is nan"),
        (spoilt("y", (1, 2), math.nan), "of the simulated data y[1,2] is nan"),
        (spoilt("y", 1, math.nan), "of the simulated data y[1,0] is nan, and 2 more are not finite"),
    ],
)
def test_a_distance_of_nan_is_traced_to_the_number_that_made_it(simulate, message, distance, tmp_path):
    problem = mpiabc.Problem(PRIOR, simulate, OBSERVED, distance=distance)
    found = error_of(problem, tmp_path, mpiabc.SimulatorError)
    assert "evaluation 0:0" in found
    assert found.endswith(message)


def test_a_nan_that_the_distance_makes_of_finite_data_is_its_own(tmp_path):
    problem = mpiabc.Problem(PRIOR, series, {"y": np.zeros(5)}, distance=lambda x, y: math.nan)
    assert "although the simulated data are finite" in error_of(problem, tmp_path)


def test_a_nan_of_labelled_and_of_vectorised_data_is_named_too(tmp_path):
    def many(theta, rng):
        y = theta["mu"][:, None] + rng.standard_normal((len(theta["mu"]), 3))
        y[:, 2] = np.nan
        return {"y": y}

    problem = mpiabc.Problem(PRIOR, many, {"y": np.array([0.0, 0.0, 0.0])}, vectorized=True)
    assert "y[2] is nan" in error_of(problem, tmp_path)
    pandas = imported("pandas")
    labelled = pandas.Series([0.0, 0.0], index=["Bath", "Hull"])
    problem = mpiabc.Problem(PRIOR, lambda theta, rng: labelled + np.array([0.0, math.nan]), labelled)
    assert "y[Hull] is nan" in error_of(problem, tmp_path)


def test_the_label_of_one_number_is_that_of_all_labels():
    from mpiabc.structure import Structure

    for example in (1.0, [1.0, 2.0], {"a": 1.0, "y": np.zeros((2, 3)), "z": [1.0]}):
        structure = Structure(example)
        assert [structure.label(i) for i in range(structure.size)] == structure.labels()


# Warnings of a run.


def failing(theta, rng):
    if theta["mu"] > 1:
        raise ValueError("too large")
    return theta["mu"] + rng.standard_normal()


def far(simulated, observed):
    return math.inf if simulated > 1 else abs(simulated - observed)


def plain(theta, rng):
    return theta["mu"] + rng.standard_normal()


@pytest.mark.parametrize(
    ("simulate", "options", "message"),
    [
        (failing, {"on_error": "reject"}, r"of \d+ simulations of generation 0 \d+ failed"),
        (plain, {"distance": far}, r"of 50 particles of generation 0 \d+ are infinitely far"),
        (lambda theta, rng: 3.0, {}, "all 50 particles of generation 0 have the same data"),
        (plain, {"distance": lambda x, y: 2.0}, "all 50 particles .* have the same distance"),
    ],
)
def test_what_is_simulated_in_vain_is_among_the_warnings_of_a_run_once(simulate, options, message, tmp_path):
    problem = mpiabc.Problem(PRIOR, simulate, 0.0, **options)
    sampler = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Quantile(0.9), seed=1)
    history = sampler.run(tmp_path / "run.db", generations=2, scheduler="serial")
    (note,) = history.warnings
    assert re.match(message, note)


def test_a_few_failures_infinite_distances_and_equal_ones_of_exact_data_are_no_warnings(tmp_path):
    def simulate(theta, rng):
        if theta["mu"] > 4.5:  # one in eighty
            raise ValueError
        return float(round(theta["mu"]))

    def distance(simulated, observed):
        return math.inf if simulated > 3 else abs(simulated - observed)

    problem = mpiabc.Problem(PRIOR, simulate, 0.0, distance=distance, on_error="reject")
    sampler = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Listed([math.inf, 1, 0]), seed=1)
    history = sampler.run(tmp_path / "run.db", scheduler="serial", generations=3)
    assert not history[-1].distances.any()
    assert history.warnings == []


@pytest.mark.parametrize("n", [12, 60])
def test_few_counts_that_are_alike_are_no_warning(n, tmp_path):
    problem = mpiabc.Problem(PRIOR, lambda theta, rng: {"cases": 0}, {"cases": 0})
    history = mpiabc.ABCSMC(problem, n, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert any("have the same data" in note for note in history.warnings) == (n > 50)


# Interrupts.


@pytest.mark.parametrize("generation", [1, 3])
def test_a_run_that_is_stopped_names_the_generation_that_is_open_then(generation, tmp_path):
    """Generations that ended just before the signal are in doubt, and taken back."""
    struck = []

    def simulate(theta, rng, *, id):
        if id == (generation, 3) and not struck:
            struck.append(id)
            os.kill(os.getpid(), signal.SIGINT)
        return theta["mu"] + rng.standard_normal()

    sampler = mpiabc.ABCSMC(mpiabc.Problem(PRIOR, simulate, 1.0), 20, seed=1)
    with pytest.raises(mpiabc.Interrupted) as stopped:
        sampler.run(tmp_path / "run.db", generations=9, scheduler="serial")
    n = len(mpiabc.open(tmp_path / "run.db"))
    assert f"stopped by SIGINT in generation {n}" in str(stopped.value)
    if n < generation - 1:
        assert f": generations {n} to {generation - 1} ended less than 1 s before" in str(stopped.value)
    assert mpiabc.open(tmp_path / "run.db").reason == f"interrupted: {stopped.value.why}"


# The command line.


def mpiabc_of(*words, setup=""):
    program = f"import sys\n{setup}\nfrom mpiabc.cli import main\nsys.exit(main({list(map(str, words))!r}))"
    return subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize(("words", "status"), [(["run", "fit.py"], 75), (["show", "run.db"], 130)])
def test_ctrl_c_before_a_command_has_begun_is_a_sentence(words, status, capsys, monkeypatch):
    def interrupted(words):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("mpiabc.cli.commands.carried_out", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(words) == status
    finally:
        signal.signal(signal.SIGINT, before)
    again = "; run the same command again to continue" if status == 75 else ""
    assert capsys.readouterr().err == f"mpiabc: stopped by SIGINT{again}\n"


def test_ctrl_c_while_the_file_of_a_problem_is_loaded_is_a_sentence(tmp_path, capsys):
    file, before = tmp_path / "fit.py", signal.getsignal(signal.SIGINT)
    file.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    try:
        assert cli.main(["run", str(file), "--population-size", "10", "--generations", "1"]) == 75
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "mpiabc: stopped by SIGINT; run the same command again to continue\n"


STRUCK = """
import mpiabc.cli as cli, mpiabc.cli.commands as commands

def carried_out(words):
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")

commands.carried_out = carried_out
raise SystemExit(cli.main(["run", "fit.py"]))
"""


def test_ctrl_c_while_modules_are_imported_leaves_the_promised_status(tmp_path):
    """Python ends by the signal itself where a KeyboardInterrupt has left the exec of a text."""
    (tmp_path / "struck.py").write_text(STRUCK)
    command = [sys.executable, "-m", "struck"]
    job = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (job.returncode, job.stderr.count("\n")) == (75, 1)


def test_a_command_imports_what_it_needs(tmp_path):
    setup = "import atexit\natexit.register(lambda: print(*sys.modules))"
    job = mpiabc_of("show", tmp_path / "run.db", setup=setup)
    assert "there is no file" in job.stderr
    loaded = set(job.stdout.split())
    assert "mpiabc.cli.show" in loaded
    heavy = {"mpiabc.cli.run", "mpiabc.cli.doctor", "mpiabc.smc", "mpiabc.pool", "mpiabc.analysis.plots"}
    assert not heavy & loaded


def test_a_command_that_there_is_not_gets_the_list_of_all(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["shwo", "run.db"])
    assert ended.value.code == 2
    output = capsys.readouterr().err
    assert "invalid choice: 'shwo'" in output
    assert all(name in output for name in COMMANDS)


# What differs from the run in a file.


def noise(sd):
    def simulate(theta, rng):
        return {"y": theta["mu"] + sd * rng.standard_normal(3)}

    return simulate


def began(tmp_path, problem, **options):
    return mpiabc.ABCSMC(problem, 10, seed=1).run(
        tmp_path / "run.db", generations=1, scheduler="serial", **options
    )


def refusal(tmp_path, first, second):
    began(tmp_path, first)
    with pytest.raises(mpiabc.StoreError) as error:
        began(tmp_path, second)
    return str(error.value)


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        ([1.0, 2.0, 9.0], "observed data: y[2] is 3.0 there, 9.0 here)"),
        ([0.0, 2.0, 9.0], "observed data: y[0] is 1.0 there, 0.0 here, and 1 more differ)"),
        ([1.0, 2.0], """observed data: '{"y": array (3,)}' there, '{"y": array (2,)}' here)"""),
    ],
)
def test_observed_data_that_differ_are_shown_by_their_numbers(observed, message, tmp_path):
    simulate = noise(1.0)
    problems = (mpiabc.Problem(PRIOR, simulate, {"y": np.array(y)}) for y in ([1.0, 2.0, 3.0], observed))
    assert message in refusal(tmp_path, *problems)


def test_content_of_which_digests_are_kept_is_said_to_differ(tmp_path):
    def problem(weights, noises):
        return mpiabc.Problem(
            PRIOR, noise(noises), {"y": np.ones(3)}, distance=mpiabc.PNorm(weights={"y": np.array(weights)})
        )

    message = refusal(tmp_path, problem([1.0, 2.0, 3.0], 1.0), problem([1.0, 2.0, 4.0], 1.0))
    assert re.search(
        r"distance: .*weights=.*'y': array \(3,\)}\)\", the content of which differs \(digest \w{16} there, "
        r"\w{16} here\)",
        message,
    )


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ("function script.simulate", "the code of simulate of the script"),
        ("function model.Model.run", "the code of model.Model.run"),
        ("class script.Model", "the bases or attributes of the class Model of the script"),
        ("library libfast.so", "the compiled library libfast.so"),
        ("global script.K: 2 there, 3 here", "global K of the script: 2 there, 3 here"),
        (
            "simulate.t: str of 9 0123456789abcdef there, str of 8 0123456789abcde0 here",
            "simulate.t: str of 9 there, str of 8 here",
        ),
    ],
)
def test_what_differs_is_described_by_what_kind_of_thing_it_is(difference, words):
    assert in_words([difference]) == [words]
    assert in_words(["cpython"]) == ["cpython"]


# Times.


@pytest.mark.parametrize("text", ["2", "59", "1.5"])
def test_a_walltime_without_a_unit_that_may_be_minutes_or_hours_is_seconds_and_says_so(text, caplog):
    assert stopping.seconds(text) == float(text)
    said = f"walltime={text} says no unit and is taken for seconds: give {text}s, {text}m or {text}h"
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize("given", ["2h", "59s", "1:30:00", "60", 2.0])
def test_a_walltime_that_cannot_be_mistaken_is_taken_in_silence(given, caplog):
    assert stopping.seconds(given) > 0
    assert not caplog.records


# What is given in the place of an object.


def a_problem(**options):
    return mpiabc.Problem(PRIOR, plain, 0.0, **options)


class Simulator:
    def __call__(self, theta, rng):
        return 0.0


NO_OBJECTS = {
    "kernel": (lambda: mpiabc.ABCSMC(a_problem(), 9, kernel=mpiabc.Gaussian), "kernel=Gaussian is a class"),
    "threshold": (lambda: mpiabc.ABCSMC(a_problem(), 9, threshold=mpiabc.Quantile), "give an object of it"),
    "acceptor": (lambda: mpiabc.ABCSMC(a_problem(), 9, acceptor=mpiabc.Noise), "acceptor=Noise is a class"),
    "size": (lambda: mpiabc.ABCSMC(a_problem(), mpiabc.sizes.ESS), "population_size=ESS is a class"),
    "distance": (lambda: a_problem(distance=mpiabc.PNorm), "distance=PNorm is a class"),
    "simulate": (lambda: mpiabc.Problem(PRIOR, Simulator, 0.0), "give an object of it, simulate=Simulator"),
    "marginal": (lambda: mpiabc.Prior(mu=mpiabc.Normal), r"mu=Normal is a class: .* mu=Normal\(...\)"),
    "part": (lambda: mpiabc.Aggregate({"y": mpiabc.PNorm}), "'y'=PNorm is a class"),
    "scheduler": (lambda: mpiabc.Pool(mpiabc.schedulers.Serial).__enter__(), "scheduler=Serial is a class"),
    "text": (
        lambda: mpiabc.ABCSMC(a_problem(), 9, kernel="gaussian"),
        r"kernel='gaussian' is text: give an object, such as kernel=mpiabc.Gaussian\(\)",
    ),
    "rule": (lambda: mpiabc.ABCSMC(a_problem(), 9, threshold="median"), r"such as threshold=mpiabc.Quantile"),
    "norm": (lambda: a_problem(distance="euclidean"), r"such as distance=mpiabc.PNorm\(\)"),
    "weights": (
        lambda: mpiabc.Problem(PRIOR, plain, {"a": 0.0, "b": 1.0}, distance=mpiabc.PNorm(weights={"z": 1})),
        "PNorm has a weight of 'z', and the observed data have 'a', 'b'",
    ),
}


@pytest.mark.parametrize("what", NO_OBJECTS)
def test_what_is_no_object_is_reported_with_what_to_write(what):
    make, sentence = NO_OBJECTS[what]
    with pytest.raises(mpiabc.Error, match=sentence):
        make()


@pytest.mark.parametrize("returned", [-1.0, {"y": np.zeros((2, 2))}, None, "far"])
def test_who_has_left_out_observed_data_is_reported_of_that(returned, tmp_path):
    problem = mpiabc.Problem(PRIOR, lambda theta, rng: returned, None)
    assert "no observed data" in error_of(problem, tmp_path)
    if returned is not None:
        assert "give observed= if it is data" in error_of(problem, tmp_path)


def test_prediction_without_trust_says_what_to_pass(tmp_path):
    history = began(tmp_path, mpiabc.Problem(PRIOR, plain, 0.0))
    with pytest.raises(mpiabc.StoreError, match=r"give trust=True .*, or problem=problem, the one that was"):
        mpiabc.open(history.path).predict(3, scheduler="serial")


# Words of Python's on the command line.


def of_several():
    models = [SimpleNamespace(name=name) for name in ("one", "two")]
    mpiabc.Population.check_one(SimpleNamespace(models=models), "a picture")


def of_no_model():
    models = [SimpleNamespace(name=name) for name in ("one", "two")]
    mpiabc.Population.index_of(SimpleNamespace(models=models), "three")


@pytest.mark.parametrize(
    ("words", "fails", "message"),
    [
        (
            ["plot", "run.db", "pairs"],
            of_several,
            "a picture of a population of several models: give one of them by --model NAME; there are 'one', "
            "'two'",
        ),
        (
            ["export", "run.db", "--to", "csv"],
            of_several,
            "give one of them by --model NAME; there are 'one'",
        ),
        (["plot", "run.db", "pairs"], of_no_model, "there is 'one', 'two'; give one by --model NAME"),
        (["plot", "run.db", "pairs"], lambda: _wanted(["nu"], ("beta",)), "--names 'nu': 'nu' is no param"),
        (["plot", "run.db", "predictive"], lambda: whole_of("n", 0, 1), "--draws 0: give a whole number"),
    ],
)
def test_the_command_line_names_its_own_options(words, fails, message):
    with pytest.raises(mpiabc.Error) as error:
        fails()
    assert message in in_options(str(error.value), parser(words).parse_args(words))
