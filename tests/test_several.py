"""Several distances at once: a threshold for each, and acceptance needs all."""

import json

import numpy as np
import pytest

import mpiabc
from mpiabc.cli import main
from mpiabc.evaluate import evaluate
from mpiabc.population import weighted_quantile
from mpiabc.records import _LAYOUT, pack, unpack
from mpiabc.schedulers import Map
from tests import problems
from tests.cluster import Simulated, random_time
from tests.programs import several

FAULTS = {"loss": 0.1, "duplicate": 0.1, "doubt": 0.05}


def simulate(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(), "z": rng.exponential()}


def by_name(simulated, observed):
    return {"of y": abs(simulated["y"] - observed["y"]), "of z": abs(simulated["z"] - observed["z"])}


def as_array(simulated, observed):
    return np.array(list(by_name(simulated, observed).values()))


class Rows:
    """Both, of many rows."""

    is_rowwise = True

    def rows(self, simulated, observed):
        return np.abs(simulated - observed)


def run(file, distance=by_name, threshold=None, generations=3, scheduler="serial", n=60, **rules):
    options = {"vectorized": rules.pop("vectorized")} if "vectorized" in rules else {}
    of_sampler = {name: rules.pop(name) for name in ("recycle", "weights") if name in rules}
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal(0, 2)),
        rules.pop("simulator", simulate),
        {"y": 1.0, "z": 0.5},
        distance=distance,
        **options,
    )
    sampler = mpiabc.ABCSMC(problem, n, threshold=threshold, seed=1, **of_sampler)
    return sampler.run(file, generations=generations, scheduler=scheduler, progress=False, **rules)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return run(tmp_path_factory.mktemp("several") / "quiet.db")


def test_a_population_has_a_column_for_each(quiet):
    last = quiet[-1]
    assert last.distances.shape == (60, 2)
    assert last.distances.names == ("of y", "of z")
    assert last.distances["of y"].tolist() == np.abs(last.summaries[:, 0] - 1).tolist()
    assert last.epsilon.shape == (2,)
    assert (last.distances <= last.epsilon).all()
    frame = last.to_dataframe()
    assert frame["distance_of z"].tolist() == last.distances["of z"].tolist()


def test_epsilon_is_the_quantile_of_each(quiet):
    for before, after in zip(quiet, list(quiet)[1:], strict=False):
        columns = np.asarray(before.distances).T
        expected = [weighted_quantile(column, before.weights, 0.5) for column in columns]
        assert after.epsilon.tolist() == expected


@pytest.mark.parametrize("distance", [as_array, Rows()], ids=["array", "rows"])
def test_arrays_and_rows_are_the_same_without_names(distance, quiet, tmp_path):
    found = run(tmp_path / "run.db", distance)
    assert problems.digests(found) == problems.digests(quiet)
    assert not hasattr(found[-1].distances, "names")


@pytest.mark.long
def test_populations_depend_neither_on_the_schedule_nor_on_a_stop(quiet, tmp_path):
    expected = problems.digests(quiet)
    schedule = Simulated(7, random_time, seed=1, **FAULTS)
    assert problems.digests(run(tmp_path / "other.db", scheduler=schedule)) == expected
    used = sum(p.simulations for p in list(quiet)[:2]) + 20
    assert len(run(tmp_path / "run.db", simulations=used)) == 2
    assert problems.digests(run(tmp_path / "run.db")) == expected
    static = [Map(map), Simulated(5, random_time, is_static=True)]
    one, other = (run(tmp_path / f"{i}.db", scheduler=s) for i, s in enumerate(static))
    assert problems.digests(one) == problems.digests(other)


def test_a_vectorised_simulator_is_measured_by_row(tmp_path):
    def many(theta, rng):
        n = len(theta["mu"])
        return {"y": theta["mu"] + rng.standard_normal(n), "z": rng.exponential(size=n)}

    one = run(tmp_path / "one.db", simulator=many, vectorized=True)
    other = run(tmp_path / "other.db", Rows(), simulator=many, vectorized=True)
    assert problems.digests(one) == problems.digests(other)


@pytest.mark.long
def test_recycled_ones_meet_all_thresholds(tmp_path):
    found = run(tmp_path / "run.db", recycle=True)
    assert (found[-1].distances <= found[-1].epsilon).all()
    assert found[-1].accepted < 60
    schedule = Simulated(5, random_time, seed=2, **FAULTS)
    other = run(tmp_path / "other.db", recycle=True, scheduler=schedule)
    assert problems.digests(found) == problems.digests(other)


def test_listed_thresholds_are_rows(tmp_path):
    rows = [[4, 2], [2, 2], [1, 0.5]]
    found = run(tmp_path / "run.db", threshold=mpiabc.Listed(rows))
    assert [p.epsilon.tolist() for p in found] == rows
    assert (found[-1].distances <= [1, 0.5]).all()
    assert "((4.0, 2.0), (2.0, 2.0), (1.0, 0.5))" in found.settings["threshold"]


def test_a_stopping_rule_holds_for_all_of_them(tmp_path):
    found = run(tmp_path / "run.db", generations=9, epsilon=[1.0, 0.4])
    assert found.reason == "epsilon"
    assert (found[-1].epsilon <= [1.0, 0.4]).all()
    assert not (found[-2].epsilon <= [1.0, 0.4]).all()


def test_it_is_shown_and_replayed(quiet, capsys):
    assert main(["show", str(quiet.path)]) == 0
    first, second = quiet[-1].epsilon
    assert f"{first:.6g}, {second:.6g}" in capsys.readouterr().out
    at = int(quiet[1].ids[3])
    assert main(["replay", str(quiet.path), f"1:{at}", "--trust"]) == 0
    output = capsys.readouterr().out
    assert ", ".join(map(repr, quiet[1].distances[3].tolist())) in output
    assert "equal, bit for bit" in output


def test_orders_have_them_as_lists(quiet):
    assert json.loads(quiet.order(2)[0])["epsilon"] == quiet[2].epsilon.tolist()


def test_records_of_one_distance_are_packed_as_ever():
    one = evaluate(problems.problem(), problems.generation(10), 0, 30)
    assert pack(one)[:8] == _LAYOUT.to_bytes(8, "little", signed=True)
    again = unpack(pack(one))
    assert again.rows.distances.shape == (len(one.rows),)


UNLIKE = {
    "another number": lambda s, o: np.ones(2 + (s["y"] > 0)),
    "other names": lambda s, o: {"a": 1, "b": 2} if s["y"] > 0 else {"a": 1, "c": 2},
    "one of them": lambda s, o: 1.0 if s["y"] > 0 else [1.0, 2.0],
    "negative": lambda s, o: [1.0, -1.0],
    "no number": lambda s, o: {"a": "b", "c": 1},
}


@pytest.mark.parametrize("case", UNLIKE)
def test_what_is_not_as_before_is_reported(case, tmp_path):
    with pytest.raises((mpiabc.SimulatorError, mpiabc.ProblemError), match="the distance gave"):
        run(tmp_path / "run.db", UNLIKE[case])


LISTS = {
    "rises": ([[2, 1], [1, 2]], "does not fall"),
    "stays": ([[2, 1], [2, 1]], "does not fall"),
    "ragged": ([[2, 1], [1]], "rows of one for each distance"),
    "negative": ([[2, -1]], "rows of one for each distance"),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_of_thresholds_that_are_none(case):
    rows, sentence = LISTS[case]
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        mpiabc.Listed(rows)


def test_as_many_thresholds_as_distances(tmp_path):
    for i, distance in enumerate([lambda s, o: 1.0, lambda s, o: [1.0, 2.0, 3.0]]):
        with pytest.raises((mpiabc.ProblemError, mpiabc.SimulatorError), match="there are 2 thresholds"):
            run(tmp_path / f"{i}.db", distance, threshold=mpiabc.Listed([[3, 2], [2, 1]]))
    with pytest.raises(mpiabc.ProblemError, match="3 numbers for 2 distances"):
        run(tmp_path / "run.db", threshold=Three())


class Three:
    def epsilon(self, generation, previous):
        return np.inf if previous is None else [1.0, 1.0, 1.0]


class Fitted(Rows):
    """In units of a sample's deviation."""

    def __init__(self, unit=1.0):
        self.unit = unit

    def rows(self, simulated, observed):
        return np.abs(simulated - observed) / self.unit

    def fit(self, sample, observed):
        return Fitted(sample.summaries.std(axis=0))


@pytest.mark.long
def test_several_that_are_fitted(tmp_path):
    one = run(tmp_path / "one.db", Fitted())
    other = run(tmp_path / "other.db", Fitted(), scheduler=Simulated(5, random_time, seed=1, **FAULTS))
    assert problems.digests(one) == problems.digests(other)
    assert one[-1].epsilon.shape == (2,)


def test_one_distance_of_another_name_in_between_is_a_failure(tmp_path):
    def distance(simulated, observed):
        return {"x" if simulated > 0 else "z": abs(simulated - observed)}

    problem = mpiabc.Problem(
        {"mu": mpiabc.Normal(0, 1)}, lambda theta, rng: theta["mu"], 1.0, distance=distance
    )
    abc = mpiabc.ABCSMC(problem, 20, seed=1)
    with pytest.raises(mpiabc.SimulatorError, match="of the same names in the same order"):
        abc.run(tmp_path / "run.db", generations=2, scheduler="serial")


def named(simulated, observed):
    """By name; of one row, or of many."""
    return {"near": abs(simulated["y"] - observed["y"]), "far": 2 * abs(simulated["y"] - observed["y"])}


class Twice:
    """Two distances of rows."""

    is_rowwise = True

    def rows(self, simulated, observed):
        return np.repeat(np.abs(simulated[:, :1] - observed[:1]), 2, axis=1)


@pytest.mark.parametrize(
    ("distance", "options"),
    [(named, {}), (Twice(), {"vectorized": True}), (Twice(), {"vectorized": True, "batch": 512})],
)
def test_several_distances_go_with_several_models(distance, options, tmp_path):
    abc = mpiabc.ABCSMC(several.problems(distance=distance, **options), 40, seed=1)
    whole = abc.run(tmp_path / "whole.db", generations=3, scheduler="serial")
    for t in (1, 3):
        history = abc.run(tmp_path / "run.db", generations=t, scheduler="serial")
    assert problems.digests(history) == problems.digests(whole)
    assert history[-1].distances.shape == (40, 2)
    if distance is named:
        found = history[-1].distances
        assert found["far"].tolist() == (2 * found["near"]).tolist()


def test_as_many_epsilons_to_reach_as_there_are_distances(tmp_path):
    abc = mpiabc.ABCSMC(several.problems(distance=named), 40, seed=1)
    with pytest.raises(mpiabc.ProblemError, match="these are 3 numbers for 2 distances"):
        abc.run(tmp_path / "run.db", epsilon=[0.1, 0.1, 0.1], scheduler="serial")
