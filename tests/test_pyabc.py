"""pyABC on our schedulers: the same database whoever evaluates, a sampler's contract, and statistics."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mpiabc import schedulers
from mpiabc.errors import ProblemError, SchedulerError, SimulatorError
from mpiabc.schedulers.shared import transfer
from tests import bridge
from tests.cluster import Simulated
from tests.conftest import HANGS, ROOT, environment, jobs_of, launcher_of, quick

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyabc

        from mpiabc.adapters import sampling
        from mpiabc.adapters.carried import carried
        from mpiabc.adapters.pyabc import Sampler, open_sampler
        from tests import pyabc_models as models
except (ImportError, SchedulerError) as error:
    pytest.skip(f"no pyABC: {error}", allow_module_level=os.environ.get("CI") != "true")

PROGRAM = ("-m", "tests.programs.pyabc_examples")


def words_after(output, word):
    """What a program has printed behind this word, line by line."""
    return [line.split()[1:] for line in output.splitlines() if line.startswith(f"{word} ")]


def program(*arguments, **options):
    """A finished program of one process, which leads."""
    return subprocess.run(
        [sys.executable, *PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
        **options,
    )


@pytest.fixture(scope="module")
def expected():
    """Digests of all examples, in this process."""
    return digests("serial")


def digests(place):
    with open_sampler(place, seed=1) as sampler:
        return {name: digest_with_own_calls(sampler, make) for name, make in models.EXAMPLES.items()}


def digest_with_own_calls(sampler, make):
    """As with a new sampler, on workers that are there already."""
    sampler._calls.clear()
    return models.digest(models.analysed(make, sampler))


# The same database.


@pytest.mark.long
def test_delays_change_nothing(expected):
    assert expected["delayed"] == expected["readme"]
    assert len(set(expected.values())) == len(expected) - 1


@pytest.mark.long
def test_database_is_the_same_on_processes(expected):
    assert digests(schedulers.Processes(2)) == expected


@pytest.mark.long
def test_database_is_the_same_on_an_executor(expected):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        assert digests(schedulers.Futures(executor)) == expected


@pytest.mark.long
def test_database_is_the_same_by_a_map(expected):
    with get_context("spawn").Pool(2) as pool, open_sampler(schedulers.Map(pool.map), seed=1) as sampler:
        assert digest_with_own_calls(sampler, models.delayed) == expected["delayed"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = bridge.RedisServer(tmp_path_factory.mktemp("redis"))
    yield started
    started.kill()


@pytest.mark.long
def test_database_is_the_same_over_redis_beside_processes_and_when_a_worker_dies(expected, server):
    with server.workers(2) as (one, _):
        assert digests(server.scheduler()) == expected
        one.kill()
        both = schedulers.Combined([server.scheduler(), schedulers.Processes(1)])
        with open_sampler(both, seed=1) as sampler:
            assert digest_with_own_calls(sampler, models.delayed) == expected["delayed"]


@pytest.fixture(scope="module")
def mpi(request):
    """The MPI of a case, with the pyABC that is here."""
    launcher = launcher_of(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPIABC_TEST_PACKAGES", str(Path(pyabc.__file__).parent.parent))
        yield launcher


@pytest.fixture
def tolerant(monkeypatch):
    """Open MPI with its fault tolerance."""
    launcher = launcher_of("openmpi", "--with-ft", "ulfm")
    monkeypatch.setenv("MPIABC_TEST_PACKAGES", str(Path(pyabc.__file__).parent.parent))
    return launcher


def test_killed_rank_is_made_good(tolerant, expected, tmp_path):
    job = tolerant.run(3, *PROGRAM, "killed", "mpi", tmp_path)
    assert (tmp_path / "killed").exists(), job.stdout
    assert "died; its evaluations go out again" in job.stdout
    assert words_after(job.stdout, "DIGEST") == [[expected["readme"]]], job.stdout
    assert job.returncode == 0, job.stdout


@pytest.mark.long
@jobs_of(("mpi", "n"), [("mpich", 2)], ("mpich", 1), ("openmpi", 3))
def test_database_is_the_same_on_any_number_of_ranks(n, mpi, expected):
    """Of eight samplers on one communicator."""
    job = mpi.run(n, *PROGRAM, "examples", "mpi")
    assert job.returncode == 0, job.stdout
    assert dict(words_after(job.stdout, "DIGEST")) == expected


@jobs_of(["mpi"], [], ["mpich"])
def test_database_is_the_same_on_mpi_and_redis_together(mpi, server, expected, monkeypatch):
    monkeypatch.setenv("MPIABC_SECRET", bridge.SECRET)
    monkeypatch.setenv("MPIABC_REDIS_PASSWORD", bridge.PASSWORD)
    with server.workers(1):
        job = mpi.run(2, *PROGRAM, "examples", f"mpi,{server.url}", "delayed", "adaptive_distance")
    assert job.returncode == 0, job.stdout
    assert dict(words_after(job.stdout, "DIGEST")).items() <= expected.items()
    assert len(words_after(job.stdout, "DIGEST")) == 2


@pytest.mark.long
def test_killed_child_is_made_good(expected, tmp_path):
    model = models.Killing(tmp_path, os.getpid())
    with open_sampler(schedulers.Processes(2), seed=1) as sampler:
        history = models.analysed(lambda sampler: models.readme(sampler, model), sampler)
    assert models.digest(history) == expected["readme"]
    assert (tmp_path / "killed").exists()


# One script on many ranks.


@jobs_of(["mpi"], [], ["mpich"], ["openmpi"])
def test_samplers_pools_and_runs_take_turns_in_one_script(mpi, expected, tmp_path):
    """On ranks that go on behind a `with`; then on held ones, which never come to these lines.

    These raise what a model has raised, and work on; and wait in between without burning a core.
    """
    job = mpi.run(3, *PROGRAM, "one_script", "mpi", tmp_path)
    assert job.returncode == 0, job.stdout
    assert job.stdout.count("AFTER") == 3
    assert words_after(job.stdout, "RAISED") == [["too", "large", "True"]]
    assert words_after(job.stdout, "DIGEST") == 3 * [[expected["readme"]]]
    alone = program("together", "serial", tmp_path)
    assert alone.returncode == 0, alone.stdout
    assert words_after(job.stdout, "RUN") == words_after(alone.stdout, "RUN")
    assert words_after(job.stdout, "POOL") == [["[1,", "2]"]]
    assert words_after(job.stdout, "ANALYSES") == [["8", "1"]]
    ((n, *shares),) = words_after(job.stdout, "IDLE")
    assert int(n) == len(shares)
    assert all(float(share) < 0.5 for share in shares)


# Stops.


@pytest.mark.long
@jobs_of(("mpi", "where"), [("mpich", "serial")], ("openmpi", "mpi"))
def test_signal_stops_with_75_and_the_database_goes_on(where, mpi, tmp_path):
    command = ("stopped", where, tmp_path)
    job = mpi.start(2 if where == "mpi" else 1, *PROGRAM, *map(str, command))
    end = time.monotonic() + HANGS
    while not (tmp_path / "began").exists() and time.monotonic() < end:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM if mpi.name == "mpich" else signal.SIGUSR1)
    output, _ = job.communicate(timeout=HANGS)
    assert job.returncode == 75, output
    again = mpi.run(1, *PROGRAM, *command)
    assert again.returncode == 0, again.stdout
    assert words_after(again.stdout, "LOADED")


@pytest.mark.long
def test_signal_between_generations_is_seen_at_the_next_call(tmp_path):
    first = program("stopped", "serial", tmp_path, "between")
    assert first.returncode == 75, first.stdout
    assert "stopped by SIGTERM" in first.stdout
    second = program("stopped", "processes", tmp_path, "between")
    assert second.returncode == 0, second.stdout
    assert words_after(second.stdout, "LOADED") == [["1"]]


def test_walltime_stops_with_75():
    sampler = Sampler("serial", seed=1, walltime=0.001)
    time.sleep(0.01)
    with pytest.raises(SystemExit) as stopped:
        sampler.sample_until_n_accepted(10, one(), 0)
    assert stopped.value.code == 75
    assert "walltime" in str(stopped.value)


# The contract of a sampler.


class one:  # noqa: N801
    """Gives particles; every `every`-th random number is accepted. What it draws is their parameter."""

    def __init__(self, rate=0.5, delay=0.0, draw=np.random.random_sample):
        self.rate, self.delay, self.draw = rate, delay, draw

    def __call__(self):
        x = self.draw()
        if self.delay:
            time.sleep(self.delay)
        is_accepted = bool(np.random.random_sample() < self.rate)
        return pyabc.Particle(0, {"x": x}, 1.0, {"y": x}, x, is_accepted)


@pytest.fixture(scope="module")
def processes():
    with open_sampler(schedulers.Processes(2), seed=1) as sampler:
        yield sampler


@pytest.fixture(params=["serial", "processes"])
def sampler(request, processes):
    """A sampler, as new."""
    if request.param == "serial":
        return Sampler("serial", seed=1)
    processes._calls.clear()
    processes.sample_factory.record_rejected(False)
    processes.check_max_eval = False
    return processes


def test_n_are_accepted_and_evaluations_end_with_the_last_of_them(sampler):
    sample = sampler.sample_until_n_accepted(20, one(), 0)
    assert sample.ok
    assert len(sample.accepted_particles) == 20
    assert not sample.rejected_particles
    assert 20 < sampler.nr_evaluations_ < 100


def test_rejected_particles_are_those_below_the_last_accepted_one(sampler):
    plain = sampler.sample_until_n_accepted(20, one(), 0)
    sampler._calls.clear()
    sampler.sample_factory.record_rejected()
    sample = sampler.sample_until_n_accepted(20, one(), 0)
    assert len(sample.rejected_particles) == sampler.nr_evaluations_ - 20
    assert values(sample.accepted_particles) == values(plain.accepted_particles)
    assert not any(particle.accepted for particle in sample.rejected_particles)


def values(particles):
    return [particle.parameter["x"] for particle in particles]


def test_calibration_is_exactly_n_evaluations(sampler):
    sample = sampler.sample_until_n_accepted(37, one(rate=1.0), -1, all_accepted=True)
    assert sample.n_accepted == sampler.nr_evaluations_ == 37


def test_bound_on_evaluations_is_kept_where_it_is_to_be_checked(sampler):
    sample = sampler.sample_until_n_accepted(5, one(rate=0.5), 0, max_eval=6)
    assert sample.ok
    sampler.check_max_eval = True
    sample = sampler.sample_until_n_accepted(50, one(rate=0.5), 0, max_eval=20)
    assert not sample.ok
    assert sampler.nr_evaluations_ == 20
    assert 0 < sample.n_accepted < 20


def test_particles_that_are_not_evaluated_are_refused(sampler):
    def preliminary():
        return pyabc.Particle(0, {}, 0.1, {}, 42, True, preliminary=True)

    with pytest.raises(AssertionError):
        sampler.sample_until_n_accepted(5, preliminary, 0)


def test_stop_leaves_the_workers_for_the_next_analysis():
    with open_sampler(schedulers.Processes(1), seed=1) as sampler:
        engines = [engine_after_an_analysis(sampler) for _ in range(2)]
        assert engines[0] is engines[1] is not None
    assert sampler._workers._engine is None


def engine_after_an_analysis(sampler):
    sampler.set_analysis_id("an analysis")
    sampler.sample_until_n_accepted(5, one(), 0)
    sampler.stop()
    return sampler._workers._engine


# Failures.


def test_failure_is_the_models_own_and_the_sampler_goes_on(sampler):
    def fail():
        raise ZeroDivisionError("of the model")

    before = values(sampler.sample_until_n_accepted(5, one(), 0).accepted_particles)
    with pytest.raises(ZeroDivisionError, match="of the model") as raised:
        sampler.sample_until_n_accepted(5, fail, 0)
    assert "in fail" in str(raised.value.__cause__)
    sampler._calls.clear()
    assert values(sampler.sample_until_n_accepted(5, one(), 0).accepted_particles) == before


def test_failures_may_count_as_rejections():
    def fails_often():
        particle = one(rate=1.0)()
        if particle.distance < 0.5:
            raise ValueError("small")
        return particle

    for on_error in ("reject", 1000):
        sampler = Sampler("serial", seed=1, on_error=on_error)
        sample = sampler.sample_until_n_accepted(10, fails_often, 0)
        assert min(values(sample.accepted_particles)) >= 0.5
        assert sampler.nr_evaluations_ > 10
    with pytest.raises(SimulatorError, match="3 evaluations failed"):
        Sampler("serial", seed=1, on_error=3).sample_until_n_accepted(10, fails_often, 0)


def test_evaluation_that_takes_too_long_is_a_failure():
    with open_sampler("serial", seed=1, timeout=0.3) as sampler:
        assert sampler.sample_until_n_accepted(3, one(), 0).ok
        with pytest.raises(SimulatorError, match="longer than timeout"):
            sampler.sample_until_n_accepted(3, one(delay=20.0, rate=0.0), 1)


def test_particle_that_cannot_travel_is_a_failure(sampler):
    def bound():
        return pyabc.Particle(0, {}, 1.0, {"y": (i for i in ())}, 0.0, True)

    with pytest.raises(TypeError, match="pickle"):
        sampler.sample_until_n_accepted(3, bound, 0)


def test_what_cannot_be_sent_is_refused_in_a_sentence(sampler):
    generator = (i for i in ())
    with pytest.raises(ProblemError, match="cannot be sent to another process"):
        sampler.sample_until_n_accepted(3, lambda: next(generator), 0)


def test_threads_are_refused():
    with ThreadPoolExecutor(1) as executor:
        for place in (
            schedulers.Futures(executor),
            schedulers.Map(executor.map),
            schedulers.Dask(threads=True),
        ):
            with pytest.raises(SchedulerError, match="NumPy's global generator"):
                Sampler(place)


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"seed": 0.5}, {"on_error": "ignore"}, {"timeout": 0}, {"walltime": "soon"}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ProblemError):
        Sampler("serial", **options)


# Randomness.


def test_numpys_seed_alone_makes_calls_repeatable_and_its_state_is_kept():
    def drawn():
        np.random.seed(1)
        sampler = Sampler("serial")
        found = [values(sampler.sample_until_n_accepted(5, one(), t).accepted_particles) for t in (0, 1)]
        return found, np.random.random_sample(), random.random()

    random.seed(2)
    first = drawn()
    random.seed(2)
    assert drawn() == first
    assert first[0][0] != first[0][1]


def test_a_seed_says_what_is_drawn_between_calls_too():
    def drawn():
        sampler = Sampler("serial", seed=3)
        sampler.sample_until_n_accepted(5, one(), 0)
        return np.random.random_sample(), random.random()

    np.random.seed()
    assert drawn() == drawn()


def own_generators():
    rng, old, python = np.random.default_rng(5), np.random.RandomState(5), random.Random(5)
    return lambda: rng.random() + old.normal() + python.random()


@pytest.mark.parametrize(
    "draw",
    [
        own_generators(),
        stats.norm(0, 1).rvs,
        random.gauss,
        np.random.normal,
        lambda: stats.expon.rvs(scale=2),
    ],
    ids=["generators of its own", "frozen SciPy", "Python", "NumPy", "SciPy"],
)
def test_every_generator_in_a_model_has_an_address(draw, sampler):
    """All values differ, and a second worker, or a second time, gives the same."""
    if draw is random.gauss:
        draw = lambda: random.gauss(0, 1)  # noqa: E731
    function = one(rate=1.0, draw=draw)
    found = values(sampler.sample_until_n_accepted(30, function, 0).accepted_particles)
    assert len(set(found)) == 30
    sampler = Sampler("serial", seed=1)
    assert values(sampler.sample_until_n_accepted(30, function, 0).accepted_particles) == found


# What travels.


@pytest.mark.long
def test_large_data_travel_once(server):
    """Of 1 MB of data that every generation needs, the second sends a few kB."""
    data = np.random.default_rng(1).random(125_000)

    class Heavy:
        def __init__(self, t):
            self.data, self.t = data, t

        def __call__(self):
            return pyabc.Particle(0, {"x": 1.0}, 1.0, {}, self.data[self.t], True)

    sender = transfer.Sender()
    made = [sender.parcel(t, transfer.parts(order(t, Heavy(t)))) for t in range(2)]
    sizes = [sum(map(len, parcel.new.values())) for parcel in made]
    assert sizes[0] > 1_000_000 > 100_000 > sizes[1]
    with server.workers(1), open_sampler(server.scheduler(), seed=1) as sampler:
        sent = [server.client.info("stats")["total_net_output_bytes"]]
        for t in range(3):
            sample = sampler.sample_until_n_accepted(5, Heavy(t), t)
            assert [particle.distance for particle in sample.accepted_particles] == 5 * [data[t]]
            sent.append(server.client.info("stats")["total_net_output_bytes"])
    first, *others = np.diff(sent)
    assert first > 1_000_000
    assert max(others) < 500_000


def order(t, function):
    return sampling.Sampling(t, t, 5, (1, 2), t, carried(function))


# Statistics.

SEEDS = range(40)


def means(sample):
    """Of what was accepted, in calls of many seeds."""
    return np.array([np.mean(values(sample(seed).accepted_particles)) for seed in SEEDS])


def z(one, other):
    return (one.mean() - other.mean()) / np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / len(SEEDS))


@pytest.fixture(scope="module")
def reference():
    def sample(seed):
        np.random.seed(seed)
        return pyabc.SingleCoreSampler().sample_until_n_accepted(20, one(), 0)

    return means(sample)


def late(evaluator, id, rng):
    """Seconds: accepted particles with small numbers come last."""
    particles, _ = pickle.loads(evaluator(id, id + 1).payload)
    return 10.0 if any(particle.parameter["x"] < 0.5 for _, particle in particles) else 1.0


def on_a_cluster(seed):
    with open_sampler(Simulated(16, late, seed=seed), seed=seed) as sampler:
        return sampler.sample_until_n_accepted(20, one(), 0)


@pytest.mark.long
def test_statistics_are_those_of_pyabcs_own_sampler(reference):
    assert abs(z(means(on_a_cluster), reference)) < 3


@pytest.mark.long
def test_sampler_that_took_finish_order_would_be_noticed(reference, monkeypatch):
    class Hasty(sampling.Call):
        def sampled(self):
            first = list(self._particles.values())[: self._order.size]
            return sampling.Sampled(first, len(self._particles), True)

    monkeypatch.setattr("mpiabc.adapters.pyabc.Call", Hasty)
    assert z(means(on_a_cluster), reference) > 3


@pytest.mark.parametrize("seed", quick(range(5), 0))
def test_schedules_with_losses_copies_and_doubts_give_the_same(seed):
    def sampled(place):
        with open_sampler(place, seed=1) as sampler:
            sampler.sample_factory.record_rejected()
            sample = sampler.sample_until_n_accepted(30, one(rate=0.2), 0)
            return (
                values(sample.accepted_particles),
                values(sample.rejected_particles),
                sampler.nr_evaluations_,
            )

    troubled = Simulated(7, late, seed=seed, loss=0.1, duplicate=0.2, doubt=0.05)
    assert sampled(troubled) == sampled("serial")


@pytest.mark.long
def test_resumed_analysis_is_the_one_that_was_not_interrupted(tmp_path):
    def run(generations, load=False):
        abc, observed = models.readme(Sampler("serial", seed=1))
        abc.eps = pyabc.ListEpsilon([2, 1, 0.7])
        abc.load(database) if load else abc.new(database, observed)
        return abc.run(max_nr_populations=generations)

    database = f"sqlite:///{tmp_path}/whole.db"
    whole = models.digest(run(3))
    database = f"sqlite:///{tmp_path}/parts.db"
    run(1)
    assert models.digest(run(2, load=True)) == whole
