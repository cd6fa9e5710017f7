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
from squeeze.kernels.chunked import has_bf16_matmul
from squeeze.tree_attention import Tree, supports_tree, tree_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Tokens that one pass is meant to hold: enough to keep the device busy, and what is between layers
# in a processor's caches.
PACKED_TOKENS = {"cpu": 1024, "cuda": 16_384}


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


def _unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    """The transformers model inside DDP and PEFT wrappers (adapters stay active in its layers)."""
    inner: Any = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner  # type: ignore[no-any-return]


def _pack(
    items: Sequence[EncodedItem], device: torch.device, skip: int
) -> tuple[Int[Tensor, "1 length"], Int[Tensor, "1 length"]]:
    """Token ids and position ids of prompts without their first `skip` tokens, then of responses.

    The last token of a response predicts nothing and is left out.
    """
    ids: list[int] = []
    positions: list[int] = []
    for item in items:
        ids += item.prompt_ids[skip:]
        positions += range(skip, len(item.prompt_ids))
    for item in items:
        prompt = len(item.prompt_ids)
        for response in item.response_ids.values():
            ids += response[:-1]
            positions += range(prompt, prompt + len(response) - 1)
    return torch.tensor([ids], device=device), torch.tensor([positions], device=device)


def lm_head(model: torch.nn.Module) -> dict[str, Any]:
    """The LM head as keyword arguments of `token_statistics`; `InputError` if there is none."""
    model = _unwrapped(model)
    embedding = model.get_output_embeddings()
    if embedding is None:
        raise InputError(f"{type(model).__name__} has no LM head; pass a causal language model")
    config = model.config.get_text_config()
    return {
        "head": embedding.weight,
        "bias": getattr(embedding, "bias", None),
        "softcap": getattr(config, "final_logit_softcapping", None),
    }


def _hidden_shared(
    model: PreTrainedModel, items: Sequence[EncodedItem], start: Tree | None
) -> Float[Tensor, "tokens hidden"]:
    """Hidden states that predict the response tokens, item by item and response by response."""
    device, skip = model.device, start.length if start else 0
    ids, positions = _pack(items, device, skip)
    prompts = [len(item.prompt_ids) - skip for item in items]
    lengths = [[len(r) - 1 for r in item.response_ids.values()] for item in items]
    trunk: Any = model.base_model
    tree = Tree(prompts, lengths, device, start)
    with tree_attention(model):
        output = trunk(
            input_ids=ids,
            position_ids=positions,
            attention_mask=_NO_MASK.to(device),
            use_cache=False,
            tree=tree,
        )
    hidden = output.last_hidden_state[0]
    rows: list[int] = []
    first, last_of_prompt = sum(prompts), -1
    for prompt, answers in zip(prompts, lengths, strict=True):
        last_of_prompt += prompt
        for length in answers:
            rows += [last_of_prompt, *range(first, first + length)]
            first += length
    return hidden[torch.tensor(rows, device=device)]  # type: ignore[no-any-return]


# transformers takes a mask of four dimensions as it is and builds none; the tree is what counts.
_NO_MASK = torch.ones(1, 1, 1, 1, dtype=torch.bool)


def _common_start(model: PreTrainedModel, items: Sequence[EncodedItem]) -> Tree | None:
    """What all prompts begin with, read once; None where there is no such thing or no use."""
    if len(items) < 2:
        return None
    first, last = (pick(item.prompt_ids for item in items) for pick in (min, max))
    common = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    common = min(common, len(min((item.prompt_ids for item in items), key=len)) - 1)
    if common < 1:
        return None
    start = Tree([common], [[]], model.device, remember=True)
    trunk: Any = model.base_model
    ids = torch.tensor([first[:common]], device=model.device)
    with tree_attention(model):
        trunk(input_ids=ids, attention_mask=_NO_MASK.to(model.device), use_cache=False, tree=start)
    return start


def _hidden_plain(
    model: PreTrainedModel, items: Sequence[EncodedItem]
) -> Float[Tensor, "tokens hidden"]:
    """The same by one ordinary pass a response; the reference for the shared-prefix path."""
    trunk: Any = model.base_model
    states = []
    for item in items:
        for response in item.response_ids.values():
            ids = torch.tensor([item.prompt_ids + response[:-1]], device=model.device)
            hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
            states.append(hidden[len(item.prompt_ids) - 1 :])
    return torch.cat(states)


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
    multiplied as they are. Options as for `score_responses`.
    """
    inner = _unwrapped(model)
    share = shared_prefix and _shares_prefix(inner, item)
    with autocast(inner.device, dtype):
        hidden = _hidden(inner, [item], share, None)
    lengths = map(len, item.response_ids.values())
    return dict(zip(item.response_ids, hidden.split([*lengths]), strict=True))


def _hidden(
    model: PreTrainedModel, items: Sequence[EncodedItem], share: bool, start: Tree | None
) -> Float[Tensor, "tokens hidden"]:
    return _hidden_shared(model, items, start) if share else _hidden_plain(model, items)


def _tokens(item: EncodedItem) -> int:
    return len(item.prompt_ids) + sum(map(len, item.response_ids.values()))


def _packs(items: Sequence[EncodedItem], device: torch.device) -> Iterator[list[EncodedItem]]:
    """The items in order, as many at once as a pass is meant to hold, one at least."""
    limit = PACKED_TOKENS["cuda" if device.type == "cuda" else "cpu"]
    pack: list[EncodedItem] = []
    size = 0
    for item in items:
        if pack and size + _tokens(item) > limit:
            yield pack
            pack, size = [], 0
        pack.append(item)
        size += _tokens(item)
    if pack:
        yield pack


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast to `dtype`, or nothing when it is None or float32."""
    if dtype is None or dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


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
    """
    inner = _unwrapped(model)
    was_training = model.training
    model.eval()
    asked_for_rounding = dtype not in (None, torch.float32)
    exact = nullcontext() if asked_for_rounding else _exact_weights(inner, inner.device)
    try:
        with exact:
            head = lm_head(inner)
            share = shared_prefix and all(_shares_prefix(inner, item) for item in items)
            with autocast(inner.device, dtype):
                start = _common_start(inner, items) if share else None
            for pack in _packs(items, inner.device):
                with autocast(inner.device, dtype):
                    hidden = _hidden(inner, pack, share, start)
                yield from _split(pack, hidden.to(head["head"].dtype), head)
    finally:
        model.train(was_training)


def _split(
    items: Sequence[EncodedItem], hidden: Float[Tensor, "tokens hidden"], head: dict[str, Any]
) -> Iterator[ScoredResponse]:
    responses = [(item, kind, ids) for item in items for kind, ids in item.response_ids.items()]
    targets = [token for _, _, ids in responses for token in ids]
    found = token_statistics(torch.tensor(targets, device=hidden.device), hidden=hidden, **head)
    values = {f.name: getattr(found, f.name) for f in fields(found)}
    pack = TokenStatistics(**{n: v.cpu() for n, v in values.items() if v is not None})
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
