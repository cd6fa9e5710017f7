"""Claims about supervised finetuning (SF-1 to SF-5), judged on trajectories.

SF-4's second half, n-grams copied into generated text, is `degeneration.check_copying`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from squeeze.claims.curves import (
    Array,
    change,
    fall_from_peak,
    own_peak,
    phase_values,
    rise_to_peak,
)
from squeeze.claims.runs import Runs, nearest_to_failing
from squeeze.claims.types import Verdict
from squeeze.trajectory import Trajectory

# From most to least like the chosen answer (paper, §4 and App. D).
SIMILARITY = ("chosen_rephrased", "chosen_format")
NONSENSE = ("permuted", "random")


def sft_values(
    trajectory: Trajectory, arm: str, kind: str, metric: str = "logp", split: str = "train"
) -> Array:
    """One metric of one kind from the untrained model over SFT, [examples, times]."""
    return phase_values(trajectory, arm, "sft", kind, split, metric)


def check_chosen_rises(runs: Runs, arm: str) -> Verdict:
    """SF-1: SFT on the chosen answers raises them, from every probe to the next."""
    curves = [sft_values(t, arm, "chosen") for t in runs.trajectories]
    return nearest_to_failing(
        (
            (
                f"probe {time}",
                runs.row(
                    "SF-1",
                    "smallest growth of chosen between probes of SFT, nats",
                    np.stack([c[:, time] - c[:, time - 1] for c in curves]),
                    "above",
                    f"{arm}, train",
                ),
            )
            for time in range(1, curves[0].shape[1])
        ),
        "above",
    )


def check_rephrased_rises_then_falls(runs: Runs, arm: str) -> list[Verdict]:
    """SF-2: rephrasings rise, then fall as chosen keeps rising; the more similar, the longer up."""
    near, far = SIMILARITY

    def later(t: Trajectory) -> Array:
        times = [own_peak(sft_values(t, arm, kind)) for kind in (near, far)]
        return times[0] - times[1]

    return [
        runs.row(
            "SF-2",
            f"{near}, from before SFT to its peak, nats",
            lambda t: rise_to_peak(sft_values(t, arm, near)),
            "above",
            f"{arm}: rephrasings rise first",
        ),
        runs.row(
            "SF-2",
            f"{near}, from its peak to the end of SFT, nats",
            lambda t: fall_from_peak(sft_values(t, arm, near)),
            "below",
            f"{arm}: rephrasings then fall",
        ),
        runs.row(
            "SF-2",
            f"probes by which {near} peaks after {far}",
            later,
            "above",
            f"{arm}: the more similar is carried up longer",
        ),
    ]


def check_rejected_rises_first(runs: Runs, arm: str) -> Verdict:
    """SF-3: the rejected answers rise at first, though never trained on."""
    return runs.row(
        "SF-3",
        "rejected, from before SFT to its peak, nats",
        lambda t: rise_to_peak(sft_values(t, arm, "rejected")),
        "above",
        f"{arm}, train",
    )


def check_other_answers_rise(
    runs: Runs, arm: str, examples: Sequence[str] | None = None
) -> Verdict:
    """SF-4: the chosen answers of other *training* prompts become likelier, more than unseen ones.

    SFT carries up whatever has the chosen answers' style; only what it adds for answers that were
    trained on, against those of held-out prompts, is readiness to answer A with B's answer.
    `examples` restricts the judged prompts to these ids.
    """

    def rise(t: Trajectory) -> Array:
        if examples is not None:
            t = t.where(example=list(examples))
        other, unseen = (
            change(sft_values(t, arm, kind)) for kind in ("other_answer", "unseen_answer")
        )
        return np.asarray(other - unseen)

    return runs.row(
        "SF-4",
        "change of another training prompt's answer over SFT, less an unseen one's, nats",
        rise,
        "above",
        f"{arm}, log-probs",
    )


def check_nonsense_falls_and_peaks_sharpen(runs: Runs, arm: str) -> list[Verdict]:
    """SF-5: permuted and random strings fall over SFT, and ‖π‖² (so ‖A‖) rises on chosen."""
    kinds = [kind for kind in NONSENSE if kind in runs.kinds(arm)]
    falls = nearest_to_failing(
        (
            (
                kind,
                runs.row(
                    "SF-5",
                    "change over SFT of the string that falls least, nats",
                    lambda t, kind=kind: change(sft_values(t, arm, kind)),  # type: ignore[misc]
                    "below",
                    f"{arm}: permuted and random fall",
                ),
            )
            for kind in kinds
        ),
        "below",
    )
    sharper = runs.row(
        "SF-5",
        "change over SFT of mean ‖π‖² at the chosen answer's positions",
        lambda t: change(sft_values(t, arm, "chosen", "peakiness")),
        "above",
        f"{arm}: peakiness rises",
    )
    return [falls, sharper]


def judge_sft(runs: Runs, arm: str) -> list[Verdict]:
    """SF-1 to SF-5 on an arm with an SFT phase on the chosen answers.

    SF-2 needs the time in between and is left out where SFT was probed at its end only.
    """
    verdicts = [check_chosen_rises(runs, arm)]
    kinds = runs.kinds(arm)
    if "rejected" in kinds:
        verdicts.append(check_rejected_rises_first(runs, arm))
    if SIMILARITY[0] in kinds and sft_values(runs.trajectories[0], arm, "chosen").shape[1] > 3:
        verdicts += check_rephrased_rises_then_falls(runs, arm)
    if {"other_answer", "unseen_answer"} <= set(kinds):
        verdicts.append(check_other_answers_rise(runs, arm))
    return verdicts + check_nonsense_falls_and_peaks_sharpen(runs, arm)
