"""What is said of a run in words, each beside a run, or numbers, of which it is not said."""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, replace
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest

import mpiabc
from mpiabc.analysis import diagnostics, pictures
from mpiabc.analysis.diagnostics import Severity, diagnose
from mpiabc.analysis.estimates import errors, estimated
from mpiabc.analysis.steps import fall, step_of, steps, totals
from mpiabc.driver import Progressed
from mpiabc.population import Population
from mpiabc.store import live
from mpiabc.store.schema import put
from tests.conftest import imported

imported("matplotlib")


def simulate(theta, rng):
    noise = rng.standard_normal((len(theta["mu"]), 2))
    return {"y": np.stack([theta["mu"], 3 * theta["edge"]], axis=1) + 0.3 * noise}


def problem(simulate=simulate, observed=(1.0, 3.1), **options):
    """`edge` would be more than 1, and ends at 1; the data say nothing of `free`."""
    prior = {"mu": mpiabc.Normal(0, 2), "edge": mpiabc.Uniform(0, 1), "free": mpiabc.Uniform(0, 1)}
    return mpiabc.Problem(prior, simulate, {"y": np.array(observed)}, vectorized=True, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = tmp_path_factory.mktemp("run") / "run.db"
    return mpiabc.ABCSMC(problem(), 400, seed=1).run(store, generations=6, scheduler="serial")


def of(history, topic, course=None):
    return [finding for finding in diagnose(history, course) if finding.topic == topic]


def changed(run, tmp_path, **values):
    """A copy of the run, with other values in its table of settings."""
    path = tmp_path / "copy.db"
    path.write_bytes(run.path.read_bytes())
    with closing(sqlite3.connect(path)) as db, db:
        for key, value in values.items():
            put(db, key, value)
    db.close()
    return mpiabc.open(path)


def test_each_finding_is_one_sentence_and_the_worst_comes_first(run):
    found = diagnose(run)
    assert [finding.severity for finding in found] == sorted(
        (finding.severity for finding in found), key=list(Severity).index
    )
    for finding in found:
        assert finding.text[0].isupper()
        assert finding.text.endswith(".")
        assert ". " not in finding.text


def test_a_parameter_that_presses_against_the_priors_edge_is_named_and_no_other(run):
    (edge,) = [finding for finding in of(run, "prior") if finding.severity is Severity.WARNING]
    assert "edge at its upper limit 1)" in edge.text
    assert "mu" not in edge.text.split("(")[1]


def test_a_parameter_of_which_the_data_say_nothing_is_named_and_no_other(run):
    (left,) = [finding for finding in of(run, "prior") if finding.severity is Severity.NOTE]
    assert left.text.startswith("The posterior of free is its prior")


def test_an_integer_presses_against_its_edge(tmp_path):
    def counted(theta, rng):
        return {"y": theta["n"] + 0.2 * rng.standard_normal(len(theta["n"]))}

    given = mpiabc.Problem({"n": mpiabc.Integer(1, 8)}, counted, {"y": 9.0}, vectorized=True)
    history = mpiabc.ABCSMC(given, 200, seed=1).run(tmp_path / "run.db", generations=3, scheduler="serial")
    (edge,) = of(history, "prior")
    assert "n at its upper limit 8" in edge.text


def test_data_that_the_model_misses_are_named(tmp_path):
    history = mpiabc.ABCSMC(problem(observed=(1.0, 9.0)), 200, seed=1).run(
        tmp_path / "run.db", generations=3, scheduler="serial"
    )
    (missed,) = of(history, "data")
    assert missed.severity is Severity.WARNING
    assert "Of 2 observed numbers 1 lie" in missed.text
    assert "y[1]" in missed.text


def test_data_among_the_simulations_are_good(run):
    (found,) = of(run, "data")
    assert found.severity is Severity.GOOD


def few(run, n, weights=None):
    """The course of the run, had its last population so many particles."""
    last = run[-1]
    part = last.taken(np.arange(n))
    part = part if weights is None else part.with_values(weights=np.array(weights))
    return [*steps(run)[:-1], step_of(part)]


@pytest.mark.parametrize(
    ("n", "severity"), [(400, Severity.GOOD), (60, Severity.NOTE), (20, Severity.PROBLEM)]
)
def test_few_effective_particles_are_reported(run, n, severity):
    (found,) = of(run, "ess", few(run, n))
    assert found.severity is severity
    assert f"of {n} particles" in found.text


def test_uneven_weights_matter_more_than_few_particles(run):
    uneven = [0.2 / 60] * 60 + [0.8 / 40] * 40  # 60 of 100 are effective
    for weights, severity in (
        ([0.01] * 100, Severity.NOTE),
        (uneven, Severity.NOTE),
        ([0.1 / 60] * 60 + [0.9 / 40] * 40, Severity.WARNING),
    ):
        assert [found.severity for found in of(run, "ess", few(run, 100, weights))] == [severity]


def test_failures_come_before_what_a_larger_population_would_mend(run, monkeypatch):
    monkeypatch.setattr(diagnostics, "totals", lambda _: SimpleNamespace(failures=500, simulations=1000))
    found = [f.topic for f in diagnose(run, few(run, 100, [0.1 / 60] * 60 + [0.9 / 40] * 40))]
    assert found.index("failures") == 0 < found.index("ess")


def test_beside_a_problem_nothing_is_called_good(run):
    found = diagnose(run, few(run, 20))
    assert found[0].severity is Severity.PROBLEM
    assert all(finding.severity is not Severity.GOOD for finding in found)


UNITS = {
    "one of two": ({"a": 1000.0, "b": 1.0}, mpiabc.PNorm(), "a"),
    "the largest": ({"a": 1000.0, "b": 1.0}, mpiabc.PNorm(p=np.inf), "a"),
    "several of a key": ({"a": np.full(3, 1000.0), "b": 1.0}, mpiabc.PNorm(), "a"),
    "one of a key": ({"b": np.array([1.0, 1000.0, 1.0])}, mpiabc.PNorm(), "b[1]"),
    "alike": ({"a": 1.0, "b": 1.0}, mpiabc.PNorm(), None),
    "a long one": ({"a": np.full(30, 1.0), "b": 1.0}, mpiabc.PNorm(), None),
    "alone": ({"a": 1000.0}, mpiabc.PNorm(), None),
    "beside a constant": ({"a": 1000.0, "b": 0.0}, mpiabc.PNorm(), None),
    "scaled": ({"a": 1000.0, "b": 1.0}, mpiabc.PNorm(scale="mad"), None),
    "weighted": ({"a": 1000.0, "b": 1.0}, mpiabc.PNorm(weights={"a": 1.0, "b": 2.0}), None),
}


@pytest.mark.parametrize("case", UNITS)
def test_a_statistic_that_drowns_the_others_is_named(case, tmp_path):
    units, distance, name = UNITS[case]

    def measured(theta, rng):
        return {
            key: theta[key] * unit + unit * 0.1 * rng.standard_normal(np.shape(unit))
            for key, unit in units.items()
        }

    given = mpiabc.Problem(
        {"a": mpiabc.Normal(0, 1), "b": mpiabc.Normal(0, 1)},
        measured,
        {key: 0 * unit for key, unit in units.items()},
        distance=distance,
    )
    history = mpiabc.ABCSMC(given, 100, seed=1).run(tmp_path / "run.db", generations=3, scheduler="serial")
    found = of(history, "distance")
    assert [f.severity for f in found] == [Severity.WARNING] * (name is not None)
    assert all(f"The statistic {name} makes up 9" in f.text and 'PNorm(scale="mad")' in f.text for f in found)


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_posterior_of_few_particles_presses_against_no_edge(seed, tmp_path):
    """It scatters around its prior, and is dense at the edges as anywhere."""
    history = mpiabc.ABCSMC(problem(), 100, seed=seed).run(
        tmp_path / "run.db", generations=5, scheduler="serial"
    )
    edge, left = of(history, "prior")
    assert (edge.severity, left.severity) == (Severity.WARNING, Severity.NOTE)
    assert "(edge at its upper limit 1)" in edge.text
    assert "of free is its prior" in left.text
    assert "not informed by the data" in left.text


def test_one_particle_with_much_weight_is_reported(run):
    heavy = [0.3] + [0.7 / 199] * 199
    (found,) = of(run, "kernel", few(run, 200, heavy))
    assert "30% of all weight" in found.text
    assert not of(run, "kernel")


def with_epsilons(run, *epsilons):
    course = steps(run)[-len(epsilons) :]
    return [replace(step, epsilon=epsilon) for step, epsilon in zip(course, epsilons, strict=True)]


@pytest.mark.parametrize(
    ("epsilons", "is_stalled"),
    [
        ((1.0, 0.999, 0.995), True),
        ((1.0, 0.999, 0.8), False),
        ((1.0, 1.0), False),
        ((np.inf, 1.0, 1.0), False),
        ((np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0])), True),
        ((np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([1.0, 1.5])), False),
    ],
    ids=["stalled", "falls", "two of them", "infinite before", "several", "one of several falls"],
)
def test_an_epsilon_that_has_stalled_is_reported(run, epsilons, is_stalled):
    assert [f.severity for f in of(run, "epsilon", with_epsilons(run, *epsilons))] == (
        [Severity.WARNING] if is_stalled else []
    )


def test_a_listed_threshold_may_stay_where_it_is(run, tmp_path):
    settings = run.settings | {"threshold": "Listed((1.0, 1.0, 1.0))"}
    copy = changed(run, tmp_path, settings=json.dumps(settings))
    assert not of(copy, "epsilon", with_epsilons(run, 1.0, 1.0, 1.0))


def test_an_infinite_threshold_is_the_prior(tmp_path):
    store = tmp_path / "run.db"
    history = mpiabc.ABCSMC(problem(), 200, seed=1).run(store, generations=1, scheduler="serial")
    (found,) = of(history, "epsilon")
    assert found.severity is Severity.PROBLEM
    assert "prior" in found.text


def test_acceptance_that_has_become_rare_is_reported(run):
    course = steps(run)
    rare = [*course[:-1], replace(course[-1], acceptance_rate=4e-4, evaluations=10**6, accepted=400)]
    (found,) = of(run, "acceptance", rare)
    assert "one of 2500 simulations" in found.text.lower()
    assert not of(run, "acceptance", course)


def test_a_posterior_that_still_changes_is_reported(run, tmp_path):
    store = tmp_path / "run.db"
    history = mpiabc.ABCSMC(problem(), 200, seed=1).run(store, generations=3, scheduler="serial")
    (found,) = of(history, "change")
    assert found.severity in (Severity.WARNING, Severity.NOTE)
    assert "sd smaller by" in found.text


def test_chance_alone_is_no_change(run):
    """The same posterior twice: what differs is what errors allow."""
    rng = np.random.default_rng(1)
    pair = [
        run[-1].with_values(theta=rng.standard_normal((400, 3)), weights=np.full(400, 1 / 400)) for _ in "ab"
    ]
    assert dict(diagnostics._changes(*pair)) == {}
    wider = pair[1].with_values(theta=pair[1].theta * 2)
    assert set(dict(diagnostics._changes(wider, pair[1]))) == {"mu", "edge", "free"}


def test_failures_are_counted_and_what_they_mean_is_said(tmp_path):
    def broken(theta, rng):
        y = simulate(theta, rng)["y"]
        y[theta["free"] > 0.9] = np.nan
        return {"y": y}

    given = problem(broken, on_error="reject")
    history = mpiabc.ABCSMC(given, 200, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    (found,) = of(history, "failures")
    assert found.severity is Severity.WARNING
    assert f"Of {totals(history).simulations} simulations {totals(history).failures} failed" in found.text


@pytest.mark.parametrize(
    ("reason", "severity", "sentence"),
    [
        ("generations", Severity.GOOD, "the number of generations asked for ended it"),
        ("interrupted: walltime reached", Severity.WARNING, "run the same command again"),
        ("failed: evaluation 3:17: no", Severity.PROBLEM, "mpiabc replay"),
        (None, Severity.WARNING, "ended without a word"),
    ],
    ids=["complete", "interrupted", "failed", "killed"],
)
def test_how_a_run_has_ended_is_reported(run, tmp_path, reason, severity, sentence):
    (found,) = of(changed(run, tmp_path, reason=reason), "run")
    assert found.severity is severity
    assert sentence in found.text


def test_a_run_that_goes_on_is_no_killed_one(run, tmp_path):
    copy = changed(run, tmp_path, reason=None)
    progressed = Progressed(6, 0.5, 400, 120, 900, 0, 3.0, 2, 2)
    sign = live.Sign(progressed, time.time(), time.time(), "host", 1)
    live.path_of(copy.path).write_text(json.dumps(asdict(sign)))
    (found,) = of(copy, "run")
    assert found.severity is Severity.NOTE
    assert "generation 6 has 120 of 400 accepted" in found.text


def test_a_run_without_generations_has_nothing_to_judge(run, tmp_path):
    path = tmp_path / "empty.db"
    path.write_bytes(run.path.read_bytes())
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM population")
        put(db, "generations", 0)
    db.close()
    (found,) = of(mpiabc.open(path), "generations")
    assert "nothing to judge" in found.text


def test_what_the_user_has_learnt_and_other_versions_are_reported(run, tmp_path):
    versions = run.settings["versions"] | {"NumPy": "1.0.1"}
    notes = {"changes 3: x": "from generation 3 on the run has other code or values: x", "batch": "too large"}
    copy = changed(
        run, tmp_path, notes=json.dumps(notes), settings=json.dumps(run.settings | {"versions": versions})
    )
    assert [f.severity for f in of(copy, "changes")] == [Severity.NOTE]
    assert [f.text for f in of(copy, "batch")] == ["Too large."]
    (differ,) = of(copy, "versions")
    assert "NumPy 1.0.1 there" in differ.text
    assert not of(run, "versions")


def test_a_model_that_has_died_out_and_one_of_few_particles_are_reported(tmp_path):
    def plain(theta, rng):
        return {"y": theta["mu"] + rng.standard_normal(len(theta["mu"]))}

    given = [
        mpiabc.Problem({"mu": mpiabc.Normal(m, 0.3)}, plain, {"y": 0.0}, vectorized=True, name=f"at {m}")
        for m in (0, 2.2, 40)
    ]
    history = mpiabc.ABCSMC(given, 200, seed=1).run(tmp_path / "run.db", generations=3, scheduler="serial")
    shares = history[-1].model_probabilities()
    assert shares[2] == 0 < shares[1]
    found = of(history, "models")
    assert "No particle is left of at 40" in next(f.text for f in found if f.severity is Severity.NOTE)
    if history[-1].of("at 2.2").ess < 30:
        assert "are left of at 2.2" in next(f.text for f in found if f.severity is Severity.WARNING)


# What findings rest on.


def test_errors_are_as_large_as_estimates_scatter():
    """Weighted draws of a normal: standard errors are the scatter of what 400 repetitions give."""
    rng = np.random.default_rng(1)
    found, estimated = [], []
    for _ in range(400):
        theta = 1.5 * rng.standard_normal((300, 1))
        log = -0.5 * theta[:, 0] ** 2 * (1 - 1 / 2.25)
        population = weighted(theta, np.exp(log))
        found.append((population.mean()[0], population.std()[0]))
        estimated.append(np.ravel(errors(population)))
    ratio = np.mean(estimated, axis=0) / np.std(found, axis=0)
    assert np.all((ratio > 0.9) & (ratio < 1.1)), ratio  # 400 repetitions: 3.5 % each


def weighted(theta, weights):
    n = len(theta)
    return Population(
        names=("x",), theta=theta, weights=weights / weights.sum(), ids=np.arange(n), distances=np.zeros(n),
        summaries=np.zeros((n, 0)), generation=0, epsilon=1.0, evaluations=n, simulations=n, failures=0,
        log_evidence=0.0, dispatched=n, seconds=1.0,
    )  # fmt: skip


def test_equal_weights_have_the_errors_of_the_textbook(run):
    x = np.random.default_rng(1).standard_normal((1000, 1))
    (row,) = estimated(weighted(x, np.ones(1000)))
    assert row.mean_error == pytest.approx(x.std() / np.sqrt(1000))
    assert row.sd_error == pytest.approx(1 / np.sqrt(2000), rel=0.1)
    assert row.ess == pytest.approx(1000)
    assert row.low < row.median < row.high


def test_equal_particles_have_no_error():
    (row,) = estimated(weighted(np.ones((5, 1)), np.ones(5)))
    assert (row.mean, row.sd, row.mean_error, row.sd_error, row.ess) == (
        1.0,
        0.0,
        0.0,
        0.0,
        pytest.approx(5.0),
    )


def test_a_course_reads_some_generations_and_knows_the_sums_of_all(run):
    course = steps(run, most=3)
    assert [step.generation for step in course] == [0, 2, 4, 5]
    assert totals(run).simulations == sum(population.simulations for population in run)
    known = {step.generation: step for step in course}
    assert steps(run, most=3, known=known)[1] is course[1]
    assert fall(course[:1]) is None
    assert fall(course[1:]) == 1 - course[-1].epsilon / course[1].epsilon


# Pictures.


def test_pictures_are_those_that_apply_and_say_what_they_show(run):
    from matplotlib import pyplot

    kinds = ("pairs", "predictive", "models", "scales", "workers")
    found = list(pictures.pictures(run, kinds, dpi=30))
    assert [p.kind for p in found] == ["pairs", "predictive", "workers"]
    for picture in found:
        assert picture.png.startswith(b"\x89PNG")
        assert picture.uri.startswith("data:image/png;base64,")
        assert picture.title in picture.alt
    assert pyplot.get_fignums() == []


def test_pictures_may_be_drawn_by_several_threads(run):
    alone, found = pictures.png(run, "workers", dpi=30), []
    threads = [Thread(target=lambda: found.append(pictures.png(run, "workers", dpi=30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


def test_a_kind_that_there_is_not_is_refused(run):
    with pytest.raises(mpiabc.ProblemError, match="kind='pie': give pairs, marginals"):
        pictures.png(run, "pie")
