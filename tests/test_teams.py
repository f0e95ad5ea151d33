"""Teams of ranks: simulators that are MPI programs themselves."""

import contextlib
import json
import re
import signal

import pytest

import mpiabc
from mpiabc import schedulers
from mpiabc.schedulers.teams import Plan, planned, remarks
from tests import jobs, problems
from tests.conftest import HANGS, jobs_of, launcher_of
from tests.programs import teamed

PLANS = {
    "one node": ([0] * 6, 2, [(0, 1), (2, 3), (4, 5)], []),
    "left over": ([0] * 5, 2, [(0, 1), (2, 3)], [4]),
    "two nodes, one rank left on each": ([0] * 3 + [3] * 3, 2, [(0, 1), (3, 4)], [2, 5]),
    "ranks dealt round the nodes": ([0, 1, 0, 1, 0, 1], 3, [(0, 2, 4), (1, 3, 5)], []),
    "larger than a node": ([0, 0, 2, 2, 4, 4], 4, [(0, 1, 2, 3)], [4, 5]),
    "rank 0's node is too small": ([0, 1, 1, 1], 3, [(1, 2, 3)], [0]),
    "rank 0 cannot simulate": ([None, 0, 0, 0, 0], 2, [(1, 2), (3, 4)], [0]),
    "teams of one": ([0, 0, 2], 1, [(0,), (1,), (2,)], []),
}


@pytest.mark.parametrize("case", PLANS)
def test_teams_are_made_up_node_by_node(case):
    nodes, size, teams, idle = PLANS[case]
    assert planned(nodes, size) == Plan(tuple(teams), tuple(idle))


def test_ranks_without_a_team_are_reported():
    assert list(remarks(planned([0] * 4, 2), is_threaded=True)) == []
    assert list(remarks(planned([0] * 4, 3), is_threaded=True)) == ["rank 3 fills no team of 3: idle"]
    (leads, idle) = remarks(planned([None, 0, 0, 0, 0, 0, 0], 4), is_threaded=False)
    assert leads == "rank 0 leads, and is in no team: its MPI takes calls of one thread at a time"
    assert idle == "ranks 5, 6 fill no team of 4: idle"


def digests_of(job):
    """What a job of `teamed` has found, by variant and size."""
    assert job.returncode == 0, job.stdout
    (line,) = [line for line in job.stdout.splitlines() if line.startswith("DIGESTS")]
    return json.loads(line.removeprefix("DIGESTS"))


def teamed_job(mpi, ranks, sizes, *variants):
    return mpi.run(ranks, "-m", "tests.programs.teamed", sizes, *variants)


@pytest.fixture(scope="module")
def alone():
    """The digests of serial runs, in which comm is COMM_SELF; static ones, of a team of one."""
    launcher = launcher_of("mpich")
    dynamic = [variant for variant in teamed.VARIANTS if variant != "static"]
    found = digests_of(teamed_job(launcher, 1, "0", *dynamic))
    found |= digests_of(teamed_job(launcher, 1, "1", "static"))
    return {name.rpartition(" ")[0]: digests for name, digests in found.items()}


@pytest.mark.long
def test_digest_does_not_depend_on_the_size_of_teams(mpi, alone):
    """Failing simulations leave messages behind that no later one may read."""
    found = digests_of(teamed_job(mpi, 2, "1,2"))
    assert found == {f"{variant} {size}": alone[variant] for variant in teamed.VARIANTS for size in (1, 2)}


@jobs_of(["mpi"], [], ["mpich"])
def test_digest_does_not_depend_on_the_number_of_teams(mpi, alone):
    """Six ranks as six teams, three, two, and one team with two ranks left over, in one script."""
    job = teamed_job(mpi, 6, "1,2,3,4", "scalar")
    found = digests_of(job)
    assert found == {f"scalar {size}": alone["scalar"] for size in (1, 2, 3, 4)}
    assert job.stdout.count("ranks 4, 5 fill no team of 4: idle") == 1


@jobs_of(["mpi"], [], ["openmpi"])
def test_example_has_one_digest_on_one_rank_and_on_teams_that_share_its_cells(mpi, tmp_path):
    """A domain decomposition with exchanges at the edges, on teams of 1, 2 and 3 of 2 and 6 ranks."""

    def last_line(ranks, size):
        job = mpi.run(ranks, "examples/mpi_simulator.py", size, tmp_path / "heat.db")
        assert job.returncode == 0, job.stdout
        (line,) = [line for line in job.stdout.splitlines() if line.startswith("diffusion")]
        return line

    serial = last_line(1, "")
    assert [last_line(*case) for case in ((2, 1), (2, 2), (6, 3))] == [serial] * 3


FIT = """
import mpiabc

def simulate(theta, rng, *, comm):
    who = mpiabc.worker()
    print("part", comm.rank, "of", comm.size, "is", who.rank, who.local_rank, who.team)
    assert comm.allreduce(1) == comm.size
    return theta["mu"] + rng.standard_normal()

problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, 1.0)
"""
HALVES = """
import sys
from mpi4py import MPI
import mpiabc
from tests.test_teams import FIT

scope = {}
exec(FIT, scope)
half = MPI.COMM_WORLD.rank // 2
place = mpiabc.schedulers.MPI(MPI.COMM_WORLD.Split(half), team=2)
for name in ("first", "second"):
    store = f"{sys.argv[1]}/{name}-{half}.db"
    mpiabc.ABCSMC(scope["problem"], 30, seed=1).run(store, generations=2, scheduler=place)
"""


@jobs_of(["mpi"], [], ["mpich"])
def test_command_line_makes_teams_and_a_communicator_may_be_the_users(mpi, tmp_path):
    """What ranks print comes with their number, once; halves of a job have runs of their own, each two."""
    (tmp_path / "fit.py").write_text(FIT)
    settings = ["--population-size=30", "--generations=2", "--seed=1", "--team=2"]
    job = mpi.run(3, "-m", "mpiabc", "run", tmp_path / "fit.py", *settings, "--store", tmp_path / "run.db")
    assert job.returncode == 0, job.stdout
    assert "rank 2 fills no team of 2: idle" in job.stdout
    for rank in (0, 1):
        message = rf"^rank {rank} of 3 on \S+: part {rank} of 2 is {rank} {rank} 0$"
        assert len(re.findall(message, job.stdout, re.M)) == 1
    (tmp_path / "halves.py").write_text(HALVES)
    halves = mpi.run(4, tmp_path / "halves.py", tmp_path)
    assert halves.returncode == 0, halves.stdout
    stores = [tmp_path / f"{name}-{half}.db" for name in ("first", "second") for half in (0, 1)]
    digests = [problems.digests(mpiabc.open(store)) for store in (tmp_path / "run.db", *stores)]
    assert digests == [digests[0]] * 5


def failing(mpi, ranks, how, on_error, store):
    return mpi.run(ranks, "-m", "tests.programs.teams_failing", how, on_error, store)


SENTENCES = {
    "all before": (0, None),
    "first after": (0, None),
    "other after": (1, None),
    "first before": (0, "other ranks of its team are not back 1 s later, which ends the job"),
    "other before": (1, "other ranks of its team are not back 1 s later, which ends the job"),
}


@pytest.mark.long
@jobs_of(
    ("mpi", "how", "ranks"),
    [("mpich", "other after", 2), ("mpich", "other after", 4)],
    ("openmpi", "all before", 2),
    ("mpich", "all before", 4),
    ("mpich", "first after", 2),
    ("openmpi", "first after", 4),
    ("mpich", "first before", 2),
    ("mpich", "first before", 4),
    ("mpich", "other before", 2),
    ("openmpi", "other before", 4),
)
def test_a_failure_on_any_rank_of_a_team_ends_the_job_and_is_named(mpi, how, ranks, tmp_path):
    """In rank 0's team, the one of two ranks, and in another; where others sit in a collective call, too.

    With the rank that raised, and its traceback.
    """
    job = failing(mpi, ranks, how, "raise", tmp_path / "run.db")
    assert job.returncode == 1
    part, sentence = SENTENCES[how]
    rank = ranks - 2 + part
    said = job.stdout[job.stdout.index("mpiabc.errors.SimulatorError") :]
    assert re.match(
        rf"mpiabc.errors.SimulatorError: evaluation 0:\d+ failed on rank {rank} of {ranks} on ", said
    )
    assert f"RuntimeError: the pump of part {part} broke" in said
    assert "in go_wrong" in said
    assert "/mpiabc/schedulers/" not in said
    assert sentence is None or sentence in said


@jobs_of(["mpi"], [], ["mpich"], ["openmpi"])
def test_what_ends_a_rank_of_a_team_or_takes_too_long_ends_the_job(mpi, tmp_path):
    exited = failing(mpi, 4, "exit", "raise", tmp_path / "exited.db")
    leading = failing(mpi, 2, "exit first", "raise", tmp_path / "leading.db")
    hangs = failing(mpi, 4, "hang", "raise", tmp_path / "hangs.db")
    assert exited.returncode == leading.returncode == hangs.returncode == 1
    assert re.search(r"evaluation 0:17 failed on rank 0 of 2 on ", leading.stdout)
    assert re.search(r"evaluation 0:\d+ failed on rank 3 of 4 on ", exited.stdout)
    assert "the simulator ended the process: exit() of C, or STOP of Fortran" in exited.stdout
    assert re.search(r"evaluation 0:\d+ failed on rank 2 of 4 on ", hangs.stdout)
    assert "the simulation took longer than timeout=2.0 s, which ends the job of a team" in hangs.stdout


@jobs_of(["mpi"], [], ["mpich"])
def test_policy_on_error_holds_where_a_team_can_be_drained_and_else_when_run_again(mpi, tmp_path):
    def done(job):
        assert job.returncode == 0, job.stdout
        (line,) = [line for line in job.stdout.splitlines() if line.startswith("DONE")]
        return line

    drained = failing(mpi, 2, "other after", "reject", tmp_path / "drained.db")
    ended = failing(mpi, 2, "other before", "reject", tmp_path / "ended.db")
    again = failing(mpi, 2, "other before", "reject", tmp_path / "ended.db")
    assert ended.returncode == 1
    assert "SchedulerError: evaluation 0:17 failed on rank 1 of 2 on " in ended.stdout
    assert "run the same command again to go on without it" in ended.stdout
    assert done(drained) == done(again)
    assert done(drained).endswith("['0:17']")


def slow(ranks, store, *, walltime="-", pause=0.0, dying="-", team=2):
    return ranks, "-m", "tests.programs.teams_slow", store, walltime, pause, dying, team


def last_digests(job):
    assert job.returncode == 0, job.stdout
    (line,) = [line for line in job.stdout.splitlines() if line.startswith("DONE")]
    return line.split()[1:]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The digests of a run of `teams_slow`, as of the same problem without teams."""
    sampler = problems.sampler(n=60, simulate=problems.gaussian)
    return problems.digests(sampler.run(tmp_path_factory.mktemp("quiet") / "run.db", scheduler="serial"))


@jobs_of(["mpi"], [], ["mpich"])
def test_a_run_of_teams_that_was_stopped_goes_on_with_other_teams(mpi, quiet, tmp_path):
    stopped = mpi.run(*slow(3, tmp_path / "run.db", walltime="3s", pause=0.02))
    assert stopped.returncode == 75, stopped.stdout
    assert "run the same command again to continue" in stopped.stdout
    assert last_digests(mpi.run(*slow(1, tmp_path / "run.db", team=1))) == quiet


@jobs_of(("mpi", "rank"), [], ("mpich", 0), ("openmpi", 3))
def test_a_signal_to_one_rank_ends_all_teams_resumably(mpi, rank, quiet, tmp_path):
    """While simulations are at work everywhere."""
    job = jobs.Job(mpi.command(*slow(4, tmp_path / "run.db", pause=0.05)), tmp_path)
    with contextlib.closing(job):
        assert job.until(lambda: problems.committed(tmp_path / "run.db"), pause=0.05), job.said()
        ranks = {jobs.rank_of(content): pid for pid, content in job.processes().items()}
        jobs.send([ranks[rank]], signal.SIGUSR1)
        assert job.leader.wait(HANGS) == 75, job.said()
        assert f"stopped by {'a signal to rank 3' if rank else 'SIGUSR1'} in generation" in job.said()[0]
        assert job.leftovers() == []
    assert last_digests(mpi.run(*slow(2, tmp_path / "run.db"))) == quiet


@pytest.fixture(scope="module")
def tolerant():
    """Open MPI with its fault tolerance."""
    return launcher_of("openmpi", "--with-ft", "ulfm")


@pytest.mark.parametrize("rank", [1, 2, 3], ids=["of rank 0's team", "that leads a team", "of another team"])
def test_a_dead_rank_ends_its_team_and_the_others_go_on(tolerant, rank, quiet, tmp_path):
    """Its team's lease goes out again, although others of the team sit in a collective call."""
    job = tolerant.run(*slow(4, tmp_path / "run.db", pause=0.01, dying=str(rank)))
    assert last_digests(job) == quiet
    assert job.stdout.count(f"rank {rank} of 4 on ") == 1
    assert job.stdout.count("died; its evaluations go out again") == 1


def test_ranks_of_all_teams_dead_end_the_job(tolerant, quiet, tmp_path):
    job = tolerant.run(*slow(4, tmp_path / "run.db", pause=0.01, dying="3,1"))
    assert job.returncode == 1
    assert "ranks of every team have died: run the same command again" in job.stdout
    assert last_digests(tolerant.run(*slow(2, tmp_path / "run.db"))) == quiet


# What is refused, before any work.


def with_comm(theta, rng, *, comm):
    raise AssertionError("no simulation is wanted here")


WITHOUT_TEAMS = {
    "processes": schedulers.Processes(2),
    "map": schedulers.Map(map),
    "executor": schedulers.Futures(None),
    "redis": "redis://nobody.invalid",
    "dask": "tcp://nobody.invalid:1",
    "single ranks": schedulers.MPI(),
    "static": "mpi-static",
    "several": [schedulers.MPI(), schedulers.Redis("redis://nobody.invalid")],
    "auto": "auto",
}


@pytest.mark.parametrize("place", WITHOUT_TEAMS)
def test_a_simulator_that_takes_comm_is_refused_where_there_are_no_teams(place, tmp_path):
    with pytest.raises(
        mpiabc.ProblemError, match=r"the simulator takes comm, and .*MPI\(team=4\) under mpirun"
    ):
        problems.sampler(simulate=with_comm).run(tmp_path / "run.db", scheduler=WITHOUT_TEAMS[place])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [schedulers.MPI(team=2), schedulers.MPIStatic(team=2)], ids=repr)
def test_teams_are_refused_for_a_simulator_that_takes_no_comm(place, tmp_path):
    with pytest.raises(mpiabc.ProblemError, match=r"team=2\), and the simulator takes no comm"):
        problems.sampler().run(tmp_path / "run.db", scheduler=place)


@pytest.mark.parametrize("team", [0, -1, 2.5, "two", True])
def test_bad_sizes_of_teams_are_refused(team, tmp_path):
    with pytest.raises(
        mpiabc.SchedulerError, match=rf"MPI\(team={team!r}\): give a whole number of at least 1"
    ):
        problems.sampler(simulate=with_comm).run(tmp_path / "run.db", scheduler=schedulers.MPI(team=team))


def test_teams_are_refused_beside_other_workers_and_for_pools():
    with pytest.raises(mpiabc.SchedulerError, match="teams work without other workers"):
        schedulers.Combined([schedulers.MPI(team=2), schedulers.Redis("redis://nobody.invalid")])
    with (
        pytest.raises(mpiabc.SchedulerError, match=r"MPI\(team=2\) for a Pool"),
        mpiabc.Pool(schedulers.MPI(team=2)),
    ):
        pass


def test_a_team_larger_than_the_number_of_ranks_is_refused(mpi):
    job = teamed_job(mpi, 2, "3", "scalar")
    assert job.returncode == 1
    assert "MPI(team=3) on 2 ranks: start at least as many ranks as make up a team" in job.stdout
