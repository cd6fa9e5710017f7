"""Prompt and response to token ids, joined exactly as TRL joins them; templates live here too.

The boundary: prompt and prompt+response are rendered and tokenized *together* by the chat template,
and the response begins where the two token sequences diverge (TRL's rule). The response therefore
ends with whatever the template writes after an assistant turn: the end-of-text token, and for
ChatML-like templates the newline behind it. Training and scoring both count those tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from squeeze.chat_template import require_bounded
from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.probe_set import ProbeItem
from squeeze.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The published Qwen3-4B replication's format, without markers: system text, end of text, user
# text, assistant text, end of text.
_UNMARKED = (
    "{% if messages[0]['role'] != 'system' %}You are a helpful assistant.{{ eos_token }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] in ('system', 'assistant') %}{{ eos_token }}{% endif %}{% endfor %}"
)
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PLAIN = (
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"unmarked": _UNMARKED, "chatml": _CHATML, "plain": _PLAIN}
# How TRL reads rows of texts: no chat template, but the tokenizer's own beginning and an end.
_AS_TEXT = {
    "text": _PLAIN,
    "hh": (
        "{% for m in messages %}{{ '\\n\\nAssistant: ' if m['role'] == 'assistant' else "
        "'\\n\\nHuman: ' }}{{ m['content'] }}{% endfor %}{{ '\\n\\nAssistant:' if "
        "add_generation_prompt else eos_token }}"
    ),
}

_RENAMED = {"seed": "unmarked"}


def current_template(name: str) -> str:
    """The name that a template has now; a note on stderr where that is not the one given."""
    if name in _RENAMED:
        print(f"squeeze: the template {name} is now called {_RENAMED[name]}", file=sys.stderr)
    return _RENAMED.get(name, name)


def apply_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Give the tokenizer one of the named templates, in place; "model" keeps its own.

    "text" and "hh" are no chat templates: prompt and answer as TRL trains on rows of texts.
    Raises `InputError` for an unknown name, or for "model" when the tokenizer has no template, or
    one that takes absurdly long or much.
    """
    template = current_template(template)
    if template in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[template]
    elif template in _AS_TEXT:
        begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + _AS_TEXT[template]
    elif template != "model":
        raise InputError(f"unknown template {template!r}; choose model, {', '.join(TEMPLATES)}")
    elif not tokenizer.chat_template:
        raise InputError(
            "the model's tokenizer has no chat template; choose one with --template: "
            + ", ".join(TEMPLATES)
        )
    else:
        own: Any = tokenizer.chat_template
        for text in own.values() if isinstance(own, dict) else [own]:
            if text not in TEMPLATES.values():
                require_bounded(str(text))


@dataclass(frozen=True)
class EncodedItem:
    """Token ids of a prompt and of its responses by kind; the model reads prompt + response."""

    example: str
    split: str
    prompt_ids: list[int]
    response_ids: dict[str, list[int]]


# What a template's program and the tokenizer behind it raise.
_FAILURES = (
    *(TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, AssertionError),
)


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool
) -> list[int]:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return rendered_ids(tokenizer, turns, generation=generation)


def rendered_ids(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, Any]], *, generation: bool
) -> list[int]:
    """Token ids of a conversation in the tokenizer's chat template: the one place that renders.

    Raises `InputError` where the template, or the tokenizer behind it, fails on the conversation.
    """
    try:
        encoded: Any = tokenizer.apply_chat_template(
            list(turns),  # type: ignore[arg-type]
            add_generation_prompt=generation,
            tokenize=True,
            return_dict=True,
        )
        return list(encoded["input_ids"])
    except _FAILURES as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"the chat template cannot render a conversation of {len(turns)} messages, "
            f"{ascii(turns)[:80]} ({said}); choose another --template"
        ) from error


def with_system(example: PreferenceExample, system: str) -> PreferenceExample:
    """The example with this system message, unless it has its own or the text is empty."""
    if not system or example.prompt[0].role == "system":
        return example
    return replace(example, prompt=(Message("system", system), *example.prompt))


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the answer begins, to generate from."""
    return _render(tokenizer, prompt, generation=True)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def encode_item(
    tokenizer: PreTrainedTokenizerBase,
    item: ProbeItem,
    max_length: int | None = None,
    *,
    cut: bool = False,
) -> EncodedItem:
    """Tokenize one probe item.

    `cut` drops what is beyond `max_length` tokens from the responses' ends, as TRL does in
    training. Raises `InputError` naming the example and the kind when prompt + response is longer
    (without `cut`) or a response has no tokens of its own.
    """
    prompt = _render(tokenizer, item.prompt, generation=True)
    full = {
        kind: _render(tokenizer, [*item.prompt, Message("assistant", text)], generation=False)
        for kind, text in item.responses.items()
    }
    boundary = min(_common_prefix(prompt, ids) for ids in full.values())
    if cut:
        full = {kind: ids[:max_length] for kind, ids in full.items()}
    for kind, ids in full.items():
        if max_length is not None and len(ids) > max_length:
            raise InputError(
                f"example {item.example!r}, {kind}: prompt + response is {len(ids)} tokens, more "
                f"than the {max_length} allowed; shorten or drop the example (squeeze replicate "
                "--too-long cut shortens answers)"
            )
        if len(ids) <= boundary or boundary == 0:
            raise InputError(
                f"example {item.example!r}, {kind}: the chat template leaves no "
                f"{'response' if boundary else 'prompt'} tokens; choose another --template"
            )
    return EncodedItem(
        item.example, item.split, prompt[:boundary], {k: ids[boundary:] for k, ids in full.items()}
    )
