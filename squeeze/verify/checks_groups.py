"""Checks of group-relative trainers: rollouts, advantages, ratio, gradient, step, metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from squeeze.verify.checks_loss import LOGPS_TOLERANCE, LOSS_TOLERANCE, distance, relative
from squeeze.verify.groups import GroupSubject, Sampled, at_moved, kl_terms, said
from squeeze.verify.scorer import Scores, gradient
from squeeze.verify.steps import weights
from squeeze.verify.trace import forwards, sequences
from squeeze.verify.types import DoesNotApply, Measured, check

COLUMNS = 3  # of padding that are added
SHARE = 0.01  # of the weights' length that the step moves them: far above their rounding


@check(
    "rollout-prompts",
    GroupSubject,
    standard="a prompt is the same tokens in training as when the model generates from it",
    cure="the prompt is rendered otherwise (no generation prompt, another template), or cut",
    tolerance=0,
    unit="rollouts",
)
def rollout_prompts(subject: GroupSubject) -> Measured:
    """Rollouts that begin with none of the data's prompts as they are at inference."""
    wrong = sum(row is None for row in subject.sampled.rows)
    n = len(subject.sampled.rows)
    return Measured(wrong, f"begin with no prompt of the data: {wrong} of {n} rollouts")


@check(
    "rollout-tokens",
    GroupSubject,
    standard="what is trained on is what was sampled and rewarded: all of a completion carries "
    "loss, its end-of-text included, and nothing else does",
    cure="completions are decoded and tokenized again, cut, or masked by a padding token that is "
    "also the end of text",
    tolerance=0,
    unit="rollouts",
    needs=("rollout-prompts",),
)
def rollout_tokens(subject: GroupSubject) -> Measured:
    """Sequences that the model reads, and their tokens with loss, against what was rewarded."""
    if getattr(subject.args, "mask_truncated_completions", False):
        raise DoesNotApply("the trainer is told to leave truncated completions out")
    sampled = subject.sampled
    known = sampled.trainer.squeeze_rewarded
    known.require_all()
    with forwards(sampled.trainer.model) as passes:
        loss, _ = subject.value(sampled)
        torch.autograd.backward(loss, inputs=[f.hidden for f in passes])
    seen = sequences(passes)
    if len(seen) != len(sampled.answers):
        raise DoesNotApply(f"{len(sampled.answers)} rollouts are {len(seen)} sequences")
    wrong = 0
    for one, row, answer, size in zip(
        seen, sampled.rows, sampled.answers, sampled.advantages.abs().tolist(), strict=True
    ):
        assert row is not None  # rollout-prompts
        key = said(subject.raw[row]["prompt"]), one.ids[answer.start :]
        part = one.carries[answer.start :]
        whole = size == 0 or all(part)
        outside = any(one.carries[: answer.start]) or one.padding_carries > 0
        wrong += key not in known.rewards or not whole or outside
    return Measured(wrong, f"not what was rewarded: {wrong} of {len(seen)} rollouts")


@check(
    "on-policy",
    GroupSubject,
    standard="rollouts are the present policy's: with top_k=1, its most likely tokens",
    cure="the sampler has other weights (not synchronised), sees padding, or decodes otherwise "
    "than the configuration says",
    tolerance=LOGPS_TOLERANCE,
    needs=("rollout-tokens",),
)
def on_policy(subject: GroupSubject) -> Measured:
    """Greedy rollouts away from the start: how far each token is from the most likely one."""
    other = subject.variant(top_k=1)
    with at_moved(other.model), torch.no_grad():
        sampled = subject.sample(other)
        scores = subject.score(other.model, sampled.answers)
        gaps = [(best - t).max() for best, t in zip(scores.maxima, scores.tokens, strict=True)]
    off = float(torch.stack(gaps).max())
    return Measured(off, f"top_k=1: a sampled token is {off:.2g} nats below the most likely one")


@check(
    "group-baseline",
    GroupSubject,
    standard="the advantages of a group sum to 0",
    cure="the baseline is of the batch or of another group: rollouts and rewards are out of step",
    tolerance=1e-3,
    unit="advantage",
    needs=("rollout-prompts",),
)
def group_baseline(subject: GroupSubject) -> Measured:
    """The largest sum of a group's advantages."""
    sampled, args = subject.sampled, subject.args
    if getattr(args, "normalize_advantages", False):
        raise DoesNotApply("advantages are normalized over the batch, whose mean is what is 0")
    sums = [sampled.advantages[group].sum().abs() for group in sampled.groups()]
    off = float(torch.stack(sums).max())
    return Measured(off, f"largest sum of a group's advantages {off:.2g}, of {len(sums)} groups")


@check(
    "group-advantages",
    GroupSubject,
    standard="advantages are the declared function of a group's rewards: (r − mean)/std for GRPO, "
    "r less the mean of the others for RLOO",
    cure="another scaling than scale_rewards says, clipped or shaped rewards, or rewards of other "
    "rollouts",
    tolerance=1e-3,
    unit="relative",
    needs=("rollout-tokens", "group-baseline"),
)
def advantages(subject: GroupSubject) -> Measured:
    """The trainer's advantages against those of the rewards that were seen."""
    sampled = subject.sampled
    should = subject.declared_advantages(sampled)
    if not should.abs().max() > 0:
        raise DoesNotApply("every group's rewards are equal, so that there is no advantage")
    off = distance(sampled.advantages, should)
    return Measured(off, f"advantages off by {off:.2g} of their length")


def _old(sampled: Sampled) -> Tensor | None:
    """Log-prob of each rollout under its sampler, where the trainer keeps it."""
    batch = sampled.batch
    if "old_logps" in batch:
        found: Tensor = batch["old_logps"]
        return found
    if batch.get("old_per_token_logps") is None:
        return None
    total: Tensor = (batch["old_per_token_logps"] * batch["completion_mask"]).sum(-1)
    return total


def _with_old(subject: GroupSubject) -> Sampled:
    """A batch that serves several steps, whose old log-probs a trainer needs and so keeps."""
    kept = _old(subject.sampled) is not None
    return subject.sampled if kept else subject.sample(subject.variant(num_iterations=2))


@check(
    "ratio-at-start",
    GroupSubject,
    standard="before the first step the importance ratio π/π_old is 1",
    cure="rollout and trainer log-probs differ: another temperature, precision or engine",
    tolerance=LOGPS_TOLERANCE,
    needs=("rollout-tokens",),
)
def ratio_at_start(subject: GroupSubject) -> Measured:
    """The sampler's log-probs, which the trainer keeps, against the scorer's."""
    sampled = _with_old(subject)
    old = _old(sampled)
    if old is None:
        raise DoesNotApply("the trainer keeps no log-probs of its sampler")
    with torch.no_grad():
        should = subject.score(sampled.trainer.model, sampled.answers).values
    off = float((old - should).abs().max())
    return Measured(off, f"log-ratio of a rollout at step 0: {off:.2g} nats")


@check(
    "policy-gradient",
    GroupSubject,
    standard="the gradient at step 0 is −Σ w·A ∇log π over the rollouts' tokens, w the average "
    "that the loss type takes",
    cure="log-probs are at another temperature, tokens are weighted otherwise, or part of it is "
    "detached",
    tolerance=2e-3,
    unit="relative",
    needs=("group-advantages", "ratio-at-start"),
)
def policy_gradient(subject: GroupSubject) -> Measured:
    """The gradient of a sampled batch's loss against the scorer's."""
    sampled = subject.sampled
    model = sampled.trainer.model
    loss, _ = subject.value(sampled)
    found = gradient(loss, model)
    policy = subject.score(model, sampled.answers)
    should = gradient(subject.declared_loss(policy, None, sampled.advantages, at_start=True), model)
    if not should.norm() > 0:
        raise DoesNotApply("the gradient is 0")
    ratio, off = (found.norm() / should.norm()).item(), distance(found, should)
    cosine = torch.cosine_similarity(found, should, dim=0).item()
    return Measured(off, f"gradient: length {ratio:.4f} of the theorem's, cosine {cosine:.5f}")


@check(
    "clipped-surrogate",
    GroupSubject,
    standard="away from its sampler the loss is the declared one: min(rA, clip(r)A), its average, "
    "β times the KL estimate",
    cure="ε is fixed somewhere or ignored, or the ratio is of other log-probs",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=("policy-gradient",),
)
def clipped_surrogate(subject: GroupSubject) -> Measured:
    """The loss of a batch sampled at the start, once the weights were moved."""
    subject.surrogate(at_start=False)
    sampled = _with_old(subject)
    model = sampled.trainer.model
    with torch.no_grad():
        old = subject.score(model, sampled.answers)
        with at_moved(model):
            loss, _ = subject.value(sampled)
            policy = subject.score(model, sampled.answers)
    should = subject.declared_loss(policy, old, sampled.advantages, at_start=False)
    off = relative(loss.item(), should.item())
    return Measured(off, f"loss off the start: {loss.item():.6g}, formula {should.item():.6g}")


def _padded(batch: dict[str, Any]) -> dict[str, Any]:
    """A sampled batch with padding before the prompts and behind the completions."""
    width = batch["completion_ids"].shape[1]

    def wider(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 2:
            return value
        if name.startswith("prompt"):
            return pad(value, (COLUMNS, 0))
        return pad(value, (0, COLUMNS)) if value.shape[1] == width else value

    return {name: wider(name, value) for name, value in batch.items()}


@check(
    "rollout-padding",
    GroupSubject,
    standard="a loss does not depend on how much padding there is",
    cure="the attention mask does not reach the model, or a sum is divided by the padded width",
    tolerance=2e-3,
    unit="relative",
    needs=("policy-gradient",),
)
def rollout_padding(subject: GroupSubject) -> Measured:
    """The gradient of the batch with more columns of padding on both sides."""
    model = subject.sampled.trainer.model
    plain = gradient(subject.value(subject.sampled)[0], model)
    wider = gradient(subject.value(subject.sampled, _padded)[0], model)
    off = distance(wider, plain)
    return Measured(off, f"{COLUMNS} columns on either side: gradient off by {off:.2g}")


@check(
    "rollout-metrics",
    GroupSubject,
    standard="logged reward, entropy and clip ratios are those of the rollouts",
    cure="metrics are averaged over padding or prompts, or taken from another pass",
    tolerance=LOGPS_TOLERANCE,
    unit="logged units",
    needs=("policy-gradient",),
)
def rollout_metrics(subject: GroupSubject) -> Measured:
    """Every metric that the trainer logs and theory knows, at the start."""
    sampled = subject.sampled
    _, logged = subject.value(sampled)
    logged = sampled.metrics | logged
    with torch.no_grad():
        scores = subject.score(sampled.trainer.model, sampled.answers)
    rewards = subject.rewards(sampled)
    should = {
        "reward": rewards.mean().item(),
        "entropy": (scores.entropies.sum() / scores.lengths.sum()).item(),
        "completions/mean_length": scores.lengths.float().mean().item(),
        "clip_ratio/region_mean": 0.0,
    }
    off = {name: abs(logged[name] - value) for name, value in should.items() if name in logged}
    if not off:
        raise DoesNotApply("the trainer logs nothing that is known of rollouts")
    worst = max(off, key=lambda name: off[name])
    return Measured(
        off[worst], f"{len(off)} metrics, the largest difference {worst}: {off[worst]:.3g}"
    )


@check(
    "rollout-reference",
    GroupSubject,
    standard="the KL penalty is from the model before training",
    cure="the reference shares weights with the policy, or is another model",
    tolerance=LOGPS_TOLERANCE,
    unit="nats a token",
    needs=("policy-gradient", "rollout-metrics"),
)
def rollout_reference(subject: GroupSubject) -> Measured:
    """The logged KL of a trainer with a penalty, its weights away from the start."""
    other = subject.variant(beta=getattr(subject.args, "beta", 0.0) or 0.05)
    with torch.no_grad():
        with at_moved(other.model):
            sampled = subject.sample(other)
            _, logged = subject.value(sampled)
            policy = subject.score(other.model, sampled.answers)
        reference = subject.score(other.model, sampled.answers)
    found = (sampled.metrics | logged).get("kl")
    if found is None:
        raise DoesNotApply("the trainer logs no kl")
    should = _kl(policy, reference, plain=subject.is_leave_one_out)
    return Measured(abs(found - should), f"kl {found:.6g}, from the start {should:.6g}")


def _kl(policy: Scores, reference: Scores, *, plain: bool) -> float:
    """The mean over tokens that each trainer logs: the log-ratio (RLOO), or its estimate k3."""
    ours, theirs = torch.cat(policy.tokens), torch.cat(reference.tokens)
    terms = ours - theirs if plain else kl_terms(ours, theirs)
    return float(terms.mean())


def _step_off(subject: GroupSubject, **options: Any) -> float:
    """How far one step of SGD by the trainer's own `train` is from the rollouts' gradient."""
    start = gradient(subject.value(subject.sampled)[0], subject.sampled.trainer.model)
    if not start.norm() > 0:
        raise DoesNotApply("the gradient is 0")
    before = weights(subject.sampled.trainer.model)
    rate = SHARE * float(before.norm() / start.norm())
    trainer = subject.build(learning_rate=rate, **options)
    rewarded = trainer.squeeze_rewarded
    with torch.random.fork_rng():
        trainer.train()
    rewarded.require_all()
    numbers = {said(row["prompt"]): i for i, row in enumerate(subject.raw)}
    answers, rows = subject.heard(rewarded.order, numbers)
    sampled = Sampled(trainer, {}, answers, rows, {})
    should = subject.declared_advantages(sampled)
    policy = subject.score(subject.sampled.trainer.model, answers)
    loss = subject.declared_loss(policy, None, should, at_start=True)
    expected = -rate * gradient(loss, subject.sampled.trainer.model)
    if not expected.norm() > 0:
        raise DoesNotApply("every group's rewards are equal, so that there is no gradient")
    return distance(weights(trainer.model) - before, expected)


@check(
    "policy-step",
    GroupSubject,
    standard="one step of SGD moves the weights by −η times the policy gradient of its rollouts",
    cure="the optimizer does not get the loss's gradient, or the step is of other rollouts",
    tolerance=1e-2,
    unit="relative",
    needs=("policy-gradient",),
)
def policy_step(subject: GroupSubject) -> Measured:
    """One step by `train` against the formula on what the reward functions saw."""
    off = _step_off(subject)
    return Measured(off, f"the step is off the policy gradient of its rollouts by {off:.2g}")


@check(
    "rollout-accumulation",
    GroupSubject,
    standard="a step does not depend on how its batch is split by gradient accumulation",
    cure="micro-batches are added and not averaged, or averaged by rows where the loss is a mean "
    "over tokens",
    tolerance=1e-2,
    unit="relative",
    needs=("policy-step",),
)
def accumulation(subject: GroupSubject) -> Measured:
    """The same from two halves of the batch."""
    if getattr(subject.args, "loss_type", "") == "bnpo":
        raise DoesNotApply("bnpo is a mean over a micro-batch's tokens by its definition")
    half = subject.args.per_device_train_batch_size // 2
    off = _step_off(subject, per_device_train_batch_size=half, gradient_accumulation_steps=2)
    return Measured(off, f"from 2 × {half} rollouts: off the formula by {off:.2g}")
