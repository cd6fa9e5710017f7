"""Arms beyond the main job's three, by name: doses, losses, lengths of SFT, on-policy rounds.

The claims compare them; `squeeze compare-losses` and `--arms` of `squeeze replicate` take them too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from squeeze.errors import InputError
from squeeze.losses import Loss, get_loss
from squeeze.losses.types import FTX, GATE, WEIGHTED

# DPO as TRL itself trains it, and the fields of its configuration that make each of it; the others
# are our function of TRL's log-probs. LD-DPO and WPO need more than a response's log-prob.
TRAINED_BY_TRL: Mapping[str, Mapping[str, Any]] = {
    "sigmoid": {},
    "ld_dpo": {},
    "wpo": {"use_weighting": True},
}


@dataclass(frozen=True)
class Phase:
    """One TRL training run inside an arm.

    `on` says what it sees. SFT: "chosen" or "chosen+rejected" responses, or for counterfactuals
    "shuffled" (the chosen answers of other prompts), "permuted" (their words in random order),
    "half" (every other pair). DPO: "pairs" of the data, the half of them with the "highest" or
    "lowest" CHES of the pretrained model ("highest-permuted": by other pairs' scores), or pairs of
    the policy's own answers, "scored" by enthusiasm or ranked at "random". `warmup` is a share of
    the steps. `batch_size` counts rows (SFT) or pairs (DPO).
    `loss_type` is a loss of `squeeze.losses` ("sigmoid" is DPO; so are "gated_…", "weighted_…" and
    "ftx_…" forms); `loss_options` are its hyper-parameters, `beta` among them if the loss wants
    another one. The probe set is scored every `probe_every` epochs and at the end. Raises
    `InputError` for a form of a loss that only TRL trains.
    """

    kind: Literal["sft", "dpo"]
    on: Literal[
        "chosen",
        "chosen+rejected",
        "shuffled",
        "permuted",
        "half",
        "pairs",
        "scored",
        "random",
        "highest",
        "lowest",
        "highest-permuted",
        "lowest-permuted",
    ]
    epochs: int
    learning_rate: float
    batch_size: int
    accumulation: int = 1
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.0
    beta: float = 0.1
    loss_type: str = "sigmoid"
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    probe_every: int = 1

    def __post_init__(self) -> None:
        found = re.fullmatch(rf"((?:{FTX}|{GATE}|{WEIGHTED})+)(ld_dpo|wpo)", self.loss_type)
        if found:
            form, name = found.groups()
            raise InputError(
                f"{self.loss_type} cannot be trained: TRL trains {name} itself, without a gate, a "
                f"weight or an SFT term; use {name} or {form}sigmoid"
            )


@dataclass(frozen=True)
class Arm:
    """A sequence of phases from the same pretrained model; each starts where the last one ended."""

    name: str
    title: str
    phases: tuple[Phase, ...]


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
    term = "chosen" if found[0].startswith("chosen") else "rejected"
    options = dict(dpo.loss_options) | {f"{term}_weight": weight}
    weighted = replace(dpo, loss_type=f"weighted_{dpo.loss_type}", loss_options=options)
    return f"SFT on chosen, then DPO with its {term} term times {weight:g}", (sft, weighted)


def _long(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    epochs = int(found[1])
    longer = replace(dpo, epochs=epochs, probe_every=epochs)
    if found[2] is None:
        return f"SFT on chosen, then DPO for {epochs} epochs", (sft, longer)
    return _dose(sft, longer, found)


def _loss(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    loss = get_loss(found[1])  # its own published β, not DPO's
    own = {key: loss.hyperparameters[key] for key in ("beta", "tau") if key in loss.hyperparameters}
    given = dict(_hyperparameter(loss, text) for text in found[2].split(":")[1:])
    options = own | given
    if loss.name == "sigmoid":  # the arm beta-VALUE
        phase = replace(dpo, loss_type=loss.name, loss_options={}, beta=options["beta"])
    else:
        phase = replace(dpo, loss_type=loss.name, loss_options=options)
    return f"SFT on chosen, then {loss.name}{found[2]}", (sft, phase)


def _hyperparameter(loss: Loss, text: str) -> tuple[str, bool | float | str]:
    """A "name=value" of a loss; raises `InputError` for one that it has not."""
    name, _, value = text.partition("=")
    if name not in loss.hyperparameters:
        known = ", ".join(loss.hyperparameters) or "none"
        raise InputError(f"{loss.name} has no hyper-parameter {name!r}; it has {known}")
    if isinstance(loss.hyperparameters[name], str):  # f_dpo's divergence
        return name, value
    if value in ("true", "false"):
        return name, value == "true"
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{loss.name}:{text}: {value!r} is no number (nor true or false)")
    return name, number


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


def _ches(sft: Phase, dpo: Phase, found: re.Match[str]) -> tuple[str, tuple[Phase, ...]]:
    whose = " of other pairs" if found[2] else ""
    phase = replace(dpo, on=f"{found[1]}{found[2] or ''}")  # type: ignore[arg-type]
    return f"DPO from the pretrained model on the half of {found[1]} CHES{whose}", (phase,)


FORMS: dict[str, tuple[str, Build]] = {
    "sft-EPOCHS[-shuffled|-permuted|-half]": (r"sft-(\d+)(?:-(shuffled|permuted|half))?", _sft),
    "sft-EPOCHS-dpo": (r"sft-(\d+)-dpo", _sft_dpo),
    "[chosen-]dose-WEIGHT": (r"(?:chosen-)?dose-(\d+(?:\.\d+)?)", _dose),
    "long-EPOCHS[-dose-WEIGHT]": (r"long-(\d+)(?:-dose-(\d+(?:\.\d+)?))?", _long),
    "loss-NAME[:HYPERPARAMETER=VALUE…]": (r"loss-(\w+)((?::\w+=[^:=]+)*)", _loss),
    "beta-VALUE": (r"beta-(\d+(?:\.\d+)?)", _beta),
    "ftx-WEIGHT": (r"ftx-(\d+(?:\.\d+)?)", _ftx),
    "ches-highest|lowest[-permuted]": (r"ches-(highest|lowest)(-permuted)?", _ches),
    "on-policy-ROUNDS[-random|-data]": (r"on-policy-(\d+)(?:-(random|data))?", _on_policy),
}

# Arms of which claims want the curve; of the others they want where it ends.
CURVES = (_sft_dpo, _on_policy)


def make_arm(name: str, main: Sequence[Arm], probe_every: int) -> Arm:
    """The arm of this name, made of the `main` job's; raise `InputError` for an unknown one.

    Arms of which claims want no curve are probed every `probe_every` epochs of DPO.
    """
    known = {arm.name: arm for arm in main}
    if name in known:
        return known[name]
    sft, dpo = known["sft-dpo"].phases
    if name in (
        "dose-1",
        "chosen-dose-1",
        "ftx-0",
        f"beta-{dpo.beta:g}",
        f"loss-{dpo.loss_type}",
    ):  # trained once under both names
        return replace(known["sft-dpo"], name=name)
    for pattern, build in FORMS.values():
        found = re.fullmatch(pattern, name)
        if found:
            if build not in CURVES:
                dpo = replace(dpo, probe_every=probe_every)
            return Arm(name, *build(sft, dpo, found))
    names = ", ".join([*known, *FORMS])
    raise InputError(f"unknown arm {name!r} in --arms; the arms are {names}")
