"""The log-prob kernels that are compared: how each one is called, and which are missing here."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, CaseInputs
from squeeze.bench.measure import Work
from squeeze.kernels import target_logps, token_statistics

NAIVE, OURS, LIMIT = "naive", "squeeze", "limit"
Function = Callable[[CaseInputs], Tensor]


@dataclass(frozen=True)
class Candidate:
    """A named way to do a task. `call` returns log-probs, or the gradient of hidden."""

    name: str
    gives: str
    call: Function


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


def _logits(inputs: CaseInputs) -> Tensor:
    return inputs.logits if inputs.logits is not None else inputs.hidden @ inputs.head.T


def _naive(inputs: CaseInputs) -> Tensor:
    return naive_logits(_logits(inputs), inputs.targets)[0]


def _lse(inputs: CaseInputs) -> Tensor:
    return lse_logits(_logits(inputs), inputs.targets)


def _compiled_naive(inputs: CaseInputs) -> Tensor:
    found = _compiled(naive_logits)(_logits(inputs), inputs.targets)
    assert isinstance(found, tuple)
    logps: Tensor = found[0]
    return logps


def _compiled_lse(inputs: CaseInputs) -> Tensor:
    found = _compiled(lse_logits)(_logits(inputs), inputs.targets)
    assert isinstance(found, Tensor)
    return found


def _ours(inputs: CaseInputs) -> Tensor:
    if inputs.logits is not None:
        return token_statistics(inputs.targets, logits=inputs.logits).target_logp
    return token_statistics(inputs.targets, hidden=inputs.hidden, head=inputs.head).target_logp


def _ours_training(inputs: CaseInputs) -> Tensor:
    return target_logps(inputs.targets, hidden=inputs.hidden, head=inputs.head)


def _trl_selective(inputs: CaseInputs) -> Tensor:
    from squeeze.training.trl_compat import selective_log_softmax

    return selective_log_softmax(_logits(inputs), inputs.targets)


def _trl_chunked(inputs: CaseInputs, outputs: tuple[str, ...]) -> Tensor:
    from trl.kernels import ChunkedLogProbFunction

    arguments = (inputs.hidden, inputs.head, None, inputs.targets, 1.0, 8192, None, 1.0, outputs)
    found: Tensor = ChunkedLogProbFunction.apply(*arguments)[0]
    return found


def _liger(inputs: CaseInputs) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="none")
    found: Tensor = loss(inputs.head, inputs.hidden, inputs.targets)
    return -found


def _cut_cross_entropy(inputs: CaseInputs) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    found: Tensor = linear_cross_entropy(
        inputs.hidden, inputs.head, inputs.targets, reduction="none"
    )
    return -found


def _with_backward(forward: Function) -> Function:
    """Return a function that does forward and backward and gives the gradient of hidden."""

    def step(inputs: CaseInputs) -> Tensor:
        hidden = inputs.hidden.detach().requires_grad_()
        head = inputs.head.detach().requires_grad_()
        forward(CaseInputs(inputs.targets, None, hidden, head)).sum().backward()
        assert hidden.grad is not None
        return hidden.grad

    return step


def candidates(case: Case, device: torch.device) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates of a case, and why others are not measured, by name."""
    both, target, everything = "target, argmax", "target", "all statistics"
    statistics = functools.partial(_trl_chunked, outputs=("entropy", "log_sum_sq_probs", "is_top1"))
    only_target = functools.partial(_trl_chunked, outputs=())
    found = [
        Candidate(NAIVE, both, _naive),
        Candidate("logsumexp + gather", target, _lse),
        Candidate("TRL selective_log_softmax", target, _trl_selective),
    ]
    missing: dict[str, str] = {}
    if case.compiles:
        found += [
            Candidate("torch.compile naive", both, _compiled_naive),
            Candidate("torch.compile logsumexp", target, _compiled_lse),
        ]
    else:
        missing["torch.compile"] = "compiled for one shape of each task only, in the full form"
    if case.task != LOGITS:
        found.append(Candidate("TRL ChunkedLogProb", target, only_target))
        for name, module, function in (
            ("Liger", "liger_kernel", _liger),
            ("cut-cross-entropy", "cut_cross_entropy", _cut_cross_entropy),
        ):
            reason = _why_missing(module, device)
            if reason is None:
                found.append(Candidate(name, target, function))
            else:
                missing[name] = reason
    if case.task == HIDDEN:
        found.append(Candidate("TRL ChunkedLogProb + outputs", everything, statistics))
    if case.task == TRAINING:
        found.append(Candidate(OURS, target, _ours_training))
        found = [Candidate(one.name, one.gives, _with_backward(one.call)) for one in found]
    else:
        found.append(Candidate(OURS, everything, _ours))
    return found, missing


def _why_missing(module: str, device: torch.device) -> str | None:
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    return None if device.type == "cuda" else "its kernels need a GPU, and there is none"


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
