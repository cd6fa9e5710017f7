"""Remedies for each verdict, in order of evidence, with the claim that backs each of them.

How a claim came out is read from the results that ship with the package, or from a ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from squeeze.claims.ledger import read
from squeeze.claims.results import Result, best, results_of
from squeeze.claims.types import LEVELS
from squeeze.diagnosis.severity import Name

NOT_RUN = "not run"


@dataclass(frozen=True)
class Remedy:
    """One thing to do; `claim` backs it and `status` is how that claim came out."""

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
    "one or two epochs of SFT on chosen and rejected answers before DPO (arm extend-dpo)",
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

_SOFTER = Remedy(
    "push wrong answers less",
    "a smaller weight on answers below their group's mean, or on those of their tokens that are "
    "like the right answers' (squeeze.theory.policy_gradient.nthr_weights)",
    "GR-1",
)
_WRONG_MORE = Remedy(
    "weigh wrong answers more than right ones",
    "a positive advantage of a likely answer is what lowers entropy; wrong answers alone keep it",
    "NS-1",
)
_UNSUPPORTED = Remedy(
    "no remedy is supported here",
    "no claim that was checked has shown one that helps; what was tried, and how it came out:",
)
_UNSCALED = Remedy(
    "do not divide advantages by the group's deviation",
    "scale_rewards='none' in TRL, algorithm.norm_adv_by_std_in_grpo=False in verl: divided, a "
    "reward's least differences between right answers weigh as much as right against wrong",
)
_SLOWER = Remedy(
    "go back, and slower",
    "take a checkpoint before the collapse, a learning rate three to ten times lower, or a KL "
    "term (beta in TRL, actor.use_kl_loss in verl)",
)
_LIMIT = Remedy(
    "look at the reward", "does it pay for length or repetition, or for neither? read the samples"
)

# What the run's own curves and the user's own data show needs no claim to come first.
_PLAIN = (_PROBE, _LABELS, _STRONGER, _RESTART, _STOP, _UNSCALED, _SLOWER, _LIMIT)
_FALLING = (_STOP, _EXTEND, _ON_POLICY, _FILTER, _NLL, _GATED, _DOSE, _BETA)
_BY_VERDICT: Mapping[Name, tuple[Remedy, ...]] = {
    "healthy": (),
    "undetermined": (_PROBE,),
    "no learning": (_STRONGER, _LABELS),
    "early": _FALLING,
    "displacement": (_PROBE, *_FALLING),
    "lazy displacement": (_SOFTER,),
    "squeezing": _FALLING,
    "entropy collapse": (_UNSCALED, _SLOWER, _WRONG_MORE),
    "length collapse": (_LIMIT, _SLOWER),
    "repetition collapse": (_LIMIT, _SLOWER),
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
    "lazy displacement": (
        "The right answers gain nothing, or fall, while the wrong ones are pushed down: what they "
        "have in common with the right ones takes those along. The reward can rise meanwhile, by "
        "other right answers."
    ),
    "entropy collapse": (
        "The policy has become far narrower. Rare right answers are hardly sampled any more, so "
        "they are not rewarded, and groups whose answers all have one reward have no gradient."
    ),
    "length collapse": (
        "The answers have become far shorter, or run into the longest length, and the reward does "
        "not rise with it."
    ),
    "repetition collapse": "The sampled answers have begun to repeat themselves.",
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
    verdict: Name, ledger: Path | None = None, argmax_known: bool = False, advice: str = ""
) -> list[Remedy]:
    """Return what to do about a verdict, best backed first by the shipped results of the claims.

    `ledger` is a directory whose claims.json is asked instead. A displacement whose argmax is known
    needs no further logging. `advice` ("stronger", "labels") is what the run's own numbers ask for,
    which comes first. Where all that is known hangs on claims and none is supported, the first
    entry says that. Raises `InputError` if that file is not a ledger.
    """
    result = best if ledger is None else _of_ledger(ledger)
    first = [_BY_ADVICE[advice]] if advice else []
    wanted = [
        r
        for r in dict.fromkeys((*first, *_BY_VERDICT[verdict]))
        if not (r is _PROBE and verdict == "displacement" and argmax_known)
    ]
    wanted.sort(key=lambda r: (-1, 0) if r in _PLAIN else _rank(result(r.claim)))
    if wanted and wanted[0] not in _PLAIN and _rank(result(wanted[0].claim))[0] > 0:
        wanted.insert(0, _UNSUPPORTED)
    return [replace(r, status=status(result(r.claim))) if r.claim else r for r in wanted]


def _of_ledger(directory: Path) -> Callable[[str], Result | None]:
    """What a ledger says of a claim, at the highest level that decided it."""
    found: dict[str, Result] = {}
    for result in results_of(list(read(directory).values())):
        known = found.get(result.claim)
        if known is None or _decided(result) >= _decided(known):
            found[result.claim] = result
    return found.get


def _decided(result: Result) -> tuple[bool, int]:
    return result.outcome in ("supported", "contradicted"), LEVELS.index(result.level)


def _rank(result: Result | None) -> tuple[int, int]:
    """Supported first, at the level nearest to practice; contradicted last."""
    outcome = "not run" if result is None else result.outcome
    order = {"supported": 0, "contradicted": 2}.get(outcome, 1)
    return order, 0 if result is None else -LEVELS.index(result.level)


def status(result: Result | None) -> str:
    """A claim's outcome in words: "supported (tiny): +1.2 [+0.4, +2.0]", "not run"."""
    if result is None:
        return NOT_RUN
    said = f"{result.outcome} ({result.level})"
    if result.effect is None:
        return said
    said += f": {result.effect:+.2g}"
    if result.interval is not None:
        said += f" [{result.interval[0]:+.2g}, {result.interval[1]:+.2g}]"
    return said
