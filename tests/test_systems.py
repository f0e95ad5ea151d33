"""A batch system is an entry of one table and a template: a fifth one, made up, is known to all parts."""

import pytest

from mpiabc import batch, cli, cluster, durations, machine, programs
from mpiabc.batch import arrays, directives
from mpiabc.batch.commands import command
from mpiabc.batch.systems import SYSTEMS, Arrays, System
from mpiabc.cli import jobscript
from mpiabc.cli.doctor import launching
from mpiabc.schedulers.mpi import launched_size
from tests.conftest import ROOT

COMMANDS = {  # a submission runs the tasks of its job at once
    "boxsub": """
printf '%s\\n' "$*" >>{folder}/boxsub.log
[ -z "$BOX_TASK" ] || exit 9
for word in "$@"; do case $word in --tasks=*) n=${{word#--tasks=}};; esac; done
for ((index = 1; index <= n; index++)); do BOX_TASK=$index /bin/bash "$word"; done
echo "job <box.8> is in"
""",
    "boxstat": "echo 'box.8 1 R'; echo 'box.9 2 Q'",
    "boxdel": "printf '%s\\n' \"$*\" >>{folder}/boxdel.log",
    "boxtime": '[ "$1" = box.7 ] && echo 0:01:39',
    "boxrun": "echo box 1.0",
}
TEMPLATE = """\
#!/bin/bash
#BOX name=@name@
#BOX ranks=@ranks@
#BOX limit=@walltime@
##BOX memory=@memory@

export PATH="@bin@:$PATH"

exec mpirun -n @ranks@ python -u @script@
"""


def states():
    rows = (line.split() for line in command("boxstat").splitlines())
    return [(job, int(index), {"Q": "waits"}.get(state, "runs")) for job, index, state in rows]


BOX = System(
    name="BOX",
    variable="BOX_JOB",
    left=lambda job: durations.of_clock(command("boxtime", job)),
    submit="boxsub",
    mark="#BOX",
    directives={"account": "account={}", "nodes": "nodes={}"},
    arrays=Arrays(
        submission=lambda name, n, log: [f"--name={name}", f"--tasks={n}"],
        limits=lambda memory, seconds, queue: [f"--limit={seconds}"],
        states=states,
        endings=lambda job, n: {},
        index="$BOX_TASK",
        task="{}/{}",
        cancel="boxdel",
        here=(("boxstat",),),
        job=r"box\.\d+",
    ),
    launcher="boxrun",
    ranks="BOX_RANKS",
    of_ranks=("BOX_STEP",),
    cores="BOX_CORES",
    of_jobs=("BOX_",),
)


@pytest.fixture(autouse=True)
def box(tmp_path, monkeypatch):
    """A machine that has this system and no other, and its folder."""
    for name in (system.variable for system in SYSTEMS.values()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(SYSTEMS, "box", BOX)
    commands, templates = tmp_path / "commands", tmp_path / "templates"
    commands.mkdir()
    templates.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text.format(folder=tmp_path)}\n")
        (commands / name).chmod(0o755)
    (templates / "box-mpi.sh").write_text(TEMPLATE)
    monkeypatch.setattr(jobscript, "_TEMPLATES", templates)
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit.py").touch()
    return tmp_path


def test_a_job_of_it_is_known_with_its_time_left(monkeypatch):
    assert batch.job() == ""
    monkeypatch.setenv("BOX_JOB", "box.7")
    assert batch.job() == "BOX job box.7"
    assert batch.seconds_left() == 99


def test_it_is_found_submitted_to_listed_and_cancelled(box, monkeypatch):
    """From within a job of its own, whose variables the jobs that it submits do not get."""
    monkeypatch.setenv("BOX_TASK", "of the job around it")
    assert arrays.found() == "box"
    assert cluster.map(abs, [-1, -2, -3], walltime="1m", chunk=3) == [1, 2, 3]
    assert (box / "boxsub.log").read_text().startswith("--name=map --tasks=1 --limit=60 /")
    assert cluster.listed("box") == [("box.8", 1, "runs"), ("box.9", 2, "waits")]
    arrays.cancel("box", {"box.8": 1, "box.10": 1})
    assert (box / "boxdel.log").read_text() == "box.8\n"  # the other one has ended


def test_its_job_scripts_are_written(capsys):
    found = ["jobscript", "box", "--account", "mine", "--line", "-x", "--memory", "2G", "--ranks", "3"]
    assert cli.main([*found, "--stage", "--output", "fit.sh", "--bin", "/opt", "fit.py"]) == 0
    assert capsys.readouterr().out == "submit it with:  boxsub fit.sh\n"
    with open("fit.sh") as file:
        lines = file.read().splitlines()
    mine = ["name=fit", "ranks=3", "limit=02:00:00", "memory=2G", "account=mine", "-x"]
    assert lines[1:7] == [f"#BOX {each}" for each in mine]
    assert "archive=$PWD/.environment-$BOX_JOB.tar" in lines
    assert cli.main(["jobscript", "box", "--qos", "high", "fit.py"]) == 1
    assert "--qos high: BOX has none; give --line" in capsys.readouterr().err


def test_what_it_says_to_ranks_is_heard(monkeypatch):
    monkeypatch.setenv("BOX_RANKS", "5")
    monkeypatch.setenv("BOX_STEP_ID", "1")
    monkeypatch.setenv("BOX_CORES", "1")
    assert launched_size() == 5
    assert machine.cores() == 1
    assert "BOX_STEP_ID" not in programs.environment()
    assert "boxrun" in [launcher.name for launcher in launching.launchers()]


def test_every_system_says_of_every_option_what_it_does():
    for name, system in SYSTEMS.items():
        assert set(system.directives) <= set(directives.OPTIONS), name
        assert name == "box" or set(system.directives) == set(directives.OPTIONS), name


def test_what_differs_is_named_in_the_table_and_its_room_alone():
    """Elsewhere docstrings, messages and templates name it; no code asks for it."""
    own = {"SLURM_", "SBATCH_", "sinfo", "squeue", "sacct", "qstat", "qacct", "qconf", "bjobs"}
    for system in SYSTEMS.values():
        own |= {
            system.variable,
            system.submit,
            system.mark,
            system.launcher,
            system.ranks,
            system.cores,
            system.also,
        }
        own |= {system.arrays.cancel} if system.arrays else set()
    for path in (ROOT / "mpiabc").rglob("*.py"):
        if path.parent.name != "batch":
            text = path.read_text()
            named = {name for name in own - {""} if f'"{name}"' in text}
            assert not named, f"{path}: {named}"
