"""Claims about generated text: RP-1, and the second half of SF-4 (see `sft`).

The checks take texts of the same prompts before and after; they generate nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeeze.claims.catalogue import claim
from squeeze.claims.statistics import crossed_mean, verdict_from_interval
from squeeze.claims.types import Level, Role, Side, Verdict
from squeeze.errors import InputError
from squeeze.text_statistics import (
    N,
    copied_ngrams,
    distinct,
    repeated_share,
    unigram_entropy,
    units,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Texts:
    """Evidence of RP-1 and SF-4: texts `[seed][prompt]` of the same prompts before and after.

    `after_counterfactual` are those of the same training without its cause. For SF-4
    `own[seed]` and `sources[seed]` are what `squeeze.text_statistics.copied_ngrams` takes.
    """

    before: Sequence[Sequence[str]]
    after: Sequence[Sequence[str]]
    level: Level
    seeds: Sequence[int] = ()
    comparison: str = ""
    after_counterfactual: Sequence[Sequence[str]] | None = None
    own: Sequence[Sequence[Iterable[str]]] = ()
    sources: Sequence[Iterable[str]] = ()


# name → (statistic, what it is of, the side that RP-1 claims)
_MEASURES: dict[str, tuple[Callable[[list[str]], float], str, Side]] = {
    "repeated 4-grams": (repeated_share, "the share of a text's 4-grams that it repeats", "above"),
    "distinct-2": (
        lambda t: distinct([t], 2),
        "a text's distinct bigrams over its length",
        "below",
    ),
    "entropy": (unigram_entropy, "a text's unigram entropy, nats per unit", "below"),
}


@claim(
    "RP-1",
    sentence="DPO run too long makes generated text repetitive: repeated 4-grams rise, "
    "distinct-2 and entropy fall, against the model that DPO started from.",
    source="Ren & Sutherland, arXiv 2407.10490, abstract and §4.2",
    kind="observation",
    levels=("tiny", "pretrained", "gpu"),
    counterfactual="λ = 0: the gradient of the rejected term removed",
    primary="change of the share of a text's 4-grams that it repeats, at equal length",
    math="rep-4(y) = 1 − |unique 4-grams| / |4-grams| rises; H(y) and distinct-2(y) fall",
    run="squeeze stories",
)
def check_repetition(texts: Texts) -> list[Verdict]:
    """RP-1: repeated 4-grams rise (which decides), distinct-2 and entropy fall; a row each.

    All three depend on length, so both texts of a pair are cut to the shorter one's: a model that
    merely writes more does not count as repeating itself. A prompt with a text shorter than four
    units is left out and counted in the evidence, with the means over the texts as they are.
    Raises `InputError` for texts that do not pair up.
    """
    rows = _repetition(texts, texts.after)
    if texts.after_counterfactual is None:
        return rows
    return [*rows, _less_the_counterfactuals(texts)]


def _repetition(texts: Texts, after_texts: Sequence[Sequence[str]]) -> list[Verdict]:
    before, after = _units(texts.before), _units(after_texts)
    lengths, kept = _equal_lengths(before, after)
    rows = []
    for name, (measure, statistic, side) in _MEASURES.items():
        values = [_cut(units, lengths, kept, measure) for units in (before, after)]
        evidence = {
            "mean before": _mean(before, measure),
            "mean after": _mean(after, measure),
            "mean length before": _mean(before, len),
            "mean length after": _mean(after, len),
            "prompts too short": lengths.shape[1] - len(kept),
        }
        comparison = f"{texts.comparison}: {name}" if texts.comparison else name
        full = f"change of {statistic}, at equal length"
        role: Role = "primary" if measure is repeated_share else "secondary"
        rows.append(
            _row("RP-1", texts, full, values[1] - values[0], side, comparison, role, evidence)
        )
    return rows


def _less_the_counterfactuals(texts: Texts) -> Verdict:
    """Repeated 4-grams after the training less those after the training without its cause."""
    assert texts.after_counterfactual is not None  # by the caller
    bare, after = _units(texts.after_counterfactual), _units(texts.after)
    lengths, kept = _equal_lengths(bare, after)
    values = [_cut(units, lengths, kept, repeated_share) for units in (bare, after)]
    statistic = "share of a text's 4-grams that it repeats, less the counterfactual's"
    name = f"{texts.comparison}: against the counterfactual".removeprefix(": ")
    return _row("RP-1", texts, statistic, values[1] - values[0], "above", name, "secondary", {})


def _equal_lengths(
    before: list[list[list[str]]], after: list[list[list[str]]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The shorter text's length of each pair, [seeds, prompts], and the prompts long enough."""
    if [len(row) for row in before] != [len(row) for row in after]:
        raise InputError("before and after need texts of the same prompts and seeds")
    lengths = np.array(
        [
            [min(len(a), len(b)) for a, b in zip(*rows, strict=True)]
            for rows in zip(before, after, strict=True)
        ]
    )
    return lengths, np.flatnonzero((lengths >= N).all(axis=0))


def copied_row(texts: Texts) -> Verdict:
    """SF-4, second half: the share of n-grams copied from other prompts' training answers rises.

    The share of a text does not grow with its length, so texts are taken whole. Raises
    `InputError` for texts that do not pair up.
    """
    before, after = (
        np.array([_copied(*given) for given in zip(side, texts.own, texts.sources, strict=True)])
        for side in (texts.before, texts.after)
    )
    evidence = {"mean before": float(before.mean()), "mean after": float(after.mean())}
    statistic = f"change of the share of {N}-grams copied from other prompts' training answers"
    name = f"{texts.comparison}: copied {N}-grams".removeprefix(": ")
    return _row("SF-4", texts, statistic, after - before, "above", name, "secondary", evidence)


def _copied(texts: Sequence[str], own: Sequence[Iterable[str]], sources: Iterable[str]) -> Array:
    if len(texts) != len(own):
        raise InputError(f"{len(texts)} texts but {len(own)} prompts; give one text each")
    return copied_ngrams(texts, own, sources, N)


def _units(texts: Sequence[Sequence[str]]) -> list[list[list[str]]]:
    return [[units(text) for text in row] for row in texts]


def _cut(
    texts: list[list[list[str]]],
    lengths: NDArray[np.int64],
    kept: NDArray[np.int64],
    measure: Callable[[list[str]], float],
) -> Array:
    """The measure of the kept prompts' texts, cut to their lengths, [seeds, kept]."""
    rows = zip(texts, lengths, strict=True)
    return np.array([[measure(row[i][: cut[i]]) for i in kept] for row, cut in rows])


def _mean(texts: list[list[list[str]]], measure: Callable[[list[str]], float]) -> float:
    return float(np.mean([[measure(text) for text in row] for row in texts]))


def _row(
    id: str,
    texts: Texts,
    statistic: str,
    values: Array,
    side: Side,
    comparison: str,
    role: Role,
    evidence: dict[str, float],
) -> Verdict:
    if values.shape[-1] < 2:
        reason = f"fewer than 2 prompts have texts of {N} units before and after"
        return Verdict(
            id, texts.level, "not run", statistic, comparison=comparison, reason=reason,
            seeds=tuple(texts.seeds), evidence=evidence, side=side, role=role,
        )  # fmt: skip
    return verdict_from_interval(
        id,
        texts.level,
        statistic,
        crossed_mean(values),
        side=side,
        comparison=comparison,
        seeds=texts.seeds,
        evidence=evidence,
        role=role,
    )
