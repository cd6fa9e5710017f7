"""The scoring station: what a model thinks of every response of a probe set.

Few passes: a prompt is read once and shared by all its responses (a response sees its prompt and
itself, not its siblings), and several examples are packed into one row; what all prompts begin with
is read once for all. The LM head is applied at response positions only, by a log-prob
kernel that never writes [tokens, vocab] in float32. Training does not belong here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.data.encoding import EncodedItem
from squeeze.errors import InputError
from squeeze.kernels import TokenStatistics, token_statistics
from squeeze.packing import Pass, common_length, packs, passes, start_pass
from squeeze.sharding import device_of, equal_passes, is_sharded, read_inside, unwrapped
from squeeze.tree_attention import supports_tree, tree_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ResponseScores:
    """One response's scores: log-prob sums in nats, entropy (nats) and peakiness ‖π‖² as means."""

    example: str
    split: str
    kind: str
    logp: float
    argmax_logp: float
    entropy: float
    peakiness: float
    n_tokens: int


@dataclass(frozen=True)
class ScoredResponse:
    """One response's scores, its token ids and the next-token statistics at its positions.

    `pack` holds the statistics of all tokens that were scored with it, `first` its own first row.
    """

    scores: ResponseScores
    token_ids: list[int]
    pack: TokenStatistics
    first: int

    @property
    def example(self) -> str:
        """The example that it answers."""
        return self.scores.example

    @property
    def split(self) -> str:
        """The example's part of the data."""
        return self.scores.split

    @property
    def kind(self) -> str:
        """What kind of response it is."""
        return self.scores.kind

    @property
    def statistics(self) -> TokenStatistics:
        """Its own rows."""
        values = {f.name: getattr(self.pack, f.name) for f in fields(self.pack)}
        own = slice(self.first, self.first + len(self.token_ids))
        return TokenStatistics(**{n: v[own] for n, v in values.items() if v is not None})

    def summary(self) -> ResponseScores:
        """One row; raise `InputError` when a log-prob is NaN or infinite."""
        scores = self.scores
        if not (math.isfinite(scores.logp) and math.isfinite(scores.argmax_logp)):
            raise InputError(
                f"the log-prob of example {self.example!r}, {self.kind}, is {scores.logp}: the "
                "model has diverged; lower the learning rate, or check its weights for NaN"
            )
        return scores


def lm_head(model: torch.nn.Module) -> dict[str, Any]:
    """The LM head as keyword arguments of `token_statistics`; `InputError` if there is none."""
    model = unwrapped(model)
    embedding = model.get_output_embeddings()
    if embedding is None:
        raise InputError(f"{type(model).__name__} has no LM head; pass a causal language model")
    config = model.config.get_text_config()
    return {
        "head": _adapted(embedding),
        "bias": getattr(embedding, "bias", None),
        "softcap": getattr(config, "final_logit_softcapping", None),
        "logit_scale": _logit_scale(config),
    }


def _adapted(head: Any) -> Tensor:
    """The head's weights with LoRA's active updates of them, if it has any."""
    weight: Tensor = head.weight
    if hasattr(head, "get_delta_weight") and not (head.disable_adapters or head.merged):
        for adapter in head.active_adapters:
            if adapter in head.lora_A:
                weight = weight + head.get_delta_weight(adapter)
    return weight


def _logit_scale(config: Any) -> float:
    """What a model multiplies its head's product by, under the names that families have for it."""
    factor = getattr(config, "logit_scale", None) or 1.0  # Cohere
    factor *= getattr(config, "lm_head_multiplier", None) or 1.0  # Falcon-H1
    return float(factor / (getattr(config, "logits_scaling", None) or 1.0))  # Granite


def _attending(model: PreTrainedModel, inputs: dict[str, Any]) -> AbstractContextManager[None]:
    return tree_attention(model) if "tree" in inputs else nullcontext()


def _hidden(
    model: PreTrainedModel, passes: Sequence[Pass], dtype: torch.dtype | None
) -> Float[Tensor, "tokens hidden"]:
    """Hidden states that predict the response tokens, pass by pass."""
    trunk: Any = model.base_model
    states = []
    for one in passes:
        with autocast(model.device, dtype), _attending(model, one.inputs):
            states.append(trunk(**one.inputs).last_hidden_state[0][one.rows])
    return torch.cat(states)


def _statistics(
    model: torch.nn.Module,
    hidden: Float[Tensor, "tokens hidden"],
    targets: Int[Tensor, " tokens"],
    dtype: torch.dtype | None,
) -> TokenStatistics:
    head = lm_head(model)
    product = product_dtype(head["head"].dtype, dtype, hidden.device)
    head["head"] = head["head"].to(product)
    return token_statistics(targets, hidden=hidden.to(product), **head)


def product_dtype(
    weights: torch.dtype, autocast: torch.dtype | None, device: torch.device
) -> torch.dtype:
    """The LM head's operands' type: autocast's on a GPU, whose 16-bit products have float32 logits.

    Elsewhere they have the operands' type, so the weights' is kept; nothing is widened.
    """
    narrows = device.type == "cuda" and autocast is not None
    return autocast if narrows and weights == torch.float32 else weights  # type: ignore[return-value]


def _read(
    model: torch.nn.Module, passes: Sequence[Pass], dtype: torch.dtype | None, sharded: bool
) -> list[TokenStatistics]:
    """Statistics of the passes' response tokens: all at once, or pass by pass where sharded."""
    inner = unwrapped(model)
    if not sharded:
        hidden = _hidden(inner, passes, dtype)
        return [_statistics(inner, hidden, torch.cat([one.targets for one in passes]), dtype)]
    parts = []
    for one in passes:

        def read(hidden: Tensor, one: Pass = one) -> TokenStatistics:
            return _statistics(inner, hidden[one.rows], one.targets, dtype)

        with autocast(device_of(model), dtype), _attending(inner, one.inputs):
            parts.append(read_inside(model, read, one.inputs))
    return parts


def _shares_prefix(model: PreTrainedModel, item: EncodedItem) -> bool:
    """Whether a packed pass means the same as separate ones for this model.

    It does for attention with global causal masks; a sliding window must not be shorter than the
    prompt with its longest response, and recurrent (state-space) layers cannot be packed this
    way. Models whose attention is not torch's own (eager, flash) are scored plainly.
    """
    if not supports_tree(model):
        return False
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not layers <= {"full_attention", "sliding_attention"}:
        return False
    window = getattr(config, "sliding_window", None) or math.inf
    if layers == {"full_attention"} and not getattr(config, "use_sliding_window", True):
        window = math.inf
    return len(item.prompt_ids) + max(map(len, item.response_ids.values())) <= window


@torch.no_grad()
def hidden_states(
    model: torch.nn.Module,
    item: EncodedItem,
    *,
    shared_prefix: bool = True,
    dtype: torch.dtype | None = None,
) -> dict[str, Float[Tensor, "_ hidden"]]:
    """What the LM head reads to predict each response's tokens, [tokens, hidden] by kind.

    The first row is the state of the prompt's last token, the last that of the response's last but
    one. The model's mode (train or eval) and its weights' types are the caller's: 16-bit ones are
    multiplied as they are. Options as for `score_responses`. Raises `InputError` where the weights
    are sharded: what reads hidden states reads the LM head as well.
    """
    if is_sharded(model):
        raise InputError("the model is sharded (FSDP or ZeRO-3); load it whole in one process")
    inner = unwrapped(model)
    share = shared_prefix and _shares_prefix(inner, item)
    hidden = _hidden(inner, passes([item], share, None, inner.device), dtype)
    lengths = map(len, item.response_ids.values())
    return dict(zip(item.response_ids, hidden.split([*lengths]), strict=True))


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast to `dtype`, or nothing when it is None or float32."""
    if dtype is None or dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def has_bf16_matmul() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16)."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where this device multiplies it in hardware, else float32."""
    fast = device.type == "cuda" or has_bf16_matmul()
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def _exact_weights(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Within it, 16-bit weights on a CPU without 16-bit arithmetic are float32, the same numbers.

    Such a CPU converts them for every product, several times slower than it multiplies float32, and
    rounds what goes from layer to layer. Costs a float32 copy of the weights while it lasts.
    """
    emulated = device.type == "cpu" and not has_bf16_matmul()
    places: list[tuple[dict[str, Any], str, Tensor]] = [
        (place, name, tensor)
        for module in (model.modules() if emulated else ())
        for place in (cast(dict[str, Any], module._parameters), module._buffers)
        for name, tensor in place.items()
        if tensor is not None and tensor.dtype in (torch.bfloat16, torch.float16)
    ]
    copies = {id(tensor): tensor.detach().float() for _, _, tensor in places}  # tied ones stay one
    try:
        for place, name, tensor in places:
            place[name] = copies[id(tensor)]
        yield
    finally:
        for place, name, tensor in places:
            place[name] = tensor


@torch.no_grad()
def score_responses(
    model: torch.nn.Module,
    items: Sequence[EncodedItem],
    *,
    shared_prefix: bool = True,
    dtype: torch.dtype | None = None,
) -> Iterator[ScoredResponse]:
    """Score every response of every item, yielding per-token statistics item by item.

    `model` is a transformers causal LM, possibly wrapped by PEFT or DDP; it is put in eval mode and
    restored. `dtype` runs its body under autocast; accumulation is float32 either way. Without it,
    16-bit weights on a CPU that has no arithmetic for them are scored in float32.
    `shared_prefix=False` makes one pass a response instead of one an item.

    Weights that FSDP2 or ZeRO-3 shards stay so, and are multiplied in the types they train in: then
    every process has to call this, be it with other items or none, and to take all it yields.
    """
    inner, sharded = unwrapped(model), is_sharded(model)
    device = device_of(model)
    lm_head(inner)
    was_training = model.training
    model.eval()
    as_they_are = sharded or dtype not in (None, torch.float32)
    try:
        with nullcontext() if as_they_are else _exact_weights(inner, device):
            share = shared_prefix and all(_shares_prefix(inner, item) for item in items)
            packed = packs(items, device)
            common = common_length(items) if share else 0
            responses = sum(len(item.response_ids) for item in items)
            planned = len(packed) + (common > 0) if share else responses
            with equal_passes(model, planned) if sharded else nullcontext():
                start = None
                if common > 0:
                    first = start_pass(items, common, device)
                    _read(model, [first], dtype, sharded)
                    start = first.inputs["tree"]
                for pack in packed:
                    parts = _read(model, passes(pack, share, start, device), dtype, sharded)
                    yield from _split(pack, parts)
    finally:
        model.train(was_training)


def _split(
    items: Sequence[EncodedItem], parts: Sequence[TokenStatistics]
) -> Iterator[ScoredResponse]:
    responses = [(item, kind, ids) for item in items for kind, ids in item.response_ids.items()]
    values = {f.name: [getattr(part, f.name) for part in parts] for f in fields(TokenStatistics)}
    pack = TokenStatistics(**{n: torch.cat(v).cpu() for n, v in values.items() if v[0] is not None})
    first = 0
    for (item, kind, ids), sums in zip(responses, _sums(pack, responses), strict=True):
        logp, argmax_logp, entropy, peakiness = sums
        n = len(ids)
        scores = ResponseScores(
            item.example, item.split, kind, logp, argmax_logp, entropy / n, peakiness / n, n
        )
        yield ScoredResponse(scores, ids, pack, first)
        first += n


def _sums(
    pack: TokenStatistics, responses: Sequence[tuple[EncodedItem, str, list[int]]]
) -> list[list[float]]:
    """Each response's sums of log-prob, argmax log-prob, entropy and peakiness, in float64."""
    columns = (pack.target_logp, pack.argmax_logp, pack.entropy, pack.peakiness)
    lengths = torch.tensor([len(ids) for _, _, ids in responses])
    found = torch.segment_reduce(torch.stack(columns, 1).double(), "sum", lengths=lengths)
    return found.tolist()


def score(
    model: torch.nn.Module, items: Sequence[EncodedItem], **options: Any
) -> list[ResponseScores]:
    """Return the scores of every response of every item: log-prob sums in nats, entropy in nats.

    `model` is a transformers causal LM; options are those of `score_responses` (`dtype`,
    `shared_prefix`). Raises `InputError` where a log-prob is NaN or infinite, or without LM head.

    >>> from squeeze import score
    >>> from squeeze.models import load
    >>> from squeeze.data.encoding import EncodedItem
    >>> model, tokenizer = load(directory)
    >>> item = EncodedItem("a", "train", tokenizer("2 + 2 =").input_ids, {
    ...     "chosen": tokenizer(" 4").input_ids, "rejected": tokenizer(" 5!").input_ids})
    >>> [(row.kind, row.logp < 0, row.logp <= row.argmax_logp) for row in score(model, [item])]
    [('chosen', True, True), ('rejected', True, True)]
    """
    return [response.summary() for response in score_responses(model, items, **options)]
