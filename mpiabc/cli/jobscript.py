"""`mpiabc jobscript`: a job script with its values filled in.

The scripts of the folder `jobscripts` are these templates with the values of `EXAMPLE`.
"""

import argparse
import re
import shlex
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpiabc import durations, stopping
from mpiabc.batch import directives
from mpiabc.batch.directives import OPTIONS
from mpiabc.batch.layout import Layout, option
from mpiabc.batch.systems import SYSTEMS, No
from mpiabc.cli import stage
from mpiabc.cli.command import COMMANDS, Parser, add_command
from mpiabc.cli.files import is_of_run, is_yaml, split
from mpiabc.cli.unrun import Unrun, unrun
from mpiabc.cli.words import say
from mpiabc.errors import ProblemError

_TEMPLATES = Path(__file__).with_name("jobscripts")
_LEAVE = 120  # seconds before the end of its job in which a worker leaves, or SLURM's signal comes
_SIZE = "--population-size"  # without which `mpiabc run` starts nothing
_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ASKED = {  # options of directives: what they are called, and their help
    "account": ("A", "the account, or project, that pays"),
    "nodes": ("N", "nodes"),
    "tasks_per_node": ("N", "ranks of a node"),
    "cpus_per_task": ("N", "cores of a rank, or of a worker's job"),
    "gpus": ("N", "GPUs of the whole job"),
    "qos": ("NAME", "the quality of service"),
    "mail": ("ADDRESS", "who is written to when the job ends or fails"),
}
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


def written(name: str, values: dict[str, str], modules: Sequence[str] = (), own: Sequence[str] = ()) -> str:
    """The script with these values; the lines of what is not given keep an example, and are off.

    modules: what its environment loads; own: directives of the user. Raises ProblemError for values that fit
    no such job, that its system has not, or that would be more than a part of their line.
    """
    _check_breaks([*values.items(), *(("module", text) for text in modules), *(("line", t) for t in own)])
    system, _, kind = name.partition("-")
    mark = SYSTEMS[system].mark
    text = _switched_on(scripts()[name].read_text(), mark, values)
    known = EXAMPLE | {"file": f"{name}.sh"} | values
    seconds = int(stopping.seconds(known["walltime"]) or 0)
    layout = Layout.of(values, values.get("ranks"), EXAMPLE["ranks"])
    _check(kind, known["walltime"], seconds, layout, values)
    known |= {
        "ranks": str(layout.ranks),
        "walltime": durations.clock(seconds),
        "hours": durations.hours(seconds),
        "runtime": str(seconds - _LEAVE),
        "cpus": str(layout.cpus),
    }
    known |= SYSTEMS[system].fills(layout, values.get("memory", ""), EXAMPLE["memory"])
    asked = directives.lines(system, _asked(system, layout, values, text))
    asked += [directives.own_line(system, line) for line in own]
    *_, last = re.finditer(rf"^#?{re.escape(mark)}.*$", text, re.MULTILINE)  # the last one counts
    text = f"{text[: last.end()]}@asked@{text[last.end() :]}"
    known["asked"] = "".join(f"\n{line}" for line in asked)
    text = text.replace("export PATH=", "@loads@export PATH=", 1)
    known["loads"] = "".join(f"module load {shlex.quote(module)} || exit 1\n" for module in modules)
    return re.sub(r"@([a-z]+)@", lambda found: known[found[1]], text)


def _check_breaks(values: Iterable[tuple[str, str]]) -> None:
    for name, value in values:
        if _BREAK.search(value):
            raise ProblemError(
                f"{_place(name)} {value!r}: what follows a line break would be a command of the job script; "
                "give neither line breaks nor other control characters"
            )


def _place(name: str) -> str:
    """Where a value comes from."""
    return {"script": "FILE and its arguments", "file": "--output"}.get(name, option(name))


def _check(kind: str, walltime: str, seconds: int, layout: Layout, values: Mapping[str, str]) -> None:
    """Raise ProblemError for what fits no job of this kind."""
    if kind in ("workers", "requeue") and seconds <= _LEAVE:
        raise ProblemError(f"--walltime {walltime}: give --kind {kind} more than {_LEAVE} s")
    if kind == "dask" and layout.ranks < 2:
        raise ProblemError(f"--ranks {layout.ranks}: give --kind dask 2 or more, a scheduler and workers")
    for name in ("nodes", "tasks_per_node"):
        if kind == "workers" and values.get(name):
            raise ProblemError(
                f"{option(name)} {values[name]} with --kind workers: each of its jobs is one "
                "worker, which may have several cores: give --ranks and --cpus-per-task"
            )
    for name in OPTIONS:
        if re.search(r"[\s\"'`$]", values.get(name, "")):
            raise ProblemError(f"{option(name)} {values[name]!r}: give one word, without quotes")


def _asked(system: str, layout: Layout, values: Mapping[str, str], text: str) -> dict[str, str]:
    """What stands in directives of its own: not the cores of a rank where the template has them."""
    asked = {name: values[name] for name in OPTIONS if values.get(name)}
    if "@cpus@" in text:
        asked.pop("cpus_per_task", None)
    return SYSTEMS[system].asks(layout, asked)


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
  mpiabc jobscript slurm --kind requeue --nodes 2 --tasks-per-node 32 --account myproject \\
      --module gcc --module openmpi --line=--constraint=skylake fit.py --seed 3
  mpiabc jobscript sge --kind workers --ranks 100 --walltime 2h --broker broker.json

Options of jobscript may follow FILE, too; what is to be the script's all the same goes behind --."""
    parser = add_command(commands, "jobscript", _jobscript, COMMANDS["jobscript"], example)
    systems = parser.add_subparsers(
        title="batch systems", metavar="SYSTEM", required=True, dest="system", parser_class=_OfScript
    )
    for system in (name for name in SYSTEMS if kinds(name)):
        text = f"kinds: {', '.join(kinds(system))}"
        own = systems.add_parser(system, help=text, allow_abbrev=False)
        own.set_defaults(of=own)
        _add_options(own, system)


class _OfScript(Parser):
    """One for which what stands behind FILE, and is no option here, is the script's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it: what is found, and what is not known."""
        ours, theirs = self._parted(list(args or ()))
        options, unknown = super().parse_known_args(ours, namespace)
        if unknown:
            self.error(
                f"{unknown[0]} is no option here; a directive of the system's own goes into --line, as in "
                f"--line={unknown[0].partition('=')[0]}=VALUE, and what is the script's behind FILE"
            )
        options.arguments = theirs
        return options, []

    def _parted(self, words: list[str]) -> tuple[list[str], list[str]]:
        """Our options with their values, and FILE; the arguments of the script."""
        ours: list[str] = []
        theirs: list[str] = []
        file = None
        while words:
            word = words.pop(0)
            if word == "--":
                theirs += words if file is not None else words[1:]
                file = file or (words[0] if words else None)
                break
            if self._is_ours(word):
                takes_none = self._option_string_actions[word.partition("=")[0]].nargs == 0
                has_value = "=" in word or takes_none or not words
                ours.append(word if has_value else f"{word}={words.pop(0)}")
            elif file is not None:
                theirs.append(word)
            elif word.startswith("-"):
                ours.append(word)  # which argparse refuses
            else:
                file = word
        return ours + ([] if file is None else ["--", file]), theirs

    def _is_ours(self, word: str) -> bool:
        return word.startswith("-") and word.partition("=")[0] in self._option_string_actions


def _add_options(parser: argparse.ArgumentParser, system: str) -> None:
    parser.add_argument(
        "script",
        nargs="?",
        metavar="FILE",
        help="the Python file of the run, or what `mpiabc run` takes: a file that only holds a Problem, "
        "FILE:problem, or a YAML file; its arguments follow it",
    )
    parser.add_argument("--kind", choices=kinds(system), default="mpi", help="mpi if not given")
    parser.add_argument(
        "--ranks", metavar="N", help=f"ranks, or jobs of workers; {EXAMPLE['ranks']} if not given"
    )
    parser.add_argument(
        "--walltime", metavar="W", default=EXAMPLE["walltime"], help="seconds, or 30m, 2h, 1:30:00"
    )
    parser.add_argument("--memory", metavar="M", help="memory of one rank, such as 2G")
    parser.add_argument("--queue", metavar="Q", help="the queue, or partition")
    for name, (metavar, help) in _ASKED.items():
        if not isinstance(directives.form(system, name), No):
            parser.add_argument(option(name), metavar=metavar, help=help)
        else:  # refused with what to do instead
            parser.add_argument(option(name), help=argparse.SUPPRESS)
    parser.add_argument(
        "--line",
        metavar="TEXT",
        action="append",
        default=[],
        help=f"a further {SYSTEMS[system].mark} line; may be given several times",
    )
    parser.add_argument(
        "--module",
        metavar="NAME",
        action="append",
        default=[],
        help="`module load NAME`; may be given several times",
    )
    parser.add_argument(
        "--stage",
        action="store_true",
        help="copy the environment to the nodes' own disks first, as one archive",
    )
    parser.add_argument("--name", metavar="NAME", help="the job's name, by default the file's")
    parser.add_argument("--bin", metavar="FOLDER", help="where python and mpirun are, by default this one's")
    parser.add_argument("--broker", metavar="FILE", help="the file of the workers' broker")
    parser.add_argument("--output", metavar="FILE", help="write the script there, in place of printing it")


def _jobscript(options: argparse.Namespace) -> int:
    """Print the script, or write it."""
    if options.script is None and options.kind != "workers":
        raise ProblemError("the file of the run is missing: give FILE.py, or FILE.yaml")
    if options.walltime == "auto":
        raise ProblemError("--walltime auto is for the run; its job needs a time such as 2h")
    values = _values(options)
    name = f"{options.system}-{options.kind}"
    text = written(name, values, options.module, options.line)
    if options.stage:
        text = stage.into(text, name)
    if options.script is not None and not split(options.script)[0].is_file():
        raise ProblemError(
            f"there is no file {split(options.script)[0]} in {Path.cwd()}: give the file of the run, by the "
            "name that it has from the folder where the job is submitted"
        )
    if options.output:
        _write(Path(options.output), text)
        say(f"submit it with:  {SYSTEMS[options.system].submit} {values['file']}")
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
        **{name: getattr(options, name) for name in OPTIONS},
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
    words = ["-m", "mpiabc", "run"] if _is_of_run(options.script, options.arguments) else []
    return shlex.join([*words, options.script, *options.arguments])


def _is_of_run(target: str, arguments: Sequence[str]) -> bool:
    """Whether it is for `mpiabc run`, as a file is that would do nothing as a script.

    Raises ProblemError for what would do nothing, or end at once, in its job.
    """
    found = unrun(Path(target))
    if found is Unrun.SAMPLER:
        raise ProblemError(
            f"{target} makes a sampler and never runs it, so that its job would do nothing: call its `run` "
            'behind `if __name__ == "__main__":`'
        )
    if found is None and not is_of_run(target):
        return False
    if not is_yaml(target) and not any(word.partition("=")[0] == _SIZE for word in arguments):
        text = "holds a Problem and nothing that runs it" if found else "is for `mpiabc run`"
        raise ProblemError(
            f"{target} {text}: give what `mpiabc run` needs behind it, at least {_SIZE} N, or call `run` "
            "in the file"
        )
    return True
