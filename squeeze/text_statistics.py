"""Statistics of generated text: repetition, diversity, entropy, and what was copied from elsewhere.

Pure functions of strings, for any script; generating text is `generation`'s work. A text's *units*
are its words where words are written apart, and its characters where they are not, so numbers of
texts in the two kinds of script are not comparable with each other.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import regex  # type: ignore[import-untyped]
from jaxtyping import Float
from numpy import array, ndarray

N = 4

# Scripts written without spaces between words: one character (with its marks) is one unit.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_UNIT = regex.compile(
    rf"(?V1)[{_UNSPACED}]\p{{M}}*"  # a character of such a script
    rf"|[[\p{{L}}\p{{N}}_]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}_’']--[{_UNSPACED}]]*"  # a word
    r"|[^\s\p{L}\p{N}_]\p{M}*"  # a punctuation mark, a symbol
)

# The same words, and between them one visible character (an emoji, a letter with its marks) each.
_PIECE = regex.compile(rf"(?V1)[[\p{{L}}\p{{M}}\p{{N}}_’']--[{_UNSPACED}]]+|\X")

Ngram = tuple[str, ...]


def units(text: str) -> list[str]:
    """The words of a text, or its characters in scripts that do not space words, in order.

    Case and Unicode's several encodings of one letter (NFC) make no difference; every punctuation
    mark is a unit of its own, so that "!!!!!!" counts as repetition.
    """
    found: list[str] = _UNIT.findall(unicodedata.normalize("NFC", text).casefold())
    return found


def pieces(text: str) -> list[str]:
    """The text cut where it may be: words and single visible characters, joined the text again."""
    found: list[str] = _PIECE.findall(text)
    return found


def ngrams(text: Sequence[str], n: int) -> list[Ngram]:
    """All runs of `n` consecutive units, overlapping, in order; empty for a shorter text."""
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def repeated_share(text: Sequence[str], n: int = N) -> float:
    """The share of a text's n-grams that occurred before in it: 1 − unique / total, in [0, 1).

    `text` is a list of units. A text shorter than `n` repeats nothing: 0.
    Source: "seq-rep-n" of Welleck et al. 2020, arXiv 1908.04319 (there too with n = 4).
    """
    found = ngrams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(texts: Iterable[Sequence[str]], n: int) -> float:
    """distinct-n: different n-grams in all texts together over their number of units, in [0, 1].

    0 if there are no units. It falls as texts get longer, so compare it at equal lengths.
    Source: Li et al. 2016, arXiv 1510.03055 ("scaled by total number of generated tokens").
    """
    found, total = set[Ngram](), 0
    for text in texts:
        found.update(ngrams(text, n))
        total += len(text)
    return len(found) / total if total else 0.0


def unigram_entropy(text: Sequence[str]) -> float:
    """Shannon entropy of a text's unit frequencies, nats per unit: in [0, ln of its length].

    0 for an empty text. The plug-in estimate, which grows with length: compare at equal lengths.
    Source: Shannon 1948, §6; the unigram case of "entropy" in Zhang et al. 2018, arXiv 1809.05972.
    """
    terms = (c / len(text) * math.log(len(text) / c) for c in Counter(text).values())
    return sum(terms, 0.0)


def copied_ngrams(
    texts: Sequence[str], own: Sequence[Iterable[str]], sources: Iterable[str], n: int = N
) -> Float[ndarray, " texts"]:
    """The share of each text's n-grams that stand in `sources`, but not in the text's `own` ones.

    `sources` are the training answers; `own[i]` what text i may say anyway: its prompt and that
    prompt's chosen answer (also one of `sources`). A text shorter than `n` copies nothing: 0.
    Raises `ValueError` when texts and own differ in number.
    Source: claim SF-4; after the "hallucination" of Ren & Sutherland, arXiv 2407.10490, §4.1.
    """
    known = {gram for source in sources for gram in ngrams(units(source), n)}
    shares = []
    for text, allowed in zip(texts, own, strict=True):
        mine = {gram for t in allowed for gram in ngrams(units(t), n)}
        found = ngrams(units(text), n)
        copied = sum(gram in known and gram not in mine for gram in found)
        shares.append(copied / len(found) if found else 0.0)
    return array(shares, dtype=float)


@dataclass(frozen=True)
class TextStatistics:
    """Means over texts; `length` in units, `entropy` in nats per unit.

    `distinct_2` is a mean over single texts, `distinct_2_pooled` that of all texts together, which
    also sees that different prompts get the same answer.
    """

    n: int
    length: float
    repeated_4: float
    distinct_1: float
    distinct_2: float
    distinct_2_pooled: float
    entropy: float


def describe(texts: Sequence[str]) -> TextStatistics:
    """Statistics of a set of texts as they are; raises `ValueError` when there is none."""
    if not texts:
        raise ValueError("there are no texts to describe")
    split = [units(text) for text in texts]
    count = len(split)
    return TextStatistics(
        n=count,
        length=sum(map(len, split)) / count,
        repeated_4=sum(map(repeated_share, split)) / count,
        distinct_1=sum(distinct([t], 1) for t in split) / count,
        distinct_2=sum(distinct([t], 2) for t in split) / count,
        distinct_2_pooled=distinct(split, 2),
        entropy=sum(map(unigram_entropy, split)) / count,
    )
