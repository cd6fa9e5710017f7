"""Console output of trainers: printed dicts, and lines of `name: value` in whatever order.

Dicts are what transformers' trainers print (TRL, axolotl, LLaMA-Factory, ms-swift), also wrapped by
a terminal. Name and value stand in the lines of OpenRLHF (`chosen_reward=`), verl (`step:2 - ...`),
torchtune (`Step 1 | loss:...`), mlx-lm-lora (`Iter 10: Train loss 0.06, ...`), NeMo-RL (a line a
value below the step's) and of loops of one's own.
"""

from __future__ import annotations

import ast
import html
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from squeeze.diagnosis.names import is_step, recognise
from squeeze.diagnosis.readers.columns import names_method, names_trainer
from squeeze.diagnosis.readers.records import Table, number
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import BLOCK, Lines, parse_json
from squeeze.diagnosis.series import ENTROPY, LOSS, REWARD_MODEL, TELLING
from squeeze.errors import InputError

# Each pattern is bounded: a log may hold very long lines of anything.
_NUMBER = (
    r"[-+\u2212]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][-+]?\d{1,3})?"
    r"|[-+]?(?:nan|inf)\b"
)
_BRACE = re.compile(r"[{}]")
_VALUE = re.compile(rf"\s{{0,3}}['\"]?({_NUMBER})(?![\w/:])", re.IGNORECASE)
_DECIMALS = re.compile(r",(\d{1,18})(?=[\s,;|)\]}]|$)")  # behind a decimal comma
_SEPARATOR = re.compile(r"[=:]")
_NAME = re.compile(r"(?<![A-Za-z0-9_.])[A-Za-z_][A-Za-z0-9_/. \-]{0,60}\s{0,2}$")
_SPOKEN = re.compile(
    rf"\b([A-Za-z][A-Za-z/_]{{0,30}}(?: [a-z]{{1,20}}){{0,3}}) ({_NUMBER})(?![\w/:])"
)
_COUNT = re.compile(
    r"\b(?P<name>step|iter|iteration|epoch)s?\b(?:\(\w{1,12}\))?[:=\s\[]{0,12}(?P<at>\d{1,12})\b",
    re.IGNORECASE,
)
# "***** Evaluating rewards, Epoch 2/4 *****": the values of an evaluation follow.
_EVALUATES = re.compile(r"\bevaluat(?:ing|ion)\b.{0,60}?\bepoch[:=\s]{1,3}(?P<at>\d{1,6})\b", re.I)
_BETTER = re.compile(r"\s?\((?:higher|lower|bigger|larger|smaller) is better\)", re.IGNORECASE)
_OF = re.compile(r"\((?P<at>\d{1,12})/\d{1,12}\)")
_PART = re.compile(r"\s-\s|[,|;\u2022•\u2502\u2503]|\s{2,}")
# A scalar of another library, as its repr shows it: np.float64(0.1), tensor(0.1, device='cuda:0').
_SCALAR = re.compile(
    r"\b(?:np\.|numpy\.|torch\.)?(?:float\d*|int\d*|tensor|array)\("
    r"\[?([-+\d.a-zA-Z]{1,30})\]?(?:,[^()]{0,80})?\)"
)
_WIDE = str.maketrans("\uff1a\uff1d\uff0c\uff1b", ":=,;")  # as Chinese and Japanese type them
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_BARE = re.compile(r"(?<=[:\s\[])(nan|-?inf)(?=[,}\s\]])", re.IGNORECASE)
_COMMAS = re.compile(r"(:\s?-?\d{1,18}),(\d{1,18})(?=\s?[,}])")  # in a dict's decimals
_METHOD = re.compile(r"\b(ORPO|SimPO|CPO|KTO)\b(?! ?\()")
_REWARD_MODEL = re.compile(
    r"\b(?:train_rm|RewardModel|RewardTrainer)\b|\btrain\w{0,6}[ _](?:a |the |my )?reward[ _]model"
    r"|\b(?:stage|rlhf_type)['\"]?[=: ]{1,3}['\"]?rm\b",
    re.IGNORECASE,
)
_NAMED = 200  # lines at whose heads the training is named
_SCANNED = 20_000  # characters of a line
_LONGEST_DICT = 20_000  # characters that a printed dict may be wrapped over
_VAL = re.compile(r"^(val|valid|validation|eval)\b", re.IGNORECASE)


def _is_text(source: Source) -> bool:
    return not source.is_directory and source.suffix not in (".csv", ".tsv", ".ipynb")


@reader("console output of a transformers trainer", recognise=_is_text, order=60)
def read_dicts(source: Source) -> list[Table] | None:
    """Read the dicts that a trainer printed, Python's or JSON's."""
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    broken = 0
    for at, text in printed_dicts(source.lines):
        value = _evaluated(text)
        if value is None:
            broken += 1
        elif any((recognise(n) or is_step(n)) and _is_number(v) for n, v in value.items()):
            records.append(value)
            numbers.append(at)
    if not records:
        return None
    notes = (f"{broken} printed dicts could not be read and were left out",) if broken else ()
    kind = "console output of a transformers trainer"
    return [_table(source, kind, records, numbers, notes)]


@reader("console output with name=value pairs", recognise=_is_text, order=80)
def read_pairs(source: Source) -> list[Table] | None:
    """Read lines that name values; a line with a step alone heads the values below it."""
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for at, record in _gathered(source.lines):
        records.append(record)
        numbers.append(at)
    if not records:
        return None
    return [_table(source, "console output with name=value pairs", records, numbers, ())]


def _table(
    source: Source,
    kind: str,
    records: list[dict[str, Any]],
    numbers: list[int],
    notes: tuple[str, ...],
) -> Table:
    notes = (*source.notes, *notes)
    path = source.path
    return Table(path.stem, str(path), kind, records, numbers, notes, method=_method(source))


def _method(source: Source) -> str:
    """What trains, as the lines say it: "orpo", "kto", ..., "dpo", "reward model"; else ""."""
    heads = [line[:300] for _, line in source.lines[:_NAMED]]
    named = next((m[1].lower() for head in heads if (m := _METHOD.search(head))), "")
    if named:
        return named
    if any("dpo" in head.lower() for head in heads):
        return "dpo"
    return REWARD_MODEL if any(_REWARD_MODEL.search(head) for head in heads) else ""


# --- dicts --------------------------------------------------------------------------------------


def printed_dicts(lines: Lines) -> Iterator[tuple[int, str]]:
    """The flat dicts in the lines, with the number of the line that each begins on.

    One that does not end on its line goes on in the next ones, as a terminal wraps it.
    """
    begun: list[str] = []
    first = last = 0
    for at, line in lines:
        if at - last > BLOCK:  # lines were left out of a long file
            begun = []
        last = at
        line = _typed(line)
        if begun == ["{"] and line.lstrip()[:1] not in ("'", '"'):
            begun = []  # a block of code
        start = 0 if begun else -1
        for mark in _BRACE.finditer(line):
            i = mark.start()
            if line[i] == "{":  # one that an earlier brace opened was no flat dict
                opens = line[i + 1 :].lstrip()[:1] in ("'", '"', "")  # "": indented, a field a line
                begun, start, first = [], (i if opens else -1), at
            elif start >= 0:
                yield first, "".join(begun) + line[start : i + 1]
                begun, start = [], -1
        if start < 0 or sum(map(len, begun)) > _LONGEST_DICT:
            begun = []
        else:
            begun.append(line[start:].rstrip() if line[start:].rstrip() == "{" else line[start:])


def _typed(line: str) -> str:
    """A line with a word processor's quotes, or a web page's, as they were typed."""
    line = line.translate(_QUOTES)
    return html.unescape(line) if "&#39;" in line or "&#x27;" in line or "&quot;" in line else line


def _evaluated(text: str) -> dict[str, Any] | None:
    """A printed dict; None if it is none."""
    try:
        text = _BARE.sub(r"'\1'", _SCALAR.sub(r" \1", _COMMAS.sub(r"\1.\2", text)))
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            value = parse_json(text)
        except ValueError:
            return None
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else None


def _is_number(value: Any) -> bool:
    try:
        number(value, "", "")
    except InputError:
        return False
    return True


# --- pairs --------------------------------------------------------------------------------------


def _gathered(lines: Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records of lines that hold several values, or of blocks of lines below one with a step."""
    block: dict[str, Any] = {}
    head: dict[str, Any] = {}
    begun = last = 0
    headed = cut = False  # whether lines with a step head others; whether such a one was left out
    evaluation: dict[str, Any] = {}  # the epoch of one whose values the next line holds
    for at, line in lines:
        if at - last > BLOCK:
            block, head, cut = {}, {}, headed
        last = at
        line = _BETTER.sub("", line.translate(_WIDE))
        line = _SCALAR.sub(r"\1", line) if "(" in line else line
        pairs = _pairs(line[:_SCANNED])
        count = _counted(line[:300], pairs)
        told = {n: value for n, value in pairs.items() if recognise(n) or names_method(n)}
        if count and not told:  # "==== Step 2/52 ====": what follows belongs to it
            if _tells(block):
                headed = True
                yield begun, head | block
            block, head, begun, cut = {}, count, at, False
        elif head and len(told) == 1 and not count:
            block |= told
        elif (_tells(told) or any(map(names_trainer, told))) and not (cut and len(told) == 1):
            if evaluation and not count:
                told = evaluation | {f"eval_{name}": value for name, value in told.items()}
            yield at, count | told
        heading = _EVALUATES.search(line[:300])
        evaluation = {"epoch": heading["at"]} if heading and not told else {}
    if _tells(block):
        yield begun, head | block


def _tells(pairs: dict[str, Any]) -> bool:
    meanings = [m for name in pairs if (m := recognise(name)) is not None]
    return any(m.quantity in (*TELLING, LOSS, ENTROPY) for m in meanings)


def _counted(line: str, pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The step that a line names, or the epoch; "(20/4000)" counts the steps of an epoch."""
    of = _OF.search(line)
    found = {m["name"].lower(): m["at"] for m in _COUNT.finditer(line)}
    step = next((found[name] for name in ("step", "iter", "iteration") if name in found), None)
    if step is None:  # global_step=20
        counts = (n for n in pairs if is_step(n) and "epoch" not in n.lower())
        step = next((pairs[n] for n in counts), None)
    if step is None and of is not None and "epoch" not in found:
        step = of["at"]
    if step is None:
        return {}
    return {"step": step} | ({"epoch": found["epoch"]} if "epoch" in found else {})


def _pairs(line: str) -> dict[str, Any]:
    """Every `name=value`, `name: value` and `name value` of a line, in order."""
    found: dict[str, Any] = {}
    for mark in _SEPARATOR.finditer(line):
        value = _VALUE.match(line, mark.end())
        name = _NAME.search(line[max(0, mark.start() - 64) : mark.start()])
        if value is not None and name is not None:
            text, decimals = value[1], _DECIMALS.match(line, value.end())
            if decimals is not None and text[-1].isdigit() and "." not in text:
                text = f"{text}.{decimals[1]}"
            found[_last_part(name[0])] = text.replace("\u2212", "-")
    if any(recognise(name) for name in found):
        return found
    for part in _PART.split(line):
        for spoken in _SPOKEN.finditer(part):
            found[_unified(spoken[1])] = spoken[2].replace("\u2212", "-")
    parts = [part.strip() for part in _PART.split(line) if part.strip()]
    for word, text in itertools.pairwise(parts):  # at a wide gap, or between bars
        value = _VALUE.fullmatch(text)
        if value is not None and recognise(word):
            found[word] = value[1].replace("\u2212", "-")
    return found


def _last_part(name: str) -> str:
    """The name itself, of what stands before it on the line."""
    whole = _PART.split(name.strip())[-1].strip(" -|")
    return whole if recognise(whole) or " " not in whole else whole.rsplit(" ", 1)[-1]


def _unified(name: str) -> str:
    """`Val chosen reward` as an evaluation's name, in one word."""
    words = name.strip().lower().replace(" ", "_")
    return re.sub(r"^(val|valid|validation)_", "eval_", words)
