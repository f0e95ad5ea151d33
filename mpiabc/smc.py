"""ABC-SMC: generations one after another, each with a smaller threshold (Toni et al. 2009).

for each generation t:
    epsilon   = threshold.epsilon(t, population[t-1])
    proposal  = prior if t = 0, else kernel.fit(population[t-1])
    accepted  = the first N evaluations, in id order, whose distance is at most epsilon
    weights   = prior / proposal, normalised
"""

import json
import logging
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mpiabc import checks, guard
from mpiabc import stopping as stops
from mpiabc.arguments import whole
from mpiabc.driver import Driver, Limits, TakenBackError, failed
from mpiabc.errors import Error, Interrupted, ProblemError, SimulatorError, StoreError, resumable_status
from mpiabc.evaluate import Level, theta_of
from mpiabc.fingerprint import Fingerprint, differences, fingerprint, note_changes
from mpiabc.kernel import Gaussian, Kernel
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.order import kept
from mpiabc.planner import Asking, Planner
from mpiabc.population import Population
from mpiabc.problem import Problem, told
from mpiabc.progress import Progress
from mpiabc.records import Failure, Lease, Records, Status, order_number
from mpiabc.schedulers import Engine, resolve, threads
from mpiabc.schedulers.base import notices_within
from mpiabc.signals import DOUBT, Signals
from mpiabc.stopping import Stopping
from mpiabc.store import History, Journal, Store
from mpiabc.streams import BLOCK, stream_key
from mpiabc.structure import Structure
from mpiabc.threshold import Quantile, Threshold
from mpiabc.version import STREAMS, digit_difference, versions

_log = logging.getLogger(__name__)
Path = str | os.PathLike[str]

_MOST_BYTES = 1_000_000_000  # SQLite's limit for a blob
_TAKEN_BACK_WITHIN = 10.0  # seconds in which a commit may turn out to rest on leases that are in doubt


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
        self._parts = fingerprint(kernel=self.kernel, threshold=self.threshold)

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
        accept_changes: bool = False,
    ) -> History | None:
        """Start the run in the file `store`, or continue it; returns its History, None on other ranks.

        The first stopping rule that holds ends the run: so many `generations`, an `epsilon` reached, so
        many `simulations`, an `acceptance_rate` that a generation cannot reach, or `walltime` (seconds,
        text such as "2h", or "auto": shortly before the batch system ends the job), after which the run
        can be continued. They never change a population. A run whose code or values have changed meanwhile
        goes on with `accept_changes` only, which its file notes. Job scripts set MPIABC_SCHEDULER, which
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
        accept_changes: bool = False,
        walltime: float | str | None = None,
        **rules: Any,
    ) -> Iterator[Population | None]:
        """Yields None once in the process that leads, then the populations; nothing elsewhere."""
        began = time.monotonic()
        place = resolve(scheduler)
        if not place.leads():
            with _changes_noted(self.problem):
                place.serve(self.problem)
            return
        with Signals() as signals, _changes_noted(self.problem), _opened(place, self.problem) as engine:
            has_rule = walltime is not None or Stopping(**rules).is_bounded
            walltime = stops.chosen(walltime)
            stopping = Stopping(**rules, walltime=stops.seconds(walltime))
            deadline, end = began + (stopping.walltime or math.inf), math.inf
            if isinstance(walltime, str) and walltime == "auto":
                deadline, end = math.inf, time.monotonic() + (stopping.walltime or 0.0)
            _check_size(self.problem, self.population_size)
            resumable_status()  # a wrong one is said now
            if not has_rule and self.threshold.epsilon(10**9, None) is not None:
                raise ProblemError(
                    "the run has no end: give a stopping rule, such as generations=8 or epsilon=0.1"
                )
            with Store(store) as file:
                settings = self._settled(file, place.is_static, overwrite, accept_changes)
                limits = Limits(
                    deadline, end, lambda: signals.seen, self.problem.on_error, settle=signals.settle
                )
                run = _Run(self, settings, stopping, file, engine, Progress(progress), signals, limits)
                yield None
                with _ending_noted(file, run.progress, signals), guard.last_words_to(run.last_words):
                    yield from run.generations()

    def _settled(self, file: Store, is_static: bool, overwrite: bool, accept_changes: bool) -> dict[str, Any]:
        """The settings of the run in the file, after checking that it is this one; begins it if new."""
        mine = {
            "names": list(self.problem.prior.names),
            **self.problem.parts(),
            "population_size": self.population_size,
            "kernel": told(self.kernel),
            "threshold": told(self.threshold),
            "seed": self.seed,
            "scheduling": "static" if is_static else "dynamic",
            "streams": STREAMS,
        }
        told_only = {"versions": versions(), "fingerprint": json.loads(self._fingerprint().to_json())}
        found = None if overwrite else file.settings()
        if found is None:
            mine["seed"] = secrets.randbits(63) if self.seed is None else self.seed
            parts = {"problem": self.problem, "kernel": self.kernel, "threshold": self.threshold}
            file.start(mine | told_only, self.problem.name or "", parts, self.problem.plain())
            return mine
        if self.seed is None:
            mine["seed"] = found.get("seed")
        different = [key for key in mine if not _is_same(key, mine[key], found)]
        if different:
            told_apart = "; ".join(
                f"{key}: {found.get(key)!r} there, {mine[key]!r} here" for key in different
            )
            raise StoreError(
                f"{file.path} holds a run with other settings ({told_apart}): give another file name, or "
                "overwrite=True to begin anew"
            )
        self._check_code(file, found, told_only, accept_changes)
        return found

    def _fingerprint(self) -> Fingerprint:
        """Code and values of the problem's parts, and of the sampler's, before the first evaluation."""
        mine, theirs = self._parts, self.problem.fingerprint
        return Fingerprint(theirs.code | mine.code, theirs.values | mine.values)

    def _check_code(
        self, file: Store, found: dict[str, Any], told_only: dict[str, Any], accept_changes: bool
    ) -> None:
        """Go on only with the code and the values that the run was begun with, unless changes are meant."""
        if "fingerprint" not in found:
            _log.warning("%s was begun before code was compared: it goes on with today's", file.path)
            changes = []
        else:
            there = Fingerprint.from_json(json.dumps(found["fingerprint"]))
            changes = differences(there, self._fingerprint())
        if changes and not accept_changes:
            raise StoreError(
                f"{file.path} was begun with other code or values ({_listed(changes)}): undo that, give "
                "another file name, or accept_changes=True to go on with it, or overwrite=True to begin anew"
            )
        if changes:
            t = len(file.history())
            note = f"from generation {t} on the run has other code or values: {_listed(changes)}"
            file.tell(f"changes {t}: {_listed(changes)}", note)
            _log.warning("%s: %s", file.path, note)
        if difference := digit_difference(found.get("versions", {"NumPy": found.get("numpy")})):
            _log.warning("%s: %s; digests may differ in the last bit", file.path, difference)
        if changes or "fingerprint" not in found:
            file.renew(found | told_only)


_MOST_CHANGES = 5  # that are told


def _listed(changes: list[str]) -> str:
    left = len(changes) - _MOST_CHANGES
    return "; ".join(changes[:_MOST_CHANGES]) + (f"; and {left} more" if left > 0 else "")


def _is_same(key: str, mine: Any, found: dict[str, Any]) -> bool:
    """Whether a setting is that of the file; older files have more to say of foreign parts than names."""
    theirs = found.get(key, 1 if key == "streams" else None)
    if _plain(mine) == _plain(theirs) or "fingerprint" in found:
        return _plain(mine) == _plain(theirs)
    return isinstance(theirs, str) and theirs.startswith(f"{mine}(")


@dataclass
class _Run:
    """One call of `run`, in the process that leads."""

    abc: ABCSMC
    settings: dict[str, Any]
    stopping: Stopping
    file: Store
    engine: Engine
    progress: Progress
    signals: Signals
    limits: Limits

    def __post_init__(self) -> None:
        theta_of_run = partial(theta_of, self.abc.problem)
        self.driver = Driver(
            self.engine,
            limits=self.limits,
            progress=self.progress,
            tell=self._tell,
            is_committed=lambda number: number in self._kept(),
            theta_of=theta_of_run,
        )
        is_static = self.settings["scheduling"] == "static"
        self.planner = Planner(
            self.abc.problem.prior,
            self.abc.kernel,
            self.abc.threshold,
            stream_key(self.settings["seed"]),
            self.abc.population_size,
            is_static,
        )
        self._journal = Journal(self.file)
        self._commits: list[_Commit] = []  # of this call, those of the last seconds with their ledgers
        self._may_be_decided = True  # the next order, which is in the file then
        self._attempt = 0  # how often a generation was taken back
        self._reopened: Ledger | SlotLedger | None = None
        self._noted: str | None = None  # the reason that the file has
        self._digests: dict[int, str] = {}
        self._is_fitted = False
        self._worst = math.inf  # effective sample size, of those that are told
        self._floats = guard.FloatingPoint()

    def generations(self) -> Iterator[Population]:
        """Generation after generation until a stopping rule holds."""
        last, used = self._stand()
        reason, self._noted = self._reason(last, used), self.file.history().reason
        if reason is None and self._noted is not None:
            self.file.go_on()
            self._noted = None
        self._check_prior()
        while True:
            try:
                if reason is not None:
                    self._settle()
                    break
                result = self._next(last, used)
                if isinstance(result, str):
                    reason = result
                    continue
                last, used = result, used + result.simulations
                reason = self._reason(last, used)
                if (
                    self._digests.get(last.generation) != last.digest()
                ):  # else it was taken back, and is as it was
                    self._digests[last.generation] = last.digest()
                    yield last
            except TakenBackError as doubt:
                self._take_back(doubt.leases)
                last, used = self._stand()
                reason = self._reason(last, used)
        if reason != self._noted:
            self.file.finish(reason)

    def last_words(self, failure: Failure) -> None:
        """Keep what there is: an evaluation has ended this process, which leaves when this returns."""
        is_final = self.limits.on_error == "raise"
        if not is_final:
            number = order_number(failure.generation, self._attempt)
            self._journal.add(failed(failure, failure.index + self._step, number))
        self.progress.clear()
        with suppress(StoreError):
            self._journal.flush()
            self.file.finish(
                f"failed: evaluation {failure.generation}:{failure.index}: {failure.error}", failure
            )
        print(f"mpiabc.errors.SimulatorError: {failure}", file=sys.stderr)
        if not is_final:
            print("run the same command again to go on without that evaluation", file=sys.stderr, flush=True)

    def _stand(self) -> tuple[Population | None, int]:
        """The last population of the file, and the simulations of all."""
        committed = list(self.file.history())
        self.limits.failures_before = sum(p.failures for p in committed)
        return committed[-1] if committed else None, sum(p.simulations for p in committed)

    def _next(self, last: Population | None, used: int) -> Population | str:
        """The next population, committed; or the reason why there is none."""
        order = self._order(last)
        return "threshold" if order is None else self._populate(order, used)

    def _reason(self, last: Population | None, used: int) -> str | None:
        if last is None:
            return None
        return self.stopping.reason(last.generation + 1, last.epsilon, used)

    def _order(self, last: Population | None) -> Level | None:
        """The next order, which is in the file before a worker has it; None if there is none."""
        level = 0 if last is None else last.generation + 1
        found = self.file.history().order(level) if self._may_be_decided else None
        self._may_be_decided = False
        with threads.single(), self._floats.steady():
            order = self.planner.next(last) if found is None else self.planner.again(*found, last)
        if order is None:
            return None
        if found is None:
            self.file.keep_order(level, *kept(order, last))
        self._check_kernel(order)
        return replace(order, attempt=self._attempt)

    def _populate(self, order: Level, used: int) -> Population | str:
        """The population of a generation, committed; or the bound that it cannot be completed within."""
        began = time.monotonic()
        ledger, order = self._ledger(order, used)
        if self._reopened is None:
            self._recover(ledger, order.level)
        else:
            ledger, self._reopened = self._reopened, None
            ledger.job = order.number
        try:
            reason = self.driver.run(ledger, order, self._journal)
        except TakenBackError:
            raise
        except BaseException as error:
            self._keep(error)
            raise
        if reason is not None:
            self._journal.flush()
            return reason
        with self._floats.steady():
            population = _population(self.abc.problem, order, ledger, time.monotonic() - began)
        self._commit(population, ledger, order, used)
        return population

    def _commit(self, population: Population, ledger: Ledger | SlotLedger, order: Level, used: int) -> None:
        """Write it. Whether it ends the run is written later if it may have to be taken back."""
        failures = ledger.failures_below_cut()
        is_sure = not self.driver.is_exposed()
        self._noted = self._reason(population, used + population.simulations) if is_sure else None
        self.file.commit(population, failures, self._noted)
        now = time.monotonic()
        for commit in self._commits:
            if commit.at < now - _TAKEN_BACK_WITHIN:
                commit.ledger = None
        self._commits.append(_Commit(now, order.level, order.number, ledger))
        self.limits.failures_before += len(failures)
        self.progress.done(population, self.engine.workers)
        d = len(population.names)
        ess, least = population.ess, 10 * d * (1 - 1e-9)
        if ess < min(least, self._worst):
            self._worst = ess
            self._tell(
                f"the effective sample size of generation {population.generation} is {ess:.3g}; for d = {d} "
                f"parameters {10 * d} or more are needed: deviations are not to be trusted; use a larger "
                "population, or a gentler threshold",
                "collapse",
                anew=True,
            )

    def _settle(self) -> None:
        try:
            self.driver.settle()
        except Interrupted as stopped:
            self._keep(stopped)
            raise

    def _keep(self, error: BaseException) -> None:
        """Keep what is finished, but nothing that came home shortly before the job was torn down."""
        end = math.inf
        if self.signals.seen:
            end = self.signals.at - DOUBT
        elif not isinstance(error, SimulatorError | ProblemError | Interrupted) and self.driver.is_exposed():
            end = time.monotonic() - notices_within(self.engine)
        with suppress(StoreError):
            doubtful = [commit.generation for commit in self._commits if commit.at >= end]
            if doubtful:
                self.file.take_back(min(doubtful))
            self._journal.flush(end)

    def _kept(self) -> "dict[int, _Commit]":
        """The commits that may be taken back, by the numbers of their orders."""
        return {commit.number: commit for commit in self._commits if commit.ledger is not None}

    def _take_back(self, leases: list[Lease]) -> None:
        """Open the first generation again that one of these leases belongs to; what came after it is void."""
        number = min(lease.job for lease in leases)
        commit = self._kept()[number]
        ledger = commit.ledger
        assert ledger is not None
        self._commits = [earlier for earlier in self._commits if earlier.generation < commit.generation]
        self._attempt += 1
        self.file.take_back(commit.generation)
        self._journal.void(commit.generation + 1)
        for lease in leases:
            if lease.job == number:
                ledger.forget(lease.start, lease.stop)
                self._journal.forget(lease)
        ledger.recover()
        self._reopened, self._may_be_decided = ledger, True

    def _recover(self, ledger: Ledger | SlotLedger, generation: int) -> None:
        """Tell the ledger what an earlier call has kept of this generation."""
        for records in map(_weighed, self._journal.recover(generation)):
            if isinstance(ledger, SlotLedger):  # a slot that gave up may have more tries now
                records = records.only(records.status == Status.ACCEPTED)
            if self.abc.problem.on_error == "raise":  # what failed is tried again: it may have been mended
                records = replace(records.only(records.status != Status.FAILED), failures=())
            ledger.tell(replace(records, job=ledger.job))
        ledger.recover()

    @property
    def _step(self) -> int:
        return BLOCK if self.abc.problem.vectorized else 1

    def _ledger(self, order: Level, used: int) -> tuple[Ledger | SlotLedger, Level]:
        most_ids = self.stopping.most_ids(order.size)
        most_simulations = self.stopping.most_simulations(used)
        bounds = {"step": self._step, "most_ids": most_ids, "most_simulations": most_simulations}
        if order.is_static:
            most = min(most_ids, most_simulations)
            limited = replace(order, most_tries=None if math.isinf(most) else int(most))
            return SlotLedger(order.number, order.size, **bounds), limited
        return Ledger(order.number, order.size, **bounds), order

    # What is told, once a run.

    def _tell(self, note: str, topic: str | None = None, *, anew: bool = False) -> None:
        if self.file.tell(topic or note, note, anew=anew):
            self.progress.clear()
            _log.warning("%s: %s", self.file.path, note)

    def _check_prior(self) -> None:
        with guard.at_work(Asking("the prior")):
            note = checks.of_prior(self.abc.problem.prior, stream_key(self.settings["seed"]))
        if note:
            self._tell(note, "prior")

    def _check_kernel(self, order: Level) -> None:
        if order.level and getattr(order.proposal, "is_diagonal", False):
            self._tell(
                f"the covariance of generation {order.level - 1} is singular: the kernel goes on "
                "with its diagonal; use a larger population",
                "kernel",
            )
        if order.level and not self._is_fitted:
            self._is_fitted = True
            with guard.at_work(Asking("the kernel")):
                note = checks.of_proposal(order.proposal, order.key)
            if note:
                self._tell(note, "proposal")


@dataclass
class _Commit:
    """A generation that this call has committed, and its ledger while it may be taken back."""

    at: float  # of the monotonic clock
    generation: int
    number: int  # of its order
    ledger: Ledger | SlotLedger | None


def _population(problem: Problem, order: Level, ledger: Ledger | SlotLedger, seconds: float) -> Population:
    """The ledger's rows with normalised weights.

    The evidence uses the first N - 1 weights and ids, because the cut itself was chosen by an
    acceptance: N / cut would be too large.
    """
    rows = ledger.population()
    log_weights = rows.log_weights
    weightless = ~np.isfinite(log_weights)
    if weightless.any():
        first = int(np.argmax(weightless))
        raise _weightless(problem, order, int(rows.ids[first]), rows.theta[first], log_weights[first])
    highest = log_weights.max()
    weights = np.exp(log_weights - highest)  # at most 1, and one of them is
    evaluations, simulations = ledger.counts()
    n = len(weights)
    mean_weight = weights[:-1].mean() if isinstance(ledger, Ledger) else weights.mean()
    with np.errstate(divide="ignore"):
        log_evidence = highest + np.log(mean_weight) + math.log((n - 1) / max(1, evaluations - 1))
    return Population(
        names=tuple(problem.prior.names),
        weights=weights / weights.sum(),
        generation=order.level,
        epsilon=order.epsilon,
        evaluations=evaluations,
        simulations=simulations,
        failures=len(ledger.failures_below_cut()),
        log_evidence=float(log_evidence),
        dispatched=ledger.dispatched if isinstance(ledger, Ledger) else evaluations,
        seconds=seconds,
        **rows.columns(),
    )


def _weightless(
    problem: Problem, order: Level, id: int, theta: np.ndarray, log_weight: float
) -> ProblemError:
    """Whose density leaves an accepted evaluation without a weight; both are asked again."""
    asked = {"prior": problem.prior, "kernel's proposal": order.proposal}
    said = {name: float(np.asarray(part.logpdf(theta[None]))[0]) for name, part in asked.items()}
    values = zip(problem.prior.names, theta.tolist(), strict=True)
    where = f"in evaluation {order.level}:{id}, theta: {', '.join(f'{name}={x!r}' for name, x in values)}"
    for name, density in said.items():
        if not math.isfinite(density):
            return ProblemError(
                f"logpdf of the {name} is {density} {where}: a density must be finite wherever it is sampled"
            )
    told_both = " and ".join(f"{density:.6g} for the {name}" for name, density in said.items())
    return ProblemError(
        f"the log weight is {log_weight} {where}, although logpdf asked again gives {told_both}: it must "
        "give the same in every process, and at any time"
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
def _changes_noted(problem: Problem) -> Iterator[None]:
    """What evaluations change of the problem's parts in this process tells no problem from another."""
    try:
        yield
    finally:
        note_changes(problem.fingerprint, problem.fingerprint_here())


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


def _weighed(records: Records) -> Records:
    """`records` without what has no finite weight: a prior or kernel that gave none may have been mended."""
    weightless = records.addresses[~np.isfinite(records.rows.log_weights)]
    if not weightless.size:
        return records
    kept = np.ones(len(records), bool)
    kept[weightless - records.start] = False
    return records.only(kept)


def _plain(value: Any) -> Any:
    """A setting in which NumPy's numbers look like Python's, as parts have them since they are converted."""
    return re.sub(r"\bnp\.(?:float|int)64\(([^()]*)\)", r"\1", value) if isinstance(value, str) else value


def _check_size(problem: Problem, n: int) -> None:
    """Raise ProblemError if a generation would not fit into a blob of the store."""
    k = Structure(problem.observed).size
    if 8 * n * k >= _MOST_BYTES:
        raise ProblemError(
            f"{n} particles with {k} numbers each are more than the {_MOST_BYTES:.0e} bytes that the store "
            "takes: reduce the data by summarize=, or the population"
        )


def _whole(name: str, value: Any, least: int) -> int:
    number = whole(value)
    if number is None or number < least:
        raise ProblemError(f"{name}={value!r}: give a whole number of at least {least}")
    return number
