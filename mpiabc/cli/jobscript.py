"""`mpiabc jobscript`: a job script with its values filled in.

The scripts of the folder `jobscripts` are these templates with the values of `EXAMPLE`.
"""

import argparse
import re
import shlex
import sysconfig
from pathlib import Path
from typing import Any

from mpiabc import batch, stopping
from mpiabc.cli.command import add_command
from mpiabc.cli.files import is_of_run, split
from mpiabc.cli.words import say
from mpiabc.errors import ProblemError

_TEMPLATES = Path(__file__).with_name("jobscripts")
_DIRECTIVES = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "lsf": "#BSUB"}
_SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub <"}
_LEAVE = 120  # seconds before the end of its job in which a worker leaves, or SLURM's signal comes
_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
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
    """The script with these values; the lines of what is not given keep an example, and are off.

    Raises ProblemError for values that fit no such job, or would be more than a part of their line.
    """
    for option, value in values.items():
        if _BREAK.search(value):
            raise ProblemError(
                f"{option}={value!r}: what follows a line break would be a command of the job script; give "
                "neither line breaks nor other control characters"
            )
    text = _switched_on(scripts()[name].read_text(), _DIRECTIVES[name.partition("-")[0]], values)
    known = EXAMPLE | {"file": f"{name}.sh"} | values
    seconds = int(stopping.seconds(known["walltime"]) or 0)
    kind = name.partition("-")[2]
    if kind in ("workers", "requeue") and seconds <= _LEAVE:
        raise ProblemError(f"walltime={known['walltime']!r}: give --kind {kind} more than {_LEAVE} s")
    if kind == "dask" and int(known["ranks"]) < 2:
        raise ProblemError(f"ranks={known['ranks']!r}: give --kind dask 2 or more, a scheduler and workers")
    size = batch.pbs_size(values["memory"]) if "memory" in values else ""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    known |= {
        "walltime": f"{hours:02}:{minutes:02}:{rest:02}",
        "hours": f"{hours}:{minutes + (rest > 0):02}",
        "runtime": str(seconds - _LEAVE),
        "mem": size and f":mem={size}",
        "pmem": size and f",pmem={size}",
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
  mpiabc jobscript pbs --ranks 64 --walltime 12h --output fit.sh fit.yaml && qsub fit.sh
  mpiabc jobscript slurm --kind requeue --ranks 64 --walltime 12h --queue short fit.py
  mpiabc jobscript sge --kind workers --ranks 100 --walltime 2h --broker broker.json"""
    parser = add_command(commands, "jobscript", _jobscript, "print a script for a batch system", example)
    systems = parser.add_subparsers(title="batch systems", metavar="SYSTEM", required=True, dest="system")
    for system in _DIRECTIVES:
        _add_options(systems.add_parser(system, help=f"kinds: {', '.join(kinds(system))}"), system)


def _add_options(parser: argparse.ArgumentParser, system: str) -> None:
    parser.add_argument(
        "script",
        nargs="?",
        metavar="FILE",
        help="the Python file of the run, or the YAML file or FILE:problem of `mpiabc run`",
    )
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
    parser.add_argument("--output", metavar="FILE", help="write the script there, in place of printing it")


def _jobscript(options: argparse.Namespace) -> int:
    """Print the script, or write it."""
    if options.script is None and options.kind != "workers":
        raise ProblemError("the file of the run is missing: give FILE.py, or FILE.yaml")
    if not (options.ranks.isascii() and options.ranks.isdecimal() and int(options.ranks) >= 1):
        raise ProblemError(f"ranks={options.ranks!r}: give a whole number of at least 1")
    if options.walltime == "auto":
        raise ProblemError("walltime='auto' is for the run; its job needs a time such as 2h")
    values = _values(options)
    text = written(f"{options.system}-{options.kind}", values)
    if options.output:
        _write(Path(options.output), text)
        say(f"submit it with:  {_SUBMIT[options.system]} {values['file']}")
    else:
        say(text.rstrip())
    return 0


def _write(path: Path, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except FileExistsError:
        raise ProblemError(f"{path} is there already: delete it, or give another name") from None
    except OSError as error:
        raise ProblemError(f"cannot write {path} ({error.strerror})") from None


def _values(options: argparse.Namespace) -> dict[str, str]:
    """What is given, as the shell wants it."""
    path = split(options.script)[0] if options.script else Path("workers")
    name = re.sub(r"\W+", "-", options.name or path.stem)
    values = {
        "name": name,
        "file": shlex.quote(options.output or f"{name}.sh"),
        "ranks": options.ranks,
        "walltime": options.walltime,
        "memory": options.memory,
        "queue": options.queue,
        "bin": _in_double_quotes(options.bin or sysconfig.get_path("scripts")),
        "broker": shlex.quote(options.broker) if options.broker else None,
        "script": _command(options) if options.script else None,
    }
    return {name: value for name, value in values.items() if value}


def _in_double_quotes(path: str) -> str:
    """A path for a place between double quotes, where $HOME stands for a folder, and nothing is run."""
    return re.sub(r'[\\"`]|\$(?=\()', r"\\\g<0>", path)


def _command(options: argparse.Namespace) -> str:
    """What Python is to run."""
    words = ["-m", "mpiabc", "run"] if is_of_run(options.script) else []
    return shlex.join([*words, options.script, *options.arguments])
