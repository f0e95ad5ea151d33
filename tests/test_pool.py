"""A pool for others: results in order, exceptions as they were, on every scheduler; emcee as a client."""

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

import mpiabc
from mpiabc import schedulers
from tests.conftest import ROOT, environment, missing

PLACES = {
    "serial": schedulers.Serial(),
    "processes": schedulers.Processes(2),
    "spawned": schedulers.Processes(2, start="spawn"),
    "map": schedulers.Map(map),
}


def half(x):
    return x / 2


@pytest.fixture(params=[*PLACES, "threads"])
def place(request):
    """Each of the places in turn."""
    if request.param != "threads":
        yield PLACES[request.param]
        return
    with ThreadPoolExecutor(2) as executor:
        yield schedulers.Futures(executor)


def test_results_come_in_order(place):
    with mpiabc.Pool(place) as pool:
        assert pool.map(half, range(300)) == [x / 2 for x in range(300)]
        assert pool.map(lambda x, y: (y, x), "abc", range(9)) == [(0, "a"), (1, "b"), (2, "c")]
        assert pool.map(half, []) == []
        assert pool.size >= 1


QUICK = pytest.mark.parametrize("place", ["serial", "processes", "map", "threads"], indirect=True)


@QUICK
def test_calls_of_other_pools_are_understood(place):
    """As emcee, schwimmbad and multiprocessing have them."""
    seen = []
    with mpiabc.Pool(place) as pool:
        assert (pool.is_master(), pool.is_worker(), pool.wait()) == (True, False, None)
        assert pool.starmap(divmod, [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
        assert pool.starmap(pow, ((x, 2) for x in range(3)), chunksize=2) == [0, 1, 4]
        assert pool.map(half, [2, 4], 10) == pool.map(half, [2, 4], chunksize=1) == [1, 2]
        assert pool.map(half, [2, 4], seen.append) == pool.map(half, [2, 4], callback=seen.append) == [1, 2]
        assert pool.apply(divmod, (7, 2)) == (3, 1)
        assert pool.apply(int, ("11",), {"base": 2}) == 3
    assert sorted(seen) == [1, 1, 2, 2]


@QUICK
def test_results_come_one_by_one_and_exceptions_in_their_turn(place):
    """Behind one the iterator goes on; items may be a list or a generator that never ends."""

    def inverse(x):
        return 1 / (x - 2)

    with mpiabc.Pool(place) as pool:
        assert list(pool.imap(half, range(30), chunksize=3)) == [x / 2 for x in range(30)]
        assert sorted(pool.imap_unordered(half, (x for x in range(30)))) == [x / 2 for x in range(30)]
        assert list(islice(pool.imap(half, itertools.count()), 60)) == [x / 2 for x in range(60)]
        results = pool.imap(inverse, (x for x in range(5)))
        assert [next(results), next(results)] == [-0.5, -1]
        with pytest.raises(ZeroDivisionError) as error:
            next(results)
        assert "in inverse" in str(error.value.__cause__)
        assert list(results) == [1, 0.5]
        assert list(pool.imap(half, [])) == list(pool.imap(half, iter([]))) == []


def test_what_reading_items_raises_comes_behind_the_results_of_those_before():
    def items():
        yield from range(6)
        raise KeyError("broken")

    with mpiabc.Pool("serial") as pool:
        results = pool.imap(half, items())
        assert [next(results) for _ in range(6)] == [x / 2 for x in range(6)]
        with pytest.raises(KeyError, match="broken"):
            next(results)
        assert list(results) == []


def test_results_are_given_while_others_are_worked_on_and_items_are_read_as_they_are_needed():
    read = []

    def items():
        for x in range(1000):
            read.append(x)
            yield x

    with mpiabc.Pool("serial") as pool:
        results = pool.imap(lambda x: time.sleep(0.3) or x, items())
        assert next(results) == 0
        assert len(read) == 4  # one worker
        computed = []
        results = pool.imap(lambda x: computed.append(x) or len(computed), range(100))
        assert next(results) < 100  # not all of them first


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_calls_between_results_take_none_of_them_away(name):
    """Nor do several iterators at once; one that nobody has any more is left."""
    with mpiabc.Pool(PLACES[name]) as pool:
        pool.imap(half, itertools.count())  # and dropped
        ordered, others = pool.imap(half, range(40)), pool.imap_unordered(half, (x for x in range(40)))
        found = [(next(ordered), next(others), pool.map(half, [x]))[::2] for x in range(40)]
        assert found == [(x / 2, [x / 2]) for x in range(40)]
        with pytest.raises(StopIteration):
            next(ordered)


def test_pool_that_is_closed_does_what_was_begun_and_refuses_the_rest():
    pool = mpiabc.Pool("serial")  # without a `with`
    with pytest.raises(mpiabc.SchedulerError, match="call close first"):
        pool.join()
    ordered, others = pool.imap(half, range(9)), pool.imap_unordered(half, (x for x in range(9)))
    assert next(ordered) == 0
    pool.close()
    refused = [
        lambda: pool.map(half, [1]),
        lambda: pool.starmap(half, [(1,)]),
        lambda: pool.imap(half, [1]),
        lambda: pool.imap_unordered(half, [1]),
        lambda: pool.apply(half, (1,)),
    ]
    for call in refused:
        with pytest.raises(mpiabc.SchedulerError, match=r"not open any more: .* before its close\(\)"):
            call()
    pool.join()
    assert list(ordered) == [x / 2 for x in range(1, 9)]
    assert list(others) == [x / 2 for x in range(9)]


def test_results_that_were_not_asked_for_are_refused_behind_the_with():
    with mpiabc.Pool("serial") as pool:
        left = pool.imap(lambda x: time.sleep(0.06) or x, range(100))
        assert next(left) == 0
    with pytest.raises(mpiabc.SchedulerError, match="not open any more"):
        list(left)


def test_wrong_calls_are_reported():
    with mpiabc.Pool("serial") as pool:
        with pytest.raises(mpiabc.SchedulerError, match="chunksize=0: give a whole number of at least 1"):
            pool.imap(half, [1], chunksize=0)
        with pytest.raises(mpiabc.SchedulerError, match="the callback of a map asks its pool for more"):
            pool.map(half, [1], callback=lambda result: pool.map(half, [result]))
        assert pool.map(half, [4]) == [2]


class Overlapping:
    """A scheduler, and its engine: a lease comes home in overlapping pieces, in any order, and whole."""

    is_static, workers = False, 3

    def __init__(self, seed):
        self._rng, self._held, self._reports = np.random.default_rng(seed), [], []

    def leads(self):
        return True

    def serve(self, problem):
        raise AssertionError("there are no other ranks")

    def open(self, problem):
        return self

    def begin(self, batch):
        self._mapper, self._held, self._reports = batch.evaluator(), [], []

    def capacity(self, prefetch):
        return self.workers - len(self._held)

    def submit(self, lease):
        self._held.append(lease)
        cuts = self._rng.integers(lease.start, lease.stop, (3, 2))
        pieces = [lease[1:], *((low, high + 1) for low, high in np.sort(cuts).tolist())]
        self._reports += [(lease, self._mapper(start, stop)) for start, stop in pieces]

    def poll(self, timeout):
        if not self._reports:
            return []
        lease, records = self._reports.pop(self._rng.integers(len(self._reports)))
        self._held = [held for held in self._held if held != lease]
        return [replace(records, seconds=0.01 * len(records))]  # the same leases in every run of the test

    def waiting(self):
        return []

    def cancel(self, cut):
        pass

    def busy(self):
        return len(self._held)

    def close(self, status):
        pass


def test_spawned_children_have_the_arguments_of_the_script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fit.py", "--name", "it's \udcff"])
    with mpiabc.Pool(schedulers.Processes(1, start="spawn")) as pool:
        assert pool.map(lambda x: sys.argv, [0]) == [sys.argv]


class Partial(Overlapping):
    """Brings a lease back without some of its items, or without any, and without a word why."""

    share = 0.5

    def submit(self, lease):
        self._held.append(lease)
        records = self._mapper(lease.start, lease.stop)
        n = len(records)
        kept = np.arange(n) < (max(1, int(self.share * n)) if self.share else 0)
        self._reports.append((lease, records.only(kept)))


def test_items_that_a_lease_lacks_go_out_again():
    with mpiabc.Pool(Partial(1)) as pool:
        assert pool.map(half, range(100)) == [x / 2 for x in range(100)]


def test_lease_that_is_brought_back_with_nothing_ends_the_map():
    place = Partial(1)
    place.share = 0.0
    with (
        mpiabc.Pool(place) as pool,
        pytest.raises(mpiabc.SchedulerError, match="neither outcomes nor a fail"),
    ):
        pool.map(half, range(100))


@pytest.mark.parametrize("seed", range(20))
def test_results_are_those_of_the_items_however_copies_of_leases_overlap(seed):
    with mpiabc.Pool(Overlapping(seed)) as pool:
        for n in (1, 7, 200):
            assert pool.map(half, range(n)) == [x / 2 for x in range(n)]


@pytest.mark.long
def test_results_come_in_order_from_several_schedulers_at_once():
    """The last items are slow and wait in the child: this process takes copies, and tells them in pieces."""

    def uneven(x):
        time.sleep(0.012 if x >= 190 else 0.0002)
        return -x

    for _ in range(20):  # one in four has copies that overlap in part
        with mpiabc.Pool(schedulers.Combined([schedulers.Processes(1), schedulers.Serial()])) as pool:
            assert pool.map(uneven, range(200)) == [-x for x in range(200)]


class Strange(Exception):  # noqa: N818
    """An exception that does not survive a pickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")
        self.lock = threading.Lock()


def test_exceptions_come_as_they_were_with_the_remote_traceback_as_their_cause(place):
    def fail(x):
        if x >= 50:
            raise KeyError(x)
        if x == 20:
            raise Strange("no", "pickle")
        if x == 10:
            os._exit(3)
        return x

    with mpiabc.Pool(place) as pool:
        with pytest.raises(KeyError, match="50") as error:  # the first in order, whoever fails first
            pool.map(fail, range(40, 100))
        assert "in fail" in str(error.value.__cause__)
        with pytest.raises(RuntimeError, match="Strange: no pickle"):
            pool.map(fail, [1, 20])
        with pytest.raises(RuntimeError, match=r"SystemExit: .*os\._exit\(3\)"):
            pool.map(fail, [1, 10])
        assert pool.map(half, [4]) == [2]  # it goes on


def test_worker_that_dies_is_replaced_and_one_item_that_always_kills_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mpiabc.driver.failures._MOST_DEATHS", 2)

    def die(x):
        if x == 3 or (x == 5 and not (tmp_path / "died").exists()):
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with mpiabc.Pool(schedulers.Processes(2)) as pool:
        assert pool.map(die, range(4, 20)) == list(range(4, 20))
        with pytest.raises(mpiabc.SchedulerError, match=r"item 3 of the map .* died 2 times"):
            pool.map(die, range(6))
        assert pool.map(die, [7]) == [7]


def test_function_travels_again_only_when_it_has_changed():
    opened = _Counted.opened = []
    with mpiabc.Pool("serial") as pool:
        for _ in range(5):
            assert pool.map(_Counted(1), range(3)) == [1, 1, 1]
        assert pool.map(_Counted(2), range(3)) == [2, 2, 2]
    assert opened == [1, 2]


class _Counted:
    """A function that notes each time that it is unpickled."""

    opened: list = []

    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return self.value

    def __setstate__(self, state):
        self.__dict__ = state
        self.opened.append(self.value)


def test_large_functions_and_results_travel():
    data = np.arange(300_000.0)
    with mpiabc.Pool(schedulers.Processes(2)) as pool:
        for _ in range(3):
            results = pool.map(lambda x: data[x:], [0, 1])
    assert [len(result) for result in results] == [300_000, 299_999]


def test_what_cannot_be_sent_is_named():
    with mpiabc.Pool("serial") as pool:
        with pytest.raises(mpiabc.ProblemError, match="the items of the map cannot be sent"):
            pool.map(half, [threading.Lock()])
        with pytest.raises(TypeError, match="pickle"):
            pool.map(lambda x: threading.Lock(), [1])
    with pytest.raises(mpiabc.SchedulerError, match="the pool is not open"):
        pool.map(half, [1])


def test_ranks_serve_and_leave_the_with_block(mpi):
    job = mpi.run(3, "-m", "tests.programs.pooled", "mpi")
    assert job.returncode == 0, job.stdout
    assert sorted(line for line in job.stdout.splitlines() if line) == [
        "LED True [3.0, 2.0] division by zero True [3.0]",
        "LED [(3, 1)] [0, 1, 4] [0, 1, 4]",
        *["SERVED"] * 2,
        *["SERVED and let go"] * 2,
    ]


@pytest.mark.parametrize("mpi", ["mpich"], indirect=True)
@pytest.mark.long
def test_emcee_gives_the_same_chain_with_and_without_a_pool(mpi):
    """On processes, and on ranks, as in a process of its own."""
    if importlib.util.find_spec("emcee") is None:
        missing("emcee is not installed")
    command = [sys.executable, "examples/emcee_pool.py"]
    options = {"cwd": ROOT, "env": environment(), "capture_output": True, "text": True, "timeout": 60}
    alone = subprocess.run([*command, "serial"], **options)
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith("slope 0.6")
    assert subprocess.run(command, **options).stdout == alone.stdout
    assert mpi.run(3, "examples/emcee_pool.py", "mpi").stdout == alone.stdout
