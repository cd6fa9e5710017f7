"""Claims GE-1, GR-1, EN-1 and SA-1: DPO's entanglement, group steps, their entropy, and SAM.

The entries only; their checks are in `policy_gradient_checks`. The rows of GR-1 and its kin that
are observed on trained models are registered elsewhere.
"""

from __future__ import annotations

from squeeze.claims.catalogue import register
from squeeze.claims.policy_gradient_checks import (
    check_entanglement,
    check_entropy_change,
    check_group_step,
    check_sharpness_aware_step,
)
from squeeze.claims.types import Claim

TESTS = "pytest tests/theory/test_policy_gradient.py -k"

register(
    Claim(
        id="GE-1",
        sentence="Gradient entanglement: in a DPO step chosen rises, to first order, iff ‖∇s+‖² "
        "exceeds ⟨∇s+, ∇s−⟩, and rejected falls iff ‖∇s−‖² does.",
        source="Yuan et al. 2024, arXiv 2410.13828, §3 (gradient inner product condition)",
        kind="theorem",
        levels=("toy",),
        counterfactual="the inner product left out; a term's sign flipped",
        check=check_entanglement,
        math="Δs+ = ηβ(1 − a)(‖∇s+‖² − ⟨∇s+, ∇s−⟩) + O(η²), "
        "Δs− = ηβ(1 − a)(⟨∇s+, ∇s−⟩ − ‖∇s−‖²) + O(η²); any model, plain gradient descent",
        run=f"{TESTS} entangle",
    )
)
register(
    Claim(
        id="GR-1",
        sentence="A group-relative step is the sum of its answers' positive and negative gradients "
        "(SM-1 … SM-9); masking the wrong ones raises a right answer more, to first order, iff it "
        "lies below their thresholds.",
        source="Deng et al. 2025, arXiv 2505.18830, Lemma 4.2 (on-policy, answers of one context); "
        "the thresholds are SM-4's",
        kind="theorem",
        levels=("toy",),
        counterfactual="advantages that do not sum to 0; threshold without the −π(y) term",
        check=check_group_step,
        math="d = Σ_i (ηA_i/G)(e_{y_i} − π); ΣA_i = 0: labels nobody sampled keep their odds among "
        "themselves (SM-9). Wrong answers' part of Δ log π(y+): Σ_j (η|A_j|/G)(π_+ − ‖π‖² + "
        "π(y_j)) + O(η²), of either sign: the source, too, finds that masking helps most "
        "questions, not all",
        run=f"{TESTS} group",
    )
)
register(
    Claim(
        id="EN-1",
        sentence="To first order a policy-gradient step changes a softmax's entropy by "
        "−η·Cov_π(log π, π·A).",
        source="Cui et al. 2025, arXiv 2505.22617, Lemma 1 and Theorem 1",
        kind="theorem",
        levels=("toy",),
        counterfactual="A without the factor π (the natural gradient's); its sign flipped",
        check=check_entropy_change,
        math="ΔH = −Cov_π(log π, z' − z) + O(η²), z' − z = ηπ(A − E_π A): the exact gradient in "
        "logits, A centred under π. |remainder| ≤ ½ range(z' − z)²(¼ + 2 log V)",
        run=f"{TESTS} entropy",
    )
)
register(
    Claim(
        id="SA-1",
        sentence="A sharpness-aware negative step in logits gives y* less than the plain step; the "
        "labels that the plain step lowers fall less, to first order.",
        source="after logits-SAM, Luo et al. 2026, arXiv 2603.18258; statement and proof are ours "
        "(the paper's abstract and code were at hand, not its theorems)",
        kind="theorem",
        levels=("toy",),
        counterfactual="ρ of the other sign",
        check=check_sharpness_aware_step,
        math="for every η, ρ > 0: π'_sam(y*) < π'(y*). For i ≠ y− with π_i ≤ T = ‖π‖² − π(y−): "
        "∂²log π'_i/∂η∂a = π_i(T − π_i) + (Σπ³ − ‖π‖⁴) + π(y−)T ≥ 0 at 0, a = ρ/‖e − π‖. At large "
        "steps and radii together a label can fall further",
        run=f"{TESTS} sharpness",
    )
)
