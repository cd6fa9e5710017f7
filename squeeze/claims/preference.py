"""Claims DP-1 … DP-3 and LD-4: what preference losses are worth at the start, and how they push.

The entries only; their checks are in `preference_checks`.
"""

from __future__ import annotations

from squeeze.claims.catalogue import register
from squeeze.claims.preference_checks import (
    check_agreement,
    check_gradient_identity,
    check_init_value,
    check_residuals,
)
from squeeze.claims.types import Claim

TESTS = "pytest tests/losses/test_claims.py -k"

register(
    Claim(
        id="LD-4",
        sentence="Every preference loss's gradient with respect to the sequence log-probs, and to "
        "the logits, is its formula.",
        source="Ren & Sutherland, arXiv 2407.10490, Prop. 1 and appendix B; each loss's own paper",
        kind="theorem",
        levels=("toy",),
        counterfactual="the formula's constants off by 1%",
        check=check_residuals,
        math="G = ∂L/∂s± · (e_y − π), with ∂L/∂s± as in squeeze.theory.residuals",
        run=f"{TESTS} residual",
    )
)
register(
    Claim(
        id="DP-1",
        sentence="When the policy is the reference, every loss has its closed-form value, whatever "
        "β, the data and the model (DPO: ln 2 = 0.6931).",
        source="Rafailov et al. 2023, arXiv 2305.18290, Eq. 7 with π = π_ref",
        kind="theorem",
        levels=("toy", "tiny"),
        counterfactual="the reference perturbed",
        check=check_init_value,
        math="Δ± = 0 ⇒ DPO, cDPO, robust, SPIN, DPOP, DPO-Shift: ln 2; IPO: 1/(4τ²); hinge: 1; "
        "SPPO: 1/(2β²); Cal-DPO: ln 2 + 1/(2β²); KTO: (λ_D + λ_U)/4",
        run=f"{TESTS} init",
    )
)
register(
    Claim(
        id="DP-2",
        sentence="DPO's gradient is −β(1 − a)(∇s+ − ∇s−), and a reward that depends on the prompt "
        "alone changes nothing.",
        source="Rafailov et al. 2023, arXiv 2305.18290, §4 and Lemma 1",
        kind="theorem",
        levels=("toy",),
        counterfactual="β off by 1% in the loss; the constant added to the chosen reward only",
        check=check_gradient_identity,
        math="∇L = −β(1 − a)(∇s+ − ∇s−), a = σ(βm); r(x, y) + c(x) gives the same L",
        run=f"{TESTS} gradient",
    )
)
register(
    Claim(
        id="DP-3",
        sentence="Our losses are TRL's wherever TRL has the same one, in value and gradient.",
        source="TRL 1.16, DPOTrainer, KTOTrainer, experimental CPO and ORPO trainers",
        kind="theorem",
        levels=("toy", "tiny"),
        counterfactual="β off by 1%",
        check=check_agreement,
        math="L_ours(s; β) = L_TRL(s; β) and ∇L_ours = ∇L_TRL",
        run=f"{TESTS} trl",
    )
)
