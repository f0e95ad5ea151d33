"""What all commands of the command line have in common."""

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from mpiabc import voice
from mpiabc.errors import ProblemError

COMMANDS = {  # each a module, with what it is for
    "run": "start a run, or continue it",
    "show": "show a run, also while it is going on",
    "watch": "follow a run in a terminal, to its end",
    "serve": "a page in the browser that follows a run",
    "report": "write a run as one HTML page",
    "plot": "draw a run, also while it is going on",
    "export": "write particles for other programs",
    "replay": "compute one evaluation again, here",
    "worker": "evaluate for the runs on a Redis server",
    "broker": "start and look after a server for workers",
    "jobs": "show the jobs of mpiabc.cluster's maps",
    "jobscript": "print a script for a batch system",
    "doctor": "look at this installation, and say what is wrong",
}

# What a sentence of the library says otherwise, by the option that takes its place.
_PHRASES = (
    ("team", r"\bschedulers\.MPI\(team=(\w+)\)", r"--scheduler mpi --team \1"),
    ("threshold", r"\bmpiabc\.Quantile\(\.\.\.\)", "quantile:0.5"),
    ("insecure", r"\binsecure=True \(--insecure\)", "--insecure"),
    (
        "model",
        r"ask for it of one, by population\.of\(problem\), which takes a problem, name or index",
        "give one of them by --model NAME",
    ),
    ("model", r"; give a problem, name or index", "; give one by --model NAME"),
    ("reference", r"\breference (has|of)\b", r"--reference \1"),
    ("draws", r"\bn=(-?\d+)", r"--draws \1"),
    ("draws", r": give raw=True, for what simulate returns", ": there is nothing to draw"),
)


class InYamlError(ProblemError):
    """Of a YAML file, whose keys have the names that they have in Python."""


class Parser(argparse.ArgumentParser):
    """One whose help may find no reader."""

    def _print_message(self, message: str, file: Any = None) -> None:
        voice.put(message, file or sys.stderr)


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int], help: str, example: str
) -> argparse.ArgumentParser:
    """The parser of a command that `function` carries out; its help ends with the example."""
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=function, of=parser)
    return parser


def in_options(sentence: str, options: argparse.Namespace) -> str:
    """A sentence of the library, which names arguments as Python does, with the options of a command."""
    if "\n" in sentence:  # with a traceback, whose code is no sentence of ours
        return sentence
    known = {action.dest: action for action in options.of._actions if action.option_strings}
    for name, phrase, spoken in _PHRASES:
        if name in known:
            sentence = re.sub(phrase, spoken, sentence)

    def as_option(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = known[name].option_strings[0]
        if value.startswith("["):
            value = value[1:-1].replace(", ", " ")
        return option if known[name].nargs == 0 else f"{option} {value}"

    names = "|".join(map(re.escape, known))  # but not those of other things' parts: Mine(seed=1, epsilon=2)
    return re.sub(rf"(?<!\()(?<!, )(?<!-)\b({names})=('[^']*'|\[[^]]*\]|[^\s,:;)]+)", as_option, sentence)
