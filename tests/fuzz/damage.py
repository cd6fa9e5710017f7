"""Damage to small files: what editors, disks, other programs and ill will do to bytes and JSON.

Everything draws from a `random.Random`, which hypothesis gives in tests and a seed by hand.
"""

from __future__ import annotations

import copy
import gzip
import json
import math
from random import Random
from typing import Any

# Every one has stood in a real file, or has broken a reader.
WORDS = [
    *(
        "nan",
        "-inf",
        "Infinity",
        "1e999",
        "-0",
        "0",
        "1",
        "-1",
        "9" * 400,
        "1_000",
        "１２",
        "0x1p3",
    ),
    *(
        "",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\x00",
        "\ufeff",
        "\u2028",
        "\x1b[31m",
        "\x1b]0;x\x07",
        "\ud83d",
    ),
    *("=1+1", "@SUM(A1)", "|x|", "<script>alert(1)</script>", "[bold]x[/bold]", "[/]", "{{ 7*7 }}"),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        ",",
        ";",
        ":",
        "#",
        "/*",
        "//",
        "&a",
        "*a",
        "!!python/object:os.x",
    ),
    *("../../etc/passwd", "/dev/null", "a" * 5000, "é" * 300, "👩‍👩‍👧", "null", "true", "None"),
    *("rewards/chosen", "step", "prompt", "chosen", "rejected", "schema", "epoch"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**200, 0.5, -1.5, 1e308, 1e-320),
    *(math.nan, math.inf, -math.inf, "", " ", "x", "nan", "1", "\ud83d", "a\0b", "\x1b[2J", "=1+1"),
    *([], {}, [[]], [None], [1, "a"], {"a": 1}, {"": None}, {"schema": 1}, [{}], "a" * 3000),
    *("[bold]x[/bold]", "[/x]", "<img src=x onerror=alert(1)>", "x|y\nz"),
]


def bytes_of(data: bytes, random: Random) -> bytes:
    """The bytes with one to three kinds of damage."""
    for _ in range(random.choice(_TIMES)):
        data = random.choice(_BYTES)(data, random)
    return data


_TIMES = (1, 1, 1, 2, 3)  # mostly mild: what is damaged much is refused at once
_NUMBERS = (0, -1, 1, 2, 7, 0.5, -0.5, 1e-9, 1e9, 2**31, 2**63, 1e300, 5e-324)


def like(value: Any, random: Random) -> Any:
    """Another value of the same type, which a check of types lets pass."""
    if isinstance(value, bool) or value is None:
        return random.choice([True, False, None])
    if isinstance(value, int):
        return random.choice([n for n in _NUMBERS if isinstance(n, int)])
    if isinstance(value, float):
        return random.choice(_NUMBERS) * 1.0
    if isinstance(value, str):
        return random.choice([*WORDS, value[: len(value) // 2], value * 3])
    if isinstance(value, list | tuple):
        return random.choice([[], list(value[:1]), list(value[::-1]), list(value) * 2])
    return {}


def _at(data: bytes, random: Random) -> int:
    return random.randrange(len(data) + 1)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _at(data, random)]


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 4, 40])):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _insert(data: bytes, random: Random) -> bytes:
    word = random.choice(WORDS).encode("utf-8", "surrogatepass")
    place = _at(data, random)
    return data[:place] + word * random.choice([1, 1, 1, 50]) + data[place:]


def _replace_word(data: bytes, random: Random) -> bytes:
    """A number or a word between separators becomes another."""
    pieces = data.split(b",")
    pieces[random.randrange(len(pieces))] = random.choice(WORDS).encode("utf-8", "surrogatepass")
    return b",".join(pieces)


def _lines(data: bytes, random: Random) -> bytes:
    """Lines twice, in another order, or gone."""
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    how = random.randrange(4)
    if how == 0:
        lines.insert(place, lines[random.randrange(len(lines))])
    elif how == 1:
        del lines[place]
    elif how == 2:
        random.shuffle(lines)
    else:
        lines = lines * 3
    return b"\n".join(lines)


def _encode(data: bytes, random: Random) -> bytes:
    """In another encoding, with a mark, with carriage returns, or packed."""
    how = random.randrange(5)
    if how == 0:
        return gzip.compress(data)
    if how == 1:
        return data.replace(b"\n", b"\r\n")
    if how == 2:
        return b"\xef\xbb\xbf" + data
    return data.decode("latin-1").encode("utf-16" if how == 3 else "utf-8")


def _nest(data: bytes, random: Random) -> bytes:
    how = random.choice([b"[", b'{"a":', b"a: [", b"- "])
    return how * random.choice([100, 2000, 20000]) + data


_BYTES = [_cut, _flip, _insert, _insert, _replace_word, _replace_word, _lines, _encode, _nest]


def json_of(value: Any, random: Random) -> Any:
    """The value with one to three of its parts replaced, renamed, removed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(random.choice(_TIMES)):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(random.choice(VALUES))
        holder, key = random.choice(places)
        how = random.randrange(10)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[random.choice([str(key).upper(), f"{key} ", *WORDS])] = holder.pop(key)
        elif how == 2 and isinstance(holder, list):
            holder.extend([copy.deepcopy(holder[key])] * random.choice([1, 1, 200]))
        elif how == 3:
            holder[key] = copy.deepcopy(random.choice(places)[0])
        elif how < 7:
            holder[key] = copy.deepcopy(like(holder[key], random))
        else:
            holder[key] = copy.deepcopy(random.choice(VALUES))
    return value


def parquet_of(rows: list[dict[str, Any]], random: Random) -> bytes:
    """A table of rows of which some parts are damaged; whole rows where no table holds them."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    for given in (json_of(rows, random), rows):
        try:
            table = pa.Table.from_pylist(given)
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            return buffer.getvalue()
        except (pa.ArrowException, AttributeError, TypeError, OverflowError, UnicodeError):
            continue
    return b""


def _places(value: Any) -> Any:
    """(holder, key) of every part."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(items):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def json_bytes(value: Any, random: Random) -> bytes:
    """JSON of a damaged value, or damaged JSON."""
    if random.random() < 0.75:
        try:
            return json.dumps(json_of(value, random)).encode()
        except (ValueError, RecursionError):  # a part that now holds itself
            pass
    return bytes_of(json.dumps(value).encode(), random)
