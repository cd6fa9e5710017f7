"""Tables in a terminal or a pipe, in which no number is cut or folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_BETWEEN = 3  # a cell's padding and the line beside it


def print_table(table: Table, console: Console) -> None:
    """Print a table: into a pipe as wide as it is, into a terminal broken at blanks only.

    A terminal that is too narrow even for the longest words gets a paragraph a row.
    """
    cells = [[_text(console, x) for x in (c.header, *c.cells)] for c in table.columns]
    widest = [
        max(c.min_width or 0, *(cell_len(line) for x in of for line in x.split("\n")))
        for c, of in zip(table.columns, cells, strict=True)
    ]
    longest = [max((cell_len(word) for x in of for word in x.split()), default=1) for of in cells]
    borders = _BETWEEN * len(cells) + 1
    if not console.is_terminal:
        before = console.width
        console.width = max(before, sum(widest) + borders)
        console.print(table)
        console.width = before
    elif sum(longest) + borders <= console.width:
        widths = _shared(longest, widest, console.width - borders)
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        console.print(table)
    else:
        if table.title:
            console.print(table.title, style="bold", markup=False, highlight=False)
        for row in zip(*(of[1:] for of in cells), strict=True):
            console.print(_paragraph([of[0] for of in cells], row), highlight=False)


def _text(console: Console, cell: Any) -> str:
    return console.render_str(cell).plain if isinstance(cell, str) else str(cell)


def _shared(least: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """Widths from `least` to `wanted`, at most `room` in all; who wants little is served first."""
    widths, left = list(least), room - sum(least)
    for index in sorted(range(len(widths)), key=lambda i: wanted[i] - least[i]):
        more = min(wanted[index] - least[index], left)
        widths[index] += more
        left -= more
    return widths


def _paragraph(headers: Sequence[str], row: Sequence[str]) -> Text:
    """ "chosen: n 24; start −150; …": the first cell leads, empty ones are left out."""
    parts = [f"{h} {x}".strip() for h, x in zip(headers[1:], row[1:], strict=True) if x]
    return Text.assemble((f"{row[0]}: ", "bold"), "; ".join(parts))
