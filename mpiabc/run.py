"""What a run does next: one generation after another, without clocks, workers or files.

    population = the first N accepted evaluations, in id order, with normalised weights
    order      = what the planner decides after it (`planner`)

Whatever happens outside, in whatever order records come home, and whoever died meanwhile, the same
records lead to the same actions: to resume a run is to tell it what its journal has kept.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpiabc import amis, checks, closed, guard, inspection, recycling, threads, voice, waste
from mpiabc.acceptors import Uniforms
from mpiabc.actions import Action, Commit, Done, Keep, Open, Partial, Tell, Void
from mpiabc.defended import mixed, undefended
from mpiabc.densities import Densities
from mpiabc.evaluate import Calibration, Level, theta_of
from mpiabc.ledger import BatchLedger, Ledger, SlotLedger, fatal
from mpiabc.line import Line
from mpiabc.models import AnyProblem
from mpiabc.order import Arrays, has_foreign_distance
from mpiabc.particles import Particles
from mpiabc.planner import Decided, Planner
from mpiabc.pooling import PoolingPlanner
from mpiabc.population import Past, Population
from mpiabc.records import DEATH, Failure, Records, Status, failed, order_number
from mpiabc.settled import Settler
from mpiabc.stopping import Stopping
from mpiabc.streams import stride_of

_MOST_DEATHS = 8  # that are described in full
_DENSITIES = 1 << 62  # in the number of a job that computes some


@dataclass(frozen=True)
class Death:
    """The end of a process, of whatever, that was at an evaluation; `times`: so often that has been."""

    index: int
    where: str
    times: int


@dataclass(frozen=True)
class Resumed:
    """What a file has of the generation that is open: the order, what is finished of it, who died of it."""

    order: tuple[str, Arrays] | None = None
    records: Iterable[Records] = ()
    deaths: Sequence[Death] = ()


@contextmanager
def reproducible() -> Iterator[None]:
    """Arithmetic that gives the same bits wherever this process runs."""
    with threads.single(), guard.FloatingPoint().steady():
        yield


@dataclass(frozen=True, eq=False)
class _Level:
    """A level that is to be opened once it is known what its proposal says of the survivors."""

    order: Level
    is_kept: bool
    base: Population
    rows: np.ndarray  # an index of the survivors in the base
    log_densities: np.ndarray  # as far as they are known; without the prior's share, if there is one

    def known(self) -> tuple[Level, bool, Population, Particles]:
        """What is opened."""
        kept = self.base.take(self.rows)
        log_density = mixed(self.order.proposal, self.log_densities, kept.log_densities[:, 0])
        survivors = recycling.with_density(kept, log_density)
        return self.order, self.is_kept, self.base, survivors

    def densities(self) -> Densities:
        """What is to be known, as a job."""
        return _densities(self.order, self.rows)


@dataclass(frozen=True, eq=False)
class _Batch:
    """A batch that is to be opened once it is known what its proposal says of all simulations before."""

    order: Level
    is_kept: bool
    base: Population | None
    pool: amis.Pool
    log_densities: np.ndarray  # as far as they are known; without the prior's share

    def seen(self) -> amis.Pool:
        """All simulations, beside which the batch is drawn."""
        log_density = mixed(self.order.proposal, self.log_densities, self.pool.log_prior)
        return self.pool.seen_by(log_density, self.order.size)

    def densities(self) -> Densities:
        """What is to be known, as a job."""
        return _densities(self.order, np.arange(len(self.pool)), self.pool.theta)


def _densities(order: Level, rows: np.ndarray, theta: np.ndarray | None = None) -> Densities:
    """What the order's proposal says of these rows of its centres, or of theta."""
    number, kernel = order.number | _DENSITIES, undefended(order.proposal)
    return Densities(number, order.level, order.epsilon, kernel, rows, theta=theta)


class Run:
    """A run of ABC-SMC, or of batches, from the past that its file has.

    Pure, but for what kernels and thresholds do.
    """

    def __init__(
        self,
        problem: AnyProblem,
        planner: Planner | PoolingPlanner,
        stopping: Stopping,
        past: Past | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self.on_error = problem.on_error
        self._problem, self._planner, self._stopping = problem, planner, stopping
        self._past = Past() if past is None else past
        self._resumed = resumed  # until it is used
        self._opened: Open | None = None
        self._next_level: _Level | _Batch | None = None  # while densities for it are computed
        self._is_calibrating = False  # while simulations of the prior are made for the first distance
        self._attempt = 0  # how often a generation was taken back
        self._reported: set[str] = set()  # what was looked at in this call
        self._worst = math.inf  # effective sample size, of those that are reported
        self._uses: dict[int, waste.Use] = {}  # of the generations that this call has completed
        self._before: tuple[Line, Settler] | None = None  # where workers look ahead: those of the last level
        self._settler: Settler | None = None  # of the open one
        self._floats = guard.FloatingPoint()

    def advance(self, records: Iterable[Records] = ()) -> list[Action]:
        """What to do, now that these records are known. Called anew after each Commit.

        Raises ProblemError for what kernel, threshold or prior give.
        """
        if self._opened is None:
            return self._next()
        if self._is_calibrating:
            return self._calibrated(records, self._opened.ledger, self._opened.past)
        if self._next_level is not None:
            return self._gathered(records, self._opened.ledger, self._next_level)
        opened = self._opened
        with self._settling(opened):
            new = [Keep(part, opened.ledger.kept_for) for part in records if opened.ledger.tell(part)]
        return [*new, *self._ended(opened)]

    def reopen(self, commit: Commit) -> list[Action]:
        """Go back to where a generation was open; what came after it is void."""
        opened, self._next_level, self._before = commit.opened, None, None
        self._attempt += 1
        order = replace(opened.order, attempt=self._attempt)
        opened.ledger.reopen(order.number)
        self._opened, self._past = replace(opened, order=order, is_kept=True), opened.past
        return [Void(order.level), self._opened, *self._ended(self._opened)]

    def theta_of(self, order: Any, address: int) -> dict[str, Any]:
        """What was proposed for an evaluation; in the first try of a slot, if static."""
        return theta_of(self._problem, order, address) if isinstance(order, Level) else {}

    def failed(self, failure: Failure) -> Records | None:
        """The record of an evaluation that ends the process which makes it; None of one that is not kept."""
        if self._is_calibrating:
            return None
        number = order_number(failure.generation, self._attempt)
        return failed(failure, failure.index + self._planner.step, number)

    @property
    def reason(self) -> str | None:
        """The stopping rule that holds after the last generation, if one does."""
        past = self._past
        if past.last is None:
            return None
        before = math.inf if len(past.epsilons) < 2 else past.epsilons[-2]
        done, ess = (past.level, past.last.epsilon, past.simulations), past.last.ess
        return self._stopping.reason(*done, before=before, ess=ess, models=past.models)

    def partial(self) -> Partial | None:
        """What is known of the open generation, if a budget has ended the run in it; None without one.

        Under static scheduling there is none: which slots are done by then depends on time.
        """
        opened = self._opened
        if opened is None or self._is_calibrating or self._next_level is not None:
            return None
        order, ledger = opened.order, opened.ledger
        if not isinstance(ledger, Ledger) or ledger.exhausted is None:
            return None
        assert isinstance(self._planner, Planner)  # batches are never exhausted
        with self._floats.steady():
            population = closed.partial(self._problem, opened, ledger, self._planner)
            simulated = ledger.simulated() if order.keep == "all" else None
        return Partial(population, simulated, order.level, int(ledger.end) - ledger.first)

    def _next(self) -> list[Action]:
        """The next order, and what there is to tell of it; or the end."""
        if self.reason is not None:
            return [*self._looked_at_batch(), Done(self.reason)]
        if (calibration := self._calibration()) is not None:
            return self._open_calibration(calibration)
        with reproducible(), voice.listening():
            watch = inspection.Stopwatch()
            decided, is_kept = self._decided()
            is_long = watch.is_long
            if decided is None:
                return [*self._looked_at_batch(), Done(self._planner.end(self._past))]
            order, base = replace(decided.order, attempt=self._attempt), decided.base
            reports = [*self._looked_at_problem(), *self._looked_at_kernel(order)]
            reports += self._looked_at_parts(order, base, is_long)
            reports += [Tell("distance", decided.doubt)] if decided.doubt else []
            if order.is_batch:
                return [*reports, *self._open_batch(order, is_kept, base)]
            if base is None or self._planner.weights is None:
                return [*reports, *self._open(order, is_kept, base)]
            is_survivor = order.acceptor.accept(base, order.epsilon, Uniforms(order.key))
            rows = np.flatnonzero(is_survivor)[: order.size]
            if order.earlier is None:
                return [*reports, *self._open(order, is_kept, base, base.take(rows))]
            level = _Level(order, is_kept, base, rows, np.full(len(rows), np.nan))
            kernel = undefended(order.proposal)
            if order.chain is None and recycling.are_dear(kernel, base.theta, rows):
                return [*reports, *self._open_densities(level)]
            with self._planner.asking("the kernel", order.proposal):
                level.log_densities[:] = recycling.log_others(kernel, base.theta, rows)
        return [*reports, *self._open(*level.known())]

    def _open_batch(self, order: Level, is_kept: bool, base: Population | None) -> list[Action]:
        """Open a batch, or have workers compute what its proposal says of all simulations before."""
        if self._past.pool is None:
            return self._open(order, is_kept, base)
        pool, kernel = self._past.pool, undefended(order.proposal)
        batch = _Batch(order, is_kept, base, pool, np.full(len(pool), np.nan))
        if amis.are_dear(kernel, len(pool)):
            return self._open_densities(batch)
        with self._planner.asking("the kernel", kernel):
            batch.log_densities[:] = kernel.logpdf(pool.theta)
        return self._open_seen(batch)

    def _open_seen(self, batch: "_Batch") -> list[Action]:
        """Open a batch of which that is known."""
        with self._floats.steady():
            self._past = replace(self._past, pool=batch.seen())
        return self._open(batch.order, batch.is_kept, batch.base)

    def _open(
        self, order: Level, is_kept: bool, base: Population | None, survivors: Particles | None = None
    ) -> list[Action]:
        """Open a level, with what is known of it already."""
        ledger, order = self._ledger(order, 0 if survivors is None else len(survivors))
        self._opened = Open(order, ledger, self._past, is_kept, base, survivors)
        resumed, self._resumed = self._resumed or Resumed(), None
        self._recover(ledger, resumed.records)
        return [*self._looked_at_deaths(order, resumed.deaths), self._opened, *self._ended(self._opened)]

    def _calibration(self) -> Calibration | None:
        """What must be known before generation 0 is decided, unless that was decided before."""
        kept = None if self._resumed is None else self._resumed.order
        if kept is not None and not has_foreign_distance(kept[0]):
            return None
        return self._planner.calibration(self._past)

    def _open_calibration(self, order: Calibration) -> list[Action]:
        """Let workers simulate what the first distance is fitted to; nothing of it is kept."""
        ledger, order = self._ledger(order, 0)  # type: ignore[assignment]
        self._is_calibrating = True
        self._opened = Open(order, ledger, self._past, is_kept=True)
        return [self._opened]

    def _calibrated(
        self, records: Iterable[Records], ledger: Ledger | SlotLedger, past: Past
    ) -> list[Action]:
        """Take simulations in, and go on when all are there."""
        for part in records:
            ledger.tell(part)
        if not ledger.complete:
            return [Done(ledger.exhausted)] if ledger.exhausted else []
        if fatal(ledger, self.on_error, past.failures):
            return []
        self._is_calibrating, self._opened = False, None
        self._past = replace(past, sample=ledger.sample(), calibrated=ledger.counts()[1])
        return self._next()

    def _open_densities(self, level: "_Level | _Batch") -> list[Action]:
        """Let workers compute what the newest proposal says of earlier rows; nothing of it is kept."""
        self._next_level, job = level, level.densities()
        self._opened = Open(job, SlotLedger(job.number, len(job.rows)), self._past, is_kept=True)
        return [self._opened]

    def _gathered(
        self, records: Iterable[Records], ledger: Ledger | SlotLedger, level: "_Level | _Batch"
    ) -> list[Action]:
        """Take densities in, and open the level when all are there."""
        for part in records:
            if ledger.tell(part):
                level.log_densities[part.start : part.stop] = np.frombuffer(part.payload)
        if not ledger.complete:
            return []
        self._next_level = None
        return self._open_seen(level) if isinstance(level, _Batch) else self._open(*level.known())

    def _decided(self) -> tuple[Decided | None, bool]:
        """The next order, and whether the file has it."""
        kept = None if self._resumed is None else self._resumed.order
        if kept is None:
            return self._planner.next(self._past), False
        return self._planner.again(kept, self._past), True

    def _ledger(self, order: Level, survivors: int) -> tuple[Ledger | SlotLedger, Level]:
        if order.is_batch:
            return BatchLedger(order.number, order.size, first=order.first, step=self._planner.step), order
        size = order.size - survivors
        most_ids = self._stopping.most_ids(size)
        most_simulations = self._stopping.most_simulations(self._past.simulations + order.calibrated)
        bounds = {"step": self._planner.step, "most_ids": most_ids, "most_simulations": most_simulations}
        if order.sample:
            bounds |= {"sample": order.sample, "sample_end": order.sample_end}
        if order.is_static:
            most = min(most_ids, most_simulations)
            limited = replace(order, most_tries=None if math.isinf(most) else int(most))
            return SlotLedger(order.number, size, **bounds), limited
        bounds["first"] = order.first
        if order.chain is None:
            return Ledger(order.number, size, **bounds), order
        line, before = self._before or (None, None)
        with reproducible():
            self._settler = Settler(self._problem, order, before)
            return Line(order.number, size, self._settler, line, **bounds), order

    def _recover(self, ledger: Ledger | SlotLedger, kept: Iterable[Records]) -> None:
        """Tell the ledger what an earlier call has kept of this generation."""
        for records in map(_weighed, kept):
            if isinstance(ledger, SlotLedger):  # a slot that gave up may have more tries now
                records = records.only(records.status == Status.ACCEPTED)
            if self.on_error == "raise" or any(failure.ends_every_run for failure in records.failures):
                # What failed is tried again: it may have been mended.
                records = replace(records.only(records.status != Status.FAILED), failures=())
            ledger.tell(records if ledger.goes_on else replace(records, job=ledger.job))
        if kept or not ledger.goes_on:
            ledger.recover()

    def _ended(self, opened: Open) -> list[Action]:
        """The population, once it is known, or the bound that it cannot be completed within."""
        ledger = opened.ledger
        if not ledger.complete:
            return [Done(ledger.exhausted)] if ledger.exhausted else []
        if fatal(ledger, self.on_error, opened.past.failures):
            return []  # the run ends with that, unless it was a signal's doing
        past, population = self._after(opened)
        with self._floats.steady():
            simulated = ledger.simulated() if opened.order.keep == "all" else None
        self._opened, self._past = None, past
        ahead = self._look_ahead(ledger, past)
        if not opened.order.is_batch:
            self._uses[opened.order.level] = _use(population, opened)
        failures, pool = ledger.failures_below_cut(), None if past.pool is None else past.pool.arrays()
        commit = Commit(population, failures, opened, past.sample, simulated, pool)
        reports: list[Action] = [*inspection.of_distances(self._problem, population, opened.order)]
        reports += [*self._looked_at_weights(population), *self._looked_at_simulations(population, opened)]
        return [commit, *ahead, *reports]

    def _look_ahead(self, ledger: Ledger | SlotLedger, past: Past) -> list[Action]:
        """Keep what is known beyond the cut for the next level."""
        if not isinstance(ledger, Line) or self._settler is None:
            return []
        self._before = ledger, self._settler
        return [Keep(records, past.level) for records in ledger.early(int(ledger.cut))]

    @contextmanager
    def _settling(self, opened: Open) -> Iterator[None]:
        """What was begun at an earlier level is looked at again: the user's parts may be asked."""
        if not opened.ledger.goes_on:
            yield
            return
        with reproducible(), self._planner.asking("the kernel", opened.order.proposal):
            yield

    def _after(self, opened: Open) -> tuple[Past, Population]:
        """The past with the population that is known now, and that."""
        planner = self._planner
        with self._floats.steady():
            if isinstance(planner, PoolingPlanner):
                return planner.gathered(opened, self._problem.names)
            population = closed.committed(self._problem, opened, planner.weights, planner.inside)
            sample = opened.ledger.sample() if opened.order.sample else None
        past = planner.after(self._past, opened.order, population, sample)
        return replace(past, simulations=past.simulations + opened.order.calibrated), population

    # What is reported.

    def _looked_at_problem(self) -> list[Tell]:
        if "problem" in self._reported:
            return []
        self._reported.add("problem")
        return inspection.of_problem(self._problem, self._planner)

    def _looked_at_deaths(self, order: Level, deaths: Sequence[Death]) -> list[Action]:
        """Whose evaluations may have ended the process that made them; more than one where MPI ended all.

        They are tried again: what has ended a process cannot be known from outside.
        """
        if not deaths:
            return []
        foremost = sorted(deaths, key=lambda death: (-death.times, death.index))[:_MOST_DEATHS]
        listed = "; ".join(self._described(order, death) for death in foremost)
        more = f"; and {len(deaths) - len(foremost)} more" if len(deaths) > len(foremost) else ""
        which = "evaluation" if len(deaths) == 1 else "one of the evaluations"
        note = (
            f"the start before was killed, or its simulator crashed, in {which} {listed}{more}; "
            "`mpiabc replay` makes one alone; where one crashes, "
            'scheduler="processes", or timeout= under MPI, goes on'
        )
        return [Tell(DEATH, note, is_anew=True, is_always=True)]

    def _described(self, order: Level, death: Death) -> str:
        """One of them in words."""
        first = f"{order.level}:{death.index}"
        again = f" ({death.times} times)" if death.times > 1 else ""
        if self._problem.vectorized:
            last = death.index + self._problem.step - 1
            return f"{first} to {order.level}:{last}{again} on {death.where}"
        theta = ", ".join(f"{k}={x!r}" for k, x in theta_of(self._problem, order, death.index).items())
        return f"{first}{again} on {death.where}, theta: {theta}"

    def _looked_at_kernel(self, order: Level) -> list[Action]:
        if not order.level:
            return []
        reports: list[Action] = []
        if getattr(undefended(order.proposal), "is_diagonal", False):
            reports.append(
                Tell(
                    "kernel",
                    f"the covariance of generation {order.level - 1} is singular: the kernel goes on "
                    "with its diagonal; use a larger population",
                )
            )
        return reports

    def _looked_at_parts(self, order: Level, base: Population | None, is_long: bool) -> list[Tell]:
        """Those of users' own, when they have been fitted for the first time."""
        if "parts" in self._reported or not order.level:
            return []
        self._reported.add("parts")
        return inspection.of_decided(self._planner, self._past, order, base, is_long=is_long)

    def _looked_at_batch(self) -> list[Action]:
        """Whether batches were too large; said at the end, as this batch is that of the whole run."""
        batch = self._problem.batch
        note = (
            None if batch is None else waste.note(batch, list(self._uses.values()), len(self._problem.models))
        )
        return [Tell("batch", note)] if note else []

    def _looked_at_simulations(self, population: Population, opened: Open) -> list[Action]:
        is_noisy = getattr(opened.order.acceptor, "wants_all", False)
        found = checks.of_population(population, has_distances=not is_noisy)
        return [Tell(topic, note) for topic, note in found.items()]

    def _looked_at_weights(self, population: Population) -> list[Action]:
        d, ess = population.theta.shape[1], population.ess
        if ess >= min(10 * d * (1 - 1e-9), self._worst):
            return []
        self._worst = ess
        note = (
            f"the effective sample size of generation {population.generation} is {ess:.3g}; for d = {d} "
            f"parameters {10 * d} or more are needed: deviations are not to be trusted; use a larger "
            "population, or a gentler threshold"
        )
        return [Tell("collapse", note, is_anew=True)]


def _use(population: Population, opened: Open) -> waste.Use:
    """How many simulations a generation needed, and of which addresses."""
    ledger = opened.ledger
    if isinstance(ledger, Ledger):
        return waste.Use(population.simulations, population.evaluations)
    return waste.static_use(population.simulations, population.ids, stride_of(ledger.size, ledger.step))


def _weighed(records: Records) -> Records:
    """`records` without what has no finite weight: a prior or kernel that gave none may have been mended."""
    weightless = records.addresses[~np.isfinite(records.rows.log_weights)]
    if not weightless.size:
        return records
    kept = np.ones(len(records), bool)
    kept[weightless - records.start] = False
    return records.only(kept)
