"""Tables as notebooks show them; whatever is shown is escaped."""

from collections.abc import Sequence
from html import escape

from mpiabc.text import shown


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table whose first column is a heading of rows."""
    lines = [f"<caption>{escape(shown(caption))}</caption>", _row(["th"] * len(heading), heading)]
    lines += [_row(["th", *["td"] * (len(row) - 1)], row) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _row(tags: Sequence[str], cells: Sequence[str]) -> str:
    inner = (f"<{tag}>{escape(shown(cell))}</{tag}>" for tag, cell in zip(tags, cells, strict=True))
    return f"<tr>{''.join(inner)}</tr>"
