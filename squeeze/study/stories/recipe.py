"""Recipe of `squeeze stories`: what is trained on what, and for how long, as plain data.

It was chosen on seed 0, a development seed, and is fixed; see docs/stories.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """One training phase: passes over its data, the peak learning rate, rows an update."""

    epochs: int
    learning_rate: float
    batch_size: int


@dataclass(frozen=True)
class StoryRecipe:
    """Everything that determines a run but its data.

    `stories` are pretrained on with their instructions; on the first `instructed` of them the model
    is finetuned (only the story counts); the first `pairs` of those are DPO's chosen stories.
    `prompts` further ones are only generated for, `samples` times each, after the epochs of DPO in
    `looks` and its last. Lengths are in tokens.
    """

    seed: int = 0
    stories: int = 2000
    instructed: int = 300
    pairs: int = 48
    prompts: int = 24
    samples: int = 3
    vocabulary: int = 1024
    hidden_size: int = 192
    layers: int = 4
    max_length: int = 320
    max_new_tokens: int = 160
    pretraining: Schedule = Schedule(4, 2e-3, 16)
    sft: Schedule = Schedule(2, 5e-4, 16)
    dpo: Schedule = Schedule(16, 5e-4, 8)
    looks: tuple[int, ...] = (1, 2, 4, 8, 12)
    beta: float = 0.1

    @property
    def needed(self) -> int:
        """How many stories a run takes."""
        return self.stories + self.prompts

    @property
    def watched(self) -> tuple[int, ...]:
        """The epochs of DPO after which stories are generated."""
        return (*(e for e in self.looks if e < self.dpo.epochs), self.dpo.epochs)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON would hold it."""
        fields = asdict(self)
        return fields | {"looks": list(self.looks)}


def quick(seed: int = 0) -> StoryRecipe:
    """A recipe that runs all of the machinery in under a minute and proves nothing."""
    return StoryRecipe(
        seed=seed,
        stories=240,
        instructed=64,
        pairs=16,
        prompts=4,
        samples=2,
        vocabulary=512,
        hidden_size=64,
        layers=2,
        max_new_tokens=48,
        pretraining=Schedule(1, 3e-3, 16),
        sft=Schedule(1, 2e-3, 16),
        dpo=Schedule(2, 1e-3, 8),
        looks=(1,),
    )
