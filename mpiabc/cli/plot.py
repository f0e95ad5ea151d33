"""`mpiabc plot`: a picture of a run, as a file."""

import argparse
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mpiabc.analysis.pictures import KINDS, figure
from mpiabc.analysis.plots.canvas import MISSING
from mpiabc.analysis.writing import whole
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.files import load_problem, texts_of
from mpiabc.cli.words import say
from mpiabc.errors import Error, ProblemError
from mpiabc.store import History

_NAMED = ("pairs", "marginals", "intervals", "predictive")  # that take names, and the one of several models
_MARKED = ("pairs", "marginals", "intervals")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = """\
  mpiabc plot fit.db pairs --reference mu=1.2
  mpiabc plot fit.db predictive --problem fit.py --draws 500 --output data.pdf"""
    parser = add_command(commands, "plot", _plot, COMMANDS["plot"], example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("--output", metavar="FILE", help="by default RUN-KIND.png, here; .pdf, .svg as well")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="parameters, or keys of the data")
    parser.add_argument(
        "--reference", nargs="+", metavar="NAME=VALUE", default=[], help="values that are marked"
    )
    parser.add_argument("--generation", type=int, default=-1, metavar="T", help="by default the last one")
    parser.add_argument("--model", metavar="NAME", help="the one of several models")
    parser.add_argument("--dpi", type=float, default=150, help="dots an inch, by default 150")
    parser.add_argument(
        "--problem", metavar="FILE[:problem]", help="predictive: simulate from the posterior, by this problem"
    )
    parser.add_argument("--draws", type=int, default=500, metavar="N", help="so many, by default 500")
    parser.add_argument("--scheduler", default="auto", help="where they are simulated")


def _plot(options: argparse.Namespace) -> int:
    """Draw, and say where the picture is."""
    history = History(options.store)
    _check(options, len(history))
    output = Path(options.output or f"{Path(options.store).stem}-{options.kind}.png")
    output = output if output.suffix else output.with_name(f"{output.name}.png")
    if find_spec("matplotlib") is None:
        raise Error(MISSING)
    source: Any = history
    if options.problem is not None:
        problem = load_problem(texts_of(options.problem)["problem"])
        source = history.predict(
            options.draws, t=options.generation, problem=problem, scheduler=options.scheduler
        )
        if source is None:  # a rank that has served
            return 0
    _write(figure(source, options.kind, **_options(options)), output, options)
    return 0


def _options(options: argparse.Namespace) -> dict[str, Any]:
    """What of the options this kind takes."""
    values: dict[str, Any] = {}
    if options.kind in _NAMED:
        values = {"names": options.names, "problem": options.model}
    if options.kind in _MARKED:
        values["reference"] = _pairs(options.reference)
    if options.kind in ("pairs", "predictive"):
        values["t"] = options.generation
    return values


def _check(options: argparse.Namespace, n: int) -> None:
    """Raise ProblemError for options that the kind does not take, and generations that there are not."""
    kinds = {"names": _NAMED, "model": _NAMED, "reference": _MARKED, "problem": ("predictive",)}
    for name, of in kinds.items():
        if getattr(options, name) and options.kind not in of:
            raise ProblemError(f"--{name} is for {', '.join(of)}: leave it out for {options.kind}")
    if n and not -n <= options.generation < n:
        raise ProblemError(f"--generation {options.generation}: {options.store} has {n} of them, from 0 on")
    if not (math.isfinite(options.dpi) and 0 < options.dpi <= 2400):
        raise ProblemError(f"--dpi {options.dpi}: give a number up to 2400")


def _pairs(given: list[str]) -> Mapping[str, Any] | None:
    """Values by name. Raises ProblemError for what is no NAME=VALUE."""
    found = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        if not (name and equals and value):
            raise ProblemError(f"--reference {text!r}: give NAME=VALUE, such as mu=1.2")
        found[name] = value
    return found or None


def _write(drawn: Any, output: Path, options: argparse.Namespace) -> None:
    """Raises Error for a file that cannot be written, or is of no format that matplotlib knows."""
    try:
        with whole(output) as path:
            drawn.savefig(path, dpi=options.dpi)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise Error(f"--output {output} cannot be written: {said}") from None
    say(f"{options.kind} of {options.store}: {output}")
