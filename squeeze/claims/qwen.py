"""Claims QW-1 and QW-2: DO-1, DO-2 and EX-1 on Qwen3-4B-Base, on a GPU.

The checks are those claims' own, on trajectories of that model; nothing is measured anew.
"""

from __future__ import annotations

from dataclasses import replace

from squeeze.claims.catalogue import claim
from squeeze.claims.dpo import NO_REJECTED, check_argmax_rises, check_rises_then_falls
from squeeze.claims.extend import check_extend
from squeeze.claims.runs import Runs
from squeeze.claims.types import Verdict

SOURCE = "Ren & Sutherland, arXiv 2407.10490, §4.2 and §4.3, on another model"
RUN = "pytest -m gpu tests/gpu/test_replication.py"


@claim(
    "QW-1",
    sentence="Pure DPO of Qwen3-4B-Base: chosen rises, then falls, and argmax rises.",
    source=SOURCE,
    kind="observation",
    levels=("gpu",),
    counterfactual=NO_REJECTED,
    primary="chosen, from its peak to the end of DPO, nats",
    math="log π(y_u+) has an inner maximum over DPO; Δ Σ_l max_v log π exceeds Δ log π(y_u+)",
    run=RUN,
)
def check_pure_dpo(runs: Runs) -> list[Verdict]:
    """QW-1: DO-1's rows on chosen, and DO-2's on argmax as secondary ones."""
    rows = [row for row in check_rises_then_falls(runs) if "chosen" in row.comparison]
    argmax = [replace(row, role="secondary") for row in check_argmax_rises(runs)]
    return [replace(row, claim="QW-1") for row in [*rows, *argmax]]


@claim(
    "QW-2",
    sentence="SFT of Qwen3-4B-Base on chosen and rejected before DPO: chosen falls less over DPO.",
    source=SOURCE,
    kind="observation",
    levels=("gpu",),
    counterfactual="SFT twice as long on chosen only",
    primary="chosen's change over DPO, less the control's, equal steps, nats",
    math="Δ log π(y_u+) over DPO after SFT on {y+, y−}, less that after SFT on y+, > 0",
    run=RUN,
)
def check_extended(runs: Runs) -> list[Verdict]:
    """QW-2: EX-1's rows."""
    return [replace(row, claim="QW-2") for row in check_extend(runs)]
