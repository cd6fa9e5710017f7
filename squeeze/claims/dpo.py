"""Claims about off-policy DPO (DO-1 to DO-4), judged on trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from squeeze.claims.curves import (
    Array,
    change,
    dpo_values,
    fall_from_peak,
    from_peak_of,
    rise_to_peak,
)
from squeeze.claims.runs import Runs, nearest_to_failing
from squeeze.claims.types import Outcome, Side, Verdict
from squeeze.trajectory import Trajectory

SPLITS = ("train", "held_out")


def check_rises_then_falls(runs: Runs, arm: str) -> list[Verdict]:
    """DO-1, first part: on training prompts chosen rises from the start to a peak, then falls."""
    return [
        runs.row(
            "DO-1",
            "chosen, from the start of DPO to its peak, nats",
            lambda t: rise_to_peak(dpo_values(t, arm, "chosen", "train")),
            "above",
            f"{arm}: chosen rises first",
        ),
        runs.row(
            "DO-1",
            "chosen, from its peak to the end of DPO, nats",
            lambda t: fall_from_peak(dpo_values(t, arm, "chosen", "train")),
            "below",
            f"{arm}: chosen then falls",
        ),
    ]


def check_others_fall(runs: Runs, arm: str, split: str) -> Verdict:
    """DO-1, second part: every kind that is not trained up falls over DPO.

    On held-out prompts nothing is trained, so the chosen answer counts among the others.
    """
    skip = {"chosen"} if split == "train" else set()
    return nearest_to_failing(
        (
            (
                kind,
                runs.row(
                    "DO-1",
                    "change over DPO of the kind that falls least, nats",
                    lambda t, kind=kind: change(dpo_values(t, arm, kind, split)),  # type: ignore[misc]
                    "below",
                    f"{arm}: every other kind falls, {split}",
                ),
            )
            for kind in runs.kinds(arm)
            if kind not in skip
        ),
        "below",
    )


def check_rejected_falls_fastest(runs: Runs, arm: str) -> Verdict:
    """DO-1, third part: on training prompts no kind falls as much as the rejected answer."""

    def behind(t: Trajectory, kind: str) -> Array:
        fall = change(dpo_values(t, arm, "rejected", "train"))
        return np.asarray(change(dpo_values(t, arm, kind, "train")) - fall)

    return nearest_to_failing(
        (
            (
                kind,
                runs.row(
                    "DO-1",
                    "change of the kind falling most next to rejected, less rejected's, nats",
                    lambda t, kind=kind: behind(t, kind),  # type: ignore[misc]
                    "above",
                    f"{arm}: rejected falls fastest",
                ),
            )
            for kind in runs.kinds(arm)
            if kind != "rejected"
        ),
        "above",
    )


def check_margin_grows(runs: Runs, arm: str) -> Verdict:
    """DO-1, fourth part: the margin grows from every probe to the next."""
    gaps = [
        dpo_values(t, arm, "chosen", "train") - dpo_values(t, arm, "rejected", "train")
        for t in runs.trajectories
    ]
    return nearest_to_failing(
        (
            (
                f"probe {time}",
                runs.row(
                    "DO-1",
                    "smallest growth of the margin between probes, nats",
                    np.stack([gap[:, time] - gap[:, time - 1] for gap in gaps]),
                    "above",
                    f"{arm}: the margin grows throughout",
                ),
            )
            for time in range(1, gaps[0].shape[1])
        ),
        "above",
    )


def check_argmax_rises(runs: Runs, arm: str, split: str) -> Verdict:
    """DO-2: from the time chosen peaks, it falls and the argmax log-prob on its path rises."""

    def argmax(t: Trajectory) -> Array:
        chosen = dpo_values(t, arm, "chosen", split)
        return from_peak_of(dpo_values(t, arm, "chosen", split, "argmax_logp"), chosen)

    comparison = f"{arm}, {split}"
    fall = runs.row(
        "DO-2",
        "chosen, from its peak to the end, nats",
        lambda t: fall_from_peak(dpo_values(t, arm, "chosen", split)),
        "below",
        comparison,
    )
    rise = runs.row(
        "DO-2",
        "argmax log-prob along chosen, from chosen's peak to the end, nats",
        argmax,
        "above",
        comparison,
    )
    if not rise.ran:
        return rise
    outcome: Outcome = rise.outcome if fall.supported else "premise not met"
    evidence = {"chosen from its peak": fall.effect, "its interval": fall.interval}
    return replace(rise, outcome=outcome, evidence=dict(rise.evidence) | evidence)


def judge_dpo(runs: Runs, arm: str) -> list[Verdict]:
    """DO-1 and DO-2 on an arm with a DPO phase."""
    verdicts = check_rises_then_falls(runs, arm)
    verdicts += [check_others_fall(runs, arm, split) for split in SPLITS]
    verdicts += [check_rejected_falls_fastest(runs, arm), check_margin_grows(runs, arm)]
    return verdicts + [check_argmax_rises(runs, arm, split) for split in SPLITS]


# --- across arms --------------------------------------------------------------------------------


def check_dose(runs: Runs, arms: Mapping[float, str], split: str = "held_out") -> list[Verdict]:
    """DO-3: the larger the weight λ of the rejected term, the lower chosen and the higher argmax.

    `arms` maps each λ to its arm; every step from one λ to the next larger one has to count.
    """
    ordered = [arms[dose] for dose in sorted(arms)]
    return _steps(
        runs,
        "DO-3",
        ordered,
        split,
        lambda t, arm, metric: change(dpo_values(t, arm, "chosen", split, metric)),
        "change over DPO",
    )


def check_peakier_start(
    runs: Runs, arms: Mapping[int, str], split: str = "held_out"
) -> list[Verdict]:
    """DO-4: the more SFT epochs before DPO, the further chosen falls and the more argmax rises.

    `arms` maps each number of SFT epochs to its arm; both are counted from chosen's peak.
    """

    def from_peak(t: Trajectory, arm: str, metric: str) -> Array:
        chosen = dpo_values(t, arm, "chosen", split)
        return from_peak_of(dpo_values(t, arm, "chosen", split, metric), chosen)

    ordered = [arms[epochs] for epochs in sorted(arms)]
    return _steps(runs, "DO-4", ordered, split, from_peak, "change from chosen's peak on")


def _steps(
    runs: Runs, claim: str, arms: Sequence[str], split: str, of: object, what: str
) -> list[Verdict]:
    """Two rows, chosen down and argmax up, each the step between neighbours nearest to failing."""
    rows: list[Verdict] = []
    parts: tuple[tuple[str, str, Side], ...] = (
        ("chosen", "logp", "below"),
        ("argmax", "argmax_logp", "above"),
    )
    for name, metric, side in parts:
        steps = []
        for less, more in pairwise(arms):

            def step(
                t: Trajectory, less: str = less, more: str = more, metric: str = metric
            ) -> Array:
                return np.asarray(of(t, more, metric) - of(t, less, metric))  # type: ignore[operator]

            statistic = f"{name}'s {what}, of one arm less that of the one before it, nats"
            verdict = runs.row(claim, statistic, step, side, f"{name}, {split}")
            steps.append((f"{less} to {more}", verdict))
        rows.append(nearest_to_failing(steps, side))
    return rows
