"""What to do about each verdict, in order of evidence, with the claim that backs each remedy.

Whether a claim was verified here is read from the ledger, never assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from squeeze.claims.ledger import read
from squeeze.claims.types import Entry, Key
from squeeze.diagnosis.verdict import Name

NOT_RUN = "not run here"


@dataclass(frozen=True)
class Remedy:
    """One thing to do; `claim` backs it and `status` is what this machine's ledger says of it."""

    action: str
    how: str
    claim: str = ""
    status: str = ""


_STOP = Remedy(
    "stop at the turn",
    "keep the checkpoint nearest the peak of chosen on held-out prompts; "
    "callbacks=[SqueezeCallback(on_squeeze='stop')] ends the training there",
    "DO-1",
)
_EXTEND = Remedy(
    "extend SFT first",
    "one or two epochs of SFT on chosen and rejected answers before DPO (sft-extend)",
    "EX-1",
)
_ON_POLICY = Remedy(
    "use on-policy pairs",
    "sample both answers from the current policy and rank them, instead of a fixed data set",
    "ON-1",
)
_FILTER = Remedy(
    "filter by CHES",
    "leave out the pairs whose answers' hidden states are most alike before training",
    "CH-1",
)
_NLL = Remedy(
    "add an NLL term",
    "loss_type=['sigmoid', 'sft'] in TRL (rpo_alpha in older ones), pref_ftx in LLaMA-Factory, "
    "nll_loss_coef in OpenRLHF",
    "CP-2",
)
_GATED = Remedy(
    "use a gated or calibrated loss",
    "Gate-DPO or Cal-DPO hold chosen up; both are in squeeze.losses",
    "VA-1",
)
_DOSE = Remedy(
    "push the rejected answer less",
    "a smaller weight on the rejected term, a lower learning rate or fewer epochs",
    "DO-3",
)
_BETA = Remedy(
    "raise β", "a higher β holds the policy nearer to the reference at equal steps", "CP-1"
)
_LABELS = Remedy("check the labels", "are chosen and rejected swapped, in the data or in the log?")
_STRONGER = Remedy("train more", "raise the learning rate, or the number of epochs, step by step")
_BY_ADVICE = {"stronger": _STRONGER, "labels": _LABELS}
_PROBE = Remedy(
    "log more",
    "callbacks=[SqueezeCallback()] logs chosen, rejected and argmax of a fixed probe; for models "
    "already trained: squeeze diagnose --base MODEL --tuned MODEL --data FILE",
)
_RESTART = Remedy(
    "go back", "take an earlier checkpoint and a learning rate three to ten times lower"
)

# What the run's own curves and the user's own data show needs no claim to come first.
_PLAIN = (_PROBE, _LABELS, _STRONGER, _RESTART, _STOP)
_FALLING = (_STOP, _EXTEND, _ON_POLICY, _FILTER, _NLL, _GATED, _DOSE, _BETA)
_BY_VERDICT: Mapping[Name, tuple[Remedy, ...]] = {
    "healthy": (),
    "undetermined": (_PROBE,),
    "no learning": (_STRONGER, _LABELS),
    "early": _FALLING,
    "displacement": (_PROBE, *_FALLING),
    "squeezing": _FALLING,
    "collapse": (_RESTART, *_FALLING),
}

MEANING: Mapping[Name, str] = {
    "healthy": (
        "The chosen answers are as likely as at the start or likelier, as far as this log can "
        "show, and have not turned down. Falling rejected answers are what preference training is "
        "for."
    ),
    "undetermined": "What is in the log does not decide the question.",
    "no learning": (
        "The preference is not being learned: the gap between chosen and rejected does not grow."
    ),
    "early": (
        "The chosen answers gained at first and have begun to lose it again. What comes after the "
        "turn costs likelihood on the answers you want, so the model nearest the peak is the one "
        "to keep."
    ),
    "displacement": (
        "The model learns to tell the answers apart by making both less likely, the rejected one "
        "faster. The loss cannot see that. The probability goes to answers that are in neither "
        "column; whether to the model's own favourite tokens (squeezing) only argmax can tell."
    ),
    "squeezing": (
        "Pushing down rejected answers that are already unlikely moves probability from almost "
        "everything, the chosen answers included, to the few tokens that the model already prefers "
        "(the squeezing effect). The margin and the loss go on improving meanwhile; generations "
        "can become confident and repetitive."
    ),
    "collapse": (
        "The model loses likelihood everywhere, its loss is no number any more, or what it "
        "generates degenerates. This is divergence rather than a trade-off."
    ),
}


def remedies(
    verdict: Name, ledger: Path, argmax_known: bool = False, advice: str = ""
) -> list[Remedy]:
    """Return what to do about a verdict, best backed first by `ledger`/claims.json.

    A displacement whose argmax is known needs no further logging. `advice` ("stronger", "labels")
    is what the run's own numbers ask for, which comes first. Raises `InputError` if that file
    is not a ledger.
    """
    entries = read(ledger)
    first = [_BY_ADVICE[advice]] if advice else []
    wanted = [
        r
        for r in dict.fromkeys((*first, *_BY_VERDICT[verdict]))
        if not (r is _PROBE and verdict == "displacement" and argmax_known)
    ]
    wanted.sort(key=lambda r: -2.0 if r in _PLAIN else -_support(r.claim, entries))
    return [
        Remedy(r.action, r.how, r.claim, status(r.claim, entries) if r.claim else "")
        for r in wanted
    ]


def _support(claim: str, entries: Mapping[Key, Entry]) -> float:
    """The share of a claim's checks that support it; between all and none where none was run."""
    run = _run(claim, entries)
    return sum(e.verdict.supported for e in run) / len(run) if run else 0.5


def _run(claim: str, entries: Mapping[Key, Entry]) -> list[Entry]:
    checks = [e for e in entries.values() if e.verdict.claim == claim]
    return [e for e in checks if e.verdict.ran]


def status(claim: str, entries: Mapping[Key, Entry]) -> str:
    """Sum up a claim's checks: "supported (tiny)", "supported in 2 of 3 checks", "not run here"."""
    run = _run(claim, entries)
    if not run:
        return NOT_RUN
    good = sum(e.verdict.supported for e in run)
    levels = ", ".join(dict.fromkeys(e.verdict.level for e in run))
    if good == len(run):
        return f"supported ({levels})"
    if good == 0:
        return f"not supported ({levels})"
    return f"supported in {good} of {len(run)} checks ({levels})"
