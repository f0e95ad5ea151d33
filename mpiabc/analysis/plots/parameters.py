"""Plots of parameters: pairs of them, their densities, and both over generations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpiabc.analysis.plots import canvas, density
from mpiabc.analysis.plots.canvas import FILLS, INK, PRIOR, REFERENCE, SMALL
from mpiabc.analysis.plots.seen import Parameter, Points, Seen, masses, references, seen
from mpiabc.errors import ProblemError
from mpiabc.population import effective_sample_size, weighted_quantile

MOST_PAIRS = 10  # parameters whose pairs are drawn; of more, their correlations are
_MOST_CURVES = 6  # generations whose densities are drawn
_MOST_STEPS = 60  # generations whose intervals are drawn
_MOST_POINTS = 1000
_LEAST_SURFACE = 50  # effective particles, from where on contours say more than points
_SURFACE = 80
_SHARES = (0.5, 0.9)
_MARKED = (1.0, 0.5, 0.1)  # correlations whose marks are explained
_ROOM = 2.5  # times the last density: higher ones, of earlier generations, are cut, or the last would be flat


def pairs(
    source: Any,
    names: Sequence[str] | None = None,
    *,
    reference: Any = None,
    prior: Any = None,
    problem: Any = None,
    t: int = -1,
    points: bool | None = None,
    fig: Any = None,
) -> Any:
    """Parameters by twos: densities on the diagonal, contours of 50 and 90 % below; returns the Figure.

    source: a History (its generation t), a Population, or `history.posterior()`. reference: values to be
    marked, by name. prior: a Prior, or a Problem, if the file does not tell it; False for none. problem: the
    one of several models. points: particles in the place of contours, which few have anyway. Of more than
    ten parameters all densities are drawn, and the correlations of all; `names` chooses those of pairs.
    """
    view = seen(source, names, prior, problem, t)
    marks, population = references(reference, view.parameters), view.population(t)
    if len(view.parameters) > MOST_PAIRS:
        return _many(view, population, marks, fig)
    d = len(view.parameters)
    figure = canvas.new_figure(fig, max(3.2, 1.0 + 1.45 * d), max(3.0, 0.8 + 1.4 * d))
    axes = figure.subplots(d, d, squeeze=False)
    spans = [p.span([p.of(population)]) for p in view.parameters]
    for i, row in enumerate(axes):
        for j, ax in enumerate(row):
            if j > i:
                ax.axis("off")
            elif j == i:
                _density(ax, view.parameters[i], population, spans[i], marks)
            else:
                two = view.parameters[j], view.parameters[i]
                _pair(ax, two, (spans[j], spans[i]), population, marks, points)
            _label(ax, view.parameters, i, j, d)
    figure.align_labels()
    title = _titled(view, population)
    if d > 1:
        below = [axes[i, j] for i in range(d) for j in range(i)]
        canvas.legend(axes[0, -1], axes[0, 0], *below, title=title, loc="upper right")
    else:
        canvas.legend(axes[0, 0], title=title)
    return figure


def _titled(view: Seen, population: Any) -> str:
    """Which particles are drawn."""
    return view.named(
        f"generation {population.generation}" if hasattr(population, "generation") else "posterior"
    )


def _label(ax: Any, parameters: Sequence[Parameter], i: int, j: int, d: int) -> None:
    """Names and numbers at the outer axes alone."""
    ax.tick_params(labelsize=7, length=2)
    if i == d - 1 and j <= i:
        ax.set_xlabel(canvas.wrapped(parameters[j].name), fontsize=9)
        for label in ax.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    else:
        ax.tick_params(labelbottom=False)
    if j == 0 and i > 0:
        ax.set_ylabel(canvas.wrapped(parameters[i].name), fontsize=9)
    elif j != i or i > 0:
        ax.tick_params(labelleft=False)
    if i == j:
        ax.set_yticks([])


def _density(
    ax: Any, parameter: Parameter, population: Any, span: density.Ends, marks: dict[str, float]
) -> None:
    """One parameter's density, or masses, with its prior and its reference."""
    points = parameter.of(population)
    if parameter.bars:
        at = parameter.at(span)
        ax.bar(at, masses(points, at), 0.8, color=FILLS[1], edgecolor=INK, linewidth=0.8, label="posterior")
        prior = parameter.prior_at(at.astype(float), span)
        if prior is not None:
            style = {k: v for k, v in PRIOR.items() if k != "color"}
            ax.bar(at, prior, 0.8, fill=False, edgecolor=PRIOR["color"], **style)
    elif len(points[0]):
        grid = parameter.grid(span)
        height = density.curve(*points, parameter.shown_ends, grid)
        ax.fill_between(grid, height, color=FILLS[0], linewidth=0)
        ax.plot(grid, height, color=INK, linewidth=1.4, label="posterior")
        prior = parameter.prior_at(grid, span)
        if prior is not None:
            ax.plot(grid, prior, **PRIOR)
        ax.set_ylim(0, 1.12 * height.max())
    _finish(ax, parameter, span, marks)


def _finish(ax: Any, parameter: Parameter, span: density.Ends, marks: dict[str, float]) -> None:
    """The reference value, if there is one, and the axis."""
    if parameter.name in marks:
        mark, _ = parameter.shown(np.array([marks[parameter.name]]), np.ones(1))
        for value in mark:
            ax.axvline(value, **REFERENCE)
    canvas.parameter_axis(ax.xaxis, parameter, span)


def _pair(
    ax: Any,
    two: tuple[Parameter, Parameter],
    spans: tuple[density.Ends, density.Ends],
    population: Any,
    marks: dict[str, float],
    points: bool | None,
) -> None:
    """Two parameters: contours, or particles where these are few, or a parameter has bars."""
    x, y, w = _of_two(two, population)
    is_barred = any(p.bars for p in two)
    if points or is_barred or effective_sample_size(w) < _LEAST_SURFACE:
        _points(ax, two, x, y, w)
    else:
        _contours(ax, two, spans, x, y, w)
    for axis, parameter, line in ((0, two[0], ax.axvline), (1, two[1], ax.axhline)):
        if parameter.name in marks:
            mark, _ = parameter.shown(np.array([marks[parameter.name]]), np.ones(1))
            for value in mark:
                line(value, **{**REFERENCE, "label": f"_{axis}"})
    canvas.parameter_axis(ax.xaxis, two[0], spans[0])
    canvas.parameter_axis(ax.yaxis, two[1], spans[1])


def _of_two(two: tuple[Parameter, Parameter], population: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of both parameters, as drawn, and weights."""
    columns = [population.theta[:, p.column] for p in two]
    with np.errstate(all="ignore"):
        z = [np.log10(c) if p.is_log else c for p, c in zip(two, columns, strict=True)]
    is_one = np.isfinite(z[0]) & np.isfinite(z[1]) & (population.weights > 0)
    return z[0][is_one], z[1][is_one], population.weights[is_one]


def _points(ax: Any, two: tuple[Parameter, Parameter], x: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
    """Particles by equal weights; those of equal values lie beside each other."""
    at = equally(w, min(_MOST_POINTS, max(len(w), 1)))
    x, y = x[at], y[at]
    aside = [_aside(len(at), base) if p.bars else 0.0 for p, base in zip(two, (2, 3), strict=True)]
    size = 12 if len(at) < 100 else 4
    ax.scatter(x + aside[0], y + aside[1], s=size, color=INK, alpha=0.5, linewidths=0, label="particles")


def equally(w: np.ndarray, n: int) -> np.ndarray:
    """n rows, each as often as its weight says (systematic, without chance)."""
    at = np.searchsorted(np.cumsum(w / w.sum()), (np.arange(n) + 0.5) / n)
    return np.minimum(at, len(w) - 1)


def _aside(n: int, base: int) -> np.ndarray:
    """Steps aside (van der Corput's sequence), so that equal values do not hide each other."""
    i, out, f = np.arange(1, n + 1), np.zeros(n), 1.0 / base
    while i.any():
        out, i, f = out + f * (i % base), i // base, f / base
    return 0.6 * (out - 0.5)


def _contours(
    ax: Any,
    two: tuple[Parameter, Parameter],
    spans: tuple[density.Ends, density.Ends],
    x: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
) -> None:
    grids = np.linspace(*spans[0], _SURFACE), np.linspace(*spans[1], _SURFACE)
    surface = density.surface(x, y, w, (two[0].shown_ends, two[1].shown_ends), grids)
    heights = density.levels(surface, _SHARES)
    if not heights or not surface.max() > heights[-1]:
        _points(ax, two, x, y, w)
        return
    fills = FILLS[-len(heights) :]
    ax.contourf(*grids, surface.T, [*heights, surface.max()], colors=fills)
    ax.contour(*grids, surface.T, heights, colors=[INK], linewidths=0.8)
    shares = sorted(_SHARES, reverse=True)[-len(heights) :]
    for fill, share in zip(fills, shares, strict=True):  # for the legend alone
        ax.fill([], [], facecolor=fill, edgecolor=INK, linewidth=0.8, label=f"holds {100 * share:.0f} %")


def _many(view: Seen, population: Any, marks: dict[str, float], fig: Any) -> Any:
    """More parameters than pairs are readable of: all densities, and all correlations."""
    d = len(view.parameters)
    columns = 6
    rows = -(-d // columns)
    size = max(4.0, 0.22 * d + 2)
    figure = canvas.new_figure(fig, 10.0, 1.15 * rows + size + 0.4)
    above, below = figure.subfigures(2, 1, height_ratios=[1.15 * rows + 0.4, size])
    axes = canvas.panels(above, d, width=columns)
    for parameter, ax in zip(view.parameters, axes, strict=True):
        _density(ax, parameter, population, parameter.span([parameter.of(population)]), marks)
        ax.set_title(canvas.wrapped(parameter.name, 22), fontsize=SMALL, pad=2)
        ax.tick_params(labelsize=6, length=2)
        ax.set_yticks([])
    canvas.legend_above(above, axes, _titled(view, population))
    _correlations(below, view.parameters, population)
    return figure


def _correlations(figure: Any, parameters: Sequence[Parameter], population: Any) -> None:
    """A mark for each pair, its area the correlation: dark squares are positive, white dots negative."""
    d, w = len(parameters), population.weights
    theta = population.theta[:, [p.column for p in parameters]]
    ax = figure.subplots()
    with np.errstate(all="ignore"):
        centred = theta - w @ theta
        covariance = (w[:, None] * centred).T @ centred
        sd = np.sqrt(np.diag(covariance))
        found = np.nan_to_num(covariance / np.outer(sd, sd))
    i, j = np.tril_indices(d, -1)
    r = found[i, j]
    whole = (0.7 * 72 * 3.6 / d) ** 2  # the area of a correlation of 1
    looks: Any = {"s": {"facecolor": INK}, "o": {"facecolor": "white"}}
    for of, marker in ((r > 0, "s"), (r <= 0, "o")):
        size = np.abs(r[of]) * whole
        ax.scatter(j[of], i[of], s=size, marker=marker, edgecolor=INK, linewidths=1, **looks[marker])
    labels = [canvas.wrapped(p.name, 40) for p in parameters]
    ax.set_xticks(range(d - 1), labels[:-1], rotation=90, fontsize=7)
    ax.set_yticks(range(1, d), labels[1:], fontsize=7)
    ax.set(xlim=(-0.6, d - 1.4), ylim=(d - 0.4, 0.4), aspect="equal", title="correlations")
    ax.grid(alpha=0.25, linewidth=0.5)
    ax.set_axisbelow(True)
    marks = [
        ax.scatter([], [], s=share * whole, marker=marker, edgecolor=INK, linewidths=1, **looks[marker])
        for marker in "so"
        for share in _MARKED
    ]
    names = [f"{sign}{share:g}" for sign in "+-" for share in _MARKED]
    style = {"fontsize": SMALL, "title_fontsize": SMALL, "frameon": False}
    ax.legend(marks, names, loc="upper right", ncols=2, title="correlation", **style)


def marginals(
    source: Any,
    names: Sequence[str] | None = None,
    *,
    generations: Sequence[int] | None = None,
    reference: Any = None,
    prior: Any = None,
    problem: Any = None,
    fig: Any = None,
) -> Any:
    """Each parameter's density over generations, later ones darker; returns the Figure.

    generations: which are drawn, by default six of them, evenly chosen, the last among them. The other
    arguments are those of `pairs`.
    """
    view = seen(source, names, prior, problem)
    marks = references(reference, view.parameters)
    drawn = (
        view.generations(_MOST_CURVES) if generations is None else [view.population(t) for t in generations]
    )
    if not drawn:
        raise ProblemError("generations=[]: give at least one")
    d = len(view.parameters)
    columns, rows = canvas.shape_for(d)
    figure = canvas.new_figure(fig, 0.6 + (2.6 if columns < 5 else 2.0) * columns, 0.7 + 1.9 * rows)
    axes = canvas.panels(figure, d)
    for parameter, ax in zip(view.parameters, axes, strict=True):
        _densities(ax, parameter, drawn, marks)
        ax.set_xlabel(canvas.wrapped(parameter.name, 28 if columns < 5 else 20), fontsize=9)
        ax.set_yticks([])
        ax.tick_params(labelsize=7)
    canvas.legend_above(figure, axes, view.named("density of the particles"))
    return figure


def _densities(ax: Any, parameter: Parameter, drawn: Sequence[Any], marks: dict[str, float]) -> None:
    """One parameter's densities, one over another; bars of the last generation, marks of the others."""
    points = [parameter.of(population) for population in drawn]
    span, tops = parameter.span(points), [0.0]
    for k, (population, of, shade) in enumerate(zip(drawn, points, canvas.shades(len(drawn)), strict=True)):
        is_last = k == len(drawn) - 1
        name = f"generation {population.generation}" if hasattr(population, "generation") else "posterior"
        if parameter.bars:
            at = parameter.at(span)
            height = masses(of, at)
            if is_last:
                ax.bar(at, height, 0.8, color=FILLS[1], edgecolor=INK, linewidth=0.8, label=name)
            else:
                ax.plot(
                    at,
                    height,
                    canvas.MARKERS[k],
                    color=shade,
                    markeredgecolor="0.3",
                    markersize=4,
                    label=name,
                    zorder=3,
                )
        elif len(of[0]):
            grid = parameter.grid(span)
            height = density.curve(*of, parameter.shown_ends, grid)
            style: dict[str, Any] = {"linewidth": 2.0} if is_last else {"linewidth": 1.2, **_marked(k)}
            ax.plot(grid, height, color=shade, label=name, **style)
        else:
            continue
        tops.append(float(height.max()))
    prior = parameter.prior_at(
        parameter.at(span).astype(float) if parameter.bars else parameter.grid(span), span
    )
    if prior is not None:
        at = parameter.at(span) if parameter.bars else parameter.grid(span)
        ax.plot(at, prior, **PRIOR, drawstyle="steps-mid" if parameter.bars else "default")
    ax.set_ylim(0, 1.08 * min(max(tops), _ROOM * tops[-1]) or 1.0)
    _finish(ax, parameter, span, marks)


def _marked(k: int) -> dict[str, Any]:
    """The marks of the k-th curve, which differ in grey, too, aside of those of others."""
    return {
        "marker": canvas.MARKERS[k],
        "markersize": 4,
        "markeredgecolor": "0.3",
        "markevery": (8 + 9 * k, 60),
    }


def intervals(
    source: Any,
    names: Sequence[str] | None = None,
    *,
    reference: Any = None,
    problem: Any = None,
    fig: Any = None,
) -> Any:
    """Each parameter's median and intervals of 50 and 90 % over generations; returns the Figure.

    Of a choice, the probability of each value. Of more than sixty generations as many are drawn, evenly
    chosen. The other arguments are those of `pairs`.
    """
    view = seen(source, names, False, problem)
    marks = references(reference, view.parameters)
    drawn = view.generations(_MOST_STEPS)
    times = [getattr(population, "generation", 0) for population in drawn]
    d = len(view.parameters)
    columns, rows = canvas.shape_for(d)
    figure = canvas.new_figure(fig, 0.6 + (2.8 if columns < 5 else 2.2) * columns, 0.7 + 1.9 * rows)
    axes = canvas.panels(figure, d, sharex=True, gridspec_kw={"wspace": 0.08})
    for k, (parameter, ax) in enumerate(zip(view.parameters, axes, strict=True)):
        points = [parameter.of(population) for population in drawn]
        (_values if parameter.values else _bands)(ax, parameter, times, points)
        if parameter.name in marks:
            mark, _ = parameter.shown(np.array([marks[parameter.name]]), np.ones(1))
            for value in [] if parameter.values else mark:
                ax.axhline(value, **REFERENCE)
        name = canvas.wrapped(parameter.name)
        ax.set_ylabel(f"probability of\n{name}" if parameter.values else name, fontsize=9)
        ax.tick_params(labelsize=7)
        canvas.whole_ticks(ax.xaxis)
        if k >= d - columns:
            ax.set_xlabel("generation", fontsize=9)
            ax.tick_params(labelbottom=True)
    figure.align_ylabels()
    banded = [ax for ax, parameter in zip(axes, view.parameters, strict=True) if not parameter.values]
    if banded:
        canvas.legend_above(figure, banded, view.named("intervals of the particles"))
    return figure


def _bands(ax: Any, parameter: Parameter, times: Sequence[int], points: Sequence[Points]) -> None:
    quantiles = np.array(
        [
            weighted_quantile(x, w, [0.05, 0.25, 0.5, 0.75, 0.95]) if len(x) else np.full(5, np.nan)
            for x, w in points
        ]
    ).T
    if len(times) > 1:
        ax.fill_between(times, quantiles[0], quantiles[4], color=FILLS[0], linewidth=0, label="90 %")
        ax.fill_between(times, quantiles[1], quantiles[3], color=FILLS[1], linewidth=0, label="50 %")
    else:
        ax.vlines(times, quantiles[0], quantiles[4], color=FILLS[0], linewidth=8, label="90 %")
        ax.vlines(times, quantiles[1], quantiles[3], color=FILLS[1], linewidth=8, label="50 %")
    ax.plot(
        times, quantiles[2], color=INK, marker="o" if len(times) < 20 else "", markersize=3, label="median"
    )
    low, high = np.nanmin(quantiles[0]), np.nanmax(quantiles[4])
    room = 0.08 * (high - low) or 0.5
    canvas.parameter_axis(ax.yaxis, parameter, (low - room, high + room))


def _values(ax: Any, parameter: Parameter, times: Sequence[int], points: Sequence[Points]) -> None:
    """The probability of each value of a choice."""
    at = np.arange(len(parameter.values))
    shares = np.array([masses(of, at) for of in points])
    for i, value in enumerate(parameter.values):
        style = canvas.LINES[i % len(canvas.LINES)]
        marker = canvas.MARKERS[i % len(canvas.MARKERS)]
        ax.plot(
            times,
            shares[:, i],
            linestyle=style,
            marker=marker,
            markersize=3,
            color=INK,
            linewidth=1,
            label=value,
        )
    ax.set_ylim(-0.03, 1.03)
    canvas.legend(ax)
