"""Large orders lie in a node's memory: they leave rank 0 once for each node, and nothing rests on that."""

import json
import os
import stat
import time

import pytest

from mpiabc.records import Lease
from mpiabc.schedulers.base import Lost
from mpiabc.schedulers.mpi import nearby
from mpiabc.schedulers.mpi.nearby import Nearby, Shelf
from mpiabc.schedulers.shared import transfer
from mpiabc.schedulers.shared.messages import Kind, encoded, order_of
from mpiabc.schedulers.shared.worker import Worker
from tests.conftest import ROOT

RUN = 7


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A node's memory of the test's own."""
    monkeypatch.setattr(nearby, "_memory", lambda: tmp_path)
    return tmp_path


def test_the_first_rank_asks_and_the_others_read_what_it_was_sent(memory):
    """Whenever they come: before the order is there, or after."""
    first, early, late = Nearby(), Nearby(), Nearby()
    assert first.must_ask(3, RUN)
    assert not early.must_ask(3, RUN)
    assert early.found() == []
    assert early.is_awaiting
    first.came(3, b"order")
    assert not late.must_ask(3, RUN)
    assert early.found() == late.found() == [b"order"]
    assert early.found() == []
    assert not early.is_awaiting


def test_a_rank_that_waits_in_vain_asks_for_itself(memory, monkeypatch):
    """The one that was to write it has died, say."""
    first, other = Nearby(), Nearby()
    assert first.must_ask(3, RUN)
    assert not other.must_ask(3, RUN)
    assert other.late() == []
    monkeypatch.setattr(nearby, "_LATE", -1.0)
    assert other.late() == [3]
    assert other.late() == []


def test_runs_do_not_see_each_others_orders(memory):
    """Whose numbers are the same."""
    Shelf(1).put(0, b"one")
    assert Shelf(2).get(0) is None
    assert Shelf(1).get(0) == b"one"


def test_what_cannot_be_written_is_asked_for_by_each(tmp_path, monkeypatch):
    """A node without memory to share, or whose memory is full."""
    monkeypatch.setattr(nearby, "_memory", lambda: tmp_path / "missing")
    one, other = Nearby(), Nearby()
    assert one.must_ask(0, RUN)
    assert other.must_ask(0, RUN)
    one.came(0, b"order")
    one.close()


@pytest.mark.parametrize("damage", [b"", b"\0" * 30, b"short"], ids=["empty", "zeros", "short"])
def test_damaged_orders_are_not_there(memory, damage):
    """A checksum tells, as it does of messages."""
    shelf = Shelf(RUN)
    shelf.put(0, b"order")
    (file,) = memory.glob("*/0")
    file.write_bytes(damage)
    assert shelf.get(0) is None


def test_orders_are_the_users_alone(memory):
    """They are unpickled; a folder that is a link, or of others, is not used."""
    shelf = Shelf(RUN)
    shelf.put(0, b"order")
    (file,) = memory.glob("*/0")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir()
    (memory / f"{nearby._PREFIX}{os.geteuid()}-{8:016x}").symlink_to(elsewhere)
    trapped = Shelf(8)
    trapped.put(0, b"order")
    assert trapped.get(0) is None
    assert list(elsewhere.iterdir()) == []


def test_the_last_that_leaves_takes_all_with_it(memory):
    """Nobody is left with a lock."""
    one, other = Shelf(RUN), Shelf(RUN)
    one.put(0, b"order")
    assert other.get(0) == b"order"
    one.close()
    assert other.get(0) == b"order"
    other.close()
    assert list(memory.iterdir()) == []


def test_what_killed_runs_have_left_goes_with_the_next_one(memory, monkeypatch):
    """Not what another run uses, and not what may be about to be used."""
    killed, used, young = Shelf(1), Shelf(2), Shelf(3)
    for shelf in killed, used, young:
        shelf.put(0, b"order")
    os.close(killed._lock)
    os.close(young._lock)
    old = time.time() - 2 * nearby._YOUNG
    for shelf in killed, used:
        os.utime(shelf._folder, (old, old))
    Shelf(4).put(0, b"order")
    left = {folder.name[-1] for folder in memory.iterdir()}
    assert left == {"2", "3", "4"}


def test_a_rank_lets_go_what_is_open_no_more(memory):
    """What it has put there, when it gets the next one."""
    rank, shelf = Nearby(), Shelf(RUN)
    for job in (0, 1):
        assert rank.must_ask(job, RUN)
        rank.came(job, b"order")
        rank.keep((job,))
    assert shelf.get(0) is None
    assert shelf.get(1) == b"order"


def test_an_order_that_was_put_there_beside_an_older_one_closes_no_newer_one_for_long(memory):
    """It says what was open when it was written: what a rank gives back for that, it works on when it is sent
    again."""
    numbers = (1, 2)
    shelf, rank = Shelf(RUN), Nearby()
    for number in numbers:
        parcel = transfer.parcel(number, transfer.parts(number), beside=(number - 1,))
        shelf.put(number, encoded(parcel)[1])
    worker = Worker(lambda job: lambda start, stop: (job, start))
    said = []
    for lease in (Lease(2, 0, 1), Lease(1, 0, 1), Lease(2, 0, 1), Lease(1, 1, 2)):
        worker.obey(lease)
        for answer in worker.answers():
            said.append(answer)
            assert isinstance(answer, Lost) or not rank.must_ask(answer.job, RUN)
        for content in rank.found():
            worker.obey(order_of(Kind.JOB, content))
    assert [answer.lease for answer in worker.answers() + said if isinstance(answer, Lost)] == [
        Lease(2, 0, 1)
    ]
    assert worker.jobs == numbers
    assert [worker.step() for _ in worker.held] == [[(1, 0)], [(2, 0)], [(1, 1)]]


@pytest.mark.long
def test_a_large_order_leaves_rank_0_once_for_a_node(mpi, tmp_path):
    """Where its ranks share no node with rank 0; the digest is that of one process."""
    alone, shared = counted(mpi, 1, tmp_path / "alone.db"), counted(mpi, 4, tmp_path / "shared.db")
    assert shared["digest"] == alone["digest"]
    assert shared["sent"]["JOB"][0] <= 3


def counted(mpi, ranks, store):
    """What a run of three generations tells of itself."""
    done = mpi.run(ranks, ROOT / "tests/programs/counting.py", store, 60, 0, "elsewhere")
    assert done.returncode == 0, done.stdout
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
