"""Arms beyond the main job's three, by name: doses, losses, lengths of SFT, on-policy rounds.

The claims compare them; `squeeze compare-losses` and `--arms` of `squeeze replicate` take them too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from squeeze.errors import InputError
from squeeze.training.config import Arm, Phase

if TYPE_CHECKING:
    from squeeze.training.config import RunConfig

Build = Callable[[Phase, Phase, re.Match[str]], tuple[str, tuple[Phase, ...]]]


def _sft(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    epochs, on = int(found[1]), found[2] or "chosen"
    title = f"SFT on chosen, {epochs} epochs" + ("" if on == "chosen" else f", data {on}")
    return title, (replace(sft, epochs=epochs, probe_every=max(1, epochs // 8), on=on),)  # type: ignore[arg-type]


def _sft_dpo(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    epochs = int(found[1])
    longer = replace(sft, epochs=epochs, probe_every=epochs)
    return f"SFT on chosen for {epochs} epochs, then DPO", (longer, dpo)


def _dose(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    weight = float(found[found.lastindex or 1])
    options = dict(dpo.loss_options) | {"rejected_weight": weight}
    weighted = replace(dpo, loss_type=f"weighted_{dpo.loss_type}", loss_options=options)
    return f"SFT on chosen, then DPO with its rejected term times {weight:g}", (sft, weighted)


def _long(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    epochs = int(found[1])
    longer = replace(dpo, epochs=epochs, probe_every=epochs)
    if found[2] is None:
        return f"SFT on chosen, then DPO for {epochs} epochs", (sft, longer)
    return _dose(sft, longer, found)


def _loss(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    from squeeze.losses import get_loss

    loss = get_loss(found[1])  # its own published β, not DPO's
    own = {key: loss.hyperparameters[key] for key in ("beta", "tau") if key in loss.hyperparameters}
    phase = replace(dpo, loss_type=loss.name, loss_options=own)
    return f"SFT on chosen, then {loss.name}", (sft, phase)


def _beta(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    beta = float(found[1])
    return f"SFT on chosen, then DPO with β = {beta:g}", (sft, replace(dpo, beta=beta))


def _ftx(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    alpha = float(found[1])
    phase = replace(dpo, loss_type="rpo", loss_options={"alpha": alpha})
    return f"SFT on chosen, then DPO plus {alpha:g} times an SFT loss on chosen", (sft, phase)


def _on_policy(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    rounds, ranking = int(found[1]), found[2] or "scored"
    if ranking == "data":  # the control: the same rounds, each with a new reference, off-policy
        ranking = "pairs"
    epochs = max(1, dpo.epochs // rounds)
    one = replace(dpo, on=ranking, epochs=epochs)  # type: ignore[arg-type]
    whose = "the data's pairs" if ranking == "pairs" else f"pairs of its own answers, {ranking}"
    title = f"SFT on chosen, then {rounds} rounds of DPO on {whose}"
    return title, (sft, *[one] * rounds)


FORMS: dict[str, tuple[str, Build]] = {
    "sft-EPOCHS[-shuffled|-permuted|-half]": (r"sft-(\d+)(?:-(shuffled|permuted|half))?", _sft),
    "sft-EPOCHS-dpo": (r"sft-(\d+)-dpo", _sft_dpo),
    "dose-WEIGHT": (r"dose-(\d+(?:\.\d+)?)", _dose),
    "long-EPOCHS[-dose-WEIGHT]": (r"long-(\d+)(?:-dose-(\d+(?:\.\d+)?))?", _long),
    "loss-NAME": (r"loss-(\w+)", _loss),
    "beta-VALUE": (r"beta-(\d+(?:\.\d+)?)", _beta),
    "ftx-WEIGHT": (r"ftx-(\d+(?:\.\d+)?)", _ftx),
    "on-policy-ROUNDS[-random|-data]": (r"on-policy-(\d+)(?:-(random|data))?", _on_policy),
}

# Arms of which claims want the curve; of the others they want where it ends.
CURVES = (_sft_dpo, _on_policy)


def make_arm(name: str, config: RunConfig) -> Arm:
    """The arm of this name under a run's settings; raise `InputError` for an unknown one."""
    known = {arm.name: arm for arm in config.main_arms()}
    if name in known:
        return known[name]
    sft, dpo = known["sft-dpo"].phases
    if name in (
        "dose-1",
        "ftx-0",
        f"beta-{dpo.beta:g}",
        f"loss-{dpo.loss_type}",
    ):  # trained once under both names
        return replace(known["sft-dpo"], name=name)
    for pattern, build in FORMS.values():
        found = re.fullmatch(pattern, name)
        if found:
            if build not in CURVES:
                dpo = replace(dpo, probe_every=config.variant_probe_every)
            return Arm(name, *build(sft, dpo, found))
    names = ", ".join([*known, *FORMS])
    raise InputError(f"unknown arm {name!r} in --arms; the arms are {names}")
