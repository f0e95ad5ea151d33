"""Simulations from a population, and the accepted ones by name."""

import hashlib

import numpy as np
import pytest

import mpiabc
from mpiabc.named import by_name, shapes_from
from mpiabc.streams import Purpose
from tests import problems


def series(theta, rng):
    return {"in_bed": theta["mu"] + rng.standard_normal(14), "total": theta["mu"]}


OBSERVED = {"in_bed": np.linspace(0, 2, 14), "total": 1.0}
PRIOR = mpiabc.Prior(mu=mpiabc.Normal(0, 2))


def run(store, simulate=series, observed=OBSERVED, n=60, prior=PRIOR, keep="accepted", **options):
    problem = mpiabc.Problem(prior, simulate, observed, **options)
    history = mpiabc.ABCSMC(problem, n, seed=1, keep=keep).run(store, generations=2, scheduler="serial")
    return history, problem


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return run(tmp_path_factory.mktemp("fit") / "run.db")


# By name.


def test_accepted_simulations_are_found_by_name(fitted):
    population = fitted[0][-1]
    assert population.data("in_bed").shape == (60, 14)
    np.testing.assert_array_equal(population.data("in_bed"), population.summaries[:, :14])
    np.testing.assert_array_equal(population.data("total"), population.summaries[:, 14])
    assert fitted[0].shapes == (("in_bed", (14,)), ("total", ()))


def test_names_are_those_of_the_summary_where_it_gave_others(tmp_path):
    history, _ = run(
        tmp_path / "run.db",
        observed={"mean": 1.0, "ends": np.array([0.0, 2.0])},
        summarize=lambda data: {"mean": data["in_bed"].mean(), "ends": data["in_bed"][[0, -1]]},
    )
    assert history[-1].data("ends").shape == (60, 2)
    with pytest.raises(mpiabc.ProblemError, match=r"data of 'in_bed': the simulated data are 'mean', 'ends'"):
        history[-1].data("in_bed")


def test_data_that_are_one_thing_need_no_name(tmp_path):
    history, problem = run(tmp_path / "run.db", lambda theta, rng: rng.random((2, 3)), np.zeros((2, 3)))
    assert history[-1].data().shape == (60, 2, 3)
    np.testing.assert_array_equal(history[-1].data(), history[-1].data("y"))
    predicted = history.predict(7, problem=problem, scheduler="serial")
    assert predicted["y"].shape == (7, 2, 3)


def test_populations_of_one_model_and_of_a_run_in_progress_know_names_too(tmp_path):
    def other(theta, rng):
        return series(theta, rng)

    one, two = (mpiabc.Problem(PRIOR, simulate, OBSERVED) for simulate in (series, other))
    abc = mpiabc.ABCSMC([one, two], 40, seed=1)
    (first,) = abc.sample(tmp_path / "run.db", generations=1, scheduler="serial")
    assert first.data("in_bed").shape == (40, 14)
    assert len(first.of("other").data("in_bed")) == np.count_nonzero(first.model == 1)


def test_what_is_not_kept_is_reported(tmp_path):
    history, problem = run(tmp_path / "run.db", keep="theta")
    with pytest.raises(mpiabc.ProblemError, match='keep="theta" keeps none'):
        history[-1].data("in_bed")
    assert history.predict(5, problem=problem, scheduler="serial")["in_bed"].shape == (5, 14)


def test_single_precision_and_holes_stay_what_they_are(tmp_path):
    def holes(theta, rng):
        return np.array([theta["mu"], np.nan], np.float32)

    history, problem = run(
        tmp_path / "run.db", holes, np.array([1, np.nan], np.float32), distance=mpiabc.PNorm(missing="ignore")
    )
    assert history[-1].data().dtype == np.float32
    assert np.isnan(history[-1].data()[:, 1]).all()
    assert np.isnan(history.predict(5, problem=problem, scheduler="serial")["y"][:, 1]).all()


@pytest.mark.parametrize(
    ("labels", "shapes"),
    [
        (["y"], (("y", ()),)),
        (["y[0,0]", "y[0,1]", "y[1,0]", "y[1,1]"], (("y", (2, 2)),)),
        (["a[mon]", "a[tue]", "b"], (("a", (2,)), ("b", ()))),
        (["x[0]", "x[1]", "x[3]"], (("x", (3,)),)),
    ],
)
def test_labels_of_older_files_tell_names_and_shapes(labels, shapes):
    assert shapes_from(labels) == shapes
    assert [part.shape[1:] for part in by_name(np.zeros((2, len(labels))), shapes).values()] == [
        shape for _, shape in shapes
    ]


# From the posterior.


def test_predictions_are_the_same_on_any_scheduler_and_each_time(fitted):
    history, problem = fitted
    digests = {
        history.predict(50, problem=problem, scheduler=scheduler).digest()
        for scheduler in ("serial", "serial", "processes", mpiabc.schedulers.Map(map))
    }
    assert len(digests) == 1
    others = [
        history.predict(50, problem=problem, scheduler="serial", **of) for of in ({"seed": 1}, {"t": 0})
    ]
    assert not digests & {other.digest() for other in others}
    more = history.predict(80, problem=problem, scheduler="serial", theta=history[-1].theta[:8])
    assert len(more.theta) == 8


def test_a_file_stays_as_it_is(fitted):
    before = hashlib.sha256(fitted[0].path.read_bytes()).digest()
    fitted[0].predict(5, trust=True, scheduler="serial")
    assert hashlib.sha256(fitted[0].path.read_bytes()).digest() == before


def test_predictions_have_the_posterior_predictive_distribution(tmp_path):
    history = problems.sampler(400, vectorized=True, simulate=problems.gaussian_vectorized).run(
        tmp_path / "run.db", scheduler="serial"
    )
    found = history.predict(20_000, trust=True, scheduler="serial")
    last = history[-1]
    assert found["y"].shape == (20_000,)
    assert found.observed["y"] == 1.0
    # Of 20 000 draws the mean has an error of .01, the variance one of .02: four of each.
    assert abs(found["y"].mean() - last.mean()["mu"]) < 0.04
    assert abs(found["y"].var() - (last.std()["mu"] ** 2 + 1)) < 0.08
    assert abs(np.cov(found["y"], found.theta["mu"])[0, 1] - last.std()["mu"] ** 2) < 0.08


def test_a_prediction_has_random_numbers_that_no_evaluation_had(tmp_path):
    """The same addresses with the run's own streams would give the run's own simulations."""
    assert Purpose.PREDICTION == 8
    history, problem = run(tmp_path / "run.db", lambda theta, rng: rng.random(), 0.5)
    drawn = history.predict(200, t=0, problem=problem, scheduler="serial")["y"]
    assert not set(drawn) & set(history[0].data())
    assert len(set(drawn)) == 200


def test_simulators_of_global_numbers_are_seeded_for_each(tmp_path):
    def lottery(theta):
        return theta["mu"] + np.random.standard_normal()

    history, problem = run(tmp_path / "run.db", lottery, 1.0)
    digests = {
        history.predict(20, problem=problem, scheduler=scheduler).digest()
        for scheduler in ("serial", "processes")
    }
    assert len(digests) == 1
    assert len(set(history.predict(20, problem=problem, scheduler="serial")["y"])) == 20


@pytest.mark.parametrize(("batch", "sizes"), [(None, [256, 256, 88]), (512, [512, 512, 512])])
def test_vectorised_simulators_get_blocks(batch, sizes, tmp_path):
    def simulate(theta, rng):
        n = len(theta["mu"])
        return {"y": theta["mu"] + 0 * rng.standard_normal(n), "size": np.full(n, n)}

    observed = {"y": 1.0, "size": 256}
    history, problem = run(tmp_path / "run.db", simulate, observed, vectorized=True, batch=batch)
    found = history.predict(600, problem=problem, scheduler="serial")
    np.testing.assert_array_equal(found["y"], found.theta["mu"])
    assert found["size"][[0, 256, 599]].tolist() == sizes
    raw = history.predict(600, problem=problem, scheduler="serial", raw=True)
    np.testing.assert_array_equal(raw["y"], found["y"])


def test_several_models_are_drawn_as_they_are_probable(tmp_path):
    def here(theta, rng):
        return {"y": theta["mu"] + rng.standard_normal()}

    def there(theta, rng):
        return {"y": theta["nu"] + 5 + rng.standard_normal()}

    one = mpiabc.Problem(PRIOR, here, {"y": 1.0})
    two = mpiabc.Problem(mpiabc.Prior(nu=mpiabc.Normal(0, 1), c=mpiabc.Choice(["a", "b"])), there, {"y": 1.0})
    history = mpiabc.ABCSMC([one, two], 100, seed=1).run(
        tmp_path / "run.db", generations=2, scheduler="serial"
    )
    found = history.predict(500, problem=[one, two], scheduler="serial")
    assert abs(np.mean(found.model == 0) - history[-1].model_probabilities()[0]) < 0.09  # four errors
    assert history.predict(500, trust=True, scheduler="serial").digest() == found.digest()
    with pytest.raises(mpiabc.ProblemError, match="give the problem of that run"):
        history.predict(5, problem=one, scheduler="serial")
    with pytest.raises(mpiabc.ProblemError, match="of a problem that is one model"):
        history.predict(theta=[[1.0]], problem=[one, two], scheduler="serial")


def test_rejections_and_failures_are_holes_where_the_problem_says_so(tmp_path):
    def fussy(theta, rng):
        if theta["mu"] < 0:
            return mpiabc.REJECT
        if theta["mu"] > 1:
            raise ArithmeticError("too much")
        return {"y": theta["mu"]}

    history, problem = run(tmp_path / "run.db", fussy, {"y": 0.5}, on_error="reject")
    theta = np.array([[-1.0], [0.5], [2.0]])
    found = history.predict(theta=theta, problem=problem, scheduler="serial")
    np.testing.assert_array_equal(found["y"], [np.nan, 0.5, np.nan])
    with pytest.raises(mpiabc.ProblemError, match="none of 2 simulations came to anything"):
        history.predict(theta=theta[[0, 2]], problem=problem, scheduler="serial")
    strict = mpiabc.Problem(PRIOR, fussy, {"y": 0.5})
    with pytest.raises(ArithmeticError, match="too much") as raised:
        history.predict(theta=theta, problem=strict, scheduler="serial")
    assert raised.value.__notes__ == ["in prediction 2, theta: {'mu': 2.0}"]


def test_raw_predictions_are_what_the_simulator_returns(fitted, tmp_path):
    history, problem = run(
        tmp_path / "run.db", observed={"mean": 1.0}, summarize=lambda data: {"mean": data["in_bed"].mean()}
    )
    raw = history.predict(6, problem=problem, scheduler="serial", raw=True)
    assert raw["in_bed"].shape == (6, 14)
    assert not raw.observed
    made = history.predict(6, problem=problem, scheduler="serial")
    np.testing.assert_allclose(made["mean"], raw["in_bed"].mean(axis=1))

    def ragged(theta, rng):
        return [rng.random() for _ in range(1 + rng.integers(3))]

    history, problem = run(
        tmp_path / "ragged.db", ragged, "text", distance=lambda simulated, observed: abs(len(simulated) - 2)
    )
    with pytest.raises(mpiabc.ProblemError, match="give raw=True"):
        history.predict(6, problem=problem, scheduler="serial")
    assert history.predict(6, problem=problem, scheduler="serial", raw=True)["y"].dtype == object


def test_more_may_be_simulated_of_the_same_parameters(fitted):
    def longer(theta, rng):
        return {"in_bed": theta["mu"] + rng.standard_normal(30), "total": theta["mu"]}

    later = mpiabc.Problem(PRIOR, longer, {"in_bed": np.zeros(30), "total": 1.0})
    assert fitted[0].predict(5, problem=later, scheduler="serial")["in_bed"].shape == (5, 30)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give trust=True if you trust"),
        ({"n": 0, "trust": True}, "n=0: give a whole number of at least 1"),
        ({"seed": -1, "trust": True}, "seed=-1: give a whole number"),
        ({"theta": [[1.0, 2.0]], "trust": True}, r"theta of shape \(1, 2\): give \(n, 1\)"),
    ],
)
def test_what_cannot_be_predicted_is_reported_before_any_work(fitted, options, said):
    with pytest.raises(mpiabc.Error, match=said):
        fitted[0].predict(**options)


def test_a_simulator_of_a_team_simulates_alone(tmp_path):
    def alone(theta, rng, *, comm):
        return {"y": theta["mu"] + comm.size}

    history, _ = run(tmp_path / "run.db", lambda theta, rng: {"y": theta["mu"]}, {"y": 1.0})
    problem = mpiabc.Problem(PRIOR, alone, {"y": 1.0})
    found = history.predict(4, problem=problem, scheduler="serial")
    np.testing.assert_array_equal(found["y"], found.theta["mu"] + 1)
