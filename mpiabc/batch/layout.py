"""How the ranks of a job lie on nodes, from what users give of it: numbers and sizes, as text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mpiabc.errors import ProblemError

_COUNTED = ("nodes", "tasks_per_node", "cpus_per_task", "gpus")


def option(name: str) -> str:
    """As the command line has it."""
    return f"--{name.replace('_', '-')}"


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
        counts = {name: whole(option(name), values[name]) for name in _COUNTED if values.get(name)}
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
        """Ranks of a node, for systems that want to know. Raises ProblemError if nodes are not alike."""
        if self.tasks is not None:
            part("--ranks", self.ranks, self.tasks, f"--tasks-per-node {self.tasks}")
            return self.tasks
        return 1 if self.nodes is None else part("--ranks", self.ranks, self.nodes, f"--nodes {self.nodes}")

    @property
    def chunks(self) -> int:
        """So many nodes; as many parts as there are ranks, if nothing is said of nodes."""
        return self.ranks // self.chunk

    @property
    def gpus_of_chunk(self) -> int | None:
        """GPUs of a node."""
        of = f"{self.chunks} {'nodes' if self.nodes or self.tasks else 'ranks, and no --nodes'}"
        return self.gpus and part("--gpus", self.gpus, self.chunks, of)


def part(name: str, n: int, parts: int, of: str) -> int:
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
