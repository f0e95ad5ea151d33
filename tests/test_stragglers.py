"""A simulation that takes long keeps its worker, and holds up nobody: levels go on without it."""

import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import mpiabc
from mpiabc.driver import opened
from mpiabc.driver.opened import Opened
from mpiabc.driver.pace import Pace
from mpiabc.line import Line
from mpiabc.records import Lease
from mpiabc.schedulers.base import Lost, OneLeads
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.schedulers.redis.attendance import Attendance
from mpiabc.schedulers.shared.jobs import Jobs
from tests import problems
from tests.cluster import Cluster, Simulated
from tests.conftest import HANGS
from tests.test_messages import Numbered
from tests.test_opened import Waiting
from tests.test_torn_down import records

FOR_EVER = 1e6  # virtual seconds


class Several(Cluster):
    """A cluster with several jobs open."""

    def begin(self, job, beside=()):
        super().begin(job)
        self.begun = [*getattr(self, "begun", []), (job.number, tuple(beside))]

    def cancel(self, cut, job=None):
        self.cancelled = [*getattr(self, "cancelled", []), (cut, job)]


class Scheduler(Simulated):
    """It, whose first evaluation of generation 0 from an id on takes other seconds."""

    def __init__(self, workers, first, seconds):
        super().__init__(workers, self.run_time)
        self.first, self.seconds, self.straggler = first, seconds, None

    def run_time(self, evaluator, id, rng):
        if self.straggler is None and evaluator.order.level == 0 and id >= self.first:
            self.straggler = id
            return self.seconds
        return 1.0

    def open(self, problem):
        self.cluster = Several(self.workers, self.run_time, lambda job: job.evaluator(problem))
        return self.cluster


def run(folder, scheduler, **options):
    """Three generations of a handful of particles."""
    options = {"threshold": mpiabc.Listed([2.0, 1.0, 0.7]), "seed": 1} | options
    problem = problems.problem(options.pop("simulate", problems.gaussian), observed=4.0)
    sampler = mpiabc.ABCSMC(problem, 6, **options)
    folder.mkdir(exist_ok=True)
    return sampler.run(folder / "run.db", generations=3, scheduler=scheduler)


def cut_of(history):
    """One past the last id of generation 0."""
    return history[0].evaluations


def test_levels_go_on_without_what_lies_above_their_cut(tmp_path):
    alone = run(tmp_path / "alone", "serial")
    scheduler = Scheduler(4, cut_of(alone), FOR_EVER)
    assert problems.digests(run(tmp_path / "four", scheduler)) == problems.digests(alone)
    assert scheduler.straggler is not None
    assert scheduler.cluster.now < FOR_EVER


@pytest.fixture(scope="module")
def looking_ahead(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), "serial", lookahead=True)


def test_what_still_counts_at_the_next_level_is_worked_on_beside_it(looking_ahead, tmp_path):
    """Its order stays open, until nothing of it is out; at the end nothing of any order is wanted."""
    scheduler = Scheduler(4, cut_of(looking_ahead), 20.0)
    assert problems.digests(run(tmp_path, scheduler, lookahead=True)) == problems.digests(looking_ahead)
    (first, *later), cancelled = scheduler.cluster.begun, scheduler.cluster.cancelled
    assert first == (0, ())
    assert 0 in later[0][1]
    assert all(beside == tuple(sorted(set(beside))) and number not in beside for number, beside in later)
    assert set(later[-1][1]) <= {job for cut, job in cancelled if cut == 0}


class Kept:
    """What settles a level where nothing changes from one to the next."""

    def kept(self, ids, levels):
        return np.ones(len(ids), bool)

    def settled(self, records, level):
        return records

    def own(self, records):
        return records


def lines():
    """The line of a level that is complete, with ids 2, 3 and 4 out beyond its cut, and that of the next."""
    line = Line(0, 2, Kept(), None)
    line.look_ahead(10)
    for _ in range(5):
        line.lease(1)
    line.tell(records(0, 2, {0, 1}))
    assert line.complete
    return line, Line(1, 2, Kept(), line, first=2)


def test_a_line_knows_of_which_orders_work_is_out():
    before, line = lines()
    assert before.beside == ()
    assert line.beside == (0,)
    line.tell(records(2, 4, {2}))
    assert line.beside == (0,)
    line.give_back(4, 5)
    assert line.beside == ()


@pytest.mark.parametrize("waiting", list(permutations([Lease(0, 4, 5), Lease(7, 4, 5)])))
@pytest.mark.parametrize(("beside", "copies"), [((0,), [Lease(0, 4, 5)]), ((), [])])
def test_what_waits_behind_a_straggler_of_an_earlier_level_is_copied(beside, copies, waiting, monkeypatch):
    monkeypatch.setattr(opened, "_AHEAD", 0)
    _, line = lines()
    line.lease(1)
    monkeypatch.setattr(Line, "lease", lambda self, n, end=0: None)  # nothing else is within reach
    engine, pace = Waiting(*waiting), Pace()
    pace.learn(replace(records(0, 1, {0}), seconds=0.001))
    order = Numbered(1)
    failures = type("Failures", (), {"cut": np.inf})()
    Opened(order, line, failures, 0.0, beside=beside).feed(engine, pace)
    assert engine.submitted == copies


@pytest.mark.parametrize(("beside", "is_reported"), [([0], True), ([], False)])
def test_what_a_redis_worker_gives_back_of_an_order_that_is_open_goes_out_again(beside, is_reported):
    jobs = Jobs()
    attendance = Attendance(jobs.is_wanted)
    jobs.begin(Numbered(0))
    attendance.heard("w", serial=1, ack=0, now=0.0)
    attendance.greet("w")
    attendance.reconcile("w", 1, set())
    lease = Lease(0, 4, 5)
    assert attendance.holders.assign(lease) == "w"
    attendance.peers["w"].sent[lease] = attendance.peers["w"].ordered(), 0.0
    jobs.begin(Numbered(1), beside)
    attendance.heard("w", serial=2, ack=1, now=1.0)
    reports = [Lost(lease, "a worker", "the lease was given back", is_returned=True)] if is_reported else []
    assert attendance.reconcile("w", 1, set()) == reports
    assert attendance.holders.busy() == 0


def test_a_silent_redis_worker_is_suspected_before_it_is_dead():
    """And gets nothing meanwhile; a time in which the leader was away is no silence."""
    attendance = Attendance(lambda lease: True)
    attendance.heard("w", serial=1, ack=0, now=0.0)
    attendance.greet("w")
    attendance.reconcile("w", 1, set())
    lease = Lease(0, 4, 5)
    attendance.holders.assign(lease)
    assert attendance.silent(2.0, 1.0) == ([], [])
    assert attendance.holders.slots == 1
    assert attendance.silent(4.0, 1.0) == ([], [])
    assert attendance.holders.slots == 0
    attendance.hear_all_again(100.0)
    assert attendance.silent(101.0, 1.0) == ([], [])
    dead, (lost, doubted) = attendance.silent(107.0, 1.0)
    assert (dead, lost.lease, doubted.leases) == (["a worker"], lease, ())
    assert len(attendance.holders) == 0


class Marking(OneLeads):
    """Two processes; a file in the folder says which levels have been opened."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, problem):
        engine = ProcessesEngine(problem, 2)
        begin = engine.begin

        def begun(job, beside=()):
            begin(job, beside)
            (self.folder / f"level {job.level}").touch()

        engine.begin = begun
        return engine


def await_file(path):
    """Wait until somebody has made it. It asserts nothing: new interpreters would know it by other code."""
    end = time.monotonic() + HANGS
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.005)


def straggling(folder, cut, until):
    """A simulator whose first evaluation of generation 0 from `cut` on waits until there is a file.

    The last one below it waits until that is at work: so both are with different workers.
    """

    def simulate(theta, rng, *, id):
        (folder / f"level {id.generation} begun").touch()
        if id.generation == 0 and id.index >= cut:
            try:
                (folder / "straggler").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                await_file(folder / until)
        elif id == (0, cut - 1):
            await_file(folder / "straggler")
        return problems.gaussian(theta, rng)

    return simulate


@pytest.mark.long
@pytest.mark.parametrize(("options", "until"), [({}, "level 2"), ({"lookahead": True}, "level 1 begun")])
def test_a_process_at_a_straggler_keeps_nobody_waiting(options, until, tmp_path):
    """Not even one whose outcome is wanted: others go on with the next level meanwhile."""
    alone = run(tmp_path / "alone", "serial", **options)
    folder = Path(tmp_path)
    simulate = straggling(folder, cut_of(alone), until)
    history = run(tmp_path / "two", Marking(folder), simulate=simulate, **options)
    assert problems.digests(history) == problems.digests(alone)
    assert (folder / "straggler").exists()
