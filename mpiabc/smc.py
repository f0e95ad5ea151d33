"""ABC-SMC: generations one after another, each with a smaller threshold (Toni et al. 2009).

for each generation t:
    epsilon   = threshold.epsilon(t, population[t-1])
    proposal  = prior if t = 0, else kernel.fit(population[t-1])
    accepted  = the first N evaluations, in id order, whose distance is at most epsilon
    weights   = prior / proposal, normalised
"""

import logging
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mpiabc import stopping as stops
from mpiabc.driver import Driver, Limits
from mpiabc.errors import Error, Interrupted, ProblemError, StoreError, resumable_status
from mpiabc.generation import Generation, theta_of
from mpiabc.kernel import Gaussian, Kernel
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.population import Population
from mpiabc.problem import Problem, told
from mpiabc.progress import Progress
from mpiabc.records import Records, Status
from mpiabc.schedulers import Engine, resolve, threads
from mpiabc.signals import Signals
from mpiabc.stopping import Stopping
from mpiabc.store import History, Journal, Store
from mpiabc.streams import BLOCK, stream_key
from mpiabc.structure import Structure
from mpiabc.threshold import Quantile, Threshold
from mpiabc.version import __version__

_log = logging.getLogger(__name__)
Path = str | os.PathLike[str]

_MOST_BYTES = 1_000_000_000  # SQLite's limit for a blob


class ABCSMC:
    """An ABC-SMC sampler.

    population_size: particles in each generation. kernel: how the next proposal is fitted, by default
    `Gaussian()`. threshold: the rule for epsilon, by default `Quantile(0.5)`. seed: a non-negative
    integer; without one it is drawn, and kept in the store. Raises ProblemError for bad settings.
    """

    def __init__(
        self,
        problem: Problem,
        population_size: int,
        *,
        kernel: Kernel | None = None,
        threshold: Threshold | None = None,
        seed: int | None = None,
        model_prior: Any = None,
    ) -> None:
        if isinstance(problem, list | tuple) or model_prior is not None:
            raise ProblemError("model selection is not supported yet: give one Problem, no model_prior")
        if not isinstance(problem, Problem):
            raise ProblemError(f"the problem is {problem!r}, expected an mpiabc.Problem")
        self.problem = problem
        self.population_size = _whole("population_size", population_size, 2)
        self.kernel = Gaussian() if kernel is None else kernel
        self.threshold = Quantile() if threshold is None else threshold
        self.seed = None if seed is None else _whole("seed", seed, 0)
        if not callable(getattr(self.kernel, "fit", None)):
            raise ProblemError(f"kernel={kernel!r}, expected an object with fit(population)")
        if not callable(getattr(self.threshold, "epsilon", None)):
            raise ProblemError(f"threshold={threshold!r}: give mpiabc.Quantile(...), Listed or Constant")

    def run(
        self,
        store: Path,
        *,
        generations: int | None = None,
        epsilon: float | None = None,
        simulations: int | None = None,
        acceptance_rate: float | None = None,
        walltime: float | str | None = None,
        scheduler: Any = "auto",
        progress: bool | None = None,
        overwrite: bool = False,
    ) -> History | None:
        """Start the run in the file `store`, or continue it; returns its History, None on other ranks.

        The first stopping rule that holds ends the run: so many `generations`, an `epsilon` reached, so
        many `simulations`, an `acceptance_rate` that a generation cannot reach, or `walltime` (seconds,
        text such as "2h", or "auto": shortly before the batch system ends the job), after which the run
        can be continued. They never change a population. Job scripts set MPIABC_SCHEDULER, which
        scheduler="auto" obeys, and MPIABC_WALLTIME, the walltime of a run that is given none.

        Raises ProblemError and StoreError before any work, SimulatorError for failing evaluations,
        Interrupted (exit status 75, or MPIABC_RESUMABLE_STATUS) after a signal or the walltime.
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "store")}
        is_leading = False
        for _ in self._sampled(store, **options):
            is_leading = True
        return History(store) if is_leading else None

    def sample(self, store: Path, **options: Any) -> Iterator[Population]:
        """As `run`, but yields each Population of this call as it is committed."""
        return (population for population in self._sampled(store, **options) if population is not None)

    def _sampled(
        self,
        store: Path,
        *,
        scheduler: Any = "auto",
        progress: bool | None = None,
        overwrite: bool = False,
        walltime: float | str | None = None,
        **rules: Any,
    ) -> Iterator[Population | None]:
        """Yields None once in the process that leads, then the populations; nothing elsewhere."""
        began = time.monotonic()
        place = resolve(scheduler)
        if not place.leads():
            place.serve(self.problem)
            return
        with Signals() as signals, _opened(place, self.problem) as engine:
            has_rule = walltime is not None or Stopping(**rules).is_bounded
            walltime = stops.chosen(walltime)
            stopping = Stopping(**rules, walltime=stops.seconds(walltime))
            deadline, end = began + (stopping.walltime or math.inf), math.inf
            if walltime == "auto":
                deadline, end = math.inf, time.monotonic() + (stopping.walltime or 0.0)
            _check_size(self.problem, self.population_size)
            resumable_status()  # a wrong one is said now
            if not has_rule and isinstance(self.threshold.epsilon(10**9, None), float):
                raise ProblemError(
                    "the run has no end: give a stopping rule, such as generations=8 or epsilon=0.1"
                )
            with Store(store) as file:
                settings = self._settled(file, place.is_static, overwrite)
                limits = Limits(
                    deadline, end, lambda: signals.seen, self.problem.on_error, settle=signals.settle
                )
                live = Progress(progress)
                driver = Driver(
                    engine, limits=limits, progress=live, theta_of=partial(theta_of, self.problem)
                )
                run = _Run(self, settings, stopping, file, driver, engine, live)
                yield None
                with _ending_noted(file, live, signals):
                    yield from run.generations()

    def _settled(self, file: Store, is_static: bool, overwrite: bool) -> dict[str, Any]:
        """The settings of the run in the file, after checking that it is this one; begins it if new."""
        mine = {
            "names": list(self.problem.prior.names),
            **self.problem.parts(),
            "population_size": self.population_size,
            "kernel": told(self.kernel),
            "threshold": told(self.threshold),
            "seed": self.seed,
            "scheduling": "static" if is_static else "dynamic",
            "mpiabc": __version__,
            "numpy": np.__version__,
        }
        found = None if overwrite else file.settings()
        if found is None:
            mine["seed"] = secrets.randbits(63) if self.seed is None else self.seed
            parts = {"problem": self.problem, "kernel": self.kernel, "threshold": self.threshold}
            file.start(mine, self.problem.name or "", parts)
            return mine
        if self.seed is None:
            mine["seed"] = found.get("seed")
        different = [key for key in mine if mine[key] != found.get(key)]
        if different:
            told_apart = "; ".join(
                f"{key}: {found.get(key)!r} there, {mine[key]!r} here" for key in different
            )
            raise StoreError(
                f"{file.path} holds a run with other settings ({told_apart}): give another file name, or "
                "overwrite=True to begin anew"
            )
        return found


@dataclass
class _Run:
    """One call of `run`, in the process that leads."""

    abc: ABCSMC
    settings: dict[str, Any]
    stopping: Stopping
    file: Store
    driver: Driver
    engine: Engine
    progress: Progress

    def generations(self) -> Iterator[Population]:
        """Generation after generation until a stopping rule holds."""
        history = self.file.history()
        committed = list(history)
        last, used = committed[-1] if committed else None, sum(p.simulations for p in committed)
        self.driver.limits.failures_before = sum(p.failures for p in committed)
        reason, noted = self._reason(last, used), history.reason
        if reason is None and noted is not None:
            self.file.go_on()
            noted = None
        while reason is None:
            result = self._next(last, used)
            if isinstance(result, str):
                reason = result
                break
            last, used = result, used + result.simulations
            reason = noted = self._reason(last, used)
            yield last
        if reason != noted and reason is not None:
            self.file.finish(reason)

    def _next(self, last: Population | None, used: int) -> Population | str:
        """The next population, committed; or the reason why there is none."""
        index = 0 if last is None else last.generation + 1
        epsilon = self.abc.threshold.epsilon(index, last)
        if epsilon is None:
            return "threshold"
        if math.isnan(epsilon) or (last is not None and epsilon > last.epsilon):
            raise ProblemError(
                f"{told(self.abc.threshold)} gives epsilon {epsilon} for generation {index}: it rises"
            )
        return self._populate(self._generation(index, epsilon, last), used)

    def _reason(self, last: Population | None, used: int) -> str | None:
        if last is None:
            return None
        return self.stopping.reason(last.generation + 1, last.epsilon, used)

    def _generation(self, index: int, epsilon: float, last: Population | None) -> Generation:
        with threads.single():
            proposal = self.abc.problem.prior if last is None else self.abc.kernel.fit(last)
        return Generation(
            index,
            stream_key(self.settings["seed"]),
            epsilon,
            proposal,
            self.abc.population_size,
            self.settings["scheduling"] == "static",
        )

    def _populate(self, generation: Generation, used: int) -> Population | str:
        """The population of a generation, committed; or the bound that it cannot be completed within."""
        began = time.monotonic()
        ledger, generation = self._ledger(generation, used)
        journal = Journal(self.file, generation.index)
        self._recover(journal, ledger)
        try:
            reason = self.driver.run(ledger, generation, journal.add, journal.tick)
        except BaseException:
            with suppress(StoreError):
                journal.flush()
            raise
        if reason is not None:
            journal.flush()
            return reason
        population = _population(self.abc.problem, generation, ledger, time.monotonic() - began)
        failures = ledger.failures_below_cut()
        self.file.commit(population, failures, self._reason(population, used + population.simulations))
        self.driver.limits.failures_before += len(failures)
        self.progress.done(population, self.engine.workers)
        return population

    def _recover(self, journal: Journal, ledger: Ledger | SlotLedger) -> None:
        """Tell the ledger what an earlier call has kept of this generation."""
        for records in journal.recover():
            if isinstance(ledger, SlotLedger):  # a slot that gave up may have more tries now
                records = _without(records, records.status != Status.ACCEPTED)
            if self.abc.problem.on_error == "raise":  # what failed is tried again: it may have been mended
                records = replace(_without(records, records.status == Status.FAILED), failures=())
            ledger.tell(records)
        ledger.recover()

    def _ledger(self, generation: Generation, used: int) -> tuple[Ledger | SlotLedger, Generation]:
        step = BLOCK if self.abc.problem.vectorized else 1
        most_ids = self.stopping.most_ids(generation.size)
        most_simulations = self.stopping.most_simulations(used)
        bounds = {"most_ids": most_ids, "most_simulations": most_simulations}
        if generation.is_static:
            most = min(most_ids, most_simulations)
            limited = replace(generation, most_tries=None if math.isinf(most) else int(most))
            return SlotLedger(generation.index, generation.size, step=step, **bounds), limited
        return Ledger(generation.index, generation.size, step=step, **bounds), generation


def _population(
    problem: Problem, generation: Generation, ledger: Ledger | SlotLedger, seconds: float
) -> Population:
    """The ledger's rows with normalised weights.

    The evidence uses the first N - 1 weights and ids, because the cut itself was chosen by an
    acceptance: N / cut would be too large.
    """
    rows = ledger.population()
    log_weights = rows.pop("log_weights")
    highest = log_weights.max()
    weights = np.exp(log_weights - highest)  # at most 1
    evaluations, simulations = ledger.counts()
    n = len(weights)
    mean_weight = weights[:-1].mean() if isinstance(ledger, Ledger) else weights.mean()
    with np.errstate(divide="ignore"):
        log_evidence = highest + np.log(mean_weight) + math.log((n - 1) / max(1, evaluations - 1))
    return Population(
        names=tuple(problem.prior.names),
        weights=weights / weights.sum(),
        generation=generation.index,
        epsilon=generation.epsilon,
        evaluations=evaluations,
        simulations=simulations,
        failures=len(ledger.failures_below_cut()),
        log_evidence=float(log_evidence),
        dispatched=ledger.dispatched if isinstance(ledger, Ledger) else evaluations,
        seconds=seconds,
        **rows,
    )


@contextmanager
def _opened(place: Any, problem: Problem) -> Iterator[Engine]:
    """The scheduler's engine, closed with the status that its workers should end with."""
    engine = place.open(problem)
    status = 1
    try:
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
def _ending_noted(file: Store, live: Progress, signals: Signals) -> Iterator[None]:
    """What ends the run early is kept in its file; a stop that can be continued is told, once."""

    def note(reason: str, failure: Any = None) -> None:
        live.clear()
        with suppress(StoreError):  # which may be the reason
            file.finish(reason, failure)

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        stopped = stop if isinstance(stop, Interrupted) else Interrupted(f"stopped by {signals.seen}")
        note(f"interrupted: {stopped.why}")
        _log.warning("%s: %s", file.path, stopped)
        raise stopped from None
    except Exception as error:
        note(f"failed: {_first_line(error)}", getattr(error, "failure", None))
        if isinstance(error, ProblemError):
            file.discard_if_new()
        raise
    finally:
        live.clear()


def _first_line(error: Exception) -> str:
    told = (str(error).splitlines() or [""])[0]
    return told if isinstance(error, Error) else f"{type(error).__name__}: {told}"


def _without(records: Records, unknown: np.ndarray) -> Records:
    """`records` in which these addresses are not known."""
    return replace(records, status=np.where(unknown, Status.UNKNOWN, records.status).astype(np.uint8))


def _check_size(problem: Problem, n: int) -> None:
    """Raise ProblemError if a generation would not fit into a blob of the store."""
    k = Structure(problem.observed).size
    if 8 * n * k >= _MOST_BYTES:
        raise ProblemError(
            f"{n} particles with {k} numbers each are more than the {_MOST_BYTES:.0e} bytes that the store "
            "takes: reduce the data by summarize=, or the population"
        )


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ProblemError(f"{name}={value!r}: give a whole number of at least {least}")
    return int(value)
