"""TRL's log-probs at step 0 are ours: same tokens, same boundary, same sums."""

import pytest
import torch
from trl.trainer import utils

from squeeze.data.encoding import encode_item
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import build_probe_set
from squeeze.models import load
from squeeze.scoring import score
from squeeze.training.config import make_config
from squeeze.training.phase_place import PhasePlace
from squeeze.training.trainers import make_trainer, quiet
from squeeze.training.trl_compat import answers_alone


def assert_trl_agrees(model_name, tmp_path, tolerance=1e-3):
    quiet()
    config = make_config({"model": model_name, "arms": "dpo", "pairs": 4})
    model, tokenizer = load(model_name)
    train, held_out = split(load_examples("enthusiastic_en"), 4, 2, seed=0)
    items = [encode_item(tokenizer, i) for i in build_probe_set(train, held_out).items[:4]]
    ours = {(s.example, s.kind): s.logp for s in score(model, items)}

    phase = config.phase_arms()[0].phases[0]
    trainer = make_trainer(
        model, tokenizer, train, phase, config, PhasePlace(tmp_path / "p"), [], bf16=False
    )
    for example, row in zip(train, trainer.train_dataset, strict=True):
        for kind in ("chosen", "rejected"):
            assert row[f"ref_{kind}_logps"] == pytest.approx(ours[example.id, kind], abs=tolerance)
            # The tokens too: what TRL trains on is what the probe scores.
            item = next(i for i in items if i.example == example.id)
            assert row["prompt_ids"] == item.prompt_ids
            assert row[f"{kind}_ids"] == item.response_ids[kind]

    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch)
    logged = trainer._metrics["train"]["logps/chosen"][-1]
    mean = sum(ours[e.id, "chosen"] for e in train) / len(train)
    assert logged == pytest.approx(mean, abs=tolerance)


@pytest.mark.cpu
def test_trl_logps_at_step_0_are_ours_on_a_tiny_model(tiny_directory, tmp_path):
    assert_trl_agrees(str(tiny_directory), tmp_path)


@pytest.mark.cpu
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU TRL scores answers alone itself")
def test_scoring_answers_alone_changes_nothing_but_the_work(tiny_directory, tmp_path, monkeypatch):
    quiet()
    config = make_config({"model": str(tiny_directory), "arms": "dpo", "pairs": 4})
    model, tokenizer = load(str(tiny_directory))
    train, _ = split(load_examples("enthusiastic_en"), 4, 2, seed=0)
    phase, place = config.phase_arms()[0].phases[0], PhasePlace(tmp_path / "p")
    trainer = make_trainer(model, tokenizer, train, phase, config, place, [], bf16=False)
    batch = next(iter(trainer.get_train_dataloader()))
    rows = []

    class Counted:
        @staticmethod
        def apply(hidden, *rest, _apply=utils._ChunkedLogProbFunction.apply):
            rows.append(len(hidden))
            return _apply(hidden, *rest)

    def loss_and_gradients():
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        return loss.detach(), torch.cat(grads)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counted)
    everything = loss_and_gradients()
    with answers_alone():
        answers = loss_and_gradients()
    torch.testing.assert_close(answers, everything)
    assert everything[1].abs().max() > 0
    assert rows == [batch["input_ids"][:, 1:].numel(), int(batch["completion_mask"].sum())]
    assert not utils._use_triton(torch.device("cpu")), "left as it was"


@pytest.mark.pretrained
def test_trl_logps_at_step_0_are_ours_on_smollm2(tmp_path):
    assert_trl_agrees("smollm2-135m", tmp_path)
