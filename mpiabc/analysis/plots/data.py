"""The data beside what the model says of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpiabc.analysis.plots import canvas
from mpiabc.analysis.plots.canvas import FILLS, INK
from mpiabc.analysis.plots.seen import of_model
from mpiabc.analysis.predict import Prediction
from mpiabc.errors import ProblemError
from mpiabc.named import by_name, shapes_of
from mpiabc.population import Population, weighted_quantile
from mpiabc.store import History
from mpiabc.structure import Structure

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_PANELS = 16
_MOST_ROWS = 4  # of a table that are drawn as series
_MOST_PLACES = 400  # of a series, for which quantiles are computed
_OBSERVED = {"color": "black", "marker": "o", "markersize": 4, "linestyle": "", "label": "observed"}


class Shown(NamedTuple):
    """Simulated and observed data by name, and weights (n,)."""

    data: Mapping[str, np.ndarray]
    weights: np.ndarray
    observed: Mapping[str, np.ndarray]
    title: str


def predictive(
    source: Any,
    names: Sequence[str] | str | None = None,
    *,
    observed: Any = None,
    problem: Any = None,
    t: int = -1,
    x: Any = None,
    fig: Any = None,
) -> Any:
    """The data against simulations: bands of 50 and 90 % for series, histograms for numbers; the Figure.

    source: what `history.predict` gives, for the posterior predictive; of a History (its generation t), or a
    Population, the accepted simulations, which lie within the threshold of the data. names: keys of the
    data. observed: data to be marked, where the source does not know them, of the same structure. x: where
    the numbers of series stand, such as days; one array for all, or by name. problem: the one of several
    models.
    """
    shown = _shown(source, problem, t)
    if observed is not None:
        structure = Structure(observed)
        rows = by_name(structure.row(observed)[None], shapes_of(structure))
        shown = shown._replace(observed={name: part[0] for name, part in rows.items()})
    wanted = _wanted(names, shown.data)
    places = {name: x[name] for name in wanted if name in x} if isinstance(x, Mapping) else {}
    places = places if isinstance(x, Mapping) or x is None else dict.fromkeys(wanted, x)
    columns, rows_of = canvas.shape_for(len(wanted))
    figure = canvas.new_figure(fig, max(4.5, 0.6 + 3.4 * columns), 0.8 + 2.6 * rows_of)
    axes = canvas.panels(figure, len(wanted))
    for name, ax in zip(wanted, axes, strict=True):
        _part(ax, name, shown, places.get(name))
    is_series = [shown.data[name][0].size > 1 for name in wanted]
    kinds = [axes[is_series.index(kind)] for kind in (True, False) if kind in is_series]
    canvas.legend_above(figure, kinds, shown.title)
    return figure


def _shown(source: Any, problem: Any, t: int) -> Shown:
    """What is drawn. Raises ProblemError for what has no simulated data."""
    if isinstance(source, Prediction):
        weights = np.full(len(source.theta), 1 / len(source.theta))
        return Shown(source.data, weights, source.observed, "posterior predictive")
    if not isinstance(source, History | Population):
        raise ProblemError(f"{source!r}: give a History, a Population, or what history.predict(...) gives")
    if isinstance(source, History) and not len(source):
        raise ProblemError(f"{source.path} has no complete generation yet: there is nothing to draw")
    population = source[t] if isinstance(source, History) else source
    title = f"accepted simulations, generation {population.generation}"
    if population.models and problem is not None:
        title = f"{title}, {getattr(problem, 'name', problem)}"
    population = of_model(population, problem) if problem is not None else population
    population.data(population.shapes[0][0] if population.shapes else None)  # or say why there are none
    data = by_name(np.asarray(population.summaries, float), population.shapes)
    observed: Mapping[str, np.ndarray] = {}
    if isinstance(source, History) and (row := source.observed) is not None:
        observed = {name: part[0] for name, part in by_name(row[None], source.shapes).items()}
    return Shown(data, population.weights, observed, title)


def _wanted(names: Sequence[str] | str | None, data: Mapping[str, np.ndarray]) -> list[str]:
    known = [name for name, part in data.items() if part.dtype != object and part[0].size]
    if names is None:
        if not known:
            raise ProblemError("the simulations are no numbers: there is nothing to draw")
        return known[:_MOST_PANELS]
    wanted = [names] if isinstance(names, str) else list(names)
    wrong = [name for name in wanted if name not in known]
    if wrong or not wanted:
        wrong_name = wrong[0] if wrong else "nothing"
        raise ProblemError(
            f"names={names!r}: {wrong_name!r} is not among the data, {', '.join(map(repr, known))}"
        )
    return wanted


def _part(ax: Any, name: str, shown: Shown, x: Any) -> None:
    """The data of one name."""
    values, observed = shown.data[name], shown.observed.get(name)
    ax.tick_params(labelsize=7)
    if values[0].size == 1:
        _number(ax, values.reshape(-1), shown.weights, observed)
        ax.set_xlabel(canvas.wrapped(name, 28), fontsize=9)
        return
    is_table = values.ndim > 2
    rows = values.reshape(len(values), -1, values.shape[-1]) if is_table else values[:, None]
    seen = None if observed is None else np.reshape(observed, (rows.shape[1], -1))
    for i in range(min(rows.shape[1], _MOST_ROWS)):
        _series(ax, rows[:, i], shown.weights, None if seen is None else seen[i], x, i)
    ax.set_ylabel(canvas.wrapped(name, 28), fontsize=9)


def _number(ax: Any, values: np.ndarray, weights: np.ndarray, observed: Any) -> None:
    """A histogram of equal weights, and where the datum lies."""
    x, w = _known(values, weights)
    if len(x):
        low, high = x.min(), x.max()
        if observed is not None and np.isfinite(observed).all():
            low, high = min(low, float(np.ravel(observed)[0])), max(high, float(np.ravel(observed)[0]))
        edges = _edges(x, low, high)
        ax.hist(
            x,
            edges,
            weights=w,
            color=FILLS[0],
            edgecolor=INK,
            linewidth=0.7,
            label="simulated",
        )
        canvas.ticks(ax.xaxis, (edges[0], edges[-1]), 4, are_whole=_are_whole(x))
    if observed is not None:
        ax.axvline(float(np.ravel(observed)[0]), color="black", linewidth=1.6, label="observed")
    ax.set_yticks([])


def _edges(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Of equal bars; of whole numbers, each has equally many of these, or some would stand out."""
    most = int(np.clip(np.sqrt(len(x)), 5, 40))
    if _are_whole(x):
        first, n = math.floor(low), math.ceil(high) - math.floor(low) + 1
        width = float(math.ceil(n / most))  # whole numbers may be larger than integers of NumPy's
        return first - 0.5 + width * np.arange(math.ceil(n / width) + 1)
    room = 0.05 * (high - low) or 0.5
    return np.linspace(low - room, high + room, most + 1)


def _are_whole(x: np.ndarray) -> bool:
    return bool(np.array_equal(x, np.floor(x)))


def _series(ax: Any, values: np.ndarray, weights: np.ndarray, observed: Any, x: Any, i: int) -> None:
    """Bands of a series (n, k), a line of its medians, and the data as dots."""
    k = values.shape[1]
    if x is None:
        canvas.whole_ticks(ax.xaxis)
        ax.set_xlabel("index", fontsize=9)
    x = np.arange(k) if x is None else np.asarray(x, float)
    if x.shape != (k,):
        raise ProblemError(f"x has the shape {x.shape}, and the series has {k} numbers: give as many")
    at = np.unique(np.linspace(0, k - 1, min(k, _MOST_PLACES)).astype(int))
    bands = np.array([_quantiles(values[:, j], weights) for j in at]).T
    ax.fill_between(x[at], bands[0], bands[4], color=FILLS[0], linewidth=0, alpha=0.9, label="90 %")
    ax.fill_between(x[at], bands[1], bands[3], color=FILLS[1], linewidth=0, alpha=0.9, label="50 %")
    ax.plot(x[at], bands[2], color=INK, linewidth=1.3, linestyle=canvas.LINES[i % 4], label="median")
    if observed is not None:
        ax.plot(x, observed, **{**_OBSERVED, "marker": canvas.MARKERS[i], "markersize": 4 if k < 100 else 2})


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known, w = _known(values, weights)
    return weighted_quantile(known, w, list(_LEVELS)) if len(known) else np.full(len(_LEVELS), np.nan)


def _known(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that are no holes, with weights whose sum is 1."""
    is_known = np.isfinite(values) & (weights > 0)
    w = weights[is_known]
    return values[is_known], w / (w.sum() or 1.0)
