"""`mpiabc show`: what a run's file holds."""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpiabc import whereabouts
from mpiabc.analysis.steps import totals
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.words import pairs, say, table
from mpiabc.onlooker.look import Onlooker
from mpiabc.onlooker.view import State, View
from mpiabc.onlooker.words import hosts_of
from mpiabc.order import epsilon_of
from mpiabc.population import short, weighted_quantile
from mpiabc.records import DEATH, Failure
from mpiabc.store import History
from mpiabc.store.database import MOST_FAILURES

_NOT_SHOWN = ("names", "models", "fingerprint")
_MOST_FAILURES = 20  # shown in full by --failures only
_MOST_PARAMETERS = 20  # whose failures are placed
_QUARTILES = (0.25, 0.5, 0.75)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = "  mpiabc show fit.db\n  mpiabc show fit.db --failures"
    parser = add_command(commands, "show", _show, COMMANDS["show"], example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument("--failures", action="store_true", help="all failures, with their tracebacks")


def _show(options: argparse.Namespace) -> int:
    """Print what a run's file holds."""
    history = History(options.store)
    shown = {name: value for name, value in history.settings.items() if name not in _NOT_SHOWN}
    settings = {name: _as_text(value) for name, value in shown.items() if value is not None}
    say(pairs({"problem": history.problem_name, **settings}))
    say(f"\n{table(_generations(history))}\n")
    say(f"reason: {history.reason}" if history.reason else "not finished")
    if partial := history.partial:
        said = f"{len(partial)} accepted, epsilon {short(partial.epsilon)}, ess {partial.ess:.1f}"
        say(f"generation {partial.generation} was ended by the budget: {said} (history.partial)")
    view = Onlooker(history.path).look()
    if view.progressed:
        say(view.said)
        _say_who_works(view)
    elif order := history.order(len(history)):
        say(f"generation {len(history)} is open: epsilon {short(epsilon_of(order[0]))}")
    for line in _whereabouts(history.path, is_alive=view.state is State.RUNNING):
        say(line)
    if DEATH in history.notes:
        say(f"note: {history.notes[DEATH]}")
    for warning in history.warnings:
        say(f"warning: {warning}")
    failures = history.failures
    if failures:
        say(f"\n{_failures(history, failures, options.failures)}")
    if places := _places(failures, history):
        say(f"\nwhere they lie, beside what was accepted:\n{table(places)}")
    return 0


def _say_who_works(view: View) -> None:
    """The machines of a run that goes on, where there are some."""
    if view.state is State.RUNNING and view.hosts:
        say(f"\n{table(hosts_of(view))}")


def _whereabouts(store: Path, is_alive: bool) -> Iterator[str]:
    """What processes are at, or were when they died."""
    found = whereabouts.left(store)
    for at in found[:_MOST_FAILURES]:
        yield f"{'in work: ' if is_alive else 'killed, or crashed, in '}evaluation {at.address} on {at.where}"
    if more := len(found[_MOST_FAILURES:]):
        yield f"and {more} more"


def _as_text(value: Any) -> str:
    """A setting, on one line."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _generations(history: History) -> list[list[str]]:
    """A row for each committed generation."""
    numbers = ["N", "evaluations", "simulations", "acceptance rate", "ess", "seconds"]
    models = ["models"] if history.settings.get("models") else []
    return [["generation", "epsilon", *numbers, *models, "digest"]] + [
        [
            str(p.generation),
            short(p.epsilon),
            str(len(p)),
            str(p.evaluations),
            str(p.simulations),
            f"{p.acceptance_rate:.3g}",
            f"{p.ess:.1f}",
            f"{p.seconds:.3g}",
            *([p.named_models] if models else []),
            p.digest()[:12],
        ]
        for p in history
    ]


def _failures(history: History, failures: list[Failure], is_all: bool) -> str:
    lines = [_failure(failure, is_all) for failure in (failures if is_all else failures[:_MOST_FAILURES])]
    if not is_all:
        more = f"{len(failures) - len(lines)} more; " if len(failures) > len(lines) else ""
        lines.append(f"{more}--failures shows all that are kept, with their tracebacks")
    left = totals(history).failures - sum(failure.generation < len(history) for failure in failures)
    if left > 0:
        lines.append(f"{left} more are counted alone: of each generation the first {MOST_FAILURES} are kept")
    kinds = Counter(failure.kind for failure in failures).most_common()
    of_kinds = f" ({', '.join(f'{kind} {n}' for kind, n in kinds)})" if len(kinds) > 1 else ""
    return "\n".join([f"failed evaluations: {len(failures) + max(0, left)}{of_kinds}", *lines])


def _places(failures: list[Failure], history: History) -> list[list[str]]:
    """Where failures lie in parameter space, and where what was accepted first and last does.

    Of parameters that are numbers, and of one model.
    """
    names = history.settings["names"]
    failed = [failure.theta for failure in failures if failure.theta.keys() == set(map(str, names))]
    if not failed:
        return []
    accepted = [history[t] for t in sorted({0, len(history) - 1})] if len(history) else []
    rows = [["", "", "lowest", *(f"{q:.0%}" for q in _QUARTILES), "highest"]]
    for i, name in list(enumerate(names))[:_MOST_PARAMETERS]:
        values = [theta[name] for theta in failed]
        is_choice = name in history.settings.get("choices", {})
        if is_choice or not all(isinstance(value, int | float) for value in values):
            continue
        groups = [(f"failed ({len(values)})", np.array(values, float), np.ones(len(values)))]
        groups += [(f"generation {p.generation}", p.theta[:, i], p.weights) for p in accepted]
        for group, column, weights in groups:
            at = weighted_quantile(column, weights, [0, *_QUARTILES, 1])
            first = name if group == groups[0][0] else ""
            rows.append([first, group, *(f"{value:.4g}" for value in at)])
    return rows if len(rows) > 1 else []


def _failure(failure: Failure, is_full: bool) -> str:
    """One line, and its traceback if wanted."""
    theta = ", ".join(f"{name}={value!r}" for name, value in failure.theta.items())
    error = (failure.error.splitlines() or [""])[0]
    line = f"  {failure.generation}:{failure.index}  {failure.kind}  {theta}  {error}"
    if not (is_full and failure.traceback):
        return line
    lines = failure.traceback.rstrip().splitlines()
    return "\n".join([line, *(f"    {text}" for text in lines)])
