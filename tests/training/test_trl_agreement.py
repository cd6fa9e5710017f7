"""TRL's log-probs at step 0 are ours: same tokens, same boundary, same sums."""

import pytest

from squeeze.data.encoding import encode_item
from squeeze.data.families import build_probe_set
from squeeze.data.loading import load_examples, split
from squeeze.models import load
from squeeze.scoring import score
from squeeze.training.phases import PhasePlace, make_trainer, quiet
from squeeze.training.recipes import make_config


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


@pytest.mark.pretrained
def test_trl_logps_at_step_0_are_ours_on_smollm2(tmp_path):
    assert_trl_agrees("smollm2-135m", tmp_path)
