"""Garbage in preference pairs: what makes a pair teach something else than the preference.

Pure functions of texts; no model is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from squeeze.data.examples import PreferenceExample, Turns
from squeeze.text_statistics import repeated_share, units

_LOOPED = 0.5  # share of an answer's 4-grams that occurred before in it
_LOOPED_FROM = 20  # units; a shorter answer may repeat itself


def remarks(examples: Sequence[PreferenceExample]) -> list[list[str]]:
    """What is wrong with each pair, in words; an empty list where nothing is.

    "looped" (half of an answer's 4-grams occurred before in it), "empty" (no word),
    "same up to white space", "length alone" (one answer is the other's beginning), "duplicate of
    row N", "also the other way round in row N" (the labels contradict each other).
    """
    first: dict[tuple[Turns, str, str], int] = {}
    found = []
    for number, example in enumerate(examples, start=1):
        chosen, rejected = " ".join(example.chosen.split()), " ".join(example.rejected.split())
        said = _of_pair(chosen, rejected)
        for turn, key in (("duplicate of", (chosen, rejected)), ("swapped in", (rejected, chosen))):
            before = first.get((example.prompt, *key))
            if before is not None and chosen != rejected:
                said.append(f"{turn} row {before}")
        first.setdefault((example.prompt, chosen, rejected), number)
        found.append(said)
    return found


def _of_pair(chosen: str, rejected: str) -> list[str]:
    said = []
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        words = units(answer)
        if not any(unit[0].isalnum() for unit in words):
            said.append(f"{name} is empty of words")
        elif len(words) >= _LOOPED_FROM and repeated_share(words) >= _LOOPED:
            said.append(f"{name} is looped")
    if chosen == rejected:
        said.append("chosen and rejected are the same up to white space")
    elif chosen.startswith(rejected) or rejected.startswith(chosen):
        said.append("the answers differ by length alone")
    return said
