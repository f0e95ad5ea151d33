"""The batch systems: what differs between them, in one table.

To add one, write its entry here, and a template of its job script (`cli/jobscripts/NAME-mpi.sh`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mpiabc.batch import lsf, pbs, sge, slurm
from mpiabc.batch.ending import Ending, Listed
from mpiabc.batch.layout import Layout


@dataclass(frozen=True)
class No:
    """The system has no such directive; what to do instead."""

    instead: str


@dataclass(frozen=True)
class Arrays:
    """How a batch system deals with array jobs, by its commands and words."""

    submission: Callable[[str, int, str], list[str]]  # of a name, a number of tasks, a file for output
    limits: Callable[[str | None, int, str | None], list[str]]  # of memory, seconds, queue
    states: Callable[[], list[Listed]]  # of the user's tasks that it has not yet finished
    endings: Callable[[str, int], dict[int, Ending]]  # by index; of a job and its number of tasks
    index: str  # of a task, in the shell
    task: str  # how it names one
    cancel: str  # a command
    here: tuple[tuple[str, ...], ...]  # commands that succeed where it is, and answers
    rival: str = ""  # a program of another system that has commands of these names
    job: str = r"\d+"  # in what its submission says
    whole: Callable[[str, int], str] = lambda job, n: job  # what `cancel` knows a job by
    prelude: str = ""  # of the shell, before a task begins


@dataclass(frozen=True)
class System:
    """A batch system.

    variable: of the environment, in each of its jobs, with the job's name; `also` is there too where that
    name is a common one. left: a job's name to the seconds that it still has, None if no limit is found.
    submit: the command that takes a script. mark: how lines of a script begin that speak to it.
    directives: by option (see `directives.OPTIONS`), one a line, {} being the value; empty where `fills` or
    `asks` sees to it; an option that is left out is refused. Without `arrays`, `mpiabc.cluster` does not
    know it.
    """

    name: str
    variable: str
    left: Callable[[str], float | None]
    submit: str
    mark: str
    directives: Mapping[str, str | No]
    arrays: Arrays | None = None
    also: str = ""
    # How ranks lie on nodes, and what is asked for: what the directives then ask for.
    asks: Callable[[Layout, dict[str, str]], dict[str, str]] = lambda layout, asked: asked
    # The same, a rank's memory (empty if it is not given) and an example of it: further values of templates.
    fills: Callable[[Layout, str, str], dict[str, str]] = lambda layout, memory, example: {}
    launcher: str = ""  # a program of its own that starts ranks
    ranks: str = ""  # the variable by which that says how many it has started
    of_ranks: tuple[str, ...] = ()  # beginnings of the variables that make a rank of a process
    cores: str = ""  # the variable by which a job is promised cores for each process
    of_jobs: tuple[str, ...] = ()  # beginnings of variables that are a job's own, not for one that it submits
    of_site: tuple[str, ...] = ()  # of these, names that are for all


_PE = No(
    "its parallel environments say how ranks lie on nodes: give one of yours, as in --line '-pe mpi-8 32'"
)

SYSTEMS: dict[str, System] = {
    "slurm": System(
        name="SLURM",
        variable="SLURM_JOB_ID",
        left=slurm.left,
        submit="sbatch",
        mark="#SBATCH",
        directives={
            "account": "--account={}",
            "nodes": "--nodes={}",
            "tasks_per_node": "--ntasks-per-node={}",
            "cpus_per_task": "--cpus-per-task={}",
            "gpus": "--gpus={}",
            "qos": "--qos={}",
            "mail": "--mail-user={}\n--mail-type=END,FAIL,REQUEUE",
        },
        fills=slurm.fills,
        arrays=Arrays(
            slurm.submission,
            slurm.limits,
            slurm.states,
            slurm.endings,
            index="$SLURM_ARRAY_TASK_ID",
            task="{}_{}",
            cancel="scancel",
            here=(("sinfo", "--noheader"),),
        ),
        launcher="srun",
        ranks="SLURM_STEP_NUM_TASKS",
        of_ranks=("SLURM_STEP",),
        cores="SLURM_CPUS_PER_TASK",
        of_jobs=("SLURM_", "SBATCH_"),
        of_site=("SLURM_CONF",),
    ),
    "sge": System(
        name="SGE",
        variable="JOB_ID",
        also="SGE_TASK_ID",
        left=sge.left,
        submit="qsub",
        mark="#$",
        directives={
            "account": "-P {}",
            "nodes": _PE,
            "tasks_per_node": _PE,
            "cpus_per_task": _PE,
            "gpus": No("each site names its GPUs by itself: give what yours says, as in --line '-l gpu=1'"),
            "qos": No("give --queue, or --line with what your site uses"),
            "mail": "-M {}\n-m ae",
        },
        arrays=Arrays(
            sge.submission,
            sge.limits,
            sge.states,
            sge.endings,
            index="$SGE_TASK_ID",
            task="{}.{}",
            cancel="qdel",
            here=(("qconf", "-sss"), ("qstat",)),
            prelude="trap '' USR1\n",  # the warning of a suspension, which ends nothing
        ),
    ),
    "pbs": System(  # OpenPBS, PBS Professional, Torque
        name="PBS",
        variable="PBS_JOBID",
        left=pbs.left,
        submit="qsub",
        mark="#PBS",
        directives={
            "account": "-A {}",
            **dict.fromkeys(("nodes", "tasks_per_node", "cpus_per_task", "gpus"), ""),
            "qos": No("give --queue or, where Moab or Maui schedules, --line '-l qos=NAME'"),
            "mail": "-M {}\n-m ae",
        },
        fills=pbs.fills,
        arrays=Arrays(
            pbs.submission,
            pbs.limits,
            pbs.states,
            pbs.endings,
            index="${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-1}}",
            task="{}[{}]",
            cancel="qdel",
            here=(("qstat", "-B"),),
            rival="qconf",
            whole=pbs.whole,
        ),
    ),
    "lsf": System(
        name="LSF",
        variable="LSB_JOBID",
        left=lsf.left,
        submit="bsub <",
        mark="#BSUB",
        directives={
            "account": "-P {}",
            "nodes": "",
            "tasks_per_node": '-R "span[ptile={}]"',
            "cpus_per_task": '-R "affinity[core({})]"',
            "gpus": '-gpu "num={}"',
            "qos": No("give --queue, or --line '-sla NAME' for a service class"),
            "mail": "-u {}\n-N",
        },
        asks=lsf.asks,
    ),
}
