"""Claims about generated text (RP-1, and the second half of SF-4).

The checks take texts, `[seed][prompt]`, of the same prompts before and after; they generate
nothing. SF-4 is registered in `finetuning`, where its first half is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from squeeze.claims.catalogue import register
from squeeze.claims.statistics import (
    Estimate,
    crossed_mean,
    verdict_from_interval,
)
from squeeze.claims.types import Claim, Level, Verdict
from squeeze.errors import InputError
from squeeze.text_statistics import (
    N,
    copied_ngrams,
    distinct,
    repeated_share,
    unigram_entropy,
    units,
)

Texts = Sequence[Sequence[str]]
Array = NDArray[np.float64]

# name → (statistic, what it is of, the side that RP-1 claims)
_MEASURES: dict[str, tuple[Callable[[list[str]], float], str, str]] = {
    "repeated 4-grams": (repeated_share, "the share of a text's 4-grams that it repeats", "above"),
    "distinct-2": (
        lambda t: distinct([t], 2),
        "a text's distinct bigrams over its length",
        "below",
    ),
    "entropy": (unigram_entropy, "a text's unigram entropy, nats per unit", "below"),
}


def check_repetition(
    before_texts: Texts,
    after_texts: Texts,
    *,
    level: Level,
    seeds: Sequence[int] = (),
    comparison: str = "",
) -> list[Verdict]:
    """RP-1: repeated 4-grams rise, distinct-2 and entropy fall; a verdict each.

    Texts are `[seed][prompt]`, paired by position. All three depend on length, so both texts of a
    pair are cut to the shorter one's: a model that merely writes more does not count as repeating
    itself. A prompt with a text shorter than four units is left out and counted in the evidence,
    with the means over the texts as they are. Raises `InputError` for texts that do not pair up.
    """
    before, after = _units(before_texts), _units(after_texts)
    if [len(row) for row in before] != [len(row) for row in after]:
        raise InputError("before and after need texts of the same prompts and seeds")
    lengths = np.array(
        [
            [min(len(a), len(b)) for a, b in zip(*rows, strict=True)]
            for rows in zip(before, after, strict=True)
        ]
    )
    kept = np.flatnonzero((lengths >= N).all(axis=0))
    verdicts = []
    for name, (measure, statistic, side) in _MEASURES.items():
        values = [_cut(texts, lengths, kept, measure) for texts in (before, after)]
        evidence = {
            "mean before": _mean(before, measure),
            "mean after": _mean(after, measure),
            "mean length before": _mean(before, len),
            "mean length after": _mean(after, len),
            "prompts too short": lengths.shape[1] - len(kept),
        }
        row = f"{comparison}: {name}" if comparison else name
        full = f"change of {statistic}, at equal length"
        if len(kept) < 2:
            reason = "fewer than 2 prompts have texts of 4 units before and after"
            verdicts.append(
                Verdict("RP-1", level, "not run", full, comparison=row, reason=reason,
                        seeds=tuple(seeds), evidence=evidence)
            )  # fmt: skip
            continue
        estimate = _change(*values)
        verdicts.append(_verdict("RP-1", level, full, estimate, side, row, seeds, evidence))
    return verdicts


def check_copying(
    before_texts: Texts,
    after_texts: Texts,
    own: Sequence[Sequence[Iterable[str]]],
    sources: Sequence[Iterable[str]],
    *,
    level: Level,
    seeds: Sequence[int] = (),
    comparison: str = "",
    n: int = N,
) -> Verdict:
    """SF-4, second half: the share of n-grams copied from other prompts' training answers rises.

    Texts are `[seed][prompt]`; `own[seed]` and `sources[seed]` are what
    `squeeze.text_statistics.copied_ngrams` takes. The share of a text does not grow with its
    length, so texts are taken whole. Raises `InputError` for texts that do not pair up.
    """
    before, after = (
        np.array([_copied(*given, n) for given in zip(side, own, sources, strict=True)])
        for side in (before_texts, after_texts)
    )
    evidence = {"mean before": float(before.mean()), "mean after": float(after.mean())}
    statistic = f"change of the share of {n}-grams copied from other prompts' training answers"
    row = f"{comparison}: copied {n}-grams" if comparison else f"copied {n}-grams"
    return _verdict("SF-4", level, statistic, _change(before, after), "above", row, seeds, evidence)


def _copied(
    texts: Sequence[str], own: Sequence[Iterable[str]], sources: Iterable[str], n: int
) -> Array:
    if len(texts) != len(own):
        raise InputError(f"{len(texts)} texts but {len(own)} prompts; give one text each")
    return copied_ngrams(texts, own, sources, n)


def _units(texts: Texts) -> list[list[list[str]]]:
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


def _change(before: Array, after: Array) -> Estimate:
    return crossed_mean(after - before)


def _verdict(
    claim: str,
    level: Level,
    statistic: str,
    estimate: Estimate,
    side: str,
    comparison: str,
    seeds: Sequence[int],
    evidence: dict[str, float],
) -> Verdict:
    return verdict_from_interval(
        claim,
        level,
        statistic,
        estimate,
        bound=0.0,
        side=side,  # type: ignore[arg-type]
        comparison=comparison,
        seeds=seeds,
        evidence=evidence,
    )


register(
    Claim(
        id="RP-1",
        sentence="DPO run too long makes generated text repetitive: repeated 4-grams rise, "
        "distinct-2 and entropy fall, against the model that DPO started from.",
        source="Ren & Sutherland, ICLR 2025, abstract and §4.2",
        kind="observation",
        levels=("tiny", "pretrained", "gpu"),
        counterfactual="λ = 0: the gradient of the rejected term removed",
        check=check_repetition,
        math="rep-4(y) = 1 − |unique 4-grams| / |4-grams| rises; H(y) and distinct-2(y) fall",
        run="squeeze stories",
    )
)
