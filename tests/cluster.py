"""A cluster made of code: real ledger, driver and evaluations, scripted run times, losses and delays.

Its clock is virtual, so thousands of schedules, or ten thousand workers, take seconds.
"""

import heapq
import itertools
from dataclasses import replace

import numpy as np

from mpiabc.schedulers import Lost
from mpiabc.schedulers.base import Doubted


class Simulated:
    """A scheduler whose engine is a `Cluster`."""

    is_static = False

    def __init__(self, workers, run_time, *, is_static=False, **faults):
        self.workers, self.run_time, self.faults = workers, run_time, faults
        self.is_static = is_static

    def leads(self):
        return True

    def open(self, problem):
        self.cluster = Cluster(self.workers, self.run_time, lambda job: job.evaluator(problem), **self.faults)
        return self.cluster

    def serve(self, problem):
        raise AssertionError("a simulated cluster has no other ranks")


class Cluster:
    """`run_time(evaluator, id, rng)` are virtual seconds; `loss`, `duplicate`, `doubt`: probabilities."""

    def __init__(
        self, workers, run_time, make_evaluator, *, seed=0, loss=0.0, duplicate=0.0, doubt=0.0, latency=0.0
    ):
        self.workers = workers
        self.now = 0.0
        self.messages = 0
        self.worked = 0.0
        self._run_time, self._make_evaluator = run_time, make_evaluator
        self._loss, self._duplicate, self._doubt, self._latency = loss, duplicate, doubt, latency
        self._home = []  # leases
        self._rng = np.random.default_rng(seed)
        self._events = []
        self._order = itertools.count()
        self._free_at = [0.0] * workers  # heap: when each worker has done all that it holds
        self._held = 0

    def clock(self):
        return self.now

    def begin(self, generation):
        self._evaluator, self._generation = self._make_evaluator(generation), generation.number

    def capacity(self, prefetch):
        return (2 if prefetch else 1) * self.workers - self._held

    def submit(self, lease):
        self.messages += 1
        self._held += 1
        start = max(self.now + self._latency, heapq.heappop(self._free_at))
        seconds = sum(self._run_time(self._evaluator, id, self._rng) for id in range(lease.start, lease.stop))
        heapq.heappush(self._free_at, start + seconds)
        self._at(start + seconds + self._latency, ("done", lease, seconds, self._evaluator))

    def poll(self, timeout):
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

    def waiting(self):
        return []

    def cancel(self, cut):
        pass

    def busy(self):
        return min(self.workers, self._held)

    def close(self, status):
        pass

    def _at(self, when, event):
        heapq.heappush(self._events, (when, next(self._order), event))


def random_time(evaluator, id, rng):
    """Exponential, whatever is evaluated."""
    return rng.exponential()
