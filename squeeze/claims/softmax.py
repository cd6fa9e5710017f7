"""Claims SM-1 … SM-9: how gradient steps on one label move a softmax, and where each holds.

The entries only; their checks are in `softmax_checks` and `softmax_trend`.
"""

from __future__ import annotations

from squeeze.claims.catalogue import register
from squeeze.claims.softmax_checks import (
    check_most_likely_other_gains,
    check_positive_step_mirrors,
    check_pushed_down_label_falls,
    check_repeated_steps_end_one_hot,
    check_rich_get_richer,
    check_same_context_cancels,
    check_squeezing_threshold,
    check_unlikely_label_squeezes_more,
)
from squeeze.claims.softmax_trend import check_peakier_squeezes_more
from squeeze.claims.types import Claim

SOURCE = "Ren & Sutherland, arXiv 2407.10490, §3.3 and appendix E"
TESTS = "pytest tests/theory/test_softmax.py -k"

register(
    Claim(
        id="SM-1",
        sentence="A negative gradient lowers the probability of the label it pushes down.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="positive gradient on y−",
        check=check_pushed_down_label_falls,
        math="π'(y−) < π(y−), for every η > 0 and every π with 0 < π(y−) < 1",
        run=f"{TESTS} pushed_down_label",
    )
)
register(
    Claim(
        id="SM-2",
        sentence="The most likely label other than y−, y*, gains probability.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="positive gradient on y−",
        check=check_most_likely_other_gains,
        math="π'(y*) > π(y*), for every η > 0; each of several tied y* gains, and y* need not be "
        "the most likely of all labels",
        run=f"{TESTS} most_likely_other",
    )
)
register(
    Claim(
        id="SM-3",
        sentence="Rich get richer: among the other labels, the likelier gains more in ratio.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="uniform redistribution of y−'s lost mass",
        check=check_rich_get_richer,
        math="π_i > π_j ⇒ π'_i/π_i > π'_j/π_j, i, j ≠ y−, for every η > 0; tied labels stay tied",
        run=f"{TESTS} rich_get_richer",
    )
)
register(
    Claim(
        id="SM-4",
        sentence="To first order in η the labels below ‖π‖² − π(y−) fall and those above it rise.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="threshold computed without the −π(y−) term",
        check=check_squeezing_threshold,
        math="d log π_i/dη = π_i − (‖π‖² − π(y−)) at η = 0, i ≠ y−. At a finite step the "
        "change lags behind η times that by 0 to η²(1 − π(y−) + π(y*))²/8: labels at or below the "
        "threshold fall at every η, those above it rise only while η is small. So 'if π(y−) ≥ "
        "‖π‖² nobody else falls' holds to first order only",
        run=f"{TESTS} threshold",
    )
)
register(
    Claim(
        id="SM-5",
        sentence="A peakier π squeezes more: sharpening adds falling labels and share for y*.",
        source=SOURCE,
        kind="trend",
        levels=("toy",),
        counterfactual="flat π, which no temperature sharpens",
        check=check_peakier_squeezes_more,
        math="over z ~ N(0, 2²)^50, y− uniform among labels that are not the most likely, η = 0.5: "
        "mean paired difference between temperature ½ and 1, its 95% interval above 0. Where "
        "y− is the most likely label, π(y−) ≥ ‖π‖², and to first order no other label ever falls",
        run=f"{TESTS} peakier",
    )
)
register(
    Claim(
        id="SM-6",
        sentence="A less likely y− squeezes more: the falling set only grows as π(y−) shrinks.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="the others' odds not held fixed: they flatten as π(y−) shrinks",
        check=check_unlikely_label_squeezes_more,
        math="with q = π/(1 − p) on i ≠ y− fixed and p = π(y−): i falls at first order iff "
        "q_i < ‖q‖² − p(1 + ‖q‖²). The set grows at every finite η, too: the threshold "
        "log E exp(aX)/a on q_i, X = −1 with probability p, else q, a = η(1 − p), falls in p and "
        "rises in a",
        run=f"{TESTS} unlikely_label",
    )
)
register(
    Claim(
        id="SM-7",
        sentence="Repeated negative gradients drive π to one-hot on y* and its entropy to 0.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="positive and negative steps in turn",
        check=check_repeated_steps_end_one_hot,
        math="if y* is unique: π_i/π* after n steps ≤ (π_i/π*)(0)·exp(−nη(π* − π_i)(0)), i ≠ y−, "
        "and ≤ (π_i/π*)(0)·exp(−nη(1 − π(y−) + π*)(0)) for y−. Tied y* share the limit evenly, and "
        "the entropy's way to 0 need not be monotone",
        run=f"{TESTS} one_hot",
    )
)
register(
    Claim(
        id="SM-8",
        sentence="The positive gradient is the mirror: labels below ‖π‖² − π(y+) rise.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="negative gradient",
        check=check_positive_step_mirrors,
        math="d log π_i/dη = (‖π‖² − π(y+)) − π_i at η = 0, i ≠ y+, lagging by at most "
        "η(1 − π(y+) + π(y*))²/8. It brings the others' odds nearer to 1 for η ≤ 4/(1 − π(y+)); a "
        "larger step can overshoot and reverse them",
        run=f"{TESTS} positive",
    )
)
register(
    Claim(
        id="SM-9",
        sentence="Chosen and rejected pushed equally in one context: the others keep their odds.",
        source=SOURCE,
        kind="theorem",
        levels=("toy",),
        counterfactual="chosen and rejected in different contexts",
        check=check_same_context_cancels,
        math="z' = z + η(e_{y+} − e_{y−}): π'_i/π'_j = π_i/π_j for i, j ∉ {y+, y−}; y+ gains, y− "
        "loses. The others move by one common factor, down iff π(y+)e^η > π(y−)",
        run=f"{TESTS} same_context",
    )
)
