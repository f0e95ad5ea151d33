"""Plots: what is drawn, of every kind of run, without a look at pixels; and `mpiabc plot`."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.analysis import priors
from mpiabc.analysis.plots import canvas, course, data, density, parameters
from mpiabc.analysis.plots.seen import spread
from mpiabc.cli import main
from mpiabc.problem import described
from tests import problems
from tests.conftest import imported

imported("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

plots = mpiabc.plots
SIX = {
    "beta": mpiabc.Normal(0, 2),
    "gamma": mpiabc.LogUniform(1e-3, 10),
    "the rate of recovery of those who are ill": mpiabc.Uniform(0, 10),
    "rate_of_recovery": stats.gamma(2),
    "k": mpiabc.Uniform(0, 0.002),
    "stages": mpiabc.Integer(1, 8),
}


def six(theta, rng):
    beta, gamma, rate, recovery, k, stages = theta.values()
    x = np.stack([beta, np.log(gamma), rate / 3, recovery + beta, k * 1e3, stages / 2], axis=1)
    x = x + rng.standard_normal(x.shape) * 0.3
    return {"series": x, "total": x.sum(axis=1)}


def wide(theta, rng):
    x = np.stack(list(theta.values()), axis=1)
    return x + rng.standard_normal(x.shape)


def folder(factory, name):
    return factory.mktemp(name) / "run.db"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    observed = {"series": np.array([0.5, -1, 0.1, 1.5, 1.0, 1.5]), "total": 3.6}
    problem = mpiabc.Problem(SIX, six, observed, vectorized=True)
    store = folder(tmp_path_factory, "six")
    return mpiabc.ABCSMC(problem, 300, seed=1).run(store, generations=4, scheduler="serial")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two models, of which one has a choice."""

    def plain(theta, rng):
        return {"y": theta["mu"] + rng.standard_normal()}

    def curved(theta, rng):
        return {"y": theta["mu"] * {"lin": 1, "hill": 3}[theta["law"]] + rng.standard_normal()}

    prior = {"mu": mpiabc.Uniform(0, 3), "law": mpiabc.Choice(["lin", "hill"], [0.25, 0.75])}
    given = [
        mpiabc.Problem({"mu": mpiabc.Normal(0, 2)}, plain, {"y": 1.0}),
        mpiabc.Problem(prior, curved, {"y": 1.0}),
    ]
    store = folder(tmp_path_factory, "two")
    return mpiabc.ABCSMC(given, 80, seed=1).run(store, generations=3, scheduler="serial")


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    """Thirty parameters, and a distance that is fitted."""
    prior = {f"parameter {i}": mpiabc.Normal(0, 1) for i in range(30)}
    distance = mpiabc.PNorm(scale="mad")
    problem = mpiabc.Problem(prior, wide, np.zeros(30), vectorized=True, distance=distance)
    store = folder(tmp_path_factory, "adaptive")
    return mpiabc.ABCSMC(problem, 60, seed=1).run(store, generations=3, scheduler="serial")


def explained(legend):
    return [text.get_text() for text in legend.get_texts()]


def line(ax, label):
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def drawn(figure):
    """What only matplotlib's own backend computes, such as where labels lie."""
    FigureCanvasAgg(figure).draw()


def labelled(figure):
    """The texts of a figure that are seen, each with its box."""
    drawn(figure)
    texts = [text for ax in figure.axes for text in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    texts += [label for ax in figure.axes for label in (ax.xaxis.label, ax.yaxis.label)]
    seen = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent() for text in seen]
    return [(text.get_text(), box) for text, box in zip(seen, boxes, strict=True) if box.width and box.height]


# Densities.


def test_a_density_ends_where_the_support_ends_and_loses_nothing_there():
    """Without what is reflected it would be half as high at the edge."""
    x = np.random.default_rng(1).random(4000)
    grid = np.linspace(-0.2, 1.2, 281)
    height = density.curve(x, np.full(4000, 1 / 4000), (0.0, 1.0), grid)
    assert not height[(grid < 0) | (grid > 1)].any()
    inside = height[(grid >= 0) & (grid <= 1)]
    assert inside.min() > 0.85
    assert abs(np.trapezoid(height, grid) - 1) < 0.01
    open_ended = density.curve(x, np.full(4000, 1 / 4000), (-np.inf, np.inf), grid)
    assert open_ended[np.argmin(np.abs(grid))] < 0.65


def test_a_density_is_of_weights():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(5000), np.ones(5000)
    w[x > 0] = 3.0
    grid = np.linspace(-5, 5, 501)
    height = density.curve(x, w / w.sum(), (-np.inf, np.inf), grid)
    assert 0.69 < np.trapezoid(height[grid > 0], grid[grid > 0]) < 0.78  # .5 without them


def test_contours_hold_their_shares_and_respect_bounds():
    rng = np.random.default_rng(1)
    x, y, w = rng.random(3000), rng.standard_normal(3000), np.full(3000, 1 / 3000)
    grids = np.linspace(-0.1, 1.1, 61), np.linspace(-4, 4, 81)
    found = density.surface(x, y, w, ((0.0, 1.0), (-np.inf, np.inf)), grids)
    assert not found[(grids[0] < 0) | (grids[0] > 1)].any()
    low, high = density.levels(found, (0.5, 0.9))
    cell = (grids[0][1] - grids[0][0]) * (grids[1][1] - grids[1][0])
    assert abs(found.sum() * cell - 1) < 0.03
    assert abs(found[found >= low].sum() / found.sum() - 0.9) < 0.02
    assert abs(found[found >= high].sum() / found.sum() - 0.5) < 0.02
    assert low < high


@pytest.mark.parametrize("x", [[2.0], [3.0] * 5, [0.0, 0.0], [1e-9, 2e-9, 4e-9], [-5.0, 1e6]])
def test_few_or_equal_particles_have_a_density(x):
    x, w = np.array(x), np.full(len(x), 1 / len(x))
    low, high = density.span(x, w, (-np.inf, np.inf))
    assert low < high
    assert np.isfinite(density.curve(x, w, (-np.inf, np.inf), np.linspace(low, high, 50))).all()


def test_few_generations_of_many_are_chosen_with_both_ends():
    assert spread(1000, 100)[0] == 0
    assert spread(1000, 100)[-1] == 999
    assert len(spread(1000, 100)) == 100
    assert spread(3, 100) == [0, 1, 2]
    assert spread(1, 6) == [0]


# Priors, as files tell them.


@pytest.mark.parametrize(
    ("marginal", "expected"),
    [
        (mpiabc.Normal(1, 2), stats.norm(1, 2).pdf),
        (mpiabc.LogUniform(np.float64(0.1), 10), stats.loguniform(0.1, 10).pdf),
        (stats.gamma(2, scale=3), stats.gamma(2, scale=3).pdf),
        (stats.poisson(3), stats.poisson(3).pmf),
        (mpiabc.Integer(1, 4), stats.randint(1, 5).pmf),
        (mpiabc.Choice(["a, b=c)", "(d"], [0.25, 0.75]), lambda x: np.select([x == 0, x == 1], [0.25, 0.75])),
    ],
    ids=["normal", "log-uniform", "gamma", "poisson", "integer", "choice"],
)
def test_priors_are_read_from_settings_without_unpickling(marginal, expected):
    names = ("first", "a, b", "mu")
    text = described(
        mpiabc.Prior({"first": mpiabc.Normal(0, 1), "a, b": marginal, "mu": mpiabc.Uniform(0, 1)})
    )

    class File:
        settings = {"prior": text}

    x = np.array([0.0, 1.0, 2.0, 3.0])
    found = priors.described(File(), names)
    assert set(found) == set(names)
    np.testing.assert_allclose(found["a, b"].density(x), expected(x), rtol=1e-12)
    given = priors.given(mpiabc.Prior({"a, b": marginal}))
    np.testing.assert_allclose(given["a, b"].density(x), expected(x), rtol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "Prior(mu=Normal(mean=0.0, sd=1.0), where=ordered)",
        "Prior(mu=Mine())",
        "Prior(mu=__import__('os').system('false'))",
        "Prior(mu=gamma(__import__('os').getpid(), {}))",
        "Prior(mu=fit((1,), {}))",
        "Prior(mu=norm((1, 2",
        "",
    ],
)
def test_what_settings_do_not_tell_is_not_guessed_nor_executed(text):
    class File:
        settings = {"prior": text}

    assert priors.described(File(), ("mu",)) == {}


def test_a_prior_that_is_not_described_is_drawn_of_its_sample(tmp_path):
    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2), where=lambda theta: theta["mu"] > -1)
    problem = mpiabc.Problem(prior, problems.gaussian, {"y": 1.0})
    history = mpiabc.ABCSMC(problem, 300, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    x, y = line(plots.pairs(history, fig=Figure).axes[0], "prior")
    expected = density.curve(history[0].theta[:, 0], history[0].weights, (-np.inf, np.inf), x)
    np.testing.assert_allclose(y, expected)


# Pairs.


def test_pairs_draw_densities_priors_and_references(run):
    reference = {"beta": 0.4, "gamma": 0.1, "stages": 3}
    figure = plots.pairs(run, reference=reference, fig=Figure)
    assert len(figure.axes) == 36
    first, last = figure.axes[0], run[-1]
    x, y = line(first, "posterior")
    np.testing.assert_allclose(y, density.curve(last["beta"], last.weights, (-np.inf, np.inf), x))
    x, y = line(first, "prior")
    np.testing.assert_allclose(y, stats.norm(0, 2).pdf(x))
    assert line(first, "reference")[0] == [0.4, 0.4]
    assert line(figure.axes[7], "reference")[0] == [-1, -1]  # of a logarithmic axis
    x, y = line(figure.axes[7], "prior")
    np.testing.assert_allclose(y, 1 / 4)  # uniform over four decades
    heights = [bar.get_height() for bar in figure.axes[35].patches]
    at = density_of_integers(last)
    np.testing.assert_allclose(heights[: len(at)], list(at.values()))
    np.testing.assert_allclose(heights[len(at) :], 1 / 8)  # the prior's
    cross = figure.axes[6]
    assert [one.get_xdata()[0] for one in cross.lines][:1] == [0.4]
    assert cross.collections  # contours
    legend = figure.axes[5].get_legend()
    assert legend.get_title().get_text() == "generation 3"
    assert explained(legend) == ["posterior", "prior", "reference", "holds 90 %", "holds 50 %", "particles"]


def density_of_integers(population):
    stages = population["stages"]
    return {i: population.weights[stages == i].sum() for i in range(int(stages.min()), int(stages.max()) + 1)}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["pairs", "marginals", "intervals"])
def test_labels_of_six_parameters_do_not_overlap(run, kind):
    texts = labelled(getattr(plots, kind)(run, fig=Figure))
    assert {"beta", "stages"} <= {text for text, _ in texts}
    for i, (one, a) in enumerate(texts):
        for other, b in texts[i + 1 :]:
            assert not a.padded(-1).overlaps(b.padded(-1)), f"{one!r} and {other!r}"


def test_of_thirty_parameters_all_densities_and_correlations_are_drawn(adaptive):
    figure = plots.pairs(adaptive, reference={"parameter 3": 0.5}, fig=Figure)
    assert len(figure.axes) == 31
    assert figure.axes[3].get_title() == "parameter 3"
    assert line(figure.axes[3], "reference")[0] == [0.5, 0.5]
    last = adaptive[-1]
    r = np.corrcoef(last.theta.T) if np.ptp(last.weights) == 0 else correlations(last)
    squares, dots = figure.axes[30].collections[:2]
    lower = r[np.tril_indices(30, -1)]
    assert len(squares.get_offsets()) == np.count_nonzero(lower > 0)
    sizes = np.sort(np.concatenate([squares.get_sizes(), dots.get_sizes()]))
    np.testing.assert_allclose(sizes / sizes[-1], np.sort(np.abs(lower)) / np.abs(lower).max())
    assert explained(figure.axes[30].get_legend()) == ["+1", "+0.5", "+0.1", "-1", "-0.5", "-0.1"]
    (above,) = (one for part in figure.subfigs for one in part.legends)
    assert explained(above) == ["posterior", "prior", "reference"]
    assert len(plots.pairs(adaptive, ["parameter 1", "parameter 7"], fig=Figure).axes) == 4


def correlations(population):
    c = np.cov(population.theta.T, aweights=population.weights)
    return c / np.sqrt(np.outer(np.diag(c), np.diag(c)))


def test_few_particles_are_points_of_equal_weight(two):
    population = two[-1].of("curved")
    figure = plots.pairs(population, fig=Figure)
    assert len(figure.axes[2].collections[0].get_offsets()) == len(population)
    heavy = np.array([0.9, 0.05, 0.05])
    assert np.count_nonzero(parameters.equally(heavy, 20) == 0) == 18


def test_choices_are_bars_with_their_values(two):
    figure = plots.pairs(two, problem="curved", reference={"law": "hill"}, fig=Figure)
    last, ax = two[-1].of("curved"), figure.axes[3]
    shares = [last.weights[last["law"] == i].sum() for i in (0, 1)]
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [*shares, 0.25, 0.75])
    assert line(ax, "reference")[0] == [1, 1]
    drawn(figure)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["lin", "hill"]


def test_what_can_be_drawn_from_is_drawn_like_a_population():
    class Posterior:
        names = ("a", "b")

        def sample(self, n, rng):
            return rng.standard_normal((n, 2))

    x, y = line(plots.pairs(Posterior(), fig=Figure).axes[0], "posterior")
    assert abs(x[np.argmax(y)]) < 0.5


# Over generations.


def test_marginals_of_a_few_generations_are_drawn(run, monkeypatch):
    loaded = []
    load = type(run)._load
    monkeypatch.setattr(type(run), "_load", lambda self, t: loaded.append(t) or load(self, t))
    monkeypatch.setattr(parameters, "_MOST_CURVES", 2)
    figure = plots.marginals(mpiabc.open(run.path), ["beta", "stages"], fig=Figure)
    assert set(loaded) == {0, 3}
    assert [one.get_label() for one in figure.axes[0].lines] == ["generation 0", "generation 3", "prior"]
    x, y = line(figure.axes[0], "generation 0")
    np.testing.assert_allclose(y, density.curve(run[0]["beta"], run[0].weights, (-np.inf, np.inf), x))
    assert [one.get_marker() for one in figure.axes[0].lines] == ["o", "None", "None"]
    figure = plots.marginals(run, "beta", generations=[1], prior=False, fig=Figure)
    assert [one.get_label() for one in figure.axes[0].lines] == ["generation 1"]


def test_intervals_are_weighted_quantiles(run):
    figure = plots.intervals(run, ["beta", "gamma"], reference={"beta": 0.4}, fig=Figure)
    x, y = line(figure.axes[0], "median")
    assert x.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(y, [p.quantile(0.5)["beta"] for p in run])
    assert line(figure.axes[0], "reference")[1] == [0.4, 0.4]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == max(p.quantile(0.95)["beta"] for p in run)
    np.testing.assert_allclose(
        line(figure.axes[1], "median")[1], [np.log10(p.quantile(0.5)["gamma"]) for p in run]
    )


def test_intervals_of_choices_are_probabilities(two):
    figure = plots.intervals(two, "law", problem=1, fig=Figure)
    each = [p.of("curved") for p in two]
    expected = [p.weights[p["law"] == 1].sum() for p in each]
    np.testing.assert_allclose(line(figure.axes[0], "hill")[1], expected)
    assert figure.axes[0].get_ylabel() == "probability of\nlaw"


def test_convergence_draws_numbers_of_generations(run):
    axes = plots.convergence(run, fig=Figure).axes
    found = [ax.lines[0].get_ydata() for ax in axes]
    assert np.isnan(found[0][0])  # infinite
    np.testing.assert_array_equal(found[0][1:], [p.epsilon for p in run][1:])
    np.testing.assert_array_equal(found[1], [p.acceptance_rate for p in run])
    np.testing.assert_array_equal(found[2], [p.ess for p in run])
    np.testing.assert_array_equal(found[3], [p.simulations for p in run])
    np.testing.assert_array_equal(found[4], [p.seconds for p in run])


def test_each_of_several_distances_has_a_line(tmp_path):
    def distances(simulated, observed):
        return {"near": abs(simulated["y"] - 1), "far": abs(simulated["y"] - 2)}

    history = mpiabc.ABCSMC(problems.problem(distance=distances), 30, seed=1).run(
        tmp_path / "run.db", generations=3, scheduler="serial"
    )
    ax = plots.convergence(history, fig=Figure).axes[0]
    np.testing.assert_array_equal(line(ax, "far")[1][1:], [p.epsilon[1] for p in history if p.generation])


def test_models_are_lines_of_their_probabilities(two):
    ax = plots.models(two, ax=Figure().subplots())
    np.testing.assert_allclose(line(ax, "curved")[1], [p.model_probabilities()[1] for p in two])
    assert explained(ax.get_legend()) == ["plain", "curved", "prior"]


def test_scales_are_shares_of_the_weights(adaptive, monkeypatch):
    image = plots.scales(adaptive, ax=Figure().subplots()).collections[0].get_array()
    factors = np.array([course.distance_of(*adaptive.order(t)).factors for t in (1, 2)])
    np.testing.assert_allclose(image.reshape(30, 2).T, factors / factors.sum(axis=1, keepdims=True))
    monkeypatch.setattr(course, "_MOST_LINES", 30)
    ax = plots.scales(adaptive, ax=Figure().subplots())
    np.testing.assert_allclose(line(ax, "y[4]")[1], factors[:, 4] / factors.sum(axis=1))


def test_a_fitted_distance_of_ones_own_has_no_weights_in_the_file(tmp_path):
    class Fitted:
        def rows(self, simulated, observed):
            return np.abs(simulated - observed).sum(axis=1)

        def fit(self, sample, observed):
            return Fitted()

    prior = {"mu": mpiabc.Normal(0, 2)}
    problem = mpiabc.Problem(prior, lambda theta, rng: theta["mu"], 1.0, distance=Fitted())
    history = mpiabc.ABCSMC(problem, 9, seed=1).run(tmp_path / "run.db", generations=2, scheduler="serial")
    with pytest.raises(mpiabc.ProblemError, match="keeps no weights of statistics"):
        plots.scales(history)


def test_workers_are_bars_of_the_time_simulated(run):
    ax = plots.workers(run, ax=Figure().subplots())
    assert [bar.get_height() for bar in ax.patches] == list(run.shares.values())
    assert all(0 < share <= 1 for share in run.shares.values())
    np.testing.assert_allclose(line(ax, "evaluations needed")[1], [p.evaluations / p.dispatched for p in run])
    resumed = replace(run[-1], dispatched=1)  # of the last start alone
    assert np.isnan(course._needed(resumed))


# Data.


def test_accepted_simulations_are_bands_and_histograms_with_the_data(run):
    figure = plots.predictive(run, fig=Figure)
    series, total = figure.axes
    last = run[-1]
    expected = [mpiabc.population.weighted_quantile(c, last.weights, 0.5) for c in last.data("series").T]
    np.testing.assert_array_equal(line(series, "median")[1], expected)
    np.testing.assert_array_equal(line(series, "observed")[1], [0.5, -1, 0.1, 1.5, 1.0, 1.5])
    assert abs(sum(bar.get_height() for bar in total.patches) - 1) < 1e-9
    assert line(total, "observed")[0] == [3.6, 3.6]
    assert "accepted simulations, generation 3" in figure.legends[0].get_title().get_text()
    series_of, number_of = ["90 %", "50 %", "median", "observed"], ["simulated", "observed"]
    assert explained(figure.legends[0]) == series_of + number_of
    one = plots.predictive(run, "series", x=np.arange(10, 16), fig=Figure)
    assert line(one.axes[0], "median")[0].tolist() == list(range(10, 16))


def test_predictions_are_drawn_under_the_names_of_the_data(run):
    predicted = run.predict(40, trust=True, scheduler="serial")
    figure = plots.predictive(predicted, fig=Figure)
    assert "posterior predictive" in figure.legends[0].get_title().get_text()
    middle = [mpiabc.population.weighted_quantile(c, np.full(40, 1 / 40), 0.5) for c in predicted["series"].T]
    np.testing.assert_array_equal(line(figure.axes[0], "median")[1], middle)
    np.testing.assert_array_equal(line(figure.axes[0], "observed")[1], [0.5, -1, 0.1, 1.5, 1.0, 1.5])


@pytest.mark.parametrize(("n", "low", "high"), [(1000, 0, 39), (1000, 3, 5), (400, -7, 140), (50, 4, 4)])
def test_bars_of_whole_numbers_have_equally_many_of_them(n, low, high):
    """Of 40 numbers in 31 bars some would have two, and stand out."""
    x = np.resize(np.arange(low, high + 1.0), n)
    edges = data._edges(x, low, high)
    (width,) = set(np.diff(edges))
    assert width == round(width)
    assert edges[0] == low - 0.5
    assert edges[-1] - width < high + 0.5 <= edges[-1]
    assert len(edges) - 1 <= 40
    assert set(np.diff(data._edges(x + 0.25, low, high)).round(9)) != {width} or low == high


def test_bars_of_whole_numbers_may_be_wider_than_integers_are():
    edges = data._edges(np.array([1e25, 5e25]), 1e25, 5e25)
    assert edges[0] <= 1e25 < 5e25 <= edges[-1]
    assert (np.diff(edges) > 0).all()


@pytest.mark.parametrize(("part", "are_whole"), [(0.0, True), (0.5, False)])
def test_whole_numbers_have_whole_ticks(part, are_whole):
    ax = Figure().subplots()
    data._number(ax, np.arange(5) + part, np.full(5, 0.2), None)
    assert all(tick == round(tick) for tick in ax.get_xticks()) == are_whole


def test_holes_of_data_are_left_out():
    values, weights = np.array([1.0, np.nan, 3.0]), np.array([0.2, 0.5, 0.3])
    known, w = data._known(values, weights)
    assert known.tolist() == [1, 3]
    np.testing.assert_allclose(w, [0.4, 0.6])
    assert np.isnan(data._quantiles(np.full(3, np.nan), weights)).all()


# Little, and nothing.


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", ["pairs", "marginals", "intervals", "convergence", "predictive", "models", "scales", "workers"]
)
def test_every_kind_draws_a_run_of_one_generation_of_five(kind, tmp_path):
    prior = {"mu": mpiabc.Normal(0, 2), "n": mpiabc.Integer(0, 3), "c": mpiabc.Choice(["a", "b"])}
    problem = mpiabc.Problem(prior, lambda theta, rng: {"y": theta["mu"] + rng.random(3)}, {"y": np.ones(3)})
    history = mpiabc.ABCSMC(problem, 5, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    draw = getattr(plots, kind)
    if kind in ("models", "scales"):
        with pytest.raises(mpiabc.ProblemError, match=r"of one model|fitted to no simulations"):
            draw(history)
        return
    where = {"ax": Figure().subplots()} if kind == "workers" else {"fig": Figure}
    found = draw(history, **where)
    drawn(found if isinstance(found, Figure) else found.figure)
    if kind in ("pairs", "marginals", "intervals", "predictive"):
        drawn(draw(history[-1], **where))


def test_what_cannot_be_drawn_is_reported(run, two, tmp_path):
    cases = [
        (lambda: plots.pairs(3), "3: give a History"),
        (lambda: plots.pairs(run, ["nu"]), "'nu' is no parameter; give some of beta"),
        (lambda: plots.pairs(run, []), "'nothing' is no parameter"),
        (lambda: plots.pairs(run, reference={"nu": 1}), "reference has 'nu', which is not drawn"),
        (lambda: plots.pairs(run, reference={"k": "x"}), "reference of 'k' is 'x', expected a number"),
        (lambda: plots.pairs(run, prior=3), "prior=3: give an mpiabc.Prior"),
        (lambda: plots.pairs(two), "a picture of a population of several models: ask for it of one"),
        (lambda: plots.predictive(run, "data"), "'data' is not among the data, 'series', 'total'"),
        (lambda: plots.predictive(run, "series", x=[1, 2], fig=Figure), "and the series has 6 numbers"),
        (lambda: plots.convergence(run[0]), "convergence of <Population 0"),
    ]
    for draw, said in cases:
        with pytest.raises(mpiabc.ProblemError, match=said):
            draw()
    history = mpiabc.ABCSMC(problems.problem(), 20, seed=1, keep="theta").run(
        tmp_path / "run.db", generations=1, scheduler="serial"
    )
    with pytest.raises(mpiabc.ProblemError, match='keep="theta" keeps none'):
        plots.predictive(history)


def test_a_run_without_generations_is_reported(tmp_path):
    def broken(theta, rng):
        raise ArithmeticError("no")

    abc = problems.sampler(simulate=broken)
    with pytest.raises(mpiabc.SimulatorError):
        abc.run(tmp_path / "run.db", scheduler="serial")
    history = mpiabc.open(tmp_path / "run.db")
    for draw in (plots.pairs, plots.convergence, plots.predictive):
        with pytest.raises(mpiabc.ProblemError, match="no complete generation yet"):
            draw(history)


def test_what_is_missing_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"plots need matplotlib: install `mpiabc\[plot\]`"):
        plots.convergence(run)
    assert main(["plot", str(run.path), "convergence"]) == 1


def test_long_names_are_wrapped_and_read_as_text():
    assert canvas.wrapped("rate_of_recovery_and_more") == "rate_of_\nrecovery_and_\nmore"
    assert canvas.wrapped("a$b$") == r"a\$b\$"
    assert len(canvas.wrapped("x" * 100, 100)) == 40


# On the command line.


@pytest.mark.long
def test_pictures_are_written_by_the_command_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(run.path), "convergence", "--dpi", "40"]) == 0
    assert (tmp_path / "run-convergence.png").read_bytes().startswith(b"\x89PNG")
    assert "run-convergence.png" in capsys.readouterr().out
    words = ["--names", "beta", "k", "--reference", "beta=.4", "--generation", "1", "--output", "two.svg"]
    assert main(["plot", str(run.path), "pairs", *words]) == 0
    assert (tmp_path / "two.svg").read_text().startswith("<?xml")
    assert main(["plot", str(run.path), "workers", "--output", "w.pdf"]) == 0
    assert (tmp_path / "w.pdf").read_bytes().startswith(b"%PDF")
    assert main(["plot", str(run.path), "workers", "--output", "bare"]) == 0
    assert (tmp_path / "bare.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_simulates_from_the_posterior_for_predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "import mpiabc\nproblem = mpiabc.Problem({'mu': mpiabc.Normal(0, 2)}, "
    source += "lambda theta, rng: {'y': theta['mu'] + rng.standard_normal()}, {'y': 1.0})\n"
    (tmp_path / "fit.py").write_text(source)
    problems.sampler(30).run(tmp_path / "run.db", scheduler="serial")
    words = ["--problem", "fit.py", "--draws", "20", "--scheduler", "serial", "--output", "data.png"]
    assert main(["plot", "run.db", "predictive", *words]) == 0
    assert (tmp_path / "data.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["workers", "--names", "beta"], "--names is for pairs, marginals, intervals, predictive"),
        (["pairs", "--problem", "fit.py"], "--problem is for predictive"),
        (["pairs", "--generation", "9"], "--generation 9: "),
        (["pairs", "--reference", "beta"], "--reference 'beta': give NAME=VALUE"),
        (["pairs", "--dpi", "0"], "--dpi 0.0: give a number up to 2400"),
        (["convergence", "--output", "a.doc"], "cannot be written: Format 'doc' is not supported"),
        (["convergence", "--output", "/nowhere/a.png"], "cannot be written"),
        (["models"], "is the run of one model"),
    ],
)
def test_the_command_line_says_what_it_cannot_draw(run, words, said, capsys):
    assert main(["plot", str(run.path), *words]) == 1
    assert said in capsys.readouterr().err


def test_several_pictures_fill_parts_of_one_figure(run):
    figure = Figure(figsize=(9, 5), layout="constrained")
    left, right = figure.subfigures(1, 2)
    assert plots.predictive(run, "series", fig=left) is left
    assert plots.pairs(run, ["beta", "k"], fig=right) is right
    FigureCanvasAgg(figure).draw()
    assert [len(part.axes) for part in (left, right)] == [1, 4]


def test_prior_of_many_whole_numbers_is_one_line(tmp_path):
    """Not a line for each number, with nothing between them."""
    problem = mpiabc.Problem({"n": mpiabc.Integer(400, 700)}, lambda theta, rng: theta["n"] / 100, 5.0)
    history = mpiabc.ABCSMC(problem, 100, seed=1).run(tmp_path / "run.db", generations=1, scheduler="serial")
    figure = plots.pairs(history, fig=Figure())
    (prior,) = (line for line in figure.axes[0].lines if line.get_label() == "prior")
    inside = prior.get_ydata()[5:-5]
    assert np.allclose(inside, 1 / 301)
