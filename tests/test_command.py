"""External programs as simulators."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.command import CommandError
from tests.conftest import ROOT, environment

ADDS_NOISE = """#!/bin/sh
awk -v mu="$1" -v seed="$2" 'BEGIN { srand(seed); printf "%.17g", mu + 2 * rand() - 1 }' > "$3"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the script of the user is, and where evaluations have their folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def written(path, text):
    path.write_text(text)
    path.chmod(0o755)


def python(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


def called(command, read=None, timeout=None, seed=1, **theta):
    return mpiabc.Command(command, read, timeout)(theta, np.random.default_rng(seed))


def noisy():
    command = mpiabc.Command("./model {mu} {seed} {out}")
    return mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), command, observed=1.0)


def run(problem, store="run.db", **options):
    abc = mpiabc.ABCSMC(problem, 20, threshold=mpiabc.Listed([2, 1]), seed=1)
    return abc.run(store, generations=2, progress=False, **options)[-1].digest()


def scratch(folder):
    return os.listdir(folder / "scratch")


@pytest.mark.long
def test_program_is_a_simulator_with_the_same_digest_everywhere(folder):
    written(folder / "model", ADDS_NOISE)
    problem = noisy()
    assert run(problem, scheduler="serial") == run(problem, "2.db", scheduler=mpiabc.schedulers.Processes(2))
    assert problem.name == "model"
    assert scratch(folder) == []


def test_parameters_are_given_with_all_their_digits_or_as_the_command_says(folder):
    said = python("import sys; print(*sys.argv[1:])", "{a}", "{a:.2f}", "{b:.0e}")
    assert called(said, a=0.1 + 0.2, b=1e-30).tolist() == [0.1 + 0.2, 0.3, 1e-30]


def test_seed_is_drawn_from_the_stream_only_where_it_is_asked_for(folder):
    rng = np.random.default_rng(3)
    before = rng.bit_generator.state
    mpiabc.Command("echo {mu}")({"mu": 1.0}, rng)
    assert rng.bit_generator.state == before
    seeds = [called("echo {seed}", seed=n) for n in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(seed == int(seed) and 0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("ending", "code", "expected"),
    [
        ("", "open(out, 'w').write('1 2\\n3 4')", [[1, 2], [3, 4]]),
        (".txt", "open(out, 'w').write('# of a run\\n1, 2, 3  # three\\n')", [1, 2, 3]),
        (".txt", "open(out, 'w').write('1\\n2\\n')", [1, 2]),
        (".txt", "open(out, 'w').write('nan')", np.nan),
        (".csv", "open(out, 'w').write('1,2\\n3,4\\n')", [[1, 2], [3, 4]]),
        (".csv", 'open(out, "w").write(\'"","S","I"\\n"1",9,1\\n"2",8,2\\n\')', {"S": [9, 8], "I": [1, 2]}),
        (".json", "open(out, 'w').write('{{\"y\": [1, 2.5], \"z\": 3}}')", {"y": [1, 2.5], "z": 3}),
        (".npy", "import numpy; numpy.save(out, [1., 2.])", [1, 2]),
        (".npz", "import numpy; numpy.savez(out, y=1., z=[2., 3.])", {"y": 1, "z": [2, 3]}),
    ],
)
def test_file_is_read_by_its_ending(folder, ending, code, expected):
    found = called(python(f"import sys; out = sys.argv[1]; {code}", "{out}" + ending))
    assert isinstance(found, dict) == isinstance(expected, dict)
    for name in expected if isinstance(expected, dict) else [None]:
        np.testing.assert_equal(
            found if name is None else found[name], expected if name is None else expected[name]
        )


def test_programs_may_choose_the_ending_themselves(folder):
    assert called(python("import sys; open(sys.argv[1] + '.json', 'w').write('[1, 2]')", "{out}")) == [1, 2]


def test_what_is_read_may_be_the_users_affair(folder):
    def read(folder):
        return {"n": len(list(folder.iterdir())), "y": float((folder / "trace.dat").read_text())}

    assert called(python("open('trace.dat', 'w').write('4')"), read=read) == {"n": 3, "y": 4.0}


def test_words_that_name_files_are_made_absolute_and_options_are_left_alone(folder):
    written(folder / "model.py", "import sys; print(sys.argv[1])")
    command = mpiabc.Command([sys.executable, "model.py", "{x}", "--model.py", "other.py"])
    assert command.words == (sys.executable, str(folder / "model.py"), "{x}", "--model.py", "other.py")
    assert command({"x": 2.0}, np.random.default_rng(1)) == 2.0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "empty"),
        ("./nowhere {mu}", "'./nowhere' is not found"),
        ("no-such-program", "is not found"),
        ("plain.txt", "write ./ before it"),
        ("./plain.txt", "chmod"),
        ("echo {mu", "cannot be filled"),
        ("echo {nu}", "{nu}, which is no parameter: expected one of mu"),
        ("echo {}", "which is no parameter"),
    ],
)
def test_command_that_cannot_run_is_refused_before_any_work(folder, command, message):
    (folder / "plain.txt").write_text("")
    with pytest.raises(mpiabc.ProblemError, match=message):
        mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), mpiabc.Command(command), observed=1.0)


def test_names_that_the_command_fills_itself_are_no_parameters(folder):
    with pytest.raises(mpiabc.ProblemError, match="'seed', which Command fills itself"):
        mpiabc.Problem(mpiabc.Prior(seed=stats.norm(0, 2)), mpiabc.Command("echo {seed}"), observed=1.0)
    with pytest.raises(mpiabc.ProblemError, match="vectorized"):
        mpiabc.Problem(
            mpiabc.Prior(mu=stats.norm()), mpiabc.Command("echo {mu}"), observed=1.0, vectorized=True
        )


def test_failure_has_the_status_what_the_program_said_and_a_folder_that_is_kept(folder):
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=stats.norm(0, 2)),
        mpiabc.Command(python("import sys; open('state', 'w').write('3'); sys.exit('no convergence')")),
        observed=1.0,
    )
    with pytest.raises(mpiabc.SimulatorError) as error:
        run(problem, scheduler="serial")
    message = str(error.value)
    assert "ended with status 1; it said: no convergence" in message
    (kept,) = scratch(folder)
    assert f"its folder is kept: {folder / 'scratch' / kept}" in message
    assert (folder / "scratch" / kept / "state").read_text() == "3"


def test_only_the_first_folders_of_failures_are_kept(folder, monkeypatch):
    monkeypatch.setattr("mpiabc.command._MOST_KEPT", 3)
    monkeypatch.setattr("mpiabc.command._kept", 0)
    for _ in range(5):
        with pytest.raises(CommandError, match="status 1"):
            called("false")
    assert len(scratch(folder)) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("print('one two')", "no table of numbers"),
        ("print('1 2\\n3')", "no table of numbers"),
        ("", "holds no number"),
    ],
)
def test_program_that_fails_is_reported(folder, code, message):
    with pytest.raises(CommandError, match=message):
        called(python(code))


def test_file_that_is_not_there_or_there_twice_is_reported(folder):
    with pytest.raises(CommandError, match=r"has left no file for {out}"):
        called("true {out}")
    with pytest.raises(CommandError, match=r"has left out\.csv, out\.txt for {out}"):
        called(["bash", "-c", "touch out.csv out.txt", "{out}"])


def wait_for_the_end_of(pid):
    with contextlib.suppress(OSError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)


def test_timeout_ends_the_program_and_all_that_it_has_started(folder):
    started = folder / "started"
    command = ["bash", "-c", f"setsid sleep 1000 & echo $! > {started}; wait"]
    with pytest.raises(CommandError, match=r"took longer than the 1 s"):
        called(command, timeout=1)
    wait_for_the_end_of(int(started.read_text()))
    assert len(scratch(folder)) == 1


def test_program_that_has_changed_is_named_when_a_run_goes_on(folder):
    written(folder / "model", ADDS_NOISE)
    problem = noisy()
    run(problem, scheduler="serial")
    written(folder / "model", ADDS_NOISE + "# another\n")
    with pytest.raises(mpiabc.Error, match="program model"):
        run(noisy(), scheduler="serial")


def test_worker_that_has_another_program_says_so(folder):
    written(folder / "model", ADDS_NOISE)
    problem = noisy()
    written(folder / "model", ADDS_NOISE + "# another\n")
    with pytest.raises(mpiabc.ProblemError, match="program model"):
        problem.arrived()


def test_programs_that_start_mpi_find_nothing_of_our_ranks(folder, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    code = "import os, json; json.dump(dict(os.environ), open('env.json', 'w'))"
    found = called(python(code), read=lambda folder: json.loads((folder / "env.json").read_text()))
    assert "LANG" in found
    assert not [name for name in found if name.startswith(("PMI_", "OMPI_"))]


PAIR = """
from mpi4py import MPI
n = MPI.COMM_WORLD.allreduce(1)
if MPI.COMM_WORLD.rank == 0:
    print(n)
"""
STARTS_PAIRS = """
import os, sys
import mpiabc
from scipy import stats

os.chdir({folder!r})
command = mpiabc.Command([*{mpirun!r}, "-n", "2", sys.executable, "pair.py"])
problem = mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), command, observed=2.0)
history = mpiabc.ABCSMC(problem, 4, seed=1).run("run.db", generations=1, progress=False)
if history is not None:
    print("simulated", history[0].summaries.ravel().tolist())
"""


@pytest.mark.long
def test_program_of_a_rank_may_be_an_mpi_program_itself(folder, mpi):
    written(folder / "pair.py", PAIR)
    mpirun = [str(mpi.bin / "mpirun"), *(["--oversubscribe"] if mpi.name == "openmpi" else [])]
    written(folder / "fit.py", STARTS_PAIRS.format(folder=str(folder), mpirun=mpirun))
    job = mpi.run(2, folder / "fit.py")
    assert (job.returncode, job.stdout.splitlines()[-1]) == (0, "simulated [2.0, 2.0, 2.0, 2.0]")


def test_interrupted_program_is_ended_and_its_folder_removed(folder):
    started = folder / "started"
    code = (
        f"import mpiabc\nmpiabc.Command(['bash', '-c', 'echo $$ > {started}; exec sleep 1000'])({{}}, None)"
    )
    script = subprocess.Popen([sys.executable, "-c", code], env=environment(), stderr=subprocess.DEVNULL)
    while not (started.exists() and started.read_text()):
        assert script.poll() is None
        time.sleep(0.01)
    script.send_signal(2)
    script.wait()
    wait_for_the_end_of(int(started.read_text()))
    assert not list((folder / "scratch").rglob("mpiabc-*"))


@pytest.mark.long
def test_example_in_c_fits_the_influenza_data(folder):
    example = ROOT / "examples" / "program" / "fit.py"
    words = [sys.executable, example, "--population", "20", "--generations", "2", "--store", "run.db"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(beta=")
