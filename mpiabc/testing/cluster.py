"""A cluster made of code: real ledger, driver and evaluations, scripted run times, losses and delays.

Its clock is virtual, so thousands of schedules, or ten thousand workers, take seconds.
"""

import heapq
import itertools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from mpiabc.records import Lease, Records
from mpiabc.schedulers import Lost
from mpiabc.schedulers.base import Doubted, Job, OneLeads, Report

RunTime = Callable[[Any, int, np.random.Generator], float]  # (evaluator, id, rng) -> virtual seconds


def random_time(evaluator: Any, id: int, rng: np.random.Generator) -> float:
    """Exponential, whatever is evaluated."""
    return rng.exponential()


class SimulatedCluster(OneLeads):
    """A scheduler with so many workers that exist only in thought: `run(scheduler=SimulatedCluster(700))`.

    The last engine that it has opened is its `cluster`, whose `now`, `messages` and `worked` may be read.
    """

    def __init__(
        self, workers: int, run_time: RunTime = random_time, *, is_static: bool = False, **faults: Any
    ) -> None:
        """run_time: (evaluator, id, rng) -> virtual seconds. faults: keywords of `Cluster`."""
        self.workers, self.run_time, self.faults = workers, run_time, faults
        self.is_static = is_static

    def open(self, problem: Any) -> "Cluster":
        """A new cluster, at time 0."""
        self.cluster = Cluster(self.workers, self.run_time, lambda job: job.evaluator(problem), **self.faults)
        return self.cluster


class Cluster:
    """The engine: workers that take leases one after another, each in its time."""

    def __init__(
        self,
        workers: int,
        run_time: RunTime,
        make_evaluator: Callable[[Any], Callable[[int, int], Records]],
        *,
        seed: int = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        doubt: float = 0.0,
        latency: float = 0.0,
    ) -> None:
        """seed: of the schedule alone. latency: virtual seconds that each message takes.

        loss, duplicate, doubt: probabilities, of each lease that is done, that its worker dies instead, that
        its records come a second time, and that some of the last leases are taken back with it.
        """
        self.workers = workers
        self.now = 0.0
        self.messages = 0
        self.worked = 0.0
        self._run_time, self._make_evaluator = run_time, make_evaluator
        self._loss, self._duplicate, self._doubt, self._latency = loss, duplicate, doubt, latency
        self._home: list[Lease] = []
        self._rng = np.random.default_rng(seed)
        self._events: list[tuple[float, int, tuple[str, Lease, float, Any]]] = []
        self._order = itertools.count()
        self._free_at = [0.0] * workers  # heap: when each worker has done all that it holds
        self._held = 0

    def clock(self) -> float:
        """The virtual time, in seconds."""
        return self.now

    def begin(self, job: Job, beside: Collection[int] = ()) -> None:
        """What is handed out from now on is of this job."""
        self._evaluator = self._make_evaluator(job)

    def capacity(self, prefetch: bool) -> int:
        """One lease for each worker, or two."""
        return (2 if prefetch else 1) * self.workers - self._held

    def submit(self, lease: Lease) -> None:
        """The worker that is free first takes it."""
        self.messages += 1
        self._held += 1
        start = max(self.now + self._latency, heapq.heappop(self._free_at))
        seconds = sum(self._run_time(self._evaluator, id, self._rng) for id in range(lease.start, lease.stop))
        heapq.heappush(self._free_at, start + seconds)
        self._at(start + seconds + self._latency, ("done", lease, seconds, self._evaluator))

    def poll(self, timeout: float) -> list[Report]:
        """The next thing that happens; the clock moves there."""
        if not self._events:
            return []
        self.now, _, (kind, lease, seconds, evaluator) = heapq.heappop(self._events)
        self.messages += 1
        self._held -= kind == "done"
        if kind == "done" and self._rng.random() < self._loss:
            return [Lost(lease, "worker", "scripted")]
        if self._rng.random() < self._duplicate:
            self._at(self.now + self._rng.exponential(seconds), ("again", lease, seconds, evaluator))
        self.worked += seconds if kind == "done" else 0.0
        if self._rng.random() < self._doubt and self._home:  # the last ones, of one worker in four
            recent = [lease for lease in self._home[-12:] if self._rng.random() < 0.25]
            return [Doubted(tuple(recent)), replace(evaluator(lease.start, lease.stop), seconds=seconds)]
        self._home.append(lease)
        return [replace(evaluator(lease.start, lease.stop), seconds=seconds)]

    def waiting(self) -> list[Lease]:
        """None can be taken back."""
        return []

    def cancel(self, cut: float, job: int | None = None) -> None:
        """Nothing: what is out comes home, and the ledger leaves it out."""

    def busy(self) -> int:
        """Workers that hold a lease."""
        return min(self.workers, self._held)

    def close(self, status: int) -> None:
        """Nothing is left."""

    def _at(self, when: float, event: tuple[str, Lease, float, Any]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))
