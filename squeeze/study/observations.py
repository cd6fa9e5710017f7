"""Evidence of each observation: which arms of a study its check takes, and which without its cause.

`@observation(ID)` and `@counterfactual(ID)` (see `gathering`) stand on what gathers it; arms are
trained where they are missing. Claims that are registered in parts by themselves are in `beyond`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from squeeze.claims import catalogue
from squeeze.claims.degeneration import Texts
from squeeze.claims.displacement import Displacement
from squeeze.claims.onpolicy import ROLES, OnPolicy, own_margins
from squeeze.claims.runs import Runs
from squeeze.claims.sft import Copies
from squeeze.claims.tokens import TokenSteps
from squeeze.claims.types import Level, Verdict
from squeeze.claims.variants import arm_of
from squeeze.study import beyond  # noqa: F401 puts its claims into the tables
from squeeze.study.gathering import COUNTERFACTUALS, OBSERVATIONS, counterfactual, observation
from squeeze.study.registration import plan, with_registered_effects
from squeeze.study.study import Study
from squeeze.study.token_steps import pair_steps


def claims_at(level: Level) -> list[str]:
    """The claims that are observed at a level."""
    return [claim for claim in OBSERVATIONS if level in catalogue.get(claim).levels]


def judge(o: Study, claim: str) -> list[Verdict]:
    """Train what a claim needs and return its rows, as registered."""
    rows = catalogue.get(claim).check(OBSERVATIONS[claim](o))
    if plan(o.level, claim).exploratory:
        rows = [replace(row, exploratory=True) for row in rows]
    return with_registered_effects(rows, o.level)


def judge_counterfactual(o: Study, claim: str) -> list[Verdict]:
    """Return the rows of the same check on the system without the claim's cause."""
    rows = catalogue.get(claim).check(COUNTERFACTUALS[claim](o))
    return with_registered_effects(rows, o.level)


# --- supervised finetuning ----------------------------------------------------------------------

SFT_DPO, EXTEND_DPO, BASE_DPO, NO_REJECTED = "sft-dpo", "extend-dpo", "dpo", "dose-0"


def long_sft(o: Study, form: str = "") -> str:
    """The arm of long SFT, or a form of it: "-permuted", "-half"."""
    return f"sft-{o.plan.settings['long_sft_epochs']}{form}"


def _sft(o: Study, claim: str) -> Runs:
    return o.runs(claim, {"sft": long_sft(o)}, {"sft": long_sft(o, "-permuted")})


@observation("SF-1", bare=True)
def sf_1(o: Study) -> Runs:
    """SF-1: long SFT, against SFT on permuted words.

    Other prompts' answers would be no control where their style is new: it alone raises chosen.
    """
    return _sft(o, "SF-1")


@observation("SF-2", bare=True)
def sf_2(o: Study) -> Runs:
    """SF-2: long SFT, against SFT on permuted words."""
    return _sft(o, "SF-2")


@observation("SF-3", bare=True)
def sf_3(o: Study) -> Runs:
    """SF-3: long SFT, against SFT on permuted words."""
    return _sft(o, "SF-3")


@observation("SF-5", bare=True)
def sf_5(o: Study) -> Runs:
    """SF-5: long SFT, against SFT on permuted words."""
    return _sft(o, "SF-5")


@observation("SF-4")
def sf_4(o: Study) -> Copies:
    """SF-4: long SFT, and one sampled answer to every prompt before and after it."""
    return Copies(o.runs("SF-4", {"sft": long_sft(o)}), _copies(o, long_sft(o), slice(None)))


@counterfactual("SF-4")
def sf_4_bare(o: Study) -> Copies:
    """SF-4 after training on every other pair, judged on the answers that were left out."""
    arm = long_sft(o, "-half")
    trained = [e.id for _, ex in o.over("SF-4") for e in list(ex.pairs.train)[::2]]
    return Copies(o.runs("SF-4", {"sft": arm}), _copies(o, arm, slice(1, None, 2)), trained)


def _copies(o: Study, arm: str, sources: slice) -> Texts:
    """Answers before and after an arm; n-grams are sought in the chosen answers of `sources`."""
    before, after, own, taken = [], [], [], []
    for _, experiment in o.over("SF-4"):
        experiment.trajectory(arm)
        train, held_out = list(experiment.pairs.train), list(experiment.pairs.held_out)
        before.append(experiment.answers(()))
        after.append(experiment.answers(experiment.config.arm(arm).phases))
        own.append([[e.prompt[-1].content, e.chosen] for e in [*train, *held_out]])
        taken.append([e.chosen for e in train[sources]])
    seeds = o.plan.seeds_of("SF-4", o.seeds)
    return Texts(before, after, o.level, seeds, own=own, sources=taken)


# --- preference training ------------------------------------------------------------------------


@observation("DO-1", bare=True)
def do_1(o: Study) -> Runs:
    """DO-1: SFT, then DPO, against DPO without its rejected term."""
    return o.runs("DO-1", {"dpo": SFT_DPO}, {"dpo": NO_REJECTED})


@observation("DO-2", bare=True)
def do_2(o: Study) -> Runs:
    """DO-2: SFT, then DPO, against DPO without its rejected term."""
    runs = o.runs("DO-2", {"dpo": SFT_DPO}, {"dpo": NO_REJECTED})
    return replace(runs, most_peakiness=o.plan.settings.get("most_peakiness", 1.0))


def turned(roles: Mapping[str, str]) -> dict[str, str]:
    """The same arms in the reverse order, under the same names."""
    return dict(zip(roles, list(roles.values())[::-1], strict=True))


def doses(o: Study) -> dict[str, str]:
    """Arms by λ, in order."""
    return {f"λ = {d:g}": f"dose-{d:g}" for d in sorted(o.plan.settings["doses"])}


def epochs(o: Study) -> dict[str, str]:
    """Arms by the epochs of SFT before DPO, in order."""
    return {f"{n} epochs": f"sft-{n}-dpo" for n in sorted(o.plan.settings["peakier_epochs"])}


def betas(o: Study) -> dict[str, str]:
    """Arms by β, in order."""
    return {f"β = {b:g}": f"beta-{b:g}" for b in sorted(o.plan.settings["betas"])}


def weights(o: Study) -> dict[str, str]:
    """Arms by the weight of the added SFT loss, in order."""
    return {f"α = {w:g}": f"ftx-{w:g}" for w in sorted(o.plan.settings["ftx_weights"])}


@observation("DO-3", bare=True)
def do_3(o: Study) -> Runs:
    """DO-3: a dose of the rejected term an arm, against the same doses of the chosen term."""
    roles = doses(o)
    return o.runs("DO-3", roles, {role: f"chosen-{arm}" for role, arm in roles.items()})


@observation("DO-4")
def do_4(o: Study) -> Runs:
    """DO-4: a number of SFT epochs an arm."""
    return o.runs("DO-4", epochs(o))


@counterfactual("DO-4")
def do_4_bare(o: Study) -> Runs:
    """DO-4 with the epochs in another order."""
    return o.runs("DO-4", turned(epochs(o)))


@observation("CP-1")
def cp_1(o: Study) -> Runs:
    """CP-1: a value of β an arm."""
    return o.runs("CP-1", betas(o))


@counterfactual("CP-1")
def cp_1_bare(o: Study) -> Runs:
    """CP-1 with the values of β in another order."""
    return o.runs("CP-1", turned(betas(o)))


@observation("CP-2")
def cp_2(o: Study) -> Runs:
    """CP-2: a weight of the added SFT loss an arm."""
    return o.runs("CP-2", weights(o))


@counterfactual("CP-2")
def cp_2_bare(o: Study) -> Runs:
    """CP-2 with the weights in another order."""
    return o.runs("CP-2", turned(weights(o)))


@observation("DO-5")
def do_5(o: Study) -> TokenSteps:
    """DO-5: one DPO step on each of a few pairs."""
    rate, count = (o.plan.settings[f"token_{name}"] for name in ("learning_rate", "steps"))
    found = o.over("DO-5")
    steps = [pair_steps(experiment, count) for _, experiment in found]
    return TokenSteps(steps, rate, o.level, [seed for seed, _ in found])


def neighbours(thresholds: torch.Tensor) -> torch.Tensor:
    """Each position's threshold given to the next one."""
    return thresholds.roll(1)


@counterfactual("DO-5")
def do_5_bare(o: Study) -> TokenSteps:
    """DO-5 with the threshold of another position."""
    return replace(do_5(o), thresholds=neighbours)


def twice_sft(o: Study) -> str:
    """The arm with twice the SFT on the chosen answers before DPO: EX-1's counterfactual."""
    return f"sft-{2 * o.plan.recipe['sft_epochs']}-dpo"


@observation("EX-1", bare=True)
def ex_1(o: Study) -> Runs:
    """EX-1: SFT on both answers before DPO, against SFT on chosen for as long or twice as long."""
    roles = {"extend": EXTEND_DPO, "control": SFT_DPO, "base": BASE_DPO}
    return o.runs("EX-1", roles, {"extend": twice_sft(o)})


def _on_policy(o: Study, ranking: str) -> OnPolicy:
    arm = f"on-policy-{o.plan.settings['on_policy_rounds']}{ranking}"
    runs = o.runs("ON-1", {"on_policy": arm, "control": SFT_DPO})
    margins = []
    for _, experiment in o.over("ON-1"):
        beta, every = experiment.config.beta, experiment.config.probe_every
        logs = {role: experiment.log(runs.arm(role)) for role in ROLES}
        margins.append({role: own_margins(log, beta, every) for role, log in logs.items()})
    return OnPolicy(runs, margins)


@observation("ON-1")
def on_1(o: Study) -> OnPolicy:
    """ON-1: rounds of DPO on the policy's own answers, against DPO on the data's pairs."""
    return _on_policy(o, "")


@counterfactual("ON-1")
def on_1_bare(o: Study) -> OnPolicy:
    """ON-1 with the same rounds on the data's pairs.

    Random ranking would be no control: what is ranked stays on-policy and squeezes less as well.
    """
    return _on_policy(o, "-data")


def _long_answers(o: Study, form: str) -> tuple[list[list[str]], list[list[str]]]:
    """Answers at the start and at the end of DPO far longer than the other claims train it."""
    name = f"long-{o.plan.settings['long_dpo_epochs']}{form}"
    longest = o.plan.settings.get("long_answer_tokens")
    before, after = [], []
    for _, experiment in o.over("RP-1"):
        experiment.trajectory(name)
        phases = experiment.config.arm(name).phases
        before.append(experiment.answers(phases[:1], max_new_tokens=longest))
        after.append(experiment.answers(phases, max_new_tokens=longest))
    return before, after


@observation("RP-1")
def rp_1(o: Study) -> Texts:
    """RP-1: answers of the SFT model and after long DPO, with and without its rejected term."""
    before, after = _long_answers(o, "")
    _, bare = _long_answers(o, "-dose-0")
    return Texts(
        before, after, o.level, o.plan.seeds_of("RP-1", o.seeds), after_counterfactual=bare
    )


@counterfactual("RP-1")
def rp_1_bare(o: Study) -> Texts:
    """RP-1 without the rejected term."""
    before, after = _long_answers(o, "-dose-0")
    return Texts(before, after, o.level, o.plan.seeds_of("RP-1", o.seeds))


@observation("VA-1")
def va_1(o: Study) -> Runs:
    """VA-1: an arm a loss."""
    return o.runs("VA-1", {loss: arm_of(loss) for loss in o.plan.settings["losses"]})


@counterfactual("VA-1")
def va_1_bare(o: Study) -> Runs:
    """VA-1 with every arm trained with the same loss."""
    return o.runs("VA-1", dict.fromkeys(o.plan.settings["losses"], arm_of("sigmoid")))


def _scores(o: Study) -> pd.DataFrame:
    """CHES of the pretrained model and what DPO from it did, a row an example and seed."""
    frames = []
    for seed, experiment in o.over("CH-1"):
        experiment.trajectory(BASE_DPO)
        before = experiment.scan(())
        after = experiment.scan(experiment.config.arm(BASE_DPO).phases)
        fall = before["chosen_logp"] - after["chosen_logp"]
        frames.append(before.assign(fall=fall, seed=seed))
    return pd.concat(frames, ignore_index=True)


@observation("CH-1")
def ch_1(o: Study) -> Displacement:
    """CH-1: DPO on either half of the pairs by their score, and scores against what DPO did."""
    return _halves(o, Displacement(o.level, _scores(o)), "")


@counterfactual("CH-1")
def ch_1_bare(o: Study) -> Displacement:
    """CH-1 with the scores of other examples."""
    given, scores = _scores(o), ["ches", "normalised_ches"]
    shuffled = given[scores].sample(frac=1, random_state=0).to_numpy()
    frame = given.assign(**dict(zip(scores, shuffled.T, strict=True)))
    return _halves(o, Displacement(o.level, frame), "-permuted")


def _halves(o: Study, given: Displacement, form: str) -> Displacement:
    """The evidence with chosen's change over DPO on the half of the pairs that was trained on."""
    changes: dict[str, list[Any]] = {"highest": [], "lowest": []}
    for _, experiment in o.over("CH-1"):
        for half, found in changes.items():
            arm = f"ches-{half}{form}"
            experiment.trajectory(arm)
            own = [e.id for e in experiment.ranked(f"{half}{form}")]
            before, after = (
                experiment.scan(phases).set_index("example")["chosen_logp"][own].to_numpy()
                for phases in ((), experiment.config.arm(arm).phases)
            )
            found.append(after - before)
    high, low = (np.stack(rows) for rows in changes.values())
    seeds = o.plan.seeds_of("CH-1", o.seeds)
    return replace(given, high=high, low=low, seeds=tuple(seeds))
