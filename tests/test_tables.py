"""Tables at every width: no number is cut, folded or lost."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from squeeze.tables import print_table

pytestmark = pytest.mark.cpu

ROWS = [
    ("chosen", "24", "-150.1 (3)", "-20.13 [-22.31, -18.05]", "rose, then fell"),
    ("rejected", "1024", "-1300.5 (12000)", "-1204.5 [-1300.2, -1100.9]", "falls"),
]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WIDEST = 85


def printed(width, terminal):
    """What a table of numbers looks like."""
    table = Table("series", "n", "peak (at step)", "change [95%]", "", title="evidence")
    for row in ROWS:
        table.add_row(*row)
    out = io.StringIO()
    print_table(table, Console(file=out, width=width, force_terminal=terminal, color_system=None))
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("width", [25, 40, 60, 80, 200])
def test_every_number_is_whole_at_every_width(width, terminal):
    said = printed(width, terminal)
    whole = sorted(number for row in ROWS for cell in row for number in NUMBER.findall(cell))
    assert sorted(NUMBER.findall(said.replace("95%", ""))) == whole
    if terminal:
        assert max(map(len, said.splitlines())) <= width
    else:
        assert "-20.13 [-22.31, -18.05]" in said


def test_a_terminal_that_is_too_narrow_gets_a_paragraph_a_row():
    said = " ".join(printed(30, True).split())
    assert "chosen: n 24; peak (at step) -150.1 (3); change [95%] -20.13" in said


def test_a_wide_terminal_gets_the_table_as_it_is():
    assert any(
        "-1204.5 [-1300.2, -1100.9] │ falls" in x for x in printed(WIDEST, True).splitlines()
    )
