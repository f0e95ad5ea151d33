"""A run judged in words: what casts doubt on it, and what to do about that.

for finding in diagnose(mpiabc.open("fit.db")):
    print(finding.severity, finding.text)
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from mpiabc.analysis.estimates import errors
from mpiabc.analysis.plots import density
from mpiabc.analysis.plots.seen import Parameter, masses, seen
from mpiabc.analysis.steps import Step, fall, steps, totals
from mpiabc.checks import MANY_FAILED
from mpiabc.guard import quiet
from mpiabc.population import Population, effective_sample_size, short, weighted_quantile
from mpiabc.records import DEATH
from mpiabc.store import History, live
from mpiabc.version import STREAMS, digit_difference

_FEW = 30  # effective particles, below which deviations say little
_SOME = 100
_UNEVEN = 0.2  # of the particles are effective
_HEAVY = 0.1  # of all weight, on one particle
_STALLED = 0.01  # of epsilon, in two generations
_RARE = 1e-3  # accepted
_CHANGED = 0.15  # of a deviation, from one generation to the next
_MUCH_CHANGED = 0.4
_PRESSED = 0.5  # of a density's maximum, at an edge
_LEARNT = 0.12  # of the mass has moved from prior to posterior
_CHANCE = 1.5  # times ESS^-0.4: moved by chance alone, of particles that lie in clusters as a kernel's do
_DROWNS = 0.9  # of the first distances are one statistic's
_AT_FIRST, _STILL = 10.0, 2.0  # times what each of the other numbers is of a distance
_IDLE, _LONG = 0.5, 60.0  # of the workers' time; seconds of a run whose workers are looked at
_UNSCALED = re.compile(r"PNorm\(p=([\d.]+|inf), weights=None\)")
_MISSED = 0.1  # of the observed numbers
_BEYOND = (0.01, 0.99)
_SILENCE = 10.0  # seconds; a run gives a sign of life every second
_MOST_SHOWN = 4  # names in one sentence
_SHOWN_ELSEWHERE = (DEATH, "collapse", "failures")


class Severity(StrEnum):
    """How much a finding matters, worst first."""

    PROBLEM = "problem"  # results are not to be used as they are
    WARNING = "warning"  # they are to be used with care
    NOTE = "note"  # what is good to know
    GOOD = "good"  # what was looked at, and is as it should be


@dataclass(frozen=True)
class Finding:
    """What was found, as one sentence that says what to do; `topic` is one word for it."""

    severity: Severity
    topic: str
    text: str


@dataclass(frozen=True, eq=False)
class _Run:
    """What of a run is looked at: its course, and its last generations."""

    history: History
    steps: list[Step]
    settings: dict[str, Any]
    last: Population
    before: Population | None

    @property
    def is_noisy(self) -> bool:
        """Whether a noise model accepts, whose epsilons are temperatures."""
        return self.settings.get("acceptor") is not None


def diagnose(history: History, course: list[Step] | None = None) -> list[Finding]:
    """What is found of a run, the worst first; what is good comes last.

    course: its `steps.steps`, if they are known. Beside a problem nothing is called good. Whatever the file
    does not tell is left out, nothing of it is executed, and a hundred generations at most are read. Raises
    DamagedError for a damaged file.
    """
    found = list(_of_ending(history))
    course = steps(history) if course is None else course
    if course:
        t = course[-1].generation
        run = _Run(history, course, history.settings, history[t], history[t - 1] if t else None)
        for look in _LOOKS:
            found.extend(look(run))
    else:
        found.append(
            _finding(Severity.NOTE, "generations", "no generation is complete yet: nothing to judge")
        )
    found.extend(_of_notes(history))
    if any(finding.severity is Severity.PROBLEM for finding in found):
        found = [finding for finding in found if finding.severity is not Severity.GOOD]
    worst_first = list(Severity)
    return sorted(found, key=lambda finding: worst_first.index(finding.severity))


def _finding(severity: Severity, topic: str, text: str) -> Finding:
    """With a text that begins and ends as a sentence does."""
    text = text.rstrip()
    end = "" if text.endswith((".", "!", "?")) else "."
    return Finding(severity, topic, f"{text[:1].upper()}{text[1:]}{end}")


# The run.


def _of_ending(history: History) -> Iterator[Finding]:
    """Whether it is complete, goes on, or what ended it early."""
    reason, t = history.reason, len(history)
    if reason is None:
        yield _of_unfinished(history)
    elif reason.startswith("failed"):
        text = f"the run has {reason}: `mpiabc show {history.path.name} --failures` tells which evaluation, "
        yield _finding(
            Severity.PROBLEM, "run", f"{text}and `mpiabc replay` makes it again; mend it, and run it again"
        )
    elif reason.startswith("interrupted"):
        text = f"the run was {reason}, {_generations(t)} are complete: run the same command again to go on"
        yield _finding(Severity.WARNING, "run", text)
    else:
        yield _finding(Severity.GOOD, "run", f"the run is complete: {_ended(reason)} ended it")
    if reason is not None and reason.startswith("threshold: no distance is smaller"):
        yield _finding(
            Severity.WARNING,
            "epsilon",
            "no distance was smaller than the last epsilon, so that no threshold could follow: distances "
            "take few values, or the model comes no nearer; let the distance tell more simulations apart",
        )


def _of_unfinished(history: History) -> Finding:
    sign, t = live.read(history.path), len(history)
    if sign is not None and time.time() - sign.at < _SILENCE:
        open_one = sign.progressed
        text = f"generation {open_one.level} has {open_one.accepted} of {open_one.size} {open_one.counted}"
        return _finding(
            Severity.NOTE, "run", f"the run goes on: {text}; what is said here is of what is complete"
        )
    return _finding(
        Severity.WARNING,
        "run",
        f"the run has ended without a word, or is held up, after {_generations(t)}: it was killed, or its "
        "machine was; run the same command again, it goes on where it was",
    )


def _generations(n: int) -> str:
    return f"{n} generation{'' if n == 1 else 's'}"


def _ended(reason: str) -> str:
    """A stopping rule in words."""
    rule, _, more = reason.partition(":")
    text = {
        "generations": "the number of generations asked for",
        "epsilon": "the epsilon asked for",
        "simulations": "the number of simulations asked for",
        "acceptance_rate": "the acceptance rate asked for",
        "min_epsilon_change": "an epsilon that hardly fell",
        "ess": "the effective sample size asked for",
        "models": "the number of models asked for",
        "threshold": "the last threshold",
    }.get(rule, f"`{rule}`")
    return f"{text}{f' ({more.strip()})' if more.strip() else ''}"


def _of_notes(history: History) -> Iterator[Finding]:
    """What the user learnt while it ran, and what of the file cannot be used."""
    for topic, note in history.notes.items():
        if topic not in _SHOWN_ELSEWHERE:
            is_change = topic.startswith(("changes", "threshold"))
            yield _finding(Severity.NOTE if is_change else Severity.WARNING, topic.split()[0], note)
    if DEATH in history.notes:
        yield _finding(Severity.NOTE, "deaths", history.notes[DEATH])
    if history.unusable is not None:
        yield _finding(
            Severity.WARNING,
            "weights",
            f"weights of generation {history.unusable} are no numbers, it is left out with all after it: "
            "prior or kernel gave nan or infinite densities",
        )
    if partial := history.partial_level():
        yield _finding(
            Severity.NOTE,
            "budget",
            f"the budget ended the run inside of generation {partial['level']}: what was accepted of it is "
            "`history.partial`, and no part of what is shown",
        )


def _of_versions(run: _Run) -> Iterator[Finding]:
    """Whether what is here would go on with it, and give the same bits."""
    versions = run.settings.get("versions", {})
    if run.settings.get("streams", STREAMS) != STREAMS:
        text = "the run is of an mpiabc that drew other numbers: it can be read, and not be continued here"
        yield _finding(Severity.NOTE, "versions", text)
    elif difference := digit_difference(versions):
        text = f"libraries differ ({difference}): the same run here may differ in the last bit"
        yield _finding(Severity.NOTE, "versions", text)


def _of_failures(run: _Run) -> Iterator[Finding]:
    """How many simulations failed, and how."""
    sums = totals(run.history)
    if not sums.failures:
        yield _finding(Severity.GOOD, "failures", "no simulation failed")
        return
    share = sums.failures / max(1, sums.simulations)
    kinds = run.history.read("SELECT kind, count(*) FROM failure GROUP BY kind ORDER BY count(*) DESC")
    listed = ", ".join(str(kind) for kind, _ in kinds[:_MOST_SHOWN])
    text = (
        f"of {sums.simulations} simulations {sums.failures} failed, a share of {share:.2g}"
        f"{f', of the kind {listed}' if listed else ''}: they count as rejected, so the posterior leaves "
        f"out where the simulator fails; `mpiabc show {run.history.path.name} --failures` tells where that is"
    )
    yield _finding(Severity.WARNING if share > MANY_FAILED else Severity.NOTE, "failures", text)


def _of_workers(run: _Run) -> Iterator[Finding]:
    """Whether workers had something to do."""
    shares = run.history.shares
    known = [(step.seconds, shares[step.generation]) for step in run.steps if step.generation in shares]
    seconds = sum(s for s, _ in known)
    if seconds < _LONG:
        return
    busy = sum(s * share for s, share in known) / seconds
    if busy < _IDLE:
        text = (
            f"workers simulated in {busy:.0%} of their time: fewer of them would be as quick; a larger "
            "population_size, or lookahead=True, keeps more of them busy"
        )
        yield _finding(Severity.NOTE, "workers", text)


# The last generation.


def _of_size(run: _Run) -> Iterator[Finding]:
    """Whether enough particles count."""
    step, d = run.steps[-1], run.last.theta.shape[1]
    particles = f"{step.ess:.0f} of {step.size} particles"
    message = f"the effective sample size of generation {step.generation} is {particles}"
    if step.ess < max(_FEW, min(10 * d, step.size / 2)):
        text = (
            f"{message}, for {d} parameter{'' if d == 1 else 's'}: means and deviations are not to be "
            "trusted; give a larger population_size, or a threshold that falls more slowly, such as "
            "Quantile(0.7)"
        )
        yield _finding(Severity.PROBLEM, "ess", text)
    elif step.ess < _UNEVEN * step.size or step.ess < min(_SOME, step.size / 2):
        text = (
            f"{message}: means and intervals are as uncertain as those of {step.ess:.0f} independent draws; "
            "a larger population_size, or a threshold that falls more slowly, makes them surer"
        )
        yield _finding(Severity.WARNING, "ess", text)
    elif step.ess < _SOME:
        text = (
            f"{message}, as many as can be expected of so few: means and intervals are as uncertain as those "
            f"of {step.ess:.0f} independent draws, and a larger population_size makes them surer"
        )
        yield _finding(Severity.NOTE, "ess", text)
    else:
        yield _finding(Severity.GOOD, "ess", message)
    if step.size >= 2 / _HEAVY and step.largest > _HEAVY:
        text = (
            f"one particle of generation {step.generation} has {step.largest:.0%} of all weight: the kernel "
            "hardly comes to where it lies; a larger population_size, or "
            "kernel=mpiabc.Gaussian(defensive=0.1), evens weights out"
        )
        yield _finding(Severity.WARNING, "kernel", text)


def _of_epsilon(run: _Run) -> Iterator[Finding]:
    """Whether epsilon still falls, and whether a temperature has come to 1."""
    last = run.steps[-1]
    if run.is_noisy:
        yield from _of_temperature(last)
        return
    fallen = fall(_latest(run.steps, 3))
    is_listed = str(run.settings.get("threshold", "")).startswith(("Constant", "Listed"))
    if fallen is not None and fallen < _STALLED and not is_listed:
        text = (
            f"epsilon has stalled: over the last two generations it fell by {max(0.0, fallen):.2%}, to "
            f"{short(last.epsilon, 4)}; the model comes no nearer to the data, so look whether it fits them; "
            "further generations are not worth their time (min_epsilon_change=0.01 ends a run there)"
        )
        yield _finding(Severity.WARNING, "epsilon", text)
    elif not np.isfinite(last.epsilon).all():
        text = (
            "epsilon is infinite: everything was accepted, what is shown is the prior; let generations follow"
        )
        yield _finding(Severity.PROBLEM, "epsilon", text)


def _latest(course: list[Step], n: int) -> list[Step]:
    """The last n generations, if these follow each other; fewer, where some were not read."""
    found = course[-n:]
    while found and found[-1].generation - found[0].generation > len(found) - 1:
        found = found[1:]
    return found if len(found) == n else []


def _of_temperature(last: Step) -> Iterator[Finding]:
    temperature = float(np.max(last.epsilon))
    if temperature > 1:
        text = (
            f"the temperature is {temperature:.3g} and not 1: the posterior is wider than the noise model "
            "says; let the run go on until it is 1"
        )
        yield _finding(Severity.WARNING, "temperature", text)
    else:
        text = (
            "the temperature has come to 1: the posterior is that of the noise model, without approximation"
        )
        yield _finding(Severity.GOOD, "temperature", text)


def _of_acceptance(run: _Run) -> Iterator[Finding]:
    """Whether another generation could be paid for."""
    step = run.steps[-1]
    if step.generation and step.accepted and step.acceptance_rate < _RARE:
        text = (
            f"one of {step.evaluations / step.accepted:.0f} simulations of generation {step.generation} was "
            "accepted, and of the next one fewer would be: fewer, more telling statistics (summarize=) or "
            "kernel=mpiabc.OLCM() raise that; `history.posterior()` adjusts what there is by regression"
        )
        yield _finding(Severity.WARNING, "acceptance", text)


def _of_change(run: _Run) -> Iterator[Finding]:
    """Whether the posterior has still changed in the last generation."""
    if run.before is None or run.last.models or not math.isfinite(np.max(run.before.epsilon)):
        return
    found = dict(_changes(run.before, run.last))
    if not found:
        yield _finding(
            Severity.GOOD, "change", "the posterior has hardly changed from the generation before to the last"
        )
        return
    worst = sorted(found, key=lambda name: -abs(found[name][1]))
    text = (
        f"from generation {run.before.generation} to {run.last.generation} the posterior has still changed "
        f"({_names([f'{name}: {found[name][0]}' for name in worst])}): it is not known where it would come "
        "to; let more generations follow, if they can be paid for"
    )
    is_much = abs(found[worst[0]][1]) > _MUCH_CHANGED
    yield _finding(Severity.WARNING if is_much else Severity.NOTE, "change", text)


@quiet
def _changes(before: Population, last: Population) -> Iterator[tuple[str, tuple[str, float]]]:
    """How mean and deviation of each parameter have changed, in words and in deviations, beyond chance."""
    mean, sd = (
        [np.asarray(of) for of in pair] for pair in zip(_moments(before), _moments(last), strict=True)
    )
    chance = [2 * np.hypot(*pair) for pair in zip(errors(before), errors(last), strict=True)]
    for i, name in enumerate(last.names):
        narrowed, moved = (sd[0][i] - sd[1][i]) / sd[0][i], (mean[1][i] - mean[0][i]) / sd[1][i]
        if abs(narrowed) > _CHANGED and abs(sd[1][i] - sd[0][i]) > chance[1][i]:
            text = f"sd {'smaller' if narrowed > 0 else 'larger'} by {abs(narrowed):.0%}"
            yield name, (text, float(narrowed))
        elif abs(moved) > 2 * _CHANGED and abs(mean[1][i] - mean[0][i]) > chance[0][i]:
            yield name, (f"mean moved by {abs(moved):.1f} sd", float(moved))


def _moments(population: Population) -> tuple[np.ndarray, np.ndarray]:
    return population.mean(), population.std()


# Parameters.


def _of_parameters(run: _Run) -> Iterator[Finding]:
    """Whether they press against the prior's edges, or have been left as they were."""
    for model, population in _populations(run):
        if population.ess < _FEW:
            continue
        whose = f" of {model}" if model else ""
        parameters = seen(run.history, problem=model).parameters
        yield from _of_edges(parameters, population, whose)
        yield from _of_learning(parameters, population, whose)
        equal = [p.name for p in parameters if not p.bars and not np.ptp(population.theta[:, p.column])]
        if equal:
            text = (
                f"all particles have the same {_names(equal)}{whose}: the population has collapsed; give a "
                "larger population_size"
            )
            yield _finding(Severity.PROBLEM, "kernel", text)


def _populations(run: _Run) -> Iterator[tuple[str | None, Population]]:
    """The last population, or, of several models, that of each which has particles."""
    if not run.last.models:
        yield None, run.last
        return
    for model, population in zip(run.last.models, run.last.each(), strict=True):
        if population is not None:
            yield model.name, population


def _of_edges(parameters: Sequence[Parameter], population: Population, whose: str) -> Iterator[Finding]:
    pressed = {
        f"{parameter.name} at its {'lower' if k == 0 else 'upper'} limit {parameter.ends[k]:.4g}": (
            k == 0 and parameter.ends[k] == 0
        )
        for parameter in parameters
        if not parameter.values
        for k, height in enumerate(_edges(parameter, population))
        if height > _PRESSED and _is_learnt(parameter, population)
    }
    if pressed:
        text = (
            f"the posterior{whose} is as dense at an edge of the prior as anywhere ({_names([*pressed])}): "
            "it would reach further if it could; unless that is a natural limit, widen the prior"
        )
        are_natural = all(pressed.values())  # such as that of a rate, most likely
        yield _finding(Severity.NOTE if are_natural else Severity.WARNING, "prior", text)


def _edges(parameter: Parameter, population: Population) -> list[float]:
    """The density at the lower and the upper end of the support, as a share of its maximum."""
    z, w = parameter.of(population)
    if not len(z):
        return [0.0, 0.0]
    if parameter.bars:
        at = parameter.at(parameter.span([(z, w)]))
        height, ends = masses((z, w), at), [np.flatnonzero(at == end) for end in parameter.shown_ends]
        return [float(height[i[0]] / height.max()) if i.size else 0.0 for i in ends]
    span = parameter.span([(z, w)])
    height = density.curve(z, w, parameter.shown_ends, parameter.grid(span))
    is_at = [math.isclose(a, b) for a, b in zip(span, parameter.shown_ends, strict=True)]
    return [float(height[i] / height.max()) if at else 0.0 for i, at in zip((0, -1), is_at, strict=True)]


def _is_learnt(parameter: Parameter, population: Population) -> bool:
    """Whether its posterior is another density than its prior, beyond what chance makes of few particles."""
    return _learnt(parameter, population) > max(_LEARNT, _CHANCE * population.ess**-0.4)


def _learnt(parameter: Parameter, population: Population) -> float:
    """The share of the mass that has moved from the prior to the posterior; 1 where the prior is unknown."""
    points = parameter.of(population)
    if not len(points[0]):
        return 1.0
    prior_points = [] if parameter.sample is None else [parameter.shown(*parameter.sample)]
    span = parameter.span([points, *prior_points])
    if parameter.bars:
        at = parameter.at(span).astype(float)
        prior, mass = parameter.prior_at(at, span), masses(points, at)
        return 1.0 if prior is None else float(0.5 * np.abs(mass - prior).sum() + 0.5 * (1 - prior.sum()))
    grid = parameter.grid(span)
    prior = parameter.prior_at(grid, span)
    if prior is None:
        return 1.0
    step, height = grid[1] - grid[0], density.curve(*points, parameter.shown_ends, grid)
    apart = 0.5 * np.abs(np.nan_to_num(height - prior)).sum() * step
    return float(apart + 0.5 * max(0.0, 1 - np.nan_to_num(prior).sum() * step))


def _of_learning(parameters: Sequence[Parameter], population: Population, whose: str) -> Iterator[Finding]:
    left = [p.name for p in parameters if not _is_learnt(p, population)]
    if left:
        text = (
            f"the posterior of {_names(left)}{whose} is its prior, as far as can be seen: at this "
            "epsilon it is not informed by the data; let more generations follow, or give statistics that "
            "depend on it"
        )
        yield _finding(Severity.NOTE, "prior", text)


# Data and models.


def _of_data(run: _Run) -> Iterator[Finding]:
    """Whether the data lie among the accepted simulations."""
    observed, population = run.history.observed, run.last
    if observed is None or len(observed) != population.summaries.shape[1] or not len(observed):
        return
    missed = [i for i, x in enumerate(observed) if _is_beyond(x, population.summaries[:, i], population)]
    if len(missed) <= _MISSED * len(observed):
        text = "the observed data lie among the accepted simulations"
        yield _finding(Severity.GOOD, "data", text)
        return
    labels = run.history.labels or [str(i) for i in range(len(observed))]
    text = (
        f"of {len(observed)} observed numbers {len(missed)} lie beyond nearly all accepted simulations "
        f"({_names([labels[i] for i in missed])}): the model misses them, whatever its parameters; look at "
        "the picture of the data, and mend the model, or leave out what it need not tell"
    )
    yield _finding(Severity.WARNING, "data", text)


def _is_beyond(x: float, column: np.ndarray, population: Population) -> bool:
    """Whether a number lies outside of nearly all simulated ones."""
    column = np.asarray(column, float)
    known = np.isfinite(column) & (population.weights > 0)
    if not (math.isfinite(x) and known.any()):
        return False
    low, high = weighted_quantile(column[known], population.weights[known], list(_BEYOND))
    return bool(x < low or x > high)


def _of_statistics(run: _Run) -> Iterator[Finding]:
    """Whether one statistic makes up nearly all of a distance in which all have the same weight."""
    found, observed = _UNSCALED.fullmatch(str(run.settings.get("distance"))), run.history.observed
    first, rows = run.history[0], run.last.summaries
    if found is None or observed is None or observed.shape != rows.shape[1:] or run.is_noisy:
        return
    shares, still = (_shares(population, observed, float(found[1])) for population in (first, run.last))
    counted = np.ptp(first.summaries, axis=0) > 0
    for name, at in _statistics(run.history, int(shares.argmax())):
        share, own = shares[at].sum(), counted[at].sum()
        others = counted.sum() - own
        times = [_ratio(part[at].sum() * others, (1 - part[at].sum()) * own) for part in (shares, still)]
        is_missed = any(_is_beyond(observed[i], rows[:, i], run.last) for i in at)  # a finding of its own
        if others and share > _DROWNS and times[0] > _AT_FIRST and times[1] > _STILL and not is_missed:
            text = (
                f"the statistic {name} makes up {min(share, 0.999):.1%} of the distances of generation 0, so "
                f"that the other numbers of the data ({others}) hardly count: where units differ, "
                'distance=mpiabc.PNorm(scale="mad") makes them comparable'
            )
            yield _finding(Severity.WARNING, "distance", text)
            return


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf


@quiet
def _shares(population: Population, observed: np.ndarray, p: float) -> np.ndarray:
    """(k,): how much of a p-norm is of which number, in the mean over particles."""
    apart = np.abs(population.summaries - observed)  # (n, k)
    largest = apart.max(axis=1, keepdims=True)
    terms = (apart / largest) ** p if math.isfinite(p) else np.equal(apart, largest).astype(float)
    shares = np.nan_to_num(terms / terms.sum(axis=1, keepdims=True))
    return np.asarray(population.weights @ shares)


def _statistics(history: History, i: int) -> Iterator[tuple[str, list[int]]]:
    """The number in column i, then each key of several: names and columns."""
    yield from ((label, [i]) for label in (history.labels or ())[i : i + 1])
    first = 0
    for name, shape in history.shapes:
        size = math.prod(shape)
        yield name, list(range(first, first + size))
        first += size


def _of_models(run: _Run) -> Iterator[Finding]:
    """Whether each of several models has particles enough."""
    pairs = list(zip(run.last.models, run.last.each(), strict=False))
    gone = [model.name for model, population in pairs if population is None]
    few = [model.name for model, p in pairs if p is not None and effective_sample_size(p.weights) < _FEW]
    if gone:
        text = (
            f"no particle is left of {_names(gone)}: at this epsilon the probability is too small to be known"
        )
        yield _finding(Severity.NOTE, "models", text)
    if few:
        text = (
            f"few particles are left of {_names(few)}: what is said of parameters there is unsure; "
            "give a larger population_size"
        )
        yield _finding(Severity.WARNING, "models", text)


def _names(names: Sequence[str]) -> str:
    """A few of them, and how many more."""
    more = len(names) - _MOST_SHOWN
    return ", ".join(map(str, names[:_MOST_SHOWN])) + (f" and {more} more" if more > 0 else "")


_LOOKS = (  # of one severity, in the order of what they say of a run
    _of_failures,
    _of_size,
    _of_epsilon,
    _of_acceptance,
    _of_change,
    _of_parameters,
    _of_data,
    _of_statistics,
    _of_models,
    _of_workers,
    _of_versions,
)
