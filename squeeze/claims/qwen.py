"""Claims QW-1 and QW-2: the published replication's two runs on Qwen3-4B-Base, on a GPU.

The checks are DO-1's, DO-2's and EX-1's, on trajectories of that model; nothing is measured anew.
"""

from __future__ import annotations

from dataclasses import replace

from squeeze.claims.catalogue import register
from squeeze.claims.dpo import check_argmax_rises, check_rises_then_falls
from squeeze.claims.extend import check_extend
from squeeze.claims.runs import Runs
from squeeze.claims.types import Claim, Verdict

SOURCE = "the published Qwen3-4B replication; Ren & Sutherland, ICLR 2025, §4.2 and §4.3"


def check_pure_dpo(runs: Runs, arm: str = "dpo") -> list[Verdict]:
    """QW-1: chosen rises, then falls, while the argmax log-prob on its path rises."""
    rows = [*check_rises_then_falls(runs, arm), check_argmax_rises(runs, arm, "train")]
    return [replace(row, claim="QW-1") for row in rows]


def check_extended(
    runs: Runs, arm: str = "extend-dpo", controls: tuple[str, ...] = ("dpo", "sft-dpo")
) -> list[Verdict]:
    """QW-2: after SFT on both answers, chosen falls less in DPO than in each control there is."""
    return [
        replace(check_extend(runs, arm, control, "train", equal), claim="QW-2")
        for control in controls
        if control in runs.arms()
        for equal in ("steps", "margin")
    ]


register(
    Claim(
        id="QW-1",
        sentence="Pure DPO of Qwen3-4B-Base: chosen rises, then falls, and argmax rises.",
        source=SOURCE,
        kind="observation",
        levels=("gpu",),
        counterfactual="the gradient of the rejected term removed (λ = 0)",
        check=check_pure_dpo,
        math="log π(y_u+) has an inner maximum over DPO; Σ_l max_v log π rises from there on",
        run="pytest -m gpu tests/gpu/test_replication.py",
    )
)
register(
    Claim(
        id="QW-2",
        sentence="SFT of Qwen3-4B-Base on chosen and rejected before DPO: chosen falls less.",
        source=SOURCE,
        kind="observation",
        levels=("gpu",),
        counterfactual="SFT on the chosen answers twice instead",
        check=check_extended,
        math="fall of log π(y_u+) from its peak, extended, > the control's",
        run="pytest -m gpu tests/gpu/test_replication.py",
    )
)
