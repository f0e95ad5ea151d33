"""The job scripts: what is in the folder is what the command prints, and runs as printed.

tests/test_clusters.py submits those of SLURM and SGE; for PBS and LSF, which no test machine has, this file
plays the batch system: environment, limits, and the second start of a job that asks for it.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import mpiabc
from mpiabc import cli
from mpiabc.batch.systems import SYSTEMS
from mpiabc.cli import jobscript
from tests import problems
from tests.conftest import HANGS, ROOT, environment, missing
from tests.programs import killed

PLAIN = ROOT / "tests" / "programs" / "plain.py"
PROGRAM = ROOT / "tests" / "programs" / "killed.py"
BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of the runs' files, where the command is called."""
    monkeypatch.chdir(tmp_path)
    for name in ("fit.py", "my fit.py", "a b.py", "my run.yaml"):
        (tmp_path / name).touch()


def said(capsys, *arguments, status=0):
    assert cli.main(list(map(str, arguments))) == status
    return "".join(capsys.readouterr())


def test_folder_holds_what_the_templates_give():
    """Otherwise run `python -m tests.programs.jobscripts`. (ESPEI's scripts are none of them.)"""
    written = {f"{name}.sh": jobscript.written(name, {}) for name in jobscript.scripts()}
    found = {path.name: path.read_text() for path in (ROOT / "jobscripts").glob("*.sh")}
    assert found == written
    assert {name.partition("-")[0] for name in written} == {"slurm", "pbs", "sge", "lsf"}


def test_shellcheck_has_nothing_to_say(tmp_path, capsys):
    """Of the folder, of the command's output for unusual values, and of our own scripts."""
    program = shutil.which("shellcheck", path=f"{BIN}:{os.environ['PATH']}")
    if program is None:
        missing("shellcheck is not installed")
    for name in jobscript.scripts():
        system, _, kind = name.partition("-")
        options = ["--kind", kind, "--queue", "short", "--memory", "1G", "--broker", "my broker.json"]
        options += ["--account", "p", "--mail", "me@x.org", "--module", "my gcc", "--line", "-l gpu=1"]
        printed = said(capsys, "jobscript", system, *options, "my fit.py", "it's", "a;b")
        (tmp_path / f"{name}.sh").write_text(printed)
    scripts = [*(ROOT / "jobscripts").iterdir(), *tmp_path.glob("*.sh"), *ROOT.glob("tests/clusters/*.sh")]
    done = subprocess.run([program, *scripts, ROOT / ".ci" / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_values_are_filled_in_and_switch_their_lines_on(capsys):
    text = said(
        capsys, "jobscript", "slurm", "--ranks", 8, "--walltime", "90m", "--queue", "gpu", "a b.py", "c"
    )
    lines = text.splitlines()
    assert {"#SBATCH --ntasks=8", "#SBATCH --time=01:30:00", "#SBATCH --partition=gpu"} <= set(lines)
    assert "##SBATCH --mem-per-cpu=2G" in lines  # not given: off
    assert "#SBATCH --job-name=a-b" in lines
    assert lines[-1] == """exec mpirun -n "$SLURM_NTASKS" python -u 'a b.py' c"""
    for arguments in (["--", "--seed", 3], ["--seed", 3]):
        yaml = said(capsys, "jobscript", "slurm", "my run.yaml", *arguments).splitlines()
        assert yaml[-1] == """exec mpirun -n "$SLURM_NTASKS" python -u -m mpiabc run 'my run.yaml' --seed 3"""
    named = said(capsys, "jobscript", "slurm", "fit.py:heat", "--population-size", 100)
    assert named.endswith("python -u -m mpiabc run fit.py:heat --population-size 100\n")
    assert "#SBATCH --job-name=fit\n" in named
    pbs = said(capsys, "jobscript", "pbs", "--memory", "2G", "fit.py").splitlines()
    assert {"#PBS -l select=4:ncpus=1:mpiprocs=1:mem=2gb", "self=fit.sh"} <= set(pbs)
    assert f'export PATH="{jobscript.sysconfig.get_path("scripts")}:$PATH"' in lines
    assert "#BSUB -W 2:01" in said(capsys, "jobscript", "lsf", "--walltime", "7201", "fit.py")
    workers = said(capsys, "jobscript", "sge", "--kind", "workers", "--ranks", 100, "--walltime", "2h")
    assert "#$ -t 1-100" in workers
    assert "--runtime 7080s" in workers
    assert 'broker="$HOME/.mpiabc/broker.json"' in workers
    other = said(capsys, "jobscript", "sge", "--kind", "workers", "--broker", "my broker.json")
    assert "broker='my broker.json'" in other.splitlines()


ASKED = {
    "slurm": (
        "--nodes 2 --tasks-per-node 4 --cpus-per-task 3 --gpus 2 --qos a --account p --mail me --memory 2G",
        """--ntasks=8 --nodes=2 --ntasks-per-node=4 --cpus-per-task=3 --gpus=2 --qos=a --account=p
        --mail-user=me --mail-type=END,FAIL,REQUEUE --mem-per-cpu=683M""",
    ),
    "pbs": (
        "--nodes 2 --ranks 8 --cpus-per-task 3 --gpus 2 --account p --mail me --memory 2G",
        "-l|select=2:ncpus=12:mpiprocs=4:ompthreads=3:ngpus=1:mem=8gb -A|p -M|me -m|ae",
    ),
    "sge": ("--account p --mail me", "-P|p -M|me -m|ae"),
    "lsf": (
        "--nodes 2 --ranks 8 --cpus-per-task 3 --gpus 2 --account p --mail me",
        '-n|8 -R|"span[ptile=4]" -R|"affinity[core(3)]" -gpu|"num=1" -P|p -u|me -N',
    ),
}


@pytest.mark.parametrize("system", ASKED)
def test_what_a_site_wants_is_said_as_its_system_says_it(system, capsys):
    """So are lines of the user's own, with the system's mark or without, and modules."""
    options, expected = ASKED[system]
    mark = SYSTEMS[system].mark
    own = ["--line", "--constraint=new", "--line", f"{mark} -x 1", "--module", "gcc", "--module", "a b"]
    lines = said(capsys, "jobscript", system, *options.split(), *own, "fit.py", "-n", "--deep=1").splitlines()
    wanted = [*expected.replace("|", "\0").split(), "--constraint=new", "-x\0001"]
    assert {f"{mark} {line.replace(chr(0), ' ')}" for line in wanted} <= set(lines)
    directives = [line for line in lines if line.startswith((mark, f"#{mark}"))]
    assert directives[-1] == f"{mark} -x 1"  # Grid Engine, for one, obeys the last -pe
    at = lines.index("module load gcc || exit 1")
    assert lines[at + 1] == "module load 'a b' || exit 1"
    assert lines[at + 2].startswith("export PATH=")
    (run,) = [line for line in lines if "python" in line]
    assert run.endswith("python -u fit.py -n --deep=1")


@pytest.mark.parametrize(
    "options", ["--ranks 8 fit.py --seed 3", "fit.py --seed --ranks 8 3", "--ranks=8 -- fit.py --seed 3"]
)
def test_what_stands_behind_the_file_is_the_scripts_unless_it_is_an_option_here(options, capsys):
    lines = said(capsys, "jobscript", "slurm", *options.split()).splitlines()
    assert "#SBATCH --ntasks=8" in lines
    assert lines[-1].endswith(" fit.py --seed 3")
    assert said(capsys, "jobscript", "slurm", "fit.py", "--", "--ranks", 8).endswith(" fit.py --ranks 8\n")


def test_cores_of_workers_are_those_of_their_jobs(capsys):
    lines = said(capsys, "jobscript", "slurm", "--kind", "workers", "--cpus-per-task", 8).splitlines()
    assert [line for line in lines if "--cpus-per-task" in line] == ["#SBATCH --cpus-per-task=8"]


def test_options_before_the_file_that_are_none_are_refused(capsys):
    """One that is misspelt is not the script's."""
    with pytest.raises(SystemExit):
        cli.main(["jobscript", "slurm", "--rank", "8", "fit.py"])
    output = capsys.readouterr().err
    assert (
        "--rank is no option here; a directive of the system's own goes into --line, as in --line=--rank=V"
        in output
    )


WRONG = {
    "no name": ("slurm", "the file of the run is missing: give FILE.py, or FILE.yaml"),
    "no size": (
        "slurm fit.py:heat",
        "fit.py:heat is for `mpiabc run`: give what `mpiabc run` needs",
    ),
    "no file": ("slurm fitt.py", "there is no file fitt.py in /"),
    "no ranks": ("slurm --ranks 0 fit.py", "--ranks '0': give a whole number of at least 1"),
    "no time": ("slurm --walltime soon fit.py", "--walltime 'soon' is not understood"),
    "auto": ("slurm --walltime auto fit.py", "its job needs a time such as 2h"),
    "short workers": ("sge --kind workers --walltime 2m", "give --kind workers more than 120 s"),
    "short requeue": ("slurm --kind requeue --walltime 2m fit.py", "give --kind requeue more than 120 s"),
    "one rank": ("pbs --kind dask --ranks 1 fit.py", "give --kind dask 2 or more, a scheduler and workers"),
    "no folder": ("pbs --output /nowhere/fit.sh fit.py", "cannot write /nowhere/fit.sh (No such file"),
    "nodes of sge": ("sge --nodes 2 fit.py", "--nodes 2: SGE has none; its parallel environments"),
    "tasks of sge": ("sge --tasks-per-node 2 fit.py", "SGE has none; its parallel environments"),
    "cores of sge": ("sge --cpus-per-task 2 fit.py", "SGE has none; its parallel environments"),
    "gpus of sge": ("sge --gpus 2 fit.py", "give what yours says, as in --line '-l gpu=1'"),
    "qos of sge": ("sge --qos a fit.py", "--qos a: SGE has none; give --queue"),
    "qos of pbs": ("pbs --qos a fit.py", "--qos a: PBS has none; give --queue"),
    "qos of lsf": ("lsf --qos a fit.py", "--qos a: LSF has none; give --queue"),
    "gpus of lsf": ("lsf --gpus 2 fit.py", "LSF counts those of each host; give --nodes, too"),
    "gpus of pbs": ("pbs --gpus 2 fit.py", "--gpus 2 with 4 ranks, and no --nodes"),
    "three numbers": (
        "slurm --nodes 2 --tasks-per-node 3 --ranks 4 fit.py",
        "make 6; leave one of the three",
    ),
    "uneven nodes": ("pbs --nodes 3 --ranks 4 fit.py", "--ranks 4 with --nodes 3: nodes are to be alike"),
    "nodes of workers": ("slurm --kind workers --nodes 3", "each of its jobs is one worker"),
    "two words": ("slurm --account 'a b' fit.py", "--account 'a b': give one word"),
    "empty line": ("slurm --line '#SBATCH' fit.py", "give what stands behind #SBATCH"),
    "broken memory": (
        "pbs --nodes 2 --memory 1.5G fit.py",
        "--memory '1.5G': give a whole number and its unit",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_reported(case, capsys):
    arguments, message = WRONG[case]
    assert message in said(capsys, "jobscript", *shlex.split(arguments), status=1)


MADE = (
    "from mpiabc import *\nimport subprocess\nproblem = Problem(prior, lambda t, r: subprocess.run([]), y)\n"
)
AS_SCRIPT, AS_PROBLEM, NEVER = (
    "python -u it.py --population-size=9",
    "mpiabc run it.py --population-size=9",
    1,
)
FILES = {
    "a problem": (MADE, AS_PROBLEM),
    "typed": ("import mpiabc\nproblem: object = mpiabc.Problem(prior, simulate, y)\n", AS_PROBLEM),
    "of a function": ("def make(n):\n    return Problem(prior, simulate, n)\n\nheat = make(1)\n", AS_PROBLEM),
    "models": (f"{MADE}other = Problem(prior, other, y)\nmodels = [problem, other]\n", AS_PROBLEM),
    "a sampler": (f"{MADE}abc = ABCSMC(problem, 100)\n", NEVER),
    "run": (f"{MADE}abc = ABCSMC(problem, 100)\nabc.run('it.db')\n", AS_SCRIPT),
    "run in a function": (f"{MADE}def main():\n    ABCSMC(problem, 100).run('it.db')\nmain()\n", AS_SCRIPT),
    "run at once": ("history = ABCSMC(Problem(prior, simulate, y), 100).run('it.db')\n", AS_SCRIPT),
    "made and run in a function": (
        "def fit():\n    return ABCSMC(Problem(prior, simulate, y), 100).run('it.db')\n\nhistory = fit()\n",
        AS_SCRIPT,
    ),
    "given away": (f"{MADE}from runs import fit\nhistory = fit(problem)\n", AS_SCRIPT),
    "none of ours": ("print(1)\n", AS_SCRIPT),
    "no Python": ("def (\n", AS_SCRIPT),
}


@pytest.mark.parametrize("what", FILES)
def test_file_that_only_holds_a_problem_is_run_by_mpiabc_run(what, capsys):
    """As a script it would do nothing, with status 0."""
    text, expected = FILES[what]
    Path("it.py").write_text(text)
    command = ["jobscript", "slurm", "it.py"]
    message = said(capsys, *command, "--population-size=9", status=1 if expected == NEVER else 0)
    assert "it.py makes a sampler and never runs it" in message if expected == NEVER else expected in message
    if expected == AS_PROBLEM:
        assert "it.py holds a Problem and nothing that runs it: give" in said(capsys, *command, status=1)


PLACES = [
    "--account",
    "--mail",
    "--line",
    "--module",
    "--name",
    "--memory",
    "--queue",
    "--bin",
    "--broker",
    "--output",
    "--walltime",
    "--ranks",
    "fit.py",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_value_becomes_a_command_of_the_script(place, tmp_path, capsys, monkeypatch):
    """A line break would make one of it, in the directives' lines and in comments."""
    monkeypatch.chdir(tmp_path)
    for system in ("slurm", "pbs", "sge", "lsf"):
        for text in ("x\ntouch marks", "2\r#PBS -q other"):
            option = [f"{place}={text}", "fit.py"] if place.startswith("-") else [place, text]
            message = said(capsys, "jobscript", system, *option, status=1 if place != "--name" else 0)
            assert place == "--name" or repr(text)[1:-1] in message
            assert "\ntouch" not in message.replace("\r", "\n")


def test_folder_of_programs_is_a_path_and_runs_nothing(tmp_path, capsys):
    folder = '$HOME/"a" `touch marks` $(touch marks) \\'
    text = said(capsys, "jobscript", "slurm", "--bin", folder, "fit.py")
    (line,) = [line for line in text.splitlines() if line.startswith("export PATH=")]
    output = subprocess.run(
        ["bash", "-c", f'{line}; echo "$PATH"'],
        cwd=tmp_path,
        env=environment(HOME="/home/ada"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.startswith('/home/ada/"a" `touch marks` $(touch marks) \\:')
    assert not (tmp_path / "marks").exists()


@pytest.mark.parametrize("system", ["slurm", "pbs", "sge", "lsf"])
def test_script_that_is_written_knows_its_name_and_no_file_is_overwritten(
    system, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ["jobscript", system, "--output", "my job.sh", "fit.py"]
    submit = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub <"}[system]
    assert said(capsys, *command) == f"submit it with:  {submit} 'my job.sh'\n"
    text = (tmp_path / "my job.sh").read_text()
    assert f"submit it with:  {submit} 'my job.sh'\n" in text
    assert ("self='my job.sh'\n" in text) == (system == "pbs")
    assert "my job.sh is there already" in said(capsys, *command, status=1)


@pytest.mark.parametrize("kind", ["mpi", "dask"], ids=["ranks", "dask"])
def test_pbs_job_that_could_not_submit_itself_again_says_so_at_its_start(kind, tmp_path, capsys):
    script = tmp_path / "other.sh"
    script.write_text(said(capsys, "jobscript", "pbs", "--kind", kind, "--bin", BIN, PLAIN))
    job = run(tmp_path, script, PBS_JOBID="17.host", PBS_O_WORKDIR=str(tmp_path))
    assert job.returncode == 1
    assert job.stdout.startswith(
        f"there is no plain.sh in {tmp_path}: write this script's own name after self="
    )


@pytest.fixture
def expected(tmp_path):
    return problems.digests(killed.sampler(0).run(tmp_path / "quiet.db", scheduler="serial"))


def test_log_of_a_job_begins_with_what_it_is_and_says_that_its_status_is_meant(caplog, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    caplog.set_level("INFO", "mpiabc")
    begun = []
    for rules in ({"generations": 1}, {"generations": 2}, {"walltime": 1e-9}):
        caplog.clear()
        with suppress(mpiabc.Interrupted):
            killed.sampler(0).run("run.db", scheduler="serial", **rules)
        begun.append(caplog.messages[0])
    path, host = Path("run.db").absolute(), platform.node()
    assert begun == [
        f"{path}: SLURM job 17 on {host}, 1 worker: {how}"
        for how in ("new", "resumed from generation 1", "resumed from generation 2")
    ]
    message = "exit status 75 is meant, and no failure of SLURM job 17: the next job of this script goes on"
    assert caplog.messages[-1] == f"{path}: {message}"


def command(folder, name, text):
    """A command of the batch system, for the PATH of its jobs."""
    path = folder / "commands" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def run(folder, script, cwd="/", **variables):
    """The script as the batch system runs it: in a session of its own, with its variables and commands."""
    path = f"{folder / 'commands'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", script],
        cwd=cwd,
        env=environment(PATH=path, **variables),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS,
    )


@pytest.mark.long
def test_pbs_job_submits_itself_again_until_the_run_is_done(expected, tmp_path, capsys):
    """Jobs of 14 s and more, in an environment as Torque makes it, each submitted by the one before.

    Each has more time than the one before: on a busy machine 14 s are over before anything is simulated.
    """
    options = ["--ranks", 2, "--walltime", "14s", "--bin", BIN]
    script = tmp_path / "killed.sh"
    script.write_text(said(capsys, "jobscript", "pbs", *options, PROGRAM, "run.db", "mpi", "-", "0.02"))
    command(tmp_path, "qsub", f"echo $PWD $1 >>{tmp_path}/submitted")
    starts = 0
    while starts == len(submitted(tmp_path)):
        variables = {
            "PBS_JOBID": f"{starts}.host",
            "PBS_WALLTIME": str(14 + 3 * starts),
            "PBS_O_WORKDIR": str(tmp_path),
        }
        job = run(tmp_path, script, **variables)
        starts += 1
        assert job.returncode in (0, 75), job.stdout
        assert starts < 20
    assert job.returncode == 0
    assert starts > 1
    assert set(submitted(tmp_path)) == {f"{tmp_path} killed.sh"}
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected


def submitted(folder):
    path = folder / "submitted"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.long
def test_lsf_job_ends_in_time_with_the_status_that_queues_it_again(expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "lsf-mpi.sh"
    arguments = [PROGRAM, tmp_path / "run.db", "mpi"]
    script.write_text(said(capsys, "jobscript", "lsf", "--ranks", 2, "--bin", BIN, *arguments))
    assert '#BSUB -Q "75"' in script.read_text()
    variables = {"LSB_JOBID": "17", "LSB_DJOB_NUMPROC": "2"}
    command(tmp_path, "bjobs", "echo 0:0 L")
    assert run(tmp_path, script, **variables).returncode == 75
    command(tmp_path, "bjobs", "echo 0:10 L")
    job = run(tmp_path, script, **variables)
    assert job.returncode == 0, job.stdout
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected


@pytest.mark.long
def test_pbs_job_starts_a_dask_cluster_that_the_run_uses_and_leaves_nothing(expected, tmp_path, capsys):
    """A run by a YAML file; the first job has no time for it, and the next one goes on."""
    if shutil.which("dask-mpi", path=BIN) is None:
        missing("dask-mpi is not installed: install `mpiabc[dask]`")
    (tmp_path / "my run.yaml").write_text(
        f"problem: {PLAIN}\npopulation_size: 100\nthreshold: listed:3,1.5,0.8\nseed: 1\noutput: run.db\n"
    )
    script = tmp_path / "my-run.sh"
    options = ["--kind", "dask", "--ranks", 2, "--bin", BIN]
    script.write_text(said(capsys, "jobscript", "pbs", *options, "my run.yaml"))
    command(tmp_path, "qsub", f"echo $PWD $1 >>{tmp_path}/submitted")
    variables = {"PBS_JOBID": "17.host", "PBS_O_WORKDIR": str(tmp_path)}
    job = run(tmp_path, script, **variables, PBS_WALLTIME="1")
    assert job.returncode == 75, job.stdout
    assert submitted(tmp_path) == [f"{tmp_path} my-run.sh"]
    job = run(tmp_path, script, **variables, PBS_WALLTIME="600")
    assert job.returncode == 0, job.stdout
    assert problems.digests(mpiabc.open(tmp_path / "run.db")) == expected
    assert [path.name for path in tmp_path.glob("simulated-by-*")] == ["simulated-by-dask-mpi"]
    assert not list(tmp_path.glob("*.json"))


DASK_MPI = {
    "at its start": "exit 3",
    "after its file": """
while [ "$1" != --scheduler-file ]; do shift; done
echo '{"address": "tcp://127.0.0.1:9"}' >"$2"
sleep 2
exit 3""",
}


ESPEI = [f"espei-dask.{system}" for system in ("pbs", "slurm", "sge")]


@pytest.mark.long
@pytest.mark.parametrize("name", [*(n for n in jobscript.scripts() if n.endswith("-dask")), *ESPEI])
@pytest.mark.parametrize("when", DASK_MPI)
def test_job_ends_with_its_dask_cluster(when, name, tmp_path, capsys):
    """It would hold the allocation for the minutes that a run waits for a scheduler."""
    command(tmp_path, "mpirun", 'shift 2; "$@"')
    command(tmp_path, "dask-mpi", f"echo cannot import mpi4py; {DASK_MPI[when]}")
    command(tmp_path, "python", f'exec {sys.executable} "$@"')
    script = ROOT / "jobscripts" / name
    if name not in ESPEI:
        script = tmp_path / "plain.sh"
        system, commands = name.partition("-")[0], tmp_path / "commands"
        options = ["--kind", "dask", "--bin", commands, PLAIN]
        script.write_text(said(capsys, "jobscript", system, *options))
    (tmp_path / "nodes").write_text("a\n" * 4)
    ours = {"PBS_JOBID": "17", "PBS_O_WORKDIR": str(tmp_path), "PBS_NODEFILE": str(tmp_path / "nodes")}
    job = run(tmp_path, script, tmp_path, **ours, SLURM_JOB_ID="17", SLURM_NTASKS="4", NSLOTS="4")
    assert job.returncode == 1, job.stdout
    assert "cannot import mpi4py\n" in job.stdout
    assert "dask-mpi has ended, and this job with it: what it said is above\n" in job.stdout
    assert not list(tmp_path.glob("*.json"))
