"""Tables inside of text: Markdown (model cards, issues), HTML, LaTeX, and aligned columns.

transformers shows one at the end of a training and in a notebook: a row an evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

from squeeze.diagnosis.names import is_step, is_telling, recognise
from squeeze.diagnosis.readers.records import (
    Table,
    is_numeric,
    missing,
    upright,
    values_alone,
    with_points,
)
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.errors import InputError

Rows = list[tuple[int, list[str]]]  # a table's rows of cells, with the lines they stand on

_RULE = re.compile(r"[\s|:+=\u2500-\u257f-]+")
_GAP = re.compile(r"\t|\s{2,20}")
_BOLD = re.compile(r"^(\*\*|__|`)(.{0,200}?)\1$")
_HTML = re.compile(rb"<(table|tr|td|th)\b", re.IGNORECASE)


# Names of two words that a table's header may hold between single blanks.
_TWO_WORDS = re.compile(
    r"\b(?:(?:train(?:ing)?|val(?:id(?:ation)?)?|eval|test) loss|no log|learning rate|grad norm"
    r"|mean token accuracy|num (?:input )?tokens(?: seen)?)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"^[#>\s]{1,20}")  # a comment in a script, a quotation in a mail
_BARS = str.maketrans("\u2502\u2503\u2551\u2506", "||||")  # of framed tables (rich, polars)
_TYPES = re.compile(r"[iuf](8|16|32|64)|str|bool")  # a row below polars' header


# LaTeX: a row ends in two backslashes; commands around a cell's text and rules are no text.
_TEX_WRAPPED = re.compile(
    r"\\(?:textbf|textit|emph|underline|num|mathbf|texttt|text)\{([^{}]{0,200})\}"
)
_TEX_COMMAND = re.compile(
    r"\\[a-zA-Z]{1,40}(?:\[[^\]]{0,40}\]|\{[^{}]{0,40}\}|\([a-z]{0,4}\)){0,3}"
)
_GOES_ON = "\\"  # behind a header whose table goes on below
_SHAPE = re.compile(r"\s*\[\d+ rows x \d+ columns\]\s*")  # what pandas prints below a table


def _has_latex(source: Source) -> bool:
    return not source.is_directory and "\\begin{" in source.text and "\\\\" in source.text


def _has_markdown(source: Source) -> bool:
    return not source.is_directory and any(_bars(line) for _, line in source.lines)


def _bars(line: str) -> int:
    return line.count("|") + line.count("\u2502") + line.count("\u2503")


def _has_html(source: Source) -> bool:
    return source.suffix in (".html", ".htm") or (
        not source.is_directory and bool(_HTML.search(source.head))
    )


@reader("Markdown table", recognise=_has_markdown, order=55)
def read_markdown(source: Source) -> list[Table] | None:
    """Read the first table of a text that has telling columns; several are a question."""
    found = telling(markdown_tables(source)) or telling(turned_tables(source))
    return None if not found else [one_table(source, found, "Markdown table")]


@reader("LaTeX table", recognise=_has_latex, order=54)
def read_latex(source: Source) -> list[Table] | None:
    """Read the table of a paper's source."""
    found = telling(latex_tables(source))
    return None if not found else [one_table(source, found, "LaTeX table")]


@reader("HTML table", recognise=_has_html, order=35)
def read_html(source: Source) -> list[Table] | None:
    """Read the table of a web page."""
    found = telling(html_tables(source.text))
    return None if not found else [one_table(source, found, "HTML table")]


@reader("table in a text", recognise=lambda s: not s.is_directory, order=70)
def read_aligned(source: Source) -> list[Table] | None:
    """Read a table whose columns stand apart by blanks or tabs, with any text around it."""
    found = telling(_joined(aligned_tables(source)))
    found = found or telling(stacked_tables(source)) or telling(turned_tables(source))
    return None if not found else [one_table(source, found, "table in a text")]


def one_table(source: Source, found: Sequence[Rows], kind: str) -> Table:
    """The only table of a source; raises `InputError` asking which where there are several."""
    distinct = [rows for i, rows in enumerate(found) if _cells(rows) not in map(_cells, found[:i])]
    if len(distinct) > 1:
        listed = "; ".join(
            f"at line {rows[0][0]}, {len(rows) - 1} rows ({', '.join(rows[0][1][:4])}, ...)"
            for rows in distinct[:6]
        )
        raise InputError(
            f"{source.path} holds {len(distinct)} tables of runs: {listed}; copy the one that is "
            "meant into a file of its own"
        )
    return as_table(source, distinct[0], kind)


def as_table(source: Source, rows: Rows, kind: str) -> Table:
    """Rows of cells as records; summary rows and decimal commas are noted."""
    header, body = rows[0][1], [row for row in rows[1:] if len(row[1]) == len(rows[0][1])]
    kept, left = values_alone(header, body)
    cells, commas = with_points(header, [row for _, row in kept])
    records: list[dict[str, Any]] = [dict(zip(header, row, strict=True)) for row in cells]
    numbers = [number for number, _ in kept]
    if not records:
        raise InputError(f"{source.path}: the table at line {rows[0][0]} has a header but no rows")
    path = source.path
    return Table(path.stem, str(path), kind, records, numbers, (*source.notes, *left, *commas))


@reader("table with a loss alone", recognise=lambda s: not s.is_directory, order=85)
def read_accompanying(source: Source) -> list[Table] | None:
    """Read the first table that tells nothing of the trained answers, but has a known column."""
    pages = html_tables(source.text) if _has_html(source) else iter(())
    found = known((*pages, *markdown_tables(source), *_joined(aligned_tables(source))))
    return None if not found else [as_table(source, found[0], "table in a text")]


def known(tables: Iterable[Rows]) -> list[Rows]:
    """The tables with a column of numbers whose name is known (a loss, an entropy)."""
    return [rows for rows in tables if any(_is_known(rows, i) for i in range(len(rows[0][1])))]


def _is_known(rows: Rows, i: int) -> bool:
    held = [row[i] for _, row in rows[1:] if len(row) > i and not missing(row[i])]
    return recognise(rows[0][1][i]) is not None and bool(held) and all(map(is_numeric, held))


def telling(tables: Iterable[Rows]) -> list[Rows]:
    """The tables with a column that a diagnosis is made from."""
    kept = [rows for rows in tables if len(rows) > 1]
    return [rows for rows in kept if any(map(is_telling, rows[0][1]))]


def _cells(rows: Rows) -> list[list[str]]:
    return [row for _, row in rows]


# --- where tables stand -------------------------------------------------------------------------


def markdown_tables(source: Source) -> Iterator[Rows]:
    """Tables between bars; any line without a bar ends one, and so does another header."""
    rows: Rows = []
    for number, line in source.lines:
        line = _QUOTED.sub("", line.translate(_BARS))
        if line.count("|") < 2 and not _RULE.fullmatch(line[:2000]):
            if rows:
                yield rows
            rows = []
        elif not _RULE.fullmatch(line[:2000]):
            cells = _barred(line)
            if rows and _is_header(cells):
                yield rows
                rows = []
            if (rows and not all(map(_TYPES.fullmatch, cells))) or _is_header(cells):
                rows.append((number, cells))
    if rows:
        yield rows


def latex_tables(source: Source) -> Iterator[Rows]:
    """Tables of a LaTeX source: rows between \\begin{tabular} and \\end{tabular}."""
    rows: Rows = []
    for number, line in source.lines:
        if "\\end{" in line and rows:
            yield rows
            rows = []
        for row in line[:20_000].replace("\\&", "and").split("\\\\"):
            cells = [_of_latex(cell) for cell in row.split("&")]
            if len(cells) > 1 and (rows or _is_header(cells)):
                rows.append((number, cells))
    if rows:
        yield rows


def _of_latex(cell: str) -> str:
    """The text of a cell without its commands."""
    for _ in range(3):  # one within the other
        cell = _TEX_WRAPPED.sub(r"\1", cell)
    cell = re.sub(r"\\([_%#])", r"\1", cell.replace("$", "").replace("{,}", ","))
    return _plain(_TEX_COMMAND.sub("", cell).replace("{", "").replace("}", ""))


def aligned_tables(source: Source) -> Iterator[Rows]:
    """Tables whose cells stand apart by blanks or tabs; a line of another length ends one.

    A header is cut at wide gaps and at single blanks; the first row says which of both was meant.
    """
    rows: Rows = []
    headers: list[tuple[int, list[str]]] = []
    for number, line in source.lines:
        if (rows or headers) and _RULE.fullmatch(line[:2000]):
            continue
        ways = _cut("" if _SHAPE.fullmatch(line[:80]) else _QUOTED.sub("", line[:20_000]))
        if any(map(_is_header, ways)):
            if rows:
                yield rows
            rows, headers = [], [(way, cells) for way, cells in enumerate(ways)]
            continue
        fitting = [
            (way, head, ways[way][len(ways[way]) - width :])
            for way, head in headers
            if len(ways[way]) == (width := len(head) - (head[-1] == _GOES_ON))
            # pandas puts the row's number first, without a name of its own.
            or (len(ways[way]) == width + 1 and ways[way][0].isdigit())
        ]
        if not fitting:
            if rows:
                yield rows
            rows, headers = [], []
            continue
        way, head, cells = fitting[0]
        rows = rows or [(number - 1, head)]
        headers = [(way, head)]
        rows.append((number, cells))
    if rows:
        yield rows


def _joined(tables: Iterable[Rows]) -> list[Rows]:
    """Tables that pandas wrapped, a backslash behind the header of a part, as one."""
    found: list[Rows] = []
    goes_on = False
    for rows in tables:
        if goes_on and len(rows) == len(found[-1]):
            whole = [(n, a + b) for (n, a), (_, b) in zip(found.pop(), rows, strict=True)]
        else:
            whole = rows
        goes_on = whole[0][1][-1] == _GOES_ON
        head = [name for name in whole[0][1] if name != _GOES_ON]
        found.append([(whole[0][0], head), *whole[1:]])
    return found


def turned_tables(source: Source) -> Iterator[Rows]:
    """Tables with a metric a row and a step a column, between bars or blanks, turned."""
    rows: Rows = []
    for number, line in [*source.lines, (0, "")]:
        line = _QUOTED.sub("", line[:20_000].translate(_BARS))
        if rows and line and _RULE.fullmatch(line[:2000]):
            continue
        cells = _barred(line) if line.count("|") > 1 else _cut(line)[1]
        if rows and len(rows[-1][1]) == len(cells) - 1 and not rows[1:]:
            rows[-1][1].insert(0, "")  # pandas leaves the corner empty
        if rows and len(cells) != len(rows[-1][1]):
            yield from _turned(rows)
            rows = []
        if len(cells) > 2:
            rows.append((number, cells))


def _turned(rows: Rows) -> list[Rows]:
    turned = upright(_cells(rows))
    return [] if turned is None else [[(rows[0][0], row) for row in turned]]


def _barred(line: str) -> list[str]:
    return [_plain(cell) for cell in line.strip().strip("|").split("|")]


def stacked_tables(source: Source) -> Iterator[Rows]:
    """Tables with a cell a line, as some browsers copy them: the names, then row after row."""
    head: list[str] = []
    cells: list[tuple[int, str]] = []
    for number, line in [*source.lines, (0, "")]:
        ways = _cut(line[:200])
        cell = ways[0][0] if len(ways[0]) == 1 else ""
        if _is_name(cell) and not cells:
            head.append(cell)
        elif head and cell[:1] in tuple("0123456789-+.n"):
            cells.append((number, cell))
        else:
            width = len(head)
            if width > 2 and len(cells) >= 2 * width and len(cells) % width == 0:
                starts = range(0, len(cells), width)
                yield [
                    (cells[0][0] - 1, head),
                    *((cells[i][0], [c for _, c in cells[i : i + width]]) for i in starts),
                ]
            head, cells = ([cell] if _is_name(cell) else []), []


def _is_name(cell: str) -> bool:
    return bool(cell) and not cell[:1].isdigit() and (recognise(cell) is not None or is_step(cell))


def _cut(line: str) -> tuple[list[str], list[str]]:
    """The cells of a line cut at every blank, names of several words kept, and cut at wide gaps."""
    kept = _TWO_WORDS.sub(lambda m: m[0].replace(" ", "\0"), line.replace(" / ", "/"))
    words = [_plain(cell.replace("\0", " ")) for cell in kept.split()]
    return words, [_plain(cell) for cell in _GAP.split(line.strip())]


def html_tables(text: str) -> Iterator[Rows]:
    """The tables of a page."""
    parser = _Tables()
    parser.feed(text)
    parser.close()
    for table in parser.tables:
        rows = [row for row in table if row[1]]
        if rows:
            yield from _turned(rows) or [rows]


class _Tables(HTMLParser):
    """Collects the cells of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Rows] = []
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("tr", "td", "th"):  # whose end a page may leave out
            self._end()
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append((self.getpos()[0], []))
        elif tag in ("td", "th") and self.tables and self.tables[-1]:
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._end()

    def close(self) -> None:
        super().close()
        self._end()

    def _end(self) -> None:
        """The end of the open cell."""
        if self._cell is not None:
            self.tables[-1][-1][1].append(_plain("".join(self._cell)))
        self._cell = None


def _is_header(cells: Sequence[str]) -> bool:
    known = [c for c in cells if recognise(c) or is_step(c)]
    return len(known) >= 2 and not any(c[:1].isdigit() for c in known)


def _plain(cell: str) -> str:
    """A cell without bold, code marks and the typographic minus."""
    cell = cell.strip()[:200].replace("\N{MINUS SIGN}", "-")
    bold = _BOLD.match(cell)
    return bold[2].strip() if bold else cell
