"""Between generations: what a run takes that is not simulation, taken apart.

    python -m tests.benchmarks.between [SECONDS OF A SIMULATION]       two processes, then two ranks

A row a generation of N = 1000, in milliseconds: until the first records are home, until nothing is left to
hand out, until the last that matter are home (all of these with workers at work), then what they wait for:
weights; the planner's fit; the writing of commit and order, of it the file system's; sending the order.
A second table has N = 10 000, d = 10 and a trivial vectorised simulator, where fit and file are large.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

import mpiabc
from mpiabc import closed
from mpiabc.actions import Commit
from mpiabc.driver import Driver, opened
from mpiabc.planner import Planner
from mpiabc.store import Store, Writer
from tests.benchmarks import toy
from tests.benchmarks.overhead import ten_vectorized

COLUMNS = ("first", "handed out", "home", "weights", "fit", "write", "of it disk", "send")


class Watched:
    """Times of a run, by generation, from outside."""

    def __init__(self):
        self.rows = defaultdict(lambda: dict.fromkeys(COLUMNS, 0.0))
        self._at = self._began = 0.0
        self._level = -1
        self._is_first = self._is_out = False
        self._depth = 0

    @contextmanager
    def watching(self):
        """Watch runs of this process."""
        patches = [
            (closed, "committed", self._timed(closed.committed, "weights")),
            (Planner, "next", self._timed(Planner.next, "fit")),
            (Writer, "open", self._timed(Writer.open, "write")),
            (Driver, "_begin", self._begun()),
            (Driver, "_take", self._taken()),
            (opened.Opened, "feed", self._fed()),
            (Store, "transaction", self._transaction()),
        ]
        with ExitStack() as stack:
            for owner, name, replacement in patches:
                stack.enter_context(mock.patch.object(owner, name, replacement))
            yield self

    def _add(self, column, began):
        self.rows[self._level][column] += (time.perf_counter() - began) * 1e3

    def _timed(self, method, column):
        def call(*arguments):
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                self._add(column, began)

        return call

    def _begun(self):
        begin = Driver._begin

        def call(driver, action):
            engine, send = driver._engine, driver._engine.begin

            def sent(order):
                began = time.perf_counter()
                send(order)
                self._add("send", began)

            with mock.patch.object(engine, "begin", sent):
                begin(driver, action)
            self._level, self._at = action.order.level, time.perf_counter()
            self._is_first = self._is_out = False

        return call

    def _taken(self):
        take = Driver._take

        def call(driver, report):
            now = time.perf_counter()
            if not self._is_first:
                self._add("first", self._at)
                self._is_first, self._at = True, now
            actions = take(driver, report)
            if any(isinstance(action, Commit) for action in actions):
                self.rows[self._level]["home"] += (now - self._at) * 1e3
            return actions

        return call

    def _fed(self):
        feed = opened.Opened.feed

        def call(level, *arguments):
            feed(level, *arguments)
            if self._is_first and not self._is_out and level.ledger.cut < np.inf:
                self._add("handed out", self._at)
                self._is_out, self._at = True, time.perf_counter()

        return call

    def _transaction(self):
        real = Store.transaction

        @contextmanager
        def transaction(store):
            self._depth += 1
            with real(store) as db:
                yield db
                began = time.perf_counter()
            self._depth -= 1
            if not self._depth:
                self._add("of it disk", began)

        return transaction


def table(title, sampler, scheduler):
    """Print the rows of a run."""
    watched = Watched()
    with tempfile.TemporaryDirectory() as folder, watched.watching():
        began = time.perf_counter()
        history = sampler.run(Path(folder) / "run.db", generations=5, scheduler=scheduler)
        whole = time.perf_counter() - began
    if history is None:
        return
    print(f"\n{scheduler}, {title}: {whole * 1e3:.0f} ms in all")
    print(f"{'generation':<12}" + "".join(f"{name:>12}" for name in COLUMNS) + f"{'sum':>12}")
    for level, row in sorted(watched.rows.items()):
        name = "to the first" if level < 0 else str(level)
        total = sum(row.values()) - row["of it disk"]
        print(f"{name:<12}" + "".join(f"{row[c]:12.2f}" for c in COLUMNS) + f"{total:12.2f}", flush=True)


def main(scheduler, seconds):
    """Both tables."""
    simulate = toy.Busy(seconds) if seconds else toy.trivial
    table(f"{seconds * 1e3:g} ms a simulation", toy.sampler(simulate, 1000), scheduler)
    prior = mpiabc.Prior(**{f"x{i}": mpiabc.Uniform(-10, 10) for i in range(10)})
    problem = mpiabc.Problem(prior, ten_vectorized, np.zeros(10), vectorized=True)
    abc = mpiabc.ABCSMC(problem, 10_000, threshold=mpiabc.Quantile(0.5), seed=1)
    table("N = 10 000, d = 10, vectorised", abc, scheduler)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.001
    if len(sys.argv) > 2:
        main(sys.argv[2], seconds)
    else:
        main("processes", seconds)
        mpirun = Path(sys.executable).parent / "mpirun"
        command = [mpirun, "-n", "2", sys.executable, "-m", "tests.benchmarks.between", str(seconds), "mpi"]
        sys.exit(subprocess.run(list(map(str, command)), env=os.environ).returncode)
