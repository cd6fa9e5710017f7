"""Candidates of the log-prob benchmark: ours, plain torch, other people's and the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, CaseInputs
from squeeze.bench.measure import Work
from squeeze.bench.own import OwnKernel
from squeeze.bench.peers import peers
from squeeze.kernels import target_logps, token_statistics
from squeeze.kernels.dispatch import fused_kernels

NAIVE, OURS, OURS_FUSED, LIMIT = "naive", "squeeze", "squeeze fused", "limit"
Function = Callable[[CaseInputs], Tensor]


@dataclass(frozen=True)
class Candidate:
    """A named way to do a task. `call` returns log-probs, or the gradient of hidden.

    A peer is what squeeze is compared with: neither naive, nor ours, nor the user's own.
    """

    name: str
    gives: str
    call: Function
    is_peer: bool = True


def naive_logits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the published replications do: a whole log-softmax, then gather and max."""
    logps = torch.log_softmax(logits.float(), -1)
    return logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1), logps.max(-1).values


def lse_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the log-sum-exp: no [T, V] result."""
    picked = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1).float()
    return picked - torch.logsumexp(logits.float(), -1)


@functools.cache
def _compiled(function: Callable[..., object]) -> Callable[..., object]:
    return torch.compile(function, dynamic=True)


def _naive(inputs: CaseInputs) -> Tensor:
    return naive_logits(inputs.any_logits(), inputs.targets)[0]


def _lse(inputs: CaseInputs) -> Tensor:
    return lse_logits(inputs.any_logits(), inputs.targets)


def _compiled_naive(inputs: CaseInputs) -> Tensor:
    found = _compiled(naive_logits)(inputs.any_logits(), inputs.targets)
    assert isinstance(found, tuple)
    logps: Tensor = found[0]
    return logps


def _compiled_lse(inputs: CaseInputs) -> Tensor:
    found = _compiled(lse_logits)(inputs.any_logits(), inputs.targets)
    assert isinstance(found, Tensor)
    return found


def _ours(inputs: CaseInputs) -> Tensor:
    if inputs.logits is not None:
        return token_statistics(inputs.targets, logits=inputs.logits).target_logp
    return token_statistics(inputs.targets, hidden=inputs.hidden, head=inputs.head).target_logp


def _ours_training(inputs: CaseInputs) -> Tensor:
    return target_logps(inputs.targets, hidden=inputs.hidden, head=inputs.head)


def _with_backward(forward: Function) -> Function:
    """Return a function that does forward and backward and gives the gradient of hidden."""

    def step(inputs: CaseInputs) -> Tensor:
        hidden = inputs.hidden.detach().requires_grad_()
        head = inputs.head.detach().requires_grad_()
        forward(CaseInputs(inputs.targets, None, hidden, head)).sum().backward()
        assert hidden.grad is not None
        return hidden.grad

    return step


def candidates(
    case: Case, inputs: CaseInputs, own: OwnKernel | None = None
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates of a case, and why others are not measured, by name."""
    both, target, everything = "target, argmax", "target", "all statistics"
    device = inputs.targets.device
    found = [
        Candidate(NAIVE, both, _naive, is_peer=False),
        Candidate("logsumexp + gather", target, _lse),
    ]
    missing: dict[str, str] = {}
    if case.compiles:
        found += [
            Candidate("torch.compile naive", both, _compiled_naive),
            Candidate("torch.compile logsumexp", target, _compiled_lse),
        ]
    else:
        missing["torch.compile"] = "compiled for one shape of each task only, in the full form"
    for peer in peers(case):
        reason = peer.why_missing(device, inputs)
        if reason is None:
            found.append(Candidate(peer.name, peer.gives, peer.call))
        else:
            missing[peer.name] = reason
    if own is not None and own.takes(case):
        found.append(Candidate(own.name, own.gives, own.call, is_peer=False))
    elif own is not None:
        missing[own.name] = f"it takes no {'logits' if case.task == LOGITS else 'hidden states'}"
    if case.task == TRAINING:
        found.append(Candidate(OURS, target, _ours_training, is_peer=False))
        if device.type == "cuda":
            found.append(Candidate(OURS_FUSED, target, _fused(_ours_training), is_peer=False))
        found = [replace(one, call=_with_backward(one.call)) for one in found]
    else:
        found.append(Candidate(OURS, everything, _ours, is_peer=False))
        if device.type == "cuda" and case.task == HIDDEN:
            found.append(Candidate(OURS_FUSED, everything, _fused(_ours), is_peer=False))
    return found, missing


def _fused(function: Function) -> Function:
    """Return the function with the fused kernels switched on while it runs."""

    def run(inputs: CaseInputs) -> Tensor:
        with fused_kernels():
            return function(inputs)

    return run


def limit(case: Case, inputs: CaseInputs) -> tuple[str, Work, float]:
    """Return what bounds a case: its name, a callable to time, and the share of it that counts.

    From logits: reading them once (on a GPU, half of a copy). From hidden states: the matmul into
    memory that is there already. For training: the three matmuls of an exact step.
    """
    if inputs.logits is not None:
        logits = inputs.logits
        if logits.is_cuda:
            copy = torch.empty_like(logits)
            return "half of a copy", lambda: copy.copy_(logits), 0.5
        return "one read (a sum)", logits.sum, 1.0
    hidden, head = inputs.hidden, inputs.head
    logits = hidden.new_empty(hidden.shape[0], head.shape[0])

    def forward() -> object:
        return torch.mm(hidden, head.T, out=logits)

    if case.task == HIDDEN:
        return "the matmul", forward, 1.0
    grad_hidden, grad_head = torch.empty_like(hidden), torch.empty_like(head)

    def step() -> None:
        forward()
        torch.mm(logits, head, out=grad_hidden)
        torch.mm(logits.T, hidden, out=grad_head)

    return "the three matmuls", step, 1.0
