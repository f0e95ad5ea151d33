"""Files that are mapped to be read: one copy for a node, nothing of them travels, another file is named."""

import functools
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import mpiabc
from mpiabc import mapped, schedulers
from mpiabc.cluster.sent import Work
from mpiabc.errors import ProblemError, StoreError
from mpiabc.problem import described
from mpiabc.schedulers.shared import transfer
from tests import bridge, problems
from tests.conftest import HANGS, ROOT, environment, jobs_of, missing
from tests.programs import mapping

MEGABYTE = 1 << 20
A_PATH = 10_000  # bytes: more than a pickled problem has that holds paths, less than any of the files here


@pytest.fixture
def file(tmp_path):
    """A file of 2 MB with numbers of which all differ, around 0."""
    path = tmp_path / "data.npy"
    np.save(path, np.random.default_rng(1).normal(0, 0.1, (512, 512)))
    return path


@pytest.fixture
def data(file):
    return np.load(file, mmap_mode="r")


def gone(file):
    file.unlink()


def replaced(file):
    np.save(file.with_name("new.npy"), np.ones((512, 512)))
    os.replace(file.with_name("new.npy"), file)
    os.utime(file, ns=(1, 1))


def longer(file):
    with open(file, "ab") as stream:
        stream.write(b"more")


CHANGES = {gone: "nothing that can be read", replaced: "2097280 bytes of 1970", longer: "2097284 bytes of"}


# Arrays.

VIEWS = {
    "all of it": lambda x: x,
    "rows": lambda x: x[3:5],
    "every other number": lambda x: x[::3, ::2],
    "backwards": lambda x: x.reshape(-1)[::-1],
    "transposed": lambda x: x.T,
    "reshaped": lambda x: x.reshape(64, -1),
    "a plain array": lambda x: x.view(np.ndarray)[7],
    "windows": lambda x: np.lib.stride_tricks.sliding_window_view(x, 5, axis=0),
    "repeated": lambda x: np.broadcast_to(x[0], (9, 512)),
    "one number": lambda x: x[2, 3:4].reshape(()),
    "structured": lambda x: x.view([("a", "<f4"), ("b", ">i4")]),
    "by its memory": lambda x: np.frombuffer(memoryview(x), np.uint16),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_arrives_as_the_same_view(view, data):
    """With the layout that it had, on which sums depend; a memmap as one, and read-only."""
    sent = VIEWS[view](data)
    content = mapped.dumps(sent)
    arrived = pickle.loads(content)
    assert len(content) < 400
    assert (type(arrived), arrived.dtype, arrived.strides) == (type(sent), sent.dtype, sent.strides)
    assert arrived.shape == sent.shape
    assert arrived.tobytes() == sent.tobytes()
    assert not arrived.flags.writeable
    assert mapped.placed(arrived) == mapped.placed(sent)
    assert str(getattr(arrived, "filename", None)) == str(getattr(sent, "filename", None))


def test_all_views_of_a_file_are_on_one_map_that_goes_with_the_last(data):
    content = mapped.dumps([data[:3], {"rows": data[5:]}])
    first, others = pickle.loads(content)
    assert first.base is others["rows"].base is pickle.loads(content)[0].base
    assert first.base is not data
    del first, others
    assert not mapped._wholes


BY_VALUE = {
    "r+": lambda file: np.load(file, mmap_mode="r+"),
    "copy on write": lambda file: np.load(file, mmap_mode="c"),
    "a read-only view of a map that can be written": lambda file: read_only(np.load(file, mmap_mode="r+")),
    "in memory": lambda file: read_only(np.load(file)),
    "computed": lambda file: read_only(np.load(file, mmap_mode="r") + 1),
    "masked": lambda file: np.ma.masked_less(np.load(file, mmap_mode="r"), 0),
}


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("kind", BY_VALUE)
def test_what_can_be_written_or_lies_elsewhere_travels_with_its_numbers(kind, file):
    sent = BY_VALUE[kind](file)
    assert mapped.placed(sent) is None
    file.unlink()
    arrived = pickle.loads(mapped.dumps(sent))
    assert np.array_equal(np.ma.getdata(arrived), np.ma.getdata(sent))


def test_small_files_travel_with_their_numbers(tmp_path):
    """To share them gains nothing, and a host that does not see the file has them too."""
    np.save(tmp_path / "small.npy", np.arange(1000.0))
    assert mapped.placed(np.load(tmp_path / "small.npy", mmap_mode="r")) is None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_another_file_is_reported_where_it_arrives(change, file, data):
    content = mapped.dumps(data)
    change(file)
    with pytest.raises(
        ProblemError, match=f"finds at {file} {CHANGES[change]}.*expected the file of 2097280"
    ):
        pickle.loads(content)


def test_a_file_is_the_one_that_it_was_when_the_problem_was_made(file, data):
    """Not the one that is there when the problem is sent."""
    problem = problems.problem(functools.partial(read, data))
    longer(file)
    with pytest.raises(ProblemError, match="2097284 bytes"):
        pickle.loads(mapped.dumps(problem))


# Problems.


def read(data, theta, rng):
    return {"y": theta["mu"] + data[rng.integers(512), 0]}


class Reader:
    def __init__(self, data):
        self.data = data

    def __call__(self, theta, rng):
        return read(self.data, theta, rng)


class Table(mpiabc.Normal):
    def __init__(self, data):
        super().__init__(0, 2)
        self.data = data


def script(data):
    """The simulator of a script, which has the array as a global and travels by value."""
    where = {"data": data, "__name__": "__main__"}
    exec("def simulate(theta, rng):\n    return {'y': theta['mu'] + data[rng.integers(512), 0]}", where)
    return where["simulate"]


def default(data):
    return lambda theta, rng, data=data: read(data, theta, rng)


PARTS = {
    "a closure": lambda data: {"simulate": lambda theta, rng: read(data, theta, rng)},
    "a closure over a dict": lambda data: {
        "simulate": (lambda d: lambda theta, rng: read(d["x"], theta, rng))({"x": data})
    },
    "a global of the script": lambda data: {"simulate": script(data)},
    "a default": lambda data: {"simulate": default(data)},
    "a partial": lambda data: {"simulate": functools.partial(read, data)},
    "an attribute": lambda data: {"simulate": Reader(data)},
    "the distance": lambda data: {"distance": lambda x, y: abs(x["y"] - y["y"]) + data[0, 0] ** 2},
    "the summary": lambda data: {"summarize": lambda x: {"y": x["y"] + data[0, 0]}},
}


@pytest.mark.parametrize("part", PARTS)
def test_wherever_a_problem_has_the_array_its_numbers_do_not_travel(part, data):
    problem = problems.problem(**PARTS[part](data))
    assert len(mapped.dumps(problem)) < A_PATH


def test_nor_do_those_of_the_prior_and_of_observed_data(data):
    prior = mpiabc.Prior(mu=Table(data))
    problem = mpiabc.Problem(prior, problems.gaussian, {"y": 1.0, "field": data})
    assert len(mapped.dumps(problem)) < A_PATH
    assert problem.observed["field"].base is data


def test_nor_do_those_that_a_job_has(data):
    """As a distance of one's own in the order of a level."""
    parts = transfer.parts(Reader(data))
    assert sum(len(part) for _, part in parts) < A_PATH
    assert np.array_equal(transfer.joined(*(part for _, part in parts)).data, data)


def resident(file):
    """Kilobytes of a file in this process's memory."""
    with open("/proc/self/smaps") as lines:
        maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", lines.read())
    mine = [part for part in maps if part.split("\n")[0].endswith(str(file))]
    return sum(int(re.search(r"Rss: +(\d+) kB", part)[1]) for part in mine)


@pytest.mark.parametrize("part", PARTS)
def test_nothing_of_the_file_is_read_for_a_problem(part, file, data):
    problem = problems.problem(**PARTS[part](data))
    problem.parts(), described(data), mapped.dumps(problem)
    assert resident(file) == 0
    float(data[0, 0])
    assert resident(file) > 0  # this would be seen


def test_a_fingerprint_is_the_same_in_leader_and_worker(data):
    problem = problems.problem(Reader(data[5:, ::2]))
    value = problem.fingerprint.values["simulate.data"]
    assert re.fullmatch(r"array float64 \(507, 256\) by .* at 20608 of .*, 2097280 bytes of .* UTC", value)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        there = executor.submit(fingerprint_there, mapped.dumps(problem)).result()
    assert there == problem.fingerprint.to_json()


def fingerprint_there(content):
    return pickle.loads(content).arrived().fingerprint_here().to_json()


# Runs.


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The digests of the serial run with the numbers in memory."""
    numbers = np.random.default_rng(1).normal(0, 0.1, (512, 512))
    return mapping.digests(numbers, tmp_path_factory.mktemp("run") / "run.db", "serial")


PROCESSES = {
    "serial": lambda: "serial",
    "forked": lambda: schedulers.Processes(2, start="fork"),
    "spawned": lambda: schedulers.Processes(2, start="spawn"),
}


@pytest.mark.parametrize("scheduler", PROCESSES)
def test_a_mapped_file_changes_no_digest(scheduler, data, expected, tmp_path):
    assert mapping.digests(data, tmp_path / "run.db", PROCESSES[scheduler]()) == expected


def test_nor_does_it_in_executors(data, expected, tmp_path):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        found = mapping.digests(data, tmp_path / "run.db", schedulers.Futures(executor))
    assert found == expected


@jobs_of(("mpi", "words"), [], ("mpich", []), ("openmpi", ["timeout"]))
def test_nor_on_ranks(words, mpi, file, expected):
    job = mpi.run(2, "-m", "tests.programs.mapping", file.parent, "run", *words)
    assert job.returncode == 0, job.stdout
    assert job.stdout.split("DIGESTS")[1].split()[: len(expected)] == expected


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_another_file_ends_a_run_on_processes_before_any_work(change, file, data, tmp_path):
    run = mapping.sampler(data)
    change(file)
    with pytest.raises(ProblemError, match=f"process .* cannot work: .* {CHANGES[change]}"):
        run.run(tmp_path / "run.db", scheduler=schedulers.Processes(2, start="spawn"), generations=2)
    assert not (tmp_path / "run.db").exists()


def test_another_file_ends_a_run_in_executors(file, data, tmp_path):
    run = mapping.sampler(data)
    gone(file)
    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(ProblemError, match=r"cannot work: .* nothing that can be read"),
    ):
        run.run(tmp_path / "run.db", scheduler=schedulers.Futures(executor), generations=2)


def copied(file):
    """Its copy for rank 1, with its time."""
    (file.parent / "other").mkdir()
    return shutil.copy2(file, file.parent / "other")


@jobs_of(["mpi"], [], ["mpich"])
def test_another_file_ends_a_run_on_ranks_with_children(mpi, file):
    """Which would else be waited for: here only rank 1's child cannot work."""
    copied(file)
    job = mpi.run(2, "-m", "tests.programs.mapping", file.parent, "changed", "timeout")
    assert job.returncode == 1, job.stdout
    message = r"ProblemError: rank 1 of 2 .* cannot work: process .* finds at .*2097280 bytes of 1970"
    assert re.search(message, job.stdout), job.stdout


@jobs_of(["mpi"], [], ["openmpi"])
def test_ranks_with_files_of_other_times_are_distinguished(mpi, file):
    os.utime(copied(file), ns=(1, 1))
    job = mpi.run(2, "-m", "tests.programs.mapping", file.parent, "other")
    assert job.returncode == 1, job.stdout
    assert re.search(
        r"ProblemError: rank 1 of 2 .*2097280 bytes of 1970.* there, .*2097280 bytes", job.stdout
    )


@jobs_of(["mpi"], [], ["mpich"])
def test_ranks_may_have_copies_with_the_time_of_the_file(mpi, file, expected):
    copied(file)
    job = mpi.run(2, "-m", "tests.programs.mapping", file.parent, "other")
    assert job.returncode == 0, job.stdout
    assert job.stdout.split("DIGESTS")[1].split()[: len(expected)] == expected


# Pools and maps of clusters.


def row_sum(rows, i):
    return float(rows[i].sum())


def test_a_pool_sends_neither_function_nor_items_with_their_numbers(data):
    rows = np.asarray(data)
    with mpiabc.Pool(schedulers.Processes(1, start="spawn")) as pool:
        found = pool.map(functools.partial(row_sum, data), range(3))
        assert found == [float(row.sum()) for row in rows[:3]]
        assert pool.map(np.sum, [data[0], data[1]]) == [row.sum() for row in rows[:2]]


def test_a_pool_raises_for_a_file_that_workers_do_not_see(file, data):
    assert mapped.placed(data)
    gone(file)
    with mpiabc.Pool(schedulers.Processes(1, start="spawn")) as pool:
        with pytest.raises(ProblemError, match="nothing that can be read"):
            pool.map(functools.partial(row_sum, data), range(3))
        assert pool.map(abs, [-1]) == [1]


def test_a_map_of_a_cluster_is_known_by_its_files_and_sends_none(file, data):
    def work():
        array = np.load(file, mmap_mode="r")
        return Work.of(functools.partial(row_sum, array), [array[1], array[2]], 1)

    before = work()
    assert max(map(len, [before.function, *before.parts])) < A_PATH
    assert work().identity == before.identity
    os.utime(file, ns=(1, 1))
    assert work().identity != before.identity


# What is kept.


def test_a_changed_file_is_named_when_a_run_goes_on(file, tmp_path):
    def run(path, **options):
        sampler = mapping.sampler(np.load(path, mmap_mode="r"))
        return sampler.run(tmp_path / "run.db", scheduler="serial", **options)

    run(file, generations=1)
    (tmp_path / "elsewhere").mkdir()
    run(shutil.copy2(file, tmp_path / "elsewhere"), generations=2)
    os.utime(file, ns=(1, 1))
    with pytest.raises(StoreError, match=r"closure data.*bytes of 20.* there, .*2097280 bytes of 1970"):
        run(file, generations=3)
    assert len(run(file, generations=3, accept_changes=True)) == 3


def test_a_replay_maps_the_file_again(file, data, tmp_path):
    mapping.sampler(data).run(tmp_path / "run.db", scheduler="serial", generations=1)
    assert (tmp_path / "run.db").stat().st_size < MEGABYTE
    command = [sys.executable, "-m", "mpiabc", "replay", tmp_path / "run.db", "0:3", "--trust"]
    options = {"cwd": ROOT, "env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    gone(file)
    done = subprocess.run(command, **options)
    assert done.returncode == 1
    assert f"finds at {file} nothing that can be read" in done.stderr
    assert "Traceback" not in done.stderr


# The example, and what it costs.


@pytest.mark.long
@pytest.mark.parametrize("mpi", ["mpich"], indirect=True)
def test_the_example_gives_one_digest_and_makes_its_file_once(mpi, tmp_path, monkeypatch):
    """On ranks, all of which may be the first, and on processes."""
    monkeypatch.setenv("NODE_DATA", str(tmp_path))
    job = mpi.run(3, "examples/node_data.py", "mpi")
    assert job.returncode == 0, job.stdout
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["weather.npy"]
    (tmp_path / "weather.db").unlink()
    command = [sys.executable, "examples/node_data.py", "processes"]
    alone = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert alone.stdout.startswith("effect 1.5")
    assert alone.stdout.splitlines()[-1] in job.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of 200 MB, and one that is small beside it and yet mapped."""
    folders = []
    for megabytes in (200, 2):
        folder = tmp_path_factory.mktemp("data")
        np.save(folder / "data.npy", np.ones((megabytes, MEGABYTE // 8)))
        folders.append(folder)
    yield folders
    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.parametrize("mpi", ["mpich"], indirect=True)
@pytest.mark.parametrize("words", [[], ["timeout"]], ids=["ranks", "children of ranks"])
@pytest.mark.long
def test_the_processes_of_a_node_have_one_copy_between_them(words, mpi, large):
    """4 ranks and rank 0's child, or all children: 3 and 9 copies before files travelled as their paths.

    What a run takes besides the file varies by some MB from one to the next.
    """
    if not os.path.exists("/proc/self/smaps_rollup"):
        missing("this system does not say what of its memory a process shares")
    found = []
    for folder in large:
        for mark in [*folder.glob("*.reader"), *folder.glob("*.rank"), *folder.glob("run.db*")]:
            mark.unlink()
        job = mpi.run(4, "-m", "tests.programs.mapping", folder, "memory", 4, *words)
        assert job.returncode == 0, job.stdout
        found.append(float(job.stdout.split("MEGABYTES")[1].split()[0]))
    copies = (found[0] - found[1]) / 198
    print(f"{copies:.2f} copies")
    assert 0.8 < copies < 1.25


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = bridge.RedisServer(tmp_path_factory.mktemp("redis"))
    yield started
    started.kill()


def test_redis_carries_none_of_it(server, data, file, expected, tmp_path):
    before = server.client.info("stats")
    with server.workers(1):
        assert mapping.digests(data, tmp_path / "run.db", server.scheduler()) == expected
    after = server.client.info("stats")
    for way in ("total_net_input_bytes", "total_net_output_bytes"):
        print(f"{way}: {(after[way] - before[way]) / file.stat().st_size:.3f} of the file")
        assert after[way] - before[way] < file.stat().st_size / 10


@pytest.mark.long
def test_a_redis_worker_that_does_not_see_the_file_says_so_on_both_sides(
    server, data, file, expected, tmp_path, caplog
):
    """The run goes on with workers that see it."""
    assert mapped.placed(data)
    hidden = file.rename(tmp_path / "hidden.npy")
    with ThreadPoolExecutor(1) as thread, server.workers(1, "--wait", "3s") as (worker,):
        run = thread.submit(mapping.digests, data, tmp_path / "run.db", server.scheduler())
        output = worker.ends()[1]
        hidden.rename(file)
        with server.workers(1):
            assert run.result(HANGS) == expected
    for text in (output, caplog.text):
        assert f"finds at {file} nothing that can be read" in text
    assert "Traceback" not in output


def test_dask_carries_none_of_it(dask_client, data, file, expected, tmp_path, monkeypatch):
    sizes, submit = [], dask_client.submit

    def counted(function, content, **options):
        sizes.append(len(content))
        return submit(function, content, **options)

    monkeypatch.setattr(dask_client, "submit", counted)
    found = mapping.digests(data, tmp_path / "run.db", schedulers.Dask(dask_client))
    assert found == expected
    print(f"{sum(sizes) / file.stat().st_size:.3f} of the file in {len(sizes)} tasks")
    assert sum(sizes) < file.stat().st_size / 10


def test_a_dask_worker_that_does_not_see_the_file_ends_the_run(dask_client, data, file, tmp_path):
    run = mapping.sampler(data)
    gone(file)
    with pytest.raises(ProblemError, match=r"cannot work: .* nothing that can be read"):
        run.run(tmp_path / "run.db", scheduler=schedulers.Dask(dask_client), generations=1)
