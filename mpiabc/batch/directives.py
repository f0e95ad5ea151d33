"""What a job asks for besides ranks and time, in lines of its script, as the table of systems has them."""

from collections.abc import Mapping

from mpiabc.batch.layout import option
from mpiabc.batch.systems import SYSTEMS, No
from mpiabc.errors import ProblemError

#: What may be asked for, in the order of its lines.
OPTIONS = ("account", "nodes", "tasks_per_node", "cpus_per_task", "gpus", "qos", "mail")
_UNHEARD = No("give --line with what it has instead")  # of an entry that is silent about it


def form(system: str, name: str) -> str | No:
    """How a system says an option: directives, one a line, {} being the value; or what to do instead."""
    return SYSTEMS[system].directives.get(name, _UNHEARD)


def lines(system: str, values: Mapping[str, str]) -> list[str]:
    """The directives for what is given. Raises ProblemError for what the system has not."""
    mark, found = SYSTEMS[system].mark, []
    for name in OPTIONS:
        if value := values.get(name):
            said = form(system, name)
            if isinstance(said, No):
                raise ProblemError(f"{option(name)} {value}: {SYSTEMS[system].name} has none; {said.instead}")
            found += [f"{mark} {line}" for line in said.format(value).splitlines()]
    return found


def own_line(system: str, text: str) -> str:
    """A directive that the user writes, with the system's mark or without."""
    mark = SYSTEMS[system].mark
    rest = text.removeprefix(mark).strip()
    if not rest:
        raise ProblemError(f"--line {text!r}: give what stands behind {mark}, such as --line '-l gpu=1'")
    return f"{mark} {rest}"
