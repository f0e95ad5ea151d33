"""Large batches: every call has the same rows, and nothing depends on who made which of them."""

import importlib.util
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

import mpiabc
from mpiabc import cli, threads, waste
from mpiabc.evaluate import Evaluator, Level, evaluate
from mpiabc.kernels import mixture
from mpiabc.ledger import Ledger
from mpiabc.records import Status
from mpiabc.schedulers import Map
from mpiabc.streams import BLOCK, stream_key
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import ROOT, environment, jobs_of, missing
from tests.programs import foreign
from tests.programs.batches import sampler
from tests.test_parts import population

BATCH = 512


class Seen:
    """The toy simulator, which notes what it is called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, theta, rng, *, id):
        self.calls.append((id, theta["mu"].copy()))
        return problems.gaussian_vectorized(theta, rng)


def order(problem, proposal=None, size=10**6, level=1, epsilon=3.0):
    return Level(level, stream_key(1), epsilon, problem.prior if proposal is None else proposal, size)


class Far:
    """A proposal outside of the support, but for one row of a hundred."""

    def __init__(self, share=0.01):
        self.share = share

    def sample(self, n, rng):
        return np.where(rng.random((n, 1)) < self.share, 0.5, 5.0)

    def logpdf(self, theta):
        return np.zeros(len(theta))


def test_every_call_has_exactly_the_rows_of_a_batch(tmp_path):
    seen = Seen()
    history = sampler(seen).run(tmp_path / "run.db", scheduler="serial")
    assert {len(mu) for _, mu in seen.calls} == {BATCH}
    assert {len(id.index) for id, _ in seen.calls} == {BATCH}
    assert all((np.abs(mu) <= 2).all() for _, mu in seen.calls)
    assert history[2].simulations < history[2].evaluations  # some proposals were outside


def test_rows_outside_of_the_support_repeat_the_first_one_inside():
    seen = Seen()
    problem = sampler(seen).problem
    records = evaluate(problem, order(problem), 0, BATCH)
    ((id, mu),) = seen.calls
    assert id.index.tolist() == list(range(BATCH))
    assert not (records.status == Status.OUTSIDE).any()
    seen.calls.clear()
    records = evaluate(problem, order(problem, Far()), 0, BATCH)
    ((id, mu),) = seen.calls
    is_inside = records.status != Status.OUTSIDE
    first = int(np.argmax(is_inside))
    assert 0 < np.count_nonzero(is_inside) < 30
    assert set(id.index.tolist()) == set(np.flatnonzero(is_inside).tolist())
    assert set(id.index[~is_inside].tolist()) == {first}
    assert set(mu.tolist()) == {0.5}


def test_what_comes_back_for_repeated_rows_is_dropped():
    def only_the_first_time(theta, rng, *, id):
        is_first = np.zeros(BATCH, bool)
        is_first[np.unique(id.index)] = True  # here each row stands where its id says
        return {"y": np.where(is_first, 1.0, np.nan)}

    problem = sampler(only_the_first_time).problem
    records = evaluate(problem, order(problem, Far(0.3)), 0, BATCH)
    assert not records.failures
    assert set(records.status.tolist()) == {Status.ACCEPTED, Status.OUTSIDE}


def test_batch_without_a_row_inside_is_not_simulated():
    seen = Seen()
    problem = sampler(seen).problem
    records = evaluate(problem, order(problem, Far(0.0)), 0, 2 * BATCH)
    assert set(records.status.tolist()) == {Status.OUTSIDE}
    assert not seen.calls


KERNELS = {"gaussian": mpiabc.Gaussian(), "local": mpiabc.LocalGaussian(), "foreign": foreign.Student()}


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel", [None, *KERNELS])
def test_a_batch_proposes_what_its_blocks_do(kernel, d):
    """Bit for bit, also where many draws are placed together by a table."""
    prior = mpiabc.Prior(**{f"x{i}": mpiabc.Normal(0, 3) for i in range(d)})
    proposal = prior if kernel is None else KERNELS[kernel].fit(population(700, d))

    def proposed(number, **options):
        problem = mpiabc.Problem(prior, lambda theta, rng: theta["x0"], 0.0, vectorized=True, **options)
        return Evaluator(problem, order(problem, proposal)).propose(number).theta

    blocks = [proposed(number) for number in range(32, 64)]
    np.testing.assert_array_equal(proposed(1, batch=32 * BLOCK), np.concatenate(blocks))


def test_an_evaluation_does_not_depend_on_how_batches_are_leased():
    problem = sampler().problem
    whole = evaluate(problem, order(problem), 0, 4 * BATCH)
    parts = [evaluate(problem, order(problem), *at) for at in ((0, BATCH), (BATCH, 3 * BATCH))]
    np.testing.assert_array_equal(whole.status[: 3 * BATCH], np.concatenate([p.status for p in parts]))
    for name in whole.rows.columns():
        joined = np.concatenate([getattr(p.rows, name) for p in parts])
        np.testing.assert_array_equal(getattr(whole.rows, name)[: len(joined)], joined)


def test_of_the_acceptances_of_a_lease_those_come_home_that_may_count():
    """Where a population is complete without the others, they are not weighed, and not known."""
    problem = sampler().problem
    whole, cut = (evaluate(problem, order(problem, size=size), 0, 4 * BATCH) for size in (10**6, 50))
    np.testing.assert_array_equal(cut.rows.ids, whole.rows.ids[:50])
    np.testing.assert_array_equal(cut.rows.log_weights, whole.rows.log_weights[:50])
    end = int(cut.rows.ids[-1]) + 1
    np.testing.assert_array_equal(cut.status[:end], whole.status[:end])
    assert not cut.status[end:].any()


def test_ids_above_a_complete_population_are_not_handed_out_again():
    """Although the batch that they are in begins below its end."""
    problem, ledger = sampler().problem, Ledger(1, 50, step=BATCH)
    low, high = ledger.lease(BATCH), ledger.lease(BATCH)
    ledger.tell(evaluate(problem, order(problem, size=50), high.start, high.stop))
    assert high.start < ledger.cut < high.stop
    ledger.give_back(high.start, high.stop)
    assert ledger.lease(BATCH) is None
    ledger.recover()
    assert ledger.lease(BATCH) == low
    assert ledger.lease(BATCH) is None


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    return problems.digests(sampler().run(folder / "run.db", scheduler="serial"))


@pytest.mark.parametrize("seed", range(4))
def test_digest_does_not_depend_on_who_finishes_first_or_is_lost(seed, expected, tmp_path):
    cluster = Simulated(5, random_time, seed=seed, loss=0.1, duplicate=0.1)
    assert problems.digests(sampler().run(tmp_path / "run.db", scheduler=cluster)) == expected


def test_static_slots_get_the_same_on_any_number_of_workers(tmp_path):
    found = [
        problems.digests(sampler(n=600).run(tmp_path / f"{i}.db", scheduler=scheduler))
        for i, scheduler in enumerate([Map(map), Simulated(3, random_time, is_static=True)])
    ]
    assert found[0] == found[1]


@jobs_of(("mpi", "ranks"), [], ("mpich", 1), ("mpich", 3), ("openmpi", 2))
def test_digest_does_not_depend_on_the_number_of_ranks(mpi, ranks, expected, tmp_path):
    job = mpi.run(ranks, "-m", "tests.programs.batches", tmp_path / "run.db", "mpi")
    assert job.returncode == 0, job.stdout
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected


@pytest.mark.long
@pytest.mark.parametrize("scheduler", ["serial", "processes"])
def test_killed_in_a_batch_the_run_ends_with_the_same_digests(scheduler, expected, tmp_path):
    """The leader itself, and the run goes on in the next call; or a child, and another one does its batch."""
    store, flag = tmp_path / "run.db", tmp_path / "flag"
    command = [sys.executable, "-m", "tests.programs.batches", store, scheduler, flag]
    statuses = []
    while not statuses or (statuses[-1] and len(statuses) < 3):
        done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
        statuses.append(done.returncode)
    assert statuses == ([-signal.SIGKILL, 0] if scheduler == "serial" else [0]), done.stderr
    assert flag.exists()
    assert problems.digests(mpiabc.open(store)) == expected


TRACED = """
import jax
from tests.test_batches import BATCH, sampler

def traces(batch):
    shapes = []

    @jax.jit
    def noisy(mu, key):
        shapes.append(mu.shape)
        return mu + jax.random.normal(key, mu.shape)

    def simulate(theta, rng):
        return {"y": noisy(theta["mu"], jax.random.key(rng.integers(2**32)))}

    history = sampler(simulate, batch=batch).run(f"{folder}/{batch}.db", scheduler="serial", generations=2)
    assert len(history) == 2
    return shapes

assert traces(BATCH) == [(BATCH,)]
assert len(traces(None)) > 1  # as many as there are numbers of rows inside
"""


@pytest.mark.long
def test_a_jax_simulator_is_compiled_once(tmp_path):
    """In a process of its own: where JAX is, nothing can be forked any more."""
    if importlib.util.find_spec("jax") is None:
        missing("no jax")
    program = [sys.executable, "-c", f"folder = {str(tmp_path)!r}{TRACED}"]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_numba_simulator_gives_what_numpy_does(expected, tmp_path):
    try:
        import numba
    except ImportError as error:
        missing(str(error))

    @numba.njit
    def shifted(mu, noise):
        out = np.empty_like(mu)
        for i in range(len(mu)):
            out[i] = mu[i] + noise[i]
        return out

    def simulate(theta, rng):
        return {"y": shifted(theta["mu"], rng.standard_normal(len(theta["mu"])))}

    assert problems.digests(sampler(simulate).run(tmp_path / "run.db", scheduler="serial")) == expected


@pytest.mark.parametrize("batch", [0, -256, 100, 384, 300.5, 512.0, float("nan"), True, "512"])
def test_batch_that_is_no_multiple_of_a_block_is_refused(batch):
    with pytest.raises(mpiabc.ProblemError, match=r"batch=.*: give a multiple of 256"):
        problems.problem(problems.gaussian_vectorized, vectorized=True, batch=batch)


def test_batch_of_a_simulator_of_single_rows_is_refused():
    with pytest.raises(mpiabc.ProblemError, match=r"batch=512 is for simulators of many rows a call"):
        problems.problem(batch=512)


def test_batch_is_the_smallest_lease():
    assert problems.problem().step == 1
    assert problems.problem(problems.gaussian_vectorized, vectorized=True).step == BLOCK
    assert problems.problem(problems.gaussian_vectorized, vectorized=True, batch=np.int64(1024)).step == 1024


def test_batch_belongs_to_the_run(tmp_path):
    """Files from before there was one go on: without it, a problem says of itself what it always did."""
    assert sampler(batch=None).problem.parts()["vectorized"] == "True"
    sampler().run(tmp_path / "run.db", scheduler="serial", generations=1)
    for batch in (None, 1024):
        with pytest.raises(mpiabc.StoreError, match="vectorized: 'True, batch=512' there"):
            sampler(batch=batch).run(tmp_path / "run.db", scheduler="serial")


def broken(theta, rng):
    """Every third call breaks, whoever makes it."""
    if rng.random() < 1 / 3:
        raise RuntimeError("the pump broke")
    return problems.gaussian_vectorized(theta, rng)


def test_a_call_that_raises_is_one_failure_of_its_batch(tmp_path):
    problem = sampler(broken, on_error="reject").problem
    records = evaluate(problem, order(problem), 0, 8 * BATCH)
    is_failed = (records.status == Status.FAILED).reshape(8, BATCH)
    assert (is_failed.all(axis=1) == is_failed.any(axis=1)).all()
    assert 0 < len(records.failures) == is_failed.all(axis=1).sum() < 8
    found = [
        problems.digests(sampler(broken, on_error="reject").run(tmp_path / f"{i}.db", scheduler=scheduler))
        for i, scheduler in enumerate(["serial", Simulated(3, random_time)])
    ]
    assert found[0] == found[1]


def failing_once(how):
    """The toy simulator, one of whose calls comes to nothing."""

    def simulate(theta, rng, *, id):
        if id.generation == 1 and id.index[0] < BATCH:
            how()
        return problems.gaussian_vectorized(theta, rng)

    return simulate


def broken_pump():
    raise RuntimeError("the pump broke")


@pytest.mark.long
def test_a_call_that_takes_too_long_is_one_failure_of_its_batch(tmp_path):
    late = sampler(failing_once(partial(time.sleep, 600)), timeout=2.0, on_error="reject")
    raised = sampler(failing_once(broken_pump), on_error="reject")
    histories = [
        one.run(tmp_path / f"{i}.db", scheduler="serial", generations=2)
        for i, one in enumerate((late, raised))
    ]
    assert problems.digests(histories[0]) == problems.digests(histories[1])
    assert [population.failures for population in histories[0]] == [0, 1]


def test_rows_that_are_nan_fail_alone():
    def simulate(theta, rng):
        return {"y": np.where(np.arange(BATCH) % 100 == 7, np.nan, theta["mu"])}

    problem = sampler(simulate, on_error="reject").problem
    records = evaluate(problem, order(problem), 0, BATCH)
    assert [failure.index for failure in records.failures] == [7, 107, 207, 307, 407, 507]
    assert np.flatnonzero(records.status == Status.FAILED).tolist() == [7, 107, 207, 307, 407, 507]


def test_simulator_all_of_whose_calls_fail_ends_the_run(tmp_path):
    def simulate(theta, rng):
        raise RuntimeError("the pump broke")

    with pytest.raises(mpiabc.SimulatorError, match=r"all of the first \d+ evaluations failed"):
        sampler(simulate, on_error="reject").run(tmp_path / "run.db", scheduler="serial")


def test_wrong_first_axis_is_reported_with_what_was_expected(tmp_path):
    def simulate(theta, rng):
        return {"y": theta["mu"][:-1]}

    with pytest.raises(mpiabc.ProblemError, match=r"array \(511,\).*expected.*512"):
        sampler(simulate).run(tmp_path / "run.db", scheduler="serial")


def test_summary_gets_whole_batches_and_the_distance_single_rows(tmp_path):
    lengths, rows = set(), []

    def summarize(data):
        lengths.add(len(data["y"]))
        return data

    def distance(simulated, observed):
        rows.append(simulated["y"])
        return abs(simulated["y"] - observed["y"])

    history = sampler(summarize=summarize, distance=distance).run(tmp_path / "run.db", scheduler="serial")
    assert lengths == {BATCH}
    assert all(type(row) is float for row in rows)
    simulated = sum(-(-p.evaluations // BATCH) * BATCH for p in history)
    assert sum(p.simulations for p in history) <= len(rows) < simulated  # repeated rows are not measured


def test_replay_simulates_the_batch_and_shows_the_row(tmp_path, capsys):
    fit = tmp_path / "fit.py"
    fit.write_text("from tests.programs.batches import sampler\nproblem = sampler().problem\n")
    last = sampler().run(tmp_path / "run.db", scheduler="serial")[-1]
    assert cli.main(["replay", str(tmp_path / "run.db"), f"2:{last.ids[-1]}", "--problem", str(fit)]) == 0
    assert "equal, bit for bit" in capsys.readouterr().out


def test_which_batch_would_waste_less_is_reported_once_at_the_end(tmp_path, caplog):
    sampler(batch=16384).run(tmp_path / "run.db", scheduler="serial")
    assert caplog.text.count("batch=16384 simulates 49152 rows where ") == 1
    assert "batch=512 would waste less than half, in a new run" in caplog.text
    caplog.clear()
    sampler(batch=256).run(tmp_path / "other.db", scheduler="serial")
    assert "simulates" not in caplog.text.replace("workers simulated", "")


def test_half_of_a_batch_may_be_wasted():
    uses = [waste.Use(1024, ids=1024), waste.Use(1024, ids=1500)]
    assert waste.note(2048, uses) is None
    assert "batch=2048 would" in waste.note(4096, uses)
    assert "smaller batches would waste over half, too" in waste.note(512, [waste.Use(500, ids=2048)])


def test_waste_of_slots_counts_the_rounds_of_each_part():
    ids = np.array([0, 1024 + 1, 2, 3 * 1024 + 600])  # of slots 0, 1, 2 and 600
    use = waste.static_use(7, ids, 1024)
    assert use.tries.tolist() == [1, 2, 1, 4]
    assert use.simulated(1024) == 4 * 1024


@pytest.mark.long
def test_example_says_the_same_on_ranks(mpi, tmp_path):
    """By the Python of each MPI, which has JAX or not."""
    said = []
    for ranks, scheduler in [(1, "serial"), (2, "mpi")]:
        job = mpi.run(ranks, "examples/gpu_simulator.py", scheduler, tmp_path / f"{ranks}.db")
        assert job.returncode == 0, job.stdout
        said.append([line for line in job.stdout.splitlines() if line.startswith(("beta", "gamma"))])
    assert said[0] == said[1]
    assert said[0][0].startswith("beta: 0.6")


@pytest.mark.parametrize("kernel", [mpiabc.Gaussian(), mpiabc.LocalGaussian()])
def test_densities_do_not_depend_on_how_many_threads_share_them(kernel, monkeypatch):
    proposal, rows = kernel.fit(population(700, 3)), np.arange(0, 700, 2)
    theta = proposal.sample(1001, np.random.default_rng(1))
    theta[17] = 1e6  # where the sum needs care
    one = proposal.logpdf(theta), proposal.log_others(rows)
    monkeypatch.setattr(mixture, "_PAIRS", 1)
    for count in (2, 3, 7):
        monkeypatch.setattr(threads, "share", lambda count=count: count)
        np.testing.assert_array_equal(proposal.logpdf(theta), one[0])
        np.testing.assert_array_equal(proposal.log_others(rows), one[1])
