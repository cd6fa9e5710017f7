"""Sources of examples: a data file, the format that it has, and the stream of its examples."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from squeeze.data import dataset_info, pairing
from squeeze.data.columns import PARTS, Columns, value_at
from squeeze.data.containers import parse_cell
from squeeze.data.examples import PreferenceExample
from squeeze.data.formats import ANSWER, ANSWERS, CHOSEN, FORMATS, PROMPT, REJECTED
from squeeze.data.layouts import Layout, Rules
from squeeze.data.rating import PAIRS_BY, is_grade
from squeeze.data.rows import Row, RowError, RowReader
from squeeze.data.writing import lossless
from squeeze.errors import InputError, did_you_mean

_SAMPLE = 50  # rows looked at to recognise a format
LLAMA_FACTORY = "llamafactory"  # read only: a dataset_info.json that describes other files
MAPPED = "columns"  # a file whose columns the user mapped
READABLE = (*FORMATS, LLAMA_FACTORY)


def named(name: str, choices: tuple[str, ...], flag: str) -> str:
    """The name if it is one of the choices; raises `InputError` suggesting the nearest."""
    if name in choices:
        return name
    hint = did_you_mean(name, choices)
    raise InputError(f"{flag}: unknown format {name!r}{hint} Choose from {', '.join(choices)}")


def check_rules(rules: Rules) -> None:
    """Raise `InputError` for a rule that is not known."""
    if rules.pairs_by not in PAIRS_BY:
        known = "; ".join(f"{name}: {what}" for name, what in PAIRS_BY.items())
        raise InputError(f"--pairs-by: unknown rule {rules.pairs_by!r}; choose one of {known}")
    if rules.divergent not in ("refuse", "last-turns"):
        raise InputError(f"--divergent is refuse or last-turns, not {rules.divergent!r}")


# ---- recognition ---------------------------------------------------------------------------------


def _folded(row: Row) -> Row:
    """The row with its columns' names in lower case, words joined by underscores."""
    return {name.strip().lower().replace(" ", "_").replace("-", "_"): v for name, v in row.items()}


def recognise(path: Path) -> str:
    """The name of the file's format, from its first rows.

    Raises `InputError` when no format or more than one fits, with the mapping that would read it.
    """
    return _recognise(path)[0]


def _parsed_columns(path: Path) -> frozenset[str]:
    """The columns whose texts are lists in every row: messages, or texts where the prompt's are."""
    kinds: dict[str, set[type | None]] = {}
    for _, row in islice(RowReader(path), _SAMPLE):
        if isinstance(row, RowError):
            continue
        for name, value in row.items():
            if value is not None:
                parsed = parse_cell(value)
                kind = type(parsed[0]) if isinstance(value, str) and parsed is not value else None
                kinds.setdefault(name, set()).add(kind)
    messages = frozenset(name for name, seen in kinds.items() if seen == {dict})
    texts = frozenset(name for name, seen in kinds.items() if seen and seen <= {str, type(None)})
    prompted = not texts.isdisjoint(PROMPT.split("|"))
    found = messages | (texts if prompted else frozenset())
    return found if len(found) > 1 else frozenset()


def _recognise(path: Path) -> tuple[str, bool, frozenset[str]]:
    """The format's name, whether it is that of the folded names, and the columns to parse."""
    if path.is_file() and dataset_info.is_dataset_info(path):
        return LLAMA_FACTORY, False, frozenset()
    fits: dict[bool, set[str] | None] = {False: None, True: None}
    first: Row = {}
    unreadable = ""
    parsed = _parsed_columns(path)
    for number, item in islice(RowReader(path), _SAMPLE):
        if isinstance(item, RowError):
            unreadable = unreadable or f"{path}, row {number} {item}"
            continue
        row = _with_parsed(item, parsed)
        first = first or row
        for folded, seen in ((False, row), (True, _folded(row))):
            fits[folded] = _both(fits[folded], {n for n, f in FORMATS.items() if f.matches(seen)})
    if not first and unreadable:
        raise InputError(f"{unreadable}; a JSON file holds one array of objects, or one a line")
    columns = ", ".join(first) or "none"
    exact, alike = fits[False], fits[True]
    if exact and len(exact) > 1:
        exact = _alike(exact, first)
    if exact and len(exact) > 1:
        raise InputError(
            f"{path} could be {' or '.join(sorted(exact))} (columns: {columns}); name its format "
            f"with --from (one of {', '.join(sorted(exact))})"
        )
    if exact or (exact is None and alike and len(alike) == 1):
        return min(exact or alike or ()), exact is None, parsed
    what = "has no format that is known here" if exact is None else "mixes formats"
    raise InputError(f"{path} {what} (columns: {columns}); {_way_out(path, first)}")


def _alike(names: set[str], row: Row) -> set[str]:
    """One of the formats by which the row can be read, where all that can read it alike; else all.

    Whole conversations beside a column of their prompt, or a pair beside the answers it is of.
    """
    read: dict[str, object] = {}
    for name in (n for n in FORMATS if n in names):
        try:
            read[name] = [
                (e.prompt, e.chosen, e.rejected) for e in FORMATS[name].layout.examples(row)
            ]
        except RowError:
            continue
    same = bool(read) and all(made == next(iter(read.values())) for made in read.values())
    return {next(iter(read))} if same else names


def _with_parsed(row: Row, columns: frozenset[str]) -> Row:
    return {n: parse_cell(v) if n in columns else v for n, v in row.items()} if columns else row


def _both(fits: set[str] | None, fitting: set[str]) -> set[str] | None:
    """The formats that fit all rows: one that fits nothing is a bad row, not another format."""
    return fits if not fitting else fitting if fits is None else fits & fitting


def _way_out(path: Path, row: Row) -> str:
    """The command that would read the file, its columns mapped as far as can be guessed."""
    guessed = guess(row)
    single = next((n for n in (*ANSWER.split("|"), "output") if isinstance(row.get(n), str)), "")
    if single and not guessed.get("chosen") and not guessed.get("rejected"):
        graded = [f"{n!r}" for n, v in row.items() if is_grade(v) and not n.lower().endswith("id")]
        rated = f", rated by {', '.join(graded[:4])}" if graded else ""
        return (
            f"a row holds one answer ({single!r}{rated}) and none to compare it with; put the "
            'answers to one prompt into one row ({"prompt": …, "answers": [{"text": …, "score": …}'
            f", …]}}), or give --columns prompt=…,completion={single},label=… if a column says "
            "which are wanted"
        )
    if not any(guessed.get(part) for part in ("chosen", "rejected", "answers")):
        guessed = _two_alike(row) or guessed
    kept = guessed if "answers" in guessed else {k: v for k, v in guessed.items() if k != v}
    mapping = kept or guessed
    mapping = {part: _text_within(row, path) for part, path in mapping.items()}
    text = ",".join(f"{part}={name or '…'}" for part, name in mapping.items())
    said = [f"{name!r} for {part}" for part, name in mapping.items() if name]
    missing = [part for part, name in mapping.items() if not name]
    rest = f", … being the column of {' and '.join(missing)} (or a path such as a.0.content)"
    return (
        f"taking {', '.join(said) or 'nothing'}, it is read by: squeeze convert {path} OUT.jsonl "
        f"--to squeeze --columns {text}{rest if missing else ''} (or map its columns in a "
        "dataset_info.json)"
    )


def _text_within(row: Row, path: str) -> str:
    """The path to the text of an object ({"text": …, "score": …}), where a part leads to one."""
    value = value_at(row, path) if path else None
    if not isinstance(value, dict) or not {"role", "from"}.isdisjoint(value):
        return path
    return next((f"{path}.{n}" for n in ANSWER.split("|") if isinstance(value.get(n), str)), path)


def guess(row: Row) -> dict[str, str]:
    """The columns of a row that look like parts of a pair: part → path, "" where none does."""
    texts = {name: v for name, v in row.items() if not name.lower().endswith("_id")}
    paths = {name: value for name, value in texts.items() if isinstance(value, str | list | dict)}
    for name, value in row.items():
        if isinstance(value, dict):
            paths |= {f"{name}.{key}": v for key, v in value.items() if isinstance(v, str | list)}
    rated = [n for n in paths if n in ANSWERS.split("|") and isinstance(paths[n], list)]
    parts = {"prompt": PROMPT, "chosen": f"chosen|{CHOSEN}", "rejected": REJECTED}
    if rated:
        return {"prompt": _nearest("prompt", PROMPT, [*paths]), **_graded(row, rated[0])}
    found: dict[str, str] = {}
    for part, names in parts.items():
        found[part] = _nearest(part, names, [n for n in paths if n not in found.values()])
    left = [n for n, v in row.items() if n not in found.values() and isinstance(v, str | list)]
    missing = [part for part, name in found.items() if not name]
    if len(missing) == len(left) == 1 and len(row) == 3:
        found[missing[0]] = left[0]  # the only column that is not taken
    return found


def _graded(row: Row, answers: str) -> dict[str, str]:
    """The mapping of a list of answers and of what says which is better, "" where nothing does."""
    one = next((v for v in row[answers] if isinstance(v, dict)), {})
    grades = [name for name, value in one.items() if is_grade(value) or isinstance(value, bool)]
    length = len(row[answers])
    lists = [n for n, v in row.items() if isinstance(v, list) and len(v) == length and n != answers]
    grades = grades or [n for n in lists if all(map(is_grade, row[n]))]
    text = next((n for n in (*ANSWER.split("|"), *one) if isinstance(one.get(n), str)), "")
    ranked = bool(grades) and "rank" in grades[0].lower()
    better = {"rank" if ranked else "score": next(iter(grades), "")}
    return {"answers": answers} | ({"answer": text} if text else {}) | better


_SIDES = (("a", "b"), ("0", "1"), ("1", "2"), ("left", "right"), ("first", "second"))


def _two_alike(row: Row) -> dict[str, str]:
    """The mapping of two answers whose columns' names differ in their side alone (…_A, …_B)."""
    for name, value in row.items():
        for one, other in _SIDES:
            stem = name[: -len(one)]
            twin = next((n for n in row if n.lower() == (stem + other).lower()), "")
            alike = isinstance(value, str | list) and isinstance(row.get(twin), str | list)
            if name.lower().endswith(one) and alike and "model" not in stem.lower():
                judged = [n for n in row if any(w in n.lower() for w in _JUDGED)]
                rest = [n for n in row if n not in (name, twin, *judged)]
                asked = _nearest("prompt", PROMPT, [n for n in rest if isinstance(row[n], str)])
                better = next(iter(judged), "")
                return {"prompt": asked, "answers": f"{name}+{twin}", "better": better}
    return {}


_JUDGED = ("winner", "prefer", "better", "label", "vote", "choice", "verdict")


def _nearest(part: str, names: str, paths: list[str]) -> str:
    """The path that is named like a part: exactly, at its end, in it, or nearly."""
    known = names.split("|")
    last = {path: path.split(".")[-1].lower() for path in paths}
    exact = [path for path in paths if last[path] in known]
    within = [path for path in paths if part in last[path]]
    within += [path for path in paths if any(last[path].endswith(f"_{name}") for name in known)]
    nearly = [
        path for path in paths if difflib.get_close_matches(last[path], [part, *known[:3]], 1, 0.75)
    ]
    return next(iter(exact + within + nearly), "")


# ---- sources -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A file whose format is known; iterates (row number, example or `RowError`)."""

    reader: RowReader
    format: str
    layout: Layout
    columns: frozenset[str] | None  # those that reading uses; None: any may be used
    limit: int | None = None  # rows to read; None: all
    folded: bool = False
    parsed: frozenset[str] = frozenset()  # columns whose texts hold lists

    @property
    def unpaired(self) -> bool:
        """Whether a row holds one answer, so that several rows make a pair."""
        columns = self.layout.columns
        return bool(columns.label or (columns.completion and columns.score))

    @property
    def rows_per_example(self) -> int:
        """How many of the file's rows make an example."""
        return 2 if self.unpaired else 1

    def pairs_by(self) -> str:
        """The rule by which rated answers become pairs, in words; "" where rows hold pairs."""
        columns, rule = self.layout.columns, self.layout.rules.pairs_by
        if columns.completion and columns.score:
            return f"{PAIRS_BY[rule]} to a prompt, by {columns.score!r} (--pairs-by {rule})"
        if not (columns.answers and not columns.chosen) and not columns.tree:
            return ""
        return f"{PAIRS_BY[rule]} (--pairs-by {rule})"

    def rows(self) -> Iterator[tuple[int, Row | RowError]]:
        """The file's rows with their numbers, up to the limit."""
        rows = islice(self.reader, self.limit)
        if not self.folded and not self.parsed:
            return rows
        return ((n, row if isinstance(row, RowError) else self._reshaped(row)) for n, row in rows)

    def _reshaped(self, row: Row) -> Row:
        row = _with_parsed(row, self.parsed)
        return _folded(row) if self.folded else row

    def examples(
        self, rows: Iterator[tuple[int, Row | RowError]] | None = None
    ) -> Iterator[tuple[int, PreferenceExample | RowError]]:
        """Stream the examples of `rows` (by default the file's), errors in place, ids distinct."""
        rows = self.rows() if rows is None else rows
        with closing(pairing.SeenIds()) as seen:
            for number, item in self._parsed(rows):
                if isinstance(item, RowError):
                    yield number, item
                    continue
                try:
                    yield number, seen.distinct(item, number)
                except RowError as error:
                    error.row = lossless(item)
                    error.rows = self.rows_per_example
                    yield number, error

    def _parsed(
        self, rows: Iterator[tuple[int, Row | RowError]]
    ) -> Iterator[tuple[int, PreferenceExample | RowError]]:
        if self.unpaired:
            parts = pairing.n_parts(self.reader.n_bytes())
            rules = None if self.layout.columns.label else self.layout.rules
            yield from pairing.pair_rows(rows, self.layout.unpaired, parts, rules)
            return
        for number, row in rows:
            try:
                if isinstance(row, RowError):
                    raise row
                for example in self.layout.examples(row):
                    yield number, example
            except RowError as error:
                error.row = row if error.row is None and isinstance(row, dict) else error.row
                yield number, error


def open_source(
    path: Path,
    format: str | None = None,
    name: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    rules: Rules | None = None,
) -> Source:
    """Open a data file, recognising its format unless it is named.

    `name` chooses the data set of a dataset_info.json; `columns` maps parts of a pair to paths,
    beside or instead of those of the format. Raises `InputError` as `recognise` does.
    """
    rules = rules or Rules()
    check_rules(rules)
    folded, parsed = False, frozenset[str]()
    if format is not None:
        format = named(format, READABLE, "--from")
    elif not columns:
        format, folded, parsed = _recognise(path)
    else:
        try:
            format, folded, parsed = _recognise(path)
        except InputError:
            format = MAPPED
    if name is not None and format != LLAMA_FACTORY:
        raise InputError(f"--name goes with a dataset_info.json, and {path} is {format}")
    if format == LLAMA_FACTORY:
        dataset = dataset_info.choose(path, name)
        assert dataset.file is not None  # `choose` sees to it
        source = Source(
            RowReader(dataset.file),
            f"{LLAMA_FACTORY}:{dataset.name}",
            layout := dataset_info.layout(dataset),
            layout.columns.names(),
            dataset.num_samples,
        )
    elif format == MAPPED:
        rows = (row for _, row in islice(RowReader(path), _SAMPLE) if isinstance(row, dict))
        first = next(rows, {})
        layout = Layout(Columns(**_exact(first)), implicit=True, dialogues=True)
        source = Source(RowReader(path), MAPPED, layout, layout.columns.names())
    else:
        known = FORMATS[format]
        layout, shape = known.layout, (known.columns, None, folded, parsed)
        source = Source(RowReader(path), format, layout, *shape)
        if layout.columns.completion and layout.columns.score:  # one score for the whole file
            row = next((r for _, r in source.rows() if isinstance(r, dict)), {})
            score = next((n for n in layout.columns.score.split("|") if n in row), "score")
            layout = replace(layout, columns=replace(layout.columns, score=score))
            source = replace(source, layout=layout)
    layout = replace(source.layout, rules=rules)
    if columns:
        layout = replace(layout, columns=remapped(layout.columns, columns))
        used = None if source.columns is None else source.columns | layout.columns.names()
        source = replace(source, columns=used)
    return replace(source, layout=layout)


def _exact(row: Row) -> dict[str, str]:
    """The parts that have a column of their very name, and the only one named like a prompt."""
    parts = {part: part for part in ("chosen", "rejected", "system", "history") if part in row}
    asked = [name for name in PROMPT.split("|") if name in row and name not in parts]
    return parts | ({"prompt": asked[0]} if len(asked) == 1 else {})


_WAYS = (
    ("chosen", "rejected"),
    ("answers",),
    ("completion", "label"),
    ("completion", "score"),
    ("tree",),
)


def parse_columns(text: str) -> dict[str, str]:
    """The mapping of `prompt=a,chosen=b.0.content`; raises `InputError` for an unknown part."""
    mapping = {}
    for entry in text.split(","):
        part, equals, path = (piece.strip() for piece in entry.partition("="))
        if not equals:
            raise InputError(f"--columns: {entry!r} is no part=column; write prompt=…,chosen=…")
        if part not in PARTS:
            hint = did_you_mean(part, PARTS)
            raise InputError(f"--columns: unknown part {part!r}{hint} Parts: {', '.join(PARTS)}")
        mapping[part] = path
    return mapping


def remapped(columns: Columns, mapping: Mapping[str, str]) -> Columns:
    """The columns with some parts mapped anew; another way of giving answers replaces the old."""
    for way in _WAYS:
        if any(mapping.get(part) for part in way):
            others = {part: "" for other in _WAYS if other is not way for part in other}
            columns = replace(columns, **others)
            break
    return replace(columns, **mapping)
