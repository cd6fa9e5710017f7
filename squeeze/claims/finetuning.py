"""Claims about finetuning a language model (CLAIMS.md, SF, DO and EX), judged on trajectories.

`judge_run` gives every verdict that one run's arms allow; a verdict that needs more than the run
has is returned as "not run" with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from squeeze.claims.curves import (
    Array,
    change,
    cut_at_margin,
    dpo_values,
    fall_from_peak,
    from_peak_of,
    mean_margin,
    rise_to_peak,
)
from squeeze.claims.model import Claim, Level, Status, Verdict
from squeeze.claims.registry import register
from squeeze.claims.statistics import Estimate, mean, verdict_from_interval
from squeeze.trajectory import Trajectory

PAPER = "Ren & Sutherland, ICLR 2025"
SPLITS = ("train", "held_out")
RESAMPLES = 2000


def _estimate(values: Array) -> Estimate:
    return mean(values, resamples=RESAMPLES)


def _row(
    claim: str,
    level: Level,
    statistic: str,
    values: Array,
    side: str,
    comparison: str,
    seeds: Sequence[int],
) -> Verdict:
    """A verdict from one number an example; "not run" where there are fewer than two examples."""
    if len(values) < 2:
        reason = f"needs at least 2 examples, but there are {len(values)}; raise --held-out"
        return Verdict(claim, level, "not run", statistic, comparison=comparison, reason=reason)
    return verdict_from_interval(
        claim,
        level,
        statistic,
        _estimate(values),
        bound=0.0,
        side=side,  # type: ignore[arg-type]
        comparison=comparison,
        seeds=seeds,
    )


def _worst(rows: Iterable[tuple[str, Verdict]], sign: int) -> Verdict:
    """Of several rows that must all hold, the one nearest to failing; the others as evidence."""
    named = list(rows)
    run = [(name, row) for name, row in named if row.status != "not run"]
    if not run:
        return named[0][1]

    def slack(item: tuple[str, Verdict]) -> float:
        low, high = item[1].interval or (0.0, 0.0)
        return low if sign > 0 else -high

    name, worst = min(run, key=slack)
    effects = {other: row.effect for other, row in named}
    evidence = dict(worst.evidence) | {"nearest to failing": name, "effects": effects}
    return replace(worst, evidence=evidence)


# --- SFT ----------------------------------------------------------------------------------------


def check_sft_raises(
    trajectory: Trajectory, arm: str, kind: str, claim: str, level: Level, seeds: Sequence[int]
) -> Verdict:
    """SF-1 (chosen), SF-3 (rejected): SFT on chosen raises `kind` on training prompts."""
    table = trajectory.by_example(arm, kind, "train").sort_index()
    end = max(p.probe for p in trajectory.points(arm) if p.phase == "sft")
    values = (table[end] - table[0]).to_numpy(dtype=float)
    return _row(
        claim,
        level,
        f"mean change of {kind} over SFT, nats",
        values,
        "above",
        f"{arm}, train",
        seeds,
    )


# --- DPO ----------------------------------------------------------------------------------------


def check_rises_then_falls(
    trajectory: Trajectory, arm: str, level: Level, seeds: Sequence[int]
) -> list[Verdict]:
    """DO-1, first part: on training prompts chosen rises from the start to a peak, then falls."""
    values = dpo_values(trajectory, arm, "chosen", "train")
    rise = _row(
        "DO-1",
        level,
        "chosen, from the start of DPO to its peak, nats",
        rise_to_peak(values),
        "above",
        f"{arm}: chosen rises first",
        seeds,
    )
    fall = _row(
        "DO-1",
        level,
        "chosen, from its peak to the end of DPO, nats",
        fall_from_peak(values),
        "below",
        f"{arm}: chosen then falls",
        seeds,
    )
    return [rise, fall]


def check_others_fall(
    trajectory: Trajectory, arm: str, split: str, level: Level, seeds: Sequence[int]
) -> Verdict:
    """DO-1, second part: every kind that is not trained up falls over DPO.

    On held-out prompts nothing is trained, so the chosen answer counts among the others.
    """
    skip = {"chosen"} if split == "train" else set()
    kinds = [k for k in trajectory.where(arm=arm).kinds() if k not in skip]
    name = f"{arm}: every other kind falls, {split}"
    rows = (
        (
            kind,
            _row(
                "DO-1",
                level,
                "change over DPO of the kind that falls least, nats",
                change(dpo_values(trajectory, arm, kind, split)),
                "below",
                name,
                seeds,
            ),
        )
        for kind in kinds
    )
    return _worst(rows, -1)


def check_rejected_falls_fastest(
    trajectory: Trajectory, arm: str, level: Level, seeds: Sequence[int]
) -> Verdict:
    """DO-1, third part: on training prompts no kind falls as much as the rejected answer."""
    rejected = change(dpo_values(trajectory, arm, "rejected", "train"))
    kinds = [k for k in trajectory.where(arm=arm).kinds() if k != "rejected"]
    rows = (
        (
            kind,
            _row(
                "DO-1",
                level,
                "change of the kind falling most next to rejected, less rejected's, nats",
                change(dpo_values(trajectory, arm, kind, "train")) - rejected,
                "above",
                f"{arm}: rejected falls fastest",
                seeds,
            ),
        )
        for kind in kinds
    )
    return _worst(rows, +1)


def check_margin_grows(
    trajectory: Trajectory, arm: str, level: Level, seeds: Sequence[int]
) -> Verdict:
    """DO-1, fourth part: the margin grows from every probe to the next."""
    gap = dpo_values(trajectory, arm, "chosen", "train") - dpo_values(
        trajectory, arm, "rejected", "train"
    )
    rows = (
        (
            f"step {time}",
            _row(
                "DO-1",
                level,
                "smallest growth of the margin between probes, nats",
                gap[:, time] - gap[:, time - 1],
                "above",
                f"{arm}: the margin grows throughout",
                seeds,
            ),
        )
        for time in range(1, gap.shape[1])
    )
    return _worst(rows, +1)


def check_argmax_rises(
    trajectory: Trajectory, arm: str, split: str, level: Level, seeds: Sequence[int]
) -> Verdict:
    """DO-2: from the time chosen peaks, it falls and the argmax log-prob on its path rises."""
    chosen = dpo_values(trajectory, arm, "chosen", split)
    argmax = dpo_values(trajectory, arm, "chosen", split, "argmax_logp")
    comparison = f"{arm}, {split}"
    statistic = "argmax log-prob along chosen, from chosen's peak to the end, nats"
    fall = _row("DO-2", level, "", fall_from_peak(chosen), "below", comparison, seeds)
    rise = _row("DO-2", level, statistic, from_peak_of(argmax, chosen), "above", comparison, seeds)
    if rise.status == "not run":
        return rise
    both = rise.supported and fall.supported
    status: Status = "supported" if both else "not supported"
    evidence = {"chosen from its peak": fall.effect, "its interval": fall.interval}
    return replace(rise, status=status, evidence=dict(rise.evidence) | evidence)


# --- SFT-extend -----------------------------------------------------------------------------------


def check_extend(
    trajectory: Trajectory,
    arm: str,
    control: str,
    split: str,
    equal: str,
    level: Level,
    seeds: Sequence[int],
) -> Verdict:
    """EX-1: chosen falls less from its peak in `arm` than in `control`, at equal `equal`."""
    names, margins = (arm, control), [mean_margin(trajectory, a) for a in (arm, control)]
    curves = [dpo_values(trajectory, a, "chosen", split) for a in names]
    if equal == "margin":
        target = min(float(m.max()) for m in margins)
        curves = [cut_at_margin(c, m, target) for c, m in zip(curves, margins, strict=True)]
    falls = [fall_from_peak(c) for c in curves]
    verdict = _row(
        "EX-1",
        level,
        "chosen's fall from its peak, less the control's, nats",
        falls[0] - falls[1],
        "above",
        f"against {control}, equal {equal}, {split}",
        seeds,
    )
    evidence = dict(verdict.evidence) | {
        f"fall in {name}": float(np.mean(fall)) for name, fall in zip(names, falls, strict=True)
    }
    return replace(verdict, evidence=evidence)


# --- all of a run -------------------------------------------------------------------------------


def judge_run(trajectory: Trajectory, level: Level, seeds: Sequence[int]) -> list[Verdict]:
    """Every verdict that the arms of one run allow."""
    arms = trajectory.arms()
    verdicts: list[Verdict] = []
    for arm in arms:
        phases = {point.phase for point in trajectory.points(arm)}
        if "sft" in phases:
            verdicts.append(check_sft_raises(trajectory, arm, "chosen", "SF-1", level, seeds))
        if arm == "sft-dpo" and "sft" in phases:
            verdicts.append(check_sft_raises(trajectory, arm, "rejected", "SF-3", level, seeds))
        if "dpo" in phases and arm != "extend-dpo":
            verdicts += _judge_dpo(trajectory, arm, level, seeds)
    if "extend-dpo" in arms:
        for control in [a for a in ("dpo", "sft-dpo") if a in arms]:
            for equal in ("steps", "margin"):
                for split in SPLITS:
                    verdicts.append(
                        check_extend(trajectory, "extend-dpo", control, split, equal, level, seeds)
                    )
    return verdicts


def _judge_dpo(
    trajectory: Trajectory, arm: str, level: Level, seeds: Sequence[int]
) -> list[Verdict]:
    verdicts = check_rises_then_falls(trajectory, arm, level, seeds)
    verdicts += [check_others_fall(trajectory, arm, split, level, seeds) for split in SPLITS]
    verdicts.append(check_rejected_falls_fastest(trajectory, arm, level, seeds))
    verdicts.append(check_margin_grows(trajectory, arm, level, seeds))
    verdicts += [check_argmax_rises(trajectory, arm, split, level, seeds) for split in SPLITS]
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
    "SFT on the chosen answers raises their log-prob.",
    "§4.1, Fig. 3",
    "training labels permuted",
    check_sft_raises,
    "log π(y_u+ | x_u) after SFT > before",
)
_claim(
    "SF-3",
    "SFT on the chosen answers raises the rejected ones at first, though never trained on.",
    "§4.1, Fig. 3",
    "training labels permuted",
    check_sft_raises,
    "log π(y_u- | x_u) after SFT > before",
)
_claim(
    "DO-1",
    "Off-policy DPO: chosen rises, then falls; every other kind falls, rejected fastest; "
    "the margin grows throughout.",
    "§4.2, Fig. 4",
    "the gradient of the rejected term removed",
    check_rises_then_falls,
    "log π(y_u+) has an inner maximum over DPO; Δ log π(y) < 0 for the other kinds",
)
_claim(
    "DO-2",
    "While chosen falls, the argmax log-prob along it rises: the mass goes to y*.",
    "§3.3 and Fig. 4",
    "the gradient of the rejected term removed",
    check_argmax_rises,
    "Σ_l max_v log π(v | x, y_<l) rises while Σ_l log π(y_l | x, y_<l) falls",
)
_claim(
    "EX-1",
    "SFT on chosen and rejected before DPO lessens the fall of chosen.",
    "§4.3, Fig. 5",
    "SFT on the chosen answers twice instead",
    check_extend,
    "fall of log π(y_u+) from its peak, extended, > the control's",
)
