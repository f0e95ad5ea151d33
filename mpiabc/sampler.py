"""What samplers have in common: a run that is begun or continued in a file, and driven to its end."""

import logging
import math
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import Any

from mpiabc import batch, guard, machine, sameness, voice, whereabouts
from mpiabc import stopping as stops
from mpiabc.actions import Commit, Done
from mpiabc.driver import Driver, Ended, Limits, Observer
from mpiabc.errors import Error, Interrupted, ProblemError, StoreError, resumable_status, text_of
from mpiabc.fingerprint import Fingerprint, fingerprint, note_changes
from mpiabc.kernels.gaussian import SCALE
from mpiabc.layout import layout_of
from mpiabc.models import AnyProblem
from mpiabc.planner import Planner
from mpiabc.pooling import PoolingPlanner
from mpiabc.population import Past, Population
from mpiabc.priors.constraint import share_inside
from mpiabc.problem import signature
from mpiabc.progress import Line, are_lines_wanted, logged, repeated
from mpiabc.records import Failure
from mpiabc.run import Death, Resumed, Run, reproducible
from mpiabc.schedulers import Engine, resolve
from mpiabc.schedulers.alone import communicator
from mpiabc.signals import Signals, is_asked_to_stop, stopped_by
from mpiabc.stopping import Stopping
from mpiabc.store import History, Live, Store, Writer, session
from mpiabc.store.live import Signs, for_broker
from mpiabc.streams import stream_key
from mpiabc.version import STREAMS

machine.refuse_free_threads()

_log = logging.getLogger(__name__)
Path = str | os.PathLike[str]

INSIDE = "share of the prior inside where"
MOST_BYTES = 1_000_000_000  # SQLite's limit for a blob


class Sampler:
    """A way to a posterior: what is abstract here says which."""

    problem: AnyProblem
    seed: int | None
    threshold: Any = None  # what may be another one where nothing is decided

    def _checked(self, place: Any, stopping: Stopping, has_rule: bool) -> None:
        """Raise ProblemError for a scheduler, or rules, that it does not go with."""
        raise NotImplementedError

    def _size_kept(self, stopping: Stopping) -> str:
        """What all simulations will take in the file, in words, if all are kept."""
        return ""

    def _own_settings(self) -> dict[str, Any]:
        """What the file says of it, besides problem and seed."""
        raise NotImplementedError

    def _own_fingerprint(self) -> Fingerprint:
        """Code and values that tell it from another one, besides the problem's."""
        return fingerprint()

    def _kept_parts(self) -> dict[str, Any]:
        """What the file holds of it as code, besides the problem."""
        return {}

    def _planner(self, settings: dict[str, Any]) -> Planner | PoolingPlanner:
        """What decides what comes next, for these settings of the file."""
        raise NotImplementedError

    def _past(self, planner: Any, history: History) -> Past:
        """What is committed already."""
        raise NotImplementedError

    def sample(self, store: Path, **options: Any) -> Iterator[Population]:
        """As `run`, but yields each Population of this call as it is committed."""
        events = self._sampled(Store(store), **options)
        return (population for population in events if population is not None)

    def _run(self, store: Path, options: dict[str, Any]) -> History | None:
        """Start or continue the run in the file; its History, None on other ranks."""
        file, is_leading = Store(store), False
        for _ in self._sampled(file, **options):
            is_leading = True
        if not is_leading:
            return None
        history = History(file.path)
        history.problem = self.problem
        return history

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
            deadline, end = began + (stopping.walltime or math.inf), math.inf
            if isinstance(walltime, str) and walltime == "auto":
                deadline, end = math.inf, time.monotonic() + (stopping.walltime or 0.0)
            self._checked(place, stopping, has_rule)
            resumable_status()  # a wrong one is said now
            with store as file:
                file.begin(session(place, engine.workers))
                settings = self._settled(file, place.is_static, overwrite, accept_changes)
                if note := self._size_kept(stopping):
                    _log.info("%s: %s", file.path, note)
                limits = Limits(deadline, end, signals)
                yield None
                yield from self._driven(file, settings, stopping, engine, limits, progress)

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
        planner = self._planner(settings)
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
                past = self._past(planner, history)
            kept = history.order(past.level)
            _tell_of_job(file.path, engine, past.level, is_new=past.level == 0 and kept is None)
            deaths = _deaths(file, None if kept is None else past.level)
            first = past.level - bool(past.level and settings.get("lookahead"))  # what was begun early
            records = chain.from_iterable(map(writer.recovered, range(first, past.level + 1)))
            resumed = Resumed(kept, records, deaths)
            getattr(engine, "note_beside", lambda store: None)(os.path.abspath(file.path))
            run = Run(self.problem, planner, stopping, past, resumed)
            driver = Driver(engine, limits=limits, observers=observers)
            with guard.last_words_to(_last_words(writer, run, observers)):
                for event in driver.run(run, writer):
                    if isinstance(event, Done):
                        writer.end(event.reason, run.partial())
                        continue
                    assert isinstance(event, Commit)  # a run hands nothing over
                    population = event.population
                    t, digest = population.generation, population.digest()
                    if digests.get(t) != digest:  # else it was taken back, and is as it was
                        digests[t] = digest
                        yield population

    def _settled(self, file: Store, is_static: bool, overwrite: bool, accept_changes: bool) -> dict[str, Any]:
        """The settings of the run in the file, after checking that it is this one; begins it if new."""
        named_models = [[m.name, list(m.names), m.probability] for m in self.problem.named_models]
        mine: dict[str, Any] = {
            "names": list(self.problem.names),
            **({"models": named_models} if named_models else {}),
            **self.problem.parts(),
            **self._own_settings(),
            "scheduling": "static" if is_static else "dynamic",
            "streams": STREAMS,
        }
        own = self._own_fingerprint()
        mark = Fingerprint(
            self.problem.fingerprint.code | own.code, self.problem.fingerprint.values | own.values
        )
        found = None if overwrite else file.settings()
        if found is None:
            mine["seed"] = secrets.randbits(63) if self.seed is None else self.seed
            if choices := _choices(self.problem):
                mine["choices"] = choices
            if any(getattr(model.prior, "where", None) is not None for model in self.problem.models):
                shares = [_inside(file, model.prior, mine["seed"]) for model in self.problem.models]
                mine[INSIDE] = shares if len(shares) > 1 else shares[0]
            settings = mine | sameness.noted(mark)
            parts = {"problem": self.problem} | self._kept_parts()
            file.start(settings, self.problem.name or "", parts, self.problem.plain())
            return mine
        if self.seed is None:
            mine["seed"] = found.get("seed")
        if SCALE not in found:  # older files choose it by another rule
            mine.pop(SCALE, None)
        plain = self.problem.plain()
        observed = sameness.Observed(plain["observed"], plain["labels"])
        return sameness.check(file, mine, found, mark, accept_changes, self.threshold, observed)


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


def _tell_of_job(path: Path, engine: Engine, level: int, is_new: bool) -> None:
    """Begin the log of a batch job: which one, where, on what, and whether it goes on with a run."""
    from mpiabc.schedulers.mpi import launched_size

    if job := batch.job():
        ranks = launched_size()
        workers = f"{ranks} ranks" if ranks > 1 else f"{engine.workers} worker{'s' * (engine.workers != 1)}"
        _log.info(
            "%s: %s on %s, %s: %s",
            path,
            job,
            platform.node(),
            workers,
            "new" if is_new else f"resumed from generation {level}",
        )


def _published(engine: Engine) -> list[Observer]:
    """An observer for engines that others can look at from outside: it shows them how far the run is."""
    publish = getattr(engine, "publish", None)
    if publish is None:
        return []
    return [Signs(lambda sign: publish(for_broker(sign)))]


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


def _interrupted(signals: Signals) -> AbstractContextManager[None]:
    """A run that is interrupted before it has begun has been stopped, too."""
    return stopped_by(signals, " before the run began", lambda stopped: stopped.tell(_log))


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
    """What ends the run early is kept in its file; a stop that can be continued is reported, once."""

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
            stopped.file = str(file.path)
            stopped.tell(_log)
            if isinstance(stopped, SystemExit) and (job := batch.job()):
                _log.warning(
                    "%s: exit status %d is meant, and no failure of %s: the next job of this script goes on",
                    file.path,
                    stopped.code,
                    job,
                )
            raise stopped from None
        note(f"failed: {_first_line(error)}", getattr(error, "failure", None))
        if isinstance(error, ProblemError):
            file.discard_if_new()
        raise
    finally:
        end()


def _first_line(error: BaseException) -> str:
    text = (text_of(error).splitlines() or [""])[0]
    return text if isinstance(error, Error) else f"{type(error).__name__}: {text}"


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
