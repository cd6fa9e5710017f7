"""Peers by adapter: each says what it gives and needs, and why it does not run here."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch

from squeeze.bench import cases
from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, CaseInputs, make_inputs
from squeeze.bench.peers import PEERS, Peer
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.reference import reference_statistics

pytestmark = pytest.mark.cpu

CPU = torch.device("cpu")


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> CaseInputs:
    """Hidden states of a small shape; peers make logits of them where they start from logits."""
    monkeypatch.setitem(cases.SHAPES, "tiny", (16, 200))
    return make_inputs(Case(HIDDEN, "tiny", 6), CPU)


def test_the_field_s_kernels_are_all_there() -> None:
    for word in ("TRL sel", "TRL log", "TRL Chunked", "torch lin", "Liger fused", "Liger scaled"):
        assert any(peer.name.startswith(word) for peer in PEERS)
    for word in ("cut-cross-entropy", "QuACK", "verl"):
        assert any(peer.name.startswith(word) for peer in PEERS)
    assert all(peer.gives and peer.package in peer.needs for peer in PEERS)
    assert all(set(peer.tasks) <= {LOGITS, HIDDEN, TRAINING} for peer in PEERS)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_agrees_with_float64_or_says_why_it_cannot(peer: Peer, inputs: CaseInputs) -> None:
    reason = peer.why_missing(CPU, inputs)
    if reason is not None:
        assert "other arguments" not in reason, f"the adapter is out of date: {reason}"
        assert "has no" not in reason, f"the adapter is out of date: {reason}"
        pytest.skip(f"{peer.name}: {reason}")
    checked = check_inputs(inputs.targets, hidden=inputs.hidden, head=inputs.head)
    expected = reference_statistics(checked).target_logp
    # widths of 16, logits below 15: dozens of float32 roundings
    torch.testing.assert_close(peer.call(inputs).double(), expected, atol=2e-5, rtol=0)


def _with_source(source: str) -> Peer:
    return dataclasses.replace(PEERS[0], source=source, package="a-package")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a_module_nobody_has:f", "a-package is not installed"),
        ("torch:a_function_nobody_has", "this a-package has no torch.a_function_nobody_has"),
        ("torch:is_tensor", "takes other arguments"),
    ],
)
def test_what_is_missing_or_changed_is_named(source: str, words: str, inputs: CaseInputs) -> None:
    reason = _with_source(source).why_missing(CPU, inputs)
    assert reason is not None
    assert words in reason


def test_an_import_that_fails_is_a_reason(
    inputs: CaseInputs, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_peer.py").write_text("raise RuntimeError('needs a driver')")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("broken_peer") is not None
    reason = _with_source("broken_peer:f").why_missing(CPU, inputs)
    assert reason == "broken_peer cannot be imported here: RuntimeError: needs a driver"


def test_a_kernel_for_a_gpu_says_so_on_a_cpu(inputs: CaseInputs) -> None:
    peer = dataclasses.replace(PEERS[0], device="cuda")
    assert peer.why_missing(CPU, inputs) == "its kernels need a GPU, and there is none"
