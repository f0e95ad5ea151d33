"""ABC-SMC: generations one after another, each with a smaller threshold (Toni et al. 2009).

for each generation t:
    epsilon   = threshold.epsilon(t, population[t-1])
    proposal  = prior if t = 0, else kernel.fit(population[t-1]), of each model if there are several
    accepted  = the first N evaluations, in id order, whose distance is at most epsilon
    weights   = prior / proposal, normalised
"""

import logging
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any

from mpiabc import guard, models, recycling, sameness, sizes, voice, whereabouts
from mpiabc import stopping as stops
from mpiabc.actions import Done
from mpiabc.adaptive import measure_of
from mpiabc.arguments import whole
from mpiabc.constraint import share_inside
from mpiabc.distance import PNorm, is_adaptive
from mpiabc.driver import Driver, Ended, Limits, Observer, Progressed
from mpiabc.errors import Error, Interrupted, ProblemError, StoreError, resumable_status, text_of
from mpiabc.fingerprint import Fingerprint, fingerprint, note_changes
from mpiabc.kernel import OLCM, SCALE, Gaussian, Kernel, LocalGaussian, as_before, scale_rule
from mpiabc.layout import layout_of
from mpiabc.models import AnyProblem
from mpiabc.noise import Noise
from mpiabc.order import calibrated
from mpiabc.planner import Planner, takes_prior
from mpiabc.population import Past, Population
from mpiabc.problem import Problem, signature, told
from mpiabc.progress import Line, are_lines_wanted, logged, repeated
from mpiabc.progress import told as told_of
from mpiabc.records import Failure
from mpiabc.run import Death, Resumed, Run, reproducible
from mpiabc.schedulers import Engine, resolve
from mpiabc.schedulers.alone import communicator
from mpiabc.signals import Signals, is_asked_to_stop
from mpiabc.stopping import Stopping
from mpiabc.store import History, Live, Store, Writer
from mpiabc.streams import stream_key
from mpiabc.threshold import Constant, Listed, Quantile, Threshold
from mpiabc.version import STREAMS

_log = logging.getLogger(__name__)
Path = str | os.PathLike[str]

_INSIDE = "share of the prior inside where"
_MOST_BYTES = 1_000_000_000  # SQLite's limit for a blob


class ABCSMC:
    """An ABC-SMC sampler.

    population_size: particles in each generation, a list of one size a generation (the last one goes on), or
    a rule, see `mpiabc.sizes`. kernel: how the next proposal is fitted, by default
    `Gaussian()`. threshold: the rule for epsilon, by default `Quantile(0.5)`. acceptor: a noise
    model, `Noise(mpiabc.noise.Normal(sd=1))`, in the place of distance and threshold. seed: a non-negative
    integer; without one it is drawn, and kept in the store. recycle=True: what was accepted before and meets
    the new threshold is kept, so that fewer simulations are needed; the weights of such a population look at
    the proposals of all generations, or, with weights="levels", which is cheaper and for large populations,
    only at how many particles each has brought. lookahead=True: workers that would wait for the end of a
    generation begin simulations of the next ones, whose proposals are those of this one as often as can be,
    and the result is the same whether they do or not; it is another one than without the setting.
    keep="theta": the statistics of accepted particles are kept nowhere, `summaries` is (N, 0), and files of
    large data stay small. Of a list of problems, each a model of the same data, the run says how probable
    they are, from `model_prior`, their probabilities before the data, which are equal if none are given.
    Raises ProblemError for bad settings.
    """

    def __init__(
        self,
        problem: Problem | Sequence[Problem],
        population_size: Any,
        *,
        kernel: Kernel | None = None,
        threshold: Threshold | None = None,
        acceptor: Noise | None = None,
        seed: int | None = None,
        model_prior: Any = None,
        recycle: bool | None = None,
        weights: str | None = None,
        keep: str = "accepted",
        lookahead: bool | None = None,
    ) -> None:
        self.problem = models.of(problem, model_prior)
        self.population_size = sizes.taken(population_size)
        self.kernel = Gaussian() if kernel is None else kernel
        self.threshold: Any = Quantile() if threshold is None else threshold
        self.acceptor = acceptor
        self._log_c: float | None = None
        self.seed = None if seed is None else _whole("seed", seed, 0)
        if not callable(getattr(self.kernel, "fit", None)):
            raise ProblemError(f"kernel={kernel!r}, expected an object with fit(population)")
        if not callable(getattr(self.threshold, "epsilon", None)):
            raise ProblemError(f"threshold={threshold!r}: give mpiabc.Quantile(...), Listed or Constant")
        if acceptor is not None:
            self._listen_through(acceptor, threshold)
        for part in self.problem.models:
            self._check_kernel(part.prior)
        self.weights = self._weights(recycle, weights)
        self.keep = _kept(keep)
        self._check_adaptive()
        self.lookahead = self._looks_ahead(lookahead)
        size = self.population_size
        is_plain = isinstance(size, int | sizes.Listed)
        parts = {"kernel": self.kernel, "threshold": self.threshold, "size": None if is_plain else size}
        self._parts = fingerprint(**parts)

    def _check_kernel(self, prior: Any) -> None:
        """Raise ProblemError for a kernel that is not for this prior."""
        if getattr(self.kernel, "defensive", 0.0) and not getattr(prior, "is_normalised", False):
            raise ProblemError(
                f"kernel={told(self.kernel)} with prior={told(prior)}, which does not say that its "
                "densities are normalised: set its is_normalised = True if they are, or leave defensive out"
            )
        if not (layout_of(prior).is_free or takes_prior(self.kernel)):
            raise ProblemError(
                f"kernel={told(self.kernel)} has fit(population), and the prior has integers, choices or "
                "shares, of which its proposals would know nothing: write fit(population, prior), or leave "
                "kernel out"
            )
        if isinstance(self.kernel, Gaussian | LocalGaussian | OLCM):
            self.kernel.check(prior)

    def _listen_through(self, noise: Noise, threshold: Any) -> None:
        """Let a noise model take the place of distance and threshold. Raises ProblemError."""
        problem = self.problem
        if not isinstance(noise, Noise):
            raise ProblemError(f"acceptor={noise!r}: give mpiabc.Noise(model), or leave it out")
        if threshold is not None:
            raise ProblemError(
                f"acceptor=Noise(...) with threshold={told(threshold)}: temperatures take the place of "
                "thresholds, and Noise(steps=) says how they fall; leave threshold out"
            )
        if problem.observed is None:
            raise ProblemError(
                "acceptor=Noise(...) and a problem without observed data, whose density it is: give observed="
            )
        if told(problem.distance) != told(PNorm()):
            raise ProblemError(
                f"acceptor=Noise(...) with distance={told(problem.distance)}: the noise's density takes the "
                "place of a distance; leave distance out of the problem"
            )
        if any("epsilon" in signature(model.simulate).extras for model in problem.models):
            raise ProblemError(
                "acceptor=Noise(...) with a simulator that takes epsilon, to reject by it: whatever is "
                "simulated has a density; leave epsilon out"
            )
        distance = noise.distance()
        if distance.takes_theta and len(problem.models) > 1:
            raise ProblemError(
                f"acceptor={told(noise)}, which looks at theta, with several models, whose parameters have "
                "nothing in common: add the noise in simulators, or give one problem"
            )
        self.problem, self.threshold = problem.measured_by(distance), None
        maxima = [_log_c(noise, model) for model in problem.models]
        known = [maximum for maximum in maxima if maximum is not None]
        self._log_c = max(known) if len(known) == len(maxima) else None

    def _weights(self, recycle: bool | None, weights: str | None) -> str | None:
        """How recycled evaluations are weighted; None if nothing is recycled. Raises ProblemError."""
        if not (recycle is None or isinstance(recycle, bool)):
            raise ProblemError(f"recycle={recycle!r}: give True or False")
        if weights is not None and weights not in recycling.WEIGHTS:
            raise ProblemError(f"weights={weights!r}: give {' or '.join(map(repr, recycling.WEIGHTS))}")
        if not recycle:
            if weights is not None:
                raise ProblemError(f"weights={weights!r} is for recycled evaluations: give recycle=True too")
            return None
        if isinstance(self.threshold, Constant):
            raise ProblemError(
                f"recycle=True with threshold={self.threshold}: all particles would be kept, and nothing "
                "new be simulated; give a threshold that falls, or leave recycle out"
            )
        if self.acceptor is not None and self._log_c is None:
            raise ProblemError(
                f"recycle=True with acceptor={told(self.acceptor)}, whose largest density is a guess that "
                "changes: give Noise(log_maximum=) if you know it, or leave recycle out"
            )
        for name, part in {"prior": self.problem.prior, "kernel": self.kernel}.items():
            if not getattr(part, "is_normalised", False):
                raise ProblemError(
                    f"recycle=True with {name}={told(part)}, which does not say that its densities are "
                    "normalised: set its is_normalised = True if they are, or leave recycle out"
                )
        return weights or recycling.BALANCE

    def _check_adaptive(self) -> None:
        """Raise ProblemError for what does not go together with a distance that is fitted to simulations."""
        if not is_adaptive(self.problem.distance):
            return
        said = f"distance={told(self.problem.distance)} is fitted to the simulations of each generation"
        if isinstance(self.threshold, Constant | Listed):
            raise ProblemError(
                f"{said}, and threshold={told(self.threshold)} is in units of one of them: give "
                "threshold=mpiabc.Quantile(...), or numbers as the scale"
            )
        if self.weights is not None:
            raise ProblemError(
                f"recycle=True, and {said}: what an earlier one has rejected is gone; leave recycle out, or "
                "give numbers as the scale"
            )
        if self.keep == "theta":
            raise ProblemError(
                f'keep="theta", and {said}: particles are measured again by their statistics; leave keep '
                "out, or give numbers as the scale"
            )
        if any("epsilon" in signature(model.simulate).extras for model in self.problem.models):
            raise ProblemError(
                f"the simulator takes epsilon, and {said}: who rejects early leaves holes in them; leave "
                "epsilon out, or give numbers as the scale"
            )

    def _looks_ahead(self, lookahead: bool | None) -> bool:
        """Whether ids beyond a cut are begun early. Raises ProblemError."""
        if not (lookahead is None or isinstance(lookahead, bool)):
            raise ProblemError(f"lookahead={lookahead!r}: give True or False")
        if not lookahead:
            return False
        problem = self.problem
        if problem.vectorized:
            raise ProblemError(
                "lookahead=True with a vectorised simulator: a block would count only if each of its rows "
                "has kept its proposal; give a simulator of one theta, or leave lookahead out"
            )
        if self.acceptor is not None:
            raise ProblemError(
                f"lookahead=True with acceptor={told(self.acceptor)}: what is begun early would be accepted "
                "at a temperature that is not known yet; leave lookahead out, or give a threshold"
            )
        if is_adaptive(problem.distance):
            raise ProblemError(
                f"lookahead=True with distance={told(problem.distance)}, which is fitted to the simulations "
                "of each generation: no epsilon that is known bounds the next one; leave lookahead out, or "
                "give numbers as the scale"
            )
        if any("epsilon" in signature(model.simulate).extras for model in problem.models):
            raise ProblemError(
                "lookahead=True with a simulator that takes epsilon: of what is begun early it is not known "
                "yet; leave epsilon out of the simulator, or leave lookahead out"
            )
        if self.keep == "all":
            raise ProblemError(
                'lookahead=True with keep="all": rejected ids are known only by what was begun at their own '
                "level; leave one of them out"
            )
        for name, part in {"prior": problem.prior, "kernel": self.kernel}.items():
            if not getattr(part, "is_normalised", False):
                raise ProblemError(
                    f"lookahead=True with {name}={told(part)}, which does not say that its densities are "
                    "normalised: set its is_normalised = True if they are, or leave lookahead out"
                )
        return True

    def run(
        self,
        store: Path,
        *,
        generations: int | None = None,
        epsilon: float | None = None,
        simulations: int | None = None,
        acceptance_rate: float | None = None,
        min_epsilon_change: float | None = None,
        ess: float | None = None,
        models: int | None = None,
        walltime: float | str | timedelta | None = None,
        scheduler: Any = "auto",
        progress: bool | None = None,
        overwrite: bool = False,
        accept_changes: bool = False,
    ) -> History | None:
        """Start the run in the file `store`, or continue it; returns its History, None on other ranks.

        The first stopping rule that holds ends the run: so many `generations`, an `epsilon` reached, so
        many `simulations`, an `acceptance_rate` that a generation cannot reach, an epsilon that fell by less
        than `min_epsilon_change` (.01: a hundredth), a generation whose effective sample size is below `ess`,
        so many `models` left with particles, or `walltime` (seconds, a timedelta, text such as "2h", or
        "auto": shortly before the batch system ends the job), after which the run can be continued. They
        never change a population. A run goes on with another threshold where nothing is decided yet: with a
        list that begins with the thresholds that were used, or a gentler quantile; with any other, and if
        code or values have changed meanwhile, with `accept_changes` only. Its file notes that. Job scripts
        set MPIABC_SCHEDULER, which scheduler="auto" obeys, and MPIABC_WALLTIME, the walltime of a run that is
        given none.

        Raises ProblemError and StoreError before any work, SimulatorError for failing evaluations,
        Interrupted (exit status 75, or MPIABC_RESUMABLE_STATUS) after a signal or the walltime.
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "store")}
        file, is_leading = Store(store), False
        for _ in self._sampled(file, **options):
            is_leading = True
        return History(file.path) if is_leading else None

    def sample(self, store: Path, **options: Any) -> Iterator[Population]:
        """As `run`, but yields each Population of this call as it is committed."""
        events = self._sampled(Store(store), **options)
        return (population for population in events if population is not None)

    def _sampled(
        self,
        store: Store,
        *,
        scheduler: Any = "auto",
        progress: bool | None = None,
        overwrite: bool = False,
        accept_changes: bool = False,
        walltime: float | str | timedelta | None = None,
        **rules: Any,
    ) -> Iterator[Population | None]:
        """Yields None once in the process that leads, then the populations; nothing elsewhere."""
        began = time.monotonic()
        place = resolve(scheduler)
        _check_team(self.problem, place)
        if not place.leads():
            with _changes_noted(self.problem):
                place.serve(self.problem)
            return
        with (
            voice.logging_to_stderr(are_lines_wanted(progress)),
            Signals() as signals,
            _changes_noted(self.problem),
            _opened(place, self.problem, signals) as engine,
        ):
            has_rule = walltime is not None or Stopping(**rules).is_bounded
            walltime = stops.chosen(walltime)
            stopping = Stopping(**rules, walltime=stops.seconds(walltime))
            _check_models(self.problem, stopping)
            deadline, end = began + (stopping.walltime or math.inf), math.inf
            if isinstance(walltime, str) and walltime == "auto":
                deadline, end = math.inf, time.monotonic() + (stopping.walltime or 0.0)
            if place.is_static and self.weights is not None:
                raise ProblemError(
                    "recycle=True with static scheduling: each slot tries ids of its own, so there is no "
                    "common line of them to go on with; take a dynamic scheduler, or leave recycle out"
                )
            if self.lookahead and place.is_static:
                raise ProblemError(
                    "lookahead=True with static scheduling: each slot tries ids of its own until one is "
                    "accepted, so nobody can look ahead; take a dynamic scheduler, or leave lookahead out"
                )
            _check_size(self.problem, sizes.largest(self.population_size), self.keep)
            resumable_status()  # a wrong one is said now
            if stopping.min_epsilon_change is not None and is_adaptive(self.problem.distance):
                raise ProblemError(
                    f"min_epsilon_change={stopping.min_epsilon_change} with a distance that is fitted to the "
                    "simulations of each generation: epsilons of two are in different units; leave it out, "
                    "or give numbers as the scale"
                )
            if self.acceptor is not None and stopping.min_epsilon_change is not None:
                raise ProblemError(
                    f"min_epsilon_change={stopping.min_epsilon_change} with acceptor=Noise(...), whose "
                    "temperatures fall as Noise(steps=) says: end the run by epsilon=1"
                )
            if not has_rule and self._is_endless():
                example = "generations=8 or epsilon=0.1" if self.acceptor is None else "epsilon=1"
                raise ProblemError(f"the run has no end: give a stopping rule, such as {example}")
            with store as file:
                settings = self._settled(file, place.is_static, overwrite, accept_changes)
                limits = Limits(deadline, end, signals)
                yield None
                yield from self._driven(file, settings, stopping, engine, limits, progress)

    def _is_endless(self) -> bool:
        """Whether there is always another generation."""
        return self.threshold is None or self.threshold.epsilon(10**9, None) is not None

    def _driven(
        self,
        file: Store,
        settings: dict[str, Any],
        stopping: Stopping,
        engine: Engine,
        limits: Limits,
        progress: bool | None,
    ) -> Iterator[Population]:
        """The populations, each once, as they are committed."""
        key, is_static = stream_key(settings["seed"]), settings["scheduling"] == "static"
        prior, size = self.problem.prior, self.population_size
        is_older = SCALE not in settings
        kernel = as_before(self.kernel, len(settings["names"])) if is_older else self.kernel
        parts = kernel, self.threshold
        measure = measure_of(self.problem)
        inside = settings.get(_INSIDE, 1.0)
        planner = Planner(
            prior,
            *parts,
            key,
            size,
            is_static,
            self.weights,
            self.problem.step,
            measure,
            keep=self.keep,
            inside=inside,
            noise=self.acceptor,
            log_c=self._log_c,
            lookahead=self.lookahead,
        )
        writer, history = Writer(file), file.history()
        observers: list[Observer] = [
            Line(progress),
            repeated,
            logged(file.path),
            Live(file.path),
            lambda event: whereabouts.clear(file.path) if isinstance(event, Ended) else None,
            *_published(engine),
        ]
        digests: dict[int, str] = {}
        with _ending_noted(file, observers, limits):
            with reproducible():
                past = planner.past(history, history.order)
                past = _with_simulations(past, history)
            kept = history.order(past.level)
            deaths = _deaths(file, None if kept is None else past.level)
            levels = range(max(0, past.level - self.lookahead), past.level + 1)  # what was begun early
            records = chain.from_iterable(map(writer.recovered, levels))
            resumed = Resumed(kept, records, deaths)
            getattr(engine, "note_beside", lambda store: None)(os.path.abspath(file.path))
            run = Run(self.problem, planner, stopping, past, resumed)
            driver = Driver(engine, limits=limits, observers=observers)
            with guard.last_words_to(_last_words(writer, run, observers)):
                for event in driver.run(run, writer):
                    if isinstance(event, Done):
                        writer.end(event.reason)
                        continue
                    population = event.population
                    t, digest = population.generation, population.digest()
                    if digests.get(t) != digest:  # else it was taken back, and is as it was
                        digests[t] = digest
                        yield population

    def _settled(self, file: Store, is_static: bool, overwrite: bool, accept_changes: bool) -> dict[str, Any]:
        """The settings of the run in the file, after checking that it is this one; begins it if new."""
        told_models = [[m.name, list(m.names), m.probability] for m in self.problem.told_models]
        mine: dict[str, Any] = {
            "names": list(self.problem.names),
            **({"models": told_models} if told_models else {}),
            **self.problem.parts(),
            "population_size": sizes.plain(self.population_size, told(self.population_size)),
            "kernel": told(self.kernel),
            SCALE: scale_rule(self.kernel),
            "threshold": told(self.threshold),
            "acceptor": None if self.acceptor is None else told(self.acceptor),
            "seed": self.seed,
            "recycle": self.weights,
            "keep": None if self.keep == "accepted" else self.keep,
            "lookahead": self.lookahead or None,
            "scheduling": "static" if is_static else "dynamic",
            "streams": STREAMS,
        }
        fingerprint = Fingerprint(
            self.problem.fingerprint.code | self._parts.code,
            self.problem.fingerprint.values | self._parts.values,
        )
        found = None if overwrite else file.settings()
        if found is None:
            mine["seed"] = secrets.randbits(63) if self.seed is None else self.seed
            if choices := _choices(self.problem):
                mine["choices"] = choices
            if any(getattr(model.prior, "where", None) is not None for model in self.problem.models):
                shares = [_inside(file, model.prior, mine["seed"]) for model in self.problem.models]
                mine[_INSIDE] = shares if len(shares) > 1 else shares[0]
            parts = {"problem": self.problem, "kernel": self.kernel, "threshold": self.threshold}
            settings = mine | sameness.noted(fingerprint)
            file.start(settings, self.problem.name or "", parts, self.problem.plain())
            return mine
        if self.seed is None:
            mine["seed"] = found.get("seed")
        if SCALE not in found:  # older files choose it by another rule
            del mine[SCALE]
        return sameness.check(file, mine, found, fingerprint, accept_changes, self.threshold)


def _log_c(noise: Noise, problem: Problem) -> float | None:
    """The log of the largest density of a problem's noise, if that is known. Raises ProblemError."""
    prior = problem.prior
    noise.check(prior.names)
    bounds = getattr(prior, "bounds", lambda: [None] * len(prior.names))()
    return noise.log_c(problem.observed_row, dict(zip(prior.names, bounds, strict=True)))


def _choices(problem: AnyProblem) -> dict[str, list[str]]:
    """The values of each choice, as text; a parameter of one of several models is named with it."""
    several = len(problem.models) > 1
    return {
        f"{model.names[c.column]}{f' of {model.name}' if several else ''}": [str(v) for v in c.values]
        for model in problem.models
        for c in layout_of(model.prior).choices
    }


def _inside(file: Store, prior: Any, seed: int) -> float:
    """The share of a prior that its constraint leaves. Raises ProblemError, and then leaves no new file."""
    try:
        return share_inside(prior, stream_key(seed))
    except ProblemError:
        file.discard_if_new()
        raise


def _with_simulations(past: Past, history: History) -> Past:
    """The past with what its distance was fitted to before, and what the next one is."""
    first = history.order(0)
    before = 0 if first is None or not past.level else calibrated(first[0])
    sample = history.sample(past.level - 1)
    return replace(past, simulations=past.simulations + before, sample=sample)


def _published(engine: Engine) -> list[Observer]:
    """An observer for engines that others can look at from outside: it shows them how far the run is."""
    publish = getattr(engine, "publish", None)
    if publish is None:
        return []
    return [lambda event: publish(told_of(event)) if isinstance(event, Progressed) else None]


def _deaths(file: Store, level: int | None) -> list[Death]:
    """What processes of the last run were at, in this generation, when they died."""
    found = [at for at in whereabouts.left(file.path) if at.generation == level]
    whereabouts.clear(file.path)
    times = file.died([at.address for at in found]) if found else {}
    return [Death(at.index, at.where, times[at.address]) for at in found]


def _last_words(writer: Writer, run: Run, observers: list[Observer]) -> Callable[[Failure], None]:
    """What keeps all there is when an evaluation ends this process, which leaves when it returns."""

    def speak(failure: Failure) -> None:
        for observe in observers:
            observe(Ended())
        is_final = run.on_error == "raise"
        with suppress(StoreError):
            writer.last_words(failure, None if is_final else run.failed(failure))
        more = "" if is_final else "run the same command again to go on without that evaluation\n"
        voice.put(f"mpiabc.errors.SimulatorError: {failure}\n{more}", sys.stderr)

    return speak


@contextmanager
def _interrupted(signals: Signals) -> Iterator[None]:
    """A run that is interrupted before it has begun has been stopped, too."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not is_asked_to_stop(error):
            raise
        stopped = Interrupted(f"stopped by {signals.seen} before the run began")
        _log.warning("%s", stopped)
        raise stopped from None


@contextmanager
def _opened(place: Any, problem: AnyProblem, signals: Signals) -> Iterator[Engine]:
    """The scheduler's engine, closed with the status that its workers should end with."""
    with _interrupted(signals):
        engine = place.open(problem)
    status = 1
    try:
        with _interrupted(signals):
            yield engine
        status = 0
    except GeneratorExit:
        status = 0
        raise
    except Interrupted as stopped:
        status = stopped.code
        raise
    finally:
        engine.close(status)


@contextmanager
def _changes_noted(problem: AnyProblem) -> Iterator[None]:
    """What evaluations change of the problem's parts in this process tells no problem from another."""
    try:
        yield
    finally:
        note_changes(problem.fingerprint, problem.fingerprint_here())


@contextmanager
def _ending_noted(file: Store, observers: list[Observer], limits: Limits) -> Iterator[None]:
    """What ends the run early is kept in its file; a stop that can be continued is told, once."""

    def note(reason: str, failure: Any = None) -> None:
        end()
        with suppress(StoreError):  # which may be the reason
            file.finish(reason, failure)

    def end() -> None:
        for observe in observers:
            observe(Ended())

    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as error:
        if isinstance(error, Interrupted) or is_asked_to_stop(error):
            why = f"stopped by {limits.signals.seen}"
            stopped = error if isinstance(error, Interrupted) else Interrupted(why)
            note(f"interrupted: {stopped.why}")
            _log.warning("%s: %s", file.path, stopped)
            raise stopped from None
        note(f"failed: {_first_line(error)}", getattr(error, "failure", None))
        if isinstance(error, ProblemError):
            file.discard_if_new()
        raise
    finally:
        end()


def _first_line(error: BaseException) -> str:
    told = (text_of(error).splitlines() or [""])[0]
    return told if isinstance(error, Error) else f"{type(error).__name__}: {told}"


def _check_team(problem: AnyProblem, place: Any) -> None:
    """Raise ProblemError for a simulator that takes `comm` where there is none, or the reverse."""
    takes_comm, size = "comm" in signature(problem.models[0].simulate).extras, getattr(place, "team", None)
    if takes_comm and size is None:
        raise ProblemError(
            f"the simulator takes comm, and {place} has no teams of ranks that simulate together: give "
            'schedulers.MPI(team=4) under mpirun, or scheduler="serial", where comm is COMM_SELF'
        )
    if takes_comm and size == 1:
        communicator()
    if size is not None and size != 1 and not takes_comm:
        raise ProblemError(
            f"{place}, and the simulator takes no comm, by which the ranks of a team work together: write "
            "simulate(theta, rng, *, comm), or leave team out"
        )


def _check_models(problem: AnyProblem, stopping: Stopping) -> None:
    """Raise ProblemError for a rule on the number of models that would hold from the start."""
    n = len(problem.models)
    if stopping.models is not None and stopping.models >= n:
        told_n = f"{n} problems" if n > 1 else "one problem"
        raise ProblemError(f"models={stopping.models} with {told_n}: give a smaller number, or leave it out")


def _check_size(problem: AnyProblem, n: int | None, keep: str) -> None:
    """Raise ProblemError if a generation would not fit into a blob of the store."""
    k = problem.structure.size if keep == "accepted" else 0
    if n is not None and 8 * n * k >= _MOST_BYTES:
        raise ProblemError(
            f"{n} particles with {k} numbers each are more than the {_MOST_BYTES:.0e} bytes that the store "
            'takes: reduce the data by summarize=, or the population, or give keep="theta"'
        )


def _kept(keep: Any) -> str:
    if keep not in ("accepted", "theta"):
        raise ProblemError(
            f"keep={keep!r}: give 'accepted', for the statistics of accepted particles, or 'theta', for none"
        )
    return str(keep)


def _whole(name: str, value: Any, least: int) -> int:
    number = whole(value)
    if number is None or number < least:
        raise ProblemError(f"{name}={value!r}: give a whole number of at least {least}")
    return number
