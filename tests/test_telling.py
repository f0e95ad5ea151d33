"""What is said of a run: why it ended, where simulations fail, how these were called, what columns mean."""

import re

import numpy as np
import pytest

import mpiabc
from mpiabc.cli import main
from tests import problems
from tests.conftest import imported

ALIKE = ("weight", "distance", "id", "generation")


def test_parameters_keep_their_names_in_data_frames(tmp_path):
    pandas = imported("pandas")
    prior = mpiabc.Prior(**{name: mpiabc.Normal(0, 2) for name in (*ALIKE, "id_")})
    problem = mpiabc.Problem(prior, lambda theta, rng: theta["id"], 1.0)
    history = mpiabc.ABCSMC(problem, 30, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    frame, population = history[-1].to_dataframe(), history[-1]
    assert list(frame) == [*ALIKE, "id_", "weight_", "distance_", "id__"]
    np.testing.assert_array_equal(frame[list(population.names)], population.theta)
    np.testing.assert_array_equal(frame["weight_"], population.weights)
    np.testing.assert_array_equal(frame["id__"], population.ids)
    every = history.to_dataframe()
    assert isinstance(every, pandas.DataFrame)
    assert every["generation_"].tolist() == [0] * 30 + [1] * 30
    np.testing.assert_array_equal(every["generation"][30:], population["generation"])


def test_other_parameters_have_the_columns_that_they_always_had(tmp_path):
    imported("pandas")
    history = problems.sampler().run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert list(history.to_dataframe()) == ["mu", "weight", "distance", "id", "generation"]


def whole(theta, rng):
    return {"y": float(round(theta["mu"]))}


ENDS = {
    "a list": ({"threshold": mpiabc.Listed([3, 2])}, "threshold"),
    "a quantile": ({"threshold": mpiabc.Quantile(0.9)}, "threshold: no distance is smaller"),
    "recycling": (
        {"threshold": mpiabc.Quantile(0.9), "recycle": True},
        "threshold: all particles meet the next one",
    ),
}


class Stubborn(mpiabc.Quantile):
    """A threshold that gives what it gave before, once all distances are equal."""

    def epsilon(self, generation, previous):
        return super().epsilon(generation, previous) if generation < 2 else previous.epsilon


@pytest.mark.parametrize("end", ENDS)
def test_the_reason_says_why_there_is_no_further_threshold(end, tmp_path):
    options, reason = ENDS[end]
    if end == "recycling":
        options = options | {"threshold": Stubborn(0.9)}
    abc = mpiabc.ABCSMC(problems.problem(whole), 30, seed=1, **options)
    history = abc.run(tmp_path / "run.db", generations=30, scheduler="serial")
    assert history.reason == reason
    assert abc.run(tmp_path / "run.db", generations=31, scheduler="serial").reason == reason


def fails_far_out(theta, rng):
    if theta["mu"] > 2:
        raise RuntimeError("the pump broke")
    return {"y": theta["mu"] + rng.standard_normal() if theta["mu"] < 1.9 else np.nan}


def test_show_says_where_failures_lie(tmp_path, capsys):
    path = tmp_path / "run.db"
    abc = mpiabc.ABCSMC(problems.problem(fails_far_out, on_error="reject"), 60, seed=1)
    history = abc.run(path, generations=3, scheduler="serial")
    kinds = [failure.kind for failure in history.failures]
    assert main(["show", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    message = f"exception {kinds.count('exception')}, nan {kinds.count('nan')}"
    assert f"failed evaluations: {len(kinds)} ({message})" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("where they lie"))
    assert lines[at + 1].split() == ["lowest", "25%", "50%", "75%", "highest"]
    failed, first, last = (line.split()[-5:] for line in lines[at + 2 : at + 5])
    assert lines[at + 2].startswith(f"mu   failed ({len(kinds)})")
    assert float(failed[0]) > 1.9 > float(first[-1])
    assert float(last[2]) == pytest.approx(history[-1].quantile(0.5)[0], rel=1e-3)


def test_show_of_failures_before_the_first_population_has_those_alone(tmp_path, capsys):
    def simulate(theta, rng):
        raise RuntimeError("always")

    path = tmp_path / "run.db"
    with pytest.raises(mpiabc.SimulatorError):
        problems.sampler(simulate=simulate).run(path, scheduler="serial")
    main(["show", str(path)])
    output = capsys.readouterr().out
    assert "failed (1)" in output
    assert "generation 0  " not in output.split("where they lie")[1]


CALLS = {
    "key": (lambda theta, rng: {"y": theta["beta"]}, "KeyError: 'beta'", "theta, rng"),
    "attribute": (lambda theta, rng: {"y": theta.mu}, "AttributeError: .*'mu'", "theta, rng"),
    "type": (lambda theta: {"y": theta + 1}, "TypeError: .*", "theta"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("vectorized", [False, True])
def test_of_a_simulator_that_expects_another_call_it_is_said_how_it_was_called(call, vectorized, tmp_path):
    simulate, said, parameters = CALLS[call]
    values = "arrays" if vectorized else "floats"
    hint = rf"it was called as simulate\({parameters}\), theta a dict of {values} with the keys 'mu'"
    problem = problems.problem(simulate, vectorized=vectorized)
    with pytest.raises(mpiabc.SimulatorError, match=hint):
        mpiabc.ABCSMC(problem, 30, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    (failure, *_) = mpiabc.open(tmp_path / "run.db").failures
    assert re.match(f"{said}; {hint}", failure.error)


@pytest.mark.parametrize("part", ["distance", "summarize"])
def test_what_other_functions_raise_is_no_matter_of_that_call(part, tmp_path):
    problem = problems.problem(**{part: lambda *data: data[0]["z"]})
    with pytest.raises(mpiabc.SimulatorError) as error:
        mpiabc.ABCSMC(problem, 30, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert "KeyError: 'z'" in str(error.value)
    assert "it was called" not in str(error.value)


def test_failures_that_are_only_counted_are_counted_by_show(tmp_path, capsys):
    """Of each generation a hundred are kept; the run knows of all."""

    def simulate(theta, rng):
        if rng.random() < 0.8:
            raise ValueError("no")
        return problems.gaussian(theta, rng)

    sampler = problems.sampler(n=60, simulate=simulate, on_error="reject")
    history = sampler.run(tmp_path / "run.db", generations=1, scheduler="serial")
    assert history[0].failures > len(history.failures) == 100
    assert main(["show", str(tmp_path / "run.db")]) == 0
    said = capsys.readouterr().out
    assert f"failed evaluations: {history[0].failures}\n" in said
    assert f"{history[0].failures - 100} more are counted alone" in said
