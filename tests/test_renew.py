"""Processes that make room for new ones after so many simulations: same digests, nothing done twice."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

import mpiabc
from mpiabc import schedulers
from tests import problems


def noting(folder):
    """A simulator that notes in a folder what each process has simulated."""
    folder.mkdir()

    def simulate(theta, rng, *, id):
        time.sleep(0.001)
        with open(folder / str(os.getpid()), "a") as file:
            file.write(f"{id}\n")
        return problems.gaussian(theta, rng)

    return simulate


def simulated(folder):
    """By process, which evaluations."""
    return {file.name: file.read_text().split() for file in folder.iterdir()}


@pytest.mark.long
@pytest.mark.parametrize(("n", "start", "renew"), [(1, "fork", 1), (3, "fork", 20), (1, "spawn", 100)])
def test_processes_are_renewed_and_nothing_is_lost_or_done_twice(n, start, renew, tmp_path):
    scheduler = schedulers.Processes(n, start=start, renew=renew)
    quiet = problems.sampler(60).run(tmp_path / "quiet.db", scheduler="serial")
    history = problems.sampler(60, simulate=noting(tmp_path / "by")).run(
        tmp_path / "run.db", scheduler=scheduler
    )
    assert problems.digests(history) == problems.digests(quiet)
    by = simulated(tmp_path / "by")
    done = Counter(id for ids in by.values() for id in ids)
    assert n > 1 or set(done.values()) == {1}  # an idle one takes copies of what waits behind others
    # A process ends what it holds, which is at most two leases of a twentieth of a second.
    assert len(by) >= min(done.total() // (renew + 100), 30)
    assert len(by) > n
    assert history.failures == []


@pytest.mark.long
def test_a_process_alone_that_is_replaced_again_and_again_is_no_sign_of_trouble(tmp_path):
    """Also where what replaces it is a timeout: more than the births that are taken for a sign."""

    def hanging(theta, rng, *, id):
        if id.generation == 0 and id.index < 26:
            time.sleep(1000)
        return problems.gaussian(theta, rng)

    sampler = problems.sampler(20, (3,), simulate=hanging, on_error="reject", timeout=0.1)
    history = sampler.run(tmp_path / "run.db", scheduler=schedulers.Processes(1, start="fork"))
    assert [failure.kind for failure in history.failures] == ["timeout"] * 26


def test_process_of_a_map_is_renewed_too():
    with mpiabc.Pool(schedulers.Processes(1, start="fork", renew=3)) as pool:
        pids = pool.map(lambda _: (time.sleep(0.01), os.getpid())[1], range(40))
    assert len(set(pids)) > 5


@pytest.mark.parametrize("renew", [0, -1, 1.5, True, "10"])
def test_renewal_after_no_number_of_simulations_is_refused(renew, tmp_path):
    scheduler = schedulers.Processes(1, renew=renew)
    with pytest.raises(mpiabc.SchedulerError, match=r"renew=.*: give a whole number of at least 1"):
        problems.sampler().run(tmp_path / "run.db", scheduler=scheduler)
    assert not Path(tmp_path / "run.db").exists()
