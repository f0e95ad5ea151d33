"""What comes home while a job is torn down is no outcome: it is dropped, taken back, and computed again."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import mpiabc
from mpiabc import schedulers, version
from mpiabc.driver import Driver, Limits
from mpiabc.fingerprint import Fingerprint
from mpiabc.ledger import Ledger, SlotLedger
from mpiabc.particles import Particles
from mpiabc.records import Lease, Records, Status, generation_of, order_number, pack, unpack
from mpiabc.schedulers.base import Recent
from mpiabc.schedulers.mpi import greeting
from mpiabc.schedulers.processes import ProcessesEngine
from mpiabc.signals import DOUBT, Signals
from mpiabc.store import Journal, Store
from mpiabc.version import STREAMS
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import HANGS


def records(start, stop, accepted, number=0):
    """The ids or slots [start, stop), of which some are accepted."""
    ids = np.array([i for i in range(start, stop) if i in accepted], np.int64)
    status = np.where(np.isin(np.arange(start, stop), ids), Status.ACCEPTED, Status.REJECTED).astype(np.uint8)
    column = ids.astype(float)
    rows = Particles(ids, column[:, None], column, column, column[:, None])
    return Records(number, start, stop, status, rows)


@pytest.mark.parametrize("seed", range(30))
def test_ledger_that_forgets_comes_to_the_same_population(seed):
    rng = np.random.default_rng(seed)
    accepted = set(np.flatnonzero(rng.random(2000) < 0.3).tolist())
    ledger, leases = Ledger(0, 40), []
    while not ledger.complete:
        lease = ledger.lease(int(rng.integers(1, 12)))
        if lease is not None:
            leases.append(lease)
            ledger.tell(records(lease.start, lease.stop, accepted))
        if leases and rng.random() < 0.15:
            forgotten = leases[int(rng.integers(max(0, len(leases) - 8), len(leases)))]
            ledger.forget(forgotten.start, forgotten.stop)
    assert ledger.population().ids.tolist() == sorted(accepted)[:40]
    assert ledger.counts() == (sorted(accepted)[39] + 1, sorted(accepted)[39] + 1)


def test_ledger_of_slots_that_forgets_counts_their_tries_once():
    ledger = SlotLedger(0, 10)
    lease = ledger.lease(10)
    row = records(0, 10, set(range(10)))
    tries = np.full((10, 2), 3)
    ledger.tell(replace(row, tries=tries))
    ledger.forget(4, 6)
    assert not ledger.complete
    assert ledger.counts() == (24, 24)
    again = ledger.lease(10)
    assert (again.start, again.stop) == (4, 6)
    ledger.tell(replace(records(4, 6, {4, 5}), tries=tries[:2]))
    assert ledger.complete
    assert ledger.counts() == (30, 30)
    assert lease.stop == 10


@pytest.mark.long
@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_run_whose_leases_turn_out_to_be_doubtful_comes_to_the_same_digests(seed, is_static, tmp_path):
    """In the open generation, and in those that are committed already: these are taken back."""

    def run(store, **faults):
        scheduler = Simulated(5, random_time, is_static=is_static, seed=seed, **faults)
        return problems.sampler(30, (3, 1.5, 0.8)).run(tmp_path / store, scheduler=scheduler)

    doubted = run("doubted.db", doubt=0.01, loss=0.02, duplicate=0.05)
    assert problems.digests(doubted) == problems.digests(run("quiet.db"))


@pytest.mark.long
def test_population_that_was_taken_back_and_is_as_it_was_is_yielded_once(tmp_path):
    for seed in range(20):
        scheduler = Simulated(5, random_time, seed=seed, doubt=0.01)
        sampling = problems.sampler(30).sample(tmp_path / f"{seed}.db", scheduler=scheduler)
        assert [population.generation for population in sampling] == [0, 1, 2]


def test_orders_that_are_opened_again_have_numbers_of_their_own():
    assert order_number(3) == 3
    assert order_number(3, 1) != order_number(3, 2) != 3
    assert generation_of(order_number(3, 2)) == 3
    assert str(Lease(order_number(3, 2), 5, 6)) == "3:5"


def test_notes_and_exposure_travel_with_records():
    sent = replace(records(0, 4, {1}), notes=("one", "two"), is_exposed=True)
    got = unpack(pack(sent))
    assert (got.notes, got.is_exposed, got.failures) == (("one", "two"), True, ())
    assert len(pack(records(0, 4, {1}))) < len(pack(sent))


# The file.


def test_journal_keeps_nothing_that_has_been_home_for_less_than_a_second(tmp_path):
    now = 0.0
    problems.sampler().run(tmp_path / "run.db", generations=1, scheduler="serial")
    with Store(tmp_path / "run.db") as store:
        journal = Journal(store, period=0.1, clock=lambda: now)
        for i in range(5):
            now = 0.4 * i
            journal.add(records(10 * i, 10 * i + 10, set(), number=1))
            journal.tick()
        assert [unpack(buffer).start for buffer in store.noted(1)] == [0, 10]
        journal.flush(2.0 - DOUBT)  # as after a signal
        assert [unpack(buffer).start for buffer in store.noted(1)] == [0, 10, 20]


def test_journal_forgets_what_is_in_doubt_written_or_not(tmp_path):
    problems.sampler().run(tmp_path / "run.db", generations=1, scheduler="serial")
    with Store(tmp_path / "run.db") as store:
        journal = Journal(store)
        for i in range(4):
            journal.add(records(10 * i, 10 * i + 10, set(), number=1))
        journal.forget(Lease(1, 10, 20))
        journal.flush()
        journal.forget(Lease(1, 20, 30))
        assert [unpack(buffer).start for buffer in store.noted(1)] == [0, 30]


def test_population_that_is_taken_back_leaves_the_file_as_before(tmp_path):
    sampler = problems.sampler()
    sampler.run(tmp_path / "run.db", scheduler="serial")
    quiet = problems.digests(mpiabc.open(tmp_path / "run.db"))
    with Store(tmp_path / "run.db") as store:
        store.take_back(1)
        assert len(store.history()) == 1
        assert store.history().reason is None
    assert problems.digests(sampler.run(tmp_path / "run.db", scheduler="serial")) == quiet


# Signals that workers hear.


class Waiting:
    """A scripted engine: it brings what it is given, when it is polled."""

    workers = 1

    def __init__(self, *reports):
        self.reports = list(reports)

    def begin(self, generation):
        self.generation = generation

    def capacity(self, prefetch):
        return 0

    def poll(self, timeout):
        return self.reports.pop(0) if self.reports else []

    def busy(self):
        return 0

    def cancel(self, cut):
        pass


@pytest.mark.parametrize("is_exposed", [False, True])
def test_failure_waits_for_a_signal_only_where_programs_had_a_part_in_it(is_exposed):
    """By then the signal that ended the program is seen, and the run stops instead of failing."""
    failing = problems.failed_records(is_exposed)
    now, signals = 0.0, Signals()

    def clock():
        nonlocal now
        now += 0.01
        if now > 0.5:
            signals.seen = "SIGTERM"
        return now

    driver = Driver(Waiting([failing]), limits=Limits(signals=signals), clock=clock)
    expected = mpiabc.Interrupted if is_exposed else mpiabc.SimulatorError
    with pytest.raises(expected):
        list(driver.run(problems.OneOrder(problems.generation(10), Ledger(0, 10))))


def test_what_was_brought_home_recently_is_doubted(monkeypatch):
    now = 0.0
    monkeypatch.setattr("mpiabc.schedulers.base.time.monotonic", lambda: now)
    recent = Recent(1.0)
    for i in range(5):
        now = 0.5 * i
        recent.add(Lease(0, i, i + 1))
    assert [lease.start for lease in recent.doubted().leases] == [2, 3, 4]


def signalled_once(flag):
    """A simulator whose process hears a signal in one evaluation, which comes to nothing good."""

    def simulate(theta, rng, *, id):
        if id == (0, 12) and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGTERM)
            return {"y": 1.0}  # as if it had been observed
        return problems.gaussian(theta, rng)

    return simulate


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_lease_in_which_a_child_alone_hears_a_signal_is_computed_again(start, tmp_path):
    sampler = problems.sampler(simulate=signalled_once(tmp_path / "flag"), name="x")
    history = sampler.run(tmp_path / "run.db", scheduler=schedulers.Processes(2, start=start))
    assert (tmp_path / "flag").exists()
    assert problems.digests(history) == problems.digests(
        problems.sampler(name="x").run(tmp_path / "quiet.db", scheduler="serial")
    )


CTRL_C = """
import os, subprocess, sys
from mpiabc import schedulers
from tests import problems

def simulate(theta, rng):
    subprocess.run(["sleep", "0.02"], check=True)
    return problems.gaussian(theta, rng)

if __name__ == "__main__":
    problems.sampler(15, (3, 1.5), simulate=simulate).run(sys.argv[1], scheduler=schedulers.Processes(2))
"""


def test_programs_of_children_do_not_get_what_comes_to_the_group_of_the_leader(tmp_path):
    """A terminal's Ctrl-C, for one. The job ends resumable, and nothing of it is left."""
    from tests.conftest import environment

    command = [sys.executable, "-c", CTRL_C, tmp_path / "run.db"]
    job = subprocess.Popen(
        command, env=environment(), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "run.db").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        os.killpg(job.pid, signal.SIGINT)
        output = job.communicate(timeout=HANGS)[1]
    finally:
        job.kill()
    assert job.returncode in (0, 75), output
    assert "CalledProcessError" not in output
    history = mpiabc.open(tmp_path / "run.db")
    assert history.failures == []


# Clocks.


def test_time_in_which_we_were_not_there_is_not_the_simulators(monkeypatch):
    """A suspended job: nobody polls for a while, and then all of it seems to have taken long."""

    def simulate(theta, rng):
        time.sleep(0.3)
        return problems.gaussian(theta, rng)

    engine = ProcessesEngine(problems.problem(simulate, timeout=1.0), 1)
    try:
        engine.begin(problems.generation(10))
        while not engine.capacity(False):  # a child that is no fork comes up when it has said so
            engine.poll(0.1)
        engine.submit(Lease(0, 0, 1))
        engine.poll(0.1)
        real = time.monotonic
        monkeypatch.setattr("mpiabc.schedulers.processes.time.monotonic", lambda: real() + 60.0)
        reports = engine.poll(0.05)
        while not reports:
            reports = engine.poll(0.1)
        assert isinstance(reports[0], Records)
    finally:
        engine.close(0)


# Versions.


def test_numbers_are_judged_and_version_strings_reported():
    mine = version.versions()
    assert version.version_difference(mine | {"mpiabc": "9.9", "NumPy": "1.2.3"}) == ""
    assert "protocol 0 there" in version.version_difference(mine | {"protocol": 0})
    assert "streams None there" in version.version_difference(
        {k: v for k, v in mine.items() if k != "streams"}
    )
    assert "Python 2.7 there" in version.version_difference(mine | {"Python": "2.7"})
    assert version.version_difference(None)
    patch = ".".join([*mine["NumPy"].split(".")[:2], "99"])
    assert version.digit_difference(mine | {"NumPy": patch}) == ""
    assert "NumPy 1.2.3 there" in version.digit_difference(mine | {"NumPy": "1.2.3"})


def test_run_goes_on_with_another_numpy_and_not_with_other_streams(tmp_path, caplog):
    sampler = problems.sampler()
    sampler.run(tmp_path / "run.db", generations=1, scheduler="serial")
    with Store(tmp_path / "run.db") as store:
        settings = store.settings()
        settings["versions"]["NumPy"] = "1.2.3"
        store.renew(settings)
    sampler.run(tmp_path / "run.db", generations=2, scheduler="serial")
    assert "NumPy 1.2.3 there" in caplog.text
    with Store(tmp_path / "run.db") as store:
        store.renew(store.settings() | {"streams": 0})
    with pytest.raises(mpiabc.StoreError, match=f"streams: 0 there, {STREAMS} here"):
        sampler.run(tmp_path / "run.db", generations=3, scheduler="serial")


def test_file_from_before_code_was_compared_is_read_and_not_continued(tmp_path):
    """Its draws are today's, its weights differ in the last bit."""
    sampler = problems.sampler()
    sampler.run(tmp_path / "run.db", generations=1, scheduler="serial")
    with Store(tmp_path / "run.db") as store:
        old = {k: v for k, v in store.settings().items() if k not in ("fingerprint", "versions", "streams")}
        store.renew(old | {"mpiabc": "0.1.0", "numpy": np.__version__})
        store._db.execute("PRAGMA user_version = 2")
    with pytest.raises(mpiabc.StoreError, match=f"streams: 1 there, {STREAMS} here"):
        sampler.run(tmp_path / "run.db", scheduler="serial")
    assert len(mpiabc.open(tmp_path / "run.db")) == 1


@pytest.mark.parametrize("said", [b"\x80\x04K\x01.", json.dumps({"versions": {"protocol": 0}}).encode()])
def test_rank_that_speaks_otherwise_is_refused_by_a_sentence(said):
    """Also one of a version that does not know how to say so."""
    with pytest.raises(
        mpiabc.SchedulerError, match=r"rank 3 differs from rank 0: mpiabc .*protocol .* there"
    ):
        greeting.checked(greeting.read(said), 3, {}, Fingerprint({}, {}))
