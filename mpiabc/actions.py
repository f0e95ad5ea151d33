"""What a job asks its driver to do: a job decides and does nothing, the driver does it and decides nothing.

    actions = job.advance(records)

A run of ABC-SMC is such a job, and so is a map.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.particles import Particles
from mpiabc.population import Past, Population
from mpiabc.records import Failure, Records
from mpiabc.simulations import Simulations


@dataclass(frozen=True, eq=False)
class Open:
    """Work on an order: hand out what its ledger wants evaluated."""

    order: Any  # a Job of the schedulers, with the `level` and the `epsilon` that are reported
    ledger: Ledger | SlotLedger
    past: Past = field(default_factory=Past)  # what it was decided after
    is_kept: bool = False  # in the file: an earlier call has decided it
    base: Population | None = None  # what its proposal was fitted to
    survivors: Particles | None = None  # of the population before, if evaluations are recycled


@dataclass(frozen=True, eq=False)
class Keep:
    """Keep these records until they are part of a population."""

    records: Records
    level: int | None = None  # that they are kept for, if that is not their own


@dataclass(frozen=True, eq=False)
class Commit:
    """An order has come to its end: write the population."""

    population: Population
    failures: list[Failure]
    opened: Open
    sample: Particles | None = None  # of its simulations, if its order wanted one
    simulated: Simulations | None = None  # all of them, if its order keeps all
    pool: list[np.ndarray] | None = None  # how all simulations so far are weighted: see `amis`
    share: float | None = None  # of the workers' time, in which they simulated


@dataclass(frozen=True, eq=False)
class Partial:
    """What was known of the generation that a budget has ended the run in; it is no part of the run."""

    population: Population | None  # None: nothing was accepted
    simulated: Simulations | None = None  # all its simulations, if its order keeps all
    level: int = 0
    evaluations: int = 0  # ids, up to the budget's end


@dataclass(frozen=True)
class Void:
    """Take back this generation and all after it."""

    level: int


@dataclass(frozen=True)
class Tell:
    """Tell the user, once a run; `is_anew`: what was said of the topic before was less bad.

    `is_always`: it is reported whenever it is so.
    """

    topic: str
    note: str
    is_anew: bool = False
    is_always: bool = False


@dataclass(frozen=True)
class Done:
    """There is nothing more to do, for this reason."""

    reason: str


@dataclass(frozen=True, eq=False)
class Hand:
    """Hand this to whoever waits for the job, now."""

    what: Any


Action = Open | Keep | Commit | Void | Tell | Hand | Done


class Advancing(Protocol):
    """A job as its driver sees it. It knows no clocks, workers or files."""

    @property
    def on_error(self) -> str | int:
        """What the problem says of failures."""
        ...

    def advance(self, records: Iterable[Records] = ()) -> list[Action]:
        """What to do, now that these records are known. Called anew after each Commit.

        A ledger may have forgotten records meanwhile, so what was Done may be open again.
        """
        ...

    def reopen(self, commit: Commit) -> list[Action]:
        """Records of a committed order are in doubt, and forgotten by its ledger: go on from there."""
        ...

    def theta_of(self, order: Any, address: int) -> dict[str, Any]:
        """What was proposed for an evaluation that can tell nothing itself."""
        ...
