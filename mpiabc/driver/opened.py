"""An order that is open: which leases go out, and how far it is."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpiabc.driver.events import Progressed
from mpiabc.driver.failures import Failures
from mpiabc.driver.pace import Pace
from mpiabc.errors import SchedulerError
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.records import Lease, Records, Status
from mpiabc.schedulers.base import Engine

_AHEAD = 24  # ids a worker beyond the frontier; eight were seen to cost a fifth
_WORTH_IT = 0.005  # seconds of an evaluation: to carry its id from level to level takes some tenths of a ms


@dataclass
class Opened:
    """An order that is open, with what its driver knows of it."""

    order: Any
    ledger: Ledger | SlotLedger
    failures: Failures
    began: float
    cut: float = math.inf  # as the engine knows it
    copied: set[Lease] = field(default_factory=set)
    given: int = 0  # leases that went out while there were more
    worked: float = 0.0  # seconds of workers
    models: str = ""  # as the population before says
    beside: tuple[int, ...] = ()  # numbers of earlier orders that the engine still works on, for this one
    had: tuple[int, int] = field(init=False)  # simulations and acceptances that were there

    def __post_init__(self) -> None:
        self.had = (self.ledger.simulations, self.ledger.accepted)

    def __str__(self) -> str:
        ledger = self.ledger
        return f"in generation {self.order.level}, {ledger.accepted} of {ledger.size} {ledger.counted}"

    def feed(self, engine: Engine, pace: Pace) -> None:
        """Give out leases while there is room and need."""
        self.ledger.look_ahead(_AHEAD * engine.workers if pace.cost >= _WORTH_IT else 0)
        size = pace.size(self.ledger.expected, engine.workers)
        prefetch = pace.is_quick(size)
        idle, room = engine.capacity(False), engine.capacity(prefetch)
        for _ in range(room):
            lease = self.ledger.lease(size, self.failures.cut)
            if lease is None:
                if prefetch and (idle := engine.capacity(False)):
                    self._feed_copies(engine, idle)
                return
            engine.submit(lease)
            size = pace.size(self.ledger.expected, engine.workers)
        self.given += room
        if prefetch and self.given > 2 * engine.workers:  # those before came home to an order that had ended
            # One that idles may be the core of this process, which holds no lease ahead.
            pace.give(idle - 1, room, engine.workers)

    def _feed_copies(self, engine: Engine, idle: int) -> None:
        """Idle workers take copies of leases that wait behind others: whoever is first counts."""
        behind = [lease for lease in engine.waiting() if lease not in self.copied and self._is_wanted(lease)]
        for lease in behind[:idle]:
            self.copied.add(lease)
            self.ledger.dispatched += lease.stop - lease.start
            engine.submit(lease)

    def _is_wanted(self, lease: Lease) -> bool:
        return lease.job in (self.order.number, *self.beside) and lease.start < self._end

    def take_back(self, records: Records) -> None:
        """Hand out again what a lease was brought back without, where no failure in it says why.

        Raises SchedulerError for one that has brought nothing: that would go on for ever.
        """
        is_unknown = records.status == Status.UNKNOWN
        if records.failures or not is_unknown.any():
            return
        if is_unknown.all():
            raise SchedulerError(
                f"a worker brought {records.lease} back with neither outcomes nor a failure: its job's "
                "evaluator gives every address a status, or says by a failure why it has ended"
            )
        self.ledger.give_back(records.start, records.stop)

    def pass_cut_on(self, engine: Engine) -> None:
        """Let workers know what is not wanted any more, or is again."""
        if self._end != self.cut:
            self.cut = self._end
            engine.cancel(self.cut)

    @property
    def _end(self) -> float:
        """From here on nothing is wanted now."""
        return min(self.ledger.wanted, self.failures.cut)

    def progress(self, now: float, engine: Engine) -> Progressed:
        """How far it is."""
        order, ledger = self.order, self.ledger
        return Progressed(
            level=order.level,
            epsilon=order.epsilon.tolist() if isinstance(order.epsilon, np.ndarray) else order.epsilon,
            size=ledger.size,
            accepted=ledger.accepted,
            simulations=ledger.simulations,
            failures=ledger.failed,
            seconds=now - self.began,
            workers=engine.workers,
            busy=engine.busy(),
            counted=ledger.counted,
            models=self.models,
            had_simulations=self.had[0],
            had_accepted=self.had[1],
        )
