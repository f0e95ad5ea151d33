"""Plots of a run's course: thresholds, models, scales, workers over its generations."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpiabc.analysis.plots import canvas
from mpiabc.analysis.plots.canvas import INK
from mpiabc.analysis.plots.seen import chosen
from mpiabc.analysis.steps import spread
from mpiabc.errors import ProblemError
from mpiabc.order import distance_of, has_foreign_distance
from mpiabc.population import Population
from mpiabc.store import History

_MOST = 100  # generations that are read
_MOST_LINES = 6  # statistics whose scales are lines; of more, they are a map
_FACTORS = "factors"  # what fitted distances call the weights of what they compare


def _history(source: Any, what: str) -> History:
    """The source. Raises ProblemError for what is no run, or one without generations."""
    if not isinstance(source, History):
        raise ProblemError(f"{what} of {source!r}: give a History, as mpiabc.open(...) gives it")
    if not len(source):
        raise ProblemError(f"{source.path} has no complete generation yet: there is nothing to draw")
    return source


def convergence(history: History, *, fig: Any = None) -> Any:
    """Epsilon, acceptance rate, effective sample size, simulations and seconds of generations; the Figure.

    Of more than a hundred generations as many are drawn, evenly chosen, the first and the last among them.
    """
    drawn = chosen(_history(history, "convergence"), _MOST)
    figure = canvas.new_figure(fig, 7.0, 8.2)
    axes = figure.subplots(5, 1, sharex=True)
    times = [population.generation for population in drawn]
    _epsilons(axes[0], times, drawn, history.settings.get("acceptor") is not None)
    _line(axes[1], times, [p.acceptance_rate for p in drawn], "acceptance\nrate", is_log=True)
    _line(axes[2], times, [p.ess for p in drawn], "effective\nsample size")
    axes[2].plot(times, [len(p) for p in drawn], color="0.35", linestyle="--", linewidth=1, label="particles")
    axes[2].set_ylim(bottom=0)
    canvas.legend(axes[2], loc="lower left")
    _line(axes[3], times, [p.simulations for p in drawn], "simulations\nper generation", is_log=True)
    _line(axes[4], times, [p.seconds for p in drawn], "seconds\nper generation", is_log=True)
    axes[4].set_xlabel("generation")
    canvas.whole_ticks(axes[4].xaxis)
    figure.align_ylabels()
    return figure


def _line(
    ax: Any, times: Sequence[int], values: Sequence[float], what: str, *, is_log: bool = False, **style: Any
) -> None:
    """A number over generations; infinite ones are left out."""
    y = np.array([value if math.isfinite(value) else np.nan for value in map(float, values)])
    marker = style.pop("marker", "o" if len(times) < 30 else "")
    ax.plot(times, y, **{"color": INK, "markersize": 4, "marker": marker, **style})
    ax.set_ylabel(what, fontsize=9)
    ax.tick_params(labelsize=7)
    ax.grid(alpha=0.25, linewidth=0.5)
    known = y[np.isfinite(y)]
    if is_log and known.size and (known > 0).all() and known.max() > 3 * known.min():
        canvas.logarithmic(ax.yaxis)


def _epsilons(ax: Any, times: Sequence[int], drawn: Sequence[Population], is_temperature: bool) -> None:
    """The threshold, or one of each of several distances; where it is infinite, an arrow."""
    name = "temperature" if is_temperature else "epsilon"
    m = max(np.size(p.epsilon) for p in drawn)  # where one number stands for all, it is infinite
    table = np.array([np.broadcast_to(np.asarray(p.epsilon, float), m) for p in drawn])
    names = drawn[-1].columns_of_distances or [str(i) for i in range(table.shape[1])]
    for i, column in enumerate(table.T):
        style: dict[str, Any] = {
            "linestyle": canvas.LINES[i % len(canvas.LINES)],
            "marker": canvas.MARKERS[i % 10],
        }
        label: dict[str, Any] = {} if table.shape[1] == 1 else {"label": str(names[i])}
        _line(ax, times, column.tolist(), name, is_log=True, **style, **label)
    canvas.legend(ax)
    infinite = [t for t, row in zip(times, table, strict=True) if not np.isfinite(row).all()]
    for t in infinite[:1]:
        ax.annotate(
            "∞", (t, 1), (t, 0.72), xycoords=("data", "axes fraction"), ha="center",
            arrowprops={"arrowstyle": "->", "color": INK}, color=INK,
        )  # fmt: skip


def models(history: History, *, ax: Any = None) -> Any:
    """The posterior probability of each model over generations; returns the Axes."""
    if not _history(history, "models").settings.get("models"):
        raise ProblemError(f"{history.path} is the run of one model: there are no probabilities to draw")
    drawn = chosen(history, _MOST)
    ax = canvas.new_axes(ax)
    times = [population.generation for population in drawn]
    table = np.array([population.model_probabilities() for population in drawn])
    for m, model in enumerate(drawn[0].models):
        style: dict[str, Any] = {"linestyle": canvas.LINES[m % 4], "marker": canvas.MARKERS[m % 10]}
        _line(
            ax,
            times,
            table[:, m].tolist(),
            "probability",
            **style,
            color=canvas.shades(3)[-1 - m % 3],
            label=model.name,
        )
    for model in drawn[0].models:
        ax.axhline(model.probability, xmax=0.02, color=canvas.PRIOR["color"], linewidth=2, label="prior")
    ax.set(xlabel="generation", ylim=(-0.03, 1.03))
    canvas.whole_ticks(ax.xaxis)
    canvas.legend(ax, title="model")
    return ax


def scales(history: History, *, ax: Any = None) -> Any:
    """The weight that an adaptive distance gave each statistic over generations, as a share; the Axes.

    Of a few statistics they are lines, of many a map, dark where the weight is large.
    """
    times, table = _weights(_history(history, "scales"))
    if not times:
        raise ProblemError(
            f"{history.path} keeps no weights of statistics: its distance is fitted to no simulations, or is "
            'not one of PNorm(scale="mad") and its kin'
        )
    ax = canvas.new_axes(ax)
    names = history.labels or [str(i) for i in range(table.shape[1])]
    names = names if len(names) == table.shape[1] else [f"part {i}" for i in range(table.shape[1])]
    (_lines if len(names) <= _MOST_LINES else _map)(ax, times, table, names)
    ax.set_xlabel("generation")
    canvas.whole_ticks(ax.xaxis)
    return ax


def _weights(history: History) -> tuple[list[int], np.ndarray]:
    """Generations, and the share of each weight (t, k) in them."""
    times, rows = [], []
    for t in spread(len(history), _MOST):
        order = history.order(t)
        if order is None or has_foreign_distance(order[0]):
            continue
        factors = getattr(distance_of(*order), _FACTORS, None)
        if factors is not None and np.sum(factors) > 0:
            times.append(t)
            rows.append(np.asarray(factors, float) / np.sum(factors))
    is_changing = any(not np.array_equal(row, rows[0]) for row in rows)
    return (times, np.array(rows)) if is_changing or len(rows) == 1 else ([], np.empty((0, 0)))


def _lines(ax: Any, times: Sequence[int], table: np.ndarray, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        style: dict[str, Any] = {"linestyle": canvas.LINES[i % 4], "marker": canvas.MARKERS[i % 10]}
        _line(
            ax, times, table[:, i].tolist(), "share of the weights", **style, label=canvas.wrapped(name, 30)
        )
    ax.set_ylim(bottom=0)
    canvas.legend(ax)


def _map(ax: Any, times: Sequence[int], table: np.ndarray, names: Sequence[str]) -> None:
    edges = [t - 0.5 for t in times] + [times[-1] + 0.5]
    image = ax.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, table.T, cmap="Blues", vmin=0)
    ax.figure.colorbar(image, ax=ax, label="share of the weights")
    at = range(0, len(names), -(-len(names) // 16))
    ax.set_yticks(at, [canvas.wrapped(names[i], 30) for i in at], fontsize=7)
    ax.invert_yaxis()


def workers(history: History, *, ax: Any = None) -> Any:
    """The share of the workers' time in which they simulated, by generation; returns the Axes.

    Beside it the share of the evaluations handed out that the population needed.
    """
    drawn = chosen(_history(history, "workers"), _MOST)
    shares = history.shares
    if not shares:
        raise ProblemError(f"{history.path} is of an older mpiabc, which did not keep how busy workers were")
    ax = canvas.new_axes(ax)
    times = [population.generation for population in drawn]
    busy = [shares.get(t, math.nan) for t in times]
    needed = [_needed(population) for population in drawn]
    width = 0.8 * (times[1] - times[0] if len(times) > 1 else 1)
    ax.bar(
        times,
        busy,
        width,
        color=canvas.FILLS[1],
        edgecolor=INK,
        linewidth=0.5,
        label="workers' time simulated",
    )
    _line(ax, times, needed, "share", color="black", linestyle=":", label="evaluations needed")
    ax.set(xlabel="generation", ylim=(0, 1.25), yticks=[0, 0.25, 0.5, 0.75, 1])
    canvas.whole_ticks(ax.xaxis)
    canvas.legend(ax, loc="upper center", ncols=2)
    return ax


def _needed(population: Population) -> float:
    """The share of the evaluations handed out that were needed; nan if an earlier start gave out more."""
    needed, dispatched = population.evaluations, population.dispatched
    return needed / dispatched if dispatched >= max(1, needed) else math.nan
