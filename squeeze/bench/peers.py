"""Adapters of other people's log-prob kernels: what each gives, what it needs, how it is called.

A peer that is not installed, has changed its signature or cannot run on a device is named with the
reason; nothing of it is imported before it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, CaseInputs

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_TARGET, _BACKWARD = "target", (HIDDEN, TRAINING)


@dataclass(frozen=True)
class Peer:
    """A kernel of another project.

    `source` is "module:name", `package` what pip installs; `gives` names the statistics that it
    returns; `arguments` turns a case's inputs into a call's, `result` its value into log-probs [T]
    (for training, into what is summed). `device` is "cuda" where it cannot run on a CPU; `imports`
    is a package that has to be there besides the one that `source` begins with.
    """

    name: str
    gives: str
    tasks: tuple[str, ...]
    package: str
    source: str
    arguments: Callable[[CaseInputs], Arguments]
    result: Callable[[Any], Tensor]
    device: str | None = None
    capability: tuple[int, int] | None = None
    imports: str | None = None

    @property
    def needs(self) -> str:
        """The package and the device, in words."""
        kind = "any device" if self.device is None else "a CUDA device"
        if self.capability is not None:
            kind += " of compute capability {}.{} or higher".format(*self.capability)
        return f"{self.package}, {kind}"

    def function(self) -> Callable[..., Any]:
        """Import and return the kernel; raises whatever its import raises."""
        module, name = self.source.split(":")
        found: Any = getattr(importlib.import_module(module), name)
        called: Callable[..., Any] = found.apply if hasattr(found, "apply") else found
        return called

    def call(self, inputs: CaseInputs) -> Tensor:
        """Return the log-probs of a case's targets."""
        args, options = self.arguments(inputs)
        return self.result(self.function()(*args, **options))

    def why_missing(self, device: torch.device, inputs: CaseInputs) -> str | None:
        """Why it cannot be measured here, or None. Imports it and binds its signature first."""
        module = self.source.split(":")[0]
        needed = {self.imports or "", module.split(".")[0]} - {""}
        if any(importlib.util.find_spec(name) is None for name in needed):
            return f"{self.package} is not installed"
        try:
            function = self.function()
            _bind(function, *self.arguments(inputs))
        except AttributeError:
            return f"this {self.package} has no {self.source.replace(':', '.')}"
        except TypeError as error:
            return f"this {self.package} takes other arguments: {error}"
        except Exception as error:  # noqa: BLE001 - a foreign package's import may raise anything
            return f"{module} cannot be imported here: {type(error).__name__}: {first_line(error)}"
        if self.device == "cuda" and device.type != "cuda":
            return "its kernels need a GPU, and there is none"
        if self.capability is not None and device.type == "cuda":
            found = torch.cuda.get_device_capability(device)
            if found < self.capability:
                return f"needs compute capability {self.capability}, and this GPU has {found}"
        return None


def peers(case: Case) -> list[Peer]:
    """Return the peers that do this task, installed or not."""
    return [peer for peer in PEERS if case.task in peer.tasks]


def _bind(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Raise TypeError where a call with these arguments does not fit the signature."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
        inspect.signature(owner.forward).bind(None, *args, **options)  # after ctx
    else:
        inspect.signature(function).bind(*args, **options)


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or ["no message"])[0][:120]


def _of_logits(inputs: CaseInputs) -> Arguments:
    return (inputs.any_logits(), inputs.targets), {}


def _chunked_log_prob(inputs: CaseInputs, outputs: tuple[str, ...]) -> Arguments:
    return (inputs.hidden, inputs.head, None, inputs.targets, 1.0, 8192, None, 1.0, outputs), {}


def _torch_chunked(inputs: CaseInputs) -> Arguments:
    options = torch.nn.LinearCrossEntropyOptions()
    arguments = (inputs.hidden, inputs.head, inputs.targets)
    return arguments, {"reduction": "none", "options": options}


def _hidden_first(**options: Any) -> Callable[[CaseInputs], Arguments]:
    return lambda inputs: ((inputs.hidden, inputs.head, inputs.targets), options)


def _liger_fused(inputs: CaseInputs) -> Arguments:
    return (inputs.hidden, inputs.head, inputs.targets), {"reduction": "none"}


def _negated(value: Any) -> Tensor:
    """−loss, or −(the first of several results)."""
    loss: Tensor = value[0] if isinstance(value, tuple) else value
    return -loss


def _first(value: Any) -> Tensor:
    found: Tensor = value[0]
    return found


def _same(value: Any) -> Tensor:
    found: Tensor = value
    return found


PEERS = (
    Peer(
        "TRL selective_log_softmax",
        *(
            _TARGET,
            (LOGITS, HIDDEN, TRAINING),
            "trl",
            "squeeze.training.trl_compat:selective_log_softmax",
        ),
        *(_of_logits, _same),
        imports="trl",
    ),
    Peer(
        "TRL log-prob + entropy",
        *("target, entropy", (LOGITS, HIDDEN, TRAINING), "trl with triton"),
        "trl.kernels:selective_log_softmax_and_entropy",
        *(_of_logits, _first),
        device="cuda",
    ),
    Peer(
        "TRL ChunkedLogProb",
        *(_TARGET, _BACKWARD, "trl", "trl.kernels:ChunkedLogProbFunction"),
        *(functools.partial(_chunked_log_prob, outputs=()), _first),
    ),
    Peer(
        "TRL ChunkedLogProb + outputs",
        *("target, entropy, ‖π‖², is argmax", (HIDDEN,), "trl"),
        "trl.kernels:ChunkedLogProbFunction",
        functools.partial(_chunked_log_prob, outputs=("entropy", "log_sum_sq_probs", "is_top1")),
        _first,
    ),
    Peer(
        "torch linear_cross_entropy",
        *(_TARGET, _BACKWARD, "torch >= 2.13", "torch.nn.functional:linear_cross_entropy"),
        *(_torch_chunked, _negated),
    ),
    Peer(
        "Liger fused linear CE",
        *(_TARGET, _BACKWARD, "liger-kernel"),
        "liger_kernel.transformers.functional:liger_fused_linear_cross_entropy",
        *(_liger_fused, _negated),
        device="cuda",
    ),
    Peer(
        "Liger scaled CE",
        *(_TARGET, _BACKWARD, "liger-kernel >= 0.8"),
        "liger_kernel.ops:LigerFusedLinearScaledCrossEntropyFunction",
        *(_hidden_first(), _negated),
    ),
    Peer(
        "Liger scaled CE + entropy",
        *("target, entropy", (HIDDEN,), "liger-kernel >= 0.8"),
        "liger_kernel.ops:LigerFusedLinearScaledCrossEntropyFunction",
        *(_hidden_first(return_entropy=True), _negated),
    ),
    Peer(
        "cut-cross-entropy",
        *(_TARGET, _BACKWARD, "cut-cross-entropy", "cut_cross_entropy:linear_cross_entropy"),
        *(_hidden_first(reduction="none"), _negated),
        device="cuda",
    ),
    Peer(
        "QuACK cross_entropy",
        *(_TARGET, (LOGITS,), "quack-kernels", "quack.cross_entropy:cross_entropy"),
        lambda inputs: ((inputs.any_logits(), inputs.targets), {"reduction": "none"}),
        _negated,
        device="cuda",
        capability=(9, 0),
    ),
    Peer(
        "QuACK linear CE",
        *(_TARGET, (HIDDEN,), "quack-kernels"),
        "quack.linear_cross_entropy:linear_cross_entropy_func",
        lambda inputs: ((inputs.hidden, inputs.head, None, inputs.targets), {"reduction": "none"}),
        _negated,
        device="cuda",
        capability=(9, 0),
    ),
    Peer(
        "QuACK chunked linear CE",
        *("sum over targets", (TRAINING,), "quack-kernels"),
        "quack.linear_cross_entropy:chunked_linear_cross_entropy",
        *(_hidden_first(reduction="sum"), _negated),
        device="cuda",
        capability=(9, 0),
    ),
    Peer(
        "verl linear CE",
        *("target, entropy", _BACKWARD, "verl"),
        "verl.utils.kernel.linear_cross_entropy:linear_cross_entropy",
        lambda inputs: ((inputs.hidden, inputs.head, inputs.targets, 1.0, "none"), {}),
        _first,
        device="cuda",
    ),
)
