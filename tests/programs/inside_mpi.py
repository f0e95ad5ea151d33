"""Collected by pytest on each of three ranks; started by test_run.py."""

import os
import tempfile

import pytest

import mpiabc
from mpiabc import schedulers
from tests import problems

pytestmark = pytest.mark.mpi(min_size=3)


def world():
    from mpi4py import MPI

    return MPI.COMM_WORLD


def run(name, scheduler):
    """Run on these ranks; the digests on the leading one, None elsewhere."""
    folder = world().bcast(tempfile.mkdtemp(prefix="inside-") if world().rank == 0 else None)
    history = problems.sampler().run(os.path.join(folder, name), scheduler=scheduler)
    return None if history is None else problems.digests(history)


def test_rank_0_gets_the_history_and_the_others_none():
    digests = world().gather(run("run.db", "auto"))
    if world().rank == 0:
        assert len(digests[0]) == 3
        assert digests[1:] == [None, None]


def test_several_runs_in_one_job_are_the_same_run():
    first = [run("run.db", name) for name in ("mpi", "mpi", "mpi-static", "mpi-static")]
    assert first[0] == first[1]
    assert first[2] == first[3]
    assert (first[0] != first[2]) == (world().rank == 0)


def test_two_communicators_run_side_by_side():
    """Ranks 0 and 1 make one run, rank 2 alone another one at the same time."""
    part = world().Split(color=world().rank // 2)
    digests = run(f"{world().rank // 2}.db", schedulers.MPI(part))
    everyone = world().allgather(digests)
    assert everyone[1] is None
    assert everyone[0] == everyone[2]
    part.Free()


def test_sampling_in_steps_leaves_the_other_ranks_waiting():
    folder = world().bcast(tempfile.mkdtemp(prefix="inside-") if world().rank == 0 else None)
    sampling = problems.sampler().sample(os.path.join(folder, "run.db"), scheduler="mpi")
    seen = [population.generation for population in sampling]
    assert seen == ([0, 1, 2] if world().rank == 0 else [])
    assert issubclass(mpiabc.Interrupted, SystemExit)
