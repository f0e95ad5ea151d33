"""What all commands of the command line have in common."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from mpiabc import voice


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
    parser.set_defaults(command=function)
    return parser
