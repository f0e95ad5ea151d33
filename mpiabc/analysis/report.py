"""A run as one page for people: what was run, what came of it, how far to trust it, how to make it again.

The page is HTML that holds all it needs, pictures too. It is made of the file alone, of which nothing is run.
"""

import math
import os
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from mpiabc.analysis.diagnostics import diagnose
from mpiabc.analysis.estimates import Estimated, estimated
from mpiabc.analysis.pictures import pictures
from mpiabc.analysis.steps import Step, spread, steps, totals
from mpiabc.analysis.writing import whole
from mpiabc.durations import duration
from mpiabc.errors import Error, ProblemError
from mpiabc.population import Population, short
from mpiabc.store import History
from mpiabc.store.sessions import Session
from mpiabc.text import shown_lines
from mpiabc.version import __version__

MISSING = "a report needs jinja2 and matplotlib: install `mpiabc[report]`"
_MOST_ROWS = 40  # generations in the table
_MOST_SESSIONS = 4  # starts that are shown, the first and the latest
_MOST_TEXT = 300  # characters of a setting
_NOT_SHOWN = ("names", "models", "fingerprint", "choices", "parameter names", "versions", "streams")


def report(source: Any, output: str | os.PathLike[str] | None = None) -> str:
    """A run as an HTML page, which is written to a file if one is given; returns its text.

    source: a History, or the path of a run's file, be the run complete or going on. A hundred generations at
    most are read. Raises StoreError for a file that cannot be read, ImportError without jinja2 or matplotlib,
    and Error for a page that cannot be written.
    """
    history = source if isinstance(source, History) else History(source)
    if output is not None and os.path.exists(output) and os.path.samefile(output, history.path):
        raise ProblemError(f"{output} is the run's own file: give another one for the report")
    text = _template().render(contents(history))
    if output is not None:
        try:
            with whole(output) as path:
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Error(f"{output} cannot be written: {error.strerror or error}") from None
    return text


def _template() -> Any:
    """The page without its contents; whatever comes into it is escaped, and steers nothing."""
    try:
        import matplotlib  # noqa: F401
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ImportError(MISSING) from None
    environment = Environment(
        loader=PackageLoader("mpiabc.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown_lines(value) if type(value) is str else value,
    )
    return environment.get_template("report.html")


def contents(history: History) -> dict[str, Any]:
    """What the page says, by the names that the template has for it."""
    course = steps(history)
    last = history[course[-1].generation] if course else None
    return {
        "name": history.problem_name or history.path.stem,
        "file": history.path.name,
        "path": str(history.path),
        "now": _moment(time.time()),
        "version": __version__,
        "facts": list(_facts(history, course)),
        "findings": diagnose(history, course),
        "last": course[-1].generation if course else None,
        "posteriors": [] if last is None else list(_posteriors(history, last)),
        "models": _models(last) if last is not None and last.models else [],
        "evidence": "" if last is None or last.models else _pair(*last.evidence(0)),
        "pictures": list(pictures(history)) if course else [],
        "generations": _generations(history, course) if course else [],
        "rows_shown": _rows_shown(len(history)),
        "sessions": [_session(one) for one in _some(history.sessions)],
        "starts_shown": _starts_shown(len(history.sessions)),
        "settings": _settings(history),
        "again": _again(history),
        "digest": course[-1].digest if course else "",
    }


def _facts(history: History, course: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """The numbers at the top."""
    yield "generations", str(len(history))
    if course:
        last, sums = course[-1], totals(history)
        yield _epsilon_name(history), _epsilon(last)
        yield "particles", f"{last.size} (ESS {last.ess:.0f})"
        yield "simulations", f"{sums.simulations}"
        yield "acceptance rate", f"{last.acceptance_rate:.3g}"
        yield "time", duration(sums.seconds)


def _epsilon_name(history: History) -> str:
    return "temperature" if history.settings.get("acceptor") is not None else "epsilon"


def _epsilon(step: Step) -> str:
    return short(step.epsilon, 4).replace("inf", "∞")


# Numbers.


def rounded(value: float, error: float) -> str:
    """A number with the digits that its error leaves."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{value:.5g}"
    decimals = 1 - math.floor(math.log10(error))
    if 1e-4 <= max(abs(value), error) < 1e6 and decimals <= 10:
        return f"{value:.{max(0, decimals)}f}"
    digits = 2 if not value else math.ceil(math.log10(max(1.0, abs(value) / error))) + 2
    return f"{value:.{min(digits, 12)}g}"


def _pair(value: float, error: float) -> str:
    """A number and its error."""
    return f"{rounded(value, error)} ± {rounded(error, error)}" if error > 0 else rounded(value, error)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


# Tables.


def _posteriors(history: History, last: Population) -> Iterator[dict[str, Any]]:
    """Of the population, or of each model that has particles: a row for each parameter."""
    for model, population in _parts(last):
        choices = _choices(history, model)
        found = [row for row in estimated(population) if row.name not in choices]
        yield {
            "model": model,
            "rows": [_row(row) for row in found],
            "choices": [(name, _shares(population, name, values)) for name, values in choices.items()],
        }


def _parts(last: Population) -> Iterator[tuple[str | None, Population]]:
    if not last.models:
        yield None, last
    for model, population in zip(last.models, last.each(), strict=True):
        if population is not None:
            yield model.name, population


def _choices(history: History, model: str | None) -> dict[str, list[str]]:
    """The values of each choice, whose index is no number to take the mean of."""
    found = history.settings.get("choices", {})
    if model is None:
        return found
    end = f" of {model}"
    return {name.removesuffix(end): values for name, values in found.items() if name.endswith(end)}


def _shares(population: Population, name: str, values: Sequence[str]) -> list[list[str]]:
    column = population.theta[:, [str(known) for known in population.names].index(name)]
    shares = [float(population.weights[column == i].sum()) for i in range(len(values))]
    return [[value, f"{share:.3f}"] for value, share in zip(values, shares, strict=True)]


def _row(row: Estimated) -> list[str]:
    quantiles = [rounded(value, row.mean_error) for value in (row.low, row.median, row.high)]
    spread = [_pair(row.mean, row.mean_error), _pair(row.sd, row.sd_error)]
    return [row.name, *spread, *quantiles, f"{row.ess:.0f}"]


def _models(last: Population) -> list[list[str]]:
    """A row for each of several models."""
    shares, n = last.model_probabilities(), len(last.models)
    counts = [int((last.model == m).sum()) for m in range(n)]
    return [
        [
            model.name,
            f"{share:.3f}" if share >= 1e-3 or not share else f"{share:.1e}",
            f"{model.probability:.3g}",
            _pair(*last.evidence(m)) if share else "no particle",
            str(count),
        ]
        for m, (model, share, count) in enumerate(zip(last.models, shares, counts, strict=True))
    ]


def _generations(history: History, course: Sequence[Step]) -> list[list[str]]:
    """A heading, and a row for each generation, or for some of many."""
    numbers = ["particles", "ESS", "accepted", "simulations", "failed", "time", "workers busy", "digest"]
    heading, shares = ["generation", _epsilon_name(history), *numbers], history.shares
    chosen = [course[i] for i in spread(len(course), _MOST_ROWS)]
    return [
        heading,
        *(
            [
                str(step.generation),
                _epsilon(step),
                str(step.size),
                f"{step.ess:.0f}",
                f"{step.acceptance_rate:.3g}",
                str(step.simulations),
                str(step.failures),
                duration(step.seconds),
                f"{shares[step.generation]:.0%}" if step.generation in shares else "",
                step.digest[:12],
            ]
            for step in chosen
        ),
    ]


def _rows_shown(n: int) -> str:
    some = f", {_MOST_ROWS} of {n}, evenly chosen" if n > _MOST_ROWS else ""
    return f"Generations{some}; accepted is the share of the evaluations."


def _some(sessions: Sequence[Session]) -> list[Session]:
    """The first and the latest, where they are many."""
    return [*sessions[:1], *sessions[1:][-(_MOST_SESSIONS - 1) :]]


def _session(one: Session) -> tuple[str, list[list[str]]]:
    """When the run was begun, or gone on with, and how and where."""
    ended = "not known"
    if one.ended is not None:
        ended = f"{_moment(one.ended)}, after {duration(one.ended - one.began)} ({one.reason})"
    workers = f", with {one.workers} worker{'' if one.workers == 1 else 's'}" if one.workers else ""
    rows = {
        "command": one.command,
        "folder": one.folder,
        "host": f"{one.host} ({one.system}), process {one.process}",
        "batch system": one.job,
        "scheduler": f"{one.scheduler}{workers}",
        "versions": ", ".join(f"{name} {version}" for name, version in one.versions.items()),
        "ended": ended,
    }
    return _moment(one.began), [[name, value] for name, value in rows.items() if value]


def _starts_shown(n: int) -> str:
    """How many starts there were, if more than one."""
    some = f"; the first and the last {_MOST_SESSIONS - 1} are shown" if n > _MOST_SESSIONS else ""
    return f"The run was started {n} times{some}." if n > 1 else ""


def _settings(history: History) -> list[list[str]]:
    shown = {k: v for k, v in history.settings.items() if k not in _NOT_SHOWN and v is not None}
    return [[name, _text(value)] for name, value in shown.items()]


def _text(value: Any) -> str:
    """A setting, on one line, cut where it is very long."""
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text)} characters)"


def _again(history: History) -> str:
    """Commands that make the run again, as far as the file knows them."""
    settings, first = history.settings, next(iter(history.sessions), None)
    versions = settings.get("versions", {}) if first is None else first.versions
    lines = [f"# Python {versions['Python']}"] if "Python" in versions else []
    if "mpiabc" in versions:
        pinned = [f"{name.lower()}=={versions[name]}" for name in ("NumPy", "SciPy") if name in versions]
        what = shlex.join([f".{_extras(first)}", *pinned])
        lines.append(f"pip install {what}  # in the folder of mpiabc {versions['mpiabc']}")
    if first is None:
        lines.append("# the script, or `mpiabc run`, that the run was begun with")
    else:
        lines += [f"cd {shlex.quote(first.folder)}", f"{_launcher(first)}{first.command}"]
    where = f"with seed={settings.get('seed')}, into another file than {history.path.name}"
    lines[-1] += f"  # {where}: a finished run is not made again"
    return "\n".join(lines)


def _extras(one: Session | None) -> str:
    """What is installed with mpiabc for such a run, in brackets; an MPI that pip brings for ranks."""
    value = "" if one is None else f"{one.scheduler} {one.command}"
    extras = {"mpich": r"\bMPI", "redis": r"\bRedis", "dask": r"\bDask", "yaml": r"\.ya?ml\b"}
    found = [name for name, sign in extras.items() if re.search(sign, value)]
    return f"[{','.join(found)}]" if found else ""


def _launcher(one: Session) -> str:
    """What started the ranks, if the run was of ranks alone: any launcher will do, and any number of them."""
    found = re.fullmatch(r"MPI(?:Static)?\((?:team=(\d+))?\)", one.scheduler)
    return f"mpirun -n {one.workers * int(found[1] or 1)} " if found else ""
