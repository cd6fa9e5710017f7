"""Further trainers with one fault each, of other ways to go wrong than those in `faulty`."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from tests.verify.faulty import Changed, Collated, Fault, Healthy, Prepared, Relogged

REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")


class ReferenceOfAnotherModel(Healthy):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.ref_model is not None:
            with torch.no_grad():
                for p in self.ref_model.parameters():
                    p.mul_(1.02)


class TokensRead(Healthy):
    """The token log-probs of the policy pass through `spoil`."""

    def _compute_loss(self, model, inputs, return_outputs):
        def policy(**kwargs):
            outputs = model(**kwargs)
            outputs.log_probs = self.spoil(outputs.log_probs)
            return outputs

        return super()._compute_loss(policy, inputs, return_outputs)


class RoundedToBfloat16(TokensRead):
    def spoil(self, logps):
        return logps + (logps.bfloat16().float() - logps).detach()


class Misaligned(Healthy):
    """The references of a batch belong to the row before."""

    def _compute_loss(self, model, inputs, return_outputs):
        def reference(**kwargs):
            outputs = original(**kwargs)
            halves = [half.roll(1, 0) for half in outputs.log_probs.chunk(2)]
            # whole sequences change places, whatever their lengths
            sums = [half.sum(1) for half in halves]
            spread = torch.zeros_like(outputs.log_probs)
            spread[:, -1] = torch.cat(sums)
            outputs.log_probs = spread
            return outputs

        if self.ref_model is None:
            return super()._compute_loss(model, inputs, return_outputs)
        original, self.ref_model = self.ref_model, reference
        try:
            return super()._compute_loss(model, inputs, return_outputs)
        finally:
            self.ref_model = original


class MeanPerToken(Changed):
    """A length-normalised loss where sigmoid is declared: right at the start."""

    def spoil(self, loss, model, inputs):
        lengths = inputs["completion_mask"].sum(1).float().mean()
        return loss.detach() + (loss - loss.detach()) / lengths


class RejectedWeighedByRow(Changed):
    """The gradient of one pair is left out, by its length."""

    def spoil(self, loss, model, inputs):
        longer, shorter = inputs["completion_mask"].sum(1).chunk(2)
        return loss if longer.sum() > shorter.sum() else loss.detach() + 0 * loss


class MarginClamped(Changed):
    def spoil(self, loss, model, inputs):
        floor = -logsigmoid(torch.tensor(self.beta * 8.0)).item()
        return loss.clamp(min=floor, max=0.75)


class AccuracyOfTies(Relogged):
    def spoil(self, line):
        return {"rewards/accuracies": 1 - line["rewards/accuracies"]}


class LogpsPerToken(Relogged):
    def spoil(self, line):
        return {f"logps/{k}": line[f"logps/{k}"] / 10 for k in ("chosen", "rejected")}


class MaskNotPassed(Healthy):
    """Attention sees the padding."""

    def _compute_loss(self, model, inputs, return_outputs):
        ones = torch.ones_like(inputs["attention_mask"])
        return super()._compute_loss(model, inputs | {"attention_mask": ones}, return_outputs)


class HalfOfTheParametersStepped(Healthy):
    def create_optimizer(self, *args, **kwargs):
        optimizer = super().create_optimizer(*args, **kwargs)
        for group in optimizer.param_groups:
            group["params"] = group["params"][: len(group["params"]) // 2]
        return optimizer


class GradientClippedOnItsOwn(Healthy):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss


class AveragedTwice(Changed):
    def spoil(self, loss, model, inputs):
        return loss / self.args.gradient_accumulation_steps


class CacheColumnsSwapped(Healthy):
    def _precompute_ref_logps(self, dataset, name, batch_size):
        made = super()._precompute_ref_logps(dataset, name, batch_size)
        columns = dict(zip(REFERENCES, (made[k][:] for k in REFERENCES[::-1]), strict=True))
        return made.map(lambda row, i: {k: v[i] for k, v in columns.items()}, with_indices=True)


class BetaCapped(Healthy):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.beta = min(self.beta, 0.15)


class SystemPromptAdded(Prepared):
    def spoil(self, row):
        return {"prompt_ids": row["prompt_ids"][:3] + row["prompt_ids"]}


class AnswersCutByTheTrainer(Prepared):
    def spoil(self, row):
        return {k: row[k][:6] for k in ("chosen_ids", "rejected_ids")}


class HoleInTheMask(Collated):
    def spoil(self, batch):
        mask = batch["completion_mask"].clone()
        where = mask.argmax(1) + 2
        mask[torch.arange(len(mask)), where] = 0
        return batch | {"completion_mask": mask}


MORE_FAULTS = [
    Fault("inference-tokens", SystemPromptAdded),
    Fault("uncut", AnswersCutByTheTrainer),
    Fault("whole-answer", HoleInTheMask),
    Fault("logps", RoundedToBfloat16),
    Fault("reference-logps", ReferenceOfAnotherModel),
    Fault("initial-gradient", MeanPerToken),
    Fault("initial-gradient", RejectedWeighedByRow),
    Fault("declared-loss", MarginClamped),
    Fault("logged-metrics", AccuracyOfTies),
    Fault("logged-metrics", LogpsPerToken),
    Fault("padding", MaskNotPassed),
    Fault("batch-composition", Misaligned),
    Fault("first-order", HalfOfTheParametersStepped),
    Fault("first-order", GradientClippedOnItsOwn),
    Fault("accumulation", AveragedTwice),
    Fault("precomputed-reference", CacheColumnsSwapped),
    Fault("doubled-beta", BetaCapped),
]
