"""Every scheduler inherits the tests that a scheduler of a user's own inherits, too."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from examples.extending.scheduler import LastFirst
from mpiabc import schedulers
from mpiabc.testing import DyingWorkerTests, SchedulerTests, SimulatedCluster
from tests import bridge


class TestSerial(SchedulerTests):
    @pytest.fixture
    def scheduler(self):
        return schedulers.Serial()


class TestProcesses(SchedulerTests, DyingWorkerTests):
    @pytest.fixture
    def scheduler(self):
        return schedulers.Processes(2, start="fork")


@pytest.mark.long
class TestSpawnedProcesses(SchedulerTests, DyingWorkerTests):
    @pytest.fixture
    def scheduler(self):
        return schedulers.Processes(2, start="spawn")


class TestThreads(SchedulerTests):
    @pytest.fixture
    def scheduler(self):
        with ThreadPoolExecutor(2) as executor:
            yield schedulers.Futures(executor)


class TestMap(SchedulerTests):
    is_static = True

    @pytest.fixture
    def scheduler(self):
        return schedulers.Map(map)


class TestCombined(SchedulerTests):
    @pytest.fixture
    def scheduler(self):
        return schedulers.Combined([schedulers.Serial(), schedulers.Processes(1, start="fork")])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis server with two workers."""
    started = bridge.RedisServer(tmp_path_factory.mktemp("redis"))
    with started.workers(2):
        yield started
    started.kill()


@pytest.mark.long
class TestRedis(SchedulerTests, DyingWorkerTests):
    @pytest.fixture
    def scheduler(self, server):
        return server.scheduler()


@pytest.mark.long
class TestRedisStatic(SchedulerTests):
    is_static = True

    @pytest.fixture
    def scheduler(self, server):
        return schedulers.RedisStatic(server.url, password=bridge.PASSWORD, secret=bridge.SECRET)


@pytest.mark.long
class TestDask(SchedulerTests):
    @pytest.fixture
    def scheduler(self, dask_client):
        return schedulers.Dask(dask_client)


class TestSimulated(SchedulerTests):
    @pytest.fixture
    def scheduler(self):
        return SimulatedCluster(5, loss=0.05, duplicate=0.1, doubt=0.05, latency=0.1)

    # Its simulations take a second of its own time, whatever they are.
    test_simulations_that_take_their_time_give_the_digests_of_quick_ones = None


class TestExample(SchedulerTests):
    @pytest.fixture
    def scheduler(self):
        return LastFirst()


class Careless(LastFirst):
    """Whose workers move a parameter by a hair."""

    def open(self, problem):
        engine = super().open(problem)
        poll = engine.poll
        engine.poll = lambda timeout: [moved(records) for records in poll(timeout)]
        return engine


def moved(records):
    return replace(records, rows=replace(records.rows, theta=records.rows.theta + 1e-12))


def test_a_scheduler_that_alters_records_does_not_pass(tmp_path):
    with pytest.raises(AssertionError):
        SchedulerTests().test_digests_are_those_of_one_process("scalar", Careless(), tmp_path)
