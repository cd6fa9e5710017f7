"""The CPU kernels against the float64 reference: every kind of input, every dtype, every shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from squeeze.bench.accuracy import KINDS, error_bounds, make_logits, make_targets
from squeeze.kernels import chunked, target_logps, token_statistics
from squeeze.kernels.chunked import chunked_statistics
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.online import EagerFold, Fold
from squeeze.kernels.reference import reference_statistics
from tests.kernels.assertions import assert_argmax_is_a_maximiser, assert_close, rows_of

pytestmark = pytest.mark.cpu

UNIT = 2.0**-24
HALVES = (torch.bfloat16, torch.float16)


def _check_logits(logits: Tensor, targets: Tensor, fold: Fold, unit: float = UNIT) -> None:
    inputs = check_inputs(targets, logits=logits)
    found = chunked_statistics(inputs, fold)
    assert_close(found, reference_statistics(inputs), error_bounds(logits.double(), targets, unit))
    assert_argmax_is_a_maximiser(found, logits)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_give_the_reference_statistics(kind: str, dtype: torch.dtype, fold: Fold) -> None:
    # 4999: neither a multiple of a lane, a block nor a tile
    _check_logits(make_logits(kind, 7, 4999, dtype), make_targets(7, 4999), fold)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_logits_are_accumulated_in_float64(kind: str) -> None:
    logits, targets = make_logits(kind, 5, 1777, torch.float64), make_targets(5, 1777)
    _check_logits(logits, targets, EagerFold(), unit=2.0**-53)
    assert token_statistics(targets, logits=logits).entropy.dtype == torch.float64


@pytest.mark.parametrize("vocab", [1, 2, 31, 1024, 1025, 16384, 16385, 262_144])
def test_every_vocabulary_size_is_covered_once(vocab: int, fold: Fold) -> None:
    _check_logits(make_logits("random", 2, vocab, torch.float32), make_targets(2, vocab), fold)


@pytest.mark.parametrize("n_tokens", [0, 1, 2, 33])
def test_any_number_of_tokens_works(n_tokens: int, fold: Fold) -> None:
    logits = make_logits("random", n_tokens, 333, torch.float32)
    _check_logits(logits, make_targets(n_tokens, 333), fold)


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_a_maximum_that_keeps_moving_loses_no_accuracy(order: str, fold: Fold) -> None:
    # A new maximum in every block: each one rescales all the sums before it.
    ramp = torch.linspace(-300, 300, 20_000)
    logits = (ramp if order == "ascending" else ramp.flip(0)).repeat(2, 1)
    _check_logits(logits, make_targets(2, 20_000), fold)


def test_entropy_of_huge_logits_does_not_cancel(fold: Fold) -> None:
    # lse − E[z] would subtract two numbers near 1e4, each with an ulp of 1e-3.
    logits = torch.full((1, 50), 1e4)
    entropy = chunked_statistics(check_inputs(torch.tensor([0]), logits=logits), fold).entropy
    assert entropy.item() == pytest.approx(torch.tensor(50.0).log().item(), rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("column", [0, 700, 2999])
def test_a_row_without_a_distribution_is_nan_and_spoils_no_other(
    bad: float, column: int, fold: Fold
) -> None:
    logits = make_logits("random", 3, 3000, torch.float32)
    targets = make_targets(3, 3000)
    healthy = chunked_statistics(check_inputs(targets, logits=logits), fold)
    logits[1, column] = bad
    found = chunked_statistics(check_inputs(targets, logits=logits), fold)
    for name in ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness"):
        assert getattr(found, name)[1].isnan(), name
        assert torch.equal(getattr(found, name)[[0, 2]], getattr(healthy, name)[[0, 2]]), name


def test_a_row_of_minus_infinities_has_no_distribution(fold: Fold) -> None:
    logits = torch.full((1, 2000), float("-inf"))
    found = chunked_statistics(check_inputs(torch.tensor([3]), logits=logits), fold)
    assert found.logsumexp.item() == float("-inf")
    assert found.target_logp.isnan()
    assert found.entropy.isnan()
    assert found.peakiness.isnan()


def test_an_impossible_target_has_log_prob_minus_infinity(fold: Fold) -> None:
    logits = make_logits("masked", 1, 500, torch.float32)
    found = chunked_statistics(check_inputs(torch.tensor([0]), logits=logits), fold)
    assert found.target_logp.item() == float("-inf")


@pytest.mark.parametrize(
    "view",
    [lambda z: z.T.contiguous().T, lambda z: z[:, ::2], lambda z: z[::2, 3:], lambda z: z.flip(0)],
    ids=["transposed", "strided", "offset", "flipped"],
)
def test_non_contiguous_logits_give_the_same(view, fold: Fold) -> None:  # type: ignore[no-untyped-def]
    logits = view(make_logits("random", 8, 2222, torch.float32))
    _check_logits(logits, make_targets(*logits.shape), fold)


TRANSFORMS = [
    {"temperature": 0.7},
    {"logit_scale": 0.0625},
    {"logit_scale": -2.0},
    {"softcap": 30.0},
    {"softcap": 5.0, "temperature": 2.0, "logit_scale": 3.0},
]


@pytest.mark.parametrize("options", TRANSFORMS, ids=str)
def test_scale_cap_and_temperature_apply_in_this_order(
    options: dict[str, float], fold: Fold
) -> None:
    logits, targets = make_logits("random", 5, 3001, torch.float32), make_targets(5, 3001)
    inputs = check_inputs(targets, logits=logits, **options)  # type: ignore[arg-type]
    z = logits.double() * options.get("logit_scale", 1.0)
    cap = options.get("softcap")
    z = (cap * torch.tanh(z / cap) if cap else z) / options.get("temperature", 1.0)
    # The factor is rounded once and multiplied once; tanh's absolute error is 8u, times the cap.
    delta = 3 * UNIT * z.abs().amax() + 8 * UNIT * (cap or 0.0) / options.get("temperature", 1.0)
    bounds = error_bounds(z, targets, UNIT, delta)
    assert_close(chunked_statistics(inputs, fold), reference_statistics(inputs), bounds)


def _make_hidden(dtype: torch.dtype, n_tokens: int, vocab: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(vocab + width)
    return [
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in ((n_tokens, width), (vocab, width), (vocab,))
    ]


def _matmul_error(hidden: Tensor, head: Tensor, logits: Tensor) -> Tensor:
    # 6 √H u Σ|h||w| for the product (accuracy.py), u for adding the bias, per row
    width = hidden.shape[1]
    products = (hidden.double().abs() @ head.double().abs().T).amax(-1)
    return (6 * width**0.5 * products + 2 * logits.abs().amax(-1)) * UNIT


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"bias": True, "softcap": 9.0}], ids=str)
def test_hidden_states_give_the_reference_statistics(
    options: dict[str, float], dtype: torch.dtype, fold: Fold
) -> None:
    hidden, head, bias = _make_hidden(dtype, 9, 9001, 33)
    targets = make_targets(9, 9001)
    softcap = options.get("softcap")
    used = bias if "bias" in options else None
    inputs = check_inputs(targets, hidden=hidden, head=head, bias=used, softcap=softcap)
    logits = hidden.double() @ head.double().T + (0 if used is None else used.double())
    delta = _matmul_error(hidden, head, logits) + 8 * UNIT * (softcap or 0.0)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    bounds = error_bounds(logits, targets, UNIT, delta)
    assert_close(chunked_statistics(inputs, fold), reference_statistics(inputs), bounds)


@pytest.fixture
def widening(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's tiles on the CPU: 16-bit operands, float32 logits. cuBLAS itself is in tests/gpu."""

    def multiply(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        assert left.dtype == right.dtype
        assert left.dtype in HALVES
        assert out.dtype == torch.float32
        return out.copy_(left.float() @ right.float())

    monkeypatch.setattr(chunked, "_WIDENING_DEVICES", {"cpu"})
    monkeypatch.setattr(chunked, "_widening_mm", multiply)


@pytest.mark.usefixtures("widening")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sixteen_bit_tiles_give_float32_logits(
    dtype: torch.dtype, fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "_COLUMNS", 1000)  # several tiles, of 9 and 10 rows
    monkeypatch.setattr(chunked, "_LOGITS_TILE_BYTES", {"cpu": 10 * 1000 * 4})
    hidden, head, bias = _make_hidden(dtype, 19, 3001, 33)
    targets = make_targets(19, 3001)
    inputs = check_inputs(targets, hidden=hidden, head=head, bias=bias)
    logits = hidden.double() @ head.double().T + bias.double()
    bounds = error_bounds(logits, targets, UNIT, _matmul_error(hidden, head, logits))
    assert_close(chunked_statistics(inputs, fold), reference_statistics(inputs), bounds)


@pytest.mark.usefixtures("widening")
def test_sixteen_bit_gradients_are_accumulated_in_float32() -> None:
    hidden, head, _ = (leaf.requires_grad_() for leaf in _make_hidden(torch.bfloat16, 16, 300, 24))
    targets = make_targets(16, 300)
    target_logps(targets, hidden=hidden, head=head).sum().backward()
    exact = [leaf.detach().double().requires_grad_() for leaf in (hidden, head)]
    logps = torch.log_softmax(exact[0] @ exact[1].T, -1)
    logps.gather(1, targets[:, None]).sum().backward()
    for leaf, truth in zip((hidden, head), exact, strict=True):
        assert leaf.grad is not None
        assert truth.grad is not None
        # π rounded to bfloat16 (2⁻⁹ of it at most), summed, and the sum rounded once more
        error = (leaf.grad.double() - truth.grad).abs()
        operand = exact[1] if leaf is hidden else exact[0]
        bound = 2.0**-9 * (truth.grad.abs() + 2 * operand.detach().abs().amax())
        assert bool((error <= bound).all())


def test_hidden_states_are_cut_into_blocks_and_tiles_without_a_seam(
    monkeypatch: pytest.MonkeyPatch, fold: Fold
) -> None:
    hidden, head, bias = _make_hidden(torch.float32, 50, 700, 12)
    targets = make_targets(50, 700)
    whole = token_statistics(targets, hidden=hidden, head=head, bias=bias, top_k=3)
    monkeypatch.setattr(chunked, "_COLUMNS", 64)
    monkeypatch.setattr(chunked, "_LOGITS_TILE_BYTES", {"cpu": 64 * 7 * 4})
    inputs = check_inputs(targets, hidden=hidden, head=head, bias=bias, top_k=3)
    cut = chunked_statistics(inputs, fold)
    assert torch.equal(cut.argmax_token, whole.argmax_token)
    assert torch.equal(cut.topk_tokens, whole.topk_tokens)
    torch.testing.assert_close(cut.entropy, whole.entropy)
    torch.testing.assert_close(cut.target_logp, whole.target_logp)


@pytest.mark.parametrize("source", ["logits", "hidden"])
def test_ignored_positions_are_zero_and_change_nothing_else(source: str, fold: Fold) -> None:
    hidden, head, bias = _make_hidden(torch.float32, 11, 3000, 16)
    arguments = (
        {"logits": hidden @ head.T}
        if source == "logits"
        else {"hidden": hidden, "head": head, "bias": bias}
    )
    targets = make_targets(11, 3000)
    whole = chunked_statistics(check_inputs(targets, top_k=2, **arguments), fold)
    ignored = torch.tensor([0, 4, 10])
    targets[ignored] = -7
    inputs = check_inputs(targets, top_k=2, ignore_index=-7, **arguments)
    found = chunked_statistics(inputs, fold)
    kept = torch.tensor([1, 2, 3, 5, 6, 7, 8, 9])
    for name, value in vars(rows_of(found, ignored)).items():
        filling = 0.0 if value.is_floating_point() else -1
        assert torch.equal(value, torch.full_like(value, filling)), name
    for name, value in vars(rows_of(found, kept)).items():
        torch.testing.assert_close(value, getattr(rows_of(whole, kept), name))


def test_ignored_positions_are_skipped_without_top_k_too(fold: Fold) -> None:
    logits, targets = make_logits("random", 6, 1500, torch.bfloat16), make_targets(6, 1500)
    targets[[1, 5]] = -100
    inputs = check_inputs(targets, logits=logits)
    kept = torch.tensor([0, 2, 3, 4])
    bounds = error_bounds(logits[kept].double(), targets[kept], UNIT)
    found, expected = chunked_statistics(inputs, fold), reference_statistics(inputs)
    assert_close(rows_of(found, kept), rows_of(expected, kept), bounds)
    assert torch.equal(found.entropy[[1, 5]], torch.zeros(2))


@pytest.mark.parametrize("top_k", [1, 5, 20_000])
def test_top_k_are_the_largest_in_order(top_k: int, fold: Fold) -> None:
    logits = make_logits("random", 3, 20_000, torch.float32)
    inputs = check_inputs(make_targets(3, 20_000), logits=logits, top_k=top_k)
    found, expected = chunked_statistics(inputs, fold), reference_statistics(inputs)
    assert found.topk_tokens is not None
    assert torch.equal(
        logits.gather(1, found.topk_tokens), logits.sort(descending=True).values[:, :top_k]
    )
    # 1e-5 is 150 u, above every bound of accuracy.py at these log-probs (|log-prob| < 40)
    torch.testing.assert_close(found.topk_logps.double(), expected.topk_logps, atol=1e-5, rtol=0)


def test_autocast_does_not_lower_the_precision(fold: Fold) -> None:
    hidden, head, _ = _make_hidden(torch.float32, 4, 999, 16)
    inputs = check_inputs(make_targets(4, 999), hidden=hidden, head=head)
    outside = chunked_statistics(inputs, fold)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = chunked_statistics(inputs, fold)
    assert torch.equal(inside.target_logp, outside.target_logp)


def test_inputs_are_left_as_they_were(fold: Fold) -> None:
    logits, targets = make_logits("random", 4, 999, torch.float32), make_targets(4, 999)
    before = logits.clone()
    chunked_statistics(check_inputs(targets, logits=logits, softcap=5.0, top_k=2), fold)
    assert torch.equal(logits, before)


@given(
    n_tokens=st.integers(0, 5),
    vocab=st.integers(1, 3000),
    scale=st.floats(0.0, 1e4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_the_dispatcher_meets_the_bounds_on_any_shape(
    n_tokens: int, vocab: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n_tokens, vocab, generator=generator)
    targets = torch.randint(0, vocab, (n_tokens,), generator=generator)
    found = token_statistics(targets, logits=logits)
    expected = reference_statistics(check_inputs(targets, logits=logits))
    assert_close(found, expected, error_bounds(logits.double(), targets, UNIT))
