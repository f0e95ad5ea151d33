"""Distances whose scales are fitted to simulations: Prangle 2017; Schälte et al. 2021."""

import math
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

import mpiabc
from mpiabc import ledger
from mpiabc.cli import main
from mpiabc.distances import Norm, scales
from mpiabc.evaluate import evaluate
from mpiabc.order import distance_of, has_foreign_distance, kept
from mpiabc.population import weighted_quantile
from mpiabc.problem import described
from mpiabc.schedulers import Map
from tests import problems
from tests.cluster import Simulated, random_time

OBSERVED = {"y": 1.0, "noise": 0.0, "unit": 3.0}
FAULTS = {"loss": 0.1, "duplicate": 0.1, "doubt": 0.05}


def simulate(theta, rng):
    """One statistic that says something of mu, one of another scale that says nothing, one constant."""
    return {"y": theta["mu"] + rng.standard_normal(), "noise": 1000 * rng.standard_normal(), "unit": 3.0}


def sampler(distance, n=100, simulator=simulate, threshold=None, observed=OBSERVED, **options):
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    problem = mpiabc.Problem(prior, simulator, observed, distance=distance, **options)
    return mpiabc.ABCSMC(problem, n, threshold=threshold, seed=1)


def run(file, distance=None, generations=4, scheduler="serial", **options):
    distance = mpiabc.PNorm(scale="mad") if distance is None else distance
    rules = {"generations": generations, "scheduler": scheduler, "progress": False}
    rules |= {name: options.pop(name) for name in ("simulations", "epsilon") if name in options}
    return sampler(distance, **options).run(file, **rules)


# Scales.

RNG = np.random.default_rng(1)
TABLE = RNG.normal(size=(500, 3)) * [1, 10, 1000] + [0, 5, -3]
ROW = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("mad", np.median(np.abs(TABLE - np.median(TABLE, axis=0)), axis=0)),
        ("std", TABLE.std(axis=0)),
        (
            "pcmad",
            np.median(np.abs(TABLE - np.median(TABLE, axis=0)), axis=0)
            + np.median(np.abs(TABLE - ROW), axis=0),
        ),
        (lambda simulated, observed: np.ptp(simulated, axis=0), np.ptp(TABLE, axis=0)),
    ],
    ids=["mad", "std", "pcmad", "a function"],
)
def test_scales_are_what_numpy_says(scale, expected):
    assert scales.scales(scale, TABLE, ROW) == pytest.approx(expected, rel=1e-12)


def test_outliers_leave_the_median_deviation_and_what_is_not_finite_is_left_out():
    dirty = TABLE.copy()
    dirty[:20] = 1e12
    assert scales.scales("mad", dirty, ROW) == pytest.approx(scales.scales("mad", TABLE, ROW), rel=0.2)
    assert (scales.scales("std", dirty, ROW) > 1e10).all()
    dirty[:20] = np.inf
    dirty[20:40, 0] = np.nan
    dirty[:, 2] = np.nan
    found = scales.scales("std", dirty, ROW)
    assert found == pytest.approx([TABLE[40:, 0].std(), TABLE[20:, 1].std(), 0])


@pytest.mark.parametrize("given", [np.array([1.0]), "x", np.array([1.0, -1.0, 1.0])], ids=repr)
def test_a_scale_of_ones_own_that_gives_no_scale_is_reported(given):
    with pytest.raises(mpiabc.ProblemError, match=r"scale of the distance gave .* expected one number >= 0"):
        scales.scales(lambda simulated, observed: given, TABLE, ROW)


# What comes of them.


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The run of all tests below, of one process and uninterrupted."""
    return run(tmp_path_factory.mktemp("quiet") / "quiet.db")


def test_a_statistic_of_another_scale_does_not_hide_the_others(tmp_path):
    """The posterior of a small epsilon is N(.8, .8): a fixed scale of 1 stays with the prior's N(0, 4)."""
    fitted = run(tmp_path / "a.db", n=300, generations=7)[-1]
    fixed = run(tmp_path / "b.db", mpiabc.PNorm(), n=300, generations=7)[-1]
    assert fitted.mean()["mu"] == pytest.approx(0.8, abs=0.15)  # ess 250: 2.5 standard errors
    assert fitted.std()["mu"] == pytest.approx(math.sqrt(0.8), abs=0.15)
    assert fixed.std()["mu"] > 1.5


def test_orders_have_the_scales_of_the_first_simulations_accepted_or_not(quiet):
    """Those of generation t, of ids that are simulated here once more, are in the order of t + 1."""
    problem = sampler(mpiabc.PNorm(scale="mad")).problem
    for t in (0, 1, 2):
        text, arrays = quiet.order(t + 1)
        order = _order(quiet, t)
        rows = evaluate(problem, replace(order, epsilon=math.inf, sample=0), 0, quiet[t].evaluations).rows
        mad = scales.mad(rows.summaries[:1000], ROW)
        assert distance_of(text, arrays).factors.tolist() == [1 / mad[0], 1 / mad[1], 0.0]
        accepted = scales.mad(quiet[t].summaries, ROW)
        assert t == 0 or abs(accepted[0] / mad[0] - 1) > 0.02  # of these alone it would be another


def _order(history, t):
    from mpiabc.kernels.gaussian import Gaussian
    from mpiabc.planner import Planner
    from mpiabc.population import Past
    from mpiabc.streams import stream_key

    prior = sampler(mpiabc.PNorm()).problem.prior
    planner = Planner(prior, Gaussian(), mpiabc.Quantile(), stream_key(1), 100, False)
    return planner.again(history.order(t), Past(history[t - 1] if t else None)).order


def test_epsilon_is_the_quantile_of_the_population_measured_again(quiet):
    for before, after in zip(quiet, list(quiet)[1:], strict=False):
        text, arrays = quiet.order(after.generation)
        measured = distance_of(text, arrays).rows(before.summaries, np.array(list(OBSERVED.values())))
        assert after.epsilon == weighted_quantile(measured, before.weights, 0.5)
        assert (after.distances <= after.epsilon).all()


SCHEDULES = {
    "seven, with losses": Simulated(7, random_time, seed=1, **FAULTS),
    "processes": mpiabc.schedulers.Processes(2),
}


@pytest.mark.long
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_populations_do_not_depend_on_the_schedule(schedule, quiet, tmp_path):
    found = run(tmp_path / "run.db", scheduler=SCHEDULES[schedule])
    assert problems.digests(found) == problems.digests(quiet)


def test_under_static_scheduling_neither(tmp_path):
    one = run(tmp_path / "one.db", scheduler=Map(map))
    other = run(tmp_path / "other.db", scheduler=Simulated(5, random_time, is_static=True))
    assert problems.digests(one) == problems.digests(other)


@pytest.mark.parametrize("rule", ["accepted rows", "first to finish"])
def test_a_sample_of_another_kind_is_noticed(rule, quiet, tmp_path, monkeypatch):
    def accepted(self):
        return self.population()

    def finished(self):
        parts = [p for records in self._records for p in (records.rows, records.rejected) if len(p)]
        return ledger.joined(parts).take(np.arange(min(self._sample, sum(map(len, parts)))))

    monkeypatch.setattr(ledger.Ledger, "sample", accepted if rule == "accepted rows" else finished)
    found = run(tmp_path / "run.db", generations=3, scheduler=Simulated(40, random_time, seed=1))
    assert problems.digests(found) != problems.digests(quiet)[:3]


def test_a_run_goes_on_inside_a_generation_and_beyond_its_end(quiet, tmp_path):
    """Its sample is in the file where the run has ended, and in the journal where it has not."""
    file = tmp_path / "run.db"
    run(file, generations=2)
    used = sum(p.simulations for p in list(quiet)[:2])
    assert len(run(file, simulations=used + 40)) == 2
    assert problems.digests(run(file)) == problems.digests(quiet)


def test_a_sample_that_is_damaged_is_reported_before_any_work(tmp_path):
    file = tmp_path / "run.db"
    run(file, generations=2)
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE sample SET crc = crc + 1 WHERE generation = 1")
        db.commit()
    with pytest.raises(mpiabc.StoreError, match="the sample of generation 1"):
        run(file)


# Scales of zero.


def half(theta, rng):
    """A statistic that is mostly 0, one that always is, though not observed as that."""
    rare = float(rng.random() < 0.2)
    return {"y": theta["mu"] + rng.standard_normal(), "noise": rare, "unit": 0.0}


def test_a_statistic_without_a_scale_is_left_out_and_reported_once(tmp_path, caplog):
    history = run(tmp_path / "run.db", simulator=half, observed={"y": 1.0, "noise": 0.0, "unit": 0.5})
    assert caplog.text.count("the scale of noise, unit is 0") == 1
    text, arrays = history.order(2)
    assert (distance_of(text, arrays).factors > 0).tolist() == [True, False, False]


def test_one_that_is_always_as_observed_is_left_out_in_silence(quiet):
    assert quiet.warnings == []
    text, arrays = quiet.order(1)
    assert distance_of(text, arrays).factors[2] == 0


# A calibration.


@pytest.mark.long
def test_a_finite_first_epsilon_is_in_units_of_a_calibration(tmp_path):
    """Its simulations count, come of streams of their own, and are made once."""
    threshold = mpiabc.Quantile(start=2.0)
    quiet = run(tmp_path / "quiet.db", threshold=threshold, generations=3)
    text, arrays = quiet.order(0)
    mad = 2 * 1.1180 * 0.6745  # of N(0, 4 + 1)
    assert 1 / distance_of(text, arrays).factors[0] == pytest.approx(mad, rel=0.1)
    drawn = evaluate(sampler(mpiabc.PNorm()).problem, problems.generation(1000, math.inf), 0, 1000).rows
    assert 1 / distance_of(text, arrays).factors[0] != scales.mad(drawn.summaries, ROW)[0]
    schedule = Simulated(7, random_time, seed=3, **FAULTS)
    other = run(tmp_path / "other.db", threshold=threshold, generations=3, scheduler=schedule)
    assert problems.digests(other) == problems.digests(quiet)
    budget = 1000 + quiet[0].simulations
    for simulations, n in [(300, 0), (budget, 1)]:
        found = run(tmp_path / "parts.db", threshold=threshold, simulations=simulations)
        assert (len(found), found.reason) == (n, "simulations")
    assert problems.digests(run(tmp_path / "parts.db", threshold=threshold, generations=3)) == (
        problems.digests(quiet)
    )


# A distance of one's own.


class Own:
    """The largest difference, in units of the largest value seen."""

    is_rowwise = True

    def __init__(self, unit=None):
        self.unit = unit

    def rows(self, simulated, observed):
        return np.abs((simulated - observed) / (1.0 if self.unit is None else self.unit)).max(axis=1)

    def fit(self, sample, observed):
        return Own(1 + np.abs(sample.summaries).max(axis=0))


@pytest.mark.long
def test_a_distance_of_ones_own_is_fitted_again_where_a_run_goes_on(tmp_path):
    quiet = run(tmp_path / "quiet.db", Own())
    assert has_foreign_distance(quiet.order(2)[0])
    schedule = Simulated(7, random_time, seed=1, **FAULTS)
    assert problems.digests(run(tmp_path / "other.db", Own(), scheduler=schedule)) == problems.digests(quiet)
    used = sum(p.simulations for p in list(quiet)[:2])
    run(tmp_path / "run.db", Own(), simulations=used + 40)
    assert problems.digests(run(tmp_path / "run.db", Own())) == problems.digests(quiet)


class Bad(Own):
    def fit(self, sample, observed):
        return "a distance"


def test_an_evaluation_is_replayed_with_the_distance_of_its_generation(tmp_path, capsys):
    for name, distance in {"own": Own(), "ours": mpiabc.PNorm(scale="mad")}.items():
        history = run(tmp_path / f"{name}.db", distance, generations=3)
        at = int(history[2].ids[5])
        assert main(["replay", str(history.path), f"2:{at}", "--trust"]) == 0
        assert "equal, bit for bit" in capsys.readouterr().out


def test_a_fit_that_gives_no_distance_is_reported(tmp_path):
    with pytest.raises(mpiabc.ProblemError, match=r"fit of the distance Bad gave 'a distance', expected"):
        run(tmp_path / "run.db", Bad())


# What does not go together, and what went before.


def taking_epsilon(theta, rng, *, epsilon):
    return simulate(theta, rng)


def rejecting(theta, rng):
    return mpiabc.REJECT if rng.random() < 0.1 else simulate(theta, rng)


REFUSED = {
    "listed": (
        lambda: sampler(mpiabc.PNorm(scale="mad"), threshold=mpiabc.Listed([3, 2])),
        r"distance=PNorm.*scale='mad'.*threshold=Listed.*Quantile",
    ),
    "constant": (
        lambda: sampler(mpiabc.PNorm(scale="std"), threshold=mpiabc.Constant(2)),
        r"scale='std'.*threshold=Constant",
    ),
    "epsilon": (
        lambda: sampler(mpiabc.PNorm(scale="mad"), simulator=taking_epsilon),
        r"the simulator takes epsilon, and distance=PNorm.*leave epsilon out",
    ),
    "recycle": (
        lambda: mpiabc.ABCSMC(sampler(mpiabc.PNorm(scale="mad")).problem, 50, recycle=True),
        r"recycle=True, and distance=PNorm.*leave recycle out",
    ),
    "keep": (
        lambda: mpiabc.ABCSMC(sampler(mpiabc.PNorm(scale="mad")).problem, 50, keep="theta"),
        r'keep="theta", and distance=PNorm.*leave keep out',
    ),
    "no scale": (lambda: mpiabc.PNorm(scale="sd"), r"scale='sd'\): give one of 'mad', 'std', 'pcmad'"),
    "no such missing": (lambda: mpiabc.PNorm(missing="skip"), r'give "raise" or "ignore"'),
    "nan weight": (lambda: sampler(mpiabc.PNorm(weights=[1, np.nan, 1])), "nan among its weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_sentence_before_any_work(case):
    build, sentence = REFUSED[case]
    with pytest.raises(mpiabc.ProblemError, match=sentence):
        build()


def test_epsilons_of_different_units_are_not_compared(tmp_path):
    sampling = sampler(mpiabc.PNorm(scale="mad"))
    with pytest.raises(mpiabc.ProblemError, match=r"min_epsilon_change=0\.1 with a distance that is fitted"):
        sampling.run(tmp_path / "run.db", min_epsilon_change=0.1, scheduler="serial")
    assert not list(tmp_path.iterdir())


def test_a_rejection_without_data_leaves_a_hole_in_the_sample(tmp_path):
    for on_error in ("raise", "reject"):
        with pytest.raises(mpiabc.ProblemError, match=r"REJECT, and a part of the run is fitted to all"):
            run(tmp_path / f"{on_error}.db", simulator=rejecting, on_error=on_error)


def test_settings_of_fixed_distances_are_described_as_ever():
    """Files of before have them as these texts."""
    assert described(mpiabc.PNorm()) == "PNorm(p=2, weights=None)"
    problem = sampler(mpiabc.PNorm()).problem
    assert problem.fingerprint.values["distance"] == described(mpiabc.PNorm())
    fitted = sampler(mpiabc.PNorm(scale="mad")).problem
    assert "scale='mad'" in fitted.parts()["distance"]
    assert "scale='mad'" in fitted.fingerprint.values["distance"]


def test_orders_of_fixed_distances_do_not_speak_of_samples():
    text, _ = kept(problems.generation(10), None)
    assert "sample" not in text
    assert "calibrated" not in text


# Fixed scales, weights of keys, holes.


def values(theta, rng):
    return {"a": theta["mu"] + rng.standard_normal(3), "b": 10 * rng.standard_normal()}


def of(distance, observed):
    return mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal()), values, observed, distance=distance)


DATA = {"a": np.array([1.0, 2.0, 3.0]), "b": 5.0}
SIMULATED = {"a": np.array([2.0, 4.0, 6.0]), "b": 25.0}


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (mpiabc.PNorm(1, weights={"a": 1, "b": 0.1}), 1 + 2 + 3 + 2),
        (mpiabc.PNorm(1, weights={"a": np.array([1, 0, 1]), "b": 0}), 4),
        (mpiabc.PNorm(1, scale={"a": 2, "b": 10}), 0.5 + 1 + 1.5 + 2),
        (mpiabc.PNorm(1, weights={"a": 2, "b": 1}, scale={"a": [1, 2, 3], "b": 4}), 2 + 2 + 2 + 5),
        (mpiabc.PNorm(math.inf, scale="mad"), 20),
        (mpiabc.PNorm(3, weights={"a": 1, "b": 0}), 36 ** (1 / 3)),
    ],
    ids=["of keys", "of values", "scales", "both", "not fitted", "p"],
)
def test_weights_and_scales_of_keys(distance, expected):
    assert distance(SIMULATED, DATA) == pytest.approx(expected)
    of(distance, DATA)


def test_rows_do_not_depend_on_the_rows_beside_them():
    """Of a norm that leaves columns out, to the last bit."""
    rng = np.random.default_rng(1)
    table, row = rng.normal(size=(300, 37)), rng.normal(size=37)
    distance = Norm(2, np.where(rng.random(37) < 0.3, 0, rng.random(37)))
    alone = [distance.rows(table[i : i + 1], row)[0] for i in range(300)]
    assert distance.rows(table, row).tolist() == alone


HOLED = {"a": np.array([1.0, np.nan, 3.0]), "b": 5.0}


def test_holes_in_observed_data_are_left_out_and_said_once(tmp_path, caplog):
    assert mpiabc.PNorm(1, missing="ignore")(SIMULATED, HOLED) == 1 + 3 + 20
    problem = of(mpiabc.PNorm(1, missing="ignore", weights={"a": 1, "b": 0}), HOLED)
    history = mpiabc.ABCSMC(problem, 50, seed=1).run(
        tmp_path / "run.db", generations=2, scheduler="serial", progress=False
    )
    simulated = history[-1].summaries
    expected = np.abs(simulated[:, 0] - 1) + np.abs(simulated[:, 2] - 3)
    assert history[-1].distances == pytest.approx(expected)
    assert caplog.text.count("observed data have holes: a[1] is nan") == 1


@pytest.mark.parametrize("distance", [None, mpiabc.PNorm(), lambda a, b: 0.0], ids=["default", "norm", "own"])
def test_holes_without_that_are_reported(distance):
    with pytest.raises(mpiabc.ProblemError, match=r"'a' contain nan, a\[1\] first.*missing=\"ignore\""):
        of(distance, HOLED)
    with pytest.raises(mpiabc.ProblemError, match="nan and nothing else"):
        of(mpiabc.PNorm(missing="ignore"), {"a": np.full(3, np.nan), "b": np.nan})


class Nothing:
    """A predictor without a prediction."""

    def fit(self, theta, summaries):
        return self

    def predict(self, summaries):
        return np.full((len(summaries), 2), np.nan)


@pytest.mark.parametrize(
    "distance",
    [
        mpiabc.PNorm(scale="mad"),
        mpiabc.PNorm(scale="std"),
        mpiabc.Predicted(Nothing(), mpiabc.PNorm(scale="mad")),
    ],
    ids=["mad", "std", "predicted"],
)
def test_a_distance_that_compares_nothing_ends_the_run(distance, tmp_path):
    problem = mpiabc.Problem(
        {"mu": mpiabc.Normal(0, 1)}, lambda theta, rng: {"c": 5.0}, {"c": 4.0}, distance=distance
    )
    with pytest.raises(mpiabc.ProblemError, match="nothing would be compared"):
        mpiabc.ABCSMC(problem, 20, seed=1).run(tmp_path / "run.db", generations=3, scheduler="serial")


def test_a_covariance_without_a_statistic_is_reported(tmp_path):
    problem = mpiabc.Problem(
        {"mu": mpiabc.Normal(0, 1)},
        lambda theta, rng: {"c": 5.0, "y": theta["mu"] + rng.standard_normal()},
        {"c": 4.0, "y": 0.0},
        distance=mpiabc.Mahalanobis(),
    )
    history = mpiabc.ABCSMC(problem, 20, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    assert "the scale of statistic 0 is 0" in str(history.warnings)
