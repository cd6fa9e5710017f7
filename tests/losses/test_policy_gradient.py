"""Policy-gradient losses against autograd and TRL, in value and in every token's gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from squeeze.claims.preference import FLOAT64_BOUND, Agreement, Measured, check_agreement
from squeeze.errors import InputError
from squeeze.losses.policy_gradient import POLICY_GRADIENTS, policy_loss
from squeeze.theory.policy_gradient import (
    Rollouts,
    Surrogate,
    TokenFeatures,
    group_advantages,
    gwhes,
    nthr_weights,
    only,
    rloo_advantages,
    token_features,
)
from squeeze.theory.residuals import logit_residual
from tests.examples import examples
from tests.losses.trl_policy_peer import (
    GROUPS,
    SIZE,
    reward_length,
    trainer,
    trl_policy_loss,
)

pytestmark = pytest.mark.cpu
NAMES = list(POLICY_GRADIENTS)
IN_TRL = [name for name in NAMES if name != "reinforce"]


def rollouts(name: str, seed: int, on_policy: bool = False) -> Rollouts:
    """Seeded responses of 1 to 5 tokens in groups of four, ratios on both sides of every clip."""
    generator = torch.Generator().manual_seed(seed)
    n = GROUPS * SIZE
    logps = -3 * torch.rand(n, 5, generator=generator, dtype=torch.float64)
    moved = 0.3 * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 6, (n, 1), generator=generator)
    rewards = torch.randint(0, 3, (GROUPS, SIZE), generator=generator).double()
    advantages = POLICY_GRADIENTS[name].advantages(rewards).reshape(-1, 1)
    old = None if on_policy else logps - moved
    return Rollouts(logps, torch.arange(5) < lengths, advantages, old)


def gradient(name: str, data: Rollouts) -> tuple[Tensor, Tensor]:
    """Value and autograd's gradient by token log-probs."""
    leaf = data.logps.clone().requires_grad_()
    loss = policy_loss(replace(data, logps=leaf), POLICY_GRADIENTS[name].surrogate)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 2**31 - 1), on_policy=st.booleans())
def test_residual_formula_is_autograds_gradient(name: str, seed: int, on_policy: bool) -> None:
    data = rollouts(name, seed, on_policy)
    formula = POLICY_GRADIENTS[name].surrogate.residual(data)
    torch.testing.assert_close(formula, gradient(name, data)[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", IN_TRL)
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_trls_in_value_and_gradient(name: str, seed: int) -> None:
    data = rollouts(name, seed)
    leaf = data.logps.clone().requires_grad_()
    theirs = trl_policy_loss(POLICY_GRADIENTS[name], replace(data, logps=leaf))
    (slope,) = torch.autograd.grad(theirs, leaf)
    value, own = gradient(name, data)
    pair = Measured(value, own.flatten()), Measured(theirs.detach(), slope.flatten())
    assert check_agreement(Agreement([(name, *pair)], bound=FLOAT64_BOUND)).supported


@pytest.mark.parametrize("name", ["grpo", "dapo", "rloo"])
def test_a_clip_off_by_one_percent_is_told_from_trls(name: str) -> None:
    loss = POLICY_GRADIENTS[name]
    off = replace(loss, surrogate=replace(loss.surrogate, high=1.01 * loss.surrogate.high))
    data = [rollouts(name, seed) for seed in range(20)]
    same = [
        torch.isclose(policy_loss(d, off.surrogate), trl_policy_loss(loss, d), rtol=1e-9, atol=0)
        for d in data
    ]
    assert not all(same)


@pytest.mark.parametrize(
    ("kind", "settings_", "ours"),
    [
        ("grpo", {}, group_advantages),
        ("grpo", {"scale_rewards": "none"}, lambda r: group_advantages(r, scale="none")),
        ("grpo", {"scale_rewards": "batch"}, lambda r: group_advantages(r, scale="batch")),
        ("rloo", {}, rloo_advantages),
    ],
)
def test_advantages_are_those_that_trl_trains_on(kind: str, settings_: dict, ours: object) -> None:
    """One real step: its completions are shuffled together with their advantages."""
    made = trainer(kind, **settings_)
    made.train()
    (inputs,) = made.seen
    mask = inputs["completion_mask"].bool()
    rows = [ids[m].tolist() for ids, m in zip(inputs["completion_ids"], mask, strict=True)]
    prompts = [tuple(ids.tolist()) for ids in inputs["prompt_ids"]]
    order = sorted(range(len(rows)), key=lambda row: prompts[row])
    rewards = torch.tensor(reward_length([rows[row] for row in order])).reshape(GROUPS, SIZE)
    assert rewards.std(-1).max() > 0
    assert callable(ours)
    torch.testing.assert_close(
        inputs["advantages"][order].reshape(GROUPS, SIZE), ours(rewards), rtol=1e-5, atol=1e-6
    )


def test_group_advantages_of_one_right_answer_in_four_are_the_papers() -> None:
    """r = 1, 0, 0, 0: mean ¼, sample std ½."""
    got = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double(), epsilon=0.0)
    torch.testing.assert_close(got, torch.tensor([[1.5, -0.5, -0.5, -0.5]]).double())


def test_the_signs_apart_add_up_to_the_whole() -> None:
    a = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 2.0]]))
    assert torch.equal(only(a, "positive") + only(a, "negative"), a)


def test_dapo_lets_a_good_token_rise_further_than_grpo_does() -> None:
    data = Rollouts(
        torch.tensor([[0.0]]).double(),
        torch.ones(1, 1, dtype=torch.bool),
        torch.ones(1, 1).double(),
        -torch.tensor([[1.25]]).double().log(),
    )
    slopes = {name: POLICY_GRADIENTS[name].surrogate.residual(data).item() for name in NAMES}
    assert slopes["grpo"] == 0.0
    assert slopes["dapo"] == pytest.approx(-1.25)


def features(seed: int, tokens: int, width: int = 6, vocab: int = 9) -> TokenFeatures:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, vocab, generator=generator, dtype=torch.float64)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    return token_features(logits, torch.randint(vocab, (tokens,), generator=generator), hidden)


def test_influence_is_the_inner_product_of_the_read_outs_gradients() -> None:
    """∇_W log π(y) = (e_y − π) hᵀ, so ⟨∇_W, ∇'_W⟩ = ⟨e_y − π, e_y' − π'⟩⟨h, h'⟩, by autograd."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    hidden = [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 2)]
    targets = [torch.tensor([1, 4, 0]), torch.tensor([4, 8])]
    found, slopes = [], []
    for h, y in zip(hidden, targets, strict=True):
        logits = h @ weight.T
        found.append(token_features(logits.detach(), y, h))
        rows = logits.log_softmax(-1)[torch.arange(len(y)), y]
        slopes.append([torch.autograd.grad(r, weight, retain_graph=True)[0] for r in rows])
    expected = torch.tensor([[(a * b).sum() for b in slopes[1]] for a in slopes[0]]).double()
    torch.testing.assert_close(found[0].influence(found[1]), expected)


def test_gwhes_is_minus_the_group_steps_first_order_gain_under_a_trained_read_out() -> None:
    """With p = ½ the weights are 1: minus ⟨∇s_i, Σ∇s⁺ − Σ∇s⁻⟩."""
    right, wrong = [features(0, 3), features(1, 2)], [features(2, 4), features(3, 1)]
    gain = sum(right[0].influence(f).sum() for f in right)
    gain = gain - sum(right[0].influence(f).sum() for f in wrong)
    torch.testing.assert_close(gwhes(right[0], right, wrong), -gain)


def test_nthr_softens_the_wrong_tokens_that_resemble_right_ones_and_no_others() -> None:
    """One right answer of four, so η = 2|¼ − ½| = ½; the other two wrong ones point away."""
    right = features(0, 3)
    away = TokenFeatures(-right.hidden, right.error)
    weights = nthr_weights([right], [right, away, away])
    scores = right.influence(right).sum(0)
    assert (scores > 0).all()
    assert weights[0].tolist() == [0.5 if s > scores.mean() else 1.0 for s in scores]
    assert 0 < (weights[0] == 0.5).sum() < 3
    assert torch.cat(weights[1:]).tolist() == [1.0] * 6


@pytest.mark.parametrize("function", [gwhes, nthr_weights])
def test_scores_of_a_group_of_one_kind_are_refused(function: object) -> None:
    assert callable(function)
    given_ = (features(0, 2), [features(0, 2)], []) if function is gwhes else ([], [features(0, 2)])
    with pytest.raises(InputError, match="one kind"):
        function(*given_)


def test_logit_residual_takes_one_weight_a_token() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    target, weights = torch.tensor([0, 1, 2]), torch.tensor([1.0, -2.0, 0.5]).double()
    rows = [logit_residual(logits[i : i + 1], target[i : i + 1], weights[i]) for i in range(3)]
    torch.testing.assert_close(logit_residual(logits, target, weights), torch.cat(rows))


@pytest.mark.parametrize("function", [group_advantages, rloo_advantages])
def test_groups_of_one_are_refused(function: object) -> None:
    assert callable(function)
    with pytest.raises(InputError, match="at least 2"):
        function(torch.ones(3, 1))


def test_a_surrogate_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="length"):
        Surrogate(average="length")
    with pytest.raises(InputError, match="sum"):
        Surrogate("sequence", average="batch")
