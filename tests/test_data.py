"""Data of any kind: what a distance gets, what is kept of it, in which precision, and what is said."""

import numpy as np
import pytest

import mpiabc
from mpiabc.order import epsilon_of
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import imported

PRIOR = mpiabc.Prior(mu=mpiabc.Normal(0, 2))


def events(theta, rng):
    """Ragged: as many times as there happen to be, with what nobody compares."""
    return {"times": rng.normal(theta["mu"], 1, rng.poisson(5)).tolist(), "note": "run by hand"}


def far(simulated, observed):
    one, other = (np.sum(data["times"]) + len(data["times"]) for data in (simulated, observed))
    return abs(one - other)


def counted(data):
    return {"n": len(data["times"]), "last": max(data["times"], default=0.0)}


def run(problem, store, scheduler="serial", generations=3, n=30, **options):
    abc = mpiabc.ABCSMC(problem, n, seed=1, **options)
    return abc.run(store, generations=generations, scheduler=scheduler)


def of_events(observed, **options):
    return mpiabc.Problem(PRIOR, events, observed, distance=far, **options)


TIMES = [1.0, 1.2, 0.8]
TEXT = {"times": TIMES, "note": "seen"}


@pytest.mark.parametrize("scheduler", ["processes", "static"])
def test_a_distance_of_ones_own_compares_what_simulate_returned(scheduler, tmp_path):
    """Whether summaries are kept or not: one digest."""
    is_static = scheduler == "static"
    histories = [
        run(
            of_events(observed, **options),
            tmp_path / f"{i}.db",
            Simulated(5, random_time, is_static=is_static) if is_static else scheduler,
        )
        for i, (observed, options) in enumerate(
            [(TEXT, {}), (TEXT, {"summarize": counted}), ({"times": TIMES}, {"summarize": counted})]
        )
    ]
    nothing, *kept = histories
    assert nothing[-1].summaries.shape == (30, 0)
    for history in kept:
        assert history.labels == ["n", "last"]
        assert history.observed.tolist() == [3.0, 1.2]
        assert np.all(history[-1].summaries[:, 0] == np.round(history[-1].summaries[:, 0]))
        assert problems.digests(history) == problems.digests(nothing)
        assert not any("structure" in note for note in history.warnings)


def test_what_has_not_the_form_of_observed_numbers_is_kept_as_nan(tmp_path):
    history = run(of_events({"times": TIMES}), tmp_path / "run.db")
    summaries = history[-1].summaries
    assert summaries.shape == (30, 3)
    assert np.isnan(summaries).all(axis=1).any()
    assert any("what does not fit is kept as nan" in note for note in history.warnings)
    assert problems.digests(history) == problems.digests(run(of_events(TEXT), tmp_path / "text.db"))


def test_more_keys_than_the_observed_ones_are_the_distances_business(tmp_path):
    def simulate(theta, rng):
        return {"y": theta["mu"] + rng.standard_normal(), "path": "of text", "x": [1, [2]]}

    def distance(simulated, observed):
        assert simulated["path"] == "of text"
        return abs(simulated["y"] - observed["y"])

    problem = mpiabc.Problem(PRIOR, simulate, {"y": 1.0}, distance=distance)
    more = run(problem, tmp_path / "more.db")
    plain = run(problems.problem(), tmp_path / "plain.db")
    assert problems.digests(more) == problems.digests(plain)
    np.testing.assert_array_equal(more[-1].summaries, plain[-1].summaries)
    assert not more.warnings


def test_frames_with_text_and_graphs_are_data(tmp_path):
    pandas = imported("pandas")

    def simulate(theta, rng):
        y = theta["mu"] + rng.standard_normal()
        frame = pandas.DataFrame({"name": ["a", "b"], "y": [y, y]})
        return {"frame": frame, "edges": {1: {2, 3}, 2: set()}}

    def distance(simulated, observed):
        assert simulated["edges"][1] == observed["edges"][1]
        return abs(simulated["frame"]["y"] - observed["frame"]["y"]).max()

    observed = {"frame": pandas.DataFrame({"name": ["a", "b"], "y": [1.0, 1.0]}), "edges": {1: {2, 3}}}
    problem = mpiabc.Problem(PRIOR, simulate, observed, distance=distance)
    history = run(problem, tmp_path / "run.db", "processes", generations=2)
    run(problem, tmp_path / "run.db")
    assert problems.digests(history) == problems.digests(run(problems.problem(), tmp_path / "plain.db"))
    other = mpiabc.Problem(PRIOR, simulate, observed | {"edges": {1: {4}}}, distance=distance)
    with pytest.raises(mpiabc.StoreError, match="observed"):
        run(other, tmp_path / "run.db")


@pytest.mark.parametrize("options", [{}, {"vectorized": True}], ids=str)
def test_without_observed_data_the_simulator_returns_its_distance(options, tmp_path):
    def simulate(theta, rng):
        return abs(theta["mu"] + rng.standard_normal(np.shape(theta["mu"])) - 1.0)

    history = run(mpiabc.Problem(PRIOR, simulate, **options), tmp_path / "none.db")
    simulator = problems.gaussian_vectorized if options else problems.gaussian
    plain = run(problems.problem(simulator, **options), tmp_path / "plain.db")
    assert problems.digests(history) == problems.digests(plain)
    assert history[-1].summaries.shape == (30, 0)
    assert history.labels == []


def test_summarize_draws_where_the_simulator_has_stopped(tmp_path):
    """Noise that is added afterwards: the digest is that of a simulator that adds it itself."""

    def noisy(data, *, rng):
        return {"y": data + rng.standard_normal()}

    later = mpiabc.Problem(PRIOR, lambda theta, rng: theta["mu"], {"y": 1.0}, summarize=noisy)
    both = [run(later, tmp_path / f"{s}.db", s) for s in ("serial", "processes")]
    plain = run(problems.problem(), tmp_path / "plain.db")
    assert problems.digests(both[0]) == problems.digests(both[1]) == problems.digests(plain)
    assert not both[0].warnings


@pytest.mark.parametrize("recycle", [False, True])
def test_statistics_keep_the_precision_of_the_data(recycle, tmp_path):
    """In populations and in the file, over a resume, recycled or not; distances, and so digests, do not."""
    image = np.linspace(0, 1, 500, dtype=np.float32)

    def simulate(theta, rng):
        return {"image": image * np.float32(theta["mu"]) + rng.standard_normal(500, dtype=np.float32)}

    def histories(observed, name):
        problem = mpiabc.Problem(PRIOR, simulate, {"image": observed})
        run(problem, tmp_path / name, generations=1, recycle=recycle)
        return run(problem, tmp_path / name, Simulated(3, random_time), recycle=recycle)

    narrow, wide = histories(image, "narrow.db"), histories(image.astype(np.float64), "wide.db")
    assert narrow[-1].summaries.dtype == np.float32
    assert wide[-1].summaries.dtype == np.float64
    np.testing.assert_array_equal(narrow[-1].summaries, wide[-1].summaries)
    assert problems.digests(narrow) == problems.digests(wide)
    sizes = [(tmp_path / name).stat().st_size for name in ("narrow.db", "wide.db")]
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize(
    ("scheduler", "recycle"), [("serial", True), ("processes", True), ("serial", False), ("static", False)]
)
def test_only_theta_is_kept_where_that_is_asked_for(scheduler, recycle, tmp_path):
    """The digests are those of a run that keeps all, over a resume too."""

    def place():
        return Simulated(5, random_time, is_static=True) if scheduler == "static" else scheduler

    options = {"recycle": recycle}
    whole = run(problems.problem(), tmp_path / "whole.db", place(), **options)
    run(problems.problem(), tmp_path / "theta.db", place(), generations=2, keep="theta", **options)
    bare = run(problems.problem(), tmp_path / "theta.db", place(), keep="theta", **options)
    assert problems.digests(bare) == problems.digests(whole)
    assert {p.summaries.shape for p in bare} == {(30, 0)}
    with pytest.raises(mpiabc.StoreError, match="keep: 'theta' there, None here"):
        run(problems.problem(), tmp_path / "theta.db", place(), **options)


def test_the_journal_has_no_statistics_either(tmp_path):
    """A run that is stopped within a generation goes on to the same end."""
    options = {"n": 30, "keep": "theta"}
    whole = run(problems.problem(), tmp_path / "whole.db", **options)
    abc = mpiabc.ABCSMC(problems.problem(), 30, seed=1, keep="theta")
    abc.run(tmp_path / "run.db", simulations=100, scheduler="serial")
    history = mpiabc.open(tmp_path / "run.db")
    assert history.reason == "simulations"
    assert epsilon_of(history.order(len(history))[0]) > 0
    assert problems.digests(run(problems.problem(), tmp_path / "run.db", **options)) == problems.digests(
        whole
    )


WRONG = {
    "none": (None, "the distance gave None, expected one real number"),
    "negative": (-1.0, "the distance gave -1.0, expected a number >= 0"),
    "text": ("1", "the distance gave str, expected one real number"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_it_was_the_distance(wrong, tmp_path):
    value, sentence = WRONG[wrong]
    problem = problems.problem(distance=lambda simulated, observed: value)
    with pytest.raises(mpiabc.SimulatorError, match=sentence):
        run(problem, tmp_path / "run.db")
    assert {failure.kind for failure in mpiabc.open(tmp_path / "run.db").failures} == {"distance"}


def test_it_was_the_distance_of_rows_too(tmp_path):
    class Signed:
        is_rowwise = True

        def rows(self, simulated, observed):
            return simulated[:, 0] - observed[0]

    with pytest.raises(mpiabc.SimulatorError, match=r"the distance gave -.*, expected a number >= 0"):
        run(problems.problem(distance=Signed()), tmp_path / "run.db")


def test_a_distance_that_rounds_below_zero_is_one(tmp_path):
    problem = problems.problem(distance=lambda simulated, observed: -1e-16)
    assert run(problem, tmp_path / "run.db", generations=1)[0].distances.max() == -1e-16


def test_the_simulator_that_returns_no_distance_is_named(tmp_path):
    with pytest.raises(mpiabc.SimulatorError, match="returned None, expected its distance"):
        run(mpiabc.Problem(PRIOR, lambda theta, rng: None), tmp_path / "run.db")


REFUSED = {
    "numbers of nothing": ({"distance": mpiabc.PNorm()}, "compares numbers, and there are no observed data"),
    "a summary of nothing": ({"summarize": counted, "distance": far}, "summarize without observed data"),
    "no numbers": ({"observed": TEXT}, "'note' are str, .*; a callable distance gets them as they are"),
    "many at once": (
        {"observed": TEXT, "distance": far, "vectorized": True},
        "vectorized=True, and the distance compares",
    ),
    "a summary in words": (
        {"observed": TEXT, "distance": far, "summarize": lambda data: data["note"]},
        "summarize makes str of the observed data, expected numbers",
    ),
    "a summary that fails": (
        {"observed": TEXT, "distance": far, "summarize": lambda data: data["missing"]},
        "summarize fails for the observed data, KeyError",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_or_kept_is_said_at_once(case):
    options, sentence = REFUSED[case]
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        mpiabc.Problem(PRIOR, events, **options)


def test_what_is_to_be_kept_is_one_of_two_words():
    with pytest.raises(mpiabc.ProblemError, match="keep='nothing': give 'accepted'"):
        mpiabc.ABCSMC(problems.problem(), 30, keep="nothing")


def test_infinite_observed_data_are_reported(tmp_path):
    problem = mpiabc.Problem(PRIOR, lambda theta, rng: {"y": [theta["mu"], 1.0]}, {"y": [1.0, np.inf]})
    history = run(problem, tmp_path / "run.db", generations=1)
    assert any("observed data are infinite: y[1] is inf" in note for note in history.warnings)


@pytest.mark.parametrize("renaming", [True, False])
def test_a_summary_of_any_names_is_no_other_data(renaming, tmp_path):
    """Where observed data are summaries already, the distance gets summaries, as ever."""

    def logged(data):
        return {f"log {name}": abs(value) for name, value in data.items()}

    def named(data):
        return {"log y": abs(data["y"])}

    def distance(simulated, observed):
        return abs(simulated["log y"] - observed["log y"])

    summarize = logged if renaming else named
    problem = mpiabc.Problem(PRIOR, problems.gaussian, {"log y": 1.0}, summarize=summarize, distance=distance)
    history = run(problem, tmp_path / "run.db", generations=1)
    assert history.labels == ["log y"]
    assert not history.failures
