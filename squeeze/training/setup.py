"""Set-up of a run: pairs, tokenizer and encoded probe set, everything that bad input can stop.

Nothing is written, and no weights are loaded. What a run will cost is counted here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from squeeze.data.encoding import EncodedItem, apply_template
from squeeze.data.examples import PreferenceExample
from squeeze.data.probe_set import build_probe_set
from squeeze.distributed import processes, repeated_rows, share_batch
from squeeze.models import load_tokenizer
from squeeze.training.arms import Phase
from squeeze.training.config import RunConfig
from squeeze.training.inputs import Pairs, encode, probe_items
from squeeze.training.runner import phases_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS = 80.0  # of a training sequence, about


@dataclass(frozen=True)
class Setup:
    """A run that can start: its configuration, and its data ready for training and scoring."""

    config: RunConfig
    tokenizer: PreTrainedTokenizerBase
    train: list[PreferenceExample]
    held_out: list[PreferenceExample]
    items: list[EncodedItem]

    @cached_property
    def phases(self) -> list[Phase]:
        """Every phase that is trained; what several arms begin with once."""
        arms = self.config.phase_arms()
        prefixes = [a.phases[:length] for a in arms for length in range(1, len(a.phases) + 1)]
        return list({phases_key(phases): phases[-1] for phases in prefixes}.values())

    @cached_property
    def probe_cost(self) -> float:
        """Tokens that one probe reads."""
        return float(
            sum(len(i.prompt_ids) + sum(map(len, i.response_ids.values())) for i in self.items)
        )

    def rows(self, phase: Phase) -> int:
        """How many rows an epoch of a phase has."""
        return len(self.train) * (2 if phase.on == "chosen+rejected" else 1)

    def total_cost(self) -> float:
        """Tokens that all probes and optimizer steps read, a backward pass as two forward ones."""
        total = self.probe_cost
        for phase in self.phases:
            steps = -(-self.rows(phase) // (phase.batch_size * phase.accumulation)) * phase.epochs
            probes = -(-phase.epochs // phase.probe_every)
            total += steps * step_cost(phase) + probes * self.probe_cost
        return total


def step_cost(phase: Phase) -> float:
    """Tokens of an optimizer step, a backward pass counted as two forward ones."""
    sequences = phase.batch_size * phase.accumulation * (2 if phase.kind == "dpo" else 1)
    return sequences * _TOKENS * 3


def set_up(config: RunConfig, say: Callable[[str], object]) -> Setup:
    """Read data and tokenizer, encode the probe set; `say` what is left out or repeated.

    Raises `InputError` for data, a template or a batch size that cannot be used.
    """
    given = Pairs.of(config)
    tokenizer = load_tokenizer(config.model)
    apply_template(tokenizer, config.template)
    pairs = given.fitting(tokenizer, config)
    if len(pairs) < len(given):
        say(
            f"left out: {len(given) - len(pairs)} of {len(given)} examples, whose prompts alone "
            f"take {config.max_length} tokens or more"
        )
    train, held_out = list(pairs.train), list(pairs.held_out)
    setup = Setup(config, tokenizer, train, held_out, probe_items(tokenizer, pairs, config))
    # Training pairs beyond the probe set must fit the model too.
    for item in build_probe_set(train[config.probe_train :] or train[:1], []).items:
        encode(tokenizer, item, config)
    for phase in setup.phases:
        _share(setup, phase, say)
    return setup


def _share(setup: Setup, phase: Phase, say: Callable[[str], object]) -> None:
    """A phase's batch must be one that the processes can share; say what they repeat."""
    batch_size, _ = share_batch(phase.batch_size, phase.accumulation)
    rows = setup.rows(phase)
    repeated = repeated_rows(rows, batch_size)
    if repeated:
        say(
            f"{phase.kind}: each epoch's last step repeats {repeated} of {rows} rows, for "
            f"{processes()} processes of batch size {batch_size} do not divide them; the "
            "trajectory is not exactly that of one process"
        )
