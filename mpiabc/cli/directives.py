"""What a job asks for besides ranks and time, as each batch system says it: one table.

Where a system has no such thing, the table says what to do instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mpiabc import batch
from mpiabc.errors import ProblemError

MARK = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "lsf": "#BSUB"}
NAMES = {"slurm": "Slurm", "pbs": "PBS", "sge": "Grid Engine", "lsf": "LSF"}


@dataclass(frozen=True)
class No:
    """The system has no such thing; what to do instead."""

    instead: str


_PE = "its parallel environments say how ranks lie on nodes: give one of yours, as in --line '-pe mpi-8 32'"
_SELECT = ""  # it is part of `-l select`, see `Layout`

# By option, then by system: directives, one a line, {} being the value.
TABLE: dict[str, dict[str, str | No]] = {
    "account": {"slurm": "--account={}", "pbs": "-A {}", "sge": "-P {}", "lsf": "-P {}"},
    "nodes": {"slurm": "--nodes={}", "pbs": _SELECT, "sge": No(_PE), "lsf": ""},
    "tasks_per_node": {
        "slurm": "--ntasks-per-node={}",
        "pbs": _SELECT,
        "sge": No(_PE),
        "lsf": '-R "span[ptile={}]"',
    },
    "cpus_per_task": {
        "slurm": "--cpus-per-task={}",
        "pbs": _SELECT,
        "sge": No(_PE),
        "lsf": '-R "affinity[core({})]"',
    },
    "gpus": {
        "slurm": "--gpus={}",
        "pbs": _SELECT,
        "sge": No("each site names its GPUs by itself: give what yours says, as in --line '-l gpu=1'"),
        "lsf": '-gpu "num={}"',
    },
    "qos": {
        "slurm": "--qos={}",
        "pbs": No("give --queue or, where Moab or Maui schedules, --line '-l qos=NAME'"),
        "sge": No("give --queue, or --line with what your site uses"),
        "lsf": No("give --queue, or --line '-sla NAME' for a service class"),
    },
    "mail": {
        "slurm": "--mail-user={}\n--mail-type=END,FAIL,REQUEUE",
        "pbs": "-M {}\n-m ae",
        "sge": "-M {}\n-m ae",
        "lsf": "-u {}\n-N",
    },
}
COUNTED = ("nodes", "tasks_per_node", "cpus_per_task", "gpus")


def option(name: str) -> str:
    """As the command line has it."""
    return f"--{name.replace('_', '-')}"


def lines(system: str, values: Mapping[str, str]) -> list[str]:
    """The directives for what is given. Raises ProblemError for what the system has not."""
    mark, found = MARK[system], []
    for name, by_system in TABLE.items():
        if value := values.get(name):
            form = by_system[system]
            if isinstance(form, No):
                raise ProblemError(f"{option(name)} {value}: {NAMES[system]} has none; {form.instead}")
            found += [f"{mark} {line}" for line in form.format(value).splitlines()]
    return found


def own_line(system: str, text: str) -> str:
    """A directive that the user writes, with the system's mark or without."""
    mark = MARK[system]
    rest = text.removeprefix(mark).strip()
    if not rest:
        raise ProblemError(f"--line {text!r}: give what stands behind {mark}, such as --line '-l gpu=1'")
    return f"{mark} {rest}"


@dataclass(frozen=True)
class Layout:
    """How ranks lie on nodes. What is not given is None; Slurm makes up its own mind then."""

    ranks: int
    nodes: int | None = None
    tasks: int | None = None  # ranks of a node
    cpus: int = 1  # of a rank
    gpus: int | None = None  # of the job

    @classmethod
    def of(cls, values: Mapping[str, str], ranks: str | None, default: str) -> "Layout":
        """For what is given. Raises ProblemError for what does not add up."""
        counts = {name: whole(option(name), values[name]) for name in COUNTED if values.get(name)}
        nodes, tasks, gpus = (counts.get(name) for name in ("nodes", "tasks_per_node", "gpus"))
        product = None if nodes is None or tasks is None else nodes * tasks
        found = whole("--ranks", ranks or (default if product is None else str(product)))
        if product not in (None, found):
            raise ProblemError(
                f"--ranks {found}: --nodes {nodes} and --tasks-per-node {tasks} make {product}; leave one of "
                "the three out"
            )
        return cls(found, nodes, tasks, counts.get("cpus_per_task", 1), gpus)

    @property
    def chunk(self) -> int:
        """Ranks of a node, for systems that want to be told. Raises ProblemError if nodes are not alike."""
        if self.tasks is not None:
            _part("--ranks", self.ranks, self.tasks, f"--tasks-per-node {self.tasks}")
            return self.tasks
        return 1 if self.nodes is None else _part("--ranks", self.ranks, self.nodes, f"--nodes {self.nodes}")

    @property
    def chunks(self) -> int:
        """So many nodes; as many parts as there are ranks, if nothing is said of nodes."""
        return self.ranks // self.chunk

    @property
    def gpus_of_chunk(self) -> int | None:
        """GPUs of a node."""
        of = f"{self.chunks} {'nodes' if self.nodes or self.tasks else 'ranks, and no --nodes'}"
        return self.gpus and _part("--gpus", self.gpus, self.chunks, of)

    def select(self, memory: str) -> str:
        """What PBS gives a job, chunk by chunk; memory: of a rank."""
        parts = [f"{self.chunks}", f"ncpus={self.chunk * self.cpus}", f"mpiprocs={self.chunk}"]
        if self.chunk * self.cpus > 1:
            parts.append(f"ompthreads={self.cpus}")  # else as many as ncpus
        if self.gpus:
            parts.append(f"ngpus={self.gpus_of_chunk}")
        if memory:
            parts.append(f"mem={batch.pbs_size(scaled(memory, self.chunk))}")
        return ":".join(parts)

    def torque(self, memory: str) -> str:
        """The same for Torque: nodes and what each gives."""
        nodes = 1 if self.nodes is None and self.tasks is None else self.chunks
        gpus = f":gpus={_part('--gpus', self.gpus, nodes, f'{nodes} nodes')}" if self.gpus else ""
        pmem = f",pmem={batch.pbs_size(memory)}" if memory else ""
        return f"{nodes}:ppn={self.ranks // nodes * self.cpus}{gpus}{pmem}"


def _part(name: str, n: int, parts: int, of: str) -> int:
    """What each of equal parts has."""
    if n % parts:
        raise ProblemError(f"{name} {n} with {of}: nodes are to be alike, give a multiple of {parts}")
    return n // parts


def whole(name: str, text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ProblemError(f"{name} {text!r}: give a whole number of at least 1")
    return int(text)


def scaled(size: str, times: int = 1, per: int = 1) -> str:
    """A size such as 2G times a fraction, rounded up, in a smaller unit where that is nearer."""
    if times == per:
        return size
    found = re.fullmatch(r"(\d+)([kmgt]?)", size, re.IGNORECASE)
    if found is None:
        raise ProblemError(f"--memory {size!r}: give a whole number and its unit, such as 2G")
    total, unit = int(found[1]) * times, found[2].upper()
    if total % per and unit:
        total, unit = total * 1024, {"K": "", "M": "K", "G": "M", "T": "G"}[unit]
    return f"{-(-total // per)}{unit}"
