"""What is written for people: it ends no run, whatever becomes of the streams, and is reported once."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import mpiabc
from mpiabc import schedulers, voice
from tests import jobs, problems
from tests.conftest import HANGS, environment, quick
from tests.programs import talking

# Streams that take nothing.


@contextmanager
def full():
    with open("/dev/full", "w") as stream:
        yield {"stdout": stream, "stderr": stream}


@contextmanager
def left():
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield {"stdout": writer, "stderr": writer}
    finally:
        os.close(writer)


@contextmanager
def hung_up():
    """A terminal that goes away when it has shown something."""
    ours, theirs = pty.openpty()

    def look():
        os.read(ours, 1)
        os.close(ours)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        yield {"stdout": theirs, "stderr": theirs}
    finally:
        os.close(theirs)
        reader.join()


@contextmanager
def absent():
    """None at all: `sys.stdout` and `sys.stderr` are None."""
    yield {"preexec_fn": lambda: (os.close(1), os.close(2))}


@contextmanager
def ascii_only():
    with open(os.devnull, "w") as stream:
        yield {"stdout": stream, "stderr": stream}


STREAMS = {each.__name__: each for each in (full, left, hung_up, absent, ascii_only)}


def ended(kind, *command):
    """The exit status of a command with such streams, which Python itself does not spoil."""
    variables = environment(PYTHONIOENCODING="ascii" if kind == "ascii_only" else "utf-8")
    variables.pop("PYTHONUNBUFFERED", None)  # with it nothing would be left to fail at the end
    with STREAMS[kind]() as streams:
        words = [sys.executable, "-m", *map(str, command)]
        return subprocess.run(
            words, env=variables, timeout=HANGS, stdin=subprocess.DEVNULL, **streams
        ).returncode


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The digests of the run of programs/talking.py, whose simulator says nothing here."""
    store = tmp_path_factory.mktemp("quiet") / "run.db"
    return problems.digests(talking.sampler(problems.gaussian).run(store, scheduler="serial"))


@pytest.mark.long
@pytest.mark.parametrize("options", ["serial live", "serial configured", "processes live"])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_run_ends_well_whatever_becomes_of_its_streams(kind, options, expected, tmp_path):
    store = tmp_path / "run.db"
    assert ended(kind, "tests.programs.talking", store, *options.split()) == 0
    assert problems.digests(mpiabc.open(store)) == expected


@pytest.mark.long
@pytest.mark.parametrize("kind", STREAMS)
def test_a_run_that_fails_does_not_end_with_0_whatever_becomes_of_its_streams(kind, tmp_path):
    store = tmp_path / "run.db"
    assert ended(kind, "tests.programs.talking", store, "serial", "live", "failing") not in (0, 75)
    assert mpiabc.open(store).reason.startswith("failed: evaluation")


# Commands.


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run."""
    store = tmp_path_factory.mktemp("done") / "run.db"
    talking.sampler(problems.gaussian).run(store, scheduler="serial")
    return store


COMMANDS = {
    "show": "show {store}",
    "replay": "replay {store} 0:0 --trust",
    "jobscript": "jobscript slurm --ranks 2 --walltime 1h examples/influenza.py",
    "help": "--help",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_reader_has_left_ends_without_a_word(name, done):
    assert ended("left", "mpiabc", *COMMANDS[name].format(store=done).split()) == 0


@pytest.mark.parametrize("name", ["show", "replay", "jobscript"])
def test_a_command_whose_output_is_lost_says_so_and_ends_with_1(name, done):
    with full() as streams:
        job = subprocess.run(
            [sys.executable, "-m", "mpiabc", *COMMANDS[name].format(store=done).split()],
            env=environment(),
            stdout=streams["stdout"],
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANGS,
        )
    assert job.returncode == 1
    assert job.stderr == "mpiabc: the standard output cannot be written (No space left on device)\n"


def test_show_of_a_name_in_letters_that_the_terminal_does_not_know(done):
    job = subprocess.run(
        [sys.executable, "-m", "mpiabc", "show", str(done)],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert (job.returncode, job.stderr) == (0, "")
    assert re.search(r"^problem +\\u03bc$", job.stdout, re.MULTILINE)


def test_mpiabc_run_whose_outcome_cannot_be_printed_has_done_the_run(tmp_path):
    store, file = tmp_path / "run.db", tmp_path / "fit.py"
    file.write_text("from tests import problems\n\nproblem = problems.problem()\n")
    command = f"mpiabc run {file} --population-size 20 --generations 1 --scheduler serial --store {store}"
    assert ended("full", *command.split()) == 0
    assert mpiabc.open(store).reason == "generations"


class Stubborn(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, text):
        raise self._error


def test_of_a_stream_that_takes_nothing_it_is_said_what_keeps_it_from_it():
    closed = io.StringIO()
    closed.close()
    assert voice.put("x", None) is None
    assert voice.put("x", Stubborn(OSError(28, "full"))).errno == 28
    assert "closed" in voice.put("x", closed).strerror
    latin = io.TextIOWrapper(io.BytesIO(), "latin-1")
    assert voice.put("é μ", latin) is None
    assert latin.buffer.getvalue() == b"\xe9 \\u03bc"


# Logs.


def job_log(tmp_path, *words):
    """What a job with these words says on its stderr, which is no terminal."""
    job = subprocess.run(
        [sys.executable, "-m", "tests.programs.talking", tmp_path / "run.db", "processes", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert job.returncode == 0, job.stderr
    return [line for line in job.stderr.splitlines() if line.startswith("generation")]


@pytest.mark.long
def test_the_log_of_a_job_has_a_line_a_generation_unless_the_user_says_otherwise(tmp_path):
    assert [line.split(":")[0] for line in job_log(tmp_path)] == ["generation 0", "generation 1"]
    for words in ("configured", "silent"):
        (tmp_path / "run.db").unlink()
        assert job_log(tmp_path, words) == []


def test_a_line_a_generation_is_in_the_log_when_the_generation_is_done(tmp_path):
    """Not at the end."""
    command = [sys.executable, "-m", "tests.programs.endless", tmp_path / "run.db"]
    job = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        assert job.stderr.readline().startswith("generation 0: epsilon")
    finally:
        job.kill()
        job.communicate()


# What simulators say.


@pytest.mark.parametrize("engine", quick(["processes", *jobs.MPIS, "redis", "dask"], "processes", "mpich"))
def test_what_simulators_say_on_all_workers_is_reported_once_with_a_worker(engine, expected, tmp_path):
    with jobs.opened(engine, tmp_path) as place:
        job = place.start("talking", tmp_path / "run.db")
        try:
            assert job.leader.wait(HANGS) == 0, job.said()
            said, said_by_workers = job.said()
        finally:
            job.close()
    for words in talking.SAID:
        (line,) = [line for line in (said + said_by_workers).splitlines() if words in line]
        assert re.match(r"(process|rank|worker) ", line)
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected


@pytest.mark.parametrize("pool", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_what_simulators_say_in_an_executor_is_reported_once(pool, tmp_path, capfd):
    def simulate(theta, rng):
        print("hello")
        return problems.gaussian(theta, rng)

    with pool(2) as executor:
        sampler = talking.sampler(simulate)
        sampler.run(tmp_path / "run.db", scheduler=schedulers.Futures(executor), progress=False)
    assert re.fullmatch(r"process \d+ on .*: hello\n", capfd.readouterr().out)


def test_what_a_pool_s_functions_print_is_reported_once(capfd):
    def half(x):
        print("halved")
        return x / 2

    with mpiabc.Pool(schedulers.Processes(2)) as pool:
        assert pool.map(half, range(20)) == [x / 2 for x in range(20)]
    assert re.fullmatch(r"process \d+ on .*: halved\n", capfd.readouterr().out)


@pytest.mark.long
def test_a_print_in_this_process_comes_as_ever_and_at_once(tmp_path, capsys):
    said = []

    def simulate(theta, rng):
        print("here")
        said.append(capsys.readouterr().out)
        return problems.gaussian(theta, rng)

    talking.sampler(simulate).run(tmp_path / "run.db", scheduler="serial", progress=False)
    assert set(said) == {"here\n"}
    assert len(said) > 80


@pytest.mark.long
def test_a_process_that_a_simulator_forks_prints_for_itself(tmp_path, capfd):
    """It does not write into the pipe of the child that has forked it."""

    def simulate(theta, rng):
        pid = os.fork()
        if not pid:
            print("forked", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        return problems.gaussian(theta, rng)

    found = talking.sampler(simulate).run(
        tmp_path / "run.db", scheduler=schedulers.Processes(2), progress=False
    )
    assert len(found) == 2
    assert set(capfd.readouterr().out.split()) == {"forked"}


def test_a_worker_that_says_too_many_different_things_says_the_rest_itself(monkeypatch, capsys):
    monkeypatch.setattr(voice, "_MOST_PIECES", 3)
    sent = []
    with voice.heard_by(sent.append), voice.listening():
        for i in (0, 0, 1, 2, 3, 4):
            print("piece", i)
    assert [piece.text for piece in sent[:3]] == ["piece 0\n", "piece 1\n", "piece 2\n"]
    assert sent[3].text.startswith("(more than")
    assert capsys.readouterr().out.split("\n") == ["piece 4", ""]


def test_threads_that_are_at_no_work_write_as_ever(capsys):
    sent = []
    with voice.heard_by(sent.append), voice.listening():
        other = threading.Thread(target=print, args=("elsewhere",))
        other.start()
        other.join()
        print("here")
        time.sleep(0)
    assert capsys.readouterr().out == "elsewhere\n"
    assert [piece.text for piece in sent] == ["here\n"]
    print("after")
    assert capsys.readouterr().out == "after\n"


def test_a_piece_is_the_same_behind_the_wire():
    for piece in (voice.Piece("μ\n", False), voice.Piece("", True), voice.Piece("a\nb\n", True)):
        assert voice.Piece.unpack(memoryview(piece.pack())) == piece
