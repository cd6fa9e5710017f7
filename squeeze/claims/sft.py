"""Claims SF-1 to SF-5 about supervised finetuning, judged on trajectories; role "sft".

SF-4's second half, n-grams copied into generated text, is `degeneration.check_copying`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from squeeze.claims.catalogue import claim, get
from squeeze.claims.curves import (
    Array,
    change,
    fall_from_peak,
    own_peak,
    probe_noise,
    rise_to_peak,
)
from squeeze.claims.degeneration import Texts, copied_row
from squeeze.claims.runs import Runs, nearest_to_failing
from squeeze.claims.types import Level, Verdict
from squeeze.trajectory import Trajectory

# From most to least like the chosen answer (paper, §4 and App. D).
SIMILARITY = ("chosen_rephrased", "chosen_format")
NONSENSE = ("permuted", "random")
PAPER = "Ren & Sutherland, arXiv 2407.10490"
LEVELS: tuple[Level, ...] = ("tiny", "published", "pretrained", "gpu")
RUN = "squeeze observe pretrained --claims"


def sft_values(runs: Runs, kind: str, metric: str = "logp") -> Array:
    """One metric of one kind from the untrained model over SFT, [seeds, prompts, times]."""
    return runs.curve("sft", kind, "train", metric, phase="sft")


@claim(
    "SF-1",
    sentence="SFT on the chosen answers raises their log-prob throughout.",
    source=f"{PAPER}, §4.1, Fig. 3",
    kind="observation",
    levels=LEVELS,
    counterfactual="the words of the training answers permuted",
    primary="smallest growth of chosen between probes of SFT, nats",
    math="log π(y_u+ | x_u) grows from every probe of SFT to the next",
    run=f"{RUN} SF-1",
)
def check_chosen_rises(runs: Runs) -> list[Verdict]:
    """SF-1: SFT on the chosen answers raises them, from every probe to the next."""
    statistic = get("SF-1").primary
    name, updates = f"{runs.arm('sft')}, train", runs.updates("sft", "sft")
    rows = []
    for time in range(1, sft_values(runs, "chosen").shape[-1]):

        def growth(r: Runs, time: int = time) -> Array:
            curve = sft_values(r, "chosen")
            return np.asarray(curve[..., time] - curve[..., time - 1])

        row = runs.row("SF-1", statistic, growth, "above", name, role="primary", updates=updates)
        rows.append((f"probe {time}", row))

    def whole(r: Runs) -> Array:
        return change(sft_values(r, "chosen"))

    contrast = runs.contrast("SF-1", "change of chosen over SFT, nats", whole, "above", name)
    return [nearest_to_failing(rows, "above"), *contrast]


@claim(
    "SF-2",
    sentence="Under SFT rephrasings of the chosen answer rise first, then fall as chosen keeps "
    "rising; the more similar the kind, the longer it is carried up.",
    source=f"{PAPER}, §4.1, Fig. 3",
    kind="observation",
    levels=LEVELS,
    counterfactual="SFT on the permuted answers instead",
    primary="chosen_rephrased, from its peak to the end of SFT, nats",
    math="log π(y_gpts+ | x_u) has an inner maximum over SFT, later than that of y_gptf+",
    run=f"{RUN} SF-2",
)
def check_rephrased_rises_then_falls(runs: Runs) -> list[Verdict]:
    """SF-2: rephrasings rise, then fall as chosen keeps rising; the more similar, the longer up."""
    (near, far), arm = SIMILARITY, runs.arm("sft")
    noise = probe_noise(sft_values(runs, near))

    def fall(r: Runs) -> Array:
        return fall_from_peak(sft_values(r, near))

    def rise(r: Runs) -> Array:
        return rise_to_peak(sft_values(r, near))

    def later(r: Runs) -> Array:
        return own_peak(sft_values(r, near)) - own_peak(sft_values(r, far))

    falls, rises = f"{arm}: rephrasings then fall", f"{arm}: rephrasings rise first"
    up = f"{near}, from before SFT to its peak, nats"
    rose = runs.row("SF-2", up, rise, "above", rises, bound=noise)
    fell = runs.row(
        "SF-2", f"{near}, from its peak to the end of SFT, nats", fall, "below", falls,
        role="primary", bound=-noise, updates=runs.updates("sft", "sft"),
    )  # fmt: skip
    if fell.ran and not rose.on_claimed_side:  # what never rose has nothing to fall from
        reason = "rephrasings do not rise first"
        fell = replace(fell, outcome="premise not met", reason=reason)
    return [
        fell,
        rose,
        *runs.contrast("SF-2", up, rise, "above", rises),
        runs.row(
            "SF-2", f"probes by which {near} peaks after {far}", later, "above",
            f"{arm}: the more similar is carried up longer",
        ),
    ]  # fmt: skip


@claim(
    "SF-3",
    sentence="SFT on the chosen answers raises the rejected ones at first, though they are never "
    "trained on.",
    source=f"{PAPER}, §4.1, Fig. 3",
    kind="observation",
    levels=LEVELS,
    counterfactual="SFT on the permuted answers instead",
    primary="rejected, from before SFT to its peak, nats",
    math="max_t log π_t(y_u- | x_u) over SFT > log π_0(y_u- | x_u)",
    run=f"{RUN} SF-3",
)
def check_rejected_rises_first(runs: Runs) -> list[Verdict]:
    """SF-3: the rejected answers rise at first, though never trained on."""
    statistic, name = get("SF-3").primary, f"{runs.arm('sft')}, train"

    def rise(r: Runs) -> Array:
        return rise_to_peak(sft_values(r, "rejected"))

    row = runs.row(
        "SF-3", statistic, rise, "above", name, role="primary",
        bound=probe_noise(sft_values(runs, "rejected")), updates=runs.updates("sft", "sft"),
    )  # fmt: skip
    return [row, *runs.contrast("SF-3", statistic, rise, "above", name)]


@dataclass(frozen=True)
class Copies:
    """Evidence of SF-4: runs, and (if generated) answers before and after SFT.

    `examples` restricts the judged prompts to these ids.
    """

    runs: Runs | None = None
    texts: Texts | None = None
    examples: Sequence[str] | None = None


@claim(
    "SF-4",
    sentence="SFT makes the model readier to answer one training question with the answer of "
    "another: y_j≠u+ rises, and generated text copies n-grams of other training answers.",
    source=f"{PAPER}, §4.1, the hallucination hypothesis",
    kind="observation",
    levels=LEVELS,
    counterfactual="the other prompts' answers left out of training",
    primary="change of another training prompt's answer over SFT, less an unseen one's, nats",
    math="Δ log π(y_j+ | x_u) over SFT: j ≠ u trained on > j held out",
    run=f"{RUN} SF-4",
)
def check_other_answers_rise(evidence: Copies) -> list[Verdict]:
    """SF-4: the chosen answers of other *training* prompts become likelier, more than unseen ones.

    SFT carries up whatever has the chosen answers' style; only what it adds for answers that were
    trained on, against those of held-out prompts, is readiness to answer A with B's answer.
    """

    def rise(r: Runs) -> Array:
        if evidence.examples is not None:
            r = replace(r, trajectories=_restricted(r.trajectories, evidence.examples))
        return change(sft_values(r, "other_answer")) - change(sft_values(r, "unseen_answer"))

    rows: list[Verdict] = []
    runs = evidence.runs
    if runs is not None:
        statistic = get("SF-4").primary
        name, updates = f"{runs.arm('sft')}, log-probs", runs.updates("sft", "sft")
        rows.append(
            runs.row("SF-4", statistic, rise, "above", name, role="primary", updates=updates)
        )
        rows += runs.contrast("SF-4", statistic, rise, "above", name)
    return rows if evidence.texts is None else [*rows, copied_row(evidence.texts)]


def _restricted(
    trajectories: Sequence[Trajectory], examples: Sequence[str]
) -> tuple[Trajectory, ...]:
    """The trajectories on these training prompts alone, equally many a seed (the first by id)."""
    wanted = set(examples)
    found = [sorted(wanted & set(t.where(split="train").frame["example"])) for t in trajectories]
    count = min(map(len, found))
    return tuple(t.where(example=ids[:count]) for t, ids in zip(trajectories, found, strict=True))


@claim(
    "SF-5",
    sentence="Under SFT permuted and random strings fall, and the distributions grow peakier.",
    source=f"{PAPER}, §4.1, Fig. 3 and App. D",
    kind="observation",
    levels=LEVELS,
    counterfactual="SFT on the permuted answers instead",
    primary="change over SFT of the string that falls least, nats",
    math="Δ log π(y_urnd), Δ log π(y_rnd) < 0; ‖A‖_F² = V‖π‖² + V − 2 grows",
    run=f"{RUN} SF-5",
)
def check_nonsense_falls_and_peaks_sharpen(runs: Runs) -> list[Verdict]:
    """SF-5: permuted and random strings fall over SFT, and ‖π‖² (so ‖A‖) rises on chosen."""
    arm = runs.arm("sft")
    statistic, name = get("SF-5").primary, f"{arm}: strings fall"
    rows = []
    for kind in [kind for kind in NONSENSE if kind in runs.kinds("sft")]:

        def fall(r: Runs, kind: str = kind) -> Array:
            return change(sft_values(r, kind))

        row = runs.row(
            "SF-5", statistic, fall, "below", name, role="primary",
            updates=runs.updates("sft", "sft"),
        )  # fmt: skip
        rows.append((kind, row))
    sharper = runs.row(
        "SF-5",
        "change over SFT of mean ‖π‖² at the chosen answer's positions",
        lambda r: change(sft_values(r, "chosen", "peakiness")),
        "above",
        f"{arm}: peakiness rises",
    )
    contrast = runs.contrast(
        "SF-5", "change over SFT of permuted words, nats",
        lambda r: change(sft_values(r, "permuted")), "below", name,
    )  # fmt: skip
    return [*([nearest_to_failing(rows, "below")] if rows else []), *contrast, sharper]
