"""Two processes that score sharded tiny models and each leave what they found; see test_sharded."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import Tensor

from squeeze import packing
from squeeze.data.encoding import EncodedItem, encode_item
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import build_probe_set
from squeeze.errors import InputError
from squeeze.scoring import ResponseScores, score
from squeeze.training.probe_callback import Prober
from tests.tiny_model import tiny_model, tiny_tokenizer

CASES: dict[str, dict[str, Any]] = {
    "LoRA, head tied": {"adapter": True, "tie_word_embeddings": True},
    "all weights, head its own": {"adapter": False, "tie_word_embeddings": False},
    "LoRA, a pass a response": {"adapter": True, "tie_word_embeddings": True, "eager": True},
}
RATE = 0.01
ENGINES: dict[torch.nn.Module, Any] = {}  # DeepSpeed's, by the model that each shards
ROWS = ("logp", "argmax_logp", "entropy", "peakiness")


def items() -> list[EncodedItem]:
    """Five examples, which two processes cannot share equally."""
    train, held_out = split(load_examples("enthusiastic_en"), 3, 2, seed=0)
    probe = build_probe_set(train, held_out).items
    return [encode_item(tiny_tokenizer(), item) for item in probe]


def model(adapter: bool, eager: bool = False, **options: Any) -> torch.nn.Module:
    """The same model at every call."""
    found = tiny_model("qwen3", **options)
    if eager:
        found.set_attn_implementation("eager")
    if adapter:
        torch.manual_seed(1)
        lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        found = get_peft_model(found, lora)
    return found


def inside(wrapped: torch.nn.Module) -> Any:
    """The transformers model."""
    return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


def fsdp(out: Path, rank: int) -> None:
    """What FSDP2's shards give; a file of each process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: _case(_fsdp, **options) for name, options in CASES.items()}
    found["refusals"] = {"tensor parallel": _tensor_parallel(), "FSDP1": _fsdp1()}
    (out / f"rank-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def zero3(out: Path, rank: int) -> None:
    """What DeepSpeed's shards give; a file of each process."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    import deepspeed

    deepspeed.init_distributed("gloo")
    found = {name: _case(_zero3, **options) for name, options in CASES.items()}
    (out / f"rank-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _zero3(whole: torch.nn.Module) -> tuple[torch.nn.Module, Callable[[Tensor], int]]:
    """Every weight in shards, kept whole no longer than it is used."""
    import deepspeed

    at_once = ("param_persistence_threshold", "max_live_parameters", "max_reuse_distance")
    zero = {"stage": 3} | {f"stage3_{name}": 0 for name in (*at_once, "prefetch_bucket_size")}
    trained = [p for p in whole.parameters() if p.requires_grad]
    options = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": zero,
        "gradient_clipping": 0.0,
    }
    engine, *_ = deepspeed.initialize(
        model=whole,
        config=options | {"zero_allow_untested_optimizer": True},
        model_parameters=trained,
        optimizer=torch.optim.SGD(trained, lr=RATE),
    )
    ENGINES[engine.module] = engine
    return engine.module, lambda weight: weight.numel()


def _fsdp(whole: torch.nn.Module) -> tuple[torch.nn.Module, Callable[[Tensor], int]]:
    """Every layer a group, and what is left one; a head of its own and its embedding as well."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    base = inside(whole)
    alone = [] if base.config.tie_word_embeddings else [base.lm_head, base.model.embed_tokens]
    for part in (*base.model.layers, *alone, whole):
        fully_shard(part)
    return whole, lambda weight: 0 if isinstance(weight, DTensor) else weight.numel()


def _case(shard: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Scores of a sharded model and of a whole one, before and after the same training."""
    packing.PACKED_TOKENS["cpu"] = 1  # a pass an example, so three in one process, two in the other
    probe, whole = items(), model(**options)
    sharded, held = shard(model(**options))
    layer = sum(p.numel() for p in inside(whole).model.layers[0].parameters())
    head = inside(whole).get_output_embeddings().weight.numel()
    seen: list[int] = []

    def note(*_: object) -> None:
        seen.append(sum(held(weight) for weight in sharded.parameters()))

    handles = [m.register_forward_pre_hook(note) for m in _leaves(sharded)]
    found = {"before": _compare(score(whole, probe), Prober(probe)(sharded))}
    for handle in handles:
        handle.remove()
    whole_again = sum(held(weight) for weight in sharded.parameters())
    found |= {"most": max(seen), "layer": layer, "head": head, "left": whole_again}
    # The second step comes after a probe, which must not leave weights of before it behind.
    for step, between in enumerate((lambda: None, lambda: Prober(probe)(sharded))):
        _train(whole, step, lambda: None)
        _train(sharded, step, between)
    trained = score(whole, probe)
    found["after"] = _compare(trained, Prober(probe)(sharded))
    found["moved"] = _compare(score(model(**options), probe), trained)
    alone = probe[:1] if dist.get_rank() == 0 else []
    found["nothing to score"] = len(score(sharded, alone))
    return found


def _leaves(wrapped: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules that are called while their layer is whole."""
    base = inside(wrapped)
    return [base.lm_head, *(layer.self_attn for layer in base.model.layers)]


def _train(one: Any, step: int, between: Callable[[], object]) -> None:
    """A step of gradient descent, with something between its gradient and its update."""
    ids = torch.randint(3, 300, (2, 16), generator=torch.Generator().manual_seed(step))
    one.train()
    engine = ENGINES.get(one)
    if engine is not None:
        engine.backward(engine(input_ids=ids, labels=ids).loss)
        between()
        engine.step()
        return
    one(input_ids=ids, labels=ids).loss.backward()
    between()
    with torch.no_grad():
        for weight in one.parameters():
            if weight.grad is not None:
                weight -= RATE * weight.grad
                weight.grad = None


def _compare(ours: list[ResponseScores], theirs: Any) -> float:
    """The largest difference of any score, relative to its size."""
    theirs = [getattr(row, "scores", row) for row in theirs]
    assert [(r.example, r.kind) for r in ours] == [(r.example, r.kind) for r in theirs]
    pairs = [
        (getattr(a, n), getattr(b, n)) for a, b in zip(ours, theirs, strict=True) for n in ROWS
    ]
    return max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs)


def _refusal(wrapped: torch.nn.Module) -> str:
    try:
        score(wrapped, items()[:1])
    except InputError as error:
        return str(error)
    return "none"


def _tensor_parallel() -> str:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    split_up = copy.deepcopy(model(adapter=False))
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    parallelize_module(inside(split_up).model.layers[0].mlp.up_proj, mesh, ColwiseParallel())
    return _refusal(split_up)


def _fsdp1() -> str:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return _refusal(FullyShardedDataParallel(model(adapter=False), device_id=torch.device("cpu")))
