"""The fused kernels against the reference: on a GPU, or in Triton's interpreter.

Run as `triton_cases.py` is, which says how.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from squeeze.bench.accuracy import error_bounds
from squeeze.kernels import chunked, training
from squeeze.kernels.chunked import chunked_statistics
from squeeze.kernels.inputs import LogitTransform, check_inputs
from squeeze.kernels.reference import reference_statistics
from squeeze.kernels.training import _logits_gradient
from tests.kernels.assertions import assert_close

pytest.importorskip("triton", reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from squeeze.kernels.fused import FusedFold  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
UNIT = 2.0**-24 * (1 if INTERPRETED else 2)  # as in triton_cases.py
BF16, FP16 = torch.bfloat16, torch.float16
HOSTILE = [
    # tokens, vocabulary, width, dtype, kind
    (1, 1, 8, BF16, "plain"),
    (1, 131, 72, FP16, "plain"),
    (130, 257, 64, BF16, "plain"),
    (3, 1000, 40, BF16, "tied"),
    (2, 300, 16, BF16, "huge"),
    (2, 300, 16, BF16, "masked"),
]


def _make(
    n_tokens: int, vocab: int, width: int, dtype: torch.dtype, kind: str
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    hidden, head = (torch.randn(n, width, generator=generator).to(dtype) for n in (n_tokens, vocab))
    bias = None
    if kind == "tied":
        head[[0, vocab // 2, vocab - 1]] = 3 * head[1]
    elif kind == "huge":
        bias = 1e4 * torch.sign(torch.randn(vocab, generator=generator))
    elif kind == "masked":  # a whole tile of −inf first
        bias = torch.zeros(vocab).index_fill_(0, torch.arange(200), float("-inf"))
    targets = torch.randint(0, vocab, (n_tokens,), generator=generator)
    targets[:2] = torch.tensor([vocab - 1, 0 if kind != "masked" else 250])[:n_tokens]
    bias = None if bias is None else bias.to(DEVICE)
    return hidden.to(DEVICE), head.to(DEVICE), bias, targets.to(DEVICE)


def _exact(hidden: Tensor, head: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The float64 logits, and how far float32 products and additions may be from them [T]."""
    logits = hidden.double() @ head.double().T
    if bias is not None:
        logits = logits + bias.double()
    products = (hidden.double().abs() @ head.double().abs().T).amax(-1)
    finite = logits.masked_fill(logits.isinf(), 0.0).abs().amax(-1)
    return logits, (6 * hidden.shape[1] ** 0.5 * products + 2 * finite) * 2.0**-24


@pytest.mark.parametrize(("n_tokens", "vocab", "width", "dtype", "kind"), HOSTILE)
def test_hidden_states_give_the_reference_statistics(
    n_tokens: int, vocab: int, width: int, dtype: torch.dtype, kind: str
) -> None:
    hidden, head, bias, targets = _make(n_tokens, vocab, width, dtype, kind)
    fold = FusedFold()
    assert fold.takes(hidden, head)
    inputs = check_inputs(targets, hidden=hidden, head=head, bias=bias)
    found, expected = chunked_statistics(inputs, fold), reference_statistics(inputs)
    logits, delta = _exact(hidden, head, bias)
    assert_close(found, expected, error_bounds(logits, targets, UNIT, delta))
    picked = logits.gather(1, found.argmax_token[:, None])[:, 0]
    assert bool((logits.amax(-1) - picked <= 2 * delta).all())


def test_cap_temperature_and_ignored_rows() -> None:
    hidden, head, _, targets = _make(5, 300, 24, BF16, "plain")
    targets[[1, 3]] = -100
    bias = torch.linspace(-2, 2, 600).to(DEVICE)[::2]  # strided
    options = {"softcap": 6.0, "temperature": 0.5, "logit_scale": 0.7}
    inputs = check_inputs(targets, hidden=hidden, head=head, bias=bias, **options)
    found, expected = chunked_statistics(inputs, FusedFold()), reference_statistics(inputs)
    for name in ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness"):
        # logits below 12 after the cap, widths of 24: 1e-4 is 10 times accuracy.py's bounds
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(expected, name), atol=1e-4, rtol=0
        )
    assert torch.equal(found.argmax_token, expected.argmax_token)


def test_a_row_of_nan_spoils_no_other() -> None:
    hidden, head, _, targets = _make(3, 300, 16, BF16, "plain")
    hidden[1, 2] = float("nan")
    found = chunked_statistics(check_inputs(targets, hidden=hidden, head=head), FusedFold())
    assert found.logsumexp[1].isnan()
    assert bool(found.logsumexp[[0, 2]].isfinite().all())


@pytest.mark.parametrize(
    "transform", [LogitTransform(), LogitTransform(6.0, 0.5, 0.7), LogitTransform(temperature=2.0)]
)
@pytest.mark.parametrize("dtype", [BF16, FP16], ids=str)
def test_the_gradient_of_the_logits_is_that_of_the_tiles(
    dtype: torch.dtype, transform: LogitTransform
) -> None:
    hidden, head, _, targets = _make(131, 140, 24, dtype, "plain")
    bias = torch.linspace(-2, 2, 140).to(DEVICE)
    first = 100  # the head's rows from here on; most targets lie before
    logits = hidden.double() @ head.double().T + bias.double()
    z = transform.apply_(logits.clone())
    logsumexp, grads = torch.logsumexp(z, -1), torch.linspace(-1, 1, 131).double().to(DEVICE)
    expected = _logits_gradient(logits[:, first:], targets - first, logsumexp, grads, transform)
    found = FusedFold().logits_gradient(
        hidden, head[first:], bias[first:], transform, targets - first, logsumexp.float(), grads
    )
    assert found.dtype == dtype
    # One rounding to 16 bits (the interpreter cuts bfloat16 off instead: twice that), and logits of
    # at most 50, whose error of 1e-4 moves π by as much.
    rounding = torch.finfo(dtype).eps * (1 if INTERPRETED and dtype == BF16 else 0.5)
    assert bool(((found.double() - expected).abs() <= rounding * expected.abs() + 2e-4).all())


def test_a_training_step_takes_the_fused_kernels_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "best_fold", lambda inputs: FusedFold())
    if INTERPRETED:  # as CUDA does it
        monkeypatch.setattr(chunked, "_WIDENING_DEVICES", {"cpu"})
        multiply = lambda left, right, out: out.copy_(left.float() @ right.float())  # noqa: E731
        monkeypatch.setattr(chunked, "_widening_mm", multiply)
    hidden, head, _, targets = _make(5, 300, 24, BF16, "plain")
    targets[3] = -100
    leaves = [one.clone().requires_grad_() for one in (hidden, head)]
    training.target_logps(targets, hidden=leaves[0], head=leaves[1]).sum().backward()
    exact = [one.double().requires_grad_() for one in (hidden, head)]
    kept = targets != -100
    logps = torch.log_softmax(exact[0] @ exact[1].T, -1)[kept]
    logps.gather(1, targets[kept, None]).sum().backward()
    for found, truth, other in zip(leaves, exact, reversed(exact), strict=True):
        assert found.grad is not None
        assert truth.grad is not None
        # π in bfloat16 (cut off: 2⁻⁷ of it), summed, and the sum rounded once more
        bound = 2.0**-8 * truth.grad.abs() + 2.0**-7 * 2 * other.detach().abs().amax()
        assert bool(((found.grad.double() - truth.grad).abs() <= bound).all())


@pytest.mark.parametrize(
    "view", [lambda one: one[:, 1:], lambda one: one[:, ::2], lambda one: one.float()]
)
def test_what_the_fused_kernels_cannot_read_goes_to_the_tiles(view) -> None:  # type: ignore[no-untyped-def]
    hidden, head, _, targets = _make(3, 50, 16, BF16, "plain")
    hidden, head = view(hidden), view(head)
    assert not FusedFold().takes(hidden, head)
    inputs = check_inputs(targets, hidden=hidden, head=head)
    logits, delta = _exact(hidden, head, None)
    bounds = error_bounds(logits, targets, UNIT, delta)
    assert_close(chunked_statistics(inputs, FusedFold()), reference_statistics(inputs), bounds)
