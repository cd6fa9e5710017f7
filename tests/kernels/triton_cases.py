"""The Triton fold against the reference: on a GPU, or in Triton's interpreter.

The interpreter must be chosen before triton is first imported, so `test_triton.py` runs this file
in a process of its own, with TRITON_INTERPRET=1; with a GPU, run it directly.
"""

from __future__ import annotations

import os

import pytest
import torch

from squeeze.kernels.chunked import chunked_statistics
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.reference import reference_statistics
from tests.kernels.accuracy import (
    KINDS,
    assert_argmax_is_a_maximiser,
    assert_close,
    error_bounds,
    make_logits,
    make_targets,
)

pytest.importorskip("triton", reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from squeeze.kernels.triton import TritonFold  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
# The GPU's exp is off by up to 2 ulp and |x|·2⁻²³ more: less than twice the bound's own share.
UNIT = 2.0**-24 * (1 if INTERPRETED else 2)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, torch.float32) for kind in KINDS]
    + [("random", torch.bfloat16), ("masked_finite", torch.float16)],
    ids=str,
)
def test_logits_give_the_reference_statistics(kind: str, dtype: torch.dtype) -> None:
    logits = make_logits(kind, 3, 4999, dtype).to(DEVICE)
    targets = make_targets(3, 4999).to(DEVICE)
    inputs = check_inputs(targets, logits=logits)
    found = chunked_statistics(inputs, TritonFold())
    bounds = error_bounds(logits.double(), targets, UNIT)
    assert_close(found, reference_statistics(inputs), bounds)
    assert_argmax_is_a_maximiser(found, logits)


# 130 rows: more than one program of the merging kernel
@pytest.mark.parametrize(("n_tokens", "vocab"), [(0, 7), (1, 1), (1, 4097), (2, 12_289), (130, 5)])
def test_any_shape_is_covered_once(n_tokens: int, vocab: int) -> None:
    logits = make_logits("random", n_tokens, vocab, torch.float32).to(DEVICE)
    targets = make_targets(n_tokens, vocab).to(DEVICE)
    inputs = check_inputs(targets, logits=logits)
    bounds = error_bounds(logits.double(), targets, UNIT)
    assert_close(chunked_statistics(inputs, TritonFold()), reference_statistics(inputs), bounds)


def test_bias_cap_temperature_ignored_rows_and_strides() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, head, bias = (
        torch.randn(*shape, generator=generator).to(DEVICE)
        for shape in ((5, 8), (6000, 8), (6000,))
    )
    targets = torch.tensor([5999, -100, 0, 4096, 17], device=DEVICE)
    inputs = check_inputs(
        targets, hidden=hidden, head=head, bias=bias, softcap=6.0, temperature=0.5, top_k=3
    )
    found, expected = chunked_statistics(inputs, TritonFold()), reference_statistics(inputs)
    for name in ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness"):
        # logits below 12 after the cap, widths of 8: 1e-4 is 10 times accuracy.py's bounds
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(expected, name), atol=1e-4, rtol=0
        )
    assert torch.equal(found.argmax_token, expected.argmax_token)
    transposed = check_inputs(targets, logits=(hidden @ head.T).T.contiguous().T, softcap=6.0)
    again = chunked_statistics(transposed, TritonFold())
    torch.testing.assert_close(
        again.entropy.double(), reference_statistics(transposed).entropy, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_without_a_distribution_is_nan_and_spoils_no_other(bad: float) -> None:
    logits = make_logits("random", 2, 5000, torch.float32)
    logits[0, 4500] = bad
    inputs = check_inputs(make_targets(2, 5000).to(DEVICE), logits=logits.to(DEVICE))
    found = chunked_statistics(inputs, TritonFold())
    for name in ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness"):
        value = getattr(found, name)
        assert value[0].isnan(), name
        assert value[1].isfinite(), name
