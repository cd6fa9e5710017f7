"""Packed groups of ranked responses (ranked lists) and one good against many bad."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.errors import InputError
from squeeze.losses import PairLogps, get_loss, packed_loss, ranked_pairs, sequence_logps
from tests.examples import examples
from tests.losses.strategies import LOGP, tensor

pytestmark = pytest.mark.cpu

BETA = 0.1
PAD = 0


@dataclass(frozen=True)
class Packed:
    """Two prompts with three and two ranked responses: ids, prompt lengths and logits."""

    ids: Tensor
    labels: Tensor
    policy: Tensor
    reference: Tensor
    cu_lengths: Tensor

    def logps(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sequence log-probs of policy and reference under the given labels."""
        return sequence_logps(self.policy, labels)[0], sequence_logps(self.reference, labels)[0]

    def loss(self, labels: Tensor) -> float:
        """The packed loss under the given labels."""
        return packed_loss(*self.logps(labels), self.cu_lengths, beta=BETA).mean().item()


@pytest.fixture
def packed() -> Packed:
    generator = torch.Generator().manual_seed(0)
    prompts, lengths, width = [3, 3, 3, 2, 2], [5, 3, 4, 2, 5], 8
    ids = torch.randint(1, 20, (5, width), generator=generator)
    labels = torch.full_like(ids, -100)
    for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        ids[i, prompt + length :] = PAD
        labels[i, prompt : prompt + length] = ids[i, prompt : prompt + length]
    policy, reference = (
        torch.randn(5, width, 20, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return Packed(ids, labels, policy, reference, torch.tensor([0, 3, 5]))


def test_sequence_logps_sum_the_shifted_log_softmax_over_the_response(packed: Packed) -> None:
    sums, lengths = sequence_logps(packed.policy, packed.labels)
    assert lengths.tolist() == [5, 3, 4, 2, 5]
    expected = sum(packed.policy[3, t - 1].log_softmax(-1)[packed.ids[3, t]].item() for t in (2, 3))
    assert sums[3].item() == pytest.approx(expected, rel=1e-12)


def test_sequence_without_response_token_is_named(packed: Packed) -> None:
    labels = packed.labels.clone()
    labels[2] = -100
    with pytest.raises(InputError, match="sequence 2"):
        sequence_logps(packed.policy, labels)


def test_ranked_pairs_are_all_better_worse_pairs_within_groups() -> None:
    better, worse, group = ranked_pairs(torch.tensor([0, 3, 5]), 5)
    assert better.tolist() == [0, 0, 1, 3]
    assert worse.tolist() == [1, 2, 2, 4]
    assert group.tolist() == [0, 0, 0, 1]


def test_ranked_pairs_against_the_best_are_one_good_and_many_bad() -> None:
    better, worse, group = ranked_pairs(torch.tensor([0, 3, 5]), 5, against="best")
    assert better.tolist() == [0, 0, 3]
    assert worse.tolist() == [1, 2, 4]
    assert group.tolist() == [0, 0, 1]


@pytest.mark.parametrize("offsets", [[0, 3], [1, 5], [0], [0, 3, 6]])
def test_offsets_that_do_not_cover_the_responses_are_refused(offsets: list[int]) -> None:
    with pytest.raises(InputError, match="number of responses, 5"):
        ranked_pairs(torch.tensor(offsets), 5)


@pytest.mark.parametrize("offsets", [[0, 4, 5], [0, 0, 5], [0, 3, 2, 5]])
def test_group_without_a_pair_is_refused(offsets: list[int]) -> None:
    with pytest.raises(InputError, match="a pair needs two"):
        ranked_pairs(torch.tensor(offsets), 5)


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "hinge", "simpo", "orpo", "cal_dpo"])
@settings(max_examples=examples(10))
@given(
    values=st.lists(st.tuples(LOGP, LOGP, st.integers(1, 50)), min_size=1, max_size=4).map(
        lambda rows: rows + rows[::-1]
    ),
)
def test_groups_of_two_are_the_one_pair_loss(
    name: str, values: list[tuple[float, float, int]]
) -> None:
    policy, reference = tensor([v[0] for v in values]), tensor([v[1] for v in values])
    lengths = torch.tensor([v[2] for v in values])
    cu_lengths = torch.arange(0, len(values) + 1, 2)
    got = packed_loss(policy, reference, cu_lengths, loss=name, lengths=lengths)
    pairs = PairLogps(
        policy[::2], policy[1::2], reference[::2], reference[1::2], lengths[::2], lengths[1::2]
    )
    torch.testing.assert_close(got, get_loss(name)(pairs), rtol=1e-14, atol=0)


def test_loss_without_a_reference_needs_none_packed_either() -> None:
    policy, lengths = torch.tensor([-4.0, -9.0]).double(), torch.tensor([2, 3])
    got = packed_loss(policy, None, torch.tensor([0, 2]), loss="simpo", lengths=lengths)
    # β(s+/|y+| − s−/|y−|) − γ = 2(−2 + 3) − 1
    torch.testing.assert_close(got, -logsigmoid(torch.ones(1).double()))


def test_group_loss_is_the_mean_over_its_pairs_worked_by_hand() -> None:
    policy = torch.tensor([-1.0, -3.0, -2.0, -4.0, -4.0]).double()
    reference = torch.zeros(5).double()
    # margins 2, 1, −1 in the first group, 0 in the second
    terms = -logsigmoid(torch.tensor([2.0, 1.0, -1.0]).double())
    got = packed_loss(policy, reference, torch.tensor([0, 3, 5]), beta=1.0)
    torch.testing.assert_close(got, torch.stack([terms.mean(), torch.tensor(2.0).double().log()]))


def test_packed_gradient_reaches_every_response_with_its_pairs_weights() -> None:
    policy = torch.tensor([-1.0, -3.0, -2.0]).double().requires_grad_()
    packed_loss(policy, torch.zeros(3).double(), torch.tensor([0, 3]), beta=1.0).sum().backward()
    w = torch.sigmoid(-torch.tensor([2.0, 1.0, -1.0]).double()) / 3  # pairs 01, 02, 12
    torch.testing.assert_close(policy.grad, torch.stack([-w[0] - w[1], w[0] - w[2], w[1] + w[2]]))


# Three slips of published hand-written losses, one at a time.


def test_averaging_before_the_sigmoid_changes_the_loss(packed: Packed) -> None:
    policy, reference = packed.logps(packed.labels)
    lengths = sequence_logps(packed.policy, packed.labels)[1]
    better, worse, _ = ranked_pairs(packed.cu_lengths, 5)
    ratio = (policy - reference) / lengths
    slipped = -logsigmoid(BETA * (ratio[better].mean() - ratio[worse].mean())).item()
    assert slipped != pytest.approx(packed.loss(packed.labels), rel=1e-3)


@pytest.mark.parametrize("forgotten", ["prompt", "padding"])
def test_leaving_prompt_or_padding_unmasked_changes_the_loss(
    packed: Packed, forgotten: str
) -> None:
    is_padding = packed.ids == PAD
    keep = (packed.labels != -100) | (~is_padding if forgotten == "prompt" else is_padding)
    slipped = packed.ids.masked_fill(~keep, -100)
    assert packed.loss(slipped) != pytest.approx(packed.loss(packed.labels), rel=1e-3)


def test_indexing_labels_without_the_groups_offset_changes_the_loss(packed: Packed) -> None:
    # As published, group g reads labels[0:n] instead of labels[offset:offset + n].
    starts = packed.cu_lengths[:-1].repeat_interleave(packed.cu_lengths.diff())
    slipped = packed.labels[torch.arange(5) - starts]
    assert packed.loss(slipped) != pytest.approx(packed.loss(packed.labels), rel=1e-3)


# Two slips that hand-written losses make.


def test_counting_pad_tokens_as_response_changes_the_loss(packed: Packed) -> None:
    after_prompt = (packed.labels != -100).cumsum(1) > 0
    slipped = packed.ids.masked_fill(~after_prompt, -100)  # pad id 0 taken for a label
    assert packed.loss(slipped) != pytest.approx(packed.loss(packed.labels), rel=1e-3)


def test_broadcasting_one_good_response_against_token_log_probs_changes_the_loss() -> None:
    # Token log-ratios: one good response, two bad ones, padded with 0 to the same width.
    good = torch.tensor([[0.5, 0.2, -0.1]]).double()
    bad = torch.tensor([[-0.4, 0.1, 0.3], [-1.0, 0.0, 0.0]]).double()
    policy = torch.cat([good.sum(1), bad.sum(1)])
    reference = torch.zeros(3).double()
    group = torch.tensor([0, 3])
    right = packed_loss(policy, reference, group, against="best", beta=1.0).item()
    # [1, 3] − [2, 3] broadcasts without complaint: one sigmoid a token instead of one a pair.
    slipped = -logsigmoid(good - bad).mean().item()
    assert slipped != pytest.approx(right, rel=1e-3)


def test_summing_the_bad_responses_before_the_sigmoid_changes_the_loss() -> None:
    policy = torch.tensor([0.6, -0.4, -1.0]).double()
    reference = torch.zeros(3).double()
    right = packed_loss(policy, reference, torch.tensor([0, 3]), against="best", beta=1.0)
    slipped = -logsigmoid((policy[:1] - policy[1:]).sum())
    assert slipped.item() != pytest.approx(right.item(), rel=1e-3)


def test_at_policy_equal_reference_no_slip_can_be_seen(packed: Packed) -> None:
    """Why the tests above use a policy that has moved: ln 2 proves nothing about masks."""
    log_two = torch.tensor(2.0).double().log().item()
    for labels in (packed.labels, packed.ids):
        logps, _ = sequence_logps(packed.reference, labels)
        got = packed_loss(logps, logps, packed.cu_lengths, beta=BETA)
        assert got.tolist() == pytest.approx([log_two, log_two], rel=1e-14)
