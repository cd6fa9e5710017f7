"""Policy gradients on sampled responses: advantages, and ∂L/∂log π of every token as formulas.

A group-relative loss pushes each token of response i by −w·r·A_i, or not at all where its ratio is
clipped: A its advantage, r = π/π_old, w the weight that the average gives it. So on the logits it
is a sum of the positive and negative gradients of claims SM-1 … SM-9, one a token (claim GR-1).
The losses are in `squeeze.losses.policy_gradient`. No autograd, models or sampling here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from squeeze.errors import InputError

Scale = Literal["group", "batch", "none"]
Sign = Literal["positive", "negative"]
Ratio = Literal["none", "token", "sequence"]
Average = Literal["response", "batch", "length", "sum"]


@dataclass(frozen=True)
class Rollouts:
    """Sampled responses as a policy-gradient loss sees them: log-probs of tokens and advantages.

    `logps` and `old_logps` are the policy's and the sampler's token log-probs (nats; None where the
    sampler is the policy), `mask` is true at response tokens. `advantages` has one value a response
    in its only column, or one a token (NTHR).
    """

    logps: Float[Tensor, "responses tokens"]
    mask: Bool[Tensor, "responses tokens"]
    advantages: Float[Tensor, "responses _"]
    old_logps: Float[Tensor, "responses tokens"] | None = None

    @property
    def log_ratio(self) -> Float[Tensor, "responses tokens"]:
        """log π − log π_old, 0 outside the responses; without `old_logps` 0 with log π's slope."""
        old = self.logps.detach() if self.old_logps is None else self.old_logps
        return (self.logps - old).masked_fill(~self.mask, 0.0)


@dataclass(frozen=True)
class Surrogate:
    """What tells policy-gradient losses apart, once advantages are given.

    `ratio`: log π itself ("none"), π/π_old a token, or a sequence. `low` and `high`: a ratio below
    1 − low (bad responses) or above 1 + high (good ones) gets no gradient. `average`: each
    response's mean over its tokens, the mean over the batch's tokens, the sum over tokens divided
    by responses times `length`, or the mean over responses of token sums. Raises `InputError` for
    "length" without one, and for a sequence ratio with another average than "sum".
    """

    ratio: Ratio = "token"
    low: float = math.inf
    high: float = math.inf
    average: Average = "response"
    length: int | None = None

    def __post_init__(self) -> None:
        if (self.average == "length") != (self.length is not None):
            raise InputError("average 'length' needs a length in tokens, and no other one takes it")
        if self.ratio == "sequence" and self.average != "sum":
            raise InputError("a sequence's ratio has no tokens to average; use average 'sum'")

    def weights(self, mask: Bool[Tensor, "responses tokens"]) -> Float[Tensor, "responses _"]:
        """The weight of each response's token terms in the loss, [responses, 1], float64."""
        n_tokens = mask.double().sum(-1, keepdim=True).clamp(min=1)
        match self.average:
            case "response":
                return 1 / (len(mask) * n_tokens)
            case "batch":
                return torch.full_like(n_tokens, 1 / max(int(mask.sum()), 1))
            case "length":
                return torch.full_like(n_tokens, 1 / (len(mask) * (self.length or 1)))
            case "sum":
                return torch.full_like(n_tokens, 1 / len(mask))

    def log_ratio(self, rollouts: Rollouts) -> Float[Tensor, "responses _"]:
        """log r, one a token or (for a sequence's ratio) one a response, as a column."""
        tokens = rollouts.log_ratio
        return tokens.sum(-1, keepdim=True) if self.ratio == "sequence" else tokens

    def residual(self, rollouts: Rollouts) -> Float[Tensor, "responses tokens"]:
        """∂L/∂log π of every token: −w·r·A inside the clip, 0 beyond it and outside responses.

        Source: PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, Eq. 7), with the
        two bounds of DAPO (arXiv 2503.14476, Eq. 10).
        """
        a = rollouts.advantages
        pushed = -self.weights(rollouts.mask).to(a) * a
        if self.ratio != "none":
            ratio = self.log_ratio(rollouts).detach().exp()
            clipped = (a > 0) & (ratio > 1 + self.high) | (a < 0) & (ratio < 1 - self.low)
            pushed = (pushed * ratio).masked_fill(clipped, 0.0)
        return pushed.expand_as(rollouts.logps) * rollouts.mask


def group_advantages(
    rewards: Float[Tensor, "groups size"], *, scale: Scale = "group", epsilon: float = 1e-4
) -> Float[Tensor, "groups size"]:
    """Return (r − mean of the group)/(std + ε), GRPO's; the std of the group, the batch or none.

    The standard deviation is the sample's (n − 1), as TRL's; "none" is Dr. GRPO's. Sources: Shao et
    al. 2024, arXiv 2402.03300, §4.1.2; Liu et al. 2025, arXiv 2503.20783. Raises `InputError` for
    groups of one.
    """
    _groups(rewards)
    centred = rewards - rewards.mean(-1, keepdim=True)
    match scale:
        case "none":
            return centred
        case "group":
            return centred / (rewards.std(-1, keepdim=True) + epsilon)
        case "batch":
            return centred / (rewards.std() + epsilon)


def rloo_advantages(rewards: Float[Tensor, "groups size"]) -> Float[Tensor, "groups size"]:
    """Return r less the mean of the group's others: n/(n − 1) times r less the group's mean.

    Source: Ahmadian et al. 2024, arXiv 2402.14740, Eq. 9. Raises `InputError` for groups of one.
    """
    size = _groups(rewards)
    return (rewards - rewards.mean(-1, keepdim=True)) * (size / (size - 1))


def only(advantages: Float[Tensor, "*shape"], sign: Sign) -> Float[Tensor, "*shape"]:
    """Return the advantages of one sign, the others 0: right answers alone, or wrong ones alone.

    Source: PSR and NSR of Zhu et al. 2025, arXiv 2506.01347, §2.
    """
    return advantages.clamp(min=0) if sign == "positive" else advantages.clamp(max=0)


def _groups(rewards: Tensor) -> int:
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise InputError(
            f"rewards must be [groups, size] with a size of at least 2, not {tuple(rewards.shape)}"
        )
    return rewards.shape[1]


@dataclass(frozen=True)
class TokenFeatures:
    """What the last layer sees of a response: a row a token, hidden state h and error e_y − π."""

    hidden: Float[Tensor, "tokens width"]
    error: Float[Tensor, "tokens vocab"]

    def influence(self, other: TokenFeatures) -> Float[Tensor, "ours theirs"]:
        """⟨e_y − π, e_y' − π'⟩·⟨h, h'⟩ of every two tokens: their kernel under a trained read-out.

        Source: Deng et al. 2025, arXiv 2505.18830, Theorem 4.4 and appendix 7.2.
        """
        return (self.error @ other.error.T) * (self.hidden @ other.hidden.T)


def gwhes(
    response: TokenFeatures, correct: list[TokenFeatures], wrong: list[TokenFeatures]
) -> Float[Tensor, ""]:
    """Return the group-weighted hidden embedding score of one correct response, `correct` with it.

    p⁻Σ over wrong responses' tokens − p⁺Σ over correct ones', p the share of correct responses,
    p⁺ = √((1 − p)/p), p⁻ = √(p/(1 − p)): the higher, the less the response's log-prob gains.
    Source: arXiv 2505.18830, Eq. 5. Raises `InputError` unless both kinds are there.
    """
    if not correct or not wrong:
        raise InputError("the score needs correct and wrong responses; this group has one kind")
    odds = math.sqrt(len(correct) / len(wrong))
    down = sum(response.influence(other).sum() for other in wrong)
    up = sum(response.influence(other).sum() for other in correct)
    return torch.as_tensor(odds * down - up / odds)


def nthr_weights(
    correct: list[TokenFeatures], wrong: list[TokenFeatures], *, beta: float = 1.0
) -> list[Float[Tensor, " tokens"]]:
    """Return the factor of each wrong response's token advantages: η = 2|p − ½| or 1.

    A token whose influence on the correct responses, summed, exceeds τ gets η; τ is β times the
    least, over correct responses, of the mean influence of its tokens on all of them. (The paper
    says "on all other correct responses" and leaves the formula to its Eq. 9; with itself left
    out, a single correct response would have no threshold, so all are taken.)
    Source: NTHR, arXiv 2505.18830, §5, Eqs. 7 and 8, Algorithm 1; η from its appendix 7.3.
    """
    if not correct or not wrong:
        raise InputError("NTHR needs correct and wrong responses; this group has one kind")
    p = len(correct) / (len(correct) + len(wrong))

    def scores(response: TokenFeatures) -> Tensor:
        return torch.stack([other.influence(response).sum(0) for other in correct]).sum(0)

    threshold = beta * torch.stack([scores(response).mean() for response in correct]).min()
    softened = 2 * abs(p - 0.5)
    return [torch.where(scores(response) > threshold, softened, 1.0) for response in wrong]


def token_features(
    logits: Float[Tensor, "tokens vocab"],
    targets: Int[Tensor, " tokens"],
    hidden: Float[Tensor, "tokens width"],
) -> TokenFeatures:
    """Return the features of a response from its logits, tokens and last hidden states."""
    error = -logits.softmax(-1)
    error[torch.arange(len(targets), device=error.device), targets] += 1
    return TokenFeatures(hidden, error)


def policy_entropy_rate(
    logits: Float[Tensor, "batch vocab"], displacement: Float[Tensor, "batch vocab"]
) -> Float[Tensor, " batch"]:
    """Return −Cov_π(log π, z' − z), to first order the change of entropy (nats) by a displacement.

    Source: Cui et al. 2025, arXiv 2505.22617. Claim EN-1.
    """
    log_pi = logits.log_softmax(-1)
    pi = log_pi.exp()
    centred = log_pi - (pi * log_pi).sum(-1, keepdim=True)
    rate: Tensor = -(pi * centred * displacement).sum(-1)
    return rate


def expected_step(
    logits: Float[Tensor, "batch vocab"], advantages: Float[Tensor, "batch vocab"], eta: float
) -> Float[Tensor, "batch vocab"]:
    """Return the displacement ηπ(A − E_π A) of the exact policy gradient, all labels' A known."""
    pi = logits.softmax(-1)
    return eta * pi * (advantages - (pi * advantages).sum(-1, keepdim=True))
