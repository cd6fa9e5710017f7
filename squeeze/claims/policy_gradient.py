"""Claims GE-1, GR-1, EN-1 and SA-1: DPO's entanglement, group steps, their entropy, and SAM.

The mathematics of their checks is in `policy_gradient_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from squeeze.claims.catalogue import claim
from squeeze.claims.group_relative import GroupSteps, check_masking
from squeeze.claims.policy_gradient_checks import (
    Advantages,
    Entanglement,
    PairSystem,
    Rate,
    Relief,
    SharpStep,
    Threshold,
    check_entanglement,
    check_entropy_change,
    check_entropy_slope,
    check_group_step,
    check_sharpness_aware_slope,
    check_sharpness_aware_step,
    entangled,
    zero_sum,
)
from squeeze.claims.situations import Situation
from squeeze.claims.types import Verdict
from squeeze.theory.policy_gradient import policy_entropy_rate
from squeeze.theory.sharpness import sharpness_aware_negative_step, sharpness_aware_relief
from squeeze.theory.softmax import squeezing_threshold

TESTS = "pytest tests/theory/test_policy_gradient.py -k"


@dataclass(frozen=True)
class Pairs:
    """Evidence of GE-1: models at pairs of responses, and the formula under test."""

    systems: Sequence[PairSystem]
    formula: Entanglement = entangled


@dataclass(frozen=True)
class PolicyStep:
    """Evidence of GR-1, EN-1 and SA-1: inputs, and the parts of the system under test.

    With `slopes` (EN-1, SA-1) the order of the error is fitted at those situations instead of the
    search over `situations`, which by default are the standard ones.
    """

    situations: Sequence[Situation] | None = None
    slopes: Sequence[Situation] = ()
    advantages: Advantages = zero_sum
    threshold: Threshold = squeezing_threshold
    rate: Rate = policy_entropy_rate
    step: SharpStep = sharpness_aware_negative_step
    relief: Relief = sharpness_aware_relief


@claim(
    "GE-1",
    sentence="Gradient entanglement: in a DPO step chosen rises, to first order, iff ‖∇s+‖² "
    "exceeds ⟨∇s+, ∇s−⟩, and rejected falls iff ‖∇s−‖² does.",
    source="Yuan et al. 2024, arXiv 2410.13828 (the gradient inner product condition)",
    kind="theorem",
    levels=("toy",),
    counterfactual="the inner product left out; a term's sign flipped",
    primary="log-log slope of the error in η",
    math="Δs+ = ηβ(1 − a)(‖∇s+‖² − ⟨∇s+, ∇s−⟩) + O(η²), "
    "Δs− = ηβ(1 − a)(⟨∇s+, ∇s−⟩ − ‖∇s−‖²) + O(η²); any model, plain gradient descent",
    run=f"{TESTS} entangle",
)
def entanglement(pairs: Pairs) -> list[Verdict]:
    """GE-1: the error of the first-order change of s+ and s− falls as η², a model a row."""
    return check_entanglement(pairs.systems, pairs.formula)


@claim(
    "GR-1",
    sentence="A group-relative step is the sum of its answers' positive and negative gradients "
    "(SM-1 … SM-9); masking the wrong ones raises a right answer more, to first order, iff it "
    "lies below their thresholds; on trained models it does so for most questions.",
    source="Deng et al. 2025, arXiv 2505.18830v1, Lemma 4.2 (on-policy, answers of one context), "
    "§3 and Fig. 1 (one step on each question of three models of 0.5B and 1.5B), read in full but "
    "for the typeset formulas; the thresholds are SM-4's",
    kind="theorem",
    levels=("toy", "tiny", "pretrained"),
    counterfactual="advantages that do not sum to 0; threshold without the −π(y) term; on a model: "
    "as many answers masked at random",
    primary="share of inputs on which it holds; on a model: "
    "share of questions whose right answers gain more than by the full step, less 1/2",
    math="d = Σ_i (ηA_i/G)(e_{y_i} − π); ΣA_i = 0: labels nobody sampled keep their odds among "
    "themselves (SM-9). Wrong answers' part of Δ log π(y+): Σ_j (η|A_j|/G)(π_+ − ‖π‖² + "
    "π(y_j)) + O(η²), of either sign: the source, too, finds that masking helps most "
    "questions, not all",
    run=f"{TESTS} group",
)
def group_step(system: PolicyStep | GroupSteps) -> Verdict | list[Verdict]:
    """GR-1: a group's step is the sum of its answers' steps; on a model, what masking does."""
    if isinstance(system, GroupSteps):
        return check_masking(system)
    return check_group_step(
        system.situations, advantages=system.advantages, threshold=system.threshold
    )


@claim(
    "EN-1",
    sentence="To first order a policy-gradient step changes a softmax's entropy by "
    "−η·Cov_π(log π, π·A).",
    source="Cui et al. 2025, arXiv 2505.22617 (entropy by the covariance with the logits' change)",
    kind="theorem",
    levels=("toy",),
    counterfactual="A without the factor π (the natural gradient's); its sign flipped",
    primary="share of inputs on which it holds; log-log slope of the error in η",
    math="ΔH = −Cov_π(log π, z' − z) + O(η²), z' − z = ηπ(A − E_π A): the exact gradient in "
    "logits, A centred under π. |remainder| ≤ ½ range(z' − z)²(¼ + 2 log V)",
    run=f"{TESTS} entropy",
)
def entropy_change(system: PolicyStep) -> Verdict | list[Verdict]:
    """EN-1: the remainder's bound on every input, or the order of the error at `slopes`."""
    if system.slopes:
        return check_entropy_slope(system.slopes, rate=system.rate)
    return check_entropy_change(system.situations, rate=system.rate)


@claim(
    "SA-1",
    sentence="A sharpness-aware negative step in logits gives y* less than the plain step; the "
    "labels that the plain step lowers fall less, to first order.",
    source="after logits-SAM, Luo et al. 2026, arXiv 2603.18258; statement and proof are ours "
    "(the paper's abstract and code were at hand, not its theorems)",
    kind="theorem",
    levels=("toy",),
    counterfactual="ρ of the other sign",
    primary="share of inputs on which it holds; log-log slope of the error in ρ",
    math="for every η, ρ > 0: π'_sam(y*) < π'(y*). For i ≠ y− with π_i ≤ T = ‖π‖² − π(y−): "
    "∂²log π'_i/∂η∂a = π_i(T − π_i) + (Σπ³ − ‖π‖⁴) + π(y−)T ≥ 0 at 0, a = ρ/‖e − π‖. At large "
    "steps and radii together a label can fall further",
    run=f"{TESTS} sharpness",
)
def sharpness_aware_step(system: PolicyStep) -> Verdict | list[Verdict]:
    """SA-1: signs on every input, or the order of the error at `slopes`."""
    if system.slopes:
        return check_sharpness_aware_slope(system.slopes, step=system.step, relief=system.relief)
    return check_sharpness_aware_step(system.situations, step=system.step, relief=system.relief)
