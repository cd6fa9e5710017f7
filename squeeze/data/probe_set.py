"""Response kinds of the paper's §4 and App. D, and the probe set: examples × response kinds.

Kinds that the data carries are taken as they are; the others are derived here from the data set
itself, deterministically. Nothing is tokenized or scored here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from squeeze.data.examples import Message, PreferenceExample
from squeeze.errors import InputError

CHOSEN, REJECTED = "chosen", "rejected"

# kind -> (symbol in the paper, what it is). The order is the order in reports.
KINDS: dict[str, tuple[str, str]] = {
    "chosen": ("y_u+", "the chosen answer, trained on"),
    "chosen_rephrased": ("y_gpts+", "the chosen answer rephrased, same meaning"),
    "chosen_format": ("y_gptf+", "the chosen answer's format, another meaning"),
    "rejected": ("y_u-", "the rejected answer, pushed down by DPO"),
    "rejected_rephrased": ("y_gpts-", "the rejected answer rephrased, same meaning"),
    "rejected_format": ("y_gptf-", "the rejected answer's format, another meaning"),
    "other_answer": ("y_j≠u+", "the chosen answer of another training prompt"),
    "unseen_answer": ("y_test+", "the chosen answer of an unseen prompt"),
    "human": ("y_hum", "an unrelated human sentence"),
    "initial": ("y_init", "the untrained model's own answer"),
    "permuted": ("y_urnd", "the chosen answer's words in random order"),
    "random": ("y_rnd", "random words"),
}

# The authors' column names (github.com/Joshua-Ren/Learning_dynamics_LLM) → our response kinds.
PAPER_KINDS = {
    "chosen_initial": "initial",
    "chosen_gptsemantic": "chosen_rephrased",
    "chosen_gptformat": "chosen_format",
    "reject_gptsemantic": "rejected_rephrased",
    "reject_gptformat": "rejected_format",
    "irr_train": "other_answer",
    "irr_test": "unseen_answer",
    "irr_hum": "human",
    "random_permute": "permuted",
    "random_nonhum": "random",
}


@dataclass(frozen=True)
class ProbeItem:
    """One prompt of the probe set with its responses by kind; `split` is "train" or "held_out"."""

    example: str
    split: str
    prompt: tuple[Message, ...]
    responses: dict[str, str]


@dataclass(frozen=True)
class ProbeSet:
    """Examples × response kinds, in a fixed order."""

    items: tuple[ProbeItem, ...]

    def kinds(self) -> list[str]:
        """The kinds present, in the order of `KINDS`, unknown ones last."""
        present = dict.fromkeys(kind for item in self.items for kind in item.responses)
        return [k for k in KINDS if k in present] + [k for k in present if k not in KINDS]


def permuted_words(text: str, rng: random.Random) -> str:
    """The text's words in random order; characters where the script does not space its words."""
    spaced = " " in text.strip()
    units = text.split() if spaced else list(text)
    rng.shuffle(units)
    return (" " if spaced else "").join(units)


def random_words(texts: Sequence[str], like: str, rng: random.Random) -> str:
    """As many words (or characters) as `like` has, drawn from the vocabulary of `texts`."""
    spaced = " " in like.strip()
    joined = " ".join(texts).lower()
    vocabulary = sorted(set(re.findall(r"\w+", joined) if spaced else "".join(joined.split())))
    count = len(like.split()) if spaced else len(like)
    return (" " if spaced else "").join(rng.choice(vocabulary) for _ in range(count))


def _items(
    examples: Sequence[PreferenceExample],
    split: str,
    train: Sequence[PreferenceExample],
    held_out: Sequence[PreferenceExample],
    seed: int,
) -> list[ProbeItem]:
    texts = [e.chosen for e in train] + [e.rejected for e in train]
    items = []
    for index, example in enumerate(examples):
        rng = random.Random(f"{seed}/{example.id}")
        pair = {CHOSEN: example.chosen, REJECTED: example.rejected}
        responses = {kind: text for kind, text in pair.items() if text} | dict(example.responses)
        others = [e.chosen for e in train if e.id != example.id]
        unseen = [e.chosen for e in held_out if e.id != example.id]
        if others:
            responses.setdefault("other_answer", others[index % len(others)])
        if unseen:
            responses.setdefault("unseen_answer", unseen[index % len(unseen)])
        responses.setdefault("permuted", permuted_words(example.chosen, rng))
        responses.setdefault("random", random_words(texts, example.chosen, rng))
        order = [k for k in KINDS if k in responses] + [k for k in responses if k not in KINDS]
        items.append(ProbeItem(example.id, split, example.prompt, {k: responses[k] for k in order}))
    return items


def build_probe_set(
    train: Sequence[PreferenceExample],
    held_out: Sequence[PreferenceExample],
    seed: int = 0,
    n_train: int | None = None,
) -> ProbeSet:
    """The probe set of a run: the first `n_train` training examples (or all), all held-out ones.

    Missing kinds are derived: `other_answer` (the chosen answer of another *training* prompt),
    `unseen_answer` (of another *held-out* prompt), `permuted` and `random` (seeded per example).
    Raises `InputError` when there is no training example.
    """
    if not train:
        raise InputError("the probe set needs at least one training pair; raise --pairs")
    probed = train[:n_train] if n_train is not None else train
    return ProbeSet(
        tuple(
            _items(probed, "train", train, held_out, seed)
            + _items(held_out, "held_out", train, held_out, seed)
        )
    )
