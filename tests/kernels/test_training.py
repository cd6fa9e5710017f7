"""The differentiable log-prob: its gradients against finite differences and against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from squeeze.bench.measure import peak_extra_bytes
from squeeze.kernels import chunked, target_logps, token_statistics, training

pytestmark = pytest.mark.cpu

OPTIONS = [
    {},
    {"softcap": 3.0, "temperature": 0.7, "logit_scale": 0.5},
    {"temperature": 2.0},
]


def _leaves(dtype: torch.dtype, n_tokens: int, vocab: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((n_tokens, width), (vocab, width), (vocab,))
    ]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 2 float64 or 4 float32 tokens × 8 columns: a small case crosses every seam."""
    monkeypatch.setattr(chunked, "_COLUMNS", 8)
    monkeypatch.setattr(chunked, "_LOGITS_TILE_BYTES", {"cpu": 4 * 8 * 4})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_pass_gradcheck_in_float64(options: dict[str, float]) -> None:
    targets = torch.tensor([0, 3, -100, 6])
    torch.autograd.gradcheck(
        lambda hidden, head, bias: target_logps(
            targets, hidden=hidden, head=head, bias=bias, **options
        ),
        _leaves(torch.float64, 4, 7, 3),
    )


@pytest.mark.usefixtures("small_tiles")
def test_gradients_pass_gradcheck_across_tiles() -> None:
    targets = torch.tensor([0, 7, -100, 8, 18])
    torch.autograd.gradcheck(
        lambda hidden, head: target_logps(targets, hidden=hidden, head=head),
        _leaves(torch.float64, 5, 19, 2)[:2],
    )


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_low_precision_gradients_are_accumulated_in_float32(dtype: torch.dtype) -> None:
    leaves = _leaves(dtype, 32, 100, 24)
    targets = torch.randint(0, 100, (32,), generator=torch.Generator().manual_seed(1))
    hidden, head, bias = leaves
    target_logps(targets, hidden=hidden, head=head, bias=bias).sum().backward()
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logits = exact[0] @ exact[1].T + exact[2]
    torch.log_softmax(logits, -1).gather(1, targets[:, None]).sum().backward()
    for leaf, expected in zip(leaves, exact, strict=True):
        assert leaf.grad is not None
        assert expected.grad is not None
        assert leaf.grad.dtype == dtype
        # One rounding to the leaf's dtype (half an eps), and float32 errors: sums of up to 100
        # terms, each below 4 (|h|, |w| < 4, |gradient| <= 1), after logits off by 1e-5 at most.
        half_eps = torch.finfo(dtype).eps / 2
        float32_error = 4 * 100**0.5 * (6 * 100**0.5 * 2**-24 + 1e-5)
        error = (leaf.grad.double() - expected.grad).abs()
        assert bool((error <= half_eps * expected.grad.abs() + float32_error).all())


@pytest.fixture(params=["kept", "made again"])
def logits_are(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the logits in the backward pass."""
    if request.param == "made again":
        monkeypatch.setattr(training, "_KEPT_BYTES", 0)
    return str(request.param)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_are_autograd_s_with_logits_kept_and_made_again(
    options: dict[str, float], logits_are: str
) -> None:
    hidden, head, bias = leaves = _leaves(torch.float64, 7, 19, 3)
    targets = torch.tensor([0, 18, -100, 7, 8, -100, 18])
    logps = target_logps(targets, hidden=hidden, head=head, bias=bias, **options)
    weights = torch.linspace(-1, 2, 7, dtype=torch.float64)
    found = torch.autograd.grad((logps * weights).sum(), leaves)
    z = (hidden @ head.T + bias) * options.get("logit_scale", 1.0)
    cap = options.get("softcap")
    z = (cap * torch.tanh(z / cap) if cap else z) / options.get("temperature", 1.0)
    kept = targets != -100
    picked = torch.log_softmax(z, -1)[kept].gather(1, targets[kept, None])[:, 0]
    expected = torch.autograd.grad((picked * weights[kept]).sum(), leaves)
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there)


@pytest.mark.parametrize(("n_tokens", "megabytes"), [(64, 14), (4096, 80)])
def test_logits_are_kept_up_to_the_bound_and_made_again_above(
    n_tokens: int, megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_KEPT_BYTES", 64 * 2**20)
    hidden, head, _ = _leaves(torch.float32, n_tokens, 20_000, 16)
    targets = torch.zeros(n_tokens, dtype=torch.int64)

    def step() -> None:
        target_logps(targets, hidden=hidden, head=head).sum().backward()

    # kept: 5 MB of logits and an 8 MB tile of them; made again: no more than a probe's 64 MB, of
    # 320 MB of logits. Both: gradients of 1.3 MB of head, and of hidden
    assert peak_extra_bytes(step, torch.device("cpu")) <= megabytes * 2**20


def test_the_forward_is_that_of_token_statistics() -> None:
    hidden, head, bias = _leaves(torch.float32, 8, 500, 12)
    targets = torch.arange(8)
    trained = target_logps(targets, hidden=hidden, head=head, bias=bias)
    probed = token_statistics(targets, hidden=hidden, head=head, bias=bias).target_logp
    assert torch.equal(trained, probed)


def test_gradients_come_only_where_they_are_wanted() -> None:
    hidden, head, bias = _leaves(torch.float32, 3, 20, 4)
    frozen = head.detach()
    target_logps(torch.arange(3), hidden=hidden, head=frozen, bias=bias).sum().backward()
    assert frozen.grad is None
    assert hidden.grad is not None
    assert bias.grad is not None


def test_ignored_positions_give_and_get_nothing() -> None:
    hidden, head, _ = _leaves(torch.float32, 3, 20, 4)
    logps = target_logps(torch.tensor([1, -100, 2]), hidden=hidden, head=head)
    logps.sum().backward()
    assert logps[1].item() == 0.0
    assert hidden.grad is not None
    assert torch.equal(hidden.grad[1], torch.zeros(4))
    assert bool((hidden.grad[[0, 2]] != 0).all())


@pytest.mark.parametrize("targets", [[], [-100, -100]])
def test_nothing_to_learn_from_gives_zero_gradients(targets: list[int]) -> None:
    hidden, head, _ = _leaves(torch.float32, len(targets), 20, 4)
    target_logps(
        torch.tensor(targets, dtype=torch.int64), hidden=hidden, head=head
    ).sum().backward()
    assert head.grad is not None
    assert torch.equal(head.grad, torch.zeros(20, 4))
