"""The kernels on a GPU: Triton on hardware against float64, bf16 log-probs against the CPU."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from squeeze.bench.accuracy import error_bounds
from squeeze.data.encoding import encode_item
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import build_probe_set
from squeeze.kernels import target_logps, token_statistics
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.reference import reference_statistics
from squeeze.models import load
from squeeze.scoring import score
from tests.kernels.assertions import assert_close

pytestmark = pytest.mark.gpu

CASES = Path(__file__).parents[1] / "kernels"


@pytest.mark.parametrize("name", ["triton_cases.py", "fused_cases.py"])
def test_the_triton_kernels_pass_their_cases_on_hardware(name, device):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", str(CASES / name)]
    if device.type == "cpu":  # all cases run so in tests/kernels/test_triton.py
        environment["TRITON_INTERPRET"] = "1"
        command += ["-k", "random or hidden_states_give", "-W", "ignore::RuntimeWarning"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize(("hidden_size", "vocab"), [(576, 49_152), (2560, 151_936)])
def test_hidden_states_give_the_float64_statistics(hidden_size, vocab, device, rehearsing):
    vocab = vocab // 64 if rehearsing else vocab
    shape = {"generator": torch.Generator(device).manual_seed(0), "device": device}
    hidden = torch.randn(64, hidden_size, **shape)
    head = torch.randn(vocab, hidden_size, **shape) / hidden_size**0.5
    targets = torch.randint(0, vocab, (64,), **shape)
    found = token_statistics(targets, hidden=hidden, head=head)
    logp = (hidden.double() @ head.double().T).log_softmax(-1)
    # tf32 products, where torch allows them: 11 bits, 2^-11 relative on logits of order 1.
    expected = logp.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.target_logp.double(), expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(found.argmax_logp.double(), logp.max(-1).values, atol=5e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_tiles_meet_the_bounds_of_float32_logits(dtype, device):
    shape = {"generator": torch.Generator(device).manual_seed(0), "device": device}
    hidden = torch.randn(64, 576, **shape).to(dtype)
    head = (torch.randn(20_001, 576, **shape) / 24).to(dtype)
    targets = torch.randint(0, 20_001, (64,), **shape)
    logits = hidden.double() @ head.double().T
    # 6 √H u Σ|h||w| for the product; u is twice 2⁻²⁴ for the GPU's exponential (triton_cases.py)
    products = (hidden.double().abs() @ head.double().abs().T).amax(-1)
    product = 6 * 24 * products * 2.0**-24
    if device.type == "cpu":  # whose 16-bit products have 16-bit logits
        product = product + logits.abs().amax(-1) * torch.finfo(dtype).eps
    bounds = error_bounds(logits, targets, 2.0**-23, product)
    inputs = check_inputs(targets, hidden=hidden, head=head)
    found = token_statistics(targets, hidden=hidden, head=head)
    assert_close(found, reference_statistics(inputs), bounds)


def test_a_model_on_the_second_gpu_is_scored_there(rehearsing):
    second = "cuda:1" if torch.cuda.device_count() > 1 else "cpu"
    if second == "cpu" and not rehearsing:
        pytest.skip(f"needs two GPUs, and this machine has {torch.cuda.device_count()}")
    logits = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(4)
    with torch.cuda.device(0) if second != "cpu" else nullcontext():
        found = token_statistics(targets.to(second), logits=logits.to(second))
    expected = token_statistics(targets, logits=logits)
    torch.testing.assert_close(found.target_logp.cpu(), expected.target_logp, atol=1e-5, rtol=0)


def test_gradients_on_the_gpu_are_those_of_log_softmax(device):
    shape = {"generator": torch.Generator(device).manual_seed(0), "device": device}
    hidden = torch.randn(32, 64, requires_grad=True, **shape)
    head = torch.randn(5000, 64, requires_grad=True, **shape)
    targets = torch.randint(0, 5000, (32,), **shape)
    ours = torch.autograd.grad(
        target_logps(targets, hidden=hidden, head=head).sum(), (hidden, head)
    )
    logp = (hidden.double() @ head.double().T).log_softmax(-1)
    theirs = torch.autograd.grad(logp.gather(1, targets[:, None]).sum(), (hidden, head))
    for a, b in zip(ours, theirs, strict=True):
        assert ((a - b).norm() / b.norm()).item() < 1e-3


def test_bf16_scores_on_the_gpu_agree_with_float32_on_the_cpu(device, rehearsing, small_model):
    model, tokenizer = load(small_model if rehearsing else "smollm2-135m")
    train, held_out = split(load_examples("enthusiastic_en"), 4, 2, seed=0)
    items = [encode_item(tokenizer, i) for i in build_probe_set(train, held_out).items[:4]]
    exact = score(model, items)
    fast = score(model.to(device), items, dtype=torch.bfloat16)
    errors = [abs(a.logp - b.logp) / a.n_tokens for a, b in zip(exact, fast, strict=True)]
    # Design measurement: up to 1.4 nats in a response of 60 tokens in bf16. Logits of the
    # rehearsal's model are of order 10, of which 2⁻⁸ a token.
    assert sum(errors) / len(errors) < (10 * 2**-8 if rehearsing else 1.4 / 60)
