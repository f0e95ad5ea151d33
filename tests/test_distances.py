"""Distances of parts of the data, of samples, and of predictions."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance as of_scipy

import mpiabc
from mpiabc.distances import of_data, scales
from mpiabc.order import distance_of, has_foreign_distance
from mpiabc.schedulers import Map
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import imported
from tests.programs.foreign import LeastSquares

RNG = np.random.default_rng(2)
FAULTS = {"loss": 0.1, "duplicate": 0.1, "doubt": 0.05}
OBSERVED = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([[0.0, 1.0], [2.0, 0.0]]), "c": 3.0}
SIMULATED = {"a": np.array([3.0, 1.0, 2.0]), "b": np.array([[2.0, 1.0], [0.0, 1.0]]), "c": 5.0}


def apart(simulated, observed):
    return abs(simulated - observed)


def simulate(theta, rng):
    mu = theta["mu"]
    b = rng.standard_normal((2, 2)) * 100
    return {"a": mu + rng.standard_normal(3), "b": b, "c": mu + rng.standard_normal()}


def run(file, distance, observed=OBSERVED, simulator=simulate, generations=3, scheduler="serial", **rules):
    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulator, observed, distance=distance)
    sampler = mpiabc.ABCSMC(problem, 60, seed=1)
    return sampler.run(file, generations=generations, scheduler=scheduler, progress=False, **rules)


# Values.


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (mpiabc.Aggregate({"a": mpiabc.PNorm(1), "c": apart}), 5 + 2),
        (mpiabc.Aggregate({"a": mpiabc.PNorm(1), "c": apart}, weights={"c": 10}), 5 + 20),
        (mpiabc.Aggregate({"b": mpiabc.PNorm(math.inf), "a": mpiabc.PNorm(1, weights=[0, 1, 0])}), 2 + 1),
        (mpiabc.Aggregate({"a": mpiabc.PNorm(1), "c": apart}, scale="mad"), 5 + 2),  # not fitted
        (mpiabc.Aggregate({"a": mpiabc.Wasserstein()}), stats.wasserstein_distance([1, 2, 4], [3, 1, 2])),
    ],
    ids=["sum", "weights", "two norms", "not fitted", "of samples"],
)
def test_an_aggregate_is_the_weighted_sum_of_its_parts(distance, expected):
    assert distance(SIMULATED, OBSERVED) == pytest.approx(expected)


SAMPLES = RNG.normal(size=(2, 30))
POINTS = RNG.normal(size=(2, 12, 3))


def test_wasserstein_distances_are_those_of_scipy():
    one, other = SAMPLES
    assert mpiabc.Wasserstein()(one, other) == pytest.approx(stats.wasserstein_distance(one, other))
    assert mpiabc.Wasserstein()(*POINTS) == pytest.approx(stats.wasserstein_distance_nd(*POINTS))
    squared = np.mean(np.square(np.sort(one) - np.sort(other)))
    assert mpiabc.Wasserstein(2)(one, other) == pytest.approx(math.sqrt(squared))
    assert mpiabc.SlicedWasserstein()(one, other) == mpiabc.Wasserstein(2)(one, other)


def test_a_sliced_distance_is_the_mean_over_directions():
    """Along the axes it is that of the coordinates; for many directions, a mean over the sphere."""
    few = mpiabc.SlicedWasserstein(1, projections=400)(*POINTS)
    directions = np.random.default_rng(7).standard_normal((4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    seen = (np.sort(points @ directions.T, axis=0) for points in POINTS)
    assert few == pytest.approx(np.abs(np.subtract(*seen)).mean(), rel=0.05)


def test_mahalanobis_distances_are_those_of_scipy():
    table = RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 3))
    covariance = np.cov(table, rowvar=False)
    expected = of_scipy.mahalanobis(table[0], table[1], np.linalg.inv(covariance))
    assert mpiabc.Mahalanobis(covariance)(table[0], table[1]) == pytest.approx(expected)
    assert mpiabc.Mahalanobis()(table[0], table[1]) == pytest.approx(np.linalg.norm(table[0] - table[1]))


DISTANCES = {
    "aggregate": mpiabc.Aggregate({"a": mpiabc.PNorm(2), "b": mpiabc.SlicedWasserstein(), "c": apart}),
    "points": mpiabc.Aggregate({"b": mpiabc.Wasserstein(2)}),
    "mahalanobis": mpiabc.Mahalanobis(np.diag(np.arange(1.0, 9))),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_a_row_does_not_depend_on_the_rows_beside_it(name):
    """To the last bit: which rows come together depends on how ids were leased."""
    distance = of_data(DISTANCES[name], OBSERVED)
    assert distance.is_rowwise
    table, row = RNG.normal(size=(100, 8)), RNG.normal(size=8)
    assert distance.rows(table, row).tolist() == [distance.rows(each[None], row)[0] for each in table]


# Fits.


def test_scales_of_an_aggregate_are_those_of_its_distances(tmp_path):
    parts = {"a": mpiabc.PNorm(scale="std"), "b": mpiabc.PNorm(1)}
    history = run(tmp_path / "run.db", mpiabc.Aggregate(parts, weights={"a": 2}, scale="std"))
    text, arrays = history.order(1)
    fitted, simulated = distance_of(text, arrays), history[0].summaries
    row = np.concatenate([np.ravel(part) for part in OBSERVED.values()])
    of_a = np.linalg.norm((simulated[:, :3] - row[:3]) / simulated[:, :3].std(axis=0), axis=1)
    of_b = np.abs(simulated[:, 3:7] - row[3:7]).sum(axis=1)
    assert fitted.factors == pytest.approx([2 / of_a.std(), 1 / of_b.std()])
    assert fitted.rows(simulated, row) == pytest.approx(2 * of_a / of_a.std() + of_b / of_b.std())


def test_a_covariance_is_that_of_the_sample(tmp_path):
    history = run(tmp_path / "run.db", mpiabc.Mahalanobis())
    text, arrays = history.order(1)
    precision = distance_of(text, arrays).precision
    assert precision @ np.cov(history[0].summaries, rowvar=False) == pytest.approx(np.eye(8), abs=1e-6)


def test_a_covariance_without_a_direction_leaves_it_out():
    table = np.column_stack([RNG.normal(size=50), np.full(50, 2.0)])
    sample = problems.population(table, np.full(50, 0.02), np.zeros(50), table)
    fitted = mpiabc.Mahalanobis().fit(sample, np.zeros(2))
    assert fitted.rows(np.array([[1.0, 99.0]]), np.zeros(2)) == pytest.approx(1 / table[:, 0].std(ddof=1))


ADAPTIVE = {
    "aggregate": mpiabc.Aggregate({"a": mpiabc.PNorm(scale="mad"), "c": mpiabc.PNorm()}, scale="pcmad"),
    "with a callable": mpiabc.Aggregate({"a": mpiabc.PNorm(scale="mad"), "c": apart}, scale="std"),
    "mahalanobis": mpiabc.Mahalanobis(),
    "predicted": mpiabc.Predicted(LeastSquares(), mpiabc.PNorm(scale="mad")),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ADAPTIVE)
def test_populations_depend_neither_on_the_schedule_nor_on_a_stop(name, tmp_path):
    quiet = run(tmp_path / "quiet.db", ADAPTIVE[name])
    expected = problems.digests(quiet)
    assert has_foreign_distance(quiet.order(2)[0]) == (name in ("with a callable", "predicted"))
    schedule = Simulated(5, random_time, seed=1, **FAULTS)
    assert problems.digests(run(tmp_path / "other.db", ADAPTIVE[name], scheduler=schedule)) == expected
    used = sum(p.simulations for p in list(quiet)[:2]) + 30
    assert len(run(tmp_path / "run.db", ADAPTIVE[name], simulations=used)) == 2
    assert problems.digests(run(tmp_path / "run.db", ADAPTIVE[name])) == expected


def test_a_predictor_under_static_scheduling(tmp_path):
    one = run(tmp_path / "one.db", ADAPTIVE["predicted"], scheduler=Map(map))
    static = Simulated(5, random_time, is_static=True)
    other = run(tmp_path / "other.db", ADAPTIVE["predicted"], scheduler=static)
    assert problems.digests(one) == problems.digests(other)


def test_predictions_are_compared(tmp_path):
    """A linear model's are the posterior's means, so that statistics that say nothing do no harm."""
    predicted = run(tmp_path / "a.db", mpiabc.Predicted(LeastSquares()), generations=8)[-1]
    plain = run(tmp_path / "b.db", mpiabc.PNorm(), generations=8)[-1]
    mean, variance = (7 + 3) / 4.25, 1 / 4.25  # of four observations of mu ~ N(0, 4)
    assert predicted.mean()["mu"] == pytest.approx(mean, abs=0.2)
    assert predicted.std()["mu"] == pytest.approx(math.sqrt(variance), abs=0.15)
    assert plain.std()["mu"] > 1


def test_a_predictor_of_the_users_is_not_changed(tmp_path):
    predictor = LeastSquares()
    run(tmp_path / "run.db", mpiabc.Predicted(predictor), generations=2)
    assert vars(predictor) == {}


class Wrong(LeastSquares):
    def predict(self, summaries):
        return np.zeros(3)


# Refused.

BAD = {
    "no key": (lambda: mpiabc.Aggregate({}), "give distances by key"),
    "another key": (
        lambda: mpiabc.Aggregate({"z": mpiabc.PNorm()})(SIMULATED, OBSERVED),
        "has a distance for 'z', and the observed data are",
    ),
    "no distance": (lambda: mpiabc.Aggregate({"a": 3}), "has 3 for 'a', expected a distance"),
    "weight": (lambda: mpiabc.Aggregate({"a": apart}, weights={"b": 1}), "the weight 1 for 'b'"),
    "scale": (lambda: mpiabc.Aggregate({"a": apart}, scale=3), r"Aggregate\(scale=3\): give one of"),
    "p": (lambda: mpiabc.Wasserstein(0.5), "give a finite p >= 1"),
    "projections": (lambda: mpiabc.SlicedWasserstein(projections=0), ">= 1 of projections"),
    "several keys": (lambda: mpiabc.Wasserstein()(SIMULATED, OBSERVED), "give mpiabc.Aggregate"),
    "covariance": (lambda: mpiabc.Mahalanobis([[1, 2], [2, 1]]), "positive definite"),
    "size": (lambda: mpiabc.Mahalanobis(np.eye(2))(SIMULATED, OBSERVED), r"of 2 numbers for data of 8"),
    "no predictor": (lambda: mpiabc.Predicted(3), r"expected an object with fit\(theta, summaries\)"),
    "no rows": (lambda: mpiabc.Predicted(LeastSquares(), apart), "one that measures rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_a_sentence(case):
    build, sentence = BAD[case]
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        build()


def test_what_is_no_prediction_is_reported(tmp_path):
    with pytest.raises(mpiabc.ProblemError, match=r"predict of the predictor gave float64 of shape \(3,\)"):
        run(tmp_path / "run.db", mpiabc.Predicted(Wrong()))


def test_scales_that_are_named_are_the_documented_ones():
    assert list(scales.NAMED) == ["mad", "std", "pcmad"]


def test_the_example_with_scikit_learn(tmp_path):
    imported("sklearn")
    from examples import predictor

    found = predictor.sampler(60).run(tmp_path / "run.db", generations=3, scheduler="serial")[-1]
    assert found.mean()["frequency"] == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"y": -1, "z": 1}, "has -1.0 among its weights"),
        ({"y": 0, "z": 0}, "all weights of PNorm are 0"),
        ({"y": 1, "q": 2}, "a weight of 'q', and the observed data have 'y', 'z'"),
        ({"y": 1, "z": 1, "q": 2}, "a weight of 'q'"),
    ],
)
def test_weights_that_compare_nothing_or_something_else_are_refused(weights, message):
    observed = {"y": 1.0, "z": np.zeros(3)}
    with pytest.raises(mpiabc.ProblemError, match=message):
        mpiabc.Problem(
            {"mu": mpiabc.Normal(0, 1)},
            lambda theta, rng: observed,
            observed,
            distance=mpiabc.PNorm(weights=weights),
        )
