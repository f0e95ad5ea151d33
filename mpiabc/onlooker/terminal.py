"""A view in a terminal, with rich (`mpiabc[watch]`); plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mpiabc.errors import Error
from mpiabc.onlooker import words
from mpiabc.onlooker.view import State, View
from mpiabc.progress import described
from mpiabc.text import shown
from mpiabc.voice import is_watched

MISSING = (
    "the live table needs rich: install `mpiabc[watch]`, or look at plain lines: `mpiabc watch run.db | cat`"
)

_EVERY = 10.0  # seconds between two plain lines about the same generation
_MOST_ROWS = 12  # generations on a terminal
_MOST_WORKERS = 8
_LONG = ("worker", "host", "error", "theta", "where")  # columns that are shortened where the screen is narrow
_COLOURS = {
    State.RUNNING: "green",
    State.ENDED: "blue",
    State.BEGUN: "yellow",
    State.SILENT: "yellow",
    State.INTERRUPTED: "yellow",
    State.KILLED: "red",
    State.FAILED: "red",
}

Show = Callable[[Sequence[View]], None]


@contextmanager
def showing(say: Callable[[str], None], nothing: str = "") -> Iterator[Show]:
    """What shows views: on a terminal, in its place; elsewhere by `say`, a line for what is new.

    nothing: what is said where there are none. Raises Error without rich, if there is a terminal.
    """
    if not is_watched(sys.stdout):
        yield Lines(say, nothing)
        return
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise Error(MISSING) from None
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda views: live.update(drawn(views, console.height, nothing), refresh=True)


class Lines:
    """Says what is new: generations, states, and now and then how far the open generation is."""

    def __init__(
        self, say: Callable[[str], None], nothing: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._nothing, self._clock = say, nothing, clock
        self._are_there = True
        self._last: dict[str, tuple[State, int, float]] = {}

    def __call__(self, views: Sequence[View]) -> None:
        """Look at these."""
        if not views and self._are_there:
            self._say(self._nothing)
        self._are_there = bool(views)
        for view in views:
            self._tell(view)
        self._last = {view.name: self._last[view.name] for view in views}

    def _tell(self, view: View) -> None:
        now = self._clock()
        state, generations, at = self._last.get(view.name, (None, 0, now - _EVERY))
        new = view.rows[max(0, len(view.rows) - max(0, view.generations - generations)) :]
        for row in new:
            rest = f"acceptance rate {row.acceptance_rate:.3g}, ess {row.ess:.1f}"
            self._say(
                f"{view.name}: generation {row.generation}: epsilon {row.epsilon}, N {row.size}, {rest}"
            )
        if state is not view.state:
            self._say(words.line_of(view))
        elif view.state is State.RUNNING and view.progressed and now >= at + _EVERY:
            self._say(f"{view.name}: {described(view.progressed)}")
        else:
            now = at
        self._last[view.name] = view.state, view.generations, now


def drawn(views: Sequence[View], height: int = 40, nothing: str = "") -> Any:
    """What rich prints."""
    from rich.console import Group
    from rich.text import Text

    if not views:
        return Text(shown(nothing))
    return Group(*(_panel(view, height // max(1, len(views))) for view in views))


def _panel(view: View, height: int) -> Any:
    """A run in a frame that has its name and state; what does not fit in the height is left out."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    colour = _COLOURS.get(view.state, "white")
    room = height - 12
    parts = [_facts(view), *([_bar(view)] if view.progressed else [Text(shown(view.said))])]
    if view.state in (State.SILENT, State.KILLED):
        parts.append(Text(shown(view.said.partition("; the last")[0]), style=colour))
    for title, rows in _tables(view, room):
        parts += [Text(""), Text(title, style="bold"), _table(rows)]
    parts += [Text(f"warning: {shown(warning)}", style="yellow") for warning in view.warnings[:2]]
    name = view.name if view.problem in view.name else f"{view.problem}  ({view.name})"
    heading = Text.assemble((shown(name), "bold"), "  ", (view.state.value, f"bold {colour}"))
    return Panel(Group(*parts), title=heading, title_align="left", border_style=colour, padding=(0, 1))


def _tables(view: View, room: int) -> list[tuple[str, list[list[str]]]]:
    """Tables with more than a heading, as many of their rows as there is room for."""
    most = max(3, min(_MOST_ROWS, room // 2))
    rest = max(0, room - most - 3)
    found = [("generations", words.generations_of(view, most))]
    if len(view.workers) > 1 or len(view.hosts) > 1:
        is_many = len(view.hosts) > 1
        at_most = min(_MOST_WORKERS, max(2, rest // 2))
        rows = words.hosts_of(view)[: 1 + at_most] if is_many else words.workers_of(view, at_most)
        found.append(("hosts" if is_many else "workers", rows))
    if view.failures:
        found.append(("last failures", [row[:4] for row in words.failures_of(view)[:4]]))
    return [(title, rows) for title, rows in found if len(rows) > 1]


def _facts(view: View) -> Any:
    from rich.columns import Columns
    from rich.text import Text

    pairs = [
        Text.assemble((f"{name} ", "dim"), (shown(value), "bold")) for name, value in words.facts_of(view)
    ]
    return Columns(pairs, padding=(0, 3))


def _bar(view: View) -> Any:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=1.0, completed=words.part(view), width=60)


def _table(rows: list[list[str]]) -> Any:
    """A heading and rows; the first column to the left, numbers to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading, *rest = rows
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for i, name in enumerate(heading):
        is_number = i > 0 and all(row[i][:1].isdigit() or row[i] == "-" for row in rest)
        least = None if name in _LONG else max(len(row[i]) for row in rows)  # which is not shortened
        justify: Any = "right" if is_number else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", min_width=least)
    for row in rest:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table
