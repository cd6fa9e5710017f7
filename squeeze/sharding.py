"""Sharded weights (FSDP, ZeRO-3): passes of a model of which each process holds a part.

The wrapped modules' own hooks gather a layer for its forward and let it go again, so a pass goes
through them, as in training: past them it would meet shards. What is read from the hidden states is
read where the LM head would run, the one place where its weights are whole. Nothing is unsharded by
hand. Who scores what is `squeeze.distributed`'s, what a score is `squeeze.scoring`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from squeeze.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


def unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    """The transformers model inside DDP and PEFT wrappers (adapters stay active in its layers).

    Raises `InputError` for an adapter that is no part of the layers: learned prompts.
    """
    inner: Any = _entry(model)
    if getattr(getattr(inner, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            "prefix and prompt tuning put learned states before the prompt, which are not scored "
            "here; use LoRA, or merge what was learned into the weights"
        )
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner  # type: ignore[no-any-return]


def _entry(model: torch.nn.Module) -> torch.nn.Module:
    """What a pass calls: without DDP's and DeepSpeed's wrappers, which gather no weights."""
    return getattr(model, "module", model)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a process holds a part of the weights only: FSDP2's, or those of ZeRO-3.

    Raises `InputError` for what splits more than the weights, and for FSDP1.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    modules, weights = list(model.modules()), list(model.parameters())
    if any(isinstance(module, FullyShardedDataParallel) for module in modules):
        raise InputError(
            "FSDP1 keeps a model's weights in flat pieces that only its own wrapper reads; shard "
            "with FSDP2 (fsdp_version: 2 in accelerate's configuration)"
        )
    fsdp = any(isinstance(module, FSDPModule) for module in modules)
    meshes = [w.device_mesh for w in weights if isinstance(w, DTensor)]
    split = any(not fsdp or "tp" in (mesh.mesh_dim_names or ()) for mesh in meshes)
    split |= (getattr(unwrapped(model), "tp_size", None) or 1) > 1  # transformers' tp_plan
    split |= any(getattr(module, "tp_world_size", 1) > 1 for module in modules)  # DeepSpeed's
    if split:
        raise InputError(
            "tensor parallelism splits every product over processes, the LM head's vocabulary "
            "among them: no process sees a whole distribution, and all would have to read the same "
            "rows. Shard with FSDP2 or ZeRO instead, or score the checkpoints with squeeze "
            "diagnose --base MODEL --tuned CHECKPOINT"
        )
    return fsdp or any(hasattr(weight, "ds_status") for weight in weights)


def n_parameters(weights: Iterable[Tensor]) -> int:
    """How many numbers weights hold on all processes together."""
    return sum(int(getattr(weight, "ds_numel", weight.numel())) for weight in weights)


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a model computes; its shards may wait elsewhere."""
    for weight in model.parameters():
        mesh: Any = getattr(weight, "device_mesh", None)
        if mesh is not None and mesh.device_type == "cuda":
            return torch.device("cuda", torch.cuda.current_device())
    return unwrapped(model).device


def read_inside(model: torch.nn.Module, read: Callable[[Tensor], T], inputs: dict[str, Any]) -> T:
    """`read(hidden)` of the states [tokens, hidden] of a row, in the place of the LM head.

    Within `read` the head's weights are whole. Every process must make as many passes.
    """
    head: Any = unwrapped(model).get_output_embeddings()
    found: list[T] = []

    def forward(hidden: Tensor) -> Tensor:
        found.append(read(hidden[0]))
        return hidden.new_zeros(*hidden.shape[:-1], 1)

    usual = vars(head).get("forward")  # somebody else's
    head.forward = forward  # the module's hooks stay, and gather
    try:
        _entry(model)(**inputs)
    finally:
        del head.forward
        if usual is not None:
            head.forward = usual
    return found[0]


@contextmanager
def equal_passes(model: torch.nn.Module, planned: int) -> Iterator[None]:
    """After it, this process has made as many passes as the one that has most.

    `planned` are those that it makes within; empty ones follow. A process with fewer would leave
    the others waiting for its shards. Then the weights are sharded as they were.
    """
    counts: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(counts, planned)
    yield
    token = torch.zeros(1, 1, dtype=torch.long, device=device_of(model))
    for _ in range(max(counts) - planned):
        read_inside(model, lambda hidden: None, {"input_ids": token, "use_cache": False})
    # FSDP2 leaves the outermost weights whole for a backward pass, which does not come.
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
