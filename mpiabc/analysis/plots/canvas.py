"""Figures and axes, and how things look on them: what differs, differs in more than its colour."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpiabc.errors import ProblemError
from mpiabc.text import shown

INK = "#1f3b5c"  # dark: lines and edges of what is drawn
FILLS = ("#c9d9ea", "#7fa3c8")  # light and less light: what fills them
PRIOR = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (4, 2)), "label": "prior"}
REFERENCE = {"color": "black", "linewidth": 1.3, "linestyle": (0, (1, 1)), "label": "reference"}
LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*<>"
SMALL = 8  # points
_LONGEST = 40  # letters of a name
_MOST_COLUMNS = 6

MISSING = "plots need matplotlib: install `mpiabc[plot]`"


def new_figure(fig: Any, width: float, height: float) -> Any:
    """The figure that is given, else a new one, of a class that is given, or pyplot's.

    Raises ImportError without matplotlib.
    """
    if isinstance(fig, type):
        return fig(figsize=(width, height), layout="constrained")
    if fig is not None:
        return fig
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(MISSING) from None
    return pyplot.figure(figsize=(width, height), layout="constrained")


def new_axes(ax: Any, width: float = 6.0, height: float = 3.6) -> Any:
    """The axes that are given, else those of a new figure."""
    return new_figure(None, width, height).subplots() if ax is None else ax


def panels(figure: Any, n: int, *, width: int | None = None, **options: Any) -> list[Any]:
    """Axes for n things, in rows; what is left of the last row stays empty."""
    columns = width or shape_for(n)[0]
    rows = -(-n // columns)
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for ax in axes[n:]:
        ax.remove()
    return list(axes[:n])


def shape_for(n: int) -> tuple[int, int]:
    """Columns and rows of as many panels."""
    columns = min(n, _MOST_COLUMNS, max(1, round(math.sqrt(1.6 * n))))
    return columns, -(-n // columns)


def wrapped(name: str, width: int = 16) -> str:
    """A name in lines, shortened if it is very long; no mathematics is read into it."""
    name = shown(name)
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    words = textwrap.wrap(short.replace("_", "_ "), width, break_on_hyphens=False)
    return "\n".join(words).replace("_ ", "_").replace("$", r"\$")


def ticks(axis: Any, span: tuple[float, float], most: int = 3, *, are_whole: bool = False) -> None:
    """A few round numbers on a linear axis, each written out: no factor stands beside the axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = span
    step = (high - low) / most
    digits = 3 if not step > 0 else max(3, math.ceil(math.log10(max(abs(low), abs(high), step) / step)) + 1)
    axis.set_major_locator(MaxNLocator(most, prune="both", integer=are_whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{digits}g}"))


def whole_ticks(axis: Any) -> None:
    """Whole numbers alone, such as generations."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def parameter_axis(axis: Any, parameter: Any, span: tuple[float, float]) -> None:
    """The axis of a parameter, along which its drawn values lie."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    axis.axes.set(**{f"{axis.axis_name}lim": span})
    if parameter.values:
        axis.set_major_locator(FixedLocator(range(len(parameter.values))))
        axis.set_major_formatter(FuncFormatter(lambda i, _: _value_at(parameter.values, i)))
    elif parameter.is_log:
        axis.set_major_locator(MaxNLocator(3, prune="both", steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda z, _: f"{10.0**z:.2g}"))
    elif parameter.bars:
        axis.set_major_locator(MaxNLocator(4, integer=True))
    else:
        ticks(axis, span)


def _value_at(values: Sequence[str], i: float) -> str:
    at = round(i)
    return wrapped(values[at], 10) if 0 <= at < len(values) and abs(i - at) < 1e-9 else ""


def legend_above(figure: Any, axes: Sequence[Any], title: str | None = None) -> None:
    """What lines, marks and areas of these axes mean, above all of the figure, each once."""
    found: dict[Any, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            marker = getattr(handle, "get_marker", str)()
            found.setdefault((label, type(handle), marker), handle)
    labels = [label for label, *_ in found]
    if labels:
        columns = max(1, min(len(labels), int(figure.bbox.width / figure.dpi / 1.15)))  # a subfigure, too
        where = {"loc": "outside upper center", "ncols": columns, "title": title}
        figure.legend(list(found.values()), labels, fontsize=SMALL, frameon=False, **where)


def logarithmic(axis: Any) -> None:
    """A logarithmic axis, whose numbers are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(ax: Any, *others: Any, title: str | None = None, **options: Any) -> None:
    """What lines mean, of other axes too, each once, if anything says so."""
    found: dict[str, Any] = {}
    for one in (ax, *others):
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        size = {"fontsize": SMALL, "title_fontsize": SMALL, "frameon": False}
        ax.legend(found.values(), found.keys(), title=title, **size, **options)


def no_such(what: str, found: object, expected: str) -> ProblemError:
    """That an argument is not what was expected."""
    return ProblemError(f"{what}={found!r}: give {expected}")


def shades(n: int) -> list[Any]:
    """n colours from light to dark, the last of which is the darkest, in grey too."""
    from matplotlib import colormaps

    return [colormaps["Blues"](value) for value in np.linspace(0.35, 1.0, n)] if n > 1 else [INK]
