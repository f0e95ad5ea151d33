"""`mpiabc jobscript`: a job script with its values filled in.

The scripts of the folder `jobscripts` are these templates with the values of `EXAMPLE`.
"""

import argparse
import re
import shlex
import sysconfig
from pathlib import Path
from typing import Any

from mpiabc import stopping
from mpiabc.cli.command import add_command
from mpiabc.cli.words import say
from mpiabc.errors import ProblemError

_TEMPLATES = Path(__file__).with_name("jobscripts")
_DIRECTIVES = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "lsf": "#BSUB"}
_LEAVE = 120  # seconds before the end of its job in which a worker leaves
EXAMPLE = {
    "name": "fit",
    "ranks": "4",
    "walltime": "2h",
    "memory": "2G",
    "queue": "long",
    "bin": "$HOME/.venv/bin",
    "broker": '"$HOME/.mpiabc/broker.json"',
    "script": "fit.py",
}


def scripts() -> dict[str, Path]:
    """The templates by name, such as slurm-mpi."""
    return {path.stem: path for path in sorted(_TEMPLATES.glob("*.sh"))}


def kinds(system: str) -> list[str]:
    """What there is for a batch system; the first one is its default."""
    return [
        name.partition("-")[2]
        for name in sorted(scripts(), key=lambda name: "mpi" not in name)
        if name.startswith(f"{system}-")
    ]


def written(name: str, values: dict[str, str]) -> str:
    """The script with these values; the lines of what is not given keep an example, and are off."""
    text = _switched_on(scripts()[name].read_text(), _DIRECTIVES[name.partition("-")[0]], values)
    known = EXAMPLE | values
    seconds = int(stopping.seconds(known["walltime"]) or 0)
    if "@runtime@" in text and seconds <= _LEAVE:
        raise ProblemError(f"walltime={known['walltime']!r}: give workers more than {_LEAVE} s")
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    known |= {
        "walltime": f"{hours:02}:{minutes:02}:{rest:02}",
        "hours": f"{hours}:{minutes + (rest > 0):02}",
        "runtime": str(seconds - _LEAVE),
    }
    return re.sub(r"@([a-z]+)@", lambda found: known[found[1]], text)


def _switched_on(text: str, directive: str, values: dict[str, str]) -> str:
    """Directives that are off, switched on where their value is given."""
    for name in {"memory", "queue"} & values.keys():
        text = re.sub(rf"^#({re.escape(directive)} .*@{name}@)", r"\1", text, flags=re.MULTILINE)
    return text


def add(commands: Any) -> None:
    """Add the command to the parser, with a command of its own for each batch system."""
    example = """\
  mpiabc jobscript slurm --ranks 64 --walltime 12h fit.py > fit.sh && sbatch fit.sh
  mpiabc jobscript slurm --kind requeue --ranks 64 --walltime 12h --queue short fit.py
  mpiabc jobscript sge --kind workers --ranks 100 --walltime 2h --broker broker.json"""
    parser = add_command(commands, "jobscript", _jobscript, "print a script for a batch system", example)
    systems = parser.add_subparsers(title="batch systems", metavar="SYSTEM", required=True, dest="system")
    for system in _DIRECTIVES:
        _add_options(systems.add_parser(system, help=f"kinds: {', '.join(kinds(system))}"), system)


def _add_options(parser: argparse.ArgumentParser, system: str) -> None:
    parser.add_argument("script", nargs="?", metavar="FILE.py", help="the Python file of the run")
    parser.add_argument("arguments", nargs="*", metavar="...", help="its arguments")
    parser.add_argument("--kind", choices=kinds(system), default="mpi", help="mpi if not given")
    parser.add_argument("--ranks", metavar="N", default=EXAMPLE["ranks"], help="ranks, or jobs of workers")
    parser.add_argument(
        "--walltime", metavar="W", default=EXAMPLE["walltime"], help="seconds, or 30m, 2h, 1:30:00"
    )
    parser.add_argument("--memory", metavar="M", help="memory of one rank, such as 2G")
    parser.add_argument("--queue", metavar="Q", help="the queue, or partition")
    parser.add_argument("--name", metavar="NAME", help="the job's name, by default the file's")
    parser.add_argument("--bin", metavar="FOLDER", help="where python and mpirun are, by default this one's")
    parser.add_argument("--broker", metavar="FILE", help="the file of the workers' broker")


def _jobscript(options: argparse.Namespace) -> int:
    """Print the script."""
    if options.script is None and options.kind != "workers":
        raise ProblemError("the Python file of the run is missing: give FILE.py")
    if not (options.ranks.isdecimal() and int(options.ranks) >= 1):
        raise ProblemError(f"ranks={options.ranks!r}: give a whole number of at least 1")
    if options.walltime == "auto":
        raise ProblemError("walltime='auto' is for the run; its job needs a time such as 2h")
    say(written(f"{options.system}-{options.kind}", _values(options)).rstrip())
    return 0


def _values(options: argparse.Namespace) -> dict[str, str]:
    """What is given, as the shell wants it."""
    name = options.name or (Path(options.script).stem if options.script else "workers")
    values = {
        "name": re.sub(r"\W+", "-", name),
        "ranks": options.ranks,
        "walltime": options.walltime,
        "memory": options.memory,
        "queue": options.queue,
        "bin": options.bin or sysconfig.get_path("scripts"),
        "broker": shlex.quote(options.broker) if options.broker else None,
        "script": shlex.join([options.script, *options.arguments]) if options.script else None,
    }
    return {name: value for name, value in values.items() if value}
