"""Pictures of a run as bytes, for pages: what applies to it, drawn without pyplot, with words beside it."""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from mpiabc.analysis import plots
from mpiabc.analysis.plots import canvas
from mpiabc.analysis.plots.parameters import MOST_PAIRS
from mpiabc.errors import ProblemError
from mpiabc.store import History

_ON_AXES = ("models", "scales", "workers")  # that draw on axes rather than on a figure
_OF_MODEL = ("pairs", "marginals", "intervals")  # that are of the parameters of one model
_MOST_MODELS = 4  # whose parameters are drawn
_DPI = 120.0
_WORDS = {
    "pairs": (
        "Posterior beside the prior",
        "The last generation's density of each parameter, beside its prior (dashed).",
    ),
    "marginals": (
        "Posterior over generations",
        "The density of each parameter, later generations darker (of whole numbers and choices, bars are the "
        "last one, and marks those before; what rises far above the last one is cut): where the last ones "
        "lie upon each other, more of them would say nothing new.",
    ),
    "intervals": (
        "Intervals over generations",
        "Median, and the intervals that hold 50 and 90 % of the weight.",
    ),
    "convergence": (
        "Convergence",
        "Epsilon (how near simulations must come to the data), the share accepted, the effective sample "
        "size, and what each generation took.",
    ),
    "predictive": (
        "Data and accepted simulations",
        "What was observed, beside what the accepted particles' simulations gave: data outside of bands or "
        "bars are missed by the model.",
    ),
    "models": (
        "Models",
        "The probability of each model, by generation; short marks at the left: before the data.",
    ),
    "scales": ("Weights of statistics", "How much each statistic counts in the distance, by generation."),
    "workers": (
        "Workers",
        "The share of their time in which workers simulated, and the share of the evaluations handed out "
        "that the population needed.",
    ),
}
_OF_TWO = (
    " Below, what two of them have in common: half of the weight lies in the dark region, nine tenths in the "
    "light one; dots are particles."
)
_OF_MANY = (
    " Below, the correlation of each two: the larger the mark, the stronger; dark squares are positive, "
    "white dots negative."
)
KINDS = tuple(_WORDS)
_drawing = Lock()  # matplotlib's fonts and texts are shared by all threads of a process


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a run, as PNG, with its words; `alt` says what it shows to those who do not see it."""

    kind: str
    title: str
    caption: str
    png: bytes = field(repr=False)

    @property
    def alt(self) -> str:
        """What it shows, in words."""
        return f"Picture: {self.title}. {self.caption}"

    @property
    def uri(self) -> str:
        """It as a URL that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def figure(source: Any, kind: str, **options: Any) -> Any:
    """The figure of a kind of plot, a new one that pyplot knows nothing of.

    options: those of the plot. Raises ProblemError where there is nothing to draw, and ImportError without
    matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(canvas.MISSING) from None
    if kind not in KINDS:
        raise ProblemError(f"kind={kind!r}: give {', '.join(KINDS)}")
    draw = getattr(plots, kind)
    if kind in _ON_AXES:
        return draw(source, ax=Figure(figsize=(6, 3.6), layout="constrained").subplots(), **options).figure
    return draw(source, fig=Figure, **options)


def png(source: Any, kind: str, *, dpi: float = _DPI, **options: Any) -> bytes:
    """The same as a PNG file; may be called by several threads."""
    buffer = io.BytesIO()
    with _drawing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name has letters that the font lacks
        figure(source, kind, **options).savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def pictures(history: History, kinds: Sequence[str] = KINDS, dpi: float = _DPI) -> Iterator[Picture]:
    """Those of these kinds that apply to the run, one after another; of each model its own."""
    for kind in kinds:
        for model in _models(history, kind):
            title, caption = _WORDS[kind]
            title = title if model is None else f"{title}: {model}"
            options = {} if model is None else {"problem": model}
            try:
                yield Picture(
                    kind,
                    title,
                    caption + _of_pairs(history, kind, model),
                    png(history, kind, dpi=dpi, **options),
                )
            except ProblemError:  # it does not apply, as a run of one model has no probabilities
                continue


def _of_pairs(history: History, kind: str, model: str | None) -> str:
    """What pairs of parameters look like, which depends on how many there are."""
    if kind != "pairs" or not len(history):
        return ""
    d = len((history[-1] if model is None else history[-1].of(model)).names)
    return "" if d == 1 else _OF_TWO if d <= MOST_PAIRS else _OF_MANY


def _models(history: History, kind: str) -> list[str | None]:
    """The most probable models, whose parameters are drawn; None where a picture is of all."""
    if not (kind in _OF_MODEL and len(history) and history.settings.get("models")):
        return [None]
    last = history[-1]
    shares = last.model_probabilities()
    at = sorted(range(len(shares)), key=lambda m: -shares[m])[:_MOST_MODELS]
    return [last.models[m].name for m in at if shares[m] > 0]
