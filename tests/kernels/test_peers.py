"""The kernels against other people's on the same inputs: TRL, Liger and cut-cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from squeeze.kernels import target_logps, token_statistics

pytestmark = pytest.mark.cpu

# Two float32 implementations may each be off by the bounds of accuracy.py: below 2e-5 nats for
# vocabularies of 5,000, logits below 40 and widths of 32. Gradients: one more float32 sum.
ATOL = 4e-5


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(13, 32, generator=generator)
    head = torch.randn(5000, 32, generator=generator)
    return hidden, head, torch.randint(0, 5000, (13,), generator=generator)


def test_trl_selective_log_softmax_agrees() -> None:
    utils = pytest.importorskip("trl.trainer.utils", reason="trl is not installed")
    hidden, head, targets = _inputs()
    logits = hidden @ head.T
    theirs = utils.selective_log_softmax(logits, targets, temperature=0.8)
    ours = token_statistics(targets, logits=logits, temperature=0.8).target_logp
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize("softcap", [None, 20.0])
def test_trl_chunked_log_prob_agrees_forward_and_backward(softcap: float | None) -> None:
    kernels = pytest.importorskip("trl.kernels", reason="this trl has no kernels")
    hidden, head, targets = _inputs()
    theirs = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
    logps, entropy, log_sum_square, _, _ = kernels.ChunkedLogProbFunction.apply(
        *theirs, None, targets, 0.8, 512, softcap, 1.5, ("entropy", "log_sum_sq_probs")
    )
    options = {"softcap": softcap, "temperature": 0.8, "logit_scale": 1.5}
    found = token_statistics(targets, hidden=hidden, head=head, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found.target_logp, logps, atol=ATOL, rtol=0)
    torch.testing.assert_close(found.entropy, entropy, atol=ATOL, rtol=0)
    torch.testing.assert_close(found.peakiness, log_sum_square.exp(), atol=ATOL, rtol=0)

    ours = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
    target_logps(targets, hidden=ours[0], head=ours[1], **options).sum().backward()  # type: ignore[arg-type]
    logps.sum().backward()
    for here, there in zip(ours, theirs, strict=True):
        torch.testing.assert_close(here.grad, there.grad, atol=10 * ATOL, rtol=0)


def test_liger_fused_linear_cross_entropy_agrees() -> None:
    if not torch.cuda.is_available():
        pytest.skip("Liger's kernels are Triton on a GPU, and there is no CUDA device")
    module = pytest.importorskip("liger_kernel.transformers", reason="liger-kernel not installed")
    hidden, head, targets = (value.cuda() for value in _inputs())
    theirs = -module.LigerFusedLinearCrossEntropyLoss(reduction="none")(head, hidden, targets)
    ours = token_statistics(targets, hidden=hidden, head=head).target_logp
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


def test_cut_cross_entropy_agrees() -> None:
    module = pytest.importorskip(
        "cut_cross_entropy", reason="cut-cross-entropy is not installed (pip install it to compare)"
    )
    hidden, head, targets = _inputs()
    implementation = "cce" if torch.cuda.is_available() else "torch_compile"
    theirs = -module.linear_cross_entropy(
        hidden, head, targets, reduction="none", impl=implementation
    )
    ours = token_statistics(targets, hidden=hidden, head=head).target_logp
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)
