"""The command line: what it runs, shows and replays, and what it says to bad input."""

import re
import subprocess
import sys
import textwrap

import pytest

import mpiabc
from mpiabc import cli, schedulers
from mpiabc.cli.files import MODULE, load_problem
from tests.cluster import Simulated, random_time
from tests.conftest import HANGS, environment, missing
from tests.problems import digests, sampler

FIT = """
    import mpiabc
    from helper import SHIFT  # a neighbour of this file

    def simulate(theta, rng, *, epsilon, id):
        assert epsilon in (3, 1.5, 0.8)
        y = theta["mu"] + SHIFT + rng.standard_normal()
        if y > 4:
            raise RuntimeError(f"the pump broke in {id}")
        return None if y < -4 else {"y": y, "z": [y * y, 0.0]}

    prior = mpiabc.Prior(mu=mpiabc.Normal(0, 2))
    problem = mpiabc.Problem(
        prior,
        simulate,
        {"y": 1.0, "z": [1.0, 0.0]},
        distance=mpiabc.PNorm(p=1, weights={"y": 1, "z": [0, 0]}),
        on_error="reject",
        name="fit",
    )
"""
OPTIONS = ["--population-size", "50", "--threshold", "listed:3,1.5,0.8", "--seed", "1"]


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return path


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch):
    """What loading a problem's file leaves behind is taken away."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("helper", MODULE):
        sys.modules.pop(name, None)


def write_fit(folder, text=FIT):
    write(folder / "helper.py", "SHIFT = 0.0")
    return write(folder / "fit.py", text)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """A problem's file, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_fit(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run: fit.py and fit.db."""
    folder = tmp_path_factory.mktemp("done")
    fit = write_fit(folder)
    command = [sys.executable, "-m", "mpiabc", "run", fit, *OPTIONS, "--scheduler", "serial"]
    job = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert job.returncode == 0, job.stderr
    (folder / "stdout").write_text(job.stdout)
    (folder / "stderr").write_text(job.stderr)
    return folder


def said(capsys, *arguments, status=0):
    """What a command prints, after a check of its exit status; its error goes before it."""
    assert cli.main([str(argument) for argument in arguments]) == status
    output = capsys.readouterr()
    return output.err + output.out


def value(text, name):
    """What stands behind a name at the beginning of a line."""
    return re.search(rf"^{name}\s+(.*)$", text, re.MULTILINE)[1]


def test_run_prints_its_last_population_and_logs_each_generation(done):
    history = mpiabc.open(done / "fit.db")
    printed, logged = (done / "stdout").read_text(), (done / "stderr").read_text()
    low, high = history[-1].quantile([0.025, 0.975])[:, 0]
    row = value(printed, "mu").split()
    assert row[0] == f"{history[-1].mean()['mu']:.6g}"
    assert (row[2], row[4]) == (f"{low:.6g}", f"{high:.6g}")
    assert value(printed, "generations") == "3"
    assert value(printed, "epsilon") == "0.8"
    assert value(printed, "reason") == "threshold"
    assert value(printed, "digest") == history[-1].digest()
    lines = logged.splitlines()
    assert lines[0].startswith("generation 0: epsilon 3, 50 of")
    assert [line.partition(":")[0] for line in lines if line.startswith("generation")][1:] == [
        "generation 1",
        "generation 2",
    ]
    assert [note in line for line in lines for note in history.warnings].count(True) == len(history.warnings)


def test_run_of_a_file_is_the_run_of_a_script(done, tmp_path):
    problem = load_problem(str(done / "fit.py"))
    sampler = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    run = sampler.run(tmp_path / "script.db", scheduler="serial")
    assert digests(run) == digests(mpiabc.open(done / "fit.db"))


def test_run_under_mpirun_has_the_digest_of_the_serial_run(mpi, done, tmp_path):
    """Rank 0 alone prints."""
    job = mpi.run(2, "-m", "mpiabc", "run", done / "fit.py", *OPTIONS, "--store", tmp_path / "run.db")
    assert job.returncode == 0, job.stdout
    assert job.stdout.count("digest") == 1
    assert digests(mpiabc.open(tmp_path / "run.db")) == digests(mpiabc.open(done / "fit.db"))


def test_failing_run_under_mpirun_is_reported_once_and_exits_1(mpi, tmp_path):
    file = write_fit(tmp_path, FIT.replace('on_error="reject"', 'on_error="raise"'))
    job = mpi.run(2, "-m", "mpiabc", "run", file, *OPTIONS, "--store", tmp_path / "run.db")
    assert job.returncode == 1
    assert job.stdout.count("mpiabc: evaluation ") == 1
    assert "RuntimeError: the pump broke in 0:" in job.stdout
    assert "Traceback (most recent call last)" in job.stdout  # the simulator's, in the message
    assert "mpiabc/cli" not in job.stdout


def test_bad_options_under_mpirun_exit_1_and_do_not_hang(mpi, done):
    job = mpi.run(2, "-m", "mpiabc", "run", done / "fit.py", timeout=HANGS)
    assert job.returncode == 1
    assert "mpiabc: the population size is missing: give --population-size N" in job.stdout


def test_problem_of_a_file_travels_to_processes_that_cannot_import_it(done, tmp_path):
    sampler = mpiabc.ABCSMC(
        load_problem(str(done / "fit.py")), 50, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1
    )
    run = sampler.run(tmp_path / "spawned.db", scheduler=schedulers.Processes(1, start="spawn"))
    assert digests(run) == digests(mpiabc.open(done / "fit.db"))


def test_second_run_continues_and_overwrite_begins_anew(fit, capsys):
    first = said(capsys, "run", fit, *OPTIONS, "--scheduler", "serial", "--generations", 1)
    assert (value(first, "generations"), value(first, "reason")) == ("1", "generations")
    second = said(capsys, "run", fit, *OPTIONS, "--scheduler", "serial", "--generations", 2)
    assert value(second, "generations") == "2"
    other = ["run", fit, *OPTIONS[:-1], "2", "--scheduler", "serial", "--generations", 1]
    assert "fit.db holds a run with other settings (seed: 1 there, 2 here)" in said(capsys, *other, status=1)
    assert value(said(capsys, *other, "--overwrite"), "generations") == "1"


def test_messages_of_a_run_name_the_options_of_the_command_line(fit, capsys):
    assert "such as --generations 8 or --epsilon 0.1" in said(
        capsys, "run", fit, "--population-size", 9, "--scheduler", "serial", status=1
    )
    assert "--population-size 1: give a whole" in said(capsys, "run", fit, "--population-size", 1, status=1)
    said(capsys, "run", fit, *OPTIONS, "--scheduler", "serial", "--generations", 1)
    again = ["run", fit, *OPTIONS, "--scheduler", "serial"]
    other = said(capsys, *again, "--seed", 2, status=1)
    assert "or --overwrite to begin anew" in other
    content = (fit.parent / "fit.db").read_bytes()
    (fit.parent / "fit.db").write_bytes(content[: len(content) // 2])
    assert "start again from a copy of it, or with --overwrite\n" in said(capsys, *again, status=1)
    shown = said(capsys, "show", "fit.db", status=1)
    assert "is damaged" in shown
    assert "overwrite" not in shown


WORDS = {
    "setting": ("run {fit} --population-size x", "--population-size 'x': give a whole number"),
    "walltime": ("run {fit} --population-size 9 --walltime soon", "--walltime 'soon' is not understood"),
    "rule": (
        "run {fit} --population-size 9 --threshold constant:3 --recycle",
        "--recycle with --threshold Const",
    ),
    "runtime": ("worker redis://127.0.0.1:9 --insecure --runtime soon", "--runtime 'soon' is not understood"),
    "secret": ("worker redis://127.0.0.1:9", "may run code as you, say --insecure\n"),
    "seed": ("run {fit} --population-size 9 --seed -1", "--seed -1: give a whole number"),
}


@pytest.mark.parametrize("case", WORDS)
def test_messages_of_all_commands_name_their_own_options(case, fit, capsys):
    line, message = WORDS[case]
    assert message in said(capsys, *line.format(fit=fit).split(), status=1)


def test_two_problems_of_one_file_have_two_stores(fit, tmp_path, capsys):
    """One problem of its own name has that of the file, as ever."""
    other = "mpiabc.Problem(prior, simulate, {'y': 2.0, 'z': [1.0, 0.0]}, on_error='reject')"
    fit.write_text(f"{fit.read_text()}\nother = {other}\n")
    for name in ("problem", "other"):
        said(capsys, "run", f"{fit}:{name}", *OPTIONS, "--generations", 1, "--scheduler", "serial")
    assert {path.name for path in tmp_path.glob("*.db")} == {"fit-problem.db", "fit-other.db"}


def test_yaml_file_is_run_as_its_options(fit, done, tmp_path, capsys):
    yaml_or_skip()
    write(
        tmp_path / "cluster.yaml",
        """
        problem: fit.py:problem
        population_size: 50
        threshold: listed:3,1.5,0.8
        epsilon: 1e-3  # text to YAML, a number to us
        seed: 1
        scheduler: processes
        output: cluster.db
        progress: false
        """,
    )
    said(capsys, "run", "cluster.yaml", "--scheduler", "serial")
    assert digests(mpiabc.open("cluster.db")) == digests(mpiabc.open(done / "fit.db"))
    other = said(capsys, "run", "cluster.yaml", "--scheduler", "serial", "--seed", 2, "--store", "other.db")
    assert value(other, "digest") != mpiabc.open("cluster.db")[-1].digest()


@pytest.mark.long
def test_processes_are_renewed_from_the_command_line_and_yaml(fit, done, tmp_path, capsys, monkeypatch):
    yaml_or_skip()
    seen = []
    opened = schedulers.Processes.open

    def open_(self, problem):
        seen.append((repr(self), self.renew))
        return opened(self, problem)

    monkeypatch.setattr(schedulers.Processes, "open", open_)
    lines = "problem: fit.py\npopulation_size: 50\nthreshold: listed:3,1.5,0.8\nseed: 1\nrenew: 7"
    write(tmp_path / "fit.yaml", f"{lines}\nscheduler: processes\noutput: yaml.db")
    said(capsys, "run", "fit.yaml")
    said(capsys, "run", fit, *OPTIONS, "--scheduler", "processes", "--renew", 20, "--store", "options.db")
    assert seen == [("Processes()", 7), ("Processes()", 20)]
    for name in ("yaml.db", "options.db"):
        assert digests(mpiabc.open(name)) == digests(mpiabc.open(done / "fit.db"))
    for scheduler in ("serial", "redis://localhost:1"):
        options = ["run", fit, *OPTIONS, "--scheduler", scheduler, "--renew", 20]
        assert "give --scheduler processes" in said(capsys, *options, "--store", "c.db", status=1)
    options = ["run", fit, *OPTIONS, "--scheduler", "processes", "--renew", 0]
    assert "--renew 0: give a whole number of at least 1" in said(
        capsys, *options, "--store", "d.db", status=1
    )
    assert "--renew 0: give a whole" in said(capsys, "worker", "redis://localhost:1", "--renew", 0, status=1)


def test_yaml_file_finds_its_problem_beside_it(fit, tmp_path, capsys, monkeypatch):
    yaml_or_skip()
    write(tmp_path / "fit.yaml", "problem: fit.py\npopulation_size: 10\nscheduler: serial\ngenerations: 1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said(capsys, "run", "../fit.yaml", "--threshold", "constant:3")
    assert len(mpiabc.open("fit.db")) == 1


def test_yaml_file_without_pyyaml_names_the_extra(fit, tmp_path, capsys, monkeypatch):
    write(tmp_path / "fit.yaml", "problem: fit.py")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "install `mpiabc[yaml]`" in said(capsys, "run", "fit.yaml", status=1)


def yaml_or_skip():
    try:
        import yaml  # noqa: F401
    except ImportError:
        missing("PyYAML is not installed")


def test_show_tells_settings_generations_reason_and_failures(done, capsys):
    history = mpiabc.open(done / "fit.db")
    text = said(capsys, "show", done / "fit.db")
    assert value(text, "problem") == "fit"
    assert value(text, "seed") == "1"
    assert value(text, "threshold") == "Listed(thresholds=(3.0, 1.5, 0.8))"
    for p in history:
        row = value(text, f"{p.generation} ").split()
        assert row[:4] == [f"{p.epsilon:.6g}", "50", str(p.evaluations), str(p.simulations)]
        assert row[-1] == p.digest()[:12]
    assert "reason: threshold" in text
    failure = history.failures[0]
    line = (
        f"{failure.generation}:{failure.index}  exception  mu={failure.theta['mu']!r}  RuntimeError: the pump"
    )
    assert line in text
    assert "Traceback" not in text
    assert said(capsys, "show", done / "fit.db", "--failures").count("Traceback") == len(history.failures)


def test_show_tells_what_a_budget_has_left(tmp_path, capsys):
    sampler().run(tmp_path / "run.db", scheduler="serial", simulations=150)
    assert cli.main(["show", str(tmp_path / "run.db")]) == 0
    partial = mpiabc.open(tmp_path / "run.db").partial
    said = f"generation {partial.generation} was ended by the budget: {len(partial)} accepted"
    assert said in capsys.readouterr().out


def test_show_into_a_pipe_that_closes_early_is_no_error(done):
    command = [sys.executable, "-m", "mpiabc", "show", done / "fit.db", "--failures"]
    job = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job.stdout.close()
    assert job.stderr.read() == b""
    job.stderr.close()
    assert job.wait() == 0


def test_show_of_a_run_that_is_not_finished_says_so(fit, capsys, caplog, monkeypatch):
    monkeypatch.setattr("mpiabc.store.Store.commit", interrupted)
    assert cli.main(["run", str(fit), *OPTIONS, "--scheduler", "serial"]) == 75
    assert "fit.db: stopped by SIGTERM; run the same command again to continue" in caplog.text
    assert "reason: interrupted: stopped by SIGTERM" in said(capsys, "show", "fit.db")


def interrupted(*arguments):
    raise mpiabc.Interrupted("stopped by SIGTERM")


def replayed(capsys, done, t, index, *more, status=0):
    command = ["replay", done / "fit.db", f"{t}:{index}", "--trust", *more]
    return said(capsys, *command, status=status)


@pytest.mark.parametrize("t", [0, 2])
def test_replay_of_an_accepted_evaluation_is_the_stored_row_bit_for_bit(t, done, capsys):
    population = mpiabc.open(done / "fit.db")[t]
    for i in (0, 49):
        text = replayed(capsys, done, t, population.ids[i])
        assert value(text, "status") == "accepted"
        assert float(value(text, "epsilon")) == population.epsilon
        assert value(text, "theta") == f"mu={population['mu'][i].item()!r}"
        assert float(value(text, "distance")) == population.distances[i]
        labels = ("y", r"z\[0\]", r"z\[1\]")
        found = [float(value(text, label).split()[0]) for label in labels]
        assert found == population.summaries[i].tolist()
        assert value(text, "stored") == "equal, bit for bit"


@pytest.mark.long
def test_replay_tells_of_every_evaluation_what_became_of_it(done, capsys):
    """Of a rejected one its distance too; the statuses together are those of the run."""
    population = mpiabc.open(done / "fit.db")[1]
    failed = [f.index for f in mpiabc.open(done / "fit.db").failures if f.generation == 1]
    accepted = []
    for index in range(population.evaluations):
        text = replayed(capsys, done, 1, index, status=1 if index in failed else 0)
        status = value(text, "status")
        accepted += [index] * (status == "accepted")
        assert (status == "failed") == (index in failed)
        if status in ("accepted", "rejected"):
            assert (float(value(text, "distance")) <= 1.5) == (status == "accepted")
    assert accepted == population.ids.tolist()


def test_replay_of_a_failed_evaluation_shows_its_traceback_and_exits_1(done, capsys):
    failure = mpiabc.open(done / "fit.db").failures[0]
    text = replayed(capsys, done, failure.generation, failure.index, status=1)
    assert value(text, "status") == "failed"
    assert value(text, "theta") == f"mu={failure.theta['mu']!r}"
    assert failure.traceback.splitlines()[-1] in text
    assert 'raise RuntimeError(f"the pump broke in {id}")' in text


def test_replay_of_the_failure_that_ended_a_run_finds_it_again(fit, done, capsys):
    """Its address is in the run's message; its generation was never completed."""
    write_fit(fit.parent, FIT.replace('on_error="reject"', 'on_error="raise"'))
    message = said(capsys, "run", fit, *OPTIONS, "--scheduler", "serial", status=1)
    address = re.search(r"^mpiabc: evaluation (0:\d+) failed", message)[1]
    assert len(mpiabc.open("fit.db")) == 0
    text = said(capsys, "replay", "fit.db", address, "--trust", status=1)
    assert f"RuntimeError: the pump broke in {address}" in text


def test_replay_with_pdb_stops_in_the_simulator(done, capsys, monkeypatch):
    failure = mpiabc.open(done / "fit.db").failures[0]
    frames = []
    monkeypatch.setattr("pdb.post_mortem", lambda tb: frames.append(tb.tb_frame))
    replayed(capsys, done, failure.generation, failure.index, "--pdb", status=1)
    (frame,) = frames
    assert frame.f_code.co_name == "simulate"
    assert frame.f_locals["theta"] == failure.theta
    assert str(frame.f_locals["id"]) == f"{failure.generation}:{failure.index}"
    assert frame.f_locals["y"] > 4


def test_replay_reaches_into_the_open_generation(fit, done, capsys, monkeypatch):
    """With the threshold and the kernel of the settings: the same as once it is committed."""
    said(capsys, "run", fit, *OPTIONS, "--scheduler", "serial", "--generations", 1)
    index = mpiabc.open(done / "fit.db")[1].ids[0]
    text = said(capsys, "replay", "fit.db", f"1:{index}", "--trust")
    whole = replayed(capsys, done, 1, index)
    for name in ("theta", "epsilon", "status", "distance", "y"):
        assert value(text, name).split()[0] == value(whole, name).split()[0]


VECTORIZED = """
    import mpiabc
    import numpy as np

    def simulate(theta, rng):
        return {"y": theta["mu"] + rng.standard_normal(theta["mu"].shape)}

    problem = mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Uniform(-3, 3)), simulate, {"y": 1.0}, vectorized=True)
"""


@pytest.mark.parametrize("kernel", ["gaussian", "local"])
def test_replay_of_a_vectorized_simulator_is_the_stored_row_too(kernel, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = write(tmp_path / "fit.py", VECTORIZED)
    said(capsys, "run", fit, *OPTIONS, "--kernel", kernel, "--scheduler", "serial")
    population = mpiabc.open("fit.db")[-1]
    text = said(capsys, "replay", "fit.db", f"2:{population.ids[20]}", "--trust")
    assert value(text, "stored") == "equal, bit for bit"


def test_replay_of_a_static_run_is_the_stored_row_too(fit, capsys):
    """Ids of later tries lie beyond the first stride."""
    problem = load_problem(str(fit))
    sampler = mpiabc.ABCSMC(problem, 50, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    population = sampler.run("fit.db", scheduler=Simulated(2, random_time, is_static=True))[-1]
    text = said(capsys, "replay", "fit.db", f"2:{population.ids.max()}", "--trust")
    assert population.ids.max() >= 256
    assert value(text, "stored") == "equal, bit for bit"


def helps():
    reading = ["run", "show", "watch", "serve", "report", "plot", "export", "replay"]
    return [[], *([name] for name in [*reading, "worker", "broker", "jobs", "jobscript", "doctor"])]


@pytest.mark.parametrize("command", helps(), ids=lambda command: " ".join(command) or "mpiabc")
def test_help_of_every_command_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    _, example = text.split("example:\n")
    assert f"  mpiabc {' '.join(command)}" in example


def test_every_command_is_in_the_help_test(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = re.findall(r"^    (\w+)\b", capsys.readouterr().out, re.MULTILINE)
    assert listed == [command[0] for command in helps() if command]


FILES = {
    "empty.py": "",
    "two.py": FIT.replace("from helper import SHIFT", "SHIFT = 0")
    + "    again = problem\n    other = mpiabc.Problem(prior, simulate, {'y': 1.0, 'z': [1.0, 0.0]})\n",
    "twice.py": VECTORIZED + "    again = problem\n",
    "broken.py": "import mpiabc\nprint(unknown)\n",
    "wrong.py": "import mpiabc\nproblem = mpiabc.Problem(mpiabc.Prior(), len, 1.0)\n",
    "leaving.py": "raise SystemExit(0)\n",
    "syntax.py": "def f(:\n",
    "unknown.yaml": "problem: fit.py\npopulation: 10\n",
    "twice.yaml": "problem: fit.py\nstore: a.db\noutput: b.db\n",
    "without.yaml": "population_size: 10\n",
    "list.yaml": "- problem\n",
    "invalid.yaml": "problem: [\n",
    "text.yaml": "problem: fit.py\npopulation_size: many\n",
    "fit.yaml": "problem: fit.py\n",
    "other.db": "this is no database",
}
BAD = {
    "no file": ("run nothing.py", "cannot read nothing.py (No such file or directory): give a Python file"),
    "no problem": ("run empty.py {N}", "empty.py defines no mpiabc.Problem at its top level"),
    "several problems": (
        "run two.py {N}",
        "two.py defines several problems, problem, again, other: choose one, as in two.py:problem",
    ),
    "another name": (
        "run two.py:third {N}",
        "two.py defines no Problem named 'third': it has problem, again",
    ),
    "no size": ("run fit.py", "the population size is missing: give --population-size N"),
    "no end": ("run fit.py {N}", "the run has no end: give a stopping rule"),
    "size that is text": ("run fit.py --population-size x", "--population-size 'x': give a whole number"),
    "broken size": ("run fit.py --population-size 1.5", "--population-size '1.5': give a whole number"),
    "size of one": (
        "run fit.py --population-size 1",
        "--population-size 1: give a whole number of at least 2",
    ),
    "rate above one": (
        "run fit.py {N} --acceptance-rate 2",
        "--acceptance-rate 2.0: give a number in (0, 1]",
    ),
    "walltime": ("run fit.py {N} --walltime soon", "--walltime 'soon' is not understood"),
    "threshold": (
        "run fit.py {N} --threshold median",
        "--threshold 'median': give quantile:0.5, listed:4,2,1",
    ),
    "rising": ("run fit.py {N} --threshold listed:1,2", "does not fall"),
    "constant of two": ("run fit.py {N} --threshold constant:1,2", "--threshold 'constant:1,2': give"),
    "kernel": ("run fit.py {N} --kernel box", "--kernel 'box': give gaussian or local"),
    "scheduler": ("run fit.py {N} --generations 1 --scheduler fast", "unknown scheduler 'fast'"),
    "folder": (
        "run fit.py {N} --generations 1 --scheduler serial --store no/a.db",
        "does not exist: make it",
    ),
    "broken file": ("run broken.py {N}", "NameError: name 'unknown' is not defined"),
    "wrong problem": ("run wrong.py {N}", "the prior is empty"),
    "file that leaves": ("run leaving.py {N}", "leaving.py cannot be loaded:"),
    "syntax": ("run syntax.py {N}", "SyntaxError: invalid syntax"),
    "show nothing": ("show nothing.db", "there is no file nothing.db"),
    "show another file": ("show other.db", "it is not an mpiabc run"),
    "address": ("replay {done}/fit.db 3", "'3' is no evaluation: give T:I"),
    "generation to come": ("replay {done}/fit.db 4:0", "generation 4 has not begun"),
    "no trust": (
        "replay {done}/fit.db 0:1",
        "fit.db holds: give --trust if you trust whoever made that file",
    ),
    "no generation": ("replay {done}/fit.db 3:0 --trust", "there is no generation 3: Listed("),
    "another problem": (
        "replay {done}/fit.db 0:1 --problem twice.py",
        "is the run of another problem (prior: 'Prior(mu=Normal(mean=0, sd=2))' there, "
        "'Prior(mu=Uniform(low=-3, high=3))' here; observed data: ",
    ),
}
BAD_YAML = {
    "unknown key": (
        "run unknown.yaml",
        "unknown.yaml has the unknown key population; known are problem, pop",
    ),
    "both": ("run twice.yaml", "has both `store` and `output`, which are the same: give one"),
    "no problem": ("run without.yaml", "without.yaml names no problem: give `problem: FILE.py`"),
    "list": ("run list.yaml", "list.yaml holds no keys"),
    "invalid": ("run invalid.yaml", "invalid.yaml is not valid YAML"),
    "text": ("run text.yaml", "population_size='many': give a whole number"),
    "name": ("run fit.yaml:problem", "the problem's name goes into fit.yaml, as `problem: FILE.py:problem`"),
    "size": ("run fit.yaml", "the population size is missing"),
}


@pytest.mark.parametrize("case", [*BAD, *(f"yaml, {case}" for case in BAD_YAML)])
def test_bad_input_gets_one_sentence(case, fit, done, tmp_path, capsys):
    if case.startswith("yaml, "):
        yaml_or_skip()
        command, sentence = BAD_YAML[case.removeprefix("yaml, ")]
    else:
        command, sentence = BAD[case]
    for name, text in FILES.items():
        write(tmp_path / name, text)
    text = said(capsys, *command.format(N="--population-size 10", done=done).split(), status=1)
    assert text.startswith("mpiabc: ")
    assert sentence in text
    assert "mpiabc/cli" not in text
    assert not (tmp_path / "fit.db").exists()
