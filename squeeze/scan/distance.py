"""Edit distance between token sequences: the baseline that needs no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def edit_distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the Levenshtein distance over the longer length: 0 (equal) to 1 (nothing in common).

    Both empty: 0. Time O(|first|·|second|), a row of the table at a time.
    Source: Levenshtein 1966; normalised as in Razin et al. 2025, arXiv 2410.08847, §5.
    """
    if not len(first) and not len(second):
        return 0.0
    other, steps = np.asarray(second), np.arange(len(second) + 1)
    row = steps
    for number, token in enumerate(first, start=1):
        replaced = row[:-1] + (other != token)
        best = np.concatenate(([number], np.minimum(replaced, row[1:] + 1)))
        # Insertions cost one a step to the right: the running minimum of (cost − place) finds them.
        row = np.minimum.accumulate(best - steps) + steps
    return float(row[-1]) / max(len(first), len(second))
