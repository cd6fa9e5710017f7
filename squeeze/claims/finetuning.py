"""The claims about finetuning a language model (SF, DO and EX), and judging one run.

`judge_run` gives every verdict that one run's arms allow; a verdict that needs more than the run
has is returned as "not run" with the reason. The checks stand in `sft`, `dpo` and `extend`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from squeeze.claims import dpo, extend, sft
from squeeze.claims.catalogue import register
from squeeze.claims.runs import Runs
from squeeze.claims.types import Claim, Level, Verdict
from squeeze.trajectory import Trajectory

PAPER = "Ren & Sutherland, ICLR 2025"


def judge_run(trajectory: Trajectory, level: Level, seeds: Sequence[int]) -> list[Verdict]:
    """Every verdict that the arms of one run allow."""
    runs = Runs((trajectory,), level, tuple(seeds))
    verdicts: list[Verdict] = []
    for arm in runs.arms():
        phases = {point.phase for point in trajectory.points(arm)}
        if "sft" in phases and arm != "extend-dpo":
            verdicts += sft.judge_sft(runs, arm)
        if "dpo" in phases and arm != "extend-dpo":
            verdicts += dpo.judge_dpo(runs, arm)
    if "extend-dpo" in runs.arms():
        verdicts += extend.judge_extend(runs)
    return verdicts


def _claim(
    id: str,
    sentence: str,
    source: str,
    counterfactual: str,
    check: Callable[..., object],
    math: str,
) -> None:
    register(
        Claim(
            id=id,
            sentence=sentence,
            source=f"{PAPER}, {source}",
            kind="observation",
            levels=("tiny", "pretrained", "gpu"),
            counterfactual=counterfactual,
            check=check,  # type: ignore[arg-type]
            math=math,
            run="squeeze replicate",
        )
    )


_claim(
    "SF-1",
    "SFT on the chosen answers raises their log-prob throughout.",
    "§4.1, Fig. 3",
    "training labels permuted",
    sft.check_chosen_rises,
    "log π(y_u+ | x_u) grows from every probe of SFT to the next",
)
_claim(
    "SF-2",
    "Under SFT rephrasings of the chosen answer rise first, then fall as chosen keeps rising; "
    "the more similar the kind, the longer it is carried up.",
    "§4.1, Fig. 3",
    "training labels permuted",
    sft.check_rephrased_rises_then_falls,
    "log π(y_gpts+ | x_u) has an inner maximum over SFT, later than that of y_gptf+",
)
_claim(
    "SF-3",
    "SFT on the chosen answers raises the rejected ones at first, though never trained on.",
    "§4.1, Fig. 3",
    "training labels permuted",
    sft.check_rejected_rises_first,
    "max_t log π_t(y_u- | x_u) over SFT > log π_0(y_u- | x_u)",
)
_claim(
    "SF-4",
    "SFT makes the model readier to answer one training question with the answer of another: "
    "y_j≠u+ rises, and generated text copies n-grams of other training answers.",
    "§4.1, the hallucination hypothesis",
    "the other prompts' answers left out of training",
    sft.check_other_answers_rise,
    "Δ log π(y_j+ | x_u) over SFT: j ≠ u trained on > j held out",
)
_claim(
    "SF-5",
    "Under SFT permuted and random strings fall, and the distributions grow peakier.",
    "§4.1, Fig. 3 and App. D",
    "SFT on the permuted answers instead",
    sft.check_nonsense_falls_and_peaks_sharpen,
    "Δ log π(y_urnd), Δ log π(y_rnd) < 0; ‖A‖_F² = V‖π‖² + V − 2 grows",
)
_claim(
    "DO-1",
    "Off-policy DPO: chosen rises, then falls; every other kind falls, rejected fastest; "
    "the margin grows throughout.",
    "§4.2, Fig. 4",
    "the gradient of the rejected term removed",
    dpo.check_rises_then_falls,
    "log π(y_u+) has an inner maximum over DPO; Δ log π(y) < 0 for the other kinds",
)
_claim(
    "DO-2",
    "While chosen falls, the argmax log-prob along it rises: the mass goes to y*.",
    "§3.3 and Fig. 4",
    "the gradient of the rejected term removed",
    dpo.check_argmax_rises,
    "Σ_l max_v log π(v | x, y_<l) rises while Σ_l log π(y_l | x, y_<l) falls",
)
_claim(
    "DO-3",
    "Dose: the larger the weight λ on DPO's rejected term, the lower held-out chosen ends and the "
    "higher the argmax log-prob along it.",
    "§4.2; the dose is this project's",
    "the doses in another order",
    dpo.check_dose,
    "λ ∈ {0, ¼, ½, 1, 2} on β(1 − a)∇s−: Δ log π(y+) falls and Δ Σ_l max_v log π rises with λ",
)
_claim(
    "DO-4",
    "The more SFT epochs before DPO, that is the peakier its start, the more DPO squeezes.",
    "§3.3 and §4.2",
    "the numbers of epochs in another order",
    dpo.check_peakier_start,
    "the fall of log π(y+) from its peak and the rise of argmax grow with the SFT epochs",
)
_claim(
    "EX-1",
    "SFT on chosen and rejected before DPO lessens the fall of chosen.",
    "§4.3, Fig. 5",
    "SFT on the chosen answers twice instead",
    extend.check_extend,
    "fall of log π(y_u+) from its peak, extended, > the control's",
)
