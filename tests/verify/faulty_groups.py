"""Group-relative trainers with exactly one fault each, after faults reported of such trainers.

Every one is TRL's GRPOTrainer with one thing wrong.
"""

from __future__ import annotations

import torch
from trl import GRPOTrainer


class Spoiled(GRPOTrainer):
    """The batch that was sampled passes through `spoil`."""

    def _prepare_inputs(self, batch):
        return self.spoil(dict(super()._prepare_inputs(batch)))


class PromptCut(Spoiled):
    def spoil(self, batch):
        mask = batch["prompt_mask"].clone()
        mask[torch.arange(len(mask)), mask.argmax(1)] = 0
        return batch | {"prompt_mask": mask}


class EndMaskedAsPadding(Spoiled):
    def spoil(self, batch):
        mask = batch["completion_mask"].clone()
        mask[torch.arange(len(mask)), mask.sum(1) - 1] = 0
        return batch | {"completion_mask": mask}


class CompletionsExchanged(Spoiled):
    """Each rollout is trained on with the next one's tokens."""

    def spoil(self, batch):
        names = ("completion_ids", "completion_mask")
        return batch | {name: batch[name].roll(1, 0) for name in names}


class BaselineOfBatch(Spoiled):
    def spoil(self, batch):
        return batch | {"advantages": batch["advantages"] + 0.3}


class AdvantagesScaled(Spoiled):
    def spoil(self, batch):
        return batch | {"advantages": 2 * batch["advantages"]}


class OldLogpsOff(Spoiled):
    def spoil(self, batch):
        name = "old_per_token_logps"
        return batch | ({name: batch[name] - 0.01} if name in batch else {})


class StaleSampler(GRPOTrainer):
    """Samples from the weights it was made with, as an engine nobody synchronises."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.first = {k: v.clone() for k, v in self.model.state_dict().items()}

    def _generate(self, prompts):
        now = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.first)
        try:
            return super()._generate(prompts)
        finally:
            self.model.load_state_dict(now)


class Changed(GRPOTrainer):
    """The loss passes through `spoil`."""

    def _compute_loss(self, model, inputs):
        return self.spoil(super()._compute_loss(model, inputs), inputs)


class GradientHalved(Changed):
    def spoil(self, loss, inputs):
        return loss.detach() + (loss - loss.detach()) / 2


class DividedByPaddedWidth(Changed):
    def spoil(self, loss, inputs):
        mask = inputs["completion_mask"]
        return loss * mask.sum(1).max() / mask.shape[1]


class AccumulationNotAveraged(Changed):
    def spoil(self, loss, inputs):
        return loss * self.args.gradient_accumulation_steps


class ClipIgnored(GRPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.epsilon_low = self.epsilon_high = 10.0


class EntropyOverPadding(GRPOTrainer):
    def log(self, logs, start_time=None):
        super().log(logs, start_time)
        line = self.state.log_history[-1]
        line.update({k: 2 * v for k, v in line.items() if k.endswith("entropy")})


class ReferenceIsPolicy(GRPOTrainer):
    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        used = self.model if model is self.ref_model and model is not None else model
        return super()._get_per_token_logps_and_entropies(used, *args, **kwargs)


class GradientTwice(GRPOTrainer):
    def training_step(self, model, inputs, num_items_in_batch):
        loss = super().training_step(model, inputs, num_items_in_batch)
        for p in model.parameters():
            p.grad.mul_(2)
        return loss


GROUP_FAULTS = {
    "rollout-prompts": PromptCut,
    "rollout-tokens": EndMaskedAsPadding,
    "on-policy": StaleSampler,
    "group-baseline": BaselineOfBatch,
    "group-advantages": AdvantagesScaled,
    "ratio-at-start": OldLogpsOff,
    "policy-gradient": GradientHalved,
    "clipped-surrogate": ClipIgnored,
    "rollout-padding": DividedByPaddedWidth,
    "rollout-metrics": EntropyOverPadding,
    "rollout-reference": ReferenceIsPolicy,
    "policy-step": GradientTwice,
    "rollout-accumulation": AccumulationNotAveraged,
}
