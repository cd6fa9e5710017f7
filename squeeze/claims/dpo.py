"""Claims DO-1 to DO-4 about off-policy DPO, judged on trajectories.

Roles: "dpo" is an arm with a DPO phase; DO-3 and DO-4 take several, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from squeeze.claims.catalogue import claim, get
from squeeze.claims.curves import Array, change, fall_from_peak, probe_noise, rise_to_peak
from squeeze.claims.runs import SPLITS, Runs, nearest_to_failing
from squeeze.claims.types import Level, Role, Side, Verdict

PAPER = "Ren & Sutherland, arXiv 2407.10490"
LEVELS: tuple[Level, ...] = ("tiny", "pretrained", "gpu")
NO_REJECTED = "the gradient of the rejected term removed (λ = 0)"
# Trained up as the chosen answer of another prompt; in the paper's own log it falls least.
TRAINED = ("chosen", "other_answer")
NONSENSE = ("permuted", "random")  # no human text: may fall faster than rejected


def squeeze_of(runs: Runs, role: str, split: str) -> Array:
    """Argmax's change along chosen over DPO less chosen's change, nats, [seeds, prompts]."""
    argmax = runs.curve(role, "chosen", split, "argmax_logp")
    return change(argmax) - change(runs.curve(role, "chosen", split))


@claim(
    "DO-1",
    sentence="Off-policy DPO: chosen rises, then falls; every kind but the answers of other "
    "training prompts falls, rejected faster than any other human text; the margin grows.",
    source=f"{PAPER}, §4.2, Fig. 4",
    kind="observation",
    levels=("tiny", "published", "pretrained", "gpu"),
    counterfactual=NO_REJECTED,
    primary="chosen, from its peak to the end of DPO, nats",
    math="log π(y_u+) has an inner maximum over DPO; Δ log π(y) < 0 for the other kinds",
    run="squeeze observe pretrained --claims DO-1",
)
def check_rises_then_falls(runs: Runs) -> list[Verdict]:
    """DO-1: chosen falls from a peak that other seeds choose; the other parts are secondary."""
    arm, updates = runs.arm("dpo"), runs.updates("dpo")

    def fall(r: Runs) -> Array:
        return fall_from_peak(r.curve("dpo", "chosen"))

    noise = probe_noise(runs.curve("dpo", "chosen"))
    statistic, name = get("DO-1").primary, f"{arm}: chosen then falls"
    evidence = {"noise between two probes, nats": noise}
    rows = [
        runs.row(
            "DO-1", statistic, fall, "below", name,
            role="primary", bound=-noise, updates=updates, evidence=evidence,
        ),
        *runs.contrast("DO-1", statistic, fall, "below", name, updates=updates),
        runs.row(
            "DO-1",
            "chosen, from the start of DPO to its peak, nats",
            lambda r: rise_to_peak(r.curve("dpo", "chosen")),
            "above",
            f"{arm}: chosen rises first",
            bound=noise,
            updates=updates,
        ),
    ]  # fmt: skip
    if "rejected" not in runs.kinds("dpo"):  # a log of the chosen answers alone
        return rows
    rows += [_others_fall(runs, split) for split in SPLITS]
    return [*rows, _rejected_falls_fastest(runs), _margin_grows(runs)]


def _others_fall(runs: Runs, split: str) -> Verdict:
    """Every kind that is not trained up falls over DPO; on held-out prompts chosen counts too."""
    statistic = "change over DPO of the kind that falls least, nats"
    comparison = f"{runs.arm('dpo')}: every other kind falls, {split}"
    skip = TRAINED if split == "train" else ("other_answer",)
    rows = []
    for kind in [kind for kind in runs.kinds("dpo") if kind not in skip]:

        def fall(r: Runs, kind: str = kind) -> Array:
            return change(r.curve("dpo", kind, split))

        rows.append((kind, runs.row("DO-1", statistic, fall, "below", comparison)))
    return nearest_to_failing(rows, "below")


def _rejected_falls_fastest(runs: Runs) -> Verdict:
    """On training prompts no human text falls as much as the rejected answer."""
    statistic = "change of the human text falling most next to rejected, less rejected's, nats"
    comparison = f"{runs.arm('dpo')}: rejected falls fastest"
    rows = []
    for kind in [k for k in runs.kinds("dpo") if k not in ("rejected", *NONSENSE)]:

        def behind(r: Runs, kind: str = kind) -> Array:
            return change(r.curve("dpo", kind)) - change(r.curve("dpo", "rejected"))

        rows.append((kind, runs.row("DO-1", statistic, behind, "above", comparison)))
    return nearest_to_failing(rows, "above")


def _margin_grows(runs: Runs) -> Verdict:
    """The margin grows from every probe to the next."""
    gap = runs.curve("dpo", "chosen") - runs.curve("dpo", "rejected")
    statistic = "smallest growth of the margin between probes, nats"
    comparison = f"{runs.arm('dpo')}: the margin grows throughout"
    rows = []
    for time in range(1, gap.shape[-1]):

        def growth(r: Runs, time: int = time) -> Array:
            return np.asarray(gap[..., time] - gap[..., time - 1])

        rows.append((f"probe {time}", runs.row("DO-1", statistic, growth, "above", comparison)))
    return nearest_to_failing(rows, "above")


@claim(
    "DO-2",
    sentence="Over DPO the argmax log-prob along the chosen answers rises against their own: the "
    "mass goes to y*.",
    source=f"{PAPER}, §3.3 and Fig. 4",
    kind="observation",
    levels=("tiny", "published", "pretrained", "gpu"),
    counterfactual=NO_REJECTED,
    primary="argmax's change over DPO less chosen's change, nats",
    math="Δ Σ_l max_v log π(v | x, y_<l) − Δ Σ_l log π(y_l | x, y_<l) > 0 over DPO",
    run="squeeze observe pretrained --claims DO-2",
)
def check_argmax_rises(runs: Runs) -> list[Verdict]:
    """DO-2: argmax's change less chosen's over all of DPO; from chosen's peak on is secondary.

    Premise, where `runs` has one: before DPO the distributions leave the argmax room to rise.
    """
    arm, updates = runs.arm("dpo"), runs.updates("dpo")
    statistic = get("DO-2").primary
    rows: list[Verdict] = []
    for split in SPLITS:

        def squeeze(r: Runs, split: str = split) -> Array:
            return squeeze_of(r, "dpo", split)

        def argmax(r: Runs, split: str = split) -> Array:
            return change(r.curve("dpo", "chosen", split, "argmax_logp"))

        def from_peak(r: Runs, split: str = split) -> Array:
            curve = r.curve("dpo", "chosen", split, "argmax_logp")
            return fall_from_peak(curve, r.curve("dpo", "chosen", split))

        role: Role = "primary" if split == "train" else "secondary"
        name = f"{arm}, {split}"
        rows.append(runs.row("DO-2", statistic, squeeze, "above", name, role=role, updates=updates))
        if split == "train":
            rows += runs.contrast("DO-2", statistic, squeeze, "above", name, updates=updates)
        for what, of in (
            ("argmax log-prob along chosen, change over DPO, nats", argmax),
            ("argmax log-prob along chosen, from chosen's peak to the end, nats", from_peak),
        ):
            parts = "over DPO" if of is argmax else "from chosen's peak"
            rows.append(runs.row("DO-2", what, of, "above", f"{name}: argmax {parts}"))
    return _if_it_has_room(runs, rows)


def _if_it_has_room(runs: Runs, rows: list[Verdict]) -> list[Verdict]:
    """The rows, or "premise not met" where the mean ‖π‖² at chosen before DPO is too large."""
    most = runs.most_peakiness

    def start(r: Runs) -> Array:
        return r.curve("dpo", "chosen", metric="peakiness")[..., 0]

    room = runs.row("DO-2", "‖π‖² at chosen before DPO", start, "below", "premise", bound=most)
    if room.effect is None or room.effect < most:
        return rows
    reason = f"‖π‖² at chosen is not below {most:g} before DPO: the argmax has no room to rise"
    return [unmet(row, reason, room) for row in rows]


# --- across arms --------------------------------------------------------------------------------


@claim(
    "DO-3",
    sentence="Dose: the larger the weight λ on DPO's rejected term, the lower held-out chosen ends "
    "and the higher the argmax log-prob along it.",
    source=f"{PAPER}, §4.2; the dose is this project's",
    kind="observation",
    levels=LEVELS,
    counterfactual="λ on the chosen term instead",
    primary="chosen's change over DPO, of one dose less that of the one before it, nats",
    math="λ ∈ {0, ½, 1, 2} on β(1 − a)∇s−: Δ log π(y+) falls and Δ Σ_l max_v log π rises with λ",
    run="squeeze observe pretrained --claims DO-3",
)
def check_dose(runs: Runs) -> list[Verdict]:
    """DO-3: `roles` are the doses in order; every step to the next larger one has to count."""

    def of(metric: str) -> Callable[[Runs, str], Array]:
        return lambda r, role: change(r.curve(role, "chosen", "held_out", metric))

    what = "change over DPO, of one dose less that of the one before it, nats"
    return [
        *steps(runs, "DO-3", of("logp"), f"chosen's {what}", "below", "chosen", "primary"),
        *steps(runs, "DO-3", of("argmax_logp"), f"argmax's {what}", "above", "argmax"),
    ]


@claim(
    "DO-4",
    sentence="The more SFT epochs before DPO, that is the peakier its start, the more DPO "
    "squeezes.",
    source=f"{PAPER}, §3.3 and §4.2",
    kind="observation",
    levels=LEVELS,
    counterfactual="the numbers of epochs in another order",
    primary="argmax's change over DPO less chosen's, of one arm less that of the one before it, "
    "nats",
    math="‖π‖² at DPO's start grows with the SFT epochs (premise); so does Δ argmax − Δ log π(y+)",
    run="squeeze observe pretrained --claims DO-4",
)
def check_peakier_start(runs: Runs) -> list[Verdict]:
    """DO-4: `roles` are the arms in the order of their SFT epochs.

    Premise: ‖π‖² at chosen grew from each arm's start of DPO to the next one's.
    """
    split, what = "held_out", "of one arm less that of the one before it, nats"

    def of(metric: str) -> Callable[[Runs, str], Array]:
        return lambda r, role: change(r.curve(role, "chosen", split, metric))

    rows = [
        *steps(
            runs, "DO-4", lambda r, role: squeeze_of(r, role, split),
            f"argmax's change over DPO less chosen's, {what}", "above", "squeeze", "primary",
        ),
        *steps(runs, "DO-4", of("logp"), f"chosen's change over DPO, {what}", "below", "chosen"),
        *steps(
            runs, "DO-4", of("argmax_logp"), f"argmax's change over DPO, {what}", "above", "argmax"
        ),
    ]  # fmt: skip
    premise, *_ = steps(
        runs,
        "DO-4",
        lambda r, role: r.curve(role, "chosen", split, "peakiness")[..., 0],
        "‖π‖² at chosen at the start of DPO, of one arm less that of the one before it",
        "above",
        "premise",
    )
    if premise.on_claimed_side or not premise.ran:
        return rows
    reason = "‖π‖² at the start of DPO did not grow with the SFT epochs"
    return [unmet(row, reason, premise) for row in rows]


def unmet(row: Verdict, reason: str, premise: Verdict) -> Verdict:
    """The row of a claim whose premise did not happen, with the premise's numbers."""
    if not row.ran:
        return row
    evidence = {
        **row.evidence,
        "premise": premise.statistic,
        "its effect": premise.effect,
        "its interval": premise.interval,
    }
    return replace(row, outcome="premise not met", reason=reason, evidence=evidence)


def steps(
    runs: Runs,
    id: str,
    of: Callable[[Runs, str], Array],
    statistic: str,
    side: Side,
    name: str,
    role: Role = "secondary",
    comparison: str = "held_out",
) -> list[Verdict]:
    """Of all steps from a role's arm to the next one's, the row nearest to failing.

    After it the same of its contrasts with the counterfactual's, if there is one.
    """
    rows, contrasts = [], []
    for less, more in pairwise(runs.roles):

        def step(r: Runs, less: str = less, more: str = more) -> Array:
            return of(r, more) - of(r, less)

        row = runs.row(
            id, statistic, step, side, f"{name}, {comparison}", role=role,
            updates=runs.updates(more),
        )  # fmt: skip
        between = f"{runs.arm(less)} to {runs.arm(more)}"
        rows.append((between, row))
        contrast = runs.contrast(id, statistic, step, side, f"{name}, {comparison}")
        contrasts += [(between, made) for made in contrast]
    return [nearest_to_failing(found, side) for found in (rows, contrasts) if found]
