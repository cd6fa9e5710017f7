"""DPO by hand on a toy Llama, as in the tutorial notebooks."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch

from squeeze.losses import packed_loss, sequence_logps

pytestmark = pytest.mark.cpu

EXAMPLE = Path(__file__).parents[2] / "examples" / "toy_llama_dpo.py"


def test_example_prints_ln_two(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out == "0.6931\n"


def test_example_fits_on_a_page() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("seed", [1, 2])
def test_loss_is_ln_two_for_any_random_weights(seed: int) -> None:
    toy = runpy.run_path(str(EXAMPLE))
    loss = toy["dpo_loss"](toy["toy_llama"](seed), toy["toy_llama"](seed))
    # the log-ratios are exact zeros: float32 rounds ln 2 itself, nothing more
    assert loss.item() == pytest.approx(math.log(2), rel=torch.finfo(torch.float32).eps)


def test_counting_the_pad_as_response_changes_the_log_probs_of_the_padded_one_only() -> None:
    toy = runpy.run_path(str(EXAMPLE))
    ids, mask, labels = toy["batch"]()
    logits = toy["toy_llama"]()(ids, attention_mask=mask).logits.detach()
    slipped_labels = ids.clone()
    slipped_labels[:, : len(toy["PROMPT"])] = -100
    right, lengths = sequence_logps(logits, labels)
    slipped, slipped_lengths = sequence_logps(logits, slipped_labels)
    assert lengths.tolist() == [4, 4, 2]
    assert slipped_lengths.tolist() == [4, 4, 4]
    assert (right != slipped).tolist() == [False, False, True]


def test_a_different_reference_gives_another_loss() -> None:
    toy = runpy.run_path(str(EXAMPLE))
    loss = toy["dpo_loss"](toy["toy_llama"](0), toy["toy_llama"](1))
    assert loss.item() != pytest.approx(math.log(2), abs=1e-4)


def test_good_response_gets_the_whole_push_and_each_bad_one_its_half() -> None:
    policy = torch.tensor([-5.0, -6.0, -7.0], requires_grad=True)
    group = torch.tensor([0, 3])
    packed_loss(policy, policy.detach(), group, against="best", beta=0.1).sum().backward()
    assert policy.grad is not None
    # 1 − a = ½ at the start: −β/2 for the good one, +β/4 for each bad one
    assert policy.grad.tolist() == pytest.approx([-0.05, 0.025, 0.025])
