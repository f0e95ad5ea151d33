"""Text for people: tables, lines of names and values. The one place that prints, and steers no terminal."""

import errno
import logging
import sys
from collections.abc import Mapping

from mpiabc.errors import Error
from mpiabc.text import shown, shown_lines
from mpiabc.voice import put

_LEFT = (errno.EPIPE, errno.EIO)  # nobody reads any more: a pipe's end, or a terminal, has gone


def say(text: str) -> None:
    """Print; a reader that has left, as in `mpiabc show run.db | head`, is no error.

    Raises UnsaidError where the output cannot be written for another reason.
    """
    error = put(f"{shown_lines(text)}\n", sys.stdout)
    if error is not None and error.errno not in _LEFT:
        raise UnsaidError(f"the standard output cannot be written ({error.strerror})")


class UnsaidError(Error):
    """What a command prints is lost."""


def table(rows: list[list[str]]) -> str:
    """Rows of text in columns: the first to the left, the others to the right."""
    rows = [[shown(cell) for cell in row] for row in rows]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = (
        "  ".join([row[0].ljust(first), *(text.rjust(w) for text, w in zip(row[1:], widths, strict=True))])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def pairs(values: Mapping[str, str]) -> str:
    """A line for each name and its text."""
    width = max(map(len, values))
    return "\n".join(f"{name:<{width}}  {shown(text)}" for name, text in values.items())


class Format(logging.Formatter):
    """Messages as `say` prints them."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, and the traceback if there is one."""
        return shown_lines(super().format(record))
